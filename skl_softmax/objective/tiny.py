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

from skl_softmax.data import Data
from skl_softmax.objective.curvature import LEAST_CURVATURE, Inverse, inverse
from skl_softmax.objective.quadratic import RIDGE, DenseModel, HessianModels
from skl_softmax.objective.small import SmallObjective, is_small
from skl_softmax.threads import SerialRows

# Multiplications of a Hessian up to which it costs less than the calls around it, and nothing beats Newton's method.
TINY_HESSIAN = 1e7
# The same for one model of several outputs, by pairs of them: from 500 x 30 with five classes to 5,000 x 30 with three
# fits take 0.55 to 0.8 of the time, once as long, of 150 x 40 with twelve 1.2 to 1.5, with up to twice as many 0.9 to
# 1.5. The folds of sweeps, which may share a Hessian, would take 0.8 to 3.7.
TINY_HESSIAN_OF_PAIRS = 2**24
# What the products of pairs of columns may take: larger ones are read from memory each time.
PAIR_BYTES = 4 * 2**20

# What the weighted columns of models that are multiplied at the same time may take: folds may be as many as rows.
PRODUCT_BYTES = 2**26


def is_tiny(data: Data, n_models: int, n_outputs: int) -> bool:
    """Whether the calls of a Newton step take longer than its arithmetic."""
    n_products, n_pairs = data.n_rows * data.n_columns**2, n_outputs * (n_outputs - 1) // 2
    fits = n_products * n_outputs**2 <= TINY_HESSIAN
    if n_models == 1 and n_outputs > 1:
        fits = n_products * n_pairs <= TINY_HESSIAN_OF_PAIRS
    return fits and is_small(data, n_outputs)


