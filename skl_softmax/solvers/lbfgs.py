"""Limited-memory BFGS in a metric."""

from collections import deque

import torch
from torch import Tensor

from skl_softmax.solvers.base import Objective, SolveResult, SolverOptions, inner, per_model
from skl_softmax.solvers.run import Run

MEMORY = 20
# A pair with less curvature than this part of ‖s‖‖y‖ is rounding and is left out.
MIN_CURVATURE = 1e-14


def lbfgs(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """L-BFGS, Nocedal & Wright (2006), algorithms 7.4 and 7.5, with the objective's metric for H₀.

    With the metric in place of a multiple of the identity the iterates do not depend on the units of the
    parameters. ½ gᵀ H g, H the quasi-Newton matrix, estimates F - F* too low where H has not yet seen a flat
    direction. When it falls below the tolerance, the decrement of Newton's method is computed by conjugate
    gradients; if that is still too large, its direction is taken and the iteration goes on.
    """
    run = Run(objective, start, options)
    memory = Memory()
    while run.active:
        direction = -memory.product(run.point.gradient, run.objective.metric)
        gap = -0.5 * inner(run.point.gradient, direction)  # (M,)
        near = torch.nonzero(gap <= options.tol * run.point.value.abs())[:, 0]
        if len(near):
            direction[near], gap[near] = run.newton_by_products(near)
        keep = run.settle(gap)
        if run.active:
            memory.keep(keep)
            theta, gradient = run.theta, run.point.gradient
            run.descend(direction[keep])
            memory.add(run.theta - theta, run.point.gradient - gradient)
    return run.result()


class Memory:
    """The last steps s and changes of the gradient y of a stack of models."""

    def __init__(self, size: int = MEMORY):
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=size)  # s, y, 1 / sᵀy

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember s and y of each model; a model without curvature gets a pair that does nothing."""
        curvature = inner(step, change)  # (M,)
        enough = curvature > MIN_CURVATURE * (inner(step, step) * inner(change, change)).sqrt()
        self._pairs.append((step, change, torch.where(enough, 1 / curvature, 0.0)))

    def keep(self, models: Tensor) -> None:
        """Forget all but these models."""
        if self._pairs and len(models) < len(self._pairs[-1][2]):
            self._pairs = deque(((s[models], y[models], rho[models]) for s, y, rho in self._pairs), self._pairs.maxlen)

    def product(self, gradient: Tensor, metric) -> Tensor:
        """H g by the two-loop recursion, Nocedal & Wright (2006), algorithm 7.4, with H₀ = γ metric."""
        q, alphas = gradient, []
        for s, y, rho in reversed(self._pairs):
            alpha = rho * inner(s, q)  # (M,)
            alphas.append(alpha)
            q = q - per_model(alpha, q) * y
        r = per_model(self._scale(metric), q) * metric(q)
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            r = r + per_model(alpha - rho * inner(y, r), r) * s
        return r

    def _scale(self, metric) -> Tensor:
        """γ = sᵀy / yᵀ H₀ y of the last pair (eq. 7.20, in the metric)."""
        if not self._pairs:
            return torch.ones(1, dtype=torch.float64)
        _, y, rho = self._pairs[-1]
        return torch.where(rho > 0, 1 / (rho * inner(y, metric(y))), 1.0)  # (M,)
