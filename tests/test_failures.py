"""A call that raises leaves the estimator as it was, fitted or not."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, finite, training

X, y = load_iris(return_X_y=True)
WITH_NAN = np.where(np.arange(X.size).reshape(X.shape) == 301, np.nan, X)

# What is passed, and what the message says.
BAD_CALLS = {
    "NaN in X": ((WITH_NAN, y), "NaN"),
    "NaN in sparse X": ((sp.csr_array(WITH_NAN), y), "NaN"),
    "NaN in float16 X": ((WITH_NAN.astype(np.float16), y), "NaN"),
    "words in X": ((X.astype(str).astype(object) + "x", y), "could not convert string to float"),
    "one dimension": ((X[:, 0], y), "Expected 2D array, got 1D"),
    "other length": ((X, y[:-1]), "inconsistent numbers of samples"),
    "negative weights": ((X, y, -np.ones(len(y))), "Negative values or NaN in sample_weight: that of row 0"),
    "no weight": ((X, y, np.zeros(len(y))), "weight"),
    "numbers for labels": ((X, y + 0.5), "Unknown label type: continuous"),
    "no probabilities": ((X, np.full((len(y), 3), 0.5)), "sum of 1 in each row, but row 0"),
    "one class": ((X, np.zeros(len(y))), "one class"),
}
RAISED = [MemoryError("no memory"), KeyboardInterrupt(), RuntimeError("anything")]
ESTIMATORS = {
    "auto": TorchSoftmaxClassifier(),
    "proximal": TorchSoftmaxClassifier(l1_ratio=0.5),
    "sgd": TorchSoftmaxClassifier(solver="sgd", tol=1.0),
    "cv": TorchSoftmaxClassifierCV(Cs=2, cv=2),
    "alo": TorchSoftmaxClassifierCV(Cs=2, cv="alo"),
}


def same(estimator, before):
    return vars(estimator).keys() == before.keys() and all(vars(estimator)[k] is v for k, v in before.items())


@pytest.fixture(params=ESTIMATORS)
def estimator(request):
    return clone(ESTIMATORS[request.param])


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("call", BAD_CALLS)
def test_bad_input(estimator, call, is_fitted):
    if is_fitted:
        estimator.fit(X[:, :3], y)
    before, (arguments, message) = dict(vars(estimator)), BAD_CALLS[call]
    with pytest.raises(ValueError, match=message):
        estimator.fit(*arguments)
    assert same(estimator, before)


def test_a_random_state_is_left_as_it_was():
    state = np.random.RandomState(0)
    model = TorchSoftmaxClassifier(solver="sgd", random_state=state)
    with pytest.raises(ValueError, match="coef_init has shape"):
        model.fit(X, y, coef_init=np.ones(3))
    assert state.randint(2**31) == np.random.RandomState(0).randint(2**31)


STORAGES = {
    "array": np.asarray,
    "float32": np.float32,
    "float16": np.float16,
    "columns": np.asfortranarray,
    "lists": np.ndarray.tolist,
    "objects": lambda X: X.astype(object),
    "tensor": torch.from_numpy,
    "sparse": sp.csr_array,
    "sparse frame": lambda X: pd.DataFrame.sparse.from_spmatrix(sp.csr_array(X)),
}


@pytest.mark.parametrize("is_sparse", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("storage", STORAGES)
def test_predictions_for_bad_rows(storage, bad, is_sparse):
    model = TorchSoftmaxClassifier(l1_ratio=1.0, C=0.02).fit(X, y)
    assert not model.coef_[:, 1].any()  # so that sparse coefficients do not touch what is wrong
    model = model.sparsify() if is_sparse else model
    wrong = np.where(np.arange(X.size).reshape(X.shape) == 301, bad, X)
    before = dict(vars(model))
    for method in (model.predict, model.predict_proba, model.predict_log_proba, model.decision_function):
        method(STORAGES[storage](X))
        with pytest.raises(ValueError, match=r"X holds (NaN|infinity) in row 75, column 1,"):
            method(STORAGES[storage](wrong))
    assert same(model, before)


@pytest.mark.parametrize("estimator", [TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(Cs=2, cv=2)])
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
@pytest.mark.parametrize("storage", [*STORAGES.values(), sp.csc_array, pd.DataFrame])
def test_fits_of_bad_rows(storage, bad, estimator):
    wrong = np.where(np.arange(X.size).reshape(X.shape) == 301, bad, X)
    with pytest.raises(ValueError, match=r"X holds (NaN|infinity) in row 75, column 1,"):
        estimator.fit(storage(wrong), y)


@pytest.mark.parametrize("rows", [X[:, :3], X[0], X[:0], X[None]])
def test_predictions_for_other_shapes(rows):
    model = TorchSoftmaxClassifier().fit(X, y)
    with pytest.raises(ValueError, match=r"X has 3 features|Expected 2D|0 sample|dim 3"):
        model.predict_proba(rows)


def test_predictions_by_coefficients_set_by_hand():
    fitted, model = TorchSoftmaxClassifier().fit(X, y), TorchSoftmaxClassifier()
    model.classes_, model.coef_, model.intercept_ = fitted.classes_, fitted.coef_, fitted.intercept_
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))


@pytest.mark.parametrize("is_fitted", [False, True])
@pytest.mark.parametrize("raised", RAISED, ids=lambda e: type(e).__name__)
def test_faults_on_the_way(estimator, raised, is_fitted, monkeypatch):
    if is_fitted:
        estimator.fit(X[:, :3], y)
        proba = estimator.predict_proba(X[:, :3])
    before = dict(vars(estimator))

    def fault(*_, **__):
        raise raised

    for kind in ("Objective", "SmallObjective", "TinyObjective", "BatchedObjective"):
        monkeypatch.setattr(f"skl_softmax.training.{kind}", fault)
    with pytest.raises(type(raised)):
        estimator.fit(X, y)
    assert same(estimator, before)
    if is_fitted:
        np.testing.assert_array_equal(estimator.predict_proba(X[:, :3]), proba)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (WITH_NAN[60:90], y[60:90], "NaN"),
        (X[:9, :3], y[:9], "X has 3 features"),
        (X[:9], y[:9] + 7, "y holds labels|classes"),
        (X[:9], y[:8], "inconsistent numbers of samples"),
    ],
)
def test_bad_batches(rows, labels, message):
    learner = TorchSoftmaxClassifier(solver="adam").partial_fit(X[::2], y[::2], classes=[0, 1, 2])
    beside = TorchSoftmaxClassifier(solver="adam").partial_fit(X[::2], y[::2], classes=[0, 1, 2])
    before = dict(vars(learner))
    with pytest.raises(ValueError, match=message):
        learner.partial_fit(rows, labels)
    assert same(learner, before)
    for model in (learner, beside):
        model.partial_fit(X[1::2], y[1::2])
    np.testing.assert_array_equal(learner.coef_, beside.coef_)


@pytest.mark.parametrize("raised", RAISED, ids=lambda e: type(e).__name__)
def test_faults_within_a_batch(raised, monkeypatch):
    learner = TorchSoftmaxClassifier(solver="sgd", momentum=0.9).partial_fit(X, y, classes=[0, 1, 2])
    before = dict(vars(learner))

    def fault(*_):
        raise raised

    monkeypatch.setattr(training.Problem, "minimise", fault)
    with pytest.raises(type(raised)):
        learner.partial_fit(X, y)
    assert same(learner, before)


@pytest.mark.parametrize(
    "make",
    [TorchSoftmaxClassifier, lambda: TorchSoftmaxClassifier(solver="sgd"), lambda: TorchSoftmaxClassifierCV(cv=2)],
)
def test_numbers_that_overflow_are_named(make):
    huge = np.array([[1.0, 1e308], [2.0, -1e308], [3.0, 0.0], [4.0, 1.0]])
    with pytest.raises(ValueError, match=r"number of size 1e\+308 in row 0, column 1, .* missing value"):
        make().fit(huge, [0, 1, 0, 1])


def test_stored_numbers_that_overflow_are_named():
    huge = torch.tensor([[0.0, 1.0, 0.0], [2.0, 0.0, -1e300]], dtype=torch.float64).to_sparse_csr()
    with pytest.raises(ValueError, match=r"number of size 1e\+300 in row 1, column 2"):
        finite.refuse_huge(huge)


def test_a_number_that_overflows_in_float32_is_named():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60_000, 40))
    labels = rows[:, 0] > 0
    rows[5, 3] = 1e200
    with pytest.raises(ValueError, match=r"number of size 1e\+200 in row 5, column 3"):
        TorchSoftmaxClassifier().fit(rows, labels)


@pytest.mark.parametrize("size", [1e155, 1e200, 1e300])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"solver": "lbfgs"}, {"solver": "newton"}, {"C": np.inf}, {"l1_ratio": 0.5}], ids=str
)
@pytest.mark.parametrize("n_columns", [4, 3000])
@pytest.mark.usefixtures("sparse_as_it_is")
def test_sparse_numbers_whose_squares_overflow(n_columns, settings, n_classes, size):
    """Left alone, a parameter of infinite curvature is never moved, and the gap does not see it."""
    rows, labels = X[y < n_classes] * [1, 1, 1, size], y[y < n_classes]
    rest = sp.random_array((len(rows), n_columns - 4), density=0.01, rng=np.random.default_rng(0))
    rows = sp.hstack([rows, rest], format="csr")
    with pytest.raises(ValueError, match=r"X holds a number of size .*column 3"):
        TorchSoftmaxClassifier(**settings).fit(rows, labels)


def test_advice_for_infinity_is_another_than_for_missing_values():
    rows = torch.from_numpy(1e5 * X).half()
    with pytest.raises(ValueError, match=r"X holds infinity in row 0, column 0.*Pass a wider type"):
        TorchSoftmaxClassifier().fit(rows, y)
    with pytest.raises(ValueError, match=r"X holds NaN in row 75, column 1.*SimpleImputer"):
        TorchSoftmaxClassifier().fit(WITH_NAN, y)
