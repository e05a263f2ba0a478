"""Quasi-Newton matrices: a metric of the objective's, and what the last steps have shown."""

from collections import deque

import torch
from torch import Tensor

from skl_softmax.solvers.base import Metric, inner, per_model

# Steps that are remembered.
MEMORY = 12
# A pair with less curvature than this part of ‖s‖‖y‖ is rounding and is left out.
MIN_CURVATURE = 1e-14
# The least multiple of a rough metric. Without it a column that is constant in a sample, which asked for a step of
# 1e12, made all later ones, and the gap told, as much too small: digits with C=inf "converged" where it began.
MIN_SCALE = 0.01


class QuasiNewton:
    """The matrix H of L-BFGS for a stack of models: a metric for H₀, the last steps s and changes of the gradient y."""

    def __init__(self, metric: Metric):
        self.metric = metric
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)  # s, y, 1 / sᵀy

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember s and y of each model; a model without curvature gets a pair that does nothing."""
        step, change = step.flatten(1), change.flatten(1)  # (M, P)
        curvature = inner(step, change)  # (M,)
        enough = curvature > MIN_CURVATURE * step.norm(dim=1) * change.norm(dim=1)
        self._pairs.append((step, change, torch.where(enough, 1 / curvature, 0.0)[:, None]))

    def forget(self) -> None:
        """Forget all steps."""
        self._pairs.clear()

    def renew(self, metric: Metric) -> None:
        """Take another metric; an exact one has nothing to learn from the steps until here."""
        self.metric = metric
        if metric.exact:
            self.forget()

    def keep(self, models: Tensor) -> None:
        """Forget all but these models."""
        self.metric = self.metric.select(models)
        self._pairs = deque(((s[models], y[models], rho[models]) for s, y, rho in self._pairs), self._pairs.maxlen)

    def product(self, gradient: Tensor) -> Tensor:
        """H g by the two-loop recursion, Nocedal & Wright (2006), algorithm 7.4."""
        q, alphas = gradient.flatten(1), []  # (M, P)
        for s, y, rho in reversed(self._pairs):
            alpha = inner(s, q)[:, None] * rho  # (M, 1)
            alphas.append(alpha)
            q = torch.addcmul(q, alpha, y, value=-1)
        r = self._scaled(q.view_as(gradient)).flatten(1)
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            r.addcmul_(alpha - inner(y, r)[:, None] * rho, s)
        return r.view_as(gradient)

    def _scaled(self, q: Tensor) -> Tensor:
        """H₀ q (M, ...), of a rough metric the multiple that fits the last pair, Nocedal & Wright (2006), eq. 7.20.

        Not one below `MIN_SCALE`: the pair is then along what the metric knows nothing of, and tells nothing else.
        """
        metric = self.metric
        if metric.follows or not self._pairs:
            return metric.solve(q)
        _, y, rho = self._pairs[-1]
        y = y.view_as(q)
        if metric.apart_price is None:
            solved, product = metric.solve(q), metric.solve(y)
        else:  # one for all models takes both in two thirds of the time
            solved, product = metric.solve(torch.cat([q, y])).chunk(2)
        fitting = 1 / (rho * inner(y, product)[:, None])  # (M, 1), sᵀy / yᵀH₀y
        scale = torch.where(rho > 0, fitting, 1.0).clamp_min(MIN_SCALE)  # (M, 1)
        return solved * per_model(scale, q)
