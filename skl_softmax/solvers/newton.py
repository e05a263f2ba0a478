"""Newton's method."""

from math import inf

import torch
from torch import Tensor

from skl_softmax.solvers.base import Objective, SolveResult, SolverOptions, inner
from skl_softmax.solvers.gaps import Step, certify_if_near, trusted_gap
from skl_softmax.solvers.newton_steps import missed, newton_by_products, newton_step, takes_products
from skl_softmax.solvers.run import Run

# Convergence is faster than linear if a decrement is its predecessor times at most this power of the last such factor.
SUPERLINEAR = 1.5


def newton(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """Newton's method with a line search, Nocedal & Wright (2006), section 3.3 and algorithm 7.1.

    The step d = -H⁻¹ g comes from the Cholesky factor of the Hessian where it is small enough to form,
    else from preconditioned conjugate gradients. The Newton decrement ½ gᵀ H⁻¹ g estimates F - F*, whatever the units
    of the parameters, and stops the iteration (Boyd & Vandenberghe 2004, section 9.5). After a step that gained what
    the decrement had promised, no more is left than the difference and the error of the decrement itself; and, in case
    the promise was kept by chance, than the next decrement will be, by how the last ones shrank: where classes of
    little weight are told apart ever better, each is a third of the one before. In a run that is long only decrements
    count, and the gains carried on. All this only where curvature describes the step (`trusted_gap`). Where the
    penalty is all that curves F, a bound by duality ends the run before a step is solved for (`certify_if_near`).
    """
    run = Run(objective, start, options)
    _descend(run)
    return run.result()


def _descend(run: Run) -> None:
    left, known, theta = [inf] * len(run.models), [(inf, inf)] * len(run.models), run.theta
    knows_all = True  # of the last step, whether it came from the Hessian of all rows
    while run.active:
        going_on = run.extrapolated_gap()
        gap = list(map(max, left, going_on))
        if run.are_within_tol(gap):
            gap = trusted_gap(run, gap, Step(theta, run.theta - theta), knows_all)
        elif takes_products(run):
            gap = certify_if_near(run)
        if run.are_within_tol(gap):
            run.settle(gap)
            break
        del theta  # as large as each of the vectors that the next step takes
        before = run.point.value.tolist()
        knows_all = not takes_products(run)
        direction, slope, gap, unexplained, is_chord = newton_step(run)
        decrements, is_long = [-0.5 * s for s in slope], run.is_long
        gap = list(map(max, gap, going_on))
        stay = run.settle(trusted_gap(run, gap, Step(run.theta, direction), knows_all))
        if not run.active:
            break
        if stay is not None:
            direction = direction[stay]
            kept = stay.tolist()
            before, slope, decrements, known = ([x[i] for i in kept] for x in (before, slope, decrements, known))
        theta = run.theta
        run.step(direction, slope, lengthens=True)
        del direction
        after = run.point.value.tolist()
        left = [
            inf if is_long else max(missed(d, b - a, unexplained, is_chord), _next_decrement(d, *last_two, abs(a)))
            for d, b, a, last_two in zip(decrements, before, after, known, strict=True)
        ]
        known = [(decrement, last) for decrement, (last, _) in zip(decrements, known, strict=True)]


def newton_one_by_one(run: Run) -> SolveResult:
    """The same from where a run is, for one model after the other.

    Products for a step of all of them would go on until the last one's is solved for.
    """
    before = run.n_passes
    for place in range(len(run.models)):
        one = run.alone(place)
        _descend(one)
        run.count(one.n_passes - before, 1)
    return run.result()


def _next_decrement(decrement: float, last: float, earlier: float, value: float) -> float:
    """What follows a decrement if they go on shrinking as they did; of the first, its square relative to F."""
    if last in (0.0, inf):
        return decrement * decrement / value if value else inf
    rate = decrement / last
    return decrement * (rate**2 if rate <= (last / earlier) ** SUPERLINEAR else rate)


def optimality(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """F (M,) at a point and an estimate (M,) of F - F* by a Newton decrement, for solvers that make none.

    The Hessian is that of a sample of rows, where that is the model of the curvature, else products with that of all
    rows solve for the step. What the penalty has of a number added to all classes, of which metrics take no notice, is
    known exactly.
    """
    centred = objective.centred(theta)
    shift = theta - centred
    excess = 0.5 * inner(objective.penalty_gradient(shift), shift)  # (M,)
    run = Run(objective, centred, SolverOptions(tol=0.0, max_iter=0))
    metric = run.make_metric()
    if metric.follows:
        decrement = 0.5 * inner(run.point.gradient, metric.solve(run.point.gradient))
    else:
        decrement = torch.tensor(newton_by_products(run).gap, dtype=torch.float64)
    value = run.point.value + excess
    return value, torch.minimum(decrement + excess, value)  # no minimum is below zero
