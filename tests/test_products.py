"""Products by oneDNN against those in float64, and what is done without it."""

import numpy as np
import pytest
import torch

from skl_softmax import TorchSoftmaxClassifier, products

SHAPES = [(3, 5, 2), (700, 129, 65), (2049, 64, 37), (1, 4096, 1100)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("layout", ["rows", "columns", "stretch"])
def test_product(shape, layout):
    n, d, m = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(m, d, generator=generator)
    right = {
        "rows": lambda: torch.randn(n, d, generator=generator),
        "columns": lambda: torch.randn(d, n, generator=generator).T,
        "stretch": lambda: torch.randn(n, 2 * d, generator=generator)[:, :d],
    }[layout]()
    found = products.times_transposed(left, right)
    np.testing.assert_allclose(found.double(), left.double() @ right.double().T, rtol=0, atol=1e-5 * np.sqrt(d))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_subtracted_product(shape, dtype):
    n, d, m = shape
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(m, 2 * n, generator=generator).to(dtype)
    left, right = (torch.randn(rows, d, generator=generator).to(dtype) for rows in (m, n))
    expected = whole.double()
    expected[:, n:] -= left.double() @ right.double().T
    products.subtract_product(whole[:, n:], left, right)  # a part of a matrix
    np.testing.assert_allclose(whole, expected, rtol=0, atol=1e-5 * np.sqrt(d))


def test_it_is_for_large_products_in_float32_on_the_cpu():
    rows = torch.ones(2**11, 2**6)
    assert products.is_quick(rows, torch.float32, 2**5) == products.HAS_ONEDNN
    assert not products.is_quick(rows, torch.float32, 2**5 - 1)
    assert not products.is_quick(rows, torch.float64, 2**5)
    assert not products.is_quick(rows.to("meta"), torch.float32, 2**5)


def test_fits_without_it_are_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(3000, 200)).astype(np.float32)
    y = (X[:, :20] + rng.normal(size=(3000, 20))).argmax(axis=1)
    fits = [TorchSoftmaxClassifier(C=0.01, tol=1e-10).fit(X, y).coef_]
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    fits.append(TorchSoftmaxClassifier(C=0.01, tol=1e-10).fit(X, y).coef_)
    np.testing.assert_allclose(*fits, rtol=0, atol=1e-4 * np.abs(fits[0]).max())


def test_not_a_number_stays_one():
    left, right = torch.ones(100, 300), torch.ones(200, 300)
    right[7, 3] = torch.nan
    assert products.times_transposed(left, right).isnan().sum() == len(left)
