"""Sparse X that is full, or small: a dense copy takes no more memory than X, or next to none, and less time."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array, csr_matrix, random_array

from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV
from skl_softmax.data import csr_tensor, n_bytes, without_sparsity


@pytest.fixture
def full():
    """3,000 rows of 30 numbers, 720 kB, few of them 0, with raw scales."""
    rng = np.random.default_rng(0)
    X = rng.gamma(2.0, size=(3000, 30)) * np.geomspace(1e-2, 1e3, 30) * (rng.random((3000, 30)) < 0.9)
    y = (X[:, :3] / X[:, :3].std(axis=0) + rng.gumbel(size=(3000, 3))).argmax(axis=1)
    return X, np.array(["low", "middle", "high"])[y]


@pytest.mark.parametrize("settings", [{}, {"C": np.inf}, {"l1_ratio": 0.5}, {"fit_intercept": False}], ids=str)
def test_fits_are_those_of_dense_rows(full, settings):
    X, y = full
    sparse = csr_array(X)
    before = sparse.data.copy()
    a, b = (TorchSoftmaxClassifier(**settings).fit(rows, y) for rows in (sparse, X))
    np.testing.assert_array_equal(a.coef_, b.coef_)
    assert a.n_passes_ == b.n_passes_
    np.testing.assert_array_equal(sparse.data, before)


@pytest.mark.parametrize("cv", [3, "alo"])
def test_sweeps_are_those_of_dense_rows(full, cv):
    X, y = full
    a, b = (TorchSoftmaxClassifierCV(Cs=3, cv=cv).fit(rows, y) for rows in (csr_matrix(X), X))
    np.testing.assert_allclose(a.scores_, b.scores_, rtol=1e-12)
    np.testing.assert_array_equal(a.coefs_paths_, b.coefs_paths_)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_rows", [300, 3000])
@pytest.mark.parametrize("density", [0.02, 0.45, 0.55, 0.7])
def test_copies_are_small_or_no_larger_than_the_rows(density, n_rows, dtype):
    X = random_array((n_rows, 100), density=density, dtype=dtype, format="csr", rng=np.random.default_rng(0))
    rows = csr_tensor(X)
    found = without_sparsity(rows)
    larger = X.shape[0] * X.shape[1] * X.dtype.itemsize > n_bytes(rows)
    # An entry takes its own bytes and four for its column.
    assert larger == (density < (0.5 if dtype == np.float32 else 2 / 3))
    if larger and n_rows == 3000:
        assert found is rows
    else:
        torch.testing.assert_close(found, torch.from_numpy(X.toarray()), rtol=0, atol=0)
        assert found.nbytes <= max(n_bytes(rows), 2**18)


def test_dense_rows_and_large_sparse_ones_are_left_alone():
    dense, large = torch.ones(5, 3), csr_tensor(csr_array((10**6, 10**6)))
    assert without_sparsity(dense) is dense
    assert without_sparsity(large) is large
