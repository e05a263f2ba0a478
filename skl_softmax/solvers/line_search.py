"""Step sizes for smooth convex functions."""

from collections.abc import Callable

import torch
from torch import Tensor

from skl_softmax.solvers.base import Evaluation, inner, per_model

# Sufficient decrease, Nocedal & Wright (2006), eq. 3.4.
SUFFICIENT_DECREASE = 1e-4
# Decreases below this multiple of |F| cannot be seen in F; slopes decide there.
ROUNDING = 1e-13
# After this many trials the right length is not even known by its order of magnitude, and tenths take over.
SECANT_TRIALS = 4
MAX_TRIALS = 40


def backtrack(
    evaluate: Callable[[Tensor], Evaluation], theta: Tensor, point: Evaluation, direction: Tensor, slope: Tensor
) -> tuple[Tensor, Evaluation, Tensor]:
    """Step along ``direction``, from length 1 downwards, until the objective has decreased sufficiently.

    ``slope`` (M,) is that of the objective along the direction. Each trial yields value and slope together, so the
    next one is where the secant of the slopes crosses zero.
    Where the promised decrease is lost in rounding, the approximate condition on slopes of Hager &
    Zhang (2005), "A new conjugate gradient method with guaranteed descent", eq. 4.1, takes over. For a convex function
    a step with sufficient decrease also gives the positive curvature sᵀy that L-BFGS wants.

    Returns
    -------
    theta, point
        The new points and what was evaluated there. A model for which no step was found stays where it was.
    stuck : Tensor of shape (M,), bool
        For which models no step was found.
    """
    stuck = torch.zeros_like(slope, dtype=torch.bool)
    trial_theta = theta + direction
    trial = evaluate(trial_theta)
    promised = (SUFFICIENT_DECREASE * s for s in slope.tolist())
    if all(t <= v + p for t, v, p in zip(trial.value.tolist(), point.value.tolist(), promised, strict=True)):
        return trial_theta, trial, stuck  # nearly always, and in less time than tensors of one element would take
    step = torch.ones_like(slope)  # (M,)
    for i in range(1, MAX_TRIALS + 1):
        trial_slope = inner(trial.gradient, direction)  # (M,)
        accepted = _is_sufficient(point.value, slope, step, trial.value, trial_slope)  # (M,)
        if accepted.all():
            return trial_theta, trial, stuck
        if i < MAX_TRIALS:
            step = torch.where(accepted, step, _shorter(slope, step, trial_slope, i <= SECANT_TRIALS))
            trial_theta = theta + per_model(step, theta) * direction
            trial = evaluate(trial_theta)
    moved = per_model(accepted, theta).bool()
    value = torch.where(accepted, trial.value, point.value)  # (M,)
    gradient = torch.where(moved, trial.gradient, point.gradient)  # (M, ...)
    return torch.where(moved, trial_theta, theta), type(point)(value, gradient), ~accepted


def halve(
    evaluate: Callable[[Tensor], Evaluation], theta: Tensor, point: Evaluation, direction: Tensor, promised: Tensor
) -> tuple[Tensor, Evaluation, Tensor]:
    """Step along ``direction``, from length 1 downwards, until F has decreased by a part of what was ``promised`` (M,).

    For F with a part that is not smooth: Tseng & Yun (2009), "A coordinate gradient descent method for nonsmooth
    separable minimization", eq. 9. Returns what `backtrack` does.
    """
    step = torch.ones_like(promised)  # (M,)
    for _ in range(MAX_TRIALS):
        trial_theta = theta + per_model(step, theta) * direction
        trial = evaluate(trial_theta)
        goal = point.value - SUFFICIENT_DECREASE * step * promised + ROUNDING * point.value.abs()
        accepted = trial.value <= goal  # (M,)
        if accepted.all():
            break
        step = torch.where(accepted, step, 0.5 * step)
    moved = per_model(accepted, theta).bool()
    value = torch.where(accepted, trial.value, point.value)  # (M,)
    gradient = torch.where(moved, trial.gradient, point.gradient)  # (M, ...)
    return torch.where(moved, trial_theta, theta), type(point)(value, gradient), ~accepted | (promised <= 0)


def _is_sufficient(value: Tensor, slope: Tensor, step: Tensor, trial_value: Tensor, trial_slope: Tensor) -> Tensor:
    armijo = trial_value <= value + SUFFICIENT_DECREASE * step * slope
    unseen = trial_value <= value + ROUNDING * value.abs()
    flatter = trial_slope.abs() <= (1 - 2 * SUFFICIENT_DECREASE) * slope.abs()
    return armijo | (unseen & flatter)  # (M,)


def _shorter(slope: Tensor, step: Tensor, trial_slope: Tensor, by_secant: bool) -> Tensor:
    # A trial that overflowed says nothing but that it was far too long.
    secant = torch.where(trial_slope.isfinite() & by_secant, step * slope / (slope - trial_slope), 0.0)
    return secant.clamp(0.1 * step, 0.5 * step)  # (M,)
