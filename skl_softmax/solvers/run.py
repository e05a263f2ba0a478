"""The models of a stack that are still being solved."""

from math import inf, isnan, log
from typing import NamedTuple

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
    numbers,
)
from skl_softmax.solvers.conjugate_gradients import DECREMENT_ACCURACY, DELAY, conjugate_gradients
from skl_softmax.solvers.line_search import backtrack, halve, lengthen
from skl_softmax.solvers.record import ROUNDING, WINDOW, Record

# Above this many parameters the Hessian (here 32 MB) is no longer formed and Newton's step comes from conjugate
# gradients.
DIRECT_LIMIT = 2000
# What a chord leaves at most, in units of what the last step's rate says. Where H is (1 + e) times the last one, that
# step, which met half of the change, left e²/4 of the gap, and the chord leaves e².
CHORD = 10.0
# The largest such rate for which the last Hessian tells gaps, where e = 1/2. Beyond it two chords, at rates of a tenth,
# told a hundredth of what was left.
CHORD_RATE = 1 / 16
# Gains below this multiple of |F|, and this part of the slope, are noise of float32: gradients there lead nowhere.
NOISE, LOST = 1e-6, 0.1
# Evaluations for each step from which on a metric of a sample is taken to be poor: along what its rows do not show,
# as a rare column without a penalty, it asks for steps of any length. Raw covertype (10,000 rows) with C=inf had not
# converged after 1,000 iterations, and takes 69 with samples that grow.
POOR = 1.5
# Decrements below this part of what ends a run need not be known to `DECREMENT_ACCURACY`. That saves 6.5
# of 143 passes on sparse text with C = 100, on others none or one.
NEGLIGIBLE = 0.01
# Steps of conjugate gradients that have to add little where they check a gap that was told without correlations: after
# three, as else, or six some of these were still told eight times too small.
CHECK_DELAY = 8
# Relative gap from which on conjugate gradients keep their metric. Over five sparse problems with C of 0.01, 1 and 100
# that saves a quarter of the metrics, at up to 3 % more passes, once 11; from 0.01 on passes are up to a third more.
KEPT = 1e-3
# tol down to which float32 leads: by changes of F, whose rounding is 1e-7 of what the last steps gain, and by Hessians.
NARROW_TOL = 1e-10
# Relative gap from which on a metric may be made that holds near the minimum only, and the number of passes, as a
# multiple of its price, after which it is made again. From 0.1 on, and as often as others, sweeps over embeddings take
# 1.1 times as long.
CLOSE, RENEWAL = 0.01, 8
# The same multiple for one that is as rough at every θ. Made again after one step from zero and after three, it led
# embeddings with C=100 up to gaps of 10 F; with 4 they take 30 iterations for 47, wide images 350 for 411, and seven
# tables with C of 1, 100 and 1e4 0.9 of the time (0.6 to 1.3).
ROUGH_RENEWAL = 4
# The price, in passes, from which on a metric is kept for the next penalty of a sweep.
DEAR = 4.0
# A gap below this multiple of |F| that no step makes smaller is rounding.
STUCK_ROUNDING = torch.finfo(torch.float64).eps ** 0.5


class NewtonStep(NamedTuple):
    """Newton's directions, the slopes along them, and the part of their decrements that may be missing."""

    direction: Tensor  # (M, ...)
    slope: list[float]  # minus twice the decrements
    unexplained: float
    is_chord: bool = False  # whether the Hessian is that of the last step


