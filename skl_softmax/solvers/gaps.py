"""Whether the gaps that a metric tells are to be believed, and bounds of them that need no belief."""

from math import inf, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from skl_softmax.solvers.base import Certificate, Metric, SolverOptions, numbers
from skl_softmax.solvers.newton_steps import newton_by, newton_by_products, takes_products
from skl_softmax.solvers.record import GAP_ROUNDING
from skl_softmax.solvers.run import Run

# The largest tol with which short runs of L-BFGS look how far the next step moves rows, for half a pass, and gaps are
# no smaller than the diagonal of the Hessian promises. With 1e-3 sound steps move rows as far, and 300,000 x 100 took
# 7.6 passes for 2.6. Of a sample (tol=0) nothing is claimed.
FAR_TOL = 1e-4
# How many times as much as a gap the diagonal has to promise for the gap not to be believed, where tol is larger and
# the metric not one that holds near the minimum only. Over 160 tables that ends lies of 4 to 1,000 times, but for a few
# at tol=1e-2. If the promise was the gap, as else, 96 tables would take 0.6 of the passes at 1e-2 and 0.8 at 1e-3, but
# one ended at 21 times tol.
MISSED = 2.0
# Passes after which a Hessian of a sample is no longer taken to tell gaps. One that was older told a twentieth.
OLD = 10
# How far a step may move two logits of a row apart for curvature to tell what is left, and no less than this multiple
# of √(2 gap), which is about how far rows move. With 1, and in short runs of L-BFGS without a look, 73 of 648 fits of
# tables in which some values are 1e3 to 1e6 times as large as others ended at 5 to 3,000 times their tolerance: such
# rows hold a direction while they saturate, by a step of 1 or, with an older Hessian, 0.4 each. Now none does. With 50
# times the root, Newton's method ended 7 of 40 tables with codes of up to 1e9 at more than 10 times a tol of 1e-4.
LEAVES, OF_ROWS = 0.25, 20.0
# How often rows that move far are left out before none of the others does.
TRIES = 3


class Step(NamedTuple):
    """Where a step begins, and its direction, both (M, ...)."""

    start: Tensor
    direction: Tensor


def trusted_gap(run: Run, gap: list[float], step: Step | None, knows_all: bool = False) -> list[float]:
    """Gaps told by curvature where a model may end, or larger ones where a step leaves what that describes.

    Along a direction that moves no two logits of a row apart by more than S, curvature becomes e^S times as small
    in a step at most, so that for small S about the decrement is to be gained along it, and else any amount may be
    (Bach 2010, "Self-concordant analysis for logistic regression", proposition 1), but what F is, or what far rows and
    the others can gain (`_gap_apart`). That is asked of a step that was taken or is to be, if there is one. Unless it
    ``knows_all`` there is to know, as one by the Hessian of all rows does, it is asked as well of the step along
    columns in which one row is far out (`outlying_step`).
    """
    ends = run.is_long and run.iteration >= run.options.max_iter
    may_end = [ends or near for near in map(run.is_within_tol, run.point.value.tolist(), gap)]
    if not any(may_end):
        return gap
    steps, farthest = [] if step is None else [step], list(map(_farthest, gap))
    if not knows_all:
        steps += _outlying_steps(run)
    found = [_leaves(run, may_end, each, farthest) for each in steps]
    leaves = list(map(any, zip(*found, strict=True)))
    if not any(leaves):
        return gap
    bounds = torch.minimum(run.objective.first_order_gap(run.theta, run.point), run.point.value).tolist()
    for i in range(len(gap)):
        value, before = run.point.value[i].item(), run.n_passes
        if leaves[i] and not run.is_within_tol(value, bounds[i]) and before >= run.tries_from:
            bounds[i] = min(bounds[i], _gap_apart(run, i, steps, farthest[i]))
            if not run.is_within_tol(value, bounds[i]):  # not again before as many have led on
                run.tries_from = 2 * run.n_passes - before
    return [max(g, bound) if left else g for g, bound, left in zip(gap, bounds, leaves, strict=True)]


def _outlying_steps(run: Run) -> list[Step]:
    """The step from the point along columns that one row holds, if any; none of a sample, whose gap is not told."""
    direction = run.objective.outlying_step(run.theta, run.point.gradient) if run.options.tol > 0 else None
    if direction is None:
        return []
    run.n_passes += 1
    return [Step(run.theta, direction)]


def _leaves(run: Run, may_end: list[bool], step: Step, farthest: list[float]) -> list[bool]:
    """Which of the models that may end a step moves a row farther than is to be believed."""
    at_most = run.objective.change_at_most(step.direction).tolist()
    if not any(may and change >= far for may, change, far in zip(may_end, at_most, farthest, strict=True)):
        return [False] * len(may_end)
    run.n_passes += 0.5  # without a gradient
    far = run.objective.moves_apart(*step, torch.tensor(farthest, dtype=torch.float64)).tolist()
    return [may and is_far for may, is_far in zip(may_end, far, strict=True)]


