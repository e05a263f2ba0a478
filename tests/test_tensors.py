"""Tensors in, tensors out; half precision as it is."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from reference import converged, objective, relative_error
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

METHODS = ["decision_function", "predict_proba", "predict_log_proba", "predict"]
HALF = [torch.float16, torch.bfloat16]


def data(n_classes=3):
    X, y = make_classification(300, 8, n_informative=6, n_classes=n_classes, random_state=0)
    return X, y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_outputs_are_as_inputs(n_classes, dtype, method):
    X, y = data(n_classes)
    X = torch.from_numpy(X).to(dtype)
    model = TorchSoftmaxClassifier().fit(X, torch.from_numpy(y), torch.ones(len(y)))
    found = getattr(model, method)(X)
    assert isinstance(found, torch.Tensor)
    assert not found.requires_grad
    expected = getattr(model, method)(X.numpy())
    assert isinstance(expected, np.ndarray)
    np.testing.assert_array_equal(found.numpy(), expected)
    assert isinstance(model.coef_, np.ndarray)
    assert model.score(X, torch.from_numpy(y)) == model.score(X.numpy(), y)


def test_strings_come_as_arrays():
    X, y = load_iris(return_X_y=True)
    model = TorchSoftmaxClassifier().fit(torch.from_numpy(X), np.array(["a", "b", "c"])[y])
    assert isinstance(model.predict(torch.from_numpy(X)), np.ndarray)


@pytest.mark.parametrize("to", [torch.Tensor.to_sparse_csr, torch.Tensor.to_sparse_coo])
def test_sparse_tensors(to):
    X, y = data()
    X = torch.from_numpy(np.where(np.abs(X) < 1, 0, X))
    dense, sparse = (TorchSoftmaxClassifier(tol=1e-10).fit(x, y) for x in (X, to(X)))
    assert relative_error(sparse.coef_, dense.coef_) < 1e-4
    assert isinstance(sparse.predict_proba(to(X)), torch.Tensor)
    with pytest.raises(TypeError, match=r"layout torch\.sparse_csc"):
        dense.predict(X.to_sparse_csc())


def test_gradients_neither_leak_nor_matter():
    X, y = data()
    tensor = torch.from_numpy(X).requires_grad_()
    before = tensor.detach().clone()
    model = TorchSoftmaxClassifier().fit(tensor, torch.from_numpy(y))
    np.testing.assert_array_equal(model.coef_, TorchSoftmaxClassifier().fit(X, y).coef_)
    assert not model.predict_proba(tensor).requires_grad
    assert tensor.grad is None
    torch.testing.assert_close(tensor.detach(), before, rtol=0, atol=0)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("solver", ["auto", "newton", "lbfgs"])
def test_half_precision_reaches_the_optimum_of_the_same_rows(dtype, n_classes, solver):
    X, y = data(n_classes)
    half = torch.from_numpy(X).to(dtype)
    model = TorchSoftmaxClassifier(solver=solver).fit(half, y)
    assert model.coef_.dtype == np.float32
    exact = half.double().numpy()
    best = objective(converged(exact, y), exact, y)
    assert objective(model, exact, y) / best - 1 <= 1e-6
    assert model.predict_proba(half).dtype == torch.float32
    torch.testing.assert_close(
        model.predict_proba(half).double(), torch.from_numpy(model.predict_proba(exact)), rtol=1e-5, atol=1e-6
    )


def test_arrays_in_half_precision():
    X, y = data()
    half = X.astype(np.float16)
    model = TorchSoftmaxClassifier().fit(half, y)
    assert isinstance(model.predict_proba(half), np.ndarray)
    assert relative_error(model.coef_, TorchSoftmaxClassifier().fit(torch.from_numpy(half), y).coef_) == 0
    weighted = TorchSoftmaxClassifier(l1_ratio=0.5).fit(half, y, np.arange(len(y)) % 3)
    assert np.isfinite(weighted.coef_).all()
    stream = TorchSoftmaxClassifier(solver="sgd").partial_fit(half, y, classes=[0, 1, 2])
    assert stream.partial_fit(half, y).score(half, y) > 0.4


def test_half_precision_is_never_widened_as_a_whole():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(10**6, 64, dtype=torch.bfloat16, generator=generator)
    y = (X[:, :3].float() + torch.randn(10**6, 3, generator=generator)).argmax(dim=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        model = TorchSoftmaxClassifier().fit(X, y)
        model.predict(X)
    assert model.converged_
    assert max(event.cpu_memory_usage for event in profile.events()) < 0.5 * X.nbytes


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (torch.tensor([[1.0, float("nan")], [1, 2]]).half(), "NaN in row 0, column 1,"),
        (torch.ones(2, dtype=torch.bfloat16), "must have rows and columns"),
        (torch.ones(2, 3, dtype=torch.float16), "3 features"),
    ],
)
def test_bad_half_precision(X, message):
    model = TorchSoftmaxClassifier().fit(np.array([[0.0, 1], [1, 0]]), [0, 1])
    with pytest.raises(ValueError, match=message):
        model.predict(X)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (torch.ones(3, 2).to(torch.float8_e4m3fn), TypeError, r"float8_e4m3fn is not supported: pass X\.half\(\)"),
        (
            torch.nested.nested_tensor([torch.ones(2)] * 3, layout=torch.jagged),
            TypeError,
            "layout nested is not supported",
        ),
        (torch.complex(torch.ones(3, 2), torch.ones(3, 2)).to_sparse_csr(), ValueError, "Complex data not supported"),
        (torch.ones(3, 2).to_sparse_csc(), TypeError, "sparse_csc is not supported"),
        (torch.ones(3, 2, 2).to_sparse(), ValueError, r"rows and columns of numbers, but its shape is \(3, 2, 2\)"),
        (torch.sparse_coo_tensor([[0, 1]], torch.ones(2, 2), (3, 2)), ValueError, "rows and columns of numbers"),
    ],
)
def test_tensors_of_other_kinds_are_named(X, error, message):
    with pytest.raises(error, match=message):
        TorchSoftmaxClassifier().fit(X, [0, 1, 0])


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bfloat16, torch.bool])
def test_classes_as_tensors(dtype):
    X, y = data(n_classes=2)
    y = torch.from_numpy(y).to(dtype)
    clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=y.unique())
    assert clf.partial_fit(X, y, classes=y.unique()).classes_.tolist() == [0, 1]
    assert TorchSoftmaxClassifier().fit(X, y, classes=y.unique()).score(X, y) > 0.7


def test_signs_that_torch_has_put_off():
    X, y = map(torch.from_numpy, load_iris(return_X_y=True))
    later = torch.complex(X, -X).conj().imag
    assert later.is_neg()
    np.testing.assert_array_equal(
        TorchSoftmaxClassifier().fit(later, y).coef_, TorchSoftmaxClassifier().fit(X, y).coef_
    )


def test_tensors_in_pipelines_searches_and_sweeps():
    X, y = (torch.from_numpy(part) for part in data())
    pipeline = make_pipeline(FunctionTransformer(lambda x: x / 2), TorchSoftmaxClassifier()).fit(X, y)
    assert isinstance(pipeline.predict_proba(X), torch.Tensor)
    search = GridSearchCV(TorchSoftmaxClassifier(), {"C": [0.1, 1.0]}, cv=3, scoring="neg_log_loss").fit(
        X.numpy(), y.numpy()
    )
    for scoring in ("neg_log_loss", "f1_macro"):
        for X_ in (X, X.numpy(), X.to(torch.bfloat16)):
            model = TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], cv=3, scoring=scoring).fit(X_, y)
            assert model.scores_.shape == (3, 1, 2)
    assert search.best_params_["C"] == TorchSoftmaxClassifierCV(Cs=[0.1, 1.0], cv=3).fit(X, y).C_


def test_early_stopping_and_warm_starts_take_tensors():
    X, y = (torch.from_numpy(part) for part in data())
    for dtype in (torch.float64, torch.bfloat16):
        model = TorchSoftmaxClassifier(early_stopping=True, random_state=1, warm_start=True).fit(X.to(dtype), y)
        assert model.fit(X.to(dtype), y).score(X.to(dtype), y) > 0.5


def test_small_copies_only():
    """Tensors share their memory with what is fitted."""
    X = torch.randn(100_000, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = (X[:, 0] > 0).long()
    tracemalloc.start()
    TorchSoftmaxClassifier().fit(X, y)
    _, peak = tracemalloc.get_traced_memory()  # of NumPy
    tracemalloc.stop()
    assert peak < 0.7 * X.nbytes


def test_array_api_dispatch():
    pytest.importorskip("scipy", minversion="1.14", reason="scikit-learn dispatches with SciPy 1.14 or newer")
    environment = os.environ | {"SCIPY_ARRAY_API": "1"}
    command = [sys.executable, "-m", "pytest", "-q", str(Path(__file__).parent / "array_api_checks.py")]
    checks = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert checks.returncode == 0, checks.stdout


def test_sparse_integers_are_known_to_the_last_digit():
    X, y = torch.tensor([[16777217], [16777216]] * 20), np.array([1, 0] * 20)
    sparse = TorchSoftmaxClassifier(C=1e4).fit(X.to_sparse_csr(), y)
    assert sparse.coef_.dtype == np.float64
    assert sparse.score(X.to_sparse_csr(), y) == TorchSoftmaxClassifier(C=1e4).fit(X, y).score(X, y) == 1.0


@pytest.mark.parametrize("storage", [np.asarray, csr_array, torch.from_numpy])
def test_fits_in_inference_mode(storage):
    X, y = load_iris(return_X_y=True)
    with torch.inference_mode():
        model = TorchSoftmaxClassifier().fit(storage(X), y)
    np.testing.assert_array_equal(model.coef_, TorchSoftmaxClassifier().fit(storage(X), y).coef_)


@pytest.mark.parametrize("dtype", [">i8", np.longdouble])
def test_labels_that_torch_does_not_hold(dtype):
    X, y = load_iris(return_X_y=True)
    found = TorchSoftmaxClassifier().fit(X, y.astype(dtype)).predict(torch.from_numpy(X))
    assert found.dtype == dtype


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),
    "inference": torch.inference_mode,
    "gradients": torch.enable_grad,
}


@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("setting", [*SETTINGS, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize(
    "estimator",
    [
        TorchSoftmaxClassifier(),
        TorchSoftmaxClassifier(solver="lbfgs"),
        TorchSoftmaxClassifier(l1_ratio=1.0),
        TorchSoftmaxClassifier(early_stopping=True, random_state=0),
        TorchSoftmaxClassifier(solver="sgd", learning_rate=0.1, random_state=0, max_iter=2, batch_size=30),
        TorchSoftmaxClassifierCV(Cs=2, cv=2),
        TorchSoftmaxClassifierCV(Cs=2, cv=2, scoring="f1_macro"),
        TorchSoftmaxClassifierCV(Cs=2, cv="alo"),
    ],
    ids=str,
)
def test_what_the_caller_has_set_changes_nothing(estimator, setting):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(8000, 30)).astype(np.float32)  # so many that torch makes the products
    y = (X[:, :3] + rng.gumbel(size=(8000, 3))).argmax(axis=1)
    if "CV" in type(estimator).__name__:
        X, y = X[:300], y[:300]
    expected = clone(estimator).fit(X, y)
    with SETTINGS[setting]() if isinstance(setting, str) else default_dtype(setting):
        found = clone(estimator).fit(X, y)
        outputs = [getattr(expected, method)(X) for method in METHODS]
        of_sparse = expected.predict_proba(csr_array(X)), clone(estimator).fit(X, y).sparsify().predict_proba(X)
    np.testing.assert_array_equal(found.coef_, expected.coef_)
    for proba in of_sparse:
        np.testing.assert_allclose(proba, expected.predict_proba(X), rtol=1e-5)
    for output, method in zip(outputs, METHODS, strict=True):
        np.testing.assert_array_equal(output, getattr(expected, method)(X))


def test_names_of_features_are_kept_beside_tensors():
    frame, y = load_iris(return_X_y=True, as_frame=True)
    model = TorchSoftmaxClassifier(solver="sgd", momentum=0.9).partial_fit(frame, y, classes=[0, 1, 2])
    with pytest.warns(UserWarning, match="X does not have valid feature names") as said:
        model.partial_fit(frame.to_numpy(np.float16), y)
    assert len(said) == 1
    assert model.feature_names_in_.tolist() == frame.columns.tolist()


@pytest.mark.filterwarnings("ignore:C=1000")
def test_streams_and_summaries_whatever_the_caller_has_set():
    X, y = load_iris(return_X_y=True)
    for setting in SETTINGS.values():
        with setting():
            clf = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
            table = TorchSoftmaxClassifier(C=1e3).fit(X, y).summary(X, y)
        same = TorchSoftmaxClassifier(solver="sgd").partial_fit(X, y, classes=[0, 1, 2]).partial_fit(X, y)
        np.testing.assert_array_equal(clf.coef_, same.coef_)
        np.testing.assert_array_equal(table, TorchSoftmaxClassifier(C=1e3).fit(X, y).summary(X, y))


@pytest.mark.parametrize("dtype", ["f8", "f4", "f2"])
def test_fields_of_packed_records(dtype):
    X, y = load_iris(return_X_y=True)
    records = np.zeros(150, dtype=[("id", "u1"), ("x", dtype, (4,))])
    records["x"] = X
    plain = TorchSoftmaxClassifier().fit(records["x"].copy(), y)
    for rows in ((records["x"], y), (RowBlocks([(records["x"], y)]),)):
        assert relative_error(TorchSoftmaxClassifier().fit(*rows).coef_, plain.coef_) < 1e-3
    np.testing.assert_array_equal(plain.predict_proba(records["x"]), plain.predict_proba(records["x"].copy()))
