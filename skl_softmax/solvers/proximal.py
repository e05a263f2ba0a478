"""Proximal Newton: the minimum of a smooth function plus an L1 penalty."""

from dataclasses import dataclass
from math import inf, isnan

import torch
from torch import Tensor

from skl_softmax.solvers.base import PenalisedObjective, SolveResult, SolverOptions
from skl_softmax.solvers.gaps import certify
from skl_softmax.solvers.hessian_products import HessianProducts, ProductModels
from skl_softmax.solvers.line_search import VALUE_ROUNDING
from skl_softmax.solvers.orthants import minimise_on_orthants
from skl_softmax.solvers.run import Run
from skl_softmax.solvers.samples import through_samples
from skl_softmax.solvers.shifts import NO_SHIFTS, shifts_of

# Parts of the decrease of the quadratic that may be missed, near its being right and far from that.
CAREFUL, CARELESS = 1e-8, 0.1
# Parts of the largest possible curvature that are added to the model's: the first one, the least, and that beyond which
# no other will lead lower. Where rows are saturated each tenth goes ten times as far: with 1e-4 for the least, hostile
# problems took twice as many passes.
DAMPING, LEAST_DAMPING, MOST_DAMPING = 0.01, 1e-10, 1.0
# What the ridge is divided by where a promise is lost in rounding of F. Raised there, as if the model had failed, it
# ended 19 of 2,000 fits of heavy-tailed rows at the minimum, with gaps of up to 6e-4 that a step without it closes.
# Beyond some such promises it is raised, though: a fit went to and fro between steps that are too long and too short.
UNSEEN, MANY_UNSEEN = 1000.0, 4
# Part of F that there must be to gain for a model to be damped that leads nowhere.
WORTH_A_RIDGE = 1e-6
# The part of its promise that a step must gain for its model to be believed as it is, and that from which on it may be
# believed more; and steps on end by models of samples without the first after which samples are believed no more.
# Rare columns are not in a sample: of 120 fits of 3,000 one-hot rows, 14 ended without a step or after 1,000.
LITTLE_GAINED, MUCH_GAINED, MANY_POOR = 0.25, 0.75, 5
# Parameters at zero belong to the working set if their derivative is within this part of what would move them.
MARGIN = 0.1
# Times that a working set may grow by, and what it may always have.
GROWTH, SMALLEST = 2, 200


def proximal(objective: PenalisedObjective, start: Tensor, options: SolverOptions) -> SolveResult:
    """Proximal Newton, Lee, Sun & Saunders (2014), "Proximal Newton-type methods for minimizing composite functions".

    Each iteration minimises a quadratic model of the smooth part plus the L1 penalty (`orthants`) and searches along
    the way there. The model is, by price, the Hessian for a working set of the parameters; or that of a sample of rows
    for all of them, which the formula of BFGS improves from step to step and which is made anew when the passes
    since have cost as much, until samples are found to mislead; or, where the working set is too large for a matrix,
    products with the Hessian. A model that promised too much gets a ridge. A duality gap of at most tol |F| ends the
    fit.
    """
    return through_samples(_descend, objective, start, options)


def _descend(objective: PenalisedObjective, start: Tensor, options: SolverOptions) -> SolveResult:
    run = Run(objective, start, options)
    gap, hessians, trust = _certified(run, not start.any()), None, [_Trust() for _ in start]
    while run.active:
        stay = run.settle(gap)
        if not run.active:
            break
        if stay is not None:
            trust = [trust[i] for i in stay.tolist()]
        hessians = _renewed(run, hessians, stay, trust)
        theta, before = run.theta, run.point
        direction, promised = _direction(run, hessians, trust)
        run.step_by_value(direction, promised)
        if not hessians.exact:
            hessians.update(run.theta - theta, run.point.gradient - before.gradient)
        gained = before.value - run.point.value  # (M,)
        left = (promised - gained).abs()  # (M,), what the model did not know
        gap = _gap(run, promised, left)
        tells = promised > VALUE_ROUNDING * run.point.value.abs()  # (M,), what is promised beyond what F resolves
        ratio = torch.where(tells, gained / promised, torch.nan).tolist()  # of each model
        fails = _fails(run, hessians.exact, trust, promised, gap)
        run.try_again(fails, [not hessians.exact or one.damping < MOST_DAMPING for one in trust])
        for one, part, failed in zip(trust, ratio, fails, strict=True):
            one.learn(hessians.exact, part, failed)
    return run.result()


@dataclass
class _Trust:
    """How far the curvature of one of the models is believed, from what part of their promises steps have gained."""

    accuracy: float = CARELESS  # part of the decrease of the quadratic that may be missed
    damping: float = 0.0  # part of the largest possible curvature that is added to those of all rows
    in_samples: bool = True  # whether those of samples are believed at all
    n_unseen: int = 0  # promises of those of all rows that were lost in rounding
    n_poor: int = 0  # last steps on end by those of samples that have gained little

    def learn(self, is_exact: bool, ratio: float, failed: bool) -> None:
        """What a step tells: Nocedal & Wright (2006), algorithm 4.1, by the ridge instead of the radius, Marquardt's.

        Of samples all rows are the remedy, not a ridge, which the next Hessian of all rows would have for nothing.
        ``ratio`` is nan where the promise was beyond what F resolves.
        """
        is_unseen = isnan(ratio)
        self.accuracy = CAREFUL if is_unseen else min(CARELESS, max(CAREFUL, CARELESS * abs(1 - ratio)))
        if not is_exact:
            self.n_poor = self.n_poor + 1 if failed or ratio < LITTLE_GAINED else 0
            self.in_samples = not failed and self.n_poor < MANY_POOR
            return
        self.n_unseen += is_unseen
        if failed or ratio < LITTLE_GAINED:
            self.damping = min(max(4 * self.damping, DAMPING), MOST_DAMPING)
        elif is_unseen or ratio > MUCH_GAINED:
            self.damping /= UNSEEN if is_unseen else 10.0
            self.damping = self.damping if self.damping > LEAST_DAMPING else 0.0


