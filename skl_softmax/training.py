"""From checked rows to coefficients: coordinates, objective, solver."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import frexp, inf, log

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from skl_softmax.data import FLOAT32_RANGE, Data, making_on, rotated, standardised, without_sparsity
from skl_softmax.inputs import TrainingRows, refuse_bad_rows
from skl_softmax.objective import Objective, costs
from skl_softmax.objective.absent import absent_classes
from skl_softmax.objective.batches import BatchedObjective
from skl_softmax.objective.small import SmallObjective, is_small
from skl_softmax.objective.tiny import TinyObjective, is_tiny
from skl_softmax.solver_parameters import NO_PENALTY, Penalty, penalty_of, rate_of, uses_optimizer
from skl_softmax.solvers import (
    SCHEDULES,
    DescentOptions,
    Iterate,
    Memory,
    Solver,
    SolveResult,
    SolverOptions,
    Status,
    choose_solver,
    find_solver,
    optimality,
)
from skl_softmax.stream import Stream

# What coefficients rounded to the type of X may add to a gap, as part of it, where there is no room up to ``tol``.
MOST_ROUNDING = 0.1
# The rounding of predicted logits, by the largest that their terms add up to, that is let pass. It is a third of that
# with columns near 1e3 to 1e6, so that probabilities have three digits.
LOGIT_ROUNDING = 5e-3
# Iterations up to which the gap of a fit that they have not led to the minimum may be ten times what is told.
YOUNG = 10
# Rows in a batch of batch_size="auto".
AUTO_BATCH = 256
# What learning_rate="auto" is for Adam, on normalised columns: with torch's 1e-3 a thousand epochs of one batch each
# would move no coefficient by more than 1.
ADAM_RATE = 2e-2


def choose_coordinates(X: Tensor, fit_intercept: bool, penalties: list[Penalty]) -> Data:
    """X in coordinates in which F with these penalties is minimised soon."""
    data = standardised(without_sparsity(X), fit_intercept)
    is_smooth = not any(penalty.has_l1 for penalty in penalties)  # others know the columns only
    return rotated(data) if is_smooth and costs.rotation_pays(*X.shape) else data


def make_objective(rows: TrainingRows, data: Data, estimator) -> Objective:
    """F of the rows."""
    return make_stack(rows, data, rows.weights[None], penalty_of(estimator))


def make_batched(rows: TrainingRows, data: Data, estimator, seen: float = 0.0) -> BatchedObjective:
    """As `make_objective`. ``seen`` is the weight of rows of earlier calls, which count in the penalty's 1/(C S)."""
    weights = rows.weights[None]  # (1, n)
    total = weights.sum(dim=1)  # (1,)
    penalties = penalty_terms(total + seen, penalty_of(estimator))
    return _make(BatchedObjective, rows, data, weights, total, penalties)


def make_stack(rows: TrainingRows, data: Data, weights: Tensor, penalty: Penalty) -> Objective:
    """F of M models with their own weights (M, n) of the rows."""
    total, kind = weights.sum(dim=1), _kind_of(data, len(weights), rows.n_outputs)
    null_space = None if penalty.has_l1 else data.null_space
    objective = _make(kind, rows, data, weights, total, penalty_terms(total, penalty), null_space)
    absent = absent_classes(objective)
    return objective if absent is None else replace(objective, absent=absent)


def make_part(rows: TrainingRows, data: Data, total: float) -> Objective:
    """What some rows add to the F of all, whose weight is ``total``, without a penalty."""
    of_all, kind = torch.tensor([total], dtype=torch.float64), _kind_of(data, 1, rows.n_outputs)
    return _make(kind, rows, data, rows.weights[None], of_all, penalty_terms(of_all, NO_PENALTY))


def _kind_of(data: Data, n_models: int, n_outputs: int) -> type[Objective]:
    """By which formulas F takes least time."""
    if is_tiny(data, n_models, n_outputs):
        return TinyObjective
    return SmallObjective if is_small(data, n_models * n_outputs) else Objective


