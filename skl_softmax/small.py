"""F of a table so small that calls cost more than arithmetic.

The F of `skl_softmax.objective` by formulas for all rows at once, in NumPy, whose calls on small arrays take a third of
the time of torch's. On iris a value with its gradient takes 22 microseconds instead of 105, a Newton step 60 instead
of 200.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.linalg.blas import dgemm
from scipy.linalg.lapack import dpotrf, dpotrs
from scipy.special import expit
from torch import Tensor

from skl_softmax.curvature import Inverse, inverse
from skl_softmax.data import Data
from skl_softmax.objective import Evaluation, Objective
from skl_softmax.quadratic import RIDGE, DenseModel, HessianModels

# Operations of a Hessian up to which it costs less than the calls around it, so that nothing beats Newton's method.
SMALL_HESSIAN = 1e7
# Losses below this, which are known here to rounding of 1, are left to formulas that know them to their own.
TOLD_APART = 1e-6
# What the products of pairs of columns may take: larger ones are read from memory each time.
PAIR_BYTES = 4 * 2**20


def is_small(data: Data, n_outputs: int) -> bool:
    """Whether the calls of a Newton step take longer than its arithmetic."""
    operations = data.n_rows * (n_outputs * data.n_columns) ** 2
    return data.keeps and data.X.device.type == "cpu" and data.dtype == torch.float64 and operations <= SMALL_HESSIAN


class SmallObjective(Objective):
    """F of M models over one small dense X, in float64. Shapes as in `skl_softmax.objective`."""

    prefers_newton = True
    _of_rows = "_shares", "_target_shares"

    def select(self, models: Tensor) -> "SmallObjective":
        some, index = super().select(models), models.numpy()
        kept = (name for name in (*self._of_rows, "_penalty") if name in self.__dict__)
        some.__dict__.update({name: self.__dict__[name][index] for name in kept})
        return some

    def from_other(self, other: "SmallObjective", point: Evaluation, theta: Tensor) -> Evaluation:
        parameters, by_model = theta.numpy(), (self.n_models, self.n_parameters)
        change = (self._penalty - other._penalty) * parameters  # (M, K, p)
        more = 0.5 * np.vecdot(change.reshape(by_model), parameters.reshape(by_model))  # (M,)
        return Evaluation(*map(torch.from_numpy, (point.value.numpy() + more, point.gradient.numpy() + change)))

    @np.errstate(all="ignore")
    def at(self, theta: Tensor) -> Evaluation:
        parameters = theta.numpy()
        logits = parameters @ self.data.small_columns  # (M, K, n)
        value, proba = loss_and_proba(logits, self._shares, self._target_shares)  # (M,), (M, K, n)
        shares = proba * self._shares  # (M, K, n)
        self.__dict__["_last"] = theta, proba, shares
        if (value < TOLD_APART).any():
            return super().at(theta)
        penalised = self._penalty * parameters  # (M, K, p)
        gradient = (shares - self._target_shares) @ self.data.small_rows  # (M, K, p)
        gradient += penalised
        by_model = len(value), self.n_parameters
        value += 0.5 * np.vecdot(penalised.reshape(by_model), parameters.reshape(by_model))
        if self.l1 is not None:
            value += (self.column_l1.numpy() * np.abs(parameters)).sum(axis=(1, 2))
        return Evaluation(torch.from_numpy(value), torch.from_numpy(gradient))

    def largest_change(self, direction: Tensor) -> Tensor:
        along = direction.numpy() @ self.data.small_columns  # (M, K, n)
        apart = along.max(axis=1) - along.min(axis=1) if along.shape[1] > 1 else np.abs(along[:, 0])  # (M, n)
        return torch.from_numpy((apart * (self._shares[:, 0] > 0)).max(axis=1))

    def penalty_gradient(self, theta: Tensor) -> Tensor:
        return torch.from_numpy(self._penalty * theta.numpy())

    @np.errstate(all="ignore")
    def inverse_hessian(self, theta: Tensor) -> "Inverse | SmallInverse":
        matrices = self._hessian(*self._proba_and_shares(theta))
        found = [dpotrf(matrix.T, clean=False) for matrix in matrices]
        if any(failed for _, failed in found):
            return inverse(torch.from_numpy(matrices))
        return SmallInverse([factor for factor, _ in found])

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float) -> HessianModels:  # noqa: ARG002, cheap anyway
        matrices = torch.from_numpy(self._hessian(*self._proba_and_shares(theta)))  # (M, P, P)
        matrices.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE)
        return HessianModels([DenseModel(m, torch.arange(len(m))) for m in matrices], price=1.0, exact=True)

    def _proba_and_shares(self, theta: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (M, K, n) and their parts in the mean; from the last evaluation if that was at θ."""
        last = self.__dict__.get("_last")
        if last is None or last[0] is not theta:
            self.at(theta)
        return self.__dict__["_last"][1:]

    def _hessian(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        n_outputs = self.n_outputs
        make_blocks = self._blocks_by_pairs if self._keeps_pairs else self._blocks_by_columns
        blocks = make_blocks(proba, shares)  # (M, K, p, K, p)
        diagonals = np.einsum("mkjlj->mklj", blocks)  # a view of them
        by_column = np.einsum("mkkj->mkj", diagonals)
        if n_outputs > 1:  # as `curvature.definite`
            unseen = by_column.max(axis=1, keepdims=True) * self._unseen_part  # (M, 1, p)
            diagonals += unseen[:, None]
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
        # By SciPy's BLAS, as `dpotrf` is: threads of NumPy's would stand in the way of its, for 4 ms at a time.
        products = dgemm(1.0, self.data.small_rows.T, weighted.reshape(-1, n_rows).T).T  # (M K² p, p)
        return products.reshape(n_models, n_outputs, n_outputs, *2 * (self.data.n_columns,)).swapaxes(2, 3)

    def _blocks_by_pairs(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """The same from the products of pairs of columns: one for each pair of classes, and no weighted rows."""
        n_models, n_outputs, n_rows = proba.shape
        one, other, on_diagonal, places = _pairs_and_places(n_outputs, self.data.n_columns)
        curvature = shares[:, one] * -proba[:, other]  # (M, pairs of classes, n)
        curvature[:, on_diagonal] = shares * self._complement(proba)
        products = dgemm(1.0, self.data.small_pairs.T, curvature.reshape(-1, n_rows).T, trans_a=True).T
        return products.reshape(n_models, -1)[:, places]  # (M, K, p, K, p)

    @property
    def _keeps_pairs(self) -> bool:
        """Whether products of pairs of columns pay: for folds of several classes, whose Hessians are many.

        Those of five folds take 0.4 of the time with them on wine, and no less on breast_cancer than the products save.
        """
        is_cached = 4 * self.n_rows * self.data.n_columns**2 <= PAIR_BYTES
        return self.is_family and self.n_outputs > 1 and is_cached

    def _complement(self, proba: np.ndarray) -> np.ndarray:
        """As `curvature.complement`, of several classes."""
        return self._off_diagonal @ proba  # (M, K, n)

    @cached_property
    def _off_diagonal(self) -> np.ndarray:
        return 1 - np.eye(self.n_outputs)  # (K, K)

    @cached_property
    def _shares(self) -> np.ndarray:
        """Each row's part in the mean, s_i / S."""
        return (self.weights / self.total[:, None])[:, None].numpy()  # (M, 1, n)

    @cached_property
    def _target_shares(self) -> np.ndarray:
        """Each row's part in the mean, at its class or spread over the classes as its target is."""
        return self._shares * target_proba(self.targets, self.n_outputs, self.label_proba)  # (M, K, n)

    @cached_property
    def _penalty(self) -> np.ndarray:
        """The penalty of each model and column, as `column_l2`."""
        data = self.data
        scale = np.zeros(data.n_columns)
        scale[: data.X.shape[1]] = 1 / np.square(data.scale.numpy())
        return self.l2.numpy()[:, None, None] * scale  # (M, 1, p)

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
class SmallInverse:
    """The inverse Hessians of M models, as a product with vectors (M, K, p)."""

    factors: list[np.ndarray]  # upper Cholesky factors (P, P)
    has_ridge: bool = False

    def select(self, models: Tensor) -> "SmallInverse":
        """Those of some of the models."""
        return SmallInverse([self.factors[m] for m in models.tolist()])

    def __call__(self, vector: Tensor) -> Tensor:
        solutions = np.empty_like(vector.numpy())
        for factor, right, solution in zip(self.factors, vector.numpy(), solutions, strict=True):
            solution.flat, _ = dpotrs(factor, right.ravel())
        return torch.from_numpy(solutions)


def loss_and_proba(logits: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ of weighted losses (M,), in float64, and probabilities (M, K, n); ``logits`` is overwritten.

    ``weights`` are (M, 1, n), ``targets`` probabilities of the classes times these, (M, K, n).
    """
    if logits.shape[1] == 1:
        proba = expit(logits)
        losses = np.abs(logits)  # (M, 1, n)
        np.log1p(np.exp(np.negative(losses, out=losses), out=losses), out=losses)
        gained = np.vecdot(logits, targets - (logits > 0) * weights, dtype=np.float64)  # (M, 1)
    else:
        logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
        gained = np.vecdot(logits, targets, dtype=np.float64)  # (M, K)
        proba = np.exp(logits, out=logits)
        sums = np.add.reduce(proba, axis=1, keepdims=True)  # (M, 1, n)
        proba /= sums
        losses = np.log(sums)
    return np.vecdot(losses, weights, dtype=np.float64)[:, 0] - gained.sum(axis=1), proba


def target_proba(targets: Tensor, n_outputs: int, label_proba: Tensor | None) -> np.ndarray:
    """The probabilities of the classes that the rows' targets stand for, (n,) or (K, n)."""
    if targets.ndim == 2 or n_outputs == 1:
        return targets.numpy().T
    if label_proba is not None:
        return label_proba.numpy()[targets.numpy()].T
    return targets.numpy() == np.arange(n_outputs)[:, None]
