"""What the README says of trust, measured: honesty of the gap, files larger than memory, threads, leaks.

Each part is measured in a process of its own and leaves its figures in results/reliability.json; the page
results/reliability.md is made of them.
"""

import json
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count, islice
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import sklearn
import torch
from joblib import parallel_config
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from benchmarks.measure import process_bytes
from benchmarks.tables import draw
from skl_softmax import TorchSoftmaxClassifier, __version__
from tests import fuzz
from tests.reference import objective

SOLVERS, TOLERANCES = ("newton", "lbfgs", "proximal"), (1e-3, 1e-5, 1e-7, 1e-9)
# The same of larger tables, by the default solver and by one that is another way.
TABLE_SOLVERS, TABLE_TOLERANCES = ("auto", "newton"), (1e-2, 1e-4, 1e-7, 1e-10)
# Of each fit, also where the last digits of a hostile problem would take many; of those of larger tables.
MAX_ITER, TABLE_MAX_ITER = 100, 1000
# Rounding errors of F in units of eps |F|.
ROUNDINGS = 100
# The file larger than memory: rows of this many columns of float32, and classes; the limit of memory besides it.
COLUMNS, CLASSES, LIMIT_GB = 256, 4, 2
CHUNK = 100_000


class PeakAnonymous:
    """The most memory that was no file's, in bytes, looked at every few milliseconds."""

    def __enter__(self):
        self.bytes, self._on = process_bytes("RssAnon"), True
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while self._on:
            self.bytes = max(self.bytes, process_bytes("RssAnon"))
            time.sleep(0.005)

    def __exit__(self, *_):
        self._on = False
        self._thread.join()


# Honesty of the gap.


def problems(n_problems):
    """Small problems with an L2 penalty: three of scikit-learn's tables at several C, then hostile ones."""
    for load in (load_iris, load_wine, load_breast_cancer):
        X, y = load(return_X_y=True)
        for C in (1e-4, 1e-2, 1.0, 1e2, 1e4):
            yield X, np.eye(y.max() + 1)[y], np.ones(len(y)), {"C": C, "l1_ratio": 0.0, "fit_intercept": True}
    drawn = map(hostile, count())
    yield from islice((problem for problem in drawn if problem is not None), max(n_problems - 15, 0))


def hostile(seed):
    """A problem of `tests.fuzz` with an L2 penalty; None if its case is of another kind."""
    case = fuzz.draw(seed)
    if case.storage == "float32" or case.has_one_class or np.isinf(case.C):
        return None
    X, targets, weights, _ = fuzz.problem(replace(case, repeats=False, l1_ratio=0.0))
    proba = targets if targets.ndim == 2 else np.eye(targets.max() + 1)[targets]
    return X, proba, weights, case.parameters | {"l1_ratio": 0.0}


def fits_of(X, proba, weights, parameters, tolerances, solvers, max_iter):
    """Fits by all solvers: tolerance, solver, F, what rounding it may hide, the gap that was told, ``converged_``."""
    dense = X.toarray() if sp.issparse(X) else X
    found = []
    for solver in solvers:
        for tol in tolerances:
            settings = {"solver": solver, "tol": tol, "max_iter": max_iter} | parameters
            model = TorchSoftmaxClassifier(**settings).fit(X, proba, weights)
            value = objective(model, dense, proba, sample_weight=weights, **parameters)
            hidden = hidden_by_rounding(model, value, dense, weights)
            found.append((tol, solver, value, hidden, model.optimality_gap_, model.converged_))
    return found


