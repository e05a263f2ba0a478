"""What displays draw is what estimators hold."""

import sys
import warnings
from itertools import combinations

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from matplotlib import pyplot as plt
from matplotlib.text import Text
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.displays import CoefficientDisplay, ConvergenceDisplay, RegularizationPathDisplay

DESCENT = {"solver": "sgd", "max_iter": 30, "tol": 0, "n_iter_no_change": 100}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(autouse=True)
def agg():
    """Pictures that no window shows, closed after each test, and settings left as they were."""
    plt.switch_backend("agg")
    before = dict(mpl.rcParams)
    yield
    assert dict(mpl.rcParams) == before
    plt.close("all")


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def search(iris):
    return TorchSoftmaxClassifierCV(Cs=[10, 0.1, 1], cv=3, l1_ratios=(0.0, 0.5)).fit(*iris)


class TestConvergenceDisplay:
    @pytest.mark.parametrize("settings", [{"solver": "newton"}, {"solver": "lbfgs"}, DESCENT])
    def test_curves_are_the_estimators(self, iris, settings):
        clf = TorchSoftmaxClassifier(**settings).fit(*iris)
        display = ConvergenceDisplay.from_estimator(clf, kind="objective")
        (line,) = display.lines_
        np.testing.assert_array_equal(line.get_xdata(), np.arange(clf.n_iter_[0] + 1))
        np.testing.assert_array_equal(line.get_ydata(), clf.loss_curve_)
        assert display.ax_.get_yscale() == "linear"
        assert display.figure_ is display.ax_.figure

    def test_of_a_pipeline_the_last_step_counts(self, iris):
        pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier()).fit(*iris)
        (line,) = ConvergenceDisplay.from_estimator([pipeline], kind="objective").lines_
        np.testing.assert_array_equal(line.get_ydata(), pipeline[-1].loss_curve_)

    def test_no_fits_are_nothing_to_draw(self):
        with pytest.raises(ValueError, match="estimator holds no fits"):
            ConvergenceDisplay.from_estimator([])

    def test_gap_is_the_distance_from_the_minimum(self, iris):
        exact = TorchSoftmaxClassifier(solver="newton", tol=1e-14).fit(*iris).loss_curve_[-1]
        clf = TorchSoftmaxClassifier(solver="lbfgs", tol=1e-6).fit(*iris)
        line = ConvergenceDisplay.from_estimator(clf).lines_[0]
        assert abs(line.get_ydata() - (clf.loss_curve_ - exact)).max() <= clf.optimality_gap_
        assert line.axes.get_yscale() == "log"

    @pytest.mark.parametrize("settings", [{}, {**DESCENT, "batch_size": 32, "random_state": 0}, {"l1_ratio": 1.0}])
    def test_seconds_rise_from_the_begin_of_the_fit(self, iris, settings):
        clf = TorchSoftmaxClassifier(**settings).fit(*iris)
        assert len(clf.seconds_curve_) == len(clf.loss_curve_)
        assert clf.seconds_curve_[0] >= 0
        assert (np.diff(clf.seconds_curve_) > 0).all()
        line = ConvergenceDisplay.from_estimator(clf, kind="objective", x="seconds").lines_[0]
        np.testing.assert_array_equal(line.get_xdata(), clf.seconds_curve_)

    @pytest.mark.parametrize(("settings", "n_without"), [({"solver": "newton"}, 0), (DESCENT, 1)])
    def test_validation_scores_stand_at_their_iterations(self, iris, settings, n_without):
        clf = TorchSoftmaxClassifier(early_stopping=True, random_state=0, **settings).fit(*iris)
        line = ConvergenceDisplay.from_estimator(clf, kind="validation_score").lines_[0]
        np.testing.assert_array_equal(line.get_ydata(), clf.validation_scores_)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(n_without, clf.n_iter_[0] + 1))

    def test_scores_of_a_fit_that_was_interrupted_stand_at_the_ends_of_epochs(self, iris):
        class Interrupt:
            def setup(self, estimator, context): ...
            def teardown(self, estimator, context): ...
            def on_fit_task_begin(self, estimator, context, **_): ...
            def on_fit_task_end(self, estimator, context, **_):
                if context.task_id == 4 and context.task_name == "epoch":
                    raise KeyboardInterrupt

        clf = TorchSoftmaxClassifier(early_stopping=True, random_state=0, **DESCENT).set_callbacks(Interrupt())
        with pytest.raises(KeyboardInterrupt):
            clf.fit(*iris)
        line = ConvergenceDisplay.from_estimator(clf, kind="validation_score").lines_[0]
        drawn = np.isfinite(line.get_ydata())
        np.testing.assert_array_equal(line.get_xdata()[drawn], [1, 2, 3, 4])  # of five, whose end is in no curve
        np.testing.assert_array_equal(line.get_ydata()[drawn], clf.validation_scores_[:4])

    def test_several_fits_in_one_picture(self, iris):
        fits = [TorchSoftmaxClassifier(solver=solver).fit(*iris) for solver in ("newton", "lbfgs")]
        styles = [{"color": "red"}, {"color": "blue"}]
        display = ConvergenceDisplay.from_estimator(fits, name=["a", "b"], curve_kwargs=styles)
        assert [line.get_color() for line in display.lines_] == ["red", "blue"]
        again = ConvergenceDisplay.from_estimator(fits[0], name="c", ax=display.ax_)
        assert again.ax_ is display.ax_
        assert [text.get_text() for text in again.ax_.get_legend().get_texts()] == ["a", "b", "c"]

    def test_what_is_not_there(self, iris):
        clf = TorchSoftmaxClassifier().fit(*iris)
        with pytest.raises(ValueError, match="early_stopping=True"):
            ConvergenceDisplay.from_estimator(clf, kind="validation_score")
        with pytest.raises(ValueError, match="kind must be"):
            ConvergenceDisplay.from_estimator(clf, kind="loss")
        with pytest.raises(ValueError, match="x must be"):
            ConvergenceDisplay.from_estimator(clf, x="passes")
        with pytest.raises(ValueError, match="name has 2 entries, but there are 1"):
            ConvergenceDisplay.from_estimator(clf, name=["a", "b"])
        with pytest.raises(TypeError, match="keeps no loss_curve_"):
            ConvergenceDisplay.from_estimator(LogisticRegression().fit(*iris))
        stream = TorchSoftmaxClassifier(solver="sgd", early_stopping=True).fit(*iris)
        stream.set_params(early_stopping=False).partial_fit(*iris)
        with pytest.raises(ValueError, match="use kind='objective'"):
            ConvergenceDisplay.from_estimator(stream)
        with pytest.raises(ValueError, match="use x='iteration'"):
            ConvergenceDisplay.from_estimator(stream, kind="objective", x="seconds")
        assert not hasattr(stream, "validation_scores_")  # those of the fit before
        assert not plt.get_fignums()


