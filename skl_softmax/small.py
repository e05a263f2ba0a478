"""F of a table so small that calls cost more than arithmetic.

The F of `skl_softmax.objective` by formulas for all rows at once, in NumPy, whose calls on small arrays take a third of
the time of torch's. On iris a value with its gradient takes 22 microseconds instead of 105, a Newton step 60 instead
of 200.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import torch
from scipy.linalg.blas import dgemm
from scipy.linalg.lapack import dposv
from scipy.special import expit
from torch import Tensor

from skl_softmax.curvature import RIDGES, with_ridge
from skl_softmax.data import Data
from skl_softmax.objective import Evaluation, Objective
from skl_softmax.quadratic import DenseModel, HessianModels

# Operations of a Hessian up to which it costs less than the calls around it, so that nothing beats Newton's method.
SMALL_HESSIAN = 1e7


def is_small(data: Data, n_outputs: int) -> bool:
    """Whether the calls of a Newton step take longer than its arithmetic."""
    operations = data.n_rows * (n_outputs * data.n_columns) ** 2
    return data.keeps and data.X.device.type == "cpu" and data.dtype == torch.float64 and operations <= SMALL_HESSIAN


class SmallObjective(Objective):
    """F of M models over one small dense X, in float64. Shapes as in `skl_softmax.objective`."""

    prefers_newton = True

    @np.errstate(all="ignore")
    def at(self, theta: Tensor) -> Evaluation:
        parameters = theta.numpy()
        logits = parameters @ self.data.small_columns  # (M, K, n)
        value, proba = loss_and_proba(logits, self._shares, self._target_shares)  # (M,), (M, K, n)
        shares = proba * self._shares  # (M, K, n)
        self.__dict__["_last"] = theta, proba, shares
        penalised = self._penalty * parameters  # (M, K, p)
        gradient = (shares - self._target_shares) @ self.data.small_rows  # (M, K, p)
        gradient += penalised
        penalised *= parameters
        value += 0.5 * penalised.sum(axis=(1, 2))
        if self.l1 is not None:
            value += (self.absolute.numpy() * np.abs(parameters)).sum(axis=(1, 2))
        return Evaluation(torch.from_numpy(value), torch.from_numpy(gradient))

    @np.errstate(all="ignore")
    def inverse_hessian(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        matrices = self._hessian(*self._proba_and_shares(theta))

        def product(vector: Tensor) -> Tensor:
            solutions = np.empty_like(vector.numpy())
            for matrix, right, solution in zip(matrices, vector.numpy(), solutions, strict=True):
                _, x, failed = dposv(matrix.T, right.ravel())
                solution.flat = _solve_singular(matrix, right.ravel()) if failed else x
            return torch.from_numpy(solutions)

        return product

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float) -> HessianModels:  # noqa: ARG002, cheap anyway
        matrices = torch.from_numpy(self._hessian(*self._proba_and_shares(theta)))  # (M, P, P)
        return HessianModels([DenseModel(m, torch.arange(len(m))) for m in matrices], price=1.0, exact=True)

    def _proba_and_shares(self, theta: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (M, K, n) and their parts in the mean; from the last evaluation if that was at θ."""
        last = self.__dict__.get("_last")
        if last is None or last[0] is not theta:
            self.at(theta)
        return self.__dict__["_last"][1:]

    def _hessian(self, proba: np.ndarray, shares: np.ndarray) -> np.ndarray:
        n_models, n_outputs, n_rows = proba.shape
        n_columns = self.data.n_columns
        if n_outputs == 1:
            curvature = shares - shares * proba  # (M, 1, n)
        else:
            curvature = shares[:, :, None] * -proba[:, None]  # (M, K, K, n)
            curvature.reshape(n_models, -1, n_rows)[:, :: n_outputs + 1] += shares
        weighted = curvature.reshape(n_models, -1, 1, n_rows) * self.data.small_columns  # (M, K², p, n)
        # By SciPy's BLAS, as `dposv` is: threads of NumPy's would stand in the way of its, for 4 ms at a time.
        products = dgemm(1.0, self.data.small_rows.T, weighted.reshape(-1, n_rows).T).T  # (M K² p, p)
        by_class = products.reshape(n_models, n_outputs, n_outputs, n_columns, n_columns).swapaxes(2, 3)
        return by_class.reshape(n_models, self.n_parameters, self.n_parameters) + self._constant_curvature

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
        """The penalty of each model and column, as `quadratic`."""
        data = self.data
        scale = np.zeros(data.n_columns)
        scale[: data.X.shape[1]] = 1 / np.square(data.scale.numpy())
        return self.penalty.numpy()[:, None, None] * scale  # (M, 1, p)

    @cached_property
    def _constant_curvature(self) -> np.ndarray:
        """The penalty and, where there is none, what makes the Hessian definite: see `curvature.hessian`."""
        matrix = np.eye(self.n_outputs)[:, None, :, None] * self._by_class(self._penalty)  # (M, K, p, K, p)
        if self.n_outputs > 1:
            norms = self._shares @ np.square(self.data.small_rows)  # (M, 1, p)
            matrix += self._by_class(np.where(self.unpenalised.numpy(), norms / self.n_outputs, 0.0))
        return matrix.reshape(self.n_models, self.n_parameters, self.n_parameters)

    def _by_class(self, diagonal: np.ndarray) -> np.ndarray:
        """Diagonal matrices (M, 1, p, 1, p) from their diagonals (M, 1, p)."""
        return (diagonal.swapaxes(1, 2) * np.eye(self.data.n_columns))[:, None, :, None]


def _solve_singular(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A solution (P,) of a system that is made definite as by `curvature.factorise`."""
    for ridge in RIDGES[1:]:
        _, solution, failed = dposv(with_ridge(torch.from_numpy(matrix), ridge).numpy().T, right)
        if not failed:
            break
    return solution


def loss_and_proba(logits: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ of weighted losses (M,), in float64, and probabilities (M, K, n); ``logits`` is overwritten.

    ``weights`` are (M, 1, n), ``targets`` probabilities of the classes times these, (M, K, n).
    """
    if logits.shape[1] == 1:
        proba = expit(logits)
        losses = np.maximum(logits, 0) * weights - logits * targets  # (M, 1, n)
        losses += np.log1p(np.exp(-np.abs(logits))) * weights
        return losses.sum(axis=(1, 2), dtype=np.float64), proba
    logits -= logits.max(axis=1, keepdims=True)
    proba = np.exp(logits)
    sums = proba.sum(axis=1, keepdims=True)  # (M, 1, n)
    proba /= sums
    logits *= targets
    gained = logits.sum(axis=(1, 2), dtype=np.float64)
    return (np.log(sums) * weights).sum(axis=(1, 2), dtype=np.float64) - gained, proba


def target_proba(targets: Tensor, n_outputs: int, label_proba: Tensor | None) -> np.ndarray:
    """The probabilities of the classes that the rows' targets stand for, (n,) or (K, n)."""
    if targets.ndim == 2 or n_outputs == 1:
        return targets.numpy().T
    if label_proba is not None:
        return label_proba.numpy()[targets.numpy()].T
    return targets.numpy() == np.arange(n_outputs)[:, None]
