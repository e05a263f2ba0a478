"""Quasi-Newton matrices: a metric of the objective's, and what the last steps have shown."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from skl_softmax.solvers.base import FEW, Metric, inner, per_model

# Steps that are remembered.
MEMORY = 12
# A pair with less curvature than this part of ‖s‖‖y‖ is rounding and is left out.
MIN_CURVATURE = 1e-14
# The least multiple of a rough metric. Without it a column that is constant in a sample, which asked for a step of
# 1e12, made all later ones, and the gap told, as much too small: digits with C=inf "converged" where it began.
MIN_SCALE = 0.01


@dataclass(frozen=True)
class Latest:
    """The last vectors of each of M models, (M, P) each, the oldest first, and sums of them."""

    vectors: tuple[Tensor, ...] = ()

    def and_then(self, vector: Tensor) -> "Latest":
        """These, but for those that are too many, and another."""
        return Latest((*self.vectors[1 - MEMORY :], vector))

    def select(self, models: Tensor) -> "Latest":
        """Those of some of the models."""
        return Latest(tuple(vector[models] for vector in self.vectors))

    @cached_property
    def _stack(self) -> Tensor | None:
        """All in one (M, m, P), if they are so short that a copy costs less than calls for each."""
        return torch.stack(self.vectors, dim=1) if self.vectors[0].shape[1] <= FEW else None

    def products(self, vector: Tensor) -> Tensor:
        """Their inner products (M, m) with a vector (M, P)."""
        if self._stack is None:
            return torch.stack([inner(own, vector) for own in self.vectors], dim=1)
        return torch.bmm(self._stack, vector[..., None])[..., 0]

    def weighted_sum(self, weights: Tensor) -> Tensor:
        """Their sum (M, P) with weights (M, m)."""
        if self._stack is not None:
            return torch.bmm(weights[:, None], self._stack)[:, 0]
        total = weights[:, :1] * self.vectors[0]
        for own, weight in zip(self.vectors[1:], weights.T[1:], strict=True):
            total.addcmul_(weight[:, None], own)
        return total


class QuasiNewton:
    """The matrix H of L-BFGS for a stack of models: a metric for H₀, the last steps s and changes of the gradient y."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self.forget()

    def forget(self) -> None:
        """Forget all steps."""
        self._steps = self._changes = Latest()  # S and Y
        self._curvature: Tensor | None = None  # (M, m, m), R, the upper triangle of SᵀY

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember s and y of each model; a model without curvature gets a pair that does nothing."""
        step, change = step.flatten(1), change.flatten(1)  # (M, P)
        curvature = inner(step, change)  # (M,)
        enough = curvature > MIN_CURVATURE * step.norm(dim=1) * change.norm(dim=1)  # (M,)
        if not enough.all():
            step, change = (torch.where(enough[:, None], vector, 0.0) for vector in (step, change))
            curvature = torch.where(enough, curvature, 1.0)
        self._steps, self._changes = self._steps.and_then(step), self._changes.and_then(change)
        last = self._steps.products(change)  # (M, m)
        last[:, -1] = curvature
        if self._curvature is None:
            self._curvature = last[..., None]
        else:
            known = self._curvature[:, 1 - MEMORY :, 1 - MEMORY :]
            self._curvature = torch.cat([functional.pad(known, (0, 0, 0, 1)), last[..., None]], dim=2)

    def renew(self, metric: Metric) -> None:
        """Take another metric; an exact one has nothing to learn from the steps until here."""
        self.metric = metric
        if metric.exact:
            self.forget()

    def keep(self, models: Tensor) -> None:
        """Forget all but these models."""
        self.metric = self.metric.select(models)
        self._steps, self._changes = self._steps.select(models), self._changes.select(models)
        self._curvature = None if self._curvature is None else self._curvature[models]

    def product(self, gradient: Tensor) -> Tensor:
        """H g by the two-loop recursion, Nocedal & Wright (2006), algorithm 7.4, each loop of which solves a triangle.

        With D the diagonal of R, α = R⁻¹ Sᵀ g, r = H₀ (g - Y α), H g = r + S R⁻ᵀ (D α - Yᵀ r): a dozen calls for any
        number of steps, of which small tables take a hundred else.
        """
        if self._curvature is None:
            return self.metric.solve(gradient)
        triangle, q = self._curvature, gradient.flatten(1)  # (M, m, m), (M, P)
        alpha = torch.linalg.solve_triangular(triangle, self._steps.products(q)[..., None], upper=True)[..., 0]
        r = self._scaled((q - self._changes.weighted_sum(alpha)).view_as(gradient)).flatten(1)
        left = triangle.diagonal(dim1=1, dim2=2) * alpha - self._changes.products(r)  # (M, m)
        weights = torch.linalg.solve_triangular(triangle.mT, left[..., None], upper=False)[..., 0]
        return (r + self._steps.weighted_sum(weights)).view_as(gradient)

    def _scaled(self, q: Tensor) -> Tensor:
        """H₀ q (M, ...), of a rough metric the multiple that fits the last pair, Nocedal & Wright (2006), eq. 7.20.

        Not one below `MIN_SCALE`: the pair is then along what the metric knows nothing of, and tells nothing else.
        """
        metric = self.metric
        if metric.follows:
            return metric.solve(q)
        y, curvature = self._changes.vectors[-1].view_as(q), self._curvature[:, -1, -1]  # (M, ...), (M,)
        if metric.apart_price is None:
            solved, product = metric.solve(q), metric.solve(y)
        else:  # one for all models takes both in two thirds of the time
            solved, product = metric.solve(torch.cat([q, y])).chunk(2)
        curved = inner(y, product)  # (M,), 0 of a pair that does nothing
        scale = torch.where(curved > 0, curvature / curved, 1.0).clamp_min(MIN_SCALE)  # (M,), sᵀy / yᵀH₀y
        return solved * per_model(scale, q)
