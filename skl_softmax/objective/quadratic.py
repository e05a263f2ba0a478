"""Matrices for quadratic models of the smooth part of F, for the parameters that an L1 penalty lets move.

Two kinds, by price: the Hessian of all rows for the parameters of a working set, where that is small;
or the Hessian of a sample of rows for all parameters, which the formula of BFGS improves.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from skl_softmax.objective import costs, curvature

# Parameters of a working set for which a matrix is formed, and passes over its columns that it may cost: products with
# the Hessian take as many. Digits at C=1 took up to 3,573 without a matrix.
WORKING_LIMIT, PRICE_LIMIT = 2000, 100.0
# A sample is taken if it costs less than this part of all rows: its model is the worse one.
WORTH = 0.3
# Where a sample has less than this part of the curvature of all rows along a parameter, it says nothing about it.
SEEN = 0.1
# A pair of a step and a change of the gradient is rounding if it has less curvature than this part of the model's.
MIN_CURVATURE = 1e-8
# Of the diagonal, added to it: penalised parameters of an even number of classes can have a flat direction.
RIDGE = 1e-12


class DenseModel:
    """A matrix that stands for the Hessian of one model by the parameters ``index`` (q,), in the order of θ (P,)."""

    solves_exactly = True

    def __init__(self, matrix: Tensor, index: Tensor):
        self.index = index
        self._matrix = matrix  # (q, q)
        self._ridges = curvature.RIDGES  # those that may yet do

    def multiply(self, vector: Tensor) -> Tensor:
        """Its product with a vector (q,)."""
        return self._matrix @ vector

    def solve(self, free: Tensor, right: Tensor) -> Tensor:
        """The solution (q,) of the system of the parameters ``free`` (q,), bool, for the others being zero."""
        (index,) = free.nonzero(as_tuple=True)
        factor, self._ridges = curvature.factorise_by(self._matrix[index[:, None], index], self._ridges)
        solution = torch.zeros_like(right)
        solution[index] = curvature.solve_by_factor(factor, right[index, None])[:, 0]
        return solution

    def scale(self, right: Tensor) -> Tensor:
        """The product (q,) with the inverse of the diagonal, where that is not zero."""
        diagonal = self._matrix.diagonal()
        return torch.where(diagonal > 0, right / diagonal, 0.0)

    def damp(self, ridge: Tensor) -> None:
        """Add to the diagonal what belongs there of ``ridge`` (P,)."""
        self._matrix.diagonal().add_(ridge[self.index])

    def update(self, step: Tensor, change: Tensor) -> None:
        """Agree with a step and the change of the gradient, both (q,), by BFGS: Nocedal & Wright (2006), eq. 6.19."""
        product = self._matrix @ step  # (q,)
        curved, known = (step @ change).item(), (step @ product).item()
        if curved > MIN_CURVATURE * known > 0:
            self._matrix.addr_(change, change, alpha=1 / curved).addr_(product, product, alpha=-1 / known)


@dataclass
class HessianModels:
    """Models of each of M functions F, and what they took to make, in passes over the rows."""

    of: list[DenseModel]
    price: float
    exact: bool  # whether they are Hessians of all rows

    def update(self, step: Tensor, change: Tensor) -> None:
        """Agree with steps and the changes of the gradients, both (M, K, p)."""
        for model, *pair in zip(self.of, step.flatten(1), change.flatten(1), strict=True):
            model.update(*pair)

    def keep(self, models: list[int]) -> None:
        """Forget all but these."""
        self.of = [self.of[m] for m in models]


def make_hessian_models(objective, theta: Tensor, working: Tensor, max_price: float) -> HessianModels | None:
    """The models that are worth their price, or None if both kinds are too large.

    ``working`` (M, K, p) are the parameters that are wanted, ``max_price`` what exact models may cost in passes if a
    sample would do.
    """
    largest = int(working.sum(dim=(1, 2)).max())
    unit = costs.pass_seconds(objective)
    exact = _exact_seconds(objective, largest) / unit
    sampled = objective.n_models * costs.dense_seconds(objective) / unit
    rows = costs.dense_rows(objective)
    if objective.n_parameters <= costs.DENSE_LIMIT and sampled < WORTH * exact and exact > max_price:
        return HessianModels(_sampled(objective, theta, rows), sampled, exact=False)
    share = int(working.any(dim=1).sum(dim=1).max()) / objective.data.n_columns  # of the columns
    if largest > WORKING_LIMIT or exact > 1 + PRICE_LIMIT * share:
        return None
    if 8 * objective.n_models * objective.n_outputs * objective.n_rows > curvature.KEEP_PROBA_BYTES:
        return None
    proba = objective.row_proba(theta).double()  # (M, K, n)
    return HessianModels([_restricted(objective, p, m, working[m]) for m, p in enumerate(proba)], exact, exact=True)


def _exact_seconds(objective, size: int) -> float:
    work = 2 * objective.n_rows * size**2 / costs.PRODUCT_RATE + objective.n_rows * size * costs.GATHER_SECONDS
    return costs.CALL_SECONDS + objective.n_models * work


def _sampled(objective, theta: Tensor, n_rows: int) -> list[DenseModel]:
    matrices = curvature.hessian(objective.sample(n_rows), theta)  # (M, P, P)
    known, whole = matrices.diagonal(dim1=1, dim2=2), curvature.diagonal(objective, theta).flatten(1)  # (M, P)
    known.add_(torch.where(known < SEEN * whole, whole - known, 0.0))
    return [DenseModel(matrix, torch.arange(len(matrix))) for matrix in matrices]


def _restricted(objective, proba: Tensor, model: int, working: Tensor) -> DenseModel:
    """The Hessian of all rows by the parameters ``working`` (K, p): Σ s (δ_kl p_k - p_k p_l) x̃_i x̃_j; p is (K, n)."""
    outputs, columns = working.nonzero(as_tuple=True)  # (q,), (q,), ordered by output
    used, place = columns.unique(return_inverse=True)
    counts = working.sum(dim=1).tolist()
    shares = objective.weights[min(model, len(objective.weights) - 1)].to(proba) / objective.total[model]  # (n,)
    matrix = proba.new_zeros(len(outputs), len(outputs))  # its upper triangle
    blocks = _diagonal_blocks(matrix, counts)
    for rows in curvature.row_slices(objective.n_rows, 3 * len(outputs)):
        p, share = proba[:, rows], shares[rows]  # (K, rows), (rows,)
        x = objective.data.design(rows, used).T.contiguous()[place]  # (q, rows)
        spread = share * (p * (1 - p) if len(p) == 1 else p)  # (K, rows)
        for k, of_output in enumerate(x.split(counts)):
            blocks[k].addmm_(of_output * spread[k], of_output.T)
        if len(p) > 1:
            curvature.subtract_gram(matrix, x.mul_(p[outputs]).mul_(share.sqrt()))
    curvature.mirror(matrix)
    return DenseModel(_definite(objective, model, matrix, columns), outputs * working.shape[1] + columns)


def _diagonal_blocks(matrix: Tensor, sizes: list[int]) -> list[Tensor]:
    ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
    return [matrix[start:end, start:end] for start, end in pairwise(ends)]


def _definite(objective, model: int, matrix: Tensor, columns: Tensor) -> Tensor:
    """The matrix with the L2 penalty, and with curvature along what F does not see: see `curvature.hessian`."""
    if objective.n_outputs > 1:
        for column in objective.unpenalised[model, 0].nonzero().flatten():
            (index,) = (columns == column).nonzero(as_tuple=True)
            matrix[index[:, None], index] += matrix.diagonal()[index].max() / objective.n_outputs
    diagonal = matrix.diagonal().mul_(1 + RIDGE)
    diagonal.add_(objective.column_l2[model, 0, columns])
    return matrix