class TestCoefficientDisplay:
    def test_top_features_by_name(self):
        data = load_iris(as_frame=True)
        clf = TorchSoftmaxClassifier().fit(data.data, data.target_names[data.target])
        display = CoefficientDisplay.from_estimator(clf, n_features=3)
        assert [panel.get_title() for panel in display.axes_] == list(clf.classes_)
        for panel, of_class in zip(display.axes_, clf.coef_, strict=True):
            order = np.argsort(-abs(of_class))[:3]
            assert [bar.get_width() for bar in panel.patches] == list(of_class[order])
            assert [label.get_text() for label in panel.get_yticklabels()] == list(clf.feature_names_in_[order])

    def test_two_classes_have_one_panel(self):
        X, y = load_breast_cancer(return_X_y=True)
        display = CoefficientDisplay.from_estimator(LogisticRegression(solver="newton-cholesky").fit(X / X.std(0), y))
        (panel,) = display.axes_
        assert panel.get_title() == "1 against 0"
        assert len(panel.patches) == 10
        assert {label.get_text() for label in panel.get_yticklabels()} <= {f"x{j}" for j in range(30)}

    def test_zeros_are_left_out_also_of_sparse_coefficients(self, iris):
        clf = TorchSoftmaxClassifier(l1_ratio=1.0, C=0.1).fit(*iris)
        counts = (clf.coef_ != 0).sum(axis=1).tolist()
        for model in (clf, clf.sparsify()):
            assert [len(p.patches) for p in CoefficientDisplay.from_estimator(model).axes_] == counts
        assert sp.issparse(clf.coef_)

    @pytest.mark.parametrize(("n_classes", "n_letters"), [(3, 60), (30, 4), (2, 60)])
    def test_names_and_bars_lie_over_nothing(self, n_classes, n_letters):
        rng = np.random.default_rng(0)
        X = pd.DataFrame(rng.normal(size=(300, 12)), columns=[f"{j:x<{n_letters}}" for j in range(12)])
        display = CoefficientDisplay.from_estimator(TorchSoftmaxClassifier().fit(X, np.arange(300) % n_classes))
        display.figure_.draw_without_rendering()
        boxes = [panel.get_tightbbox() for panel in display.axes_]
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        assert all(panel.get_window_extent().height > 100 for panel in display.axes_)
        assert min(box.x0 for box in boxes) >= 0

    def test_names_come_from_the_pipeline(self):
        data = load_iris(as_frame=True)
        pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier()).fit(data.data, data.target)
        display = CoefficientDisplay.from_estimator(pipeline)
        assert list(display.feature_names) == data.feature_names
        named = CoefficientDisplay.from_estimator(pipeline, feature_names=list("abcd"))
        assert {label.get_text() for label in named.axes_[0].get_yticklabels()} == set("abcd")

    @pytest.mark.parametrize("step", ["passthrough", FunctionTransformer(np.log1p)])
    def test_steps_without_names(self, iris, step):
        pipeline = make_pipeline(step, TorchSoftmaxClassifier()).fit(*iris)
        assert list(CoefficientDisplay.from_estimator(pipeline).feature_names) == ["x0", "x1", "x2", "x3"]

    def test_images_hold_all_coefficients_on_one_scale(self):
        X, y = load_digits(return_X_y=True)
        clf = TorchSoftmaxClassifier(C=1e-3).fit(X, y)
        display = CoefficientDisplay.from_estimator(clf, image_shape=(8, 8))
        assert len(display.axes_) == 10
        for panel, of_class in zip(display.axes_, clf.coef_, strict=True):
            (image,) = panel.images
            np.testing.assert_array_equal(image.get_array(), of_class.reshape(8, 8))
            assert image.get_clim() == (-abs(clf.coef_).max(), abs(clf.coef_).max())

    def test_images_without_a_coefficient_are_blank(self, iris):
        clf = TorchSoftmaxClassifier(l1_ratio=1, C=1e-5).fit(*iris)
        display = CoefficientDisplay.from_estimator(clf, image_shape=np.array([2, 2]))
        for panel in display.axes_:
            low, high = panel.images[0].get_clim()
            assert low == -high < 0

    def test_coefficients_of_pairs_of_classes_are_refused(self, iris):
        with pytest.raises(TypeError, match="are not those of its classes_"):
            CoefficientDisplay.from_estimator(SVC(kernel="linear").fit(*iris))
        X, y = iris
        two = SVC(kernel="linear").fit(X[:100], y[:100])
        assert len(CoefficientDisplay.from_estimator(two).axes_) == 1

    def test_errors(self, iris):
        clf = TorchSoftmaxClassifier().fit(*iris)
        with pytest.raises(ValueError, match=r"image_shape=\(2.0, 2.0\) has no room"):
            CoefficientDisplay.from_estimator(clf, image_shape=(2.0, 2.0))
        with pytest.raises(ValueError, match=r"image_shape=\(3, 3\) has no room for 4 features"):
            CoefficientDisplay.from_estimator(clf, image_shape=(3, 3))
        with pytest.raises(ValueError, match="feature_names has 2 entries, but there are 4"):
            CoefficientDisplay.from_estimator(clf, feature_names=["a", "b"])
        ax = plt.figure().add_axes((0, 0, 1, 1))
        with pytest.raises(ValueError, match="ax must belong to a grid"):
            CoefficientDisplay.from_estimator(clf, ax=ax)
        assert ax.axison


