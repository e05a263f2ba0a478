"""Newton's steps of a run: by the Hessian, by that of the last step, or by products."""

from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from skl_softmax.solvers.base import Inverse, Metric, Objective, numbers
from skl_softmax.solvers.conjugate_gradients import DECREMENT_ACCURACY, DELAY, MAX_ITER, Care, conjugate_gradients
from skl_softmax.solvers.run import Run

# Above this many parameters the Hessian (here 32 MB) is no longer formed and Newton's step comes from conjugate
# gradients.
DIRECT_LIMIT = 2000
# What a chord leaves at most, in units of what the last step's rate says. Where H is (1 + e) times the last one, that
# step, which met half of the change, left e²/4 of the gap, and the chord leaves e².
CHORD = 10.0
# The largest such rate for which the last Hessian tells gaps, where e = 1/2. Beyond it two chords, at rates of a tenth,
# told a hundredth of what was left.
CHORD_RATE = 1 / 16
# Decrements of up to this multiple of the gap that ends a run are looked at with more care. Over 160 tables that takes
# 1.00 to 1.04 of the passes, and the largest ratio of true to told at tol=1e-4 fell from 9 to 2.
NEAR_ENDS = 10.0
# Near the minimum those of this part of the last one as well: a system that is solved to a tenth leaves a tenth.
SLOW = 0.3
# Steps of conjugate gradients that have to add little where they check a gap that was told without correlations, and go
# without themselves, and no bound is known: after three, as else, or six, and without that care, some were still told
# eight times too small.
CHECK_DELAY = 8
# How many products a check may take in a run that affords one, as a part of its passes. One of wide images with C=100
# took 232 after 460 passes.
CHECK_PART = 0.25
# Relative gap from which on conjugate gradients keep their metric. Over five sparse problems with C of 0.01, 1 and 100
# that saves a quarter of the metrics, at up to 3 % more passes, once 11; from 0.01 on passes are up to a third more.
KEPT = 1e-3


class NewtonStep(NamedTuple):
    """Newton's directions, slopes along them, the gaps they tell, the part of their decrements that may be missing."""

    direction: Tensor  # (M, ...)
    slope: list[float]  # minus twice the decrements
    gap: list[float]
    unexplained: float
    is_chord: bool = False  # whether the Hessian is that of the last step


def takes_products(run: Run) -> bool:
    """Whether the Hessian is too large to form, or costs more than products are likely to."""
    return run.objective.n_parameters > DIRECT_LIMIT or run.objective.products_pay(run.n_passes)


def newton_step(run: Run) -> NewtonStep:
    """Newton's, by the Cholesky factor of the Hessian where it is small enough to form, or by products with it.

    The last step's Hessian will do where a step by it, a chord, is to end the run: its gap is the last one times a
    multiple of what the last step, if that had length 1, made of that.
    """
    if takes_products(run):
        return newton_by_products(run)
    last_two = zip(run.slope_before, run.slope, strict=True)
    expected = [last * (last / before) * (last / before) if before else -inf for before, last in last_two]
    if run.inverse is not None and _ends_by_chord(run, expected):
        chord = newton_by(run, run.inverse)
        if _ends_by_chord(run, chord.slope) and chord.unexplained < inf:
            return chord._replace(is_chord=True, unexplained=CHORD * max(_rates(run, chord.slope)))
    return newton_by(run, run.make_inverse())


def _ends_by_chord(run: Run, slope: list[float]) -> bool:
    """Whether chords with these slopes are to end the run."""
    rates = _rates(run, slope)
    if not run.was_full or max(rates) > CHORD_RATE:
        return False
    return run.are_within_tol([-0.5 * CHORD * now * rate for now, rate in zip(slope, rates, strict=True)])


def _rates(run: Run, slope: list[float]) -> list[float]:
    """These slopes over those along the last directions."""
    return [now / last if last else inf for now, last in zip(slope, run.slope, strict=True)]


def newton_by(run: Run, inverse: Inverse) -> NewtonStep:
    """Newton's, by the inverse Hessian at the point, and by products besides where that is singular to rounding.

    There, as with collinear columns, the ridge that makes it definite keeps steps short along what only the penalty
    resolves, and hides what is to be gained. The product with the rows and then with their transpose knows those
    directions to eps², the matrix to eps. Without a penalty what is to be gained there may be rounding: then products
    are made where the gap would end the run, and tell it if it is more than rounding can be; no step tells what it has
    left.
    """
    direction = -run.objective.among_present(inverse(run.point.gradient))
    slope = numbers(run.point.gradient, direction)
    step = NewtonStep(direction, slope, [-0.5 * s for s in slope], unexplained=0.0)
    if not inverse.has_ridge:
        return step
    is_held = run.objective.holds_collinear
    if not (is_held or run.is_any_within_tol(step.gap)):
        return step._replace(unexplained=inf)
    better = _by_conjugate_gradients(run, run.objective, inverse, Care())
    gains = all(a <= b for a, b in zip(better.slope, step.slope, strict=True))  # else rounding is all there is
    return better if gains and (is_held or _exceeds_rounding(run, better)) else step


