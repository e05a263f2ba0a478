"""Matrices in compressed rows: their products, and copies of some rows."""

import warnings
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix
from torch import Tensor

from skl_softmax.data.base import as_tensor

# Values that are looked at or converted at a time, for products in another type than theirs: these stay in cache.
CONVERTED_VALUES = 2**17

# Vectors that a product takes at a time. Of 20,000 x 50,000 with 100 entries a row and 100 vectors it takes 42 to 60 ms
# in float64 at once, 22 to 34 so; in float32 11 to 16 and 10 to 13.
MOST_VECTORS = 32

# torch says once in each process, when the first sparse matrix is made, that they are in beta state. That is not news
# for somebody who passed a matrix of scipy's.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))


def product_with_sparse(X: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ, (n, K), of rows of any storage and W in compressed rows."""
    if X.layout == torch.strided:
        return (weight @ X.T).T
    return torch.from_numpy((scipy_matrix(X) @ scipy_matrix(weight).T).toarray())


def scipy_matrix(x: Tensor) -> csr_array:
    """A scipy matrix that shares the memory of a torch one."""
    return csr_array((x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy()), shape=x.shape)


def take_compressed(X: Tensor, index: Tensor) -> Tensor:
    """A copy of some rows of a matrix in compressed rows."""
    first, counts = X.crow_indices()[index], X.crow_indices().diff()[index]
    ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    entries = torch.arange(int(ends[-1])) + (first - ends[:-1]).repeat_interleave(counts)
    indices, values = X.col_indices()[entries], X.values()[entries]
    return torch.sparse_csr_tensor(ends.to(indices.dtype), indices, values, (len(index), X.shape[1]))


def times(x: Tensor, vectors: Tensor, goal: Tensor | None = None, squares: bool = False) -> Tensor:
    """The product of a sparse matrix (m, k), or of its squares, with each row of ``vectors`` (q, k), as (q, m).

    In memory column by column; it is that of ``goal`` (m, q) if there is one.
    """
    # NumPy copies these in half the time of torch, and does not where they lie column by column.
    right = torch.from_numpy(np.ascontiguousarray(vectors.numpy().T))  # (k, q)
    goal = vectors.new_empty(x.shape[0], len(vectors)) if goal is None else goal
    if x.dtype == vectors.dtype and not squares:
        _multiply(x, right, goal)
    else:
        for rows, part in _converted(x, vectors.dtype, squares):
            _multiply(part, right, goal[rows])
    return goal.T


def _multiply(x: Tensor, right: Tensor, goal: Tensor) -> None:
    """The product of a sparse matrix (m, k) and a dense one (k, q), into ``goal`` (m, q)."""
    if right.shape[1] == 1:  # a vector takes a third less time than a matrix of one column
        torch.addmv(goal[:, 0], x, right[:, 0], beta=0, out=goal[:, 0])
        return
    for some, into in zip(right.split(MOST_VECTORS, dim=1), goal.split(MOST_VECTORS, dim=1), strict=True):
        torch.addmm(into, x, some, beta=0, out=into)


def _converted(x: Tensor, dtype: torch.dtype, squares: bool) -> Iterator[tuple[slice, Tensor]]:
    """Rows of a sparse matrix, some after the other, with their values, or the squares of these, in another type."""
    ends = x.crow_indices()
    goals = torch.arange(0, x.values().shape[0], CONVERTED_VALUES, dtype=ends.dtype)
    edges = torch.cat([torch.searchsorted(ends, goals), torch.tensor([0, x.shape[0]])]).unique().tolist()
    for start, stop in pairwise(edges):
        part = ends[start : stop + 1]
        entries = slice(int(part[0]), int(part[-1]))
        values = x.values()[entries].to(dtype)
        values = values.square() if squares else values
        shape = stop - start, x.shape[1]
        yield slice(start, stop), torch.sparse_csr_tensor(part - part[0], x.col_indices()[entries], values, shape)


def csr_tensor(X: csr_array | csr_matrix) -> Tensor:
    """A torch matrix in compressed rows that shares the memory of a scipy one."""
    fits = max(X.nnz, *X.shape) < 2**31
    ends, indices = (part.astype(np.int32 if fits else np.int64, copy=False) for part in (X.indptr, X.indices))
    return torch.sparse_csr_tensor(as_tensor(ends), as_tensor(indices), as_tensor(X.data), X.shape)


def with_values(x: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix with other values that shares the indices of ``x``."""
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, x.shape)
