"""Standard errors beside those of statsmodels, and what moves them and what does not."""

import sys

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import statsmodels.api as sm
import torch
from reference import relative_error
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import NotFittedError

from skl_softmax import TorchSoftmaxClassifier, inference

KINDS = {"observed": "nonrobust", "sandwich": "HC0"}


def maximum_likelihood(**parameters):
    return TorchSoftmaxClassifier(C=np.inf, tol=1e-14, **parameters)


def drawn(n_classes, n_rows=400, seed=0):
    """Noisy rows of mixed scales and offsets."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 3))
    y = (X @ rng.normal(size=(3, n_classes)) + rng.gumbel(size=(n_rows, n_classes))).argmax(axis=1)
    return X * [1, 10, 0.1] + [0, 5, 1], y


def voters():
    """Party identification, seven classes, of the American National Election Study of 1996."""
    data = sm.datasets.anes96.load_pandas()
    return data.exog, data.endog.astype(int)


def of_statsmodels(model, covariance):
    return model.fit(disp=0, method="newton", tol=1e-12, maxiter=100, cov_type=KINDS[covariance])


def assert_same(table, result, confidence=0.95):
    """A table as statsmodels' results, class after class."""
    parts = (("coef", result.params), ("std err", result.bse), ("z", result.tvalues), ("P>|z|", result.pvalues))
    for column, of_classes in parts:
        expected = np.asarray(of_classes).ravel(order="F")
        np.testing.assert_allclose(table[column], expected, rtol=1e-6, atol=1e-6 * abs(expected).max())
    low, high = table.columns[-2:]
    interval = np.asarray(result.conf_int(alpha=1 - confidence)).reshape(-1, 2)
    np.testing.assert_allclose(table[[low, high]], interval, rtol=1e-6, atol=1e-6 * abs(interval).max())


@pytest.mark.parametrize("covariance", KINDS)
class TestBesideStatsmodels:
    @pytest.mark.parametrize("rows", [lambda: drawn(3), lambda: drawn(5), voters])
    def test_mnlogit(self, rows, covariance):
        X, y = rows()
        table = maximum_likelihood().fit(X, y).summary(X, y, covariance=covariance)
        assert_same(table, of_statsmodels(sm.MNLogit(y, sm.add_constant(np.asarray(X))), covariance))

    def test_logit(self, covariance):
        X, y = drawn(2)
        table = maximum_likelihood().fit(X, y).summary(X, y, covariance=covariance, confidence=0.9)
        assert_same(table, of_statsmodels(sm.Logit(y, sm.add_constant(X)), covariance), confidence=0.9)
        assert list(table.columns) == ["coef", "std err", "z", "P>|z|", "[0.05", "0.95]"]

    @pytest.mark.parametrize(("n_classes", "model"), [(2, sm.Logit), (4, sm.MNLogit)])
    def test_without_intercept(self, n_classes, model, covariance):
        X, y = drawn(n_classes)
        table = maximum_likelihood(fit_intercept=False).fit(X, y).summary(X, y, covariance=covariance)
        assert_same(table, of_statsmodels(model(y, X), covariance))

    def test_weights_beside_glm(self, covariance):
        X, y = drawn(2)
        weights = np.random.default_rng(1).integers(1, 4, size=len(y))
        table = maximum_likelihood().fit(X, y, weights).summary(X, y, weights, covariance=covariance)
        many = np.repeat(np.arange(len(y)), weights)
        assert_same(table, of_statsmodels(sm.Logit(y[many], sm.add_constant(X[many])), covariance))