def _fails(run: Run, is_exact: bool, trust: list[_Trust], promised: Tensor, gap: list[float]) -> list[bool]:
    """Which models get nowhere though there is much to gain: where rows are saturated, curvature vanishes.

    A promise that is lost in rounding is one as well, but for the first ones of Hessians of all rows. These are made
    near the minimum, where gradients, by which the gap is told, are brought down by steps that F does not show.
    """
    rows = zip(promised.tolist(), run.stuck, trust, gap, run.point.value.tolist(), strict=True)
    return [
        (stuck or (p <= VALUE_ROUNDING * abs(value) and not (is_exact and one.n_unseen < MANY_UNSEEN)))
        and g > WORTH_A_RIDGE * abs(value)
        for p, stuck, one, g, value in rows
    ]


def _gap(run: Run, promised: Tensor, left: Tensor) -> list[float]:
    """Bounds of F - F* by duality where they may end the run, else what the last step promised."""
    if run.options.tol == 0 and run.options.accuracy > 0:
        return left.tolist()  # on a sample of rows, for which nothing need be proved
    told = torch.minimum(left, promised).tolist()  # of each model
    is_last = run.iteration >= run.options.max_iter or any(run.stuck)
    return _certified(run, is_last) if is_last or run.is_any_within_tol(told) else promised.tolist()


def _certified(run: Run, is_last: bool) -> list[float]:
    """Bounds of F - F* by duality: proved if they may end the run, else to first order, which takes no pass."""
    gap = run.objective.first_order_gap(run.theta, run.point).tolist()
    return certify(run) if is_last or run.is_any_within_tol(gap) else gap


def _renewed(run: Run, hessians, stay: Tensor | None, trust: list[_Trust]):
    """The Hessians that are used at the run's point: new ones, or those of a sample while they are worth it."""
    is_sampled, in_samples = hessians is not None and not hessians.exact, all(one.in_samples for one in trust)
    if is_sampled and in_samples:
        if stay is not None:
            hessians.keep(stay.tolist())
        if run.passes_of_model < hessians.price:
            return hessians
    spent = run.passes_of_model if (is_sampled or hessians is None) and in_samples else inf
    working = _working_set(run)
    hessians = run.make_hessian_models(working, spent)
    hessians = hessians or ProductModels([HessianProducts(run, m, w) for m, w in enumerate(working)])
    if hessians.exact and any(one.damping > 0 for one in trust):
        bound = run.objective.diagonal_bound.expand_as(run.theta)  # (M, K, p)
        for model, one, largest in zip(hessians.of, trust, bound, strict=True):
            if one.damping > 0:
                model.damp(one.damping * largest.flatten())
    return hessians


def _working_set(run: Run) -> Tensor:
    """The parameters (M, K, p), bool, that are not zero or whose derivatives say that they should not be.

    Of those at zero at most as many as are not zero, the most urgent ones, so that the set grows to what it has to be
    and no further: Johnson & Guestrin (2015), "Blitz: a principled meta-algorithm for scaling sparse optimization".
    """
    l1 = run.objective.column_l1.expand_as(run.theta).flatten(1)  # (M, P)
    urgency = torch.where(l1 > 0, run.point.gradient.abs().flatten(1) / l1, inf)  # (M, P)
    urgency = torch.where(run.theta.flatten(1) != 0, inf, urgency)
    sizes = (GROWTH * urgency.isinf().sum(dim=1)).clamp_min(SMALLEST)  # (M,)
    ranks = (urgency.shape[1] - sizes).clamp_min(0).tolist()
    last = torch.stack([row.kthvalue(rank + 1).values for row, rank in zip(urgency, ranks, strict=True)])  # (M,)
    return (urgency >= last[:, None].clamp_min(1 - MARGIN)).view_as(run.theta)


def _direction(run: Run, hessians, trust: list[_Trust]) -> tuple[Tensor, Tensor]:
    """For each model where its quadratic is least, from its point, (M, ...), and how much that promises (M,)."""
    targets, promised = [], []
    l1 = run.objective.column_l1.expand_as(run.theta)
    for m in range(len(run.models)):
        one = hessians.of[m]
        gradient, weights, theta = (t[m].flatten()[one.index] for t in (run.point.gradient, l1, run.theta))
        # With matrices, whose ridges bound such steps, covertype took 15 to 69 passes for 13 to 30 by shifts.
        shifts = NO_SHIFTS
        if not one.solves_exactly:
            shifts = shifts_of(run.objective, m, one.index, run.theta[m], trust[m].damping)
        found, decrease = minimise_on_orthants(one, gradient, weights, theta, trust[m].accuracy, shifts)
        targets.append(run.theta[m].flatten().index_put((one.index,), found).view_as(run.theta[m]))
        promised.append(decrease)
    return torch.stack(targets) - run.theta, torch.tensor(promised, dtype=torch.float64)
