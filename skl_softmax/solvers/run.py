"""The models of a stack that are still being solved."""

from copy import copy
from math import inf, isnan, log

import torch
from torch import Tensor

from skl_softmax.solvers.base import (
    Anchor,
    Evaluation,
    Inverse,
    Iterate,
    Kept,
    Metric,
    Objective,
    SolveResult,
    SolverOptions,
    Status,
)
from skl_softmax.solvers.line_search import backtrack, halve, lengthen
from skl_softmax.solvers.record import GAP_ROUNDING, LONG_STANDSTILL, WINDOW, Record

# Gains below this multiple of |F|, and this part of the slope, are noise of float32: gradients there lead nowhere.
NOISE_OF_VALUE, NOISE_OF_SLOPE = 1e-6, 0.1
# Evaluations for each step from which on a metric of a sample is taken to be poor: along what its rows do not show,
# as a rare column without a penalty, it asks for steps of any length. Raw covertype (10,000 rows) with C=inf had not
# converged after 1,000 iterations, and takes 69 with samples that grow.
POOR = 1.5
# tol down to which float32 leads: by changes of F, whose rounding is 1e-7 of what the last steps gain, and by Hessians.
NARROW_TOL = 1e-10
# Relative gap from which on a metric may be made that holds near the minimum only, and the number of passes, as a
# multiple of its price, after which it is made again. From 0.1 on, and as often as others, sweeps over embeddings take
# 1.1 times as long.
CLOSE, RENEWAL = 0.01, 8
# That multiple for one that is as rough at every θ. Made again after one step from zero and after three, it led
# embeddings with C=100 up to gaps of 10 F; with 4 they take 30 iterations for 47, wide images 350 for 411, and seven
# tables with C of 1, 100 and 1e4 0.9 of the time (0.6 to 1.3).
ROUGH_RENEWAL = 4
# How many times as many passes as it costs are to come for the first metric to be made that holds near the minimum,
# which saves half of them or more. At 2, embeddings with C=100 went on without it for five iterations, and took 1.3
# times as long.
NEAR_GAIN = 1.3
# Passes with a rough metric, as a part of what a dense one costs, that tell whether that would pay. After four or fewer
# 5,000 x 100 with ten classes, which eight more end, took one that costs 150, and 2.5 times as long; by the mean of
# three steps standardised covertype took 2.6 times as long.
TRIAL = 1 / 8
# Evaluations of a step beyond which changes of F from a point are left for F itself: where logits of rows far out go
# beyond what float32 holds of their powers, they allow steps only that lead nowhere. A fit of 100,000 rows, with one of
# 1e5, takes 49 passes and had not converged after 14,000.
ANCHORED_TRIALS = 2
# The price, in passes, from which on a metric is kept for the next penalty of a sweep.
DEAR = 4.0
# Passes after which a gap that a rough metric tells is checked in any case. Of 1,162 rows, each twice, one that was
# told at the default tol after 1,600 passes was 14 times too small; with 100 here, one of classes of single rows was 80
# times, after 75. Runs of 50 to 100 passes take 1.0 to 1.5 times as many so.
MANY_PASSES = 50
# A gap below this multiple of |F| that no step makes smaller is rounding.
STUCK_ROUNDING = torch.finfo(torch.float64).eps ** 0.5


