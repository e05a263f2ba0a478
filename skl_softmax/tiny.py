"""F of a table so small that calls cost more than its Hessian.

The Hessians of a `SmallObjective` by formulas for all rows at once, in NumPy. On iris a Newton step takes 120
microseconds instead of 400.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.linalg.lapack import dpotrf, dpotrs
from torch import Tensor

from skl_softmax.curvature import LEAST_CURVATURE, Inverse, inverse
from skl_softmax.data import Data
from skl_softmax.quadratic import RIDGE, DenseModel, HessianModels
from skl_softmax.small import SmallObjective, is_small
from skl_softmax.threads import SerialRows

# Operations of a Hessian up to which it costs less than the calls around it, so that nothing beats Newton's method.
TINY_HESSIAN = 1e7
# What the products of pairs of columns may take: larger ones are read from memory each time.
PAIR_BYTES = 4 * 2**20


def is_tiny(data: Data, n_outputs: int) -> bool:
    """Whether the calls of a Newton step take longer than its arithmetic."""
    return is_small(data, n_outputs) and data.n_rows * (n_outputs * data.n_columns) ** 2 <= TINY_HESSIAN


class TinyObjective(SmallObjective):
    """F of M models over one tiny dense X, in float64. Shapes as in `skl_softmax.objective`."""

    prefers_newton = True
    centres_gradients = False  # Newton's steps are not moved by what rounding adds to all classes

    @np.errstate(all="ignore")
    def inverse_hessian(self, theta: Tensor, dtype=torch.float64) -> "Inverse | TinyInverse":  # noqa: ARG002, cheap anyway
        matrices = self._hessian(*self._proba_and_shares(theta))
        found = [dpotrf(matrix.T, clean=False) for matrix in matrices]
        if any(failed for _, failed in found):
            return inverse(torch.from_numpy(matrices))
        return TinyInverse([factor for factor, _ in found])

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float) -> HessianModels:  # noqa: ARG002, cheap anyway
        matrices = torch.from_numpy(self._hessian(*self._proba_and_shares(theta)))  # (M, P, P)
        matrices.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE)
        return HessianModels([DenseModel(m, torch.arange(len(m))) for m in matrices], price=1.0, exact=True)

    def _hessian(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        n_outputs = self.n_outputs
        make_blocks = self._blocks_by_pairs if self._keeps_pairs else self._blocks_by_columns
        blocks = make_blocks(proba, shares)  # (M, K, p, K, p)
        diagonals = np.einsum("mkjlj->mklj", blocks)  # a view of them
        by_column = np.einsum("mkkj->mkj", diagonals)
        if n_outputs > 1:  # as `curvature.definite`
            largest = by_column.max(axis=1, keepdims=True)  # (M, 1, p)
            np.maximum(by_column, LEAST_CURVATURE * largest, out=by_column)
            diagonals += (largest * self._unseen_part)[:, None]
        by_column += self._penalty
        return blocks.reshape(self.n_models, self.n_parameters, self.n_parameters)

    def _blocks_by_columns(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Second derivatives of the losses (M, K, p, K, p), from products of the weighted rows with the rows."""
        n_models, n_outputs, n_rows = proba.shape
        if n_outputs == 1:
            curvature = shares - shares * proba  # (M, 1, n)
        else:
            curvature = shares[:, :, None] * -proba[:, None]  # (M, K, K, n)
            curvature.reshape(n_models, -1, n_rows)[:, :: n_outputs + 1] = shares * self._complement(proba)
        weighted = curvature.reshape(n_models, -1, 1, n_rows) * self.data.small_columns  # (M, K², p, n)
        products = self._rows.pullback(weighted.reshape(-1, *weighted.shape[2:]))  # (M K², p, p)
        return products.reshape(n_models, n_outputs, n_outputs, *2 * (self.data.n_columns,)).swapaxes(2, 3)

    def _blocks_by_pairs(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The same from the products of pairs of columns: one for each pair of classes, and no weighted rows."""
        n_models, n_outputs, _ = proba.shape
        one, other, on_diagonal, places = _pairs_and_places(n_outputs, self.data.n_columns)
        curvature = shares[:, one] * -proba[:, other]  # (M, pairs of classes, n)
        curvature[:, on_diagonal] = shares * self._complement(proba)
        products = self._pairs.pullback(curvature)  # (M, pairs of classes, pairs of columns)
        return products.reshape(n_models, -1)[:, places]  # (M, K, p, K, p)

    @property
    def _keeps_pairs(self) -> bool:
        """Whether products of pairs of columns pay: for folds of several classes, whose Hessians are many.

        Those of five folds take 0.4 of the time with them on wine, and no less on breast_cancer than the products save.
        """
        is_cached = 4 * self.n_rows * self.data.n_columns**2 <= PAIR_BYTES
        return self.is_family and self.n_outputs > 1 and is_cached

    @cached_property
    def _pairs(self) -> SerialRows:
        return SerialRows(self.data.small_pairs)

    def _complement(self, proba: np.ndarray) -> np.ndarray:
        """As `curvature.complement`, of several classes."""
        return self._off_diagonal @ proba  # (M, K, n)

    @cached_property
    def _off_diagonal(self) -> np.ndarray:
        return 1 - np.eye(self.n_outputs)  # (K, K)

    @cached_property
    def _unseen_part(self) -> np.ndarray | float:
        """`unseen`, which is everything where F is smooth, by the number of classes."""
        return 1 / self.n_outputs if self.is_smooth else self.unseen.numpy() / self.n_outputs  # (M, 1, p)


@lru_cache(maxsize=1)
def _pairs_and_places(n_outputs: int, n_columns: int) -> tuple[np.ndarray, ...]:
    """The pairs of classes (one, other), which of them are one and the same, and where in blocks all pairs belong.

    The last (K, p, K, p) are indices of products (pairs of classes, pairs of columns).
    """
    (by_class, by_column), n_column_pairs = map(_pair_indices, (n_outputs, n_columns)), n_columns * (n_columns + 1) // 2
    one, other = np.triu_indices(n_outputs)
    places = by_class[:, None, :, None] * n_column_pairs + by_column[:, None]
    return one, other, np.flatnonzero(one == other), places


def _pair_indices(size: int) -> np.ndarray:
    """The index of each pair (size, size) in the order of `numpy.triu_indices`."""
    indices, (one, other) = np.empty((size, size), np.intp), np.triu_indices(size)
    indices[one, other] = indices[other, one] = np.arange(len(one))
    return indices


@dataclass(frozen=True)
class TinyInverse:
    """The inverse Hessians of M models, as a product with vectors (M, K, p)."""

    factors: list[np.ndarray]  # upper Cholesky factors (P, P)
    has_ridge: bool = False
    wants_float64: bool = False

    def select(self, models: Tensor) -> "TinyInverse":
        """Those of some of the models."""
        return TinyInverse([self.factors[m] for m in models.tolist()])

    def __call__(self, vector: Tensor) -> Tensor:
        solutions = np.empty_like(vector.numpy())
        for factor, right, solution in zip(self.factors, vector.numpy(), solutions, strict=True):
            solution.flat, _ = dpotrs(factor, right.ravel())
        return torch.from_numpy(solutions)