class Run:
    """One call of a descent method: where each model stands, when it is finished, what it has cost.

    The loop of every descent method is then::

        while run.active:
            direction, slope, gap = ...                  # what distinguishes the method
            run.settle(gap)                              # finished models leave the stack
            run.descend(direction, slope)                # line search, of those that stay
    """

    def __init__(self, objective: Objective, start: Tensor, options: SolverOptions):
        self.objective, self.options = objective, options
        self.n_passes = self.iteration = 0
        self._metric_pass = self._metric_iteration = 0
        self._metric: Metric | None = None  # of conjugate gradients
        self._kept: Kept | None = None  # for another run
        self._inverse: Inverse | None = None  # of the last Hessian
        self._anchor: Anchor | None = None  # by whose changes F is evaluated
        self._goes_by_changes = False  # from the next step on
        self._growth = 1  # of the samples that metrics are taken from
        self.models = list(range(objective.n_models))
        self.stuck = [False] * objective.n_models
        self._trusted_from = 0  # the iteration from which on gains tell gaps
        self._slope = self._slope_before = [0.0] * objective.n_models  # along the last two directions
        self._was_full = False  # whether the last step had length 1
        self.theta, self.point = self._begin(start)
        if any(map(isnan, self.point.value.tolist())):
            raise FloatingPointError("F is not a number where the solver begins.")
        self._record = Record(self.theta, options.leads_on)

    def _begin(self, start: Tensor) -> tuple[Tensor, Evaluation]:
        """The start, or the fallback if F is not low enough at the start, and what is evaluated there."""
        point = self.evaluate(start) if self.options.point is None else self.options.point
        if self.options.fallback is None:
            return start, point
        theta, values = self.options.fallback
        if all(here < there for here, there in zip(point.value.tolist(), values, strict=True)):
            return start, point
        return theta, self.evaluate(theta)

    @property
    def active(self) -> bool:
        """Whether any model is left."""
        return bool(self.models)

    @property
    def takes_products(self) -> bool:
        """Whether the Hessian is too large to form."""
        return self.objective.n_parameters > DIRECT_LIMIT

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Value and gradient, counted."""
        self.n_passes += 1
        return (self.objective if self._anchor is None else self._anchor).at(theta)

    def go_by_changes(self) -> None:
        """Evaluate F by its changes from this point on, where that pays, for as long as they lead lower."""
        self._goes_by_changes = self.options.tol >= NARROW_TOL

    def _make_anchor(self) -> None:
        self._goes_by_changes, self._anchor = False, self.objective.anchor(self.theta, self.point)
        if self._anchor is not None:
            self.n_passes += 0.5  # without a gradient
            self.options.say("changes from here in float32")

    def newton_step(self) -> NewtonStep:
        """Newton's, by the Cholesky factor of the Hessian where it is small enough to form, or by products with it.

        The last step's Hessian will do where a step by it, a chord, is to end the run: its gap is the last one times a
        multiple of what the last step, if that had length 1, made of that.
        """
        if self.takes_products:
            return self.newton_by_products()
        last_two = zip(self._slope_before, self._slope, strict=True)
        expected = [last * (last / before) * (last / before) if before else -inf for before, last in last_two]
        if self._ends_by_chord(expected):
            chord = self.newton_by(self._inverse)
            if self._ends_by_chord(chord.slope):
                return chord._replace(is_chord=True, unexplained=CHORD * max(self._rates(chord.slope)))
        self._inverse = self.objective.inverse_hessian(self.theta)
        return self.newton_by(self._inverse)

    def _ends_by_chord(self, slope: list[float]) -> bool:
        """Whether chords with these slopes are to end the run."""
        rates = self._rates(slope)
        if not self._was_full or max(rates) > CHORD_RATE:
            return False
        return self.are_near([-0.5 * CHORD * now * rate for now, rate in zip(slope, rates, strict=True)])

    def _rates(self, slope: list[float]) -> list[float]:
        """These slopes over those along the last directions."""
        return [now / last if last else inf for now, last in zip(slope, self._slope, strict=True)]

    def newton_by(self, inverse: Inverse) -> NewtonStep:
        """Newton's, by the inverse Hessian at the point, and by products besides where that is singular to rounding.

        There, as with collinear columns, the ridge that makes it definite keeps steps short along what only the penalty
        resolves, and hides what is to be gained. The product with the rows and then with their transpose knows those
        directions to eps², the matrix to eps.
        """
        direction = -inverse(self.point.gradient)
        step = NewtonStep(direction, numbers(self.point.gradient, direction), unexplained=0.0)
        if inverse.has_ridge and self.objective.holds_collinear:
            better = self._conjugate_gradients(self.objective, inverse)
            if all(a <= b for a, b in zip(better.slope, step.slope, strict=True)):  # else rounding is all there is
                return better
        return step

    def newton_by_products(self, is_check: bool = False) -> NewtonStep:
        """Newton's, without the Hessian; as a check of a gap, with a decrement that is known however small it is."""
        narrow = self.objective.narrow()  # a direction need not be exact, so float32 will do for it
        if self._metric is None or self._is_due_anew(self._metric):
            self._metric, self._metric_pass = narrow.metric(self.theta), self.n_passes
            self.options.say(f"conjugate gradients in {narrow.dtype}, preconditioned by a {self._metric.kind} metric")
        return self._conjugate_gradients(narrow, self._metric.solve, is_check)

    def _is_due_anew(self, metric: Metric) -> bool:
        """Whether conjugate gradients need another metric: not near the minimum, nor before it has earned its price."""
        return not self.is_close(KEPT) and self.passes_of_model >= metric.price

    def _conjugate_gradients(self, objective: Objective, precondition: Inverse, is_check: bool = False) -> NewtonStep:
        gradient, multiply, centred = self.point.gradient, objective.hessian_product(self.theta), objective.centred

        def product(direction: Tensor) -> Tensor:
            self.n_passes += 1
            return multiply(direction)

        def solve(residual: Tensor) -> Tensor:
            return centred(precondition(centred(residual)))  # what rounding leaves along 1 ⊗ v has no curvature

        negligible = (0 if is_check else NEGLIGIBLE) * self.options.tol * self.point.value.abs()  # (M,)
        delay = CHECK_DELAY if is_check else DELAY
        direction = conjugate_gradients(product, solve, gradient.to(objective.dtype), negligible, delay)[0]
        direction = direction.to(gradient.dtype)  # (M, ...)
        return NewtonStep(direction, numbers(gradient, direction), unexplained=DECREMENT_ACCURACY)

    def is_lost_in_rounding(self) -> bool:
        """Whether the objective is too rough to lead any model further."""
        if any(self.stuck) or not self.objective.resolves(self.theta):
            return True
        return self.iteration > 0 and any(map(self._is_noise, self.models, self.point.value.tolist(), self._slope))

    def _is_noise(self, model: int, value: float, slope: float) -> bool:
        """Whether the last step's gain is near what float32 resolves, and next to nothing of what was promised."""
        gain = self._record.curve[model][-1] - value
        return gain <= NOISE * abs(value) and gain <= LOST * abs(slope)

    def widen(self, objective: Objective) -> None:
        """Take the next step with a more precise version of the objective."""
        self.options.say(f"products in {objective.dtype}")
        is_part = len(self.models) < objective.n_models
        objective = objective if self.objective.is_family else objective.apart()
        self.objective = objective.select(torch.tensor(self.models)) if is_part else objective

    def widen_here(self, objective: Objective, knows_gap: bool) -> None:
        """Go on with a more precise version of the objective, at the same point, whose gap may not be known."""
        self.widen(objective)
        if not knows_gap:
            self._trusted_from = self.iteration + 2 * WINDOW
        self.point = self.evaluate(self.theta)
        self.stuck = [False] * len(self.models)
        if knows_gap:
            self.go_by_changes()

    def make_metric(self) -> Metric:
        """The objective's metric at the point, of more rows than the last one if its steps were often too long."""
        n_steps = self.iteration - self._metric_iteration
        if n_steps and self.passes_of_model >= POOR * n_steps:
            self._growth *= 2
        self._metric_pass, self._metric_iteration = self.n_passes, self.iteration
        dtype = torch.float32 if self.options.tol >= NARROW_TOL else torch.float64
        metric = self.objective.metric(self.theta, self._growth, self.is_close(), dtype)
        self.options.say(f"a {metric.kind} metric at the price of {metric.price:.1f} passes")
        if metric.price >= DEAR and metric.apart_price is None and len(self.models) == self._record.n_models:
            self._kept = Kept(metric, self.point.value)
        return metric

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
        """Whether the passes since the metric was made have cost as much as it did, and as many are to come.

        One that holds near the minimum takes the place of another as soon as the run is there, if twice as many passes
        as it costs are to come: it saves half of them or more.
        """
        if metric.near_price is not None and self.is_close():
            return self._passes_to_come() >= 2 * metric.near_price
        if self.passes_of_model < max(self._passes_until_due(metric), 0.5):  # none yet where it was made
            return False
        return self._passes_to_come() >= metric.price

    def _passes_until_due(self, metric: Metric) -> float:
        """What a rough metric misses it misses at every θ: it is made again only when the passes have doubled.

        One that was kept has cost nothing yet.
        """
        if metric.is_kept:
            return 0
        if metric.follows:
            return metric.price - 0.5
        return RENEWAL * metric.price if metric.is_near else max(self._metric_pass, ROUGH_RENEWAL * metric.price)

    def is_close(self, part: float = CLOSE) -> bool:
        """Whether no model can gain more than this part of F."""
        return all(self._record.is_close(model, part) for model in self.models)

    def pays_apart(self, metric: Metric) -> bool:
        """Whether far more passes are to come with a metric that all models share than one for each would cost.

        Twice as many, as those are not without any: at that, five folds of raw covertype take Hessians of a third fewer
        rows than if they went apart after eight iterations, and those of 200,000 x 50 x 5 share theirs to the end.
        """
        if self.iteration == 0 or metric.apart_price is None:
            return False
        return self._passes_to_come() > 2 * metric.apart_price

    def extrapolated_gap(self) -> list[float]:
        """What each model would still gain if its gains went on as they did; 0 for young runs.

        Gains say nothing, and the gap may be any, where a run was lost in rounding until then.
        """
        if self.iteration < self._trusted_from:
            return [inf] * len(self.models)
        return list(map(self._record.to_be_gained, self.models, self.point.value.tolist()))

    def is_near(self, value: float, gap: float) -> bool:
        """Whether a model with this gap is as near to its minimum as is asked for."""
        return gap <= max(self.options.tol * abs(value), self.options.accuracy)

    def are_near(self, gap: list[float]) -> bool:
        """Whether all of the models with these gaps are."""
        return all(map(self.is_near, self.point.value.tolist(), gap))

    def is_any_near(self, gap: list[float]) -> bool:
        """Whether one of the models with these gaps is."""
        return any(map(self.is_near, self.point.value.tolist(), gap))

    def is_next_near(self, part: float) -> bool:
        """Whether the next step is to bring one of the gaps below this part of F, if it shrinks as in the last one."""
        return any(self._record.is_next_close(model, part) for model in self.models)

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
        if self._record.tangent is None or self._inverse is None:
            self._record.tangent = None
            return
        tangent = self._inverse(self.objective.penalty_gradient(self.theta))  # (M, ...)
        for i, (model, status) in enumerate(zip(self.models, statuses, strict=True)):
            if status is not None:
                self._record.tangent[model] = tangent[i]

    def descend(self, direction: Tensor, slope: list[float], lengthens: bool = False) -> None:
        """Move every model along its direction, with this slope, by a line search that may also ``lengthen`` steps.

        Not those of a stack: folds begin near their minima, and longer steps would cost them more than they save.
        """
        if self._goes_by_changes:  # not sooner: the run may have been at its end
            self._make_anchor()
        before, self._slope_before, self._slope = self.n_passes, self._slope, slope
        self.theta, self.point, self.stuck = backtrack(self.evaluate, self.theta, self.point, direction, slope)
        if lengthens and len(slope) == 1 and self.n_passes == before + 1:
            self.theta, self.point = lengthen(self.evaluate, self.theta, self.point, direction, *slope)
        self._was_full = self.n_passes == before + 1
        if self._anchor is not None and any(self.stuck):
            self._anchor, self.stuck = None, [False] * len(self.models)
            self.point = self.evaluate(self.theta)
        self.iteration += 1

    def descend_by_value(self, direction: Tensor, promised: Tensor) -> None:
        """Move every model along its direction, which promises this decrease (M,) of F, by a line search on values."""
        self.theta, self.point, stuck = halve(self.evaluate, self.theta, self.point, direction, promised)
        self.stuck = [a or b for a, b in zip(stuck, map(self._record.stands_still, self.models), strict=True)]
        self.iteration += 1

    def try_again(self, is_worth_it: bool) -> None:
        """Take back that no step was found, but of models that have long stood still; or end the run."""
        self.stuck = [not is_worth_it or self._record.stands_still(m) for m in self.models]

    def result(self) -> SolveResult:
        """The record, once no model is active."""
        return self._record.result(self.n_passes, self._kept)

    def _status_of(self, model: int, value: float, gap: float, separable_below: float, stuck: bool) -> Status | None:
        if self.is_near(value, gap):
            return Status.CONVERGED
        if value < separable_below:
            return Status.SEPARABLE
        gaps = self._record.gaps[model]
        stands = gap >= gaps[-1] if gaps else False
        if (stands and gap <= ROUNDING * abs(value)) or (stuck and gap <= STUCK_ROUNDING * abs(value)):
            return Status.PRECISION_FLOOR
        if stuck:
            return Status.LINE_SEARCH_FAILED
        if self.iteration >= self.options.max_iter:
            return Status.MAX_ITER
        return None

    def _below(self, values: list[float]) -> list[float]:
        """Values of F that prove data separable, which are log 2 / n at most."""
        if min(values) * self.objective.n_rows > log(2):
            return [-inf] * len(values)
        return self.objective.separable_below.tolist()

    def _passes_to_come(self) -> float:
        """How many iterations the slowest model needs if its gap goes on shrinking as in the last one."""
        tol, accuracy = self.options.tol, self.options.accuracy
        return max((self._record.iterations_to_come(model, tol, accuracy) for model in self.models), default=0.0)

    def _keep(self, stay: list[int]) -> Tensor:
        self.models, self.stuck = [self.models[i] for i in stay], [self.stuck[i] for i in stay]
        self._slope = [self._slope[i] for i in stay]
        index = torch.tensor(stay, dtype=torch.int64)
        if stay:
            self.theta = self.theta[index]
            self.point = type(self.point)(self.point.value[index], self.point.gradient[index])
            self.objective = self.objective.select(index)
            self._metric = None if self._metric is None else self._metric.select(index)
            self._inverse = None if self._inverse is None else self._inverse.select(index)
            self._anchor = None if self._anchor is None else self._anchor.select(index)
        return index
