"""Newton's method."""

from math import inf

import torch
from torch import Tensor

from skl_softmax.solvers.base import Objective, SolveResult, SolverOptions, inner
from skl_softmax.solvers.run import WINDOW, Run

# Above this many parameters the Hessian (here 32 MB) is no longer formed and the step comes from
# conjugate gradients.
DIRECT_LIMIT = 2000
# The part of a decrement that conjugate gradients may have missed (`conjugate_gradients.DECREMENT_ACCURACY`).
UNEXPLAINED = 0.1


def newton(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """Newton's method with a line search, Nocedal & Wright (2006), section 3.3 and algorithm 7.1.

    The step d = -H⁻¹ g comes from the Cholesky factor of the Hessian where it is small enough to form,
    else from preconditioned conjugate gradients. The Newton decrement ½ gᵀ H⁻¹ g estimates F - F*, whatever the units
    of the parameters, and stops the iteration (Boyd & Vandenberghe 2004, section 9.5). After a step that gained what
    the decrement had promised, no more is left than the difference and the error of the decrement itself; nor, in case
    the promise was kept by chance, than the square of the decrement relative to F. Where the
    Hessian is singular to rounding or rows weigh next to nothing, gains that go on for long say more than the
    decrement, and count besides.
    """
    run = Run(objective, start, options)
    left = [inf] * objective.n_models
    unexplained = UNEXPLAINED if objective.n_parameters > DIRECT_LIMIT else 0.0
    while run.active:
        values, going_on = run.point.value.tolist(), run.extrapolated_gap(1, WINDOW)  # (M,)
        if all(map(run.is_near, values, left)) and all(map(run.is_near, values, going_on.tolist())):
            run.settle(torch.maximum(torch.tensor(left, dtype=torch.float64), going_on))
            break
        direction, slope = newton_step(run)
        keep = run.settle(torch.maximum(-0.5 * slope, going_on))
        if run.active:
            before, slope = run.point.value.tolist(), slope[keep]
            run.descend(direction[keep], slope)
            after = run.point.value.tolist()
            decrements = (-0.5 * slope).tolist()
            left = [
                max(unexplained * d + abs(d - (b - a)), d * d / abs(a) if a else inf)
                for d, b, a in zip(decrements, before, after, strict=True)
            ]
    return run.result()


def newton_step(run: Run) -> tuple[Tensor, Tensor]:
    """The Newton direction (M, ...) at the run's point and the slope (M,) along it, minus twice the decrement."""
    if run.objective.n_parameters > DIRECT_LIMIT:
        return run.newton_by_products(torch.arange(len(run.models)))
    direction = -run.objective.inverse_hessian(run.theta)(run.point.gradient)
    return direction, inner(run.point.gradient, direction)


def optimality(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """F (M,) at a point and an estimate (M,) of F - F* by a Newton decrement, for solvers that make none.

    The Hessian is that of a sample of rows, where that is the model of the curvature, else products with that of all
    rows solve for the step.
    """
    run = Run(objective, theta, SolverOptions(tol=0.0, max_iter=0))
    metric = run.make_metric()
    if metric.follows:
        return run.point.value, 0.5 * inner(run.point.gradient, metric.solve(run.point.gradient))
    return run.point.value, -0.5 * run.newton_by_products(run.models)[1]