def _gap_apart(run: Run, model: int, steps: list[Step], farthest: float) -> float:
    """What rows that steps move far can gain, their loss, and by Newton's decrement the others without them.

    F* is no less than the minimum over the others by themselves. Far rows hold a direction while they saturate: with
    one value of 1e7 in a column and C=inf fits ended a sixth above the minimum, and told gaps of 1e-8.
    """
    objective, here = run.objective, run.theta
    if objective.n_models > 1:
        some = torch.tensor([model])
        objective, here = objective.select(some), here[some]
        steps = [Step(start[some], direction[some]) for start, direction in steps]
    for _ in range(TRIES):
        for step in steps:
            objective = objective.without_far(*step, torch.tensor([farthest], dtype=torch.float64))
            if objective is None:
                return inf
        others = Run(objective, here, SolverOptions(tol=run.options.tol, max_iter=0))
        if takes_products(others):
            found = newton_by_products(others, is_check=True)
        else:
            found = newton_by(others, objective.inverse_hessian(here, torch.float64))
        run.n_passes += others.n_passes
        gap = (run.point.value[model] - others.point.value).item() + found.gap[0]
        steps, farthest = [Step(here, found.direction)], _farthest(found.gap[0])
        if not objective.moves_apart(*steps[0], torch.tensor([farthest], dtype=torch.float64)).item():
            return gap
    return inf


def _farthest(gap: float) -> float:
    """How far curvature is to be believed where this gap is told, which may be rounding of either sign."""
    return min(1.0, max(LEAVES, OF_ROWS * sqrt(2 * max(gap, 0.0))))


def is_doubtful(run: Run, metric: Metric, gap: list[float]) -> bool:
    """Whether a gap that would end the run is not to be believed, or to be known better at little cost.

    Metrics that know no correlations told gaps up to 200 times too small, rough or old ones up to 1,000.
    """
    if not run.is_any_within_tol(gap):
        return False
    if metric.kind == "diagonal":
        return run.options.tol > 0
    if metric.exact:
        return run.passes_of_model > 0 or metric.solve.has_ridge
    if not _tells_roughly(run, metric):
        return False
    if run.affords_check:
        return True
    return not _goes_by_promises(run, metric) and any(
        promised > MISSED * one for promised, one in zip(_promised(run, gap), gap, strict=True)
    )


def with_promises(run: Run, metric: Metric, gap: list[float]) -> list[float]:
    """Gaps that are told roughly and would end the run, or what steps along single parameters promise if that is more.

    Over 96 tables of 1,200 parameters and more these end nearer to the minimum than by a check, in 0.95 of the passes.
    """
    if not (run.is_any_within_tol(gap) and _tells_roughly(run, metric) and _goes_by_promises(run, metric)):
        return gap
    return list(map(max, gap, _promised(run, gap)))


def _tells_roughly(run: Run, metric: Metric) -> bool:
    """Whether gaps are told by a metric that knows correlations, but not all, or that is of a sample and old.

    One kept from another penalty is not asked: sweeps of digits would take 1.2 to 1.6 times as long.
    """
    is_young = metric.follows and run.passes_of_model < OLD
    return not (metric.kind == "diagonal" or metric.exact or metric.is_kept or is_young)


def _goes_by_promises(run: Run, metric: Metric) -> bool:
    """Whether a gap is no less than what is promised, in place of a check where that is much more."""
    return not run.affords_check and (run.options.tol <= FAR_TOL or metric.is_local)


def _promised(run: Run, gap: list[float]) -> list[float]:
    """What steps along single parameters promise of models with gaps that would end the run, and else 0.

    Each of them cannot see the others, but its curvature is that of F: with ½ gᵀ D⁻¹ g, D the diagonal of the
    Hessian, a metric that has the curvature along g wrong is found out.
    """
    near = [i for i, ends in enumerate(run.which_within_tol(gap)) if ends]
    objective, theta, gradient = run.objective, run.theta, run.point.gradient  # (M, ...)
    if len(near) < len(gap):
        some = torch.tensor(near)
        objective, theta, gradient = objective.select(some), theta[some], gradient[some]
    found, promised = numbers(gradient, objective.inverse_diagonal(theta)(gradient)), [0.0] * len(gap)
    for i, one in zip(near, found, strict=True):
        promised[i] = 0.5 * one
    return promised


def certify(run: Run) -> list[float]:
    """Bounds of each model's F - F* by duality, at the point with the best intercept, where the run goes on."""
    return _certified(run, run.objective.certificate(run.theta))


def certify_if_near(run: Run) -> list[float]:
    """The same by the penalty's curvature, if that is to end the run; else infinity."""
    if run.is_close() and run.are_within_tol(run.objective.convex_gap(run.point).tolist()):
        return _certified(run, run.objective.convex_certificate(run.theta))
    return [inf] * len(run.models)


def _certified(run: Run, found: Certificate) -> list[float]:
    run.n_passes += 1
    excess = found.point.value - run.point.value  # (M,)
    if (excess > GAP_ROUNDING * run.point.value.abs()).any():  # intercepts without a minimum went astray
        # A bound below that is none.
        return torch.where(found.gap >= excess, found.gap - excess, excess).tolist()
    run.theta, run.point = found.theta, found.point
    return found.gap.tolist()