@pytest.mark.parametrize("covariance", KINDS)
@pytest.mark.parametrize("n_classes", [2, 4])
class TestWhatDoesNotMatter:
    def test_weights_are_repeats(self, n_classes, covariance):
        X, y = drawn(n_classes)
        weights = np.random.default_rng(1).integers(0, 4, size=len(y))
        table = maximum_likelihood().fit(X, y, weights).summary(X, y, weights, covariance=covariance)
        X, y = np.repeat(X, weights, axis=0), np.repeat(y, weights)
        again = maximum_likelihood().fit(X, y).summary(X, y, covariance=covariance)
        pd.testing.assert_frame_equal(table, again, rtol=1e-6)

    def test_weights_of_classes_are_weights_of_rows(self, n_classes, covariance):
        X, y = drawn(n_classes)
        by_class = np.linspace(0.5, 3.0, n_classes)
        weighted = maximum_likelihood(class_weight=dict(enumerate(by_class))).fit(X, y)
        rows = maximum_likelihood().fit(X, y, by_class[y])
        tables = weighted.summary(X, y, covariance=covariance), rows.summary(X, y, by_class[y], covariance=covariance)
        pd.testing.assert_frame_equal(*tables, rtol=1e-6)

    def test_storage(self, n_classes, covariance):
        X, y = drawn(n_classes)
        clf = maximum_likelihood().fit(X, y)
        table = clf.summary(X, y, covariance=covariance)
        for rows in (sp.csr_array(X), torch.from_numpy(X)):
            pd.testing.assert_frame_equal(clf.summary(rows, y, covariance=covariance), table, rtol=1e-8)
        pd.testing.assert_frame_equal(clf.sparsify().summary(X, y, covariance=covariance), table, rtol=1e-8)
        clf.densify()
        clf.coef_, clf.intercept_ = map(torch.from_numpy, (clf.coef_, clf.intercept_))  # as by array API dispatch
        pd.testing.assert_frame_equal(clf.summary(X, y, covariance=covariance), table, rtol=1e-8)

    def test_probabilities_that_are_labels(self, n_classes, covariance):
        X, y = drawn(n_classes)
        clf = maximum_likelihood().fit(X, y)
        proba = np.eye(n_classes)[y]
        table, again = (clf.summary(X, target, covariance=covariance) for target in (y, proba))
        pd.testing.assert_frame_equal(table, again)

    def test_units_of_features(self, n_classes, covariance):
        X, y = drawn(n_classes)
        units = np.array([1e4, 1e-3, 7.0])
        table = maximum_likelihood().fit(X, y).summary(X, y, covariance=covariance)
        again = maximum_likelihood().fit(X * units, y).summary(X * units, y, covariance=covariance)
        scale = np.tile([1, *units], n_classes - 1)
        assert relative_error(again["std err"] * scale, table["std err"]) < 1e-6
        np.testing.assert_allclose(again["z"], table["z"], rtol=1e-5, atol=1e-6)

    def test_reference(self, n_classes, covariance):
        """The class that others differ from is relabelled to be the first."""
        X, y = drawn(n_classes)
        labels = np.array(["d", "c", "b", "a"][4 - n_classes :])
        table = maximum_likelihood().fit(X, labels[y]).summary(X, labels[y], covariance=covariance, reference="b")
        moved = np.where(labels == "b", "0", labels)
        first = maximum_likelihood().fit(X, moved[y]).summary(X, moved[y], covariance=covariance)
        assert list(table.index) == list(first.index)
        pd.testing.assert_frame_equal(table, first, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("n_classes", [2, 4])
def test_probabilities_are_rows_of_each_class(n_classes, smoothing):
    X, y = drawn(n_classes)
    proba = np.random.default_rng(1).dirichlet(np.ones(n_classes), size=len(y))
    if smoothing:  # which stands for the same
        proba = (1 - smoothing) * np.eye(n_classes)[y] + smoothing / n_classes
        clf = maximum_likelihood(label_smoothing=smoothing).fit(X, y)
        with pytest.warns(UserWarning, match="label_smoothing=0.3: what the rows say has been changed"):
            table = clf.summary(X, y)
    else:
        table = maximum_likelihood().fit(X, proba).summary(X, proba)
    rows, labels = np.repeat(X, n_classes, axis=0), np.tile(np.arange(n_classes), len(X))
    again = maximum_likelihood().fit(rows, labels, proba.ravel()).summary(rows, labels, proba.ravel())
    pd.testing.assert_frame_equal(table, again, rtol=1e-6)


@pytest.mark.parametrize("has_intercept", [True, False])
def test_bools_of_numpy(has_intercept):
    X, y = drawn(3)
    a, b = (
        maximum_likelihood(fit_intercept=given).fit(X, y).summary(X, y)
        for given in (has_intercept, np.bool_(has_intercept))
    )
    pd.testing.assert_frame_equal(a, b)


def test_float32_rows():
    X, y = drawn(3)
    table = maximum_likelihood().fit(X, y).summary(X, y)
    rows = X.astype(np.float32)
    again = TorchSoftmaxClassifier(C=np.inf).fit(rows, y).summary(rows, y)
    assert relative_error(again["std err"], table["std err"]) < 1e-4


def test_several_blocks_of_rows():
    """As many rows as are taken in portions: the sandwich is the sum over them, whatever the portions."""
    X, y = drawn(5, n_rows=60_000)
    table = maximum_likelihood(solver="newton").fit(X, y).summary(X, y, covariance="sandwich")
    assert_same(table, of_statsmodels(sm.MNLogit(y, sm.add_constant(X)), "sandwich"))


def test_names_of_rows_and_columns():
    data = load_iris(as_frame=True)
    X, y = data.data[data.feature_names[:2]], data.target_names[data.target]
    table = TorchSoftmaxClassifier(C=np.inf).fit(X[50:], y[50:]).summary(X[50:], y[50:])
    assert table.index.tolist() == [("virginica", name) for name in ("intercept", *X.columns)]
    assert table.index.names == ["class", "feature"]
    assert table.columns.tolist() == ["coef", "std err", "z", "P>|z|", "[0.025", "0.975]"]


class TestPenalty:
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_the_hessian_has_the_penalty(self, n_classes):
        X, y = drawn(n_classes)
        X = (X - X.mean(axis=0)) / X.std(axis=0)
        clf = TorchSoftmaxClassifier(C=0.1, tol=1e-14).fit(X, y)
        with pytest.warns(UserWarning, match=r"C=0.1: the penalty has drawn") as warned:
            table = clf.summary(X, y)
        assert warned[0].filename == __file__
        theta = torch.from_numpy(np.column_stack([clf.intercept_, clf.coef_]))  # (K, d + 1)
        rows = torch.from_numpy(np.column_stack([np.ones(len(X)), X]))

        def objective(theta):
            logits = rows @ theta.T
            if n_classes == 2:
                logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
            loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y), reduction="sum")
            return loss + theta[:, 1:].square().sum() / (2 * 0.1)

        size = theta.numel()
        hessian = torch.autograd.functional.hessian(objective, theta).reshape(size, size)
        inverse = torch.linalg.pinv(hessian, rtol=1e-12).numpy()
        contrast = np.eye(1) if n_classes == 2 else np.array([[-1, 1, 0], [-1, 0, 1]])
        linear = np.kron(contrast, np.eye(4))
        np.testing.assert_allclose(table["std err"], np.sqrt(np.diag(linear @ inverse @ linear.T)), rtol=1e-8)

    def test_no_errors_with_an_l1_penalty(self):
        X, y = drawn(3)
        with pytest.raises(ValueError, match=r"l1_ratio=0.5: where an L1 penalty has a say"):
            TorchSoftmaxClassifier(l1_ratio=0.5).fit(X, y).summary(X, y)
        maximum_likelihood(l1_ratio=0.5).fit(X, y).summary(X, y)  # C=inf leaves nothing of it


