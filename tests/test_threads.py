"""Small products and powers, which NumPy makes in one thread, are those of torch; fits in two are those in one."""

import os
import subprocess
import sys
from ast import literal_eval

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.datasets import load_digits, make_classification
from torch.nn import functional

from skl_softmax import TorchSoftmaxClassifier, threads
from skl_softmax.data import linear
from skl_softmax.objective.losses import SoftmaxLoss


def awake(*_):
    """Stands for what wakes threads."""
    raise AssertionError("a product of torch's, for few rows")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 3, 5), (1797, 64, 10), (300, 2000, 100), (20_000, 2, 3)])
def test_linear_is_torchs(shape, dtype):
    n_rows, n_features, n_outputs = shape
    draw = torch.Generator().manual_seed(0)
    sizes = (n_rows, n_features), (n_outputs, n_features), (n_outputs,)
    rows, weight, bias = (torch.randn(size, generator=draw, dtype=dtype) for size in sizes)
    expected = torch.nn.functional.linear(rows.double(), weight.double(), bias.double())
    found = linear(rows, weight, bias)
    assert found.dtype == dtype
    tolerance = 100 * torch.finfo(dtype).eps
    np.testing.assert_allclose(found.double(), expected, rtol=tolerance, atol=tolerance * n_features**0.5)