class TestRegularizationPathDisplay:
    def test_of_a_pipeline_the_last_step_counts(self, iris):
        pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifierCV(Cs=3, cv=3)).fit(*iris)
        np.testing.assert_array_equal(RegularizationPathDisplay.from_estimator(pipeline).Cs, pipeline[-1].Cs_)

    @pytest.mark.parametrize("l1_ratio", [None, 0.0, 0.5])
    def test_paths_are_the_estimators_in_the_order_of_C(self, search, l1_ratio):
        display = RegularizationPathDisplay.from_estimator(search, l1_ratio=l1_ratio)
        place = list(search.l1_ratios_).index(search.l1_ratio_ if l1_ratio is None else l1_ratio)
        scores, coefficients = display.axes_
        np.testing.assert_array_equal(scores.lines[0].get_xdata(), [0.1, 1, 10])
        np.testing.assert_allclose(scores.lines[0].get_ydata(), search.scores_[:, place, [1, 2, 0]].mean(axis=0))
        band = scores.collections[0].get_paths()[0].vertices
        low = search.scores_[:, place, 1].mean() - search.scores_[:, place, 1].std()
        assert np.isclose(band[np.isclose(band[:, 0], 0.1), 1], low).any()
        paths = np.array([line.get_ydata() for line in coefficients.lines[:-1]]).reshape(3, 4, 3)  # (K, d, n_cs)
        np.testing.assert_allclose(paths[..., 0], search.coefs_paths_[:, place, 1, :, :4].mean(axis=0))
        assert set(scores.lines[-1].get_xdata()) == {search.C_}
        assert scores.get_ylabel() == "Negative log loss"

    def test_the_mean_of_chosen_ratios_need_not_have_been_tried(self, iris):
        search = TorchSoftmaxClassifierCV(Cs=3, l1_ratios=(0.0, 0.5, 1.0), cv=3, refit=False).fit(*iris)
        assert RegularizationPathDisplay.from_estimator(search).scores.shape == (3, 3)

    def test_no_penalty_is_drawn_beyond_the_others(self, iris):
        search = TorchSoftmaxClassifierCV(Cs=[0.1, np.inf, 3.0], cv=3).fit(*iris)
        display = RegularizationPathDisplay.from_estimator(search)
        scores, coefficients = display.axes_
        np.testing.assert_array_equal(scores.lines[0].get_xdata(), [0.1, 3.0, 100.0])
        assert all(line.get_xdata()[-1] == 100 for line in coefficients.lines[:-1])
        display.figure_.canvas.draw()
        names = {tick.get_loc(): tick.label1.get_text() for tick in coefficients.xaxis.get_major_ticks()}
        assert names[100.0] == "∞"
        assert "10" in names[1.0]

    def test_a_single_C_has_marks(self, iris):
        display = RegularizationPathDisplay.from_estimator(TorchSoftmaxClassifierCV(Cs=[np.inf], cv=3).fit(*iris))
        assert {line.get_marker() for line in display.axes_[1].lines[:-1]} == {"."}
        assert {line.get_xdata()[0] for line in display.axes_[1].lines} == {1.0}

    def test_one_fold_has_no_spread(self):
        X, y = load_breast_cancer(return_X_y=True)
        X = StandardScaler().fit_transform(X)
        found = TorchSoftmaxClassifierCV(Cs=3, cv="alo", scoring="accuracy", fit_intercept=False).fit(X, y)
        display = RegularizationPathDisplay.from_estimator(found)
        assert not display.axes_[0].collections
        assert display.axes_[0].get_ylabel() == "Accuracy"
        assert len(display.axes_[1].lines) == 30 + 1

    def test_errors(self, iris, search):
        with pytest.raises(ValueError, match=r"l1_ratio=0.3 was not tried; pass one of \[0.0, 0.5\]"):
            RegularizationPathDisplay.from_estimator(search, l1_ratio=0.3)
        with pytest.raises(TypeError, match="keeps no coefs_paths_"):
            RegularizationPathDisplay.from_estimator(TorchSoftmaxClassifier().fit(*iris))
        with pytest.raises(TypeError, match="keeps no loss_curve_"):
            ConvergenceDisplay.from_estimator(search)