class Run:
    """One call of a descent method: where each model stands, when it is finished, what it has cost.

    The loop of every descent method is then::

        while run.active:
            direction, slope, gap = ...                  # what distinguishes the method
            run.settle(gap)                              # finished models leave the stack
            run.step(direction, slope)                   # line search, of those that stay
    """

    def __init__(self, objective: Objective, start: Tensor, options: SolverOptions):
        self.objective, self.options = objective, options
        self.n_passes = self.iteration = 0
        self._metric_pass = self._metric_iteration = 0
        self.preconditioner: Metric | None = None  # of conjugate gradients
        self._kept: Kept | None = None  # for another run
        self.inverse: Inverse | None = None  # of the last Hessian
        self._anchor: Anchor | None = None  # by whose changes F is evaluated
        self._goes_by_changes = False  # from the next step on
        self._growth = 1  # of the samples that metrics are taken from
        self._hessian_dtype = torch.float32 if options.tol >= NARROW_TOL else torch.float64  # where it will do
        self.models = list(range(objective.n_models))
        self.stuck = [False] * objective.n_models
        self._trusted_from = 0  # the iteration from which on gains tell gaps
        self._gains_from = 0  # the one from which on they tell what is to come
        self.tries_from = 0.0  # passes from which on far rows may be tried to be left out (`gaps`)
        self.slope = self.slope_before = [0.0] * objective.n_models  # along the last two directions
        self.was_full = False  # whether the last step had length 1
        self.theta, self.point = self._begin(start)
        if any(map(isnan, self.point.value.tolist())):
            raise FloatingPointError("F is not a number where the solver begins.")
        self._record = Record(self.theta, options.leads_on)

    def _begin(self, start: Tensor) -> tuple[Tensor, Evaluation]:
        """The start, or the fallback for models whose F is not low enough at the start, and what is evaluated there."""
        point = self.evaluate(start) if self.options.point is None else self.options.point
        if self.options.fallback is None:
            return start, point
        theta, values = self.options.fallback
        is_low = [here < there for here, there in zip(point.value.tolist(), values, strict=True)]
        if all(is_low):
            return start, point
        theta = torch.where(torch.tensor(is_low, device=start.device)[:, None, None], start, theta)
        return theta, self.evaluate(theta)

    @property
    def active(self) -> bool:
        """Whether any model is left."""
        return bool(self.models)

    def evaluate(self, theta: Tensor, some: Tensor | None = None) -> Evaluation:
        """Value and gradient at θ of all models, or of some of them, by their places (m,), counted."""
        of = self.objective if self._anchor is None else self._anchor
        self.count(1, len(self.models) if some is None else len(some))
        return (of if some is None else of.select(some)).at(theta)

    def go_by_changes(self) -> None:
        """Evaluate F by its changes from this point on, where that pays, for as long as they lead lower."""
        self._goes_by_changes = self.options.tol >= NARROW_TOL

    def _make_anchor(self) -> None:
        self._goes_by_changes, self._anchor = False, self.objective.anchor(self.theta, self.point)
        if self._anchor is not None:
            self.n_passes += 0.5  # without a gradient
            self.options.say("changes from here in float32")

    def precondition_by(self, metric: Metric) -> None:
        """Let conjugate gradients go by a metric at the point."""
        self.preconditioner, self._metric_pass = metric, self.n_passes

    def is_lost_in_rounding(self) -> bool:
        """Whether the objective is too rough to lead any model further."""
        if any(self.stuck) or not self.objective.resolves(self.theta):
            return True
        return self.iteration > 0 and any(map(self._is_noise, self.models, self.point.value.tolist(), self.slope))

    def _is_noise(self, model: int, value: float, slope: float) -> bool:
        """Whether the last step's gain is near what float32 resolves, and next to nothing of what was promised."""
        gain = self._record.curve[model][-1] - value
        return gain <= NOISE_OF_VALUE * abs(value) and gain <= NOISE_OF_SLOPE * abs(slope)

    def alone(self, place: int) -> "Run":
        """The run of one of the models, by its place, from where it is."""
        one = copy(self)
        one._keep([place])
        return one

    def count(self, n_passes: float, n_models: int) -> None:
        """Count passes that were for so many of the models."""
        self.n_passes += n_passes * n_models / len(self.models)

    def widen(self, objective: Objective) -> None:
        """Take the next step with a more precise version of the objective."""
        self.options.say(f"products in {objective.dtype}")
        self.objective = self.of_these(objective if self.objective.is_family else objective.apart())

    def of_these(self, objective: Objective) -> Objective:
        """An objective of all models, for those that are left."""
        return objective if len(self.models) == objective.n_models else objective.select(torch.tensor(self.models))

    def widen_here(self, objective: Objective, knows_gap: bool) -> None:
        """Go on with a more precise version of the objective, at the same point, whose gap may not be known."""
        self.widen(objective)
        if not knows_gap:
            self._trusted_from = self.iteration + 2 * WINDOW
        self.point = self.evaluate(self.theta)
        self.stuck = [False] * len(self.models)
        if knows_gap:
            self.go_by_changes()

    def begin_anew(self) -> None:
        """Go on from here by another method: what gains have told of this one tells nothing of that."""
        self._anchor, self._goes_by_changes, self._trusted_from = None, False, 0
        self.point, self.stuck = self.evaluate(self.theta), [False] * len(self.models)
        self.forget_gains()

    def make_metric(self, to_come: float = inf) -> Metric:
        """The objective's metric at the point, of more rows than the last one if its steps were often too long.

        ``to_come`` says how many passes would be to come with a rough one.
        """
        n_steps = self.iteration - self._metric_iteration
        if n_steps and self.passes_of_model >= POOR * n_steps:
            self._growth *= 2
        self._metric_pass, self._metric_iteration = self.n_passes, self.iteration
        known = self.theta, self._growth, self.is_near(), self._hessian_dtype, self.n_passes, to_come
        metric = self.objective.metric(*known)
        self._learn_from(metric.solve)
        self.options.say(f"a {metric.kind} metric at the price of {metric.price:.1f} passes")
        if metric.price >= DEAR and metric.apart_price is None and len(self.models) == self._record.n_models:
            self._kept = Kept(metric, self.point.value)
        return metric

    def make_inverse(self) -> Inverse:
        """The inverse of the objective's Hessian at the point."""
        self.inverse = self.objective.inverse_hessian(self.theta, self._hessian_dtype)
        self._learn_from(self.inverse)
        return self.inverse

    def _learn_from(self, inverse: Inverse) -> None:
        """Try no more Hessians in float32 where one would not do."""
        if inverse.wants_float64:
            self._hessian_dtype = torch.float64

    def first_metric(self) -> Metric:
        """What a run for other penalties has left, or a new one.

        As F falls from one penalty to the next, so does the curvature, where rows come to be told apart.
        """
        if self.options.kept is None:
            return self.make_metric()
        self._kept, self._metric_pass = self.options.kept, self.n_passes
        self.objective = self.objective.apart()
        fallen = torch.where(self.point.value > 0, self._kept.value / self.point.value, 1.0)  # (M,)
        return self._kept.metric.kept(fallen)

    def make_metric_apart(self) -> Metric:
        """One for each model, of as many rows as at first: shared ones may be poor for any number of them."""
        self.objective = self.objective.apart()
        self._growth, self._metric_iteration = 1, self.iteration
        return self.make_metric()

    @property
    def passes_of_model(self) -> float:
        """Passes since a metric or model was made."""
        return self.n_passes - self._metric_pass

    def make_hessian_models(self, working: Tensor, max_price: float):
        """Quadratic models at the point for these parameters, exact ones if they cost no more; None if too large."""
        models = self.objective.hessian_models(self.theta, working, max_price)
        self._metric_pass = self.n_passes
        if models is None:
            self.options.say("products with the Hessian")
        else:
            rows = "all rows" if models.exact else "a sample"
            self.options.say(f"the Hessian of {rows} at the price of {models.price:.1f} passes")
        return models

    def metric_is_due(self, metric: Metric) -> bool:
        """Whether the passes since the metric was made have cost enough, and as many as a new one costs are to come.

        One that holds near the minimum takes the place of another as soon as the run is there, if `NEAR_GAIN` times as
        many passes as it costs are to come.
        """
        if metric.near_price is not None and self.is_near():
            return self.passes_to_come() >= NEAR_GAIN * metric.near_price
        if self.passes_of_model < max(self._passes_until_due(metric), 0.5):  # none yet where it was made
            return False
        return self.passes_to_come() >= (metric.price if metric.dense_price is None else metric.dense_price)

    def _passes_until_due(self, metric: Metric) -> float:
        """As many as it cost, if another is sure to be better; what a rough one misses it misses at every θ.

        That is made again after a multiple of its price, or when passes have doubled. One that was kept has cost
        nothing.
        """
        if metric.is_kept:
            return 0
        if metric.dense_price is not None:
            return TRIAL * metric.dense_price
        if metric.follows:
            return metric.price - 0.5
        return RENEWAL * metric.price if metric.is_local else max(self._metric_pass, ROUGH_RENEWAL * metric.price)

    def is_close(self, part: float = CLOSE) -> bool:
        """Whether no model can gain more than this part of F."""
        return all(self._record.is_close(model, part) for model in self.models)

    def is_near(self) -> bool:
        """Whether each model was that close in one of the last iterations, from where F has only fallen.

        Where gains come and go, gaps are told as any now and then, of five folds in most iterations of one at least.
        """
        return all(self._record.is_close(model, CLOSE, WINDOW) for model in self.models)

    def pays_apart(self, metric: Metric) -> bool:
        """Whether far more passes are to come with a metric that all models share than one for each would cost.

        Twice as many, as those are not without any: at that, five folds of raw covertype take Hessians of a third fewer
        rows than if they went apart after eight iterations, and those of 200,000 x 50 x 5 share theirs to the end.
        Rough ones not before ten iterations, in which most are done, nor where a dense one of all may follow. Where
        classes are of few rows, of which folds hold out others each, models have little in common: five folds and seven
        C of 600 x 60, 1,000 x 50 and 900 x 44 with 40 to 80 classes take 0.3, 0.2 and 0.6 of the time so.
        """
        is_due = self.iteration > 0 if metric.follows else self.is_long and metric.dense_price is None
        if metric.apart_price is None or not is_due:
            return False
        return self.passes_to_come() > 2 * metric.apart_price

    def extrapolated_gap(self) -> list[float]:
        """What each model would still gain if its gains went on as they did; 0 for young runs.

        Gains say nothing, and the gap may be any, where a run was lost in rounding until then.
        """
        if self.iteration < self._trusted_from:
            return [inf] * len(self.models)
        n_gains = self.iteration - self._gains_from
        rows = zip(self.models, self.point.value.tolist(), strict=True)
        return [self._record.to_be_gained(model, value, n_gains) for model, value in rows]

    def forget_gains(self) -> None:
        """Let gains until here, and what the next step gains, tell nothing of those to come: that step is Newton's.

        It gains far more than those before, so that gains seemed to grow, and the gap to be any.
        """
        self._gains_from = self.iteration + 1

    def is_within_tol(self, value: float, gap: float) -> bool:
        """Whether a model with this gap is as near to its minimum as is asked for."""
        return gap <= self.options.last_gap(value)

    def which_within_tol(self, gap: list[float]) -> list[bool]:
        """Which of the models with these gaps are."""
        last_gap = self.options.last_gap
        return [one <= last_gap(value) for value, one in zip(self.point.value.tolist(), gap, strict=True)]

    def are_within_tol(self, gap: list[float]) -> bool:
        """Whether all of the models with these gaps are."""
        return all(self.which_within_tol(gap))

    def is_any_within_tol(self, gap: list[float]) -> bool:
        """Whether one of the models with these gaps is."""
        return any(self.which_within_tol(gap))

    def is_next_close(self, part: float) -> bool:
        """Whether the next step is to bring one of the gaps below this part of F, if it shrinks as in the last one."""
        return any(self._record.is_next_close(model, part) for model in self.models)

    @property
    def affords_check(self) -> bool:
        """Whether conjugate gradients that check a gap cost little beside what the run has taken."""
        return self.n_passes >= MANY_PASSES

    @property
    def is_long(self) -> bool:
        """Whether the problem takes more iterations than those that curvature describes well."""
        return self.iteration >= 2 * WINDOW

    def settle(self, gap: list[float]) -> Tensor | None:
        """Record the finished models and drop them from the stack; return which stay, None if all do."""
        values = self.point.value.tolist()
        statuses = list(map(self._status_of, self.models, values, gap, self._below(values), self.stuck))
        if self.options.observe is not None and self.options.observe(
            Iterate(self.iteration, self.point.value, gap, self.theta, None not in statuses)
        ):
            statuses = [Status.STOPPED if status is None else status for status in statuses]
        if any(statuses):
            self._lead_on(statuses)
        stay = []
        rows = zip(self.models, values, gap, statuses, strict=True)
        for i, (model, value, model_gap, status) in enumerate(rows):
            self._record.add(model, value, model_gap)
            if status is None:
                stay.append(i)
            else:
                self._record.end(model, status, self.iteration, self.theta[i], self.point.gradient[i])
        if len(stay) == len(self.models):
            return None
        return self._keep(stay)

    def _lead_on(self, statuses: list[Status | None]) -> None:
        """Where the minima of the models that are finished go, if the last step's Hessian is known.

        With ∇loss(θ) + λ D θ = 0 for every λ, H dθ = -dλ D θ = λ D θ d log C.
        """
        if self._record.tangent is None or self.inverse is None:
            self._record.tangent = None
            return
        tangent = self.inverse(self.objective.penalty_gradient(self.theta))  # (M, ...)
        for i, (model, status) in enumerate(zip(self.models, statuses, strict=True)):
            if status is not None:
                self._record.tangent[model] = tangent[i]

    def step(self, direction: Tensor, slope: list[float], lengthens: bool = False) -> None:
        """Move every model along its direction, with this slope, by a line search that may also ``lengthen`` steps.

        Not those of a stack: folds begin near their minima, and longer steps would cost them more than they save.
        """
        if self._goes_by_changes:  # not sooner: the run may have been at its end
            self._make_anchor()
        before, self.slope_before, self.slope = self.n_passes, self.slope, slope
        self.theta, self.point, self.stuck = backtrack(self.evaluate, self.theta, self.point, direction, slope)
        if lengthens and len(slope) == 1 and self.n_passes == before + 1:
            self.theta, self.point = lengthen(self.evaluate, self.theta, self.point, direction, *slope)
        self.was_full = self.n_passes == before + 1
        if self._anchor is not None and (any(self.stuck) or self.n_passes > before + ANCHORED_TRIALS):
            self._anchor, self.stuck = None, [False] * len(self.models)
            self.point = self.evaluate(self.theta)
        self.iteration += 1

    def step_by_value(self, direction: Tensor, promised: Tensor) -> None:
        """Move every model along its direction, which promises this decrease (M,) of F, by a line search on values."""
        self.theta, self.point, stuck = halve(self.evaluate, self.theta, self.point, direction, promised)
        self.stuck = [a or b for a, b in zip(stuck, map(self._record.stands_still, self.models), strict=True)]
        self.iteration += 1

    def try_again(self, failed: list[bool], is_worth_it: list[bool]) -> None:
        """Take back that no step was found for models that have failed, but may yet find one, if they move at all."""
        rows = zip(self.models, self.stuck, failed, is_worth_it, strict=True)
        self.stuck = [not may or self._record.stands_still(m) if fails else stuck for m, stuck, fails, may in rows]

    def result(self) -> SolveResult:
        """The record, once no model is active."""
        return self._record.result(self.n_passes, self._kept)

    def _status_of(self, model: int, value: float, gap: float, separable_below: float, stuck: bool) -> Status | None:
        if self.is_within_tol(value, gap):
            return Status.CONVERGED
        if value < separable_below:
            return Status.SEPARABLE
        gaps = self._record.gaps[model]
        stands = gap >= gaps[-1] if gaps else False
        if stands and gap <= GAP_ROUNDING * abs(value):
            return Status.PRECISION_FLOOR
        if gap <= STUCK_ROUNDING * abs(value) and (stuck or self._record.stands_still(model)):
            return Status.PRECISION_FLOOR
        if stuck or self._record.stands_still(model, LONG_STANDSTILL):
            return Status.LINE_SEARCH_FAILED
        if self.iteration >= self.options.max_iter:
            return Status.MAX_ITER
        return None

    def _below(self, values: list[float]) -> list[float]:
        """Values of F that prove data separable, which are log 2 / n at most.

        Here n counts rows that are held out, too, for which the proof may come some iterations later.
        """
        if min(values) * self.objective.n_rows > log(2):
            return [-inf] * len(values)
        return self.objective.separable_below.tolist()

    def passes_to_come(self) -> float:
        """How many iterations the slowest model needs if its gap goes on shrinking as in the last one."""
        last_gap = self.options.last_gap
        return max((self._record.iterations_to_come(model, last_gap) for model in self.models), default=0.0)

    def _keep(self, stay: list[int]) -> Tensor:
        self.models, self.stuck = [self.models[i] for i in stay], [self.stuck[i] for i in stay]
        self.slope_before, self.slope = ([slope[i] for i in stay] for slope in (self.slope_before, self.slope))
        index = torch.tensor(stay, dtype=torch.int64)
        if stay:
            self.theta = self.theta[index]
            self.point = type(self.point)(self.point.value[index], self.point.gradient[index])
            self.objective = self.objective.select(index)
            self.preconditioner = None if self.preconditioner is None else self.preconditioner.select(index)
            self.inverse = None if self.inverse is None else self.inverse.select(index)
            self._anchor = None if self._anchor is None else self._anchor.select(index)
        return index
