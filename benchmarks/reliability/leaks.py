"""Memory and time over many calls."""

import time

import numpy as np
from sklearn.datasets import load_digits, load_iris

from benchmarks.measure import process_bytes
from skl_softmax import TorchSoftmaxClassifier


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


def measure(n_fits=1_000, n_predictions=10_000):
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


def report(results):
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