def _make(
    kind: type[Objective], rows: TrainingRows, data: Data, weights: Tensor, total: Tensor, penalties, null_space=None
) -> Objective:
    """F of rows with weights (M, n), whose sum is divided by ``total`` (M,), and penalties λ₂ and λ₁ (M,) or None."""
    device, dtype, unit, (l2, l1) = data.X.device, data.dtype, _unit(total.max().item()), penalties
    weights = weights if unit == 1 else weights / unit
    targets, takes_indices = rows.output_targets, rows.has_labels and rows.n_outputs > 1
    label_proba = rows.label_proba if takes_indices else None
    return kind(
        data=data,
        targets=(targets if takes_indices else targets.to(dtype)).to(device),
        weights=weights.to(dtype).to(device),
        l2=l2.to(data.home),
        n_outputs=rows.n_outputs,
        total=(total / unit).to(data.home),
        label_proba=None if label_proba is None else label_proba.to(data.wide).to(device),
        l1=None if l1 is None else l1.to(data.home),
        is_family=len(weights) > 1,
        null_space=null_space,
    )


def _unit(total: float) -> float:
    """What weights are counted in, a power of two, so that float32 holds them and no sum of losses overflows."""
    is_held = 1 / FLOAT32_RANGE < total < FLOAT32_RANGE or total == 0
    return 1.0 if is_held else 2.0 ** min(max(frexp(total)[1], -1000), 1000)  # of which the inverse is held, too


def penalty_terms(total: Tensor, penalty: Penalty) -> tuple[Tensor, Tensor | None]:
    """λ₂ and λ₁ (M,) of models whose rows weigh ``total`` (M,) in all; None where λ₁ is zero."""
    l1_ratio, C = map(float, penalty)  # one of NumPy's would be inverted in its own type
    # Whatever C is without overflow, (M,)
    strength = (total * C).reciprocal() if C < 1 else torch.full_like(total, 1 / C) / total
    if inf in strength.tolist():
        raise ValueError(f"C={C} is so small that the penalty, 1 / (C S), is more than float64 holds. Set a larger C.")
    return ((1 - l1_ratio) * strength, l1_ratio * strength) if penalty.has_l1 else (strength, None)


