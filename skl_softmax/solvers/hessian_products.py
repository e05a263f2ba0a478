"""The Hessian by its products, as a model for `orthants`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skl_softmax.solvers.conjugate_gradients import conjugate_gradients
from skl_softmax.solvers.orthants import Model
from skl_softmax.solvers.run import Run


@dataclass
class ProductModels:
    """The Hessians by their products."""

    of: list["HessianProducts"]
    exact: ClassVar[bool] = True


class HessianProducts(Model):
    """The Hessian of one model by the parameters of a working set (K, p): systems by conjugate gradients."""

    solves_exactly = False

    def __init__(self, run: Run, model: int, working: Tensor):
        columns = working.any(dim=0).nonzero().flatten()
        objective = run.objective.select(torch.tensor([model])).narrow().restrict(columns)
        theta = run.theta[model : model + 1][..., columns]  # (1, K, columns)
        self.index = working.flatten().nonzero().flatten()
        self._inside = working[:, columns]  # (K, columns)
        self._run, self._dtype = run, objective.dtype
        self._share = len(columns) / run.theta.shape[2]
        self._hessian: Callable = objective.hessian_product(theta)
        self._columns, self._ridge = columns, 0.0
        self._unseen = objective.unseen & self._inside.all(dim=0)  # (1, 1, columns)
        self._feasible: Callable = objective.feasible
        self._diagonal = objective.hessian_diagonal(theta).to(self._dtype)  # (1, K, columns)

    def damp(self, ridge: Tensor) -> None:
        """Add to the diagonal what belongs there of ``ridge`` (P,)."""
        self._ridge = ridge.view(len(self._inside), -1)[:, self._columns].to(self._dtype)

    def multiply(self, vector: Tensor) -> Tensor:
        return self._inner(self._product(self._outer(vector))).to(vector.dtype)

    def solve(self, free: Tensor, right: Tensor) -> Tensor:
        mask = self._outer(free)
        direction, *_ = conjugate_gradients(
            lambda vector: self._product(vector) * mask,
            lambda vector: self._precondition(vector) * mask,
            -self._outer(right),
        )
        return self._inner(direction).to(right.dtype)

    def scale(self, right: Tensor) -> Tensor:
        return self._inner(self._precondition(self._outer(right))).to(right.dtype)

    def _product(self, vector: Tensor) -> Tensor:
        self._run.n_passes += self._share
        return self._hessian(vector).add_(self._ridge * vector)

    def _precondition(self, vector: Tensor) -> Tensor:
        diagonal = self._diagonal + self._ridge
        return self._centred(torch.where(diagonal > 0, self._centred(vector) / diagonal, 0.0))

    def _centred(self, vector: Tensor) -> Tensor:
        """Without what changes no probability and has no penalty: the Hessian has no curvature there."""
        return torch.where(self._unseen, self._feasible(vector), vector)

    def _outer(self, vector: Tensor) -> Tensor:
        full = vector.new_zeros(self._inside.shape, dtype=self._dtype)  # (K, columns)
        full[self._inside] = vector.to(self._dtype)
        return full[None]

    def _inner(self, vector: Tensor) -> Tensor:
        return vector[0][self._inside]
