"""What looks on at a fit: scikit-learn's callbacks, early stopping, printing, an interrupt."""

import warnings

import joblib
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from reference import objective
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skl_softmax import RowBlocks, TorchSoftmaxClassifier
from skl_softmax.inputs import check_training_rows, torch_generator
from skl_softmax.watch import hold_out

SOLVERS = {
    "newton": {"solver": "newton"},
    "lbfgs": {"solver": "lbfgs"},
    "sgd": {"solver": "sgd", "batch_size": 32, "max_iter": 7, "random_state": 0},
    "adam": {"solver": "adam", "max_iter": 7},
}
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(params=SOLVERS)
def settings(request):
    return SOLVERS[request.param]


class Recorder:
    """A callback that notes what it is told, and asks for an end after some iterations."""

    def __init__(self, stop_after=None, interrupt_after=None):
        self.stop_after, self.interrupt_after = stop_after, interrupt_after
        self.begun, self.ended, self.fitted, self.events = [], [], [], []

    def setup(self, estimator, context):
        self.events.append("setup")

    def teardown(self, estimator, context):
        self.events.append("teardown")

    def on_fit_task_begin(self, estimator, context, *, X=None, y=None):
        assert len(X) == len(y)
        self.begun.append((context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
        self.ended.append((context.task_name, context.task_id))
        self.metadata = metadata
        if context.task_name != "fit":
            self.fitted.append(fitted_estimator)
            if len(self.fitted) == self.interrupt_after:
                raise KeyboardInterrupt
            return len(self.fitted) == self.stop_after
        return None


class Checkpoint(Recorder):
    """A callback that saves the estimator as it is after five epochs."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        if context.task_id == 4 and context.task_name == "epoch":
            joblib.dump(fitted_estimator, self.path)


class TestCallbacks:
    def test_one_task_for_every_iteration(self, settings):
        X, y = load_iris(return_X_y=True)
        recorder = Recorder()
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(recorder).fit(X, y, sample_weight=np.ones(150))
        unit = "epoch" if "max_iter" in settings else "iteration"
        tasks = [(unit, i) for i in range(clf.n_iter_[0])]
        assert recorder.begun == [("fit", 0), *tasks]
        assert recorder.ended == [*tasks, ("fit", 0)]
        assert recorder.events == ["setup", "teardown"]
        np.testing.assert_array_equal(recorder.metadata["sample_weight"], np.ones(150))
        plain = TorchSoftmaxClassifier(**settings).fit(X, y)
        np.testing.assert_array_equal(plain.coef_, clf.coef_)
        np.testing.assert_array_equal(recorder.fitted[-1].coef_, clf.coef_)
        values = [objective(fitted, X, y) for fitted in recorder.fitted]
        assert values[-1] < values[0]
        assert set(recorder.fitted[0].predict(X)) <= {0, 1, 2}

    def test_the_last_iterate_is_none_that_was_asked_for(self, settings):
        X, y = load_iris(return_X_y=True)
        with pytest.warns(ConvergenceWarning, match="max_iter=2"):
            TorchSoftmaxClassifier(**(settings | {"max_iter": 2})).set_callbacks(Recorder()).fit(X, y)

    def test_what_has_begun_ends_where_early_stopping_ends_the_fit(self, settings):
        X, y = load_wine(return_X_y=True)
        recorder = Recorder()
        settings = settings | {"max_iter": 200, "early_stopping": True, "n_iter_no_change": 2, "random_state": 0}
        settings["tol"] = 0.05 if "batch_size" in settings or settings["solver"] == "adam" else 1e-7
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(recorder).fit(X, y)
        assert clf.n_iter_[0] < 200
        assert sorted(recorder.begun) == sorted(recorder.ended)

    def test_a_callback_that_asks_for_an_end_gets_it(self, settings):
        X, y = load_iris(return_X_y=True)
        recorder = Recorder(stop_after=3)
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(recorder).fit(X, y)
        assert clf.n_iter_[0] == 3
        assert not clf.converged_
        assert recorder.begun[-1][1] == 2
        np.testing.assert_array_equal(clf.coef_, recorder.fitted[-1].coef_)
        assert clf.score(X, y) > 0.5

    def test_an_interrupt_leaves_the_last_iterate(self, settings):
        X, y = load_iris(return_X_y=True)
        recorder = Recorder(interrupt_after=4)
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(recorder)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        np.testing.assert_array_equal(clf.coef_, recorder.fitted[-1].coef_)
        assert recorder.events == ["setup", "teardown"]
        whole = TorchSoftmaxClassifier(**settings).fit(X, y)
        n_points = 4 if "max_iter" in settings else 5  # an optimiser's epochs are seen when they are over
        assert clf.n_iter_[0] == 4
        np.testing.assert_array_equal(clf.loss_curve_, whole.loss_curve_[:n_points])
        assert len(clf.seconds_curve_) == n_points
        assert (clf.seconds_curve_[0] == 0) == ("max_iter" in settings)  # where the first epoch begins
        assert not clf.converged_
        assert clf.predict(X).shape == (150,)
        assert not hasattr(clf, "_callback_fit_ctx")

    @pytest.mark.parametrize(("offset", "dtype"), [(0, np.float32), (1e6, np.float64)])
    def test_iterates_are_kept_in_a_type_that_leaves_digits_of_the_logits(self, settings, offset, dtype):
        X, y = load_iris(return_X_y=True)
        recorder = Recorder(interrupt_after=4)
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(recorder)
        with pytest.raises(KeyboardInterrupt):
            clf.fit((X + offset).astype(np.float32), y)
        assert clf.coef_.dtype == recorder.fitted[0].coef_.dtype == clf.intercept_.dtype == dtype

    def test_what_callbacks_see_is_of_this_fit(self, settings):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifier(solver="sgd", max_iter=2, early_stopping=True, random_state=0).fit(X, y)
        recorder = Recorder(stop_after=1)
        clf.set_params(early_stopping=False, **settings).set_callbacks(recorder).fit(X, y)
        seen = set(vars(recorder.fitted[0]))
        found = {"classes_", "coef_", "intercept_", "n_features_in_"} | (
            {"_stream"} if "max_iter" in settings else set()
        )
        assert {name for name in seen if name.endswith("_") or name == "_stream"} == found
        assert not hasattr(clf, "validation_scores_")

    def test_callbacks_see_the_best_epoch_of_a_run_that_diverges(self):
        X, y = load_wine(return_X_y=True)
        recorder = Recorder()
        clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=1e308).set_callbacks(recorder).fit(X, y)
        np.testing.assert_array_equal(recorder.fitted[-1].coef_, clf.coef_)
        assert np.isfinite(clf.coef_).all()
        assert not hasattr(recorder.fitted[-1], "_stream")
        clf.set_callbacks(ScoringMonitor(scoring="neg_log_loss")).fit(X, y)

    def test_an_interrupt_at_the_end_leaves_the_fit(self, settings):
        class Late(Recorder):
            def on_fit_task_end(self, estimator, context, *, metadata=None, fitted_estimator=None):
                if context.task_name == "fit":
                    raise KeyboardInterrupt

        X, y = load_iris(return_X_y=True)
        whole = TorchSoftmaxClassifier(**settings).fit(X, y)
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(Late())
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        np.testing.assert_array_equal(clf.coef_, whole.coef_)
        assert clf.converged_ == whole.converged_

    @pytest.mark.parametrize("settings", [{"solver": "newton"}, {"solver": "lbfgs"}, {"l1_ratio": 0.5}], ids=str)
    def test_a_gap_after_an_interrupt_is_at_most_the_objective(self, settings):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(Recorder(interrupt_after=1))
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        assert clf.optimality_gap_ <= clf.loss_curve_[-1]

    def test_an_interrupt_before_the_first_iteration_changes_nothing(self, monkeypatch):
        X, y = load_iris(return_X_y=True)
        clf = TorchSoftmaxClassifier().fit(X, y)
        before = dict(vars(clf))

        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr("skl_softmax.classifier.make_problem", interrupt)
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X[:, :2], y)
        assert vars(clf) == before

    def test_scores_of_every_iteration(self, settings):
        X, y = load_wine(return_X_y=True)
        monitor = ScoringMonitor(scoring="neg_log_loss")
        clf = TorchSoftmaxClassifier(**settings).set_callbacks(monitor).fit(X, y)
        scores = monitor.get_logs().data_as_pandas["neg_log_loss"]
        assert len(scores) >= clf.n_iter_[0]
        np.testing.assert_allclose(scores.iloc[-1], -log_loss(y, clf.predict_proba(X)))

    def test_a_progress_bar_over_a_search_of_pipelines(self, capsys):
        X, y = load_wine(return_X_y=True)
        pipeline = make_pipeline(StandardScaler(), TorchSoftmaxClassifier())
        search = GridSearchCV(pipeline, {"torchsoftmaxclassifier__C": [0.1, 1]}, cv=2)
        search.set_callbacks(ProgressBar(max_propagation_depth=None)).fit(X, y)
        said = capsys.readouterr()
        assert "GridSearchCV" in said.out + said.err
        assert search.best_score_ > 0.9

    @pytest.mark.parametrize("n_classes", [2, 3])
    @pytest.mark.parametrize(
        "settings",
        [
            {"solver": "sgd", "learning_rate": 0.01},
            {"solver": "sgd", "learning_rate": 0.01, "momentum": 0.9, "average": True},
            {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9},
            {"solver": "sgd", "learning_rate": "invscaling", "batch_size": 50, "shuffle": False},
            {"solver": "sgd", "batch_size": 32, "shuffle": False},
            {"solver": "adam"},
            {"solver": torch.optim.RMSprop, "learning_rate": 0.01},
        ],
        ids=str,
    )
    def test_a_saved_iterate_goes_on_where_it_was(self, n_classes, settings, tmp_path):
        X, y = load_iris(return_X_y=True)
        X, y = X[y < n_classes], y[y < n_classes]
        settings = settings | {"n_iter_no_change": 100}
        checkpoint = Checkpoint(tmp_path / "checkpoint")
        whole = TorchSoftmaxClassifier(max_iter=12, **settings).set_callbacks(checkpoint).fit(X, y)
        resumed = joblib.load(tmp_path / "checkpoint").set_params(warm_start=True, max_iter=7).set_callbacks()
        np.testing.assert_array_equal(resumed.fit(X, y).coef_, whole.coef_)

    @pytest.mark.parametrize("solver", ["newton", "lbfgs"])
    def test_a_saved_iterate_comes_to_the_same_optimum(self, solver):
        X, y = load_iris(return_X_y=True)
        recorder = Recorder(stop_after=3)
        clf = TorchSoftmaxClassifier(solver=solver, tol=1e-12, warm_start=True).set_callbacks(recorder).fit(X, y)
        clf.set_callbacks().fit(X, y)
        whole = TorchSoftmaxClassifier(solver=solver, tol=1e-12).fit(X, y)
        np.testing.assert_allclose(clf.coef_, whole.coef_, rtol=1e-5)

    def test_clones_keep_them(self):
        recorder = Recorder()
        clone(TorchSoftmaxClassifier().set_callbacks(recorder)).fit(*load_iris(return_X_y=True))
        assert recorder.events == ["setup", "teardown"]


def test_an_interrupt_before_the_first_iterate_leaves_all_as_it_was():
    X, y = load_iris(return_X_y=True)

    class Source:
        n_passes = 0

        def __iter__(self):
            self.n_passes += 1
            if self.n_passes == 3:
                raise KeyboardInterrupt
            yield X[:, :3], y

    clf = TorchSoftmaxClassifier().fit(X, y)
    before = dict(vars(clf))
    with pytest.raises(KeyboardInterrupt):
        clf.fit(RowBlocks(Source(), read_ahead=0))
    assert vars(clf) == before


def test_a_warning_that_is_an_error_leaves_all_as_it_was():
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier().fit(X, y).set_params(max_iter=1)
    before = dict(vars(clf))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ConvergenceWarning):
            clf.fit(X[:, :3], y)
    assert vars(clf) == before


class TestEarlyStopping:
    @pytest.mark.parametrize("storage", [np.asarray, sp.csr_array])
    def test_the_best_iterate_is_returned(self, settings, storage):
        X, y = load_digits(return_X_y=True)
        X = storage(X)
        more = {"C": 1e6, "early_stopping": True, "random_state": 0, "n_iter_no_change": 3, "validation_fraction": 0.2}
        clf = TorchSoftmaxClassifier(**settings | more).fit(X, y)
        assert clf.best_iteration_ == np.argmax(clf.validation_scores_)
        seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(0)))
        ((_, held_out),) = StratifiedShuffleSplit(1, test_size=0.2, random_state=seed).split(X, y)
        # scikit-learn's score cuts off what a row can lose.
        score = clf.predict_log_proba(X[held_out])[np.arange(len(held_out)), y[held_out]].mean()
        np.testing.assert_allclose(max(clf.validation_scores_), score, rtol=1e-9)

    @pytest.mark.parametrize("solver", ["newton", "lbfgs", "sgd"])
    def test_what_is_told_is_of_the_best_iterate(self, solver):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(60, 8))
        y = (X[:, 0] + rng.normal(size=60) > 0).astype(int) + (X[:, 1] > 1)
        settings = {"C": 1e4, "random_state": 0, "n_iter_no_change": 50, "validation_fraction": 0.3}
        clf = TorchSoftmaxClassifier(solver=solver, early_stopping=True, **settings).fit(X, y)
        assert clf.best_iteration_ < len(clf.validation_scores_) - 1
        seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(0)))
        ((fitted, _),) = StratifiedShuffleSplit(1, test_size=0.3, random_state=seed).split(X, y)
        value = objective(clf, X[fitted], y[fitted], C=1e4)
        lowest = TorchSoftmaxClassifier(C=1e4).fit(X[fitted], y[fitted]).loss_curve_[-1]
        assert clf.loss_curve_[-1] == pytest.approx(value, rel=1e-9)
        assert clf.optimality_gap_ >= 0.1 * (value - lowest)
        assert not clf.converged_

    @pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
    def test_two_classes_are_held_out_alike(self, label_smoothing):
        X, y = np.random.default_rng(0).normal(size=(1000, 3)), np.arange(1000) < 50
        rows = check_training_rows(TorchSoftmaxClassifier(label_smoothing=label_smoothing), X, y, None)
        for seed in range(5):
            _, held_out = hold_out(rows, 0.1, torch_generator(seed))
            assert held_out.targets.sum() == 5

    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_scores_are_of_labels_as_they_are(self, n_classes):
        X, y = load_wine(return_X_y=True)
        X, y = X[y < n_classes], y[y < n_classes]
        settings = {"early_stopping": True, "random_state": 0, "validation_fraction": 0.3, "n_iter_no_change": 100}
        clf = TorchSoftmaxClassifier(label_smoothing=0.2, class_weight={0: 1, 1: 3, 2: 9}, **settings).fit(X, y)
        seed = int(torch.randint(2**31, (), generator=torch.Generator().manual_seed(0)))
        ((_, held_out),) = StratifiedShuffleSplit(1, test_size=0.3, random_state=seed).split(X, y)
        rows = check_training_rows(clf, X, y, None)
        loss = log_loss(y[held_out], clf.predict_proba(X[held_out]), sample_weight=rows.weights[held_out])
        assert max(clf.validation_scores_) == pytest.approx(-loss, rel=1e-9)

    def test_rows_that_cannot_be_held_out(self):
        X, y = load_iris(return_X_y=True)
        with pytest.raises(ValueError, match=r"holds out validation_fraction=0.01 of the rows"):
            TorchSoftmaxClassifier(early_stopping=True, validation_fraction=0.01).fit(X, y)
        names = np.where(np.arange(150) == 3, "zebra", y.astype("U5"))
        with pytest.raises(ValueError, match=r"y has a single row of the class 'zebra'\. Leave"):
            TorchSoftmaxClassifier(early_stopping=True).fit(X, names)

    def test_it_ends_where_the_scores_do_not_rise(self):
        X, y = load_digits(return_X_y=True)
        settings = {"C": 1e6, "early_stopping": True, "random_state": 0, "n_iter_no_change": 3}
        clf = TorchSoftmaxClassifier(solver="lbfgs", **settings).fit(X, y)
        assert len(clf.validation_scores_) == clf.best_iteration_ + 4
        plain = TorchSoftmaxClassifier(solver="lbfgs", C=1e6).fit(X, y)
        assert clf.n_iter_[0] < plain.n_iter_[0]
        assert not hasattr(clf.set_params(early_stopping=False).fit(X, y), "validation_scores_")

    def test_with_weights_and_soft_targets(self):
        X, y = load_wine(return_X_y=True)
        weight = np.random.default_rng(0).uniform(0.5, 2, size=len(y))
        settings = {"early_stopping": True, "random_state": 0}
        clf = TorchSoftmaxClassifier(**settings).fit(X, 0.9 * np.eye(3)[y] + 0.1 / 3, weight)
        assert clf.score(X, y) > 0.9
        assert TorchSoftmaxClassifier(label_smoothing=0.1, **settings).fit(X, y, weight).score(X, y) > 0.9


def test_lines_in_the_manner_of_textbooks(capsys):
    X, y = load_iris(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.01, max_iter=3, verbose=1).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert lines[2] == f"Epoch    2/3 Cost: {clf.loss_curve_[2]:.6f}, Accuracy: {100 * clf.score(X, y):.2f}%"
    held_out = {"early_stopping": True, "random_state": 0}
    clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.01, max_iter=3, verbose=1, **held_out).fit(X, y)
    assert capsys.readouterr().out.splitlines()[2].endswith(f"%, validation {clf.validation_scores_[2]:.6f}")


@pytest.mark.parametrize(
    ("load", "settings"),
    [
        (load_wine, {"learning_rate": 1e308}),
        (load_iris, {"learning_rate": 1.0, "batch_size": 1, "C": 1e-6}),
    ],
)
def test_a_first_epoch_that_is_lost_is_not_the_best(load, settings):
    X, y = load(return_X_y=True)
    clf = TorchSoftmaxClassifier(solver="sgd", early_stopping=True, random_state=0, **settings)
    with pytest.warns(ConvergenceWarning, match="the loss grew beyond all bounds"):
        clf.fit(X, y)
    assert np.isfinite(clf.coef_).all()
    assert clf.best_iteration_ == 0