class TinyObjective(SmallObjective):
    """F of M models over one tiny dense X, in float64. Shapes as in `skl_softmax.objective`."""

    prefers_newton = True
    balances_gradients = False  # Newton's steps are not moved by what rounding adds to all classes

    @np.errstate(all="ignore")
    def inverse_hessian(
        self,
        theta: Tensor,
        dtype=torch.float64,  # noqa: ARG002, cheap anyway
    ) -> "Inverse | TinyInverse | InverseAtZero":
        if self.n_outputs > 1 and self.is_smooth and not theta.numpy().any():
            common, at_zero = self._hessian_at_zero()
            factors = _factorised(at_zero)
            if factors is not None:
                return InverseAtZero(factors, common)
        matrices = self._hessian(*self._proba_and_shares(theta))
        factors = _factorised(matrices)
        return inverse(torch.from_numpy(matrices)) if factors is None else TinyInverse(factors)

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float) -> HessianModels:  # noqa: ARG002, cheap anyway
        matrices = torch.from_numpy(self._hessian(*self._proba_and_shares(theta)))  # (M, P, P)
        matrices.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE)
        return HessianModels([DenseModel(m, torch.arange(len(m))) for m in matrices], price=1.0, exact=True)

    def _hessian(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        n_models, n_outputs, n_parameters = self.n_models, self.n_outputs, self.n_parameters
        blocks = self._loss_hessian(proba, shares)  # (M, K, p, K, p)
        diagonal = blocks.reshape(n_models, -1)[:, :: n_parameters + 1]  # (M, P), a view
        by_column = diagonal.reshape(n_models, n_outputs, -1)  # (M, K, p), a view
        if n_outputs > 1:  # as `curvature.definite`
            largest = by_column.max(axis=1, keepdims=True)  # (M, 1, p)
            np.maximum(by_column, LEAST_CURVATURE * largest, out=by_column)
            diagonals = np.einsum("mkjlj->mklj", blocks)  # a view
            diagonals += (largest * self._unseen_part)[:, None]
        by_column += self._penalty
        return blocks.reshape(n_models, n_parameters, n_parameters)

    def _hessian_at_zero(self) -> tuple[np.ndarray, np.ndarray]:
        """What curves the parameters that all classes have in common (M, 1, p), and the others of each (M, p, p)."""
        n_outputs = self.n_outputs
        matrices = self._products(self._shares / n_outputs)[:, 0]  # (M, p, p)
        diagonal = np.einsum("mjj->mj", matrices)  # a view
        common = (1 - 1 / n_outputs) * diagonal[:, None] + self._penalty  # (M, 1, p), as of `_hessian`
        diagonal += self._penalty[:, 0]
        return common, matrices

    def _loss_hessian(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Second derivatives of the losses (M, K, p, K, p): of several classes those by pairs, as `curvature._fill`."""
        n_models, n_outputs, n_columns = len(proba), self.n_outputs, self.data.n_columns
        if n_outputs == 1:
            return self._products(shares - shares * proba).reshape(n_models, 1, n_columns, 1, n_columns)
        one, other = _pairs_of(n_outputs)
        blocks = np.zeros((n_models, n_outputs, n_columns, n_outputs, n_columns))
        by_class = blocks.swapaxes(2, 3)  # (M, K, K, p, p), a view
        by_class[:, one, other] = by_class[:, other, one] = self._products(shares[:, one] * -proba[:, other])
        by_itself = np.einsum("mkkij->mkij", by_class)  # a view
        by_itself -= by_class.sum(axis=2)
        return blocks

    def _products(self, curvature: np.ndarray) -> np.ndarray:
        """Σ_i c_i x̃_i x̃_iᵀ (M, q, p, p) of numbers for each row (M, q, n)."""
        if self._keeps_pairs:
            return self._pairs.pullback(curvature)[:, :, _places(self.data.n_columns)]
        columns = self.data.small_columns  # (p, n)
        at_once, flat = max(1, PRODUCT_BYTES // columns.nbytes), curvature.reshape(-1, 1, self.n_rows)
        parts = [self._rows.pullback(flat[i : i + at_once] * columns) for i in range(0, len(flat), at_once)]
        products = parts[0] if len(parts) == 1 else np.concatenate(parts)  # (M q, p, p)
        return products.reshape(*curvature.shape[:2], *products.shape[1:])

    @cached_property
    def _keeps_pairs(self) -> bool:
        """Whether products of pairs of columns pay: for folds of several classes, whose Hessians are many.

        Those of five folds take 0.8 of the time with them on iris and wine, on breast_cancer 1.2.
        """
        is_cached = 4 * self.n_rows * self.data.n_columns**2 <= PAIR_BYTES
        return self.is_family and self.n_outputs > 1 and is_cached

    @cached_property
    def _pairs(self) -> SerialRows:
        return SerialRows(self.data.small_pairs)

    @cached_property
    def _unseen_part(self) -> np.ndarray | float:
        """`unseen`, which is everything where F is smooth, by the number of classes."""
        return 1 / self.n_outputs if self.is_smooth else self.unseen.numpy() / self.n_outputs  # (M, 1, p)


@lru_cache(maxsize=1)
def _pairs_of(n_outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of different classes, one and the other."""
    return np.triu_indices(n_outputs, 1)


@lru_cache(maxsize=1)
def _places(n_columns: int) -> np.ndarray:
    """Where the pair of any two columns (p, p) is among `Data.small_pairs`."""
    places, (one, other) = np.empty((n_columns, n_columns), np.intp), np.triu_indices(n_columns)
    places[one, other] = places[other, one] = np.arange(len(one))
    return places


def _factorised(matrices: np.ndarray) -> list[np.ndarray] | None:
    """Upper Cholesky factors of matrices (M, P, P); None if one is not definite."""
    found = [dpotrf(matrix.T, clean=False) for matrix in matrices]
    return None if any(failed for _, failed in found) else [factor for factor, _ in found]


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
        vectors = vector.numpy()
        rows = zip(self.factors, vectors.reshape(len(vectors), -1), strict=True)
        solutions = np.array([dpotrs(factor, right)[0] for factor, right in rows])  # (M, P)
        return torch.from_numpy(solutions.reshape(vectors.shape))


@dataclass(frozen=True)
class InverseAtZero:
    """The inverse Hessians of M models of K classes at θ = 0, as a product with vectors (M, K, p).

    All probabilities are 1/K there, so that the Hessian is (I - 11ᵀ/K) ⊗ G/K + λ, G the mean of x̃ x̃ᵀ: G/K + λ for each
    class, where parameters sum to zero over them, and for what they have in common the penalty, and as much as
    `curvature.definite` puts there.
    """

    factors: list[np.ndarray]  # upper Cholesky factors (p, p)
    common: np.ndarray  # (M, 1, p)
    has_ridge: bool = False
    wants_float64: bool = False

    def select(self, models: Tensor) -> "InverseAtZero":
        """Those of some of the models."""
        return InverseAtZero([self.factors[m] for m in models.tolist()], self.common[models.numpy()])

    def __call__(self, vector: Tensor) -> Tensor:
        vectors = vector.numpy()
        mean = np.add.reduce(vectors, axis=1, keepdims=True) / vectors.shape[1]  # (M, 1, p)
        rows = zip(self.factors, vectors - mean, strict=True)
        apart = np.array([dpotrs(factor, right.T)[0].T for factor, right in rows])  # (M, K, p)
        return torch.from_numpy(apart + mean / self.common)