@pytest.mark.parametrize("n_rows", [3, 20_000])
@pytest.mark.parametrize("n_classes", [3, 100])
def test_probabilities_are_softmax(n_rows, n_classes):
    logits = 50 * torch.randn(n_rows, n_classes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = logits.clone()
    proba, log_proba = SoftmaxLoss.proba(logits), SoftmaxLoss.log_proba(logits)
    torch.testing.assert_close(proba, torch.softmax(logits, dim=1), rtol=1e-12, atol=0.0)
    torch.testing.assert_close(log_proba, torch.log_softmax(logits, dim=1), rtol=1e-12, atol=1e-13)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("size", [5, threads.ONE_THREAD + 1])
def test_exponentials_are_in_place(size):
    values = torch.linspace(-800, 0, size, dtype=torch.float64)
    expected, memory = values.exp(), values.data_ptr()
    assert threads.exp_(values).data_ptr() == memory
    torch.testing.assert_close(values, expected, rtol=1e-14, atol=0.0)


def test_few_rows_wake_no_threads(monkeypatch):
    X, y = load_digits(return_X_y=True)
    clf = TorchSoftmaxClassifier(max_iter=3, tol=1.0).fit(X, y)
    expected = clf.predict_proba(np.tile(X, (20, 1)))[: len(X)]
    monkeypatch.setattr(functional, "linear", awake)
    np.testing.assert_allclose(clf.predict_proba(X), expected, rtol=1e-9, atol=1e-12)
    with pytest.raises(AssertionError, match="torch's"):
        clf.predict_proba(np.tile(X, (20, 1)))


@pytest.fixture
def set_threads():
    """Sets the number of torch's threads, which is put back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("storage", [np.asarray, np.float32, csr_array])
@pytest.mark.parametrize("n_classes", [2, 5])
def test_fits_in_two_threads_are_those_of_one(storage, n_classes, set_threads):
    X, y = make_classification(30_000, 20, n_informative=10, n_classes=n_classes, random_state=0)
    X, models = storage(X), []
    for n_threads in (1, 2, 2):
        set_threads(n_threads)
        models.append(TorchSoftmaxClassifier(tol=1e-12).fit(X, y))
        assert torch.get_num_threads() == n_threads
    one, two, again = models
    np.testing.assert_array_equal(two.coef_, again.coef_)
    np.testing.assert_array_equal(two.loss_curve_, again.loss_curve_)
    np.testing.assert_allclose(two.coef_, one.coef_, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("n_models", [1, 5, 60])
@pytest.mark.parametrize("n_outputs", [1, 3, 40])
@pytest.mark.parametrize("shape", [(1, 1), (30, 4), (1000, 31), (1000, 401), (5000, 17), (12_345, 7), (2, 20_000)])
def test_products_part_by_part_are_those_of_all_rows_at_once(shape, n_outputs, n_models, monkeypatch):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=shape)
    parameters, residual = (rng.normal(size=(n_models, n_outputs, size)) for size in reversed(shape))
    multiply, work = np.matmul, []

    def counted(one, other, **settings):
        work.append(one.shape[-2] * one.shape[-1] * other.shape[-1])
        return multiply(one, other, **settings)

    monkeypatch.setattr(threads.np, "matmul", counted)
    serial = threads.SerialRows(rows)
    scale = np.abs(rows).sum()
    np.testing.assert_allclose(serial.logits(parameters), parameters @ rows.T, rtol=1e-12, atol=1e-13 * scale)
    np.testing.assert_allclose(serial.pullback(residual), residual @ rows, rtol=1e-12, atol=1e-13 * scale)
    one_row = n_outputs * shape[1]
    assert all(size <= max(threads.SERIAL_PRODUCT, one_row) for size in work)


WAKES = """
import os, sys, time
import numpy as np
from sklearn.datasets import make_classification
from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

def activity():
    "How often each thread but this one has been woken, and how long it has run."
    counts = {}
    for thread in os.listdir("/proc/self/task"):
        if int(thread) != os.getpid():
            with open(f"/proc/self/task/{thread}/status") as status, open(f"/proc/self/task/{thread}/stat") as times:
                counts[thread] = [line for line in status if "ctxt_switches" in line], times.read().split()[13:15]
    return counts

def wakes(call):
    time.sleep(0.1)
    before = activity()
    call()
    time.sleep(0.1)
    return activity() != before

n_rows, n_features, n_classes = map(int, sys.argv[1:4])
X, y = make_classification(n_rows, n_features, n_informative=8, n_redundant=0, n_classes=n_classes, random_state=0)
clf = TorchSoftmaxClassifier(tol=1e-2).fit(X[:100], y[:100])
calls = {
    "large product": lambda: np.ones((3000, 1000)) @ np.ones((1000, 1000)),
    "fit": lambda: TorchSoftmaxClassifier().fit(X, y),
    "weighted fit": lambda: TorchSoftmaxClassifier().fit(X, y, np.ones(n_rows)),
    "float32 fit": lambda: TorchSoftmaxClassifier().fit(X.astype("f4"), y),
    "sweep": lambda: TorchSoftmaxClassifierCV(Cs=4).fit(X, y),
    "proba": lambda: clf.predict_proba(X),
    "proba of two rows": lambda: clf.predict_proba(X[:2]),
    "predict": lambda: clf.predict(X),
    "logits": lambda: clf.decision_function(X),
    "score": lambda: clf.score(X, y),
}
print([name for name in sys.argv[4:] if wakes(calls[name])])
"""
PREDICTIONS = ["proba", "proba of two rows", "predict", "logits", "score"]
FITS = ["fit", "weighted fit", "float32 fit"]


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="the system does not tell of threads")
@pytest.mark.skipif(os.cpu_count() == 1, reason="no library has a second thread")
@pytest.mark.parametrize(
    ("n_rows", "n_features", "n_classes", "calls"),
    [
        (150, 8, 3, [*PREDICTIONS, *FITS, "sweep"]),
        (1000, 20, 2, [*PREDICTIONS, *FITS, "sweep"]),
        (1000, 50, 2, [*PREDICTIONS, *FITS, "sweep"]),
        (5000, 20, 2, [*PREDICTIONS, *FITS, "sweep"]),
        (10_000, 8, 2, [*PREDICTIONS, *FITS]),
        (3000, 30, 3, PREDICTIONS),
        (30_000, 50, 2, PREDICTIONS),
    ],
)
def test_small_tables_wake_no_threads(n_rows, n_features, n_classes, calls):
    # Threads of NumPy's, SciPy's and torch's libraries stand in each other's way, for 4 ms at a time.
    settings = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    command = [sys.executable, "-c", WAKES, str(n_rows), str(n_features), str(n_classes), *calls, "large product"]
    told = subprocess.run(command, env=settings, capture_output=True, text=True, check=True).stdout
    assert literal_eval(told) == ["large product"]


@pytest.mark.parametrize("size", [3, 10_000, 10_001])
def test_inner_products(size):
    one, other = np.random.default_rng(0).normal(size=(2, 4, 3, size))
    np.testing.assert_allclose(threads.dots(one, other), (one * other).sum(axis=-1), rtol=1e-12, atol=1e-10)
    narrow = threads.dots(one.astype(np.float32), other.astype(np.float32))
    assert narrow.dtype == np.float64
