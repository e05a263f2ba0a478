import numpy as np
import pytest
import torch

from skl_softmax import data
from skl_softmax.data import DenseData

X = np.random.default_rng(0).normal(size=(37, 4)) * [1e-3, 1, 1e3, 1] + [5, -1e4, 0, 2]
X[:, 3] = 7.25  # a constant column


@pytest.fixture(params=[1, 2, 37, 1000], ids="{}-row-blocks".format)
def block_rows(request, monkeypatch):
    monkeypatch.setattr(data, "BLOCK_BYTES", request.param * 5 * 8)


def explicit_design(fit_intercept):
    mean = X.mean(axis=0) if fit_intercept else np.zeros(4)
    scale = np.abs(X - mean).max(axis=0)
    scale[scale < 1e-12] = 1
    design = (X - mean) / scale
    return np.hstack([design, np.ones((len(X), 1))]) if fit_intercept else design


@pytest.mark.usefixtures("block_rows")
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_products_equal_those_of_the_explicit_design(fit_intercept, dtype):
    rows = DenseData.standardised(torch.from_numpy(X).to(dtype), fit_intercept)
    design = torch.from_numpy(explicit_design(fit_intercept))
    # Rounding X to float32 moves column 1, 1e4 times as far from zero as it is wide, by 1e4 * 6e-8 of its width.
    tolerance = 1e-12 if dtype == torch.float64 else 1e-3
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, design.shape[1], dtype=torch.float64, generator=generator)
    residual = torch.randn(3, len(X), dtype=torch.float64, generator=generator)
    blocks = list(rows.blocks())
    logits = torch.cat([b.logits(theta) for b in blocks], dim=1)
    pullback = sum(b.pullback(residual[:, b.rows]) for b in blocks)
    gram = sum(b.gram(residual[:, b.rows]) for b in blocks)
    norms = torch.cat([b.squared_norms() for b in blocks])
    torch.testing.assert_close(logits, theta @ design.T, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(pullback, residual @ design, rtol=tolerance, atol=10 * tolerance)
    expected = torch.einsum("qi,ij,ik->qjk", residual, design, design)
    torch.testing.assert_close(gram, expected, rtol=tolerance, atol=10 * tolerance)
    torch.testing.assert_close(norms, design.square().sum(dim=1), rtol=tolerance, atol=tolerance)


def test_gram_is_the_same_in_small_portions(monkeypatch):
    rows = DenseData.standardised(torch.from_numpy(X), fit_intercept=True)
    (block,) = rows.blocks()
    weights = torch.rand(5, len(X), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = block.gram(weights)
    monkeypatch.setattr(data, "GRAM_BYTES", 1)
    torch.testing.assert_close(block.gram(weights), whole)


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_theta_gives_the_same_logits_and_goes_back(fit_intercept):
    rows = DenseData.standardised(torch.from_numpy(X), fit_intercept)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(3, 4, dtype=torch.float64, generator=generator)
    bias = torch.randn(3, dtype=torch.float64, generator=generator) * fit_intercept
    theta = rows.to_theta(weight, bias)
    logits = torch.cat([b.logits(theta) for b in rows.blocks()], dim=1)
    expected = weight @ torch.from_numpy(X).T + bias[:, None]
    # Absolute: the products of column 1 are of size 1e4.
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-11)
    for actual, given in zip(rows.from_theta(theta), (weight, bias), strict=True):
        torch.testing.assert_close(actual, given, rtol=1e-12, atol=1e-11)
    penalty = (rows.penalty_scale() * theta.square()).sum()
    torch.testing.assert_close(penalty, weight.square().sum())


def test_constant_columns_vanish_exactly():
    rows = DenseData.standardised(torch.full((1000, 2), 0.1, dtype=torch.float64), fit_intercept=True)
    assert all((b.design[:, :2] == 0).all() for b in rows.blocks())


def test_columns_of_extreme_scale_are_standardised_without_overflow():
    extreme = torch.from_numpy(np.array([[1e150, 1e-150], [-1e150, 3e-150], [2e150, 2e-150]]))
    (block,) = DenseData.standardised(extreme, fit_intercept=True).blocks()
    assert block.design.isfinite().all()
    torch.testing.assert_close(block.design.abs().amax(dim=0), torch.ones(3, dtype=torch.float64))


def test_X_is_not_written_to():
    before = torch.from_numpy(X.copy())
    rows = DenseData.raw(before, fit_intercept=True, dtype=torch.float64)
    for block in rows.blocks():
        block.design.zero_()
    np.testing.assert_array_equal(before.numpy(), X)
