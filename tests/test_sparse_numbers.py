"""Numbers beside sparse columns, as encoders of mixed tables leave them."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.preprocessing import PolynomialFeatures

from skl_softmax import RowBlocks, TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.data import standardised
from skl_softmax.inputs import check_training_rows
from skl_softmax.objective import curvature, metrics
from skl_softmax.training import make_objective

pytestmark = pytest.mark.usefixtures("sparse_as_it_is")


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
    monkeypatch.setattr("skl_softmax.data.numbers.OFF_CENTRE", np.inf)
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
    monkeypatch.setattr("skl_softmax.data.numbers.OFF_CENTRE", np.inf)
    without = TorchSoftmaxClassifier(tol=1e-9).fit(RowBlocks([(X[i : i + 500], y[i : i + 500]) for i in starts]))
    assert fit.n_passes_ < 0.8 * without.n_passes_


def factors(rng, n_rows):
    return rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 12)) + 0.2 * rng.normal(size=(n_rows, 12))


def powers(rng, n_rows):
    numbers = rng.integers(18, 90, n_rows), rng.integers(2000, 2025, n_rows), np.exp(rng.normal(0, 0.6, n_rows))
    return PolynomialFeatures(2, include_bias=False).fit_transform(np.column_stack(numbers))


@pytest.mark.parametrize("solver", ["newton", "lbfgs"])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("numbers", "part"), [(factors, 0.75), (powers, 0.3)], ids=["factors", "powers"])
def test_numbers_that_go_together_take_few_passes(numbers, part, n_classes, solver, monkeypatch):
    X, y = mixed(numbers, n_classes=n_classes)
    fit = TorchSoftmaxClassifier(solver=solver).fit(X, y)
    dense = TorchSoftmaxClassifier(tol=1e-12).fit(X.toarray(), y)
    assert 0 <= fit.loss_curve_[-1] / dense.loss_curve_[-1] - 1 + 1e-12 < 2e-7
    monkeypatch.setattr(metrics, "MOST_NUMBERS", 0)
    assert fit.n_passes_ < part * TorchSoftmaxClassifier(solver=solver).fit(X, y).n_passes_


def test_blocks_have_the_diagonal_of_all_rows(monkeypatch):
    """A class that the sample for the blocks does not show would have the curvature of the penalty."""
    X, y = mixed(factors, n_rows=3000, n_levels=10)
    y = np.where(np.arange(3000) % 50 == 7, y, 0)
    rows = check_training_rows(TorchSoftmaxClassifier(C=1e6), X, y, None)
    objective = make_objective(rows, standardised(rows.X, True), TorchSoftmaxClassifier(C=1e6))
    theta = TorchSoftmaxClassifier(C=1e6).fit(X, y)
    theta = objective.data.to_theta(torch.from_numpy(theta.coef_), torch.from_numpy(theta.intercept_))[None]
    monkeypatch.setattr(metrics, "NUMBERS_ROWS", 40)
    monkeypatch.setattr(metrics, "ROWS_PER_NUMBER", 0)
    inverse, diagonal = (of(objective, theta) for of in (metrics.diagonal_with_numbers, metrics.diagonal_metric))
    numbers = objective.data.numbers
    root = diagonal.factors[0][..., numbers].sqrt()
    for j, number in enumerate(numbers.tolist()):
        unit = torch.zeros_like(theta)
        unit[..., number] = 1.0
        # R has a diagonal of 1, and R⁻¹ one of 1 at least.
        assert (inverse(unit)[..., number] >= 0.99 * root[..., j].square()).all()
        assert (inverse(unit)[..., number] <= 1e4 * root[..., j].square()).all()


def test_blocks_of_numbers_are_those_of_the_hessian():
    X, y = mixed(factors, n_rows=300, n_levels=10)
    rows = check_training_rows(TorchSoftmaxClassifier(), X, y, None)
    objective = make_objective(rows, standardised(rows.X, True), TorchSoftmaxClassifier())
    theta = torch.randn(1, 3, objective.data.n_columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    (hessian,) = curvature.loss_hessian(objective, theta)
    expected = torch.zeros_like(hessian)
    numbers = objective.data.numbers
    assert numbers.tolist() == list(range(20, 32))
    for k in range(3):
        places = k * objective.data.n_columns + numbers
        expected[places[:, None], places] = hessian[places[:, None], places]
    expected.diagonal().copy_(hessian.diagonal())
    expected += torch.diag(objective.column_l2.expand_as(theta).flatten())
    inverse = metrics.diagonal_with_numbers(objective, theta)
    vector = torch.randn(
        1, 3, objective.data.n_columns, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    torch.testing.assert_close(inverse(vector).flatten(), torch.linalg.solve(expected, vector.flatten()))
    bounded, least = metrics.bounded_diagonal(objective, inverse)
    factor = torch.stack([bounded(row.view_as(vector)).flatten() for row in torch.eye(vector.numel()).double()])
    values = torch.linalg.eigvals(factor @ curvature.hessian(objective, theta)[0]).real
    assert 0 < least.item() <= values.min().item()
