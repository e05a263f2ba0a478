"""L-BFGS in a metric of subsampled curvature, on growing samples of rows."""

from collections import deque
from math import inf

import torch
from torch import Tensor

from skl_softmax.solvers.base import Metric, Objective, SolveResult, SolverOptions, inner, numbers, per_model
from skl_softmax.solvers.gaps import float32_will_do, is_doubtful, trusted_gap
from skl_softmax.solvers.newton_steps import left_of, newton_by, newton_by_products
from skl_softmax.solvers.run import Run
from skl_softmax.solvers.samples import through_samples

MEMORY = 12
# A pair with less curvature than this part of ‖s‖‖y‖ is rounding and is left out.
MIN_CURVATURE = 1e-14
# The least multiple of a rough metric. Without it a column that is constant in a sample, which asked for a step of
# 1e12, made all later ones, and the gap told, as much too small: digits with C=inf "converged" where it began.
MIN_SCALE = 0.01
# Relative gap at which a fit leaves float32 for float64, unless that will do to the end. Its rounding moves F by some
# 1e-8 of itself; of 1e-4, 1e-5 and 1e-6 the last was as fast as any on four large tables.
NARROW_ACCURACY = 1e-6


def lbfgs(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """L-BFGS, Nocedal & Wright (2006), algorithms 7.4 and 7.5, with a metric of the objective's for H₀.

    - H₀ is an approximate inverse Hessian at a recent iterate (`skl_softmax.metrics`), so that the iterates
      do not depend on the units of the parameters and few pairs do what is left. It is made anew as soon as the passes
      since it was made have cost as much as a new one will (which is at most twice the cost of knowing the
      best moment beforehand), if the fit is not expected to end sooner; from twice as many rows if steps were too long.
    - From zero, the way goes over samples of rows (`samples`), and in float32 where that is quicker: to the end where
      what that loses is next to nothing of the gap that ends a run (`float32_will_do`).
    - ½ gᵀ H g estimates F - F*, H being the quasi-Newton matrix; so does what the last iterations gained, carried on as
      a geometric series. The larger one counts, in a long run only where curvature describes the step
      (`trusted_gap`). At the very end Newton's step tells it, where the Hessian of all rows costs little, the
      metric knows no correlations, or the diagonal of the Hessian promises more (`is_doubtful`).

    Cost: one pass over the rows an iteration, a few in all for the metrics and the gap, 2 MEMORY vectors.
    """
    return through_samples(_descend, objective, start, options)


def _descend(objective: Objective, start: Tensor, options: SolverOptions) -> SolveResult:
    run = Run(objective if options.is_near else objective.narrow(), start, options)
    options.say(f"{objective.n_rows:,} rows, products in {run.objective.dtype}")
    memory, metric = Memory(), run.first_metric()
    is_narrow, will_do = run.objective is not objective, False
    left = [inf] * objective.n_models  # of each gap by a check that knew correlations
    if options.is_near:
        run.go_by_changes()
    while run.active:
        direction, slope = _direction(run, memory, metric)
        gap = _told(run, slope)
        lost = is_narrow and run.is_lost_in_rounding()
        is_at_end = is_narrow and not (lost or will_do) and _is_any_near(gap, run.point.value.tolist())
        if is_at_end and (will_do := float32_will_do(run, objective, metric)):
            run.go_by_changes()
        elif lost or is_at_end:
            run.widen_here(objective, knows_gap=metric.follows or metric.is_near or not lost)
            is_narrow = False
            if lost:
                memory, metric = Memory(), run.make_metric()
            continue
        before, known = run.point.value.tolist(), run.which_near(left)
        is_rough = is_doubtful(run, metric, [inf if k else g for k, g in zip(known, gap, strict=True)])
        is_checked = is_rough and not metric.exact and metric.kind != "diagonal"
        if is_checked:
            run.forget_gains()
        if is_rough:
            metric, memory = run.make_metric() if metric.exact else metric, Memory()
            step = newton_by(run, metric.solve) if metric.exact else newton_by_products(run, is_check=True)
            direction, slope = step.direction, step.slope
            gap = _told(run, slope)
        gap = [a if k else g for k, a, g in zip(known, left, gap, strict=True)]
        stay = run.settle(trusted_gap(run, gap, direction) if run.is_long else gap)
        if not run.active:
            break
        if stay is not None:
            memory.keep(stay)
            direction, slope, before = direction[stay], *([x[i] for i in stay.tolist()] for x in (slope, before))
            metric = metric.select(stay)
        elif not is_rough and ((goes_apart := run.pays_apart(metric)) or run.metric_is_due(metric)):
            metric = run.make_metric_apart() if goes_apart else run.make_metric()
            if metric.exact:
                memory = Memory()
            direction, slope = _direction(run, memory, metric)
        is_next = is_narrow and not will_do and metric.follows and run.is_next_near(NARROW_ACCURACY)
        if is_next and not float32_will_do(run, objective, metric):  # to leave float32 there takes a pass
            run.widen(objective)
            is_narrow = False
        theta, gradient = run.theta, run.point.gradient
        run.descend(direction, slope)
        memory.add(run.theta - theta, run.point.gradient - gradient)
        left = left_of(run, before, slope, step.unexplained) if is_checked else [inf] * len(slope)
    return run.result()


def _direction(run: Run, memory: "Memory", metric: Metric) -> tuple[Tensor, list[float]]:
    """The quasi-Newton directions -H g (M, ...) and the slopes along them.

    Parameters go on summing to zero over the classes. What rounding adds to all of them alike only the penalty curves,
    and metrics make as much more of it as that is less: where rows are told apart it was all of F, and no gap told it.
    """
    gradient = run.point.gradient
    direction = -run.objective.centred(memory.product(gradient, metric))
    return direction, numbers(gradient, direction)


def _told(run: Run, slope: list[float]) -> list[float]:
    """Of each model the decrement, or what its last gains lead on to if that is more."""
    return [max(-0.5 * s, left) for s, left in zip(slope, run.extrapolated_gap(), strict=True)]


def _is_any_near(gap: list[float], values: list[float]) -> bool:
    return any(g <= NARROW_ACCURACY * abs(value) for g, value in zip(gap, values, strict=True))


class Memory:
    """The last steps s and changes of the gradient y of a stack of models."""

    def __init__(self, size: int = MEMORY):
        self._pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=size)  # s, y, 1 / sᵀy

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember s and y of each model; a model without curvature gets a pair that does nothing."""
        step, change = step.flatten(1), change.flatten(1)  # (M, P)
        curvature = inner(step, change)  # (M,)
        enough = curvature > MIN_CURVATURE * step.norm(dim=1) * change.norm(dim=1)
        self._pairs.append((step, change, torch.where(enough, 1 / curvature, 0.0)[:, None]))

    def keep(self, models: Tensor) -> None:
        """Forget all but these models."""
        self._pairs = deque(((s[models], y[models], rho[models]) for s, y, rho in self._pairs), self._pairs.maxlen)

    def product(self, gradient: Tensor, metric: Metric) -> Tensor:
        """H g by the two-loop recursion, Nocedal & Wright (2006), algorithm 7.4, with the metric for H₀."""
        q, alphas = gradient.flatten(1), []  # (M, P)
        for s, y, rho in reversed(self._pairs):
            alpha = inner(s, q)[:, None] * rho  # (M, 1)
            alphas.append(alpha)
            q = torch.addcmul(q, alpha, y, value=-1)
        r = self._scaled(q.view_as(gradient), metric).flatten(1)
        for (s, y, rho), alpha in zip(self._pairs, reversed(alphas), strict=True):
            r.addcmul_(alpha - inner(y, r)[:, None] * rho, s)
        return r.view_as(gradient)

    def _scaled(self, q: Tensor, metric: Metric) -> Tensor:
        """H₀ q (M, ...), of a rough metric the multiple that fits the last pair, Nocedal & Wright (2006), eq. 7.20.

        Not one below `MIN_SCALE`: the pair is then along what the metric knows nothing of, and tells nothing else.
        """
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
