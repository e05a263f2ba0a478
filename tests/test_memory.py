"""X as a file that is larger than what memory is left, and memory that runs out."""

import gc
import os
import platform
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV, finite, inputs, predictor
from skl_softmax.objective import Objective
from skl_softmax.objective.sampling import SAMPLE_BYTES

# What fits and predictions may need beside X, which is 120 MB in float32.
LIMIT = 100 * 2**20
ROWS, COLUMNS = 300_000, 100
# Run apart, with memory of its own (not of files) limited to what it has after a small fit and prediction, and LIMIT.
SCRIPT = f"""
import resource, sys
from pathlib import Path
import numpy as np
from skl_softmax import TorchSoftmaxClassifier

path, dtype, solver = sys.argv[1:]
X = np.memmap(path, dtype=dtype, mode="r", shape=({ROWS}, {COLUMNS}))
y = (X[:, 0] > 0).astype(int) + (X[:, 1] > X[:, 2])
y[::7] = 0
clf = TorchSoftmaxClassifier(solver=solver, batch_size=1000, tol=1e-3, n_iter_no_change=1)
clf.fit(X[:5000].copy(), y[:5000]).predict(X[:1000])  # for which NumPy's library takes memory once
status = Path("/proc/self/status").read_text().split("VmData:")[1]
limit = 1024 * int(status.split()[0]) + {LIMIT}
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
clf.fit(X, y)
clf.coef_ = clf.coef_.astype(np.float64)  # wider than X
assert clf.predict_proba(X).shape == ({ROWS}, 3)
assert np.array_equal(clf.predict(X)[-1000:], clf.predict(X[-1000:]))
try:
    X.astype(np.float32) + 0
except MemoryError:
    print("a copy does not fit")
"""


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A file of numbers for each dtype; the first column is zero but for a few rows."""
    folder, rng = tmp_path_factory.mktemp("tables"), np.random.default_rng(0)
    X = rng.standard_normal((ROWS, COLUMNS), dtype=np.float32)
    X[np.arange(ROWS) % 1000 > 0, -1] = 0
    for dtype in ("float16", "float32", "float64"):
        X.astype(dtype).tofile(folder / dtype)
    return folder


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of the system's own")
@pytest.mark.parametrize(
    ("dtype", "solver"), [("float16", "auto"), ("float32", "auto"), ("float64", "auto"), ("float32", "sgd")]
)
def test_a_file_is_never_copied_as_a_whole(tables, dtype, solver):
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(tables / dtype), dtype, solver]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "a copy does not fit"


# A sweep in a process that has never freed a large piece of memory: what it has zeroed for it, in bytes.
SWEEP_SCRIPT = """
import resource
import numpy as np
from skl_softmax import TorchSoftmaxClassifierCV

