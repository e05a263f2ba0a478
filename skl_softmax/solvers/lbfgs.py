"""L-BFGS in a metric of subsampled curvature, on growing samples of rows."""

from math import inf

from torch import Tensor

from skl_softmax.solvers.base import Metric, Objective, SolveResult, SolverOptions, numbers
from skl_softmax.solvers.gaps import FAR_TOL, Step, is_doubtful, trusted_gap, with_promises
from skl_softmax.solvers.newton import newton_one_by_one
from skl_softmax.solvers.newton_steps import NewtonStep, left_of, newton_by, newton_by_products
from skl_softmax.solvers.precision import Precision
from skl_softmax.solvers.quasi_newton import QuasiNewton
from skl_softmax.solvers.run import Run
from skl_softmax.solvers.samples import through_samples

# Passes that a new Hessian of all rows may cost to check a gap with; else products by an older one check it.
CHECK = 3.0
# Iterations after which Newton's method goes on, which is not slowed down where curvature changes as rows are told
# apart. Of twelve tables of sparse bins and leaves with 20 classes four had not converged after 1,000; so all do after
# 140 to 333, in as much time.
PATIENCE = 300


def lbfgs(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """L-BFGS, Nocedal & Wright (2006), algorithms 7.4 and 7.5, with a metric of the objective's for H₀.

    - H₀ is an approximate inverse Hessian at a recent iterate (`skl_softmax.objective.metrics`), so that the iterates
      do not depend on the units of the parameters and few pairs do what is left. A Hessian is made anew as soon as the
      passes since it was made have cost as much as a new one will (which is at most twice the cost of knowing the best
      moment beforehand), in place of a rough metric after an eighth of that, if the fit is not expected to end sooner;
      from twice as many rows if steps were too long.
    - From zero, the way goes over samples of rows (`samples`), and in float32 where that is quicker: to the end where
      what that loses is next to nothing of the gap that ends a run (`Precision`).
    - ½ gᵀ H g estimates F - F*, H being the quasi-Newton matrix; so does what the last iterations gained, carried on as
      a geometric series. The larger one counts, with a small tol and in long runs only where curvature describes the
      step (`trusted_gap`), that along columns with numbers far out with any; and no less than the diagonal of the
      Hessian promises (`with_promises`). At the very end Newton's step tells it, where the metric is the Hessian of all
      rows at another point or knows no correlations, or passes were many (`is_doubtful`).
    - Newton's method goes on where that has not led to the minimum after `PATIENCE` iterations.

    Cost: one pass over the rows an iteration, a few for the metrics and the gap, two vectors a remembered step.
    """
    return through_samples(_descend, objective, start, options)


def _descend(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    run = Run(objective if options.skips_float32 else objective.narrow(), start, options)
    options.say(f"{objective.n_rows:,} rows, products in {run.objective.dtype}")
    precision = Precision(run, objective)
    matrix = QuasiNewton(run.first_metric())  # may put models apart, whose objective is another
    left = [inf] * objective.n_models  # of each gap by a check that knew correlations
    if options.skips_float32:
        run.go_by_changes()
    while run.active:
        if run.iteration >= PATIENCE:
            options.say("on by Newton's method")
            precision.end_here()
            return newton_one_by_one(run)
        direction, slope = _direction(run, matrix)
        gap = _told(run, [-0.5 * s for s in slope])
        if precision.is_lost():
            precision.widen_here(knows_gap=matrix.metric.follows or matrix.metric.is_local)
            matrix = QuasiNewton(run.make_metric())
            continue
        if precision.is_at_end(gap, matrix.metric):
            precision.widen_here()
            continue
        gap = with_promises(run, matrix.metric, gap)
        known, tells_left = run.which_within_tol(left), _is_inexact_with_correlations(matrix.metric)
        check = _check(run, matrix, [inf if k else g for k, g in zip(known, gap, strict=True)])
        if check is not None:
            direction, slope = check.direction, check.slope
            gap = _told(run, check.gap)
        gap = [a if k else g for k, a, g in zip(known, left, gap, strict=True)]
        looks = run.is_long or 0 < options.tol <= FAR_TOL
        stay = run.settle(trusted_gap(run, gap, Step(run.theta, direction) if looks else None))
        if not run.active:
            break
        if stay is not None:
            matrix.keep(stay)
            direction, slope = direction[stay], [slope[i] for i in stay.tolist()]
        elif check is None and _renew(run, matrix):
            direction, slope = _direction(run, matrix)
        precision.widen_ahead(matrix.metric)
        before, theta, gradient = run.point.value.tolist(), run.theta, run.point.gradient
        run.step(direction, slope)
        matrix.add(run.theta - theta, run.point.gradient - gradient)
        is_told = check is not None and tells_left
        left = left_of(run, before, slope, check.unexplained) if is_told else [inf] * len(slope)
    return run.result()


def _direction(run: Run, matrix: QuasiNewton) -> tuple[Tensor, list[float]]:
    """The quasi-Newton directions -H g (M, ...) and the slopes along them.

    Parameters go on summing to zero over the classes. What rounding adds to all of them alike only the penalty curves,
    and metrics make as much more of it as that is less: where rows are told apart it was all of F, and no gap told it.
    """
    gradient = run.point.gradient
    direction = -run.objective.feasible(matrix.product(gradient))
    return direction, numbers(gradient, direction)


def _told(run: Run, gap: list[float]) -> list[float]:
    """Of each model this gap, or what its last gains lead on to if that is more."""
    return list(map(max, gap, run.extrapolated_gap()))


def _check(run: Run, matrix: QuasiNewton, gap: list[float]) -> NewtonStep | None:
    """Newton's step, with its decrement, where gaps that would end the run are doubtful. The last steps are forgotten.

    By a new Hessian of all rows if the metric is an older one and a new one costs little, else by products: also where,
    for the models that are left, it would now be of a sample.
    """
    if not is_doubtful(run, matrix.metric, gap):
        return None
    matrix.forget()
    if _is_inexact_with_correlations(matrix.metric):
        run.forget_gains()
    if matrix.metric.exact and matrix.metric.price <= CHECK:
        matrix.renew(run.make_metric())
        if matrix.metric.exact:
            return newton_by(run, matrix.metric.solve)
    if run.preconditioner is None and matrix.metric.follows:
        run.precondition_by(matrix.metric)
    return newton_by_products(run, is_check=True)


def _is_inexact_with_correlations(metric: Metric) -> bool:
    """Whether a metric is one by which few products check a gap, and tell what is left of it."""
    return not metric.exact and metric.kind != "diagonal"


def _renew(run: Run, matrix: QuasiNewton) -> bool:
    """Make another metric if that pays, and say whether it did."""
    goes_apart = run.pays_apart(matrix.metric)
    if not goes_apart and not run.metric_is_due(matrix.metric):
        return False
    to_come = inf if matrix.metric.follows else run.passes_to_come()
    matrix.renew(run.make_metric_apart() if goes_apart else run.make_metric(to_come))
    return True