def _exceeds_rounding(run: Run, step: NewtonStep) -> bool:
    """Whether all slopes are steeper than rounding makes them."""
    by_rounding = run.objective.slope_rounding(step.direction).tolist()
    return all(-slope > rounding for slope, rounding in zip(step.slope, by_rounding, strict=True))


def newton_by_products(run: Run, is_check: bool = False) -> NewtonStep:
    """Newton's, without the Hessian; as a check of a gap, with a longer look."""
    narrow = run.objective.narrow()  # a direction need not be exact, so float32 will do for it
    is_near = is_check or run.is_close(KEPT)
    if run.preconditioner is None or _is_due_anew(run, run.preconditioner, is_near):
        run.precondition_by(narrow.metric(run.theta, is_near=is_near))
        run.options.say(f"conjugate gradients in {narrow.dtype}, preconditioned by a {run.preconditioner.kind} metric")
    precondition, care = run.preconditioner.solve, Care()
    # At zero nothing ends yet that needs a bound, and with C=0.01 sparse text takes 7 passes for 8 without.
    if run.preconditioner.kind == "diagonal" and run.theta.any():
        precondition, least = narrow.bounded(precondition)
        care = care._replace(least=least)
    if is_check:
        delay = CHECK_DELAY if run.preconditioner.kind == "diagonal" else DELAY
        max_iter = int(CHECK_PART * run.n_passes) if run.affords_check else MAX_ITER
        care = care._replace(delay=delay, max_iter=max_iter)
    elif run.is_close(KEPT):
        last = [-0.5 * slope or inf for slope in run.slope]
        care = care._replace(high=SLOW * torch.tensor(last, dtype=torch.float64, device=run.theta.device))
    return _by_conjugate_gradients(run, narrow, precondition, care)


def _is_due_anew(run: Run, metric: Metric, is_near: bool) -> bool:
    """Whether conjugate gradients need another metric: near the minimum one that is better there, if there is any.

    Elsewhere one that has earned its price. Where classes are of single rows one that knows no class from another takes
    up to 15 times the products, and tells gaps down to a thousandth.
    """
    if is_near and metric.near_price is not None:
        return True
    return not run.is_close(KEPT) and run.passes_of_model >= metric.price


def _by_conjugate_gradients(run: Run, objective: Objective, precondition: Inverse, care: Care) -> NewtonStep:
    gradient, multiply = run.point.gradient, objective.hessian_product(run.theta)

    def product(direction: Tensor) -> Tensor:
        run.n_passes += 1
        return multiply(direction)

    def solve(residual: Tensor) -> Tensor:
        # What rounding leaves along 1 ⊗ v has no curvature.
        return objective.feasible(precondition(objective.balanced(residual)))

    value = run.point.value
    ends = torch.tensor(list(map(run.options.last_gap, value.tolist())), dtype=value.dtype, device=value.device)  # (M,)
    care = care._replace(low=NEAR_ENDS * ends, enough=ends)
    direction, decrement, missing = conjugate_gradients(product, solve, gradient.to(objective.dtype), care)
    direction = direction.to(gradient.dtype)  # (M, ...)
    is_known = missing <= DECREMENT_ACCURACY * decrement  # (M,)
    gap = torch.where(is_known, decrement, torch.maximum(decrement + missing, ends))  # (M,)
    unexplained = max(DECREMENT_ACCURACY, torch.where(is_known, 0.0, missing / decrement).amax().item())
    return NewtonStep(direction, numbers(gradient, direction), gap.tolist(), unexplained)


def missed(decrement: float, gain: float, unexplained: float, is_chord: bool = False) -> float:
    """What a step has left of a gap for which the decrement stood.

    A Hessian (1 + e) H leaves e² of the gap, and the step gains 1 - e of the decrement; with an e for each direction
    that may add up by chance, and what the last step's rate says is left as well.
    """
    off = abs(decrement - gain)
    if is_chord and decrement:
        return max(unexplained * decrement, CHORD * off * (off / decrement))
    return unexplained * decrement + off


def left_of(run: Run, before: list[float], slope: list[float], unexplained: float) -> list[float]:
    """What a step with these slopes, from these values of F, has left of the gaps for which its decrements stood."""
    values = run.point.value.tolist()
    return [missed(-0.5 * s, b - a, unexplained) for s, b, a in zip(slope, before, values, strict=True)]