class TestErrors:
    @pytest.mark.parametrize("n_classes", [2, 4])
    def test_collinear_and_constant_features_are_named(self, n_classes):
        X, y = drawn(n_classes)
        X = pd.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2], "twice b": 2 * X[:, 1] + 1})
        clf = TorchSoftmaxClassifier(C=np.inf).fit(X, y)
        with pytest.raises(
            ValueError, match="do not identify the coefficients of 'b', 'twice b', the intercept: other"
        ):
            clf.summary(X, y)
        X["twice b"] = 3.0
        clf.fit(X, y)
        with pytest.raises(ValueError, match="do not identify the coefficients of 'twice b', the intercept: other"):
            clf.summary(X, y)

    def test_rows_that_are_told_apart_for_certain_are_not_laid_to_the_features(self):
        X, y = load_iris(return_X_y=True)
        with pytest.raises(ValueError, match=r"Some rows can be told apart for certain, or a class has none: .* 'x3'"):
            maximum_likelihood().fit(X, y).summary(X, y)
        X, y = X[50:, :2], y[50:]
        with pytest.raises(ValueError, match="or a class has none"):
            maximum_likelihood().fit(X, y, classes=[0, 1, 2]).summary(X, y)

    @pytest.mark.parametrize("parameters", [{"class_weight": "balanced"}, {"label_smoothing": 0.1}], ids=str)
    def test_what_is_no_weight_of_rows_is_warned_of(self, parameters):
        X, y = drawn(2)
        with pytest.warns(UserWarning, match=r"what the rows say has been changed.* Fit without it"):
            maximum_likelihood(**parameters).fit(X, y).summary(X, y)

    def test_a_penalty_that_is_lost_in_rounding(self):
        X, y = drawn(2)
        X = 1e7 * X[:, [0, 0]]
        clf = TorchSoftmaxClassifier().fit(X, y)
        with pytest.raises(ValueError, match=r"of 'x0', 'x1': to rounding, other values fit as well.* or lower C"):
            clf.summary(X, y)

    def test_all_levels_of_a_category(self):
        X, y = drawn(3)
        levels = np.eye(3)[np.arange(len(y)) % 3]
        X = np.hstack([X, levels])
        with pytest.raises(ValueError, match="coefficients of 'x3', 'x4', 'x5', the intercept: other"):
            TorchSoftmaxClassifier(C=np.inf).fit(X, y).summary(X, y)
        X = X[:, :-1]
        maximum_likelihood().fit(X, y).summary(X, y)

    @pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
    @pytest.mark.parametrize("n_classes", [2, 3])
    def test_separable_data(self, n_classes):
        X = np.random.default_rng(0).normal(size=(60, 2)) + 20 * (np.arange(60) % n_classes)[:, None]
        y = np.arange(60) % n_classes
        with pytest.raises(ValueError, match="The data are separable"):
            TorchSoftmaxClassifier(C=np.inf).fit(X, y).summary(X, y)

    def test_other_rows(self):
        X, y = drawn(3)
        clf = TorchSoftmaxClassifier(C=np.inf).fit(X[:300], y[:300])
        with pytest.warns(UserWarning, match="not the optimum of these rows"):
            clf.summary(X, y)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"covariance": "HC0"}, "covariance must be 'observed' or 'sandwich', got 'HC0'"),
            ({"confidence": 95}, "confidence must be between 0 and 1, got 95"),
            ({"confidence": "high"}, "confidence must be between 0 and 1, got 'high'"),
            ({"reference": "x"}, r"reference='x' is not among the classes \[0, 1, 2\]"),
            ({"sample_weight": -np.ones(400)}, "Negative values"),
        ],
    )
    def test_bad_arguments(self, arguments, message):
        X, y = drawn(3)
        clf = TorchSoftmaxClassifier(C=np.inf).fit(X, y)
        before = dict(vars(clf))
        with pytest.raises(ValueError, match=message):
            clf.summary(X, y, **arguments)
        with pytest.raises(ValueError, match="features"):
            clf.summary(X[:, :2], y)
        assert vars(clf) == before

    def test_too_many_coefficients(self, monkeypatch):
        monkeypatch.setattr(inference, "MOST_PARAMETERS", 8)
        X, y = drawn(3)
        with pytest.raises(ValueError, match="9 coefficients are too many"):
            TorchSoftmaxClassifier(C=np.inf).fit(X, y).summary(X, y)

    def test_not_fitted(self):
        X, y = drawn(3)
        with pytest.raises(NotFittedError):
            clone(maximum_likelihood()).summary(X, y)

    def test_without_pandas(self, monkeypatch):
        X, y = drawn(3)
        clf = TorchSoftmaxClassifier(C=np.inf).fit(X, y)
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ImportError, match=r"TorchSoftmaxClassifier.summary requires pandas. You can install"):
            clf.summary(X, y)


@pytest.mark.parametrize("fold", [1000, 1e5])
def test_rows_in_other_units_are_not_told_to_be_collinear(fold):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)) + 5
    y = X.sum(axis=1) - 15 + rng.logistic(size=500) > 0
    clf = TorchSoftmaxClassifier(C=np.inf, tol=1e-12).fit(X, y)
    with pytest.raises(ValueError, match=r"not those of these rows: the objective is .*, and 0\.69 with zeros"):
        clf.summary(fold * X, y)