def lowest(X, proba, weights, parameters):
    """The minimum of F, by scikit-learn's newton-cholesky and by our newton at tolerances that rounding ends.

    With what rounding may hide: logits of columns that are equal to rounding and have no penalty to speak of, as those
    of size 1e128, are differences of numbers without end, and what F is there nobody knows.
    """
    dense = X.toarray() if sp.issparse(X) else X
    rows, labels = np.nonzero(proba * weights[:, None])
    values = []
    for model, data in (
        (TorchSoftmaxClassifier(solver="newton", tol=1e-13, **parameters), (X, proba, weights)),
        (
            LogisticRegression(solver="newton-cholesky", tol=1e-12, max_iter=1000, **parameters),
            (dense[rows], labels, weights[rows] * proba[rows, labels]),
        ),
    ):
        model.fit(*data)
        if len(model.classes_) == proba.shape[1]:
            value = objective(model, dense, proba, sample_weight=weights, **parameters)
            values.append(value + hidden_by_rounding(model, value, dense, weights))
    return min(values)


def hidden_by_rounding(model, value, X, weights):
    """By how much F may differ from the value that is computed."""
    return ROUNDINGS * np.finfo(float).eps * abs(value) + fuzz.rounding(model, X, weights)


def honesty(n_problems=400, tolerances=TOLERANCES):
    """For each fit: tolerance, solver, relative gaps, true and told, rounding, ``converged_``."""
    return [fit for problem in problems(n_problems) for fit in judged(problem, tolerances)]


def judged(problem, tolerances=TOLERANCES, solvers=SOLVERS, lowest=lowest, max_iter=MAX_ITER):
    """Those figures for the fits of one problem."""
    results = []
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        fits = fits_of(*problem, tolerances, solvers, max_iter)
        best = min([lowest(*problem), *(value + hidden for _, _, value, hidden, *_ in fits)])
    for tol, solver, value, hidden, gap, converged in fits:
        size = abs(value)
        figures = {"true": (value - best) / size, "told": gap / size, "rounding": hidden / size}
        results.append({"solver": solver, "tol": tol, "converged": converged, **figures})
    return results


def too_small(fit, factor=10):
    """Whether the true gap is more than that many times the one that was told, beyond rounding."""
    return fit["true"] > factor * fit["told"] + fit["rounding"]


def claims_too_much(fit, factor=10):
    """Whether a fit is said to have converged further from the minimum than that many times its tolerance."""
    return fit["converged"] and fit["true"] > factor * fit["tol"] + fit["rounding"]


def report_honesty(results):
    """The table of how gaps and claims turned out."""
    yield "## Honesty of `optimality_gap_` and `converged_`\n"
    yield (
        f"{len(results) // (len(SOLVERS) * len(TOLERANCES))} problems with an L2 penalty (iris, wine and breast_cancer "
        "raw at five C each, the rest drawn by `tests/fuzz.py`: dense and sparse float64, C from 1e-8 to 1e10), three "
        f"solvers, four tolerances, at most {MAX_ITER} iterations. The true gap is F, in float64 NumPy, above the "
        "lowest of all fits and of scikit-learn's newton-cholesky (tol=1e-12) and our newton (tol=1e-13), each with "
        "what rounding may hide in it. That is not held against a fit either: "
        f"{ROUNDINGS} eps |F| and what rounding each coefficient to float64 can change in F. Quantiles of true gap "
        "over told gap are of the fits whose true gap is above rounding.\n"
    )
    yield from quantiles_of(results, SOLVERS, TOLERANCES)


def quantiles_of(results, solvers, tolerances):
    """The lines of such a table."""
    yield "| solver | tol | fits | converged | true/told: median | 90 % | 99 % | largest | > 10 | claims > 10 tol |"
    yield "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for solver in solvers:
        for tol in tolerances:
            fits = [fit for fit in results if (fit["solver"], fit["tol"]) == (solver, tol)]
            seen = [fit["true"] / max(fit["told"], 1e-300) for fit in fits if fit["true"] > fit["rounding"]]
            quantiles = " | ".join(f"{q:.2g}" for q in np.quantile(seen or [0.0], [0.5, 0.9, 0.99, 1.0]))
            counts = f"{sum(map(too_small, fits))} | {sum(map(claims_too_much, fits))}"
            converged = sum(fit["converged"] for fit in fits)
            yield f"| {solver} | {tol:g} | {len(fits)} | {converged} | {quantiles} | {counts} |"


# The same, on tables of the sizes that users have.


