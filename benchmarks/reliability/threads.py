"""The same work one after the other and side by side, in threads and processes."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from joblib import parallel_config
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV

from skl_softmax import TorchSoftmaxClassifier


def seconds_of(call, repeats=5):
    """Median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def measure():
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


def report(results):
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
