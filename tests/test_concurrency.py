"""Processes and threads: the same results as one after the other, no deadlock, nothing left changed."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.model_selection import GridSearchCV
from threadpoolctl import threadpool_info

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

# Seconds after which a process is taken for a deadlock.
WATCHDOG = 120
THREADS = 8


@pytest.fixture(scope="module")
def digits():
    """Large enough for more than one thread of torch's."""
    return load_digits(return_X_y=True)


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_grid_search_in_parallel_finds_the_same(backend):
    X, y = load_wine(return_X_y=True)
    search = GridSearchCV(TorchSoftmaxClassifier(), {"C": [0.01, 1.0]}, cv=3, scoring="neg_log_loss")
    expected = clone(search).fit(X, y).cv_results_["mean_test_score"]
    with parallel_config(backend=backend, n_jobs=2):
        found = clone(search).set_params(n_jobs=2).fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def fit_and_send(pipe, X, y):
    pipe.send(TorchSoftmaxClassifier(tol=1e-12).fit(X, y).coef_)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_a_forked_child_fits_after_its_parent_has(digits):
    X, y = digits
    # Starts the parent's threads, which the child has not. How many there are moves coefficients as far as tol lets it.
    expected = TorchSoftmaxClassifier(tol=1e-12).fit(X, y).coef_
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=fit_and_send, args=(there, X, y), daemon=True)
    child.start()
    try:
        assert here.poll(WATCHDOG), "the child is stuck"
        np.testing.assert_allclose(here.recv(), expected, rtol=1e-6, atol=1e-8)
    finally:
        child.kill()
        child.join()


def test_predictions_in_threads_are_those_of_one(digits):
    X, y = digits
    clf = TorchSoftmaxClassifier(tol=1e-3).fit(X, y)
    parts = [X[i::THREADS] for i in range(THREADS)] * 5
    expected = [clf.predict_proba(part) for part in parts]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(clf.predict_proba, parts))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "model", [TorchSoftmaxClassifier(), TorchSoftmaxClassifier(l1_ratio=0.5), TorchSoftmaxClassifierCV(Cs=3, cv=2)]
)
def test_clones_fit_in_threads_as_alone(model):
    X, y = load_wine(return_X_y=True)
    labels = [np.roll(y, shift) for shift in range(THREADS)]
    expected = [clone(model).fit(X, y).coef_ for y in labels]
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(lambda y: clone(model).fit(X, y).coef_, labels))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_thread_counts_and_grad_mode_stay(digits):
    def state():
        threads = {info["filepath"]: info["num_threads"] for info in threadpool_info()}
        return threads, torch.get_num_threads(), torch.get_num_interop_threads(), torch.is_grad_enabled()

    X, y = digits
    TorchSoftmaxClassifier(tol=1e-2).fit(X, y)  # loads what libraries there are
    before = state()
    for model in (TorchSoftmaxClassifier(tol=1e-2), TorchSoftmaxClassifierCV(Cs=2, cv=2, tol=1e-2)):
        model.fit(X, y).predict_proba(X)
    assert state() == before