def tables(n_tables=160):
    """As `honesty`, with the kind of each table."""
    drawn = map(draw, range(n_tables))
    return [fit | {"kind": table.kind} for table in drawn for fit in judged_table(table)]


def judged_table(table, tolerances=TABLE_TOLERANCES, solvers=TABLE_SOLVERS):
    """The figures of the fits of one of them."""
    targets = np.eye(table.y.max() + 1)[table.y]
    problem = table.X, targets, np.ones(len(table.y)), {"C": table.C, "l1_ratio": 0.0, "fit_intercept": True}
    return judged(problem, tolerances, solvers, lowest_of_table, TABLE_MAX_ITER)


def lowest_of_table(X, proba, weights, parameters):
    """The lowest F of our newton and lbfgs at tight tolerances and of scikit-learn's lbfgs, with its rounding."""
    dense, y = X.toarray() if sp.issparse(X) else X, proba.argmax(axis=1)
    models = (
        TorchSoftmaxClassifier(solver="newton", tol=1e-12, max_iter=TABLE_MAX_ITER, **parameters),
        TorchSoftmaxClassifier(solver="lbfgs", tol=1e-12, max_iter=TABLE_MAX_ITER, **parameters),
        LogisticRegression(tol=1e-8, max_iter=TABLE_MAX_ITER, **parameters),
    )
    found = [objective(model.fit(X, y), dense, proba, sample_weight=weights, **parameters) for model in models]
    hidden = [hidden_by_rounding(model, value, dense, weights) for model, value in zip(models, found, strict=True)]
    return min(map(sum, zip(found, hidden, strict=True)))


def report_tables(results):
    """The table of how these turned out."""
    yield "## Honesty on medium and wide tables\n"
    yield (
        f"{len(results) // (len(TABLE_SOLVERS) * len(TABLE_TOLERANCES))} tables drawn by `benchmarks/tables.py`: 30 to "
        "5,000 rows, 30 to 4,000 columns, 2 to 60 classes; normal, correlated, raw, with each row twice, float32, "
        "expression, counts, one-hot; C from 1e-2 to 1e5 for rows of length one. Fits end after "
        f"{TABLE_MAX_ITER:,} iterations. As above, but that the lowest F is that of all fits, of our newton and lbfgs "
        "at tol=1e-12 and of scikit-learn's lbfgs at tol=1e-8.\n"
    )
    yield from quantiles_of(results, TABLE_SOLVERS, TABLE_TOLERANCES)


# A file larger than memory.


def write_table(folder, gigabytes):
    """Write rows of float32 and their labels; return how many."""
    rng = np.random.default_rng(0)
    n_rows = int(gigabytes * 1e9 / (4 * COLUMNS)) // CHUNK * CHUNK
    W, labels = rng.normal(size=(COLUMNS, CLASSES)).astype(np.float32), np.empty(n_rows, dtype=np.int8)
    with (folder / "X").open("wb") as file:
        for start in range(0, n_rows, CHUNK):
            x = rng.standard_normal((CHUNK, COLUMNS), dtype=np.float32)
            x.tofile(file)
            labels[start : start + CHUNK] = (x @ W + 10 * rng.gumbel(size=(CHUNK, CLASSES))).argmax(axis=1)
    np.save(folder / "y.npy", labels)
    return n_rows


