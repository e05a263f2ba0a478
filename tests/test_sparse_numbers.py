"""Numbers beside sparse columns, as encoders of mixed tables leave them."""

import numpy as np
import pytest
import scipy.sparse as sp

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.data import sparse


def mixed(numbers, n_rows=3000, n_levels=800, n_classes=3, seed=0):
    """One-hot levels of two columns, numbers, and labels that depend on both."""
    rng = np.random.default_rng(seed)
    levels = np.stack([rng.zipf(1.3, n_rows) % n_levels, n_levels + rng.integers(0, n_levels, n_rows)])
    one_hot = sp.csr_array(
        (np.ones(2 * n_rows), (np.tile(np.arange(n_rows), 2), levels.ravel())), shape=(n_rows, 2 * n_levels)
    )
    values = numbers(rng, n_rows)
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    weight = rng.normal(size=(2 * n_levels, n_classes))
    logits = one_hot @ weight + standard @ rng.normal(size=(standard.shape[1], n_classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return sp.hstack([one_hot, sp.csr_array(values)], format="csr"), labels


NUMBERS = {
    "ages, some of them 0": lambda rng, n: np.round(40 + 15 * rng.normal(size=(n, 2))) * (rng.random((n, 2)) < 0.98),
    "years": lambda rng, n: 2000.0 + rng.integers(0, 20, size=(n, 1)),
    "time stamps": lambda rng, n: 1.7e9 + np.round(3e7 * rng.random((n, 1))),
    "shares": lambda rng, n: 100 * rng.dirichlet([2.0, 2.0, 2.0], n),
}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_fits_take_few_passes_and_end_at_the_minimum(numbers, monkeypatch):
    X, y = mixed(numbers)
    fit = TorchSoftmaxClassifier(tol=1e-9).fit(X, y)
    dense = TorchSoftmaxClassifier(tol=1e-12).fit(X.toarray(), y)
    assert fit.loss_curve_[-1] == pytest.approx(dense.loss_curve_[-1], rel=2e-9)
    monkeypatch.setattr(sparse, "OFF_CENTRE", np.inf)
    assert fit.n_passes_ < 0.75 * TorchSoftmaxClassifier(tol=1e-9).fit(X, y).n_passes_


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("C", [1e4, 1e6])
def test_gaps_beside_numbers_of_rows_are_true(C, solver):
    """Of columns that count rows from 1e9 on fits told down to a ten-thousandth of their gap, after 554 iterations."""
    for seed in range(6):
        rng = np.random.default_rng(seed)
        X, y = np.c_[rng.normal(size=(30, 20)), 1e9 + np.arange(30)], rng.integers(3, size=30)
        fit = TorchSoftmaxClassifier(C=C, solver=solver).fit(sp.csr_array(X), y)
        dense = TorchSoftmaxClassifier(C=C, tol=1e-12).fit(X, y)
        assert fit.converged_
        assert fit.loss_curve_[-1] <= (1 + 1e-6) * dense.loss_curve_[-1]
        assert fit.n_iter_[0] < 100


@pytest.mark.parametrize("C", [0.1, 1.0, 10.0])
def test_bounds_of_an_l1_penalty_beside_numbers_of_rows_are_met(C):
    rng = np.random.default_rng(0)
    X = np.c_[rng.normal(size=(300, 2)), 1e9 + np.arange(300)]
    y = X[:, 0] + rng.logistic(size=300) > 0
    fit = TorchSoftmaxClassifier(C=C, l1_ratio=1.0).fit(sp.csr_array(X), y)
    dense = TorchSoftmaxClassifier(C=C, l1_ratio=1.0, tol=1e-10).fit(X, y)
    assert fit.converged_
    assert fit.loss_curve_[-1] == pytest.approx(dense.loss_curve_[-1], rel=1e-7)
    assert fit.n_iter_[0] < 30


def test_sweeps_and_float32_rows_too():
    X, y = mixed(NUMBERS["years"], n_rows=600, n_levels=40)
    sweeps = [
        TorchSoftmaxClassifierCV(Cs=[0.1, 10], cv=3, tol=1e-10).fit(rows, y)
        for rows in (X, X.astype(np.float32), X.toarray())
    ]
    for found in sweeps[:2]:
        np.testing.assert_allclose(found.scores_, sweeps[2].scores_, rtol=1e-4)


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_blocks_of_rows_too_also_where_others_have_zeros(numbers, monkeypatch):
    X, y = mixed(numbers)
    X = X.tolil()
    X[:100, -1] = 0.0  # more zeros in the first block than elsewhere
    X = X.tocsr()
    starts = range(0, 3000, 500)
    fit = TorchSoftmaxClassifier(tol=1e-9).fit(RowBlocks([(X[i : i + 500], y[i : i + 500]) for i in starts]))
    whole = TorchSoftmaxClassifier(tol=1e-12).fit(X.toarray(), y)
    assert fit.loss_curve_[-1] == pytest.approx(whole.loss_curve_[-1], rel=2e-9)
    monkeypatch.setattr(sparse, "OFF_CENTRE", np.inf)
    without = TorchSoftmaxClassifier(tol=1e-9).fit(RowBlocks([(X[i : i + 500], y[i : i + 500]) for i in starts]))
    assert fit.n_passes_ < 0.8 * without.n_passes_