DISPLAYS = [
    (ConvergenceDisplay, TorchSoftmaxClassifier()),
    (CoefficientDisplay, TorchSoftmaxClassifier()),
    (RegularizationPathDisplay, TorchSoftmaxClassifierCV(Cs=2)),
]


@pytest.mark.parametrize(("display", "estimator"), DISPLAYS)
class TestAll:
    def test_drawn_into_an_axes(self, display, estimator, iris):
        figure, (left, right) = plt.subplots(1, 2)
        drawn = display.from_estimator(estimator.fit(*iris), ax=right)
        assert drawn.ax_ is right
        assert drawn.figure_ is figure
        assert drawn.plot(ax=left).ax_ is left

    def test_not_fitted(self, display, estimator):
        with pytest.raises(ValueError, match="not fitted"):
            display.from_estimator(type(estimator)())

    def test_without_matplotlib(self, display, estimator, iris, monkeypatch):
        monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
        with pytest.raises(
            ImportError, match=rf"{display.__name__}.from_estimator requires matplotlib. You can install"
        ):
            display.from_estimator(estimator.fit(*iris))


NAMES = ["_a $1$", "price_$ per 100% $", "c"]


def drawn_texts(display):
    display.figure_.canvas.draw()  # where formulas that are none would raise
    return [text.get_text() for text in display.figure_.findobj(Text)]


