"""From zero over growing samples of rows."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from skl_softmax.solvers.base import Objective, SolveResult, SolverOptions, Status

Minimise = Callable[[Objective, Tensor, SolverOptions], SolveResult]


def through_samples(minimise: Minimise, objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """Minimise F by ``minimise``, from zero by way of the minima of samples.

    The minimum for a sample of rows is as near to that for all rows as the sample's size allows, at a small part of the
    price. Byrd, Chin, Nocedal & Wu (2012), "Sample size selection in optimization methods for machine learning". If F
    of all rows gains less than half of what the sample gained, the start is better: of a rare column without a penalty,
    such as one that tells the few rows of a sample that have it apart, the sample's parameters are far too large.
    """
    if start.any():
        return minimise(objective, start, options)
    theta, n_passes, fallback = _led_by_samples(minimise, objective, start, options)  # they are let go of there
    result = minimise(objective, theta, replace(options, fallback=fallback))
    return replace(result, n_passes=result.n_passes + n_passes)


def _led_by_samples(minimise: Minimise, objective: Objective, start: Tensor, options: SolverOptions) -> tuple:
    """Where samples lead, the passes that took, and where to begin instead if F of all rows is too high there."""
    theta, n_passes, at_start, fallback = start, 0.0, None, options.fallback
    for sample, gap in objective.samples():
        rough = replace(
            options, tol=0.0, accuracy=gap, observe=None, point=None, skips_float32=False, kept=None, leads_on=False
        )
        result = minimise(sample, theta, rough)
        n_passes += result.n_passes * sample.n_rows / objective.n_rows
        if any(status is not Status.CONVERGED for status in result.status):
            return start, n_passes, None  # such as a sample that is separable, which all rows need not be
        at_start = at_start or [curve[0] for curve in result.loss_curve]
        halfway = [(first + curve[-1]) / 2 for first, curve in zip(at_start, result.loss_curve, strict=True)]
        theta, fallback = result.theta, (start, halfway)
    return theta, n_passes, fallback