@dataclass(frozen=True)
class Problem:
    """What is minimised, from where and how."""

    objective: Objective
    theta: Tensor  # (M, K, p)
    solver: Solver
    options: SolverOptions
    stream: Stream | None = None  # for optimisers

    def minimise(self) -> SolveResult:
        """Minimise, without a word on how far from the minimum a solver ends that only descends."""
        with making_on(self.objective.data.home):
            return self.solver.minimise(self.objective, self.theta, self.options)

    def solve(self, choose: Callable[[], Iterate | None] = lambda: None) -> SolveResult:
        """Minimise, and tell how far from the minimum that ends, or the iterate of which it is to be the end."""
        result, chosen = self.minimise(), choose()
        if chosen is not None and not torch.equal(chosen.theta, result.theta):
            result = self._cut_off(result, chosen)
        return result if self.solver.optimizer is None else self._with_optimality(result)

    def weight_and_bias(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (K, d) and bias (K,) of X as the user gave it, from θ (1, K, p); an optimiser's not centred."""
        of = self.objective.coefficients if self.solver.optimizer is None else self.objective.data.from_theta
        return of(theta[0])

    def stored(self, theta: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Weight (K, d) and bias (K,) of an iterate (1, K, p), in ``dtype`` where predictions in it leave enough."""
        weight, bias = self.weight_and_bias(theta)
        return (weight, bias) if dtype == weight.dtype else narrowed(self._precise.data, weight, bias, dtype)

    def coefficients(self, result: SolveResult, dtype: torch.dtype) -> tuple[Tensor, Tensor, SolveResult]:
        """Weight (K, d) and bias (K,) of the result, and what it is with them, whose gap counts what rounding adds.

        In ``dtype`` where that leaves F as near to its minimum as ``tol`` asks for, and predictions in it some digits
        of the logits, else in float64: of columns with large offsets next to none would be left.
        """
        weight, bias = self.weight_and_bias(result.theta)
        if dtype == weight.dtype or result.gap.isnan().item():  # as of the batches of a stream
            return *self.stored(result.theta, dtype), result
        narrow = weight.to(dtype), bias.to(dtype)
        excess = self._excess(result, *(part.to(weight.dtype) for part in narrow))
        room = self.options.last_gap(result.loss_curve[0][-1]) - result.gap.item()
        may_round = excess <= (room if room >= 0 else MOST_ROUNDING * result.gap.item())
        if may_round and resolves(self._precise.data, weight, bias, dtype):
            return *narrow, replace(result, gap=result.gap + max(excess, 0.0))
        return weight, bias, result

    def _excess(self, result: SolveResult, weight: Tensor, bias: Tensor) -> float:
        """How much higher F is with a weight and a bias beside those of the result."""
        objective, theta = self._precise, self._precise_theta(result)
        begin = objective.data.to_theta(weight, bias)[None]  # (1, K, p)
        change = (_centred(objective, begin) if self.solver.optimizer is None else begin) - theta
        with making_on(objective.data.home):
            known = result.gradient is not None
            gradient = torch.stack(result.gradient) if known else objective.at(theta).gradient
            return objective.excess(theta, change, gradient).item()

    @cached_property
    def _precise(self) -> Objective:
        """The objective, of optimisers in the coordinates and the type of the other solvers."""
        if self.solver.optimizer is None:
            return self.objective
        data = standardised(self.objective.data.X, self.objective.data.fit_intercept)
        targets, weights = self.objective.targets, self.objective.weights.to(data.dtype)
        targets = targets.to(data.dtype) if targets.is_floating_point() else targets
        return replace(self.objective, data=data, targets=targets, weights=weights)

    def _precise_theta(self, result: SolveResult) -> Tensor:
        """θ (1, K, p) of the result in the coordinates of that."""
        if self.solver.optimizer is None:
            return result.theta
        return self._precise.data.to_theta(*self.objective.data.from_theta(result.theta))

    def _cut_off(self, result: SolveResult, iterate: Iterate) -> SolveResult:
        if self.solver.optimizer is not None:
            return replace(result, theta=iterate.theta)
        value, (*curve, last) = iterate.value.item(), result.loss_curve[0]
        gap = result.gap + (value - last)  # (1,)
        status = Status.CONVERGED if gap <= self.options.last_gap(value) else Status.STOPPED
        curve = [*curve, value]
        return replace(result, theta=iterate.theta, gap=gap, status=[status], loss_curve=[curve], gradient=None)

    def stream_after(self, memory: Memory | None) -> Stream | None:
        """What the call leaves to be gone on with, if its optimiser has left this; None of other solvers."""
        return None if self.stream is None or memory is None else self.stream.after(memory)

    def _with_optimality(self, result: SolveResult) -> SolveResult:
        objective = self._precise
        with making_on(objective.data.home):
            value, gap = optimality(objective, self._precise_theta(result))
        status = result.status[0]
        if gap <= self.options.tol * value.abs():
            status = Status.CONVERGED
        elif status is not Status.STOPPED and value < objective.separable_below:
            status = Status.SEPARABLE
        return replace(result, gap=gap, status=[status], loss_curve=[[*result.loss_curve[0], value.item()]])


def resolves(data: Data, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> bool:
    """Whether predictions in a type, of terms that may cancel, leave enough of the logits of any model (..., K)."""
    terms = data.largest_terms(weight, bias).nan_to_num(0.0)  # (..., K), without models that were not solved
    return torch.finfo(dtype).eps * terms.max().item() <= LOGIT_ROUNDING


def narrowed(data: Data, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Weights (..., K, d) and biases (..., K), in ``dtype`` where predictions in that leave enough of the logits."""
    if dtype == weight.dtype or not resolves(data, weight, bias, dtype):
        return weight, bias
    return weight.to(dtype), bias.to(dtype)


def make_problem(estimator, rows: TrainingRows, begin, generator, observe, stream) -> Problem:
    """What the estimator's parameters ask for, from the weight (K, d) and bias (K,) ``begin``, or from zeros.

    ``stream`` is what an earlier fit of the same features and classes has left, or None.
    """
    if uses_optimizer(estimator):
        stream = Stream(estimator, rows) if stream is None else stream.anew(rows)
        objective = make_batched(rows, stream.data(rows.X), estimator)
        return make_descent(estimator, objective, begin, generator, observe, stream)
    data = choose_coordinates(rows.X, estimator.fit_intercept, [penalty_of(estimator)])
    objective = make_objective(rows, data, estimator)
    return make_deterministic(estimator, objective, start_at(objective, begin), observe)


def make_placed_problem(estimator, placed, begin, observe) -> Problem:
    """As `make_problem`, for rows that are elsewhere, on a cluster or in files."""
    objective = placed.objective(estimator.C, estimator.fit_intercept)
    return make_deterministic(estimator, objective, start_at(objective, begin), observe)


def make_deterministic(estimator, objective: Objective, theta: Tensor, observe=None, **known) -> Problem:
    """A stack of models, begun at θ (M, K, p), with the solver that the estimator asks for, which is no optimiser.

    What is ``known`` of the start are further fields of `SolverOptions`.
    """
    name = choose_solver(objective) if estimator.solver == "auto" else estimator.solver
    note = print if estimator.verbose else None
    if theta.any():  # zeros are better than a start with a higher F, where rounding may have left no curvature
        known["fallback"] = torch.zeros_like(theta), [log(max(2, theta.shape[1]))] * len(theta)
    options = SolverOptions(tol=estimator.tol, max_iter=estimator.max_iter, observe=observe, note=note, **known)
    if note is not None:
        note(f"{name}: {_sizes(objective)}")
    return Problem(objective, theta, find_solver(name), options)


def _sizes(objective: Objective) -> str:
    models = f"{objective.n_models} models of " if objective.n_models > 1 else ""
    span = " in the space that the rows span" if objective.data.rotates else ""
    return f"{objective.n_rows:,} rows, {models}{objective.n_parameters:,} parameters{span}"


def start_at(objective: Objective, begin: tuple[Tensor, Tensor] | None) -> Tensor:
    """θ (1, K, p) of a weight (K, d) and a bias (K,), or zeros."""
    theta = _zeros(objective) if begin is None else _centred(objective, objective.data.to_theta(*begin)[None])
    return objective.without_absent(theta)


def _centred(objective: Objective, theta: Tensor) -> Tensor:
    """θ (1, K, p) as solvers other than optimisers have it."""
    centred = objective.centred(theta)
    return centred if objective.is_smooth else torch.where(objective.unseen, centred, theta)


def _zeros(objective: Objective) -> Tensor:
    """θ (1, K, p) of equal probabilities for all classes."""
    shape = 1, objective.n_outputs, objective.data.n_columns
    return torch.zeros(shape, dtype=torch.float64, device=objective.data.home)


@contextmanager
def naming_bad_rows(rows: TrainingRows) -> Iterator[None]:
    """Name the row where numbers in X are why F is none."""
    try:
        yield
    except (ArithmeticError, torch.linalg.LinAlgError):
        refuse_bad_rows(rows)
        raise


def solved(solve: Callable[[], SolveResult], rows: TrainingRows) -> SolveResult:
    """What ``solve`` gives, or an error that names the row where numbers in X are why F is none."""
    with naming_bad_rows(rows):
        result = solve()
    if not np.isfinite(result.loss_curve[0][-1]):
        refuse_bad_rows(rows)
    return result


def warn_unless_converged(estimator, result: SolveResult) -> None:
    """Say why a fit ended without reaching ``tol``, how large the gap is and what to do, where fit was called."""
    if estimator.converged_ or result.status[0] is Status.STOPPED:
        return
    cause = result.status[0].value.format(**estimator.get_params())
    value, gap = estimator.loss_curve_[-1], estimator.optimality_gap_
    is_young = result.status[0] is Status.MAX_ITER and result.n_iter[0] < YOUNG
    warnings.warn(
        f"{type(estimator).__name__} did not converge: {cause}. The objective is {value:.6g}, by "
        f"{'a rough ' if is_young else ''}estimate {gap:.2g} above its minimum ({gap / abs(value):.1e} of it; "
        f"tol={estimator.tol:g}).",
        ConvergenceWarning,
        stacklevel=4,
    )


def refuse_divergence(result: SolveResult) -> None:
    """Refuse what a batch of a stream has led to if that is no numbers."""
    if result.status[0] is Status.DIVERGED:
        raise ValueError(
            "This batch takes the parameters beyond what floats hold, so that nothing is learned from it. Begin anew "
            "with a smaller learning_rate or scaled features."
        )


def make_batch_problem(estimator, rows: TrainingRows, begin, generator, stream, seen: float) -> Problem:
    """One epoch over a batch of a stream, of which rows of the weight ``seen`` have come before."""
    if estimator.learning_rate in ("cosine", "one-cycle"):
        raise ValueError(
            f"learning_rate={estimator.learning_rate!r} needs to know where the end is, and partial_fit does not. "
            "Set learning_rate='invscaling', 'constant' or a number."
        )
    objective = make_batched(rows, stream.data(rows.X), estimator, seen)
    problem = make_descent(estimator, objective, begin, generator, None, stream)
    return replace(problem, options=replace(problem.options, max_iter=1))


def make_descent(estimator, objective: Objective, begin, generator, observe, stream) -> Problem:
    """Descent by the estimator's optimiser."""
    solver, rate = find_solver(estimator.solver), rate_of(estimator)
    make_optimizer = solver.optimizer
    if make_optimizer is torch.optim.SGD:
        make_optimizer = partial(make_optimizer, momentum=estimator.momentum, foreach=False)  # there is one tensor
    elif rate == "auto":
        rate = ADAM_RATE if make_optimizer is torch.optim.Adam else None
    memory = stream.recall()
    theta, goes_on = _exact_start(objective, begin, memory, estimator.average)
    options = DescentOptions(
        tol=estimator.tol,
        max_iter=int(estimator.max_iter),  # as torch's schedules want it
        observe=observe,
        optimizer=make_optimizer,
        learning_rate=rate,
        schedule=estimator.learning_rate if estimator.learning_rate in SCHEDULES else "constant",
        batch_size=_batch_size(estimator),
        shuffle=estimator.shuffle,
        average=estimator.average,
        patience=estimator.n_iter_no_change,
        generator=generator,
        memory=memory if goes_on or not estimator.average else None,  # a mean is one of where the optimiser was
    )
    return Problem(objective, theta, solver, options, stream)


def _batch_size(estimator) -> int | None:
    size = AUTO_BATCH if estimator.batch_size == "auto" else estimator.batch_size
    return None if size is None else int(size)  # torch takes no integers of NumPy's


def _exact_start(objective: Objective, begin, memory: Memory | None, averages: bool) -> tuple[Tensor, bool]:
    """θ (1, K, p) of a weight and a bias, or where an optimiser was that has ended there, and whether one has.

    The weight and bias are then the rounded image of its parameters, or of their mean.
    """
    if begin is None:
        return _zeros(objective).to(objective.dtype), False
    data = objective.data
    if memory is not None:
        image = data.from_theta((memory.mean if averages else memory.theta).to(data.home)[0])
        # In the narrowest type that both may have gone through.
        if all(torch.equal(a.cpu().float(), b.float()) for a, b in zip(image, begin, strict=True)):
            return memory.theta.to(data.home).to(objective.dtype), True
    return data.to_theta(*begin)[None].to(objective.dtype), False
