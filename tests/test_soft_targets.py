"""Targets that are probabilities: as rows of y, and by smoothing of labels."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from formulas import take_general_formulas
from reference import relative_error
from sklearn.datasets import load_iris
from torch.nn import functional

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

SOLVERS = ["newton", "lbfgs"]
TIGHT = 1e-14


def as_if_it_were_large(monkeypatch):
    """Take the general formulas, in blocks, instead of those for tiny tables."""
    take_general_formulas(monkeypatch)
    monkeypatch.setattr("skl_softmax.data.dense.BLOCK_BYTES", 4000)
    monkeypatch.setattr("skl_softmax.data.dense.KEEP_BYTES", 0)


@pytest.fixture(params=[2, 3], ids=["2-classes", "3-classes"])
def soft(request):
    """Rows, probabilities of the classes, and weights."""
    rng = np.random.default_rng(0)
    X = load_iris().data[:: 150 // 90][:75]
    Y = rng.dirichlet(np.full(request.param, 0.5), size=len(X))
    return X, Y, rng.uniform(0.1, 2, size=len(X))


def in_copies(X, Y, weight):
    """Each row once for each class, weighted with its probability."""
    n_classes = Y.shape[1]
    return np.repeat(X, n_classes, axis=0), np.tile(np.arange(n_classes), len(X)), (Y * weight[:, None]).ravel()


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 0.5}])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_soft_target_is_a_weighted_row_of_each_class(soft, solver, class_weight, large, monkeypatch):
    X, Y, weight = soft
    if large:
        as_if_it_were_large(monkeypatch)
    a = TorchSoftmaxClassifier(solver=solver, class_weight=class_weight, tol=TIGHT).fit(X, Y, weight)
    copies, labels, weights = in_copies(X, Y, weight)
    b = TorchSoftmaxClassifier(class_weight=class_weight, tol=TIGHT).fit(copies, labels, weights)
    assert relative_error(a.coef_, b.coef_) < 1e-6
    np.testing.assert_array_equal(a.classes_, np.arange(Y.shape[1]))


def test_sparse_rows_too(soft):
    X, Y, weight = soft
    a = TorchSoftmaxClassifier(tol=TIGHT).fit(sp.csr_array(X), Y, weight)
    assert relative_error(a.coef_, TorchSoftmaxClassifier(tol=TIGHT).fit(X, Y, weight).coef_) < 1e-6


@pytest.mark.parametrize("settings", [{"solver": "newton"}, {"solver": "lbfgs"}, {"solver": "sgd", "max_iter": 3}])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_one_hot_rows_are_labels(settings, n_classes):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    names = np.array(["lily", "iris", "rose"])[:n_classes]
    soft = TorchSoftmaxClassifier(**settings).fit(X, np.eye(n_classes)[y], classes=names)
    hard = TorchSoftmaxClassifier(**settings).fit(X, names[y])
    np.testing.assert_array_equal(soft.classes_, hard.classes_)
    np.testing.assert_allclose(soft.coef_, hard.coef_, rtol=1e-9)
    np.testing.assert_array_equal(soft.predict(X), hard.predict(X))


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("class_weight", [None, {0: 3.0, 1: 0.5}])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_smoothing_is_mixing_with_equal_probabilities(solver, n_classes, class_weight, large, monkeypatch):
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    if large:
        as_if_it_were_large(monkeypatch)
    settings = {"class_weight": class_weight, "tol": TIGHT}
    a = TorchSoftmaxClassifier(solver=solver, label_smoothing=0.1, **settings).fit(X, y)
    b = TorchSoftmaxClassifier(**settings).fit(X, 0.9 * np.eye(n_classes)[y] + 0.1 / n_classes)
    assert relative_error(a.coef_, b.coef_) < 1e-6


def test_smoothing_is_that_of_torch():
    X, y = load_iris(return_X_y=True)
    by_class = np.array([3.0, 0.5, 1.0])
    clf = TorchSoftmaxClassifier(label_smoothing=0.2, class_weight=dict(enumerate(by_class)), C=np.inf).fit(X, y)
    logits, weight = torch.from_numpy(clf.decision_function(X)), torch.from_numpy(by_class)
    loss = functional.cross_entropy(logits, torch.from_numpy(y), weight, reduction="sum", label_smoothing=0.2)
    # torch divides by the weights of the labels, we by those of the targets.
    targets = 0.8 * np.eye(3)[y] + 0.2 / 3
    np.testing.assert_allclose(clf.loss_curve_[-1], loss / (targets @ by_class).sum(), rtol=1e-12)


def test_separable_rows_with_soft_targets_have_an_optimum():
    X = np.array([[-2.0], [-1.0], [1.0], [2.0]])
    clf = TorchSoftmaxClassifier(C=np.inf).fit(X, np.array([[0.9, 0.1]] * 2 + [[0.1, 0.9]] * 2))
    assert clf.converged_
    assert TorchSoftmaxClassifier(C=np.inf, label_smoothing=0.1).fit(X, [0, 0, 1, 1]).converged_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda Y: Y * 2, r"sum of 1 in each row, but row 0 is"),
        (lambda Y: Y - [[0.5, -0.5, 0]], r"at least 0 .*row 0"),
        (lambda Y: np.where(np.arange(len(Y))[:, None] == 7, np.nan, Y), "NaN"),
        (lambda Y: np.where(np.arange(len(Y))[:, None] == 7, np.inf, Y), "infinity"),
    ],
)
def test_what_is_not_a_probability(change, message):
    with pytest.raises(ValueError, match=message):
        TorchSoftmaxClassifier().fit(load_iris().data, change(np.full((150, 3), 1 / 3)))


def test_names_of_columns():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match="classes names 2 different classes, but y has 3 columns"):
        TorchSoftmaxClassifier().fit(X, np.eye(3)[y], classes=["a", "b"])
    with pytest.raises(ValueError, match=r"\[2\], which are not among the classes \[0, 1\]"):
        TorchSoftmaxClassifier().fit(X, y, classes=[0, 1])


def test_names_of_a_frame_are_not_other_than_the_classes():
    X, y = load_iris(return_X_y=True)
    proba = pd.DataFrame(np.eye(3)[y], columns=["c", "a", "b"])
    in_order, unnamed = proba[["a", "b", "c"]], proba.set_axis([0, 1, 2], axis=1)
    with pytest.raises(
        ValueError, match=r"columns of y are named \['c', 'a', 'b'\], but are taken for .*'a', 'b', 'c'"
    ):
        TorchSoftmaxClassifier().fit(X, proba, classes=["a", "b", "c"])
    model = TorchSoftmaxClassifier().fit(X, proba, classes=list(proba))
    assert model.predict(X[:1]) == "c"
    np.testing.assert_array_equal(TorchSoftmaxClassifier().fit(X, in_order, classes=list("abc")).coef_, model.coef_)
    assert TorchSoftmaxClassifier().fit(X, unnamed, classes=[2, 0, 1]).predict(X[:1]) == 2
    with pytest.raises(ValueError, match=r"columns of y are named \[2, 0, 1\], but are taken for .* \[0, 1, 2\]"):
        TorchSoftmaxClassifier().fit(X, proba.set_axis([2, 0, 1], axis=1))
    blocks = RowBlocks([(X, in_order), (X, proba)])
    with pytest.raises(ValueError, match="Block 1: The columns of y are named"):
        TorchSoftmaxClassifier().fit(blocks, classes=["a", "b", "c"])
    search = TorchSoftmaxClassifierCV(Cs=2, cv=2).fit(X, unnamed)
    with pytest.raises(ValueError, match="columns of y are named"):
        search.score(X, proba.set_axis([2, 0, 1], axis=1))
