"""The record of the models of a run: what is known of each, from its beginning to its end."""

from collections.abc import Callable
from math import inf, log
from sys import float_info

import torch
from torch import Tensor

from skl_softmax.solvers.base import Kept, SolveResult, Status

# Differences of F below this multiple of |F| are rounding. Gradients tell more: gaps may go on shrinking below it.
GAP_ROUNDING = 4 * torch.finfo(torch.float64).eps
# Iterations over which gains are added up before they are compared.
WINDOW = 5
# Iterations in which F or the gap should have become smaller; and where the gap is more than rounding, as a row that is
# told apart takes some 50 from where F shows no more of it to where it holds nothing.
STANDSTILL, LONG_STANDSTILL = 30, 100


class Record:
    """F and the gap of each of M models before each iteration, and where and how it ended."""

    def __init__(self, theta: Tensor, leads_on: bool):
        self.n_models = len(theta)
        self.curve: list[list[float]] = [[] for _ in range(self.n_models)]
        self.gaps: list[list[float]] = [[] for _ in range(self.n_models)]
        self.tangent = torch.empty_like(theta) if leads_on else None
        self._theta = torch.empty_like(theta)
        self._gradient: list[Tensor | None] = [None] * self.n_models
        self._n_iter = [0] * self.n_models
        self._status = [Status.MAX_ITER] * self.n_models

    def add(self, model: int, value: float, gap: float) -> None:
        """What is known of a model before an iteration."""
        self.curve[model].append(value)
        self.gaps[model].append(gap)

    def end(self, model: int, status: Status, n_iter: int, theta: Tensor, gradient: Tensor) -> None:
        """Where a model ended, and how."""
        self._status[model], self._n_iter[model] = status, n_iter
        self._theta[model], self._gradient[model] = theta, gradient

    def is_close(self, model: int, part: float, n_iter: int = 1) -> bool:
        """Whether a model can gain no more than this part of F, as told before one of the last iterations."""
        gaps = self.gaps[model][-n_iter:]
        return bool(gaps) and min(gaps) <= part * abs(self.curve[model][-1])

    def is_next_close(self, model: int, part: float) -> bool:
        """Whether the next step is to bring it there, if the gap shrinks as in the last one."""
        gaps = self.gaps[model]
        return len(gaps) > 1 and gaps[-1] ** 2 <= part * abs(self.curve[model][-1]) * gaps[-2] < inf

    def to_be_gained(self, model: int, value: float, n_gains: int) -> float:
        """What a model at this value of F would gain if its gains went on as a geometric series; 0 if they are few.

        Its terms are the gains of single iterations or of WINDOW each, whichever say more, among the last ``n_gains``.
        """
        if n_gains < 2 * WINDOW:
            return 0.0
        curve = [*self.curve[model][-2 * WINDOW :], value]
        return max(_series(curve, window) for window in (1, WINDOW))

    def iterations_to_come(self, model: int, last_gap: Callable[[float], float]) -> float:
        """How many a model needs until its gap is ``last_gap`` of F, if it goes on shrinking as in the last."""
        if len(self.gaps[model]) < 2:
            return inf
        before, now = self.gaps[model][-2:]
        goal = max(last_gap(self.curve[model][-1]), float_info.min)
        return log(now / goal) / log(before / now) if now < before else inf

    def stands_still(self, model: int, n_iter: int = STANDSTILL) -> bool:
        """Whether neither F nor the gap of a model has become smaller in so many iterations."""
        curve, gaps = (known[model][-n_iter:] for known in (self.curve, self.gaps))
        return len(curve) == n_iter and min(curve) == curve[0] and min(gaps) == gaps[0]

    def result(self, n_passes: float, kept: Kept | None) -> SolveResult:
        """All of it, once every model has ended."""
        return SolveResult(
            theta=self._theta,
            # Losses and penalties are not negative, and so is no minimum of F.
            gap=torch.tensor(
                [min(g[-1], c[-1]) for g, c in zip(self.gaps, self.curve, strict=True)], dtype=torch.float64
            ),
            n_iter=self._n_iter,
            status=self._status,
            loss_curve=self.curve,
            n_passes=n_passes,
            gradient=self._gradient,
            kept=kept,
            tangent=self.tangent,
        )


def _series(curve: list[float], window: int) -> float:
    """What would still be gained if the gains of the last two windows were terms of a geometric series."""
    before = curve[-1 - 2 * window] - curve[-1 - window]
    after = curve[-1 - window] - curve[-1]
    if after <= GAP_ROUNDING * abs(curve[-1]):
        return 0.0
    return after**2 / (before - after) if before > after else inf