def test_fits_are_named_by_what_tells_them_apart(iris):
    fits = [TorchSoftmaxClassifier(C=1e3, solver=solver).fit(*iris) for solver in ("newton", "lbfgs")]
    assert ConvergenceDisplay.from_estimator(fits).name == ["solver='newton'", "solver='lbfgs'"]
    assert ConvergenceDisplay.from_estimator(fits[:1]).name == ["TorchSoftmaxClassifier(C=1000.0, solver='newton')"]
    long = clone(fits[0]).set_params(early_stopping=True, random_state=0, n_iter_no_change=20, max_iter=500).fit(*iris)
    assert max(map(len, ConvergenceDisplay.from_estimator(long).name[0].split("\n"))) <= 60


@pytest.mark.parametrize("display", [ConvergenceDisplay, CoefficientDisplay])
def test_several_axes_are_none(iris, display):
    with pytest.raises(TypeError, match="ax must be matplotlib Axes, got ndarray: of several, pass one"):
        display.from_estimator(TorchSoftmaxClassifier().fit(*iris), ax=plt.subplots(2, 2)[1])


def test_names_are_drawn_as_they_are(iris):
    X, y = iris
    y = np.array(NAMES)[np.unique(y, return_inverse=True)[1]]
    clf = TorchSoftmaxClassifier().fit(X, y)
    swept = TorchSoftmaxClassifierCV(Cs=2, cv=2).fit(X, y)
    literal = [name.replace("$", r"\$") for name in NAMES]
    displays = [
        CoefficientDisplay.from_estimator(clf, feature_names=[*NAMES, "d"]),
        ConvergenceDisplay.from_estimator([clf] * 3, name=NAMES),
        RegularizationPathDisplay.from_estimator(swept),
    ]
    for display in displays:
        assert {name.strip() for name in drawn_texts(display)} >= set(literal)
    assert len(displays[1].ax_.get_legend().get_texts()) == 3


@pytest.mark.parametrize(
    ("display", "estimator", "message"),
    [
        (ConvergenceDisplay, MLPClassifier((), max_iter=2), "keeps no loss_curve_ with its gap"),
        (RegularizationPathDisplay, LogisticRegressionCV(Cs=2, cv=2, l1_ratios=(0,)), "with cv_results_"),
        (CoefficientDisplay, Ridge(), "pass a linear classifier"),
        (CoefficientDisplay, GridSearchCV(LogisticRegression(), {"C": [1]}), "of a search the best one"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_estimators_that_have_nothing_to_draw(display, estimator, message):
    X, y = load_iris(return_X_y=True)
    with warnings.catch_warnings(action="ignore"):  # of what does not matter here
        estimator.fit(X, y)
    with pytest.raises(TypeError, match=message):
        display.from_estimator(estimator)


def test_numbers_of_features_and_shapes_that_are_none(iris):
    clf = TorchSoftmaxClassifier().fit(*iris)
    with pytest.raises(ValueError, match="n_features must be an integer, 1 or more, got -1"):
        CoefficientDisplay.from_estimator(clf, n_features=-1)
    with pytest.raises(ValueError, match=r"image_shape=\(-2, -2\) has no room"):
        CoefficientDisplay.from_estimator(clf, image_shape=(-2, -2))


def test_two_classes_of_ridge():
    X, y = load_iris(return_X_y=True)
    display = CoefficientDisplay.from_estimator(RidgeClassifier().fit(X[:100], y[:100]))
    assert display.axes_.shape == (1,)


def test_styles_by_any_of_their_names(iris):
    clf = TorchSoftmaxClassifier().fit(*iris)
    (line,) = ConvergenceDisplay.from_estimator(clf, curve_kwargs={"ms": 8, "lw": 3, "c": "red"}).lines_
    assert (line.get_markersize(), line.get_linewidth(), line.get_color()) == (8, 3, "red")