def memory(gigabytes=12.0):
    """Fit and predict from a file with memory limited, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder), gigabytes)
        command = [sys.executable, "-m", "benchmarks.reliability", folder]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603


def cgroup_limit():
    """The memory that this process and the system's cache for it may take in its control group, in bytes, or None.

    That of ``distributed.system.memory_limit`` is of the topmost group.
    """
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for folder, name in ((f"{controllers}{path}", "memory.limit_in_bytes"), (path[1:], "memory.max")):
            file = Path("/sys/fs/cgroup") / folder / name
            if file.exists() and (limit := file.read_text().strip()).isdigit():
                return int(limit)
    return None


def fit_file(folder):
    """What it took to fit and predict a file under the limit."""
    y = np.load(folder / "y.npy")
    X = np.memmap(folder / "X", dtype=np.float32, mode="r", shape=(len(y), COLUMNS))
    resource.setrlimit(resource.RLIMIT_DATA, (int(LIMIT_GB * 1e9),) * 2)
    figures = {"GB": X.nbytes / 1e9, "rows": len(y), "before": process_bytes("RssAnon"), "cgroup": cgroup_limit()}
    clf = TorchSoftmaxClassifier()
    for name, call in (("fit", lambda: clf.fit(X, y)), ("predict_proba", lambda: clf.predict_proba(X))):
        with PeakAnonymous() as peak:
            call()
        figures[name] = {"peak": peak.bytes}
    return figures | {"passes": clf.n_passes_, "converged": clf.converged_, "gap": clf.optimality_gap_}


def report_memory(result):
    """What a file larger than the limit took."""
    fit, predict = result["fit"], result["predict_proba"]
    megabytes = [round((part["peak"] - result["before"]) / 1e6) for part in (fit, predict)]
    cached = "it does not limit the system's cache of the file"
    if (limit := result["cgroup"]) is not None and limit < result["GB"] * 1e9:
        cached = f"with the system's cache of the file the process had {limit / 2**30:.1f} GiB, by its control group"
    yield "## A file larger than memory\n"
    yield (
        f"`np.memmap`, {result['rows']:,} × {COLUMNS} float32, {result['GB']:.1f} GB, {CLASSES} classes, with the "
        f"process's data limited to {LIMIT_GB} GB by `resource.setrlimit(RLIMIT_DATA)`. That limits private memory, "
        f"with what the libraries take; {cached}. The peak is that of RssAnon above what the process had after the "
        "imports.\n"
    )
    yield "| | peak [MB] | |"
    yield "|:--|--:|:--|"
    told = f"{result['passes']:.1f} passes, converged_ {result['converged']}, gap {result['gap']:.1e}"
    yield f"| fit | {megabytes[0]} | {told} |"
    size = result["rows"] * CLASSES * 4 / 1e6
    yield f"| predict_proba | {megabytes[1]} | the result has {size:.0f} MB |\n"
    yield (
        'By construction a fit by "lbfgs" holds beside X: some 8-byte numbers for each row (weights, labels, what '
        "encoding them takes); samples of rows, of 256 MB or 8 rows for each parameter; matrices of the curvature of "
        'up to 1,200² numbers, or d² and K²; and blocks of 16 MB. "proximal" besides holds the logits of all rows '
        "when it bounds the gap. Rows of weight zero and `early_stopping` copy the rows that are left, "
        "and check for NaN in a pass of its own."
    )


# Threads and processes.


def seconds_of(call, repeats=5):
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def threads():
    """Times of the same work one after the other and side by side."""
    X, y = load_digits(return_X_y=True)
    grid = {"C": [1e-4, 1e-3, 1e-2]}
    results = {"torch threads": torch.get_num_threads()}
    for backend, n_jobs in (("loky", 1), ("loky", 2), ("threading", 2), ("multiprocessing", 2)):
        with parallel_config(backend=backend, n_jobs=n_jobs):
            search = GridSearchCV(TorchSoftmaxClassifier(tol=1e-3), grid, cv=4, refit=False, n_jobs=n_jobs)
            search.fit(X, y)  # starts the workers
            results[f"search, {backend}, n_jobs={n_jobs}"] = seconds_of(lambda search=search: search.fit(X, y), 3)
    clf = TorchSoftmaxClassifier(tol=1e-4).fit(X, y)
    parts = [X] * 200
    results["predictions, one after the other"] = seconds_of(lambda: [clf.predict_proba(part) for part in parts])
    with ThreadPoolExecutor(8) as pool:
        results["predictions, 8 threads"] = seconds_of(lambda: list(pool.map(clf.predict_proba, parts)))
    return results


def report_threads(results):
    """Seconds of each."""
    yield "## Threads and processes\n"
    yield (
        f"digits; a search over 3 C × 4 folds, and 200 predictions of all rows; torch has {results['torch threads']} "
        "threads in the parent. Medians in seconds.\n"
    )
    yield "| work | seconds |"
    yield "|:--|--:|"
    for name, seconds in results.items():
        if name != "torch threads":
            yield f"| {name} | {seconds:.2f} |"


# Leaks.


def growth(call, n_calls, warm_up):
    """Growth of the resident memory from the first to the last fifth of the calls, and milliseconds there, by medians.

    How much a single fit leaves in the heap goes up and down, by tens of megabytes on digits.
    """
    for _ in range(warm_up):
        call()
    sizes, times = [], []
    for _ in range(n_calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        sizes.append(process_bytes("VmRSS"))
    part = n_calls // 5
    before, after = (float(np.median(some)) for some in (sizes[:part], sizes[-part:]))
    first, last = (1e3 * float(np.median(some)) for some in (times[:part], times[-part:]))
    span = max(sizes) - min(sizes)
    return {"calls": n_calls, "growth": after - before, "span": span, "first": first, "last": last}


def leaks(n_fits=1_000, n_predictions=10_000):
    """Memory and time over many calls."""
    X, y = load_iris(return_X_y=True)
    wide, labels = load_digits(return_X_y=True)
    clf = TorchSoftmaxClassifier().fit(X, y)
    small = TorchSoftmaxClassifier(tol=1e-2)
    learner = TorchSoftmaxClassifier(solver="sgd", learning_rate=0.1, batch_size=32)
    return {
        "fit, iris": growth(lambda: TorchSoftmaxClassifier().fit(X, y), n_fits, n_fits // 10),
        "fit, digits, tol=0.01": growth(lambda: small.fit(wide, labels), n_fits // 2, n_fits // 20),
        "partial_fit, iris": growth(lambda: learner.partial_fit(X, y, classes=[0, 1, 2]), n_fits, n_fits // 10),
        "predict_proba, 10 rows": growth(lambda: clf.predict_proba(X[:10]), n_predictions, n_predictions // 10),
    }


def report_leaks(results):
    """Growth and times."""
    yield "## Leaks\n"
    yield (
        "Growth of the resident memory and the time of a call, by medians of the first and of the last fifth of the "
        "calls; and how far the memory went up and down.\n"
    )
    yield "| call | calls | growth [MB] | highest - lowest [MB] | first fifth [ms] | last fifth [ms] |"
    yield "|:--|--:|--:|--:|--:|--:|"
    for name, found in results.items():
        megabytes = f"{found['growth'] / 1e6:.2f} | {found['span'] / 1e6:.2f}"
        yield f"| {name} | {found['calls']:,} | {megabytes} | {found['first']:.2f} | {found['last']:.2f} |"


PARTS = {
    "honesty": (honesty, report_honesty),
    "tables": (tables, report_tables),
    "memory": (memory, report_memory),
    "threads": (threads, report_threads),
    "leaks": (leaks, report_leaks),
}


def main(folder, parts, gigabytes):
    """Measure the parts, keep the figures of the others, write the page."""
    path = folder / "reliability.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in parts:
        results[name] = PARTS[name][0](*([gigabytes] if name == "memory" else []))
        path.write_text(json.dumps(results))
    lines = [
        "# Reliability\n",
        f"skl_softmax {__version__}, scikit-learn {sklearn.__version__}, torch {torch.__version__}, NumPy "
        f"{np.__version__}, Python {platform.python_version()}. Again: `python -m benchmarks reliability`, some "
        f"parts: `--parts {' '.join(PARTS)}`. Hostile problems beside scikit-learn: `make fuzz`.\n",
    ]
    for name, (_, report) in PARTS.items():
        lines += [*report(results[name]), ""] if name in results else []
    page = "\n".join(lines)
    (folder / "reliability.md").write_text(page)
    print(page)


if __name__ == "__main__":
    print(json.dumps(fit_file(Path(sys.argv[1]))))