rng = np.random.default_rng(0)
y = np.arange(20_000) % 26
X = rng.standard_normal((26, 16))[y] + rng.standard_normal((20_000, 16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
TorchSoftmaxClassifierCV(cv=5).fit(X, y)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="how glibc's malloc goes about")
def test_passes_of_a_sweep_use_the_same_memory():
    command = [sys.executable, "-W", "ignore", "-c", SWEEP_SCRIPT]
    # Dask's nannies tell malloc to learn nothing, for their own processes, by variables that they leave behind.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, env=environment)
    assert int(done.stdout) < 200e6  # 900 MB if each pass has its own


def test_samples_are_small_however_many_rows_there_are():
    X = torch.zeros(1, 64).expand(2**25, 64)  # 16 GB in float64, none of which there is
    objective = Objective.__new__(Objective)
    data = type("Rows", (), {"row_bytes": 64 * 8, "n_rows": len(X), "n_columns": 65, "X": X})()
    vars(objective).update(data=data, n_outputs=3, weights=torch.ones(1, 1).expand(1, len(X)))
    taken = []
    vars(objective)["take"] = lambda index: taken.append(len(index)) or objective
    assert len(objective.samples()) == len(taken)
    assert max(taken) * data.row_bytes <= SAMPLE_BYTES
    objective.sample(2**24)
    assert taken[-1] * data.row_bytes <= SAMPLE_BYTES


def numpy_allocation(*_, **__):
    np.empty((2**40, 2**10))


def torch_allocation(*_, **__):
    torch.empty(2**50, dtype=torch.float64)


@pytest.mark.parametrize("allocate", [numpy_allocation, torch_allocation])
@pytest.mark.parametrize("estimator", [TorchSoftmaxClassifier(), TorchSoftmaxClassifierCV(Cs=2, cv=2)])
def test_memory_that_runs_out_is_told(estimator, allocate, monkeypatch):
    X, y = np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3
    before = dict(vars(estimator.fit(X, y)))
    monkeypatch.setattr("skl_softmax.training.standardised", allocate)
    with pytest.raises(MemoryError, match=r"9,007,199,254,740,992 bytes were wanted.*solver='auto'"):
        estimator.fit(X, y)
    assert vars(estimator).keys() == before.keys()
    assert all(vars(estimator)[name] is value for name, value in before.items())


class TestLargeX:
    """X that is not read for NaN and infinity alone."""

    @pytest.fixture(autouse=True)
    def everything_is_large(self, monkeypatch):
        monkeypatch.setattr(finite, "LARGE_BYTES", 0)

    @pytest.mark.parametrize(("bad", "row"), [(np.nan, 0), (np.inf, 77), (-np.inf, 9_999)])
    @pytest.mark.parametrize("solver", ["auto", "newton", "lbfgs", "proximal", "sgd"])
    @pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
    def test_a_bad_row_is_named(self, bad, row, solver, dtype):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(10_000, 4)).astype(dtype), rng.integers(3, size=10_000)
        model = TorchSoftmaxClassifier(solver=solver, max_iter=20).fit(X, y)
        before = model.coef_
        X[row, 1] = bad
        for call in (lambda: model.fit(X, y), lambda: model.predict_proba(X)):
            with pytest.raises(ValueError, match=rf"X holds (NaN|infinity) in row {row}, column 1,"):
                call()
        assert model.coef_ is before

    def test_no_other_row_is_named_where_rows_are_left_out(self):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(1000, 4)), np.arange(1000) % 3
        X[500, 1] = np.nan
        with pytest.raises(ValueError, match="X holds NaN in row 500, column 1,"):
            TorchSoftmaxClassifier(class_weight={0: 0.0}).fit(X, y)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_zeros_of_sparse_coefficients_do_not_hide_it(self, bad):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(1000, 4))
        model = TorchSoftmaxClassifier(l1_ratio=1.0, C=0.05).fit(X, X[:, 0] > 0).sparsify()
        assert not model.coef_.toarray()[:, 1].any()
        X[7, 1] = bad
        with pytest.raises(ValueError, match="in row 7, column 1,"):
            model.predict(X)

    @pytest.mark.parametrize(("bad", "row"), [(np.nan, 0), (np.inf, 77), (-np.inf, 999)])
    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize("options", [{}, {"learning_rate": 0.1}, {"batch_size": 100}, {"solver": "adam"}])
    def test_a_bad_row_of_a_stream_is_named(self, bad, row, is_first, options):
        rng = np.random.default_rng(0)
        X, y = rng.normal(size=(1000, 4)), rng.integers(3, size=1000)
        model = TorchSoftmaxClassifier(**{"solver": "sgd", "random_state": 0} | options)
        if not is_first:
            model.partial_fit(X, y, classes=[0, 1, 2])
        before = dict(vars(model))
        X[row, 1] = bad
        with pytest.raises(ValueError, match=rf"X holds (NaN|infinity) in row {row}, column 1,"):
            model.partial_fit(X, y, classes=[0, 1, 2])
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is value for name, value in before.items())

    def test_good_rows_are_not_searched(self, monkeypatch):
        searched = []
        for module in (inputs, predictor):
            monkeypatch.setattr(module, "check_finite", searched.append)
        X, y = load_iris(return_X_y=True)
        TorchSoftmaxClassifier().fit(X, y).predict(X)
        TorchSoftmaxClassifier().fit(torch.from_numpy(X), y)
        assert searched == []


OF_ALL_KINDS = [
    *(TorchSoftmaxClassifier(solver=solver) for solver in ("auto", "newton", "lbfgs", "proximal")),
    TorchSoftmaxClassifier(solver="sgd", max_iter=3, batch_size=20),
    TorchSoftmaxClassifier(early_stopping=True, verbose=1000),
    TorchSoftmaxClassifierCV(Cs=2, cv=2),
    TorchSoftmaxClassifierCV(Cs=2, cv=2, scoring="f1_macro"),
    TorchSoftmaxClassifierCV(Cs=2, cv="alo"),
]


def outlives(X, call) -> bool:
    """Whether anything holds X after a call of which nothing is kept."""
    X = X.copy()
    alive = weakref.ref(X)
    gc.disable()
    try:
        call(X)
        del X
        return alive() is not None
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("estimator", OF_ALL_KINDS, ids=str)
def test_no_cycle_keeps_the_rows(estimator):
    """Python counts the objects in cycles, not their bytes, and leaves large X of many fits in memory."""
    X, y = load_iris(return_X_y=True)
    clone(estimator).fit(X, y)  # what torch imports then holds frames
    assert not outlives(X, lambda X: clone(estimator).fit(X, y).predict_proba(X))
    assert not outlives(X, lambda X: clone(estimator).set_callbacks(Silent()).fit(X, y))


class Silent:
    """A callback that does nothing, and keeps nothing."""

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        pass


@pytest.mark.parametrize("solver", ["auto", "newton", "lbfgs"])
def test_no_cycle_keeps_blocks(solver):
    X, y = load_iris(return_X_y=True)
    assert not outlives(X, lambda X: TorchSoftmaxClassifier(solver=solver).fit(RowBlocks([(X, y)])))
