"""The models of all folds and all C over one X."""

from dataclasses import dataclass, replace
from math import inf, log

import numpy as np
import torch
from torch import Tensor

from skl_softmax.data import Data, linear
from skl_softmax.inputs import TrainingRows
from skl_softmax.memory import keep_what_is_freed
from skl_softmax.objective import Evaluation, Objective
from skl_softmax.objective.absent import mean_of_present
from skl_softmax.solver_parameters import NO_PENALTY, Penalty
from skl_softmax.solvers import SolveResult, Status, inner
from skl_softmax.training import make_deterministic, make_stack, naming_bad_rows, penalty_terms, start_at

# What the weights of the rows of the folds that are solved at the same time may take.
WEIGHT_BYTES = 512 * 2**20
# The same for models that lack one row each.
LACKING_BYTES = 64 * 2**20
# What F of all rows together may be off by for these: a minimum may be within ``tol`` with one row more or less.
LACKING_GAP = 1e-3
# Relative gap of the last minima up to which those for the next C, where they lead, are nearer than float32 leads.
NEAR_GAP = 1e-5
# The longest step of log C that is taken along a path.
LONGEST = log(10)
# How many times as large as the last C the next may be for a metric to be kept. Where the penalty was most of the
# curvature and is next to none, it told gaps near zero: from C = 1e-8 to 0.01 seven of forty tables took no step.
LARGEST_RISE = 20.0


@dataclass(frozen=True)
class Sweep:
    """Where the models of F folds and J penalties ended."""

    data: Data  # what they share
    absent: Tensor | None  # (F, K), bool, the classes that no training row of a fold is of, if there are any
    weight: Tensor  # (F, J, K, d), float64
    bias: Tensor  # (F, J, K)
    n_iter: np.ndarray  # (F, J)
    status: np.ndarray  # (F, J), of Status
    worst_gap: float  # the largest estimate of (F - F*) / F

    @property
    def solved(self) -> np.ndarray:
        """For which penalties there are models, (J,): not for those that were to come when a callback asked to end."""
        return (self.status != Status.STOPPED).all(axis=0)

    @property
    def converged(self) -> np.ndarray:
        """Which models have, (F, J)."""
        return self.status == Status.CONVERGED


def solve_sweep(estimator, rows: TrainingRows, data: Data, weights: Tensor, penalties: list[Penalty], tasks) -> Sweep:
    """Solve for each fold, a row of ``weights`` (F, n), and each penalty.

    ``data`` are the rows in the coordinates that `skl_softmax.training` chooses.

    The folds of one penalty are one stack of models, so that every evaluation is one product over X for all of them,
    and one model of the curvature serves all; or several stacks, where larger ones would gain nothing. Each may copy X,
    if that takes `skl_softmax.objective.base.STRETCHED_BYTES` at most, so that rows of a fold lie together. From the
    last C the next, weaker penalty is begun. Each penalty is one of ``tasks`` (`skl_softmax.watch.FitTasks`), of which
    a callback may ask to be the last.
    """
    keep_what_is_freed()
    n_folds, most = len(weights), _most_models(rows, data, WEIGHT_BYTES)
    stacks = [_Stack(rows, data, part) for part in weights.split(most)]
    shape = n_folds, len(penalties), rows.n_outputs
    weight = torch.full((*shape, rows.X.shape[1]), torch.nan, dtype=torch.float64, device="cpu")  # (F, J, K, d)
    bias = torch.full(shape, torch.nan, dtype=torch.float64, device="cpu")  # (F, J, K)
    n_iter, gap, value = np.zeros(shape[:2], np.int32), np.zeros(shape[:2]), np.ones(shape[:2])
    status = np.full(shape[:2], Status.STOPPED)
    for j, penalty in sorted(enumerate(penalties), key=lambda item: item[1]):
        tasks.begin()
        with naming_bad_rows(rows):
            results = [stack.solve(estimator, penalty) for stack in stacks]
        found = zip(*(stack.coefficients for stack in stacks), strict=True)
        weight[:, j], bias[:, j] = (torch.cat(part).cpu() for part in found)
        n_iter[:, j] = [n for result in results for n in result.n_iter]
        status[:, j] = [s for result in results for s in result.status]
        gap[:, j] = [g for result in results for g in result.gap.tolist()]
        value[:, j] = [curve[-1] for result in results for curve in result.loss_curve]
        if tasks.end():
            break
    with np.errstate(all="ignore"):
        worst_gap = np.where(gap > 0, gap / np.abs(value), 0).max()
    absent = torch.cat([stack.absent for stack in stacks])  # (F, K)
    return Sweep(data, absent if absent.any() else None, weight, bias, n_iter, status, worst_gap)


def solve_refit(
    estimator, rows: TrainingRows, sweep: Sweep, weights: Tensor, penalty: Penalty, place: int
) -> tuple[Tensor, Tensor, SolveResult]:
    """Weight (K, d), bias (K,) and what became of one model of rows of these ``weights`` (1, n).

    For a penalty of the sweep, the one at ``place``; begun at the mean of its folds.
    """
    objective = make_stack(rows, sweep.data, weights, penalty)
    found = torch.cat([sweep.weight[:, place], sweep.bias[:, place, :, None]], dim=2)  # (F, K, d + 1)
    mean = mean_of_present(sweep.absent, found)[0]  # (K, d + 1)
    begin = start_at(objective, (mean[:, :-1], mean[:, -1]))
    problem = make_deterministic(estimator, objective, begin)
    weight, bias, result = problem.coefficients(problem.minimise(), rows.dtype)
    return weight.cpu(), bias.cpu(), result


def logits_without(
    estimator, rows: TrainingRows, sweep: Sweep, weights: Tensor, penalty: Penalty, place: int, lacking: Tensor
) -> Tensor:
    """Logits (K, M) of the rows of these numbers ``lacking`` (M,), each by a model of all others.

    The rows have ``weights`` (1, n). The models are begun at the one of all rows, of the penalty at this ``place``.
    """
    data, found = sweep.data, []
    begin = data.to_theta(sweep.weight[:, place], sweep.bias[:, place])  # (1, K, p)
    for part in lacking.split(_most_models(rows, data, LACKING_BYTES)):
        each = torch.arange(len(part), device=part.device)
        counting = weights.repeat(len(part), 1)  # (M, n)
        counting[each, part] = 0.0
        objective = make_stack(rows, data, counting, penalty)
        start = objective.without_absent(begin.repeat(len(part), 1, 1))
        problem = make_deterministic(estimator, objective, start, skips_float32=True)
        options = replace(problem.options, tol=min(problem.options.tol, LACKING_GAP / len(rows.weights)))
        problem = replace(problem, options=options)
        weight, bias = problem.objective.coefficients(problem.minimise().theta)  # (M, K, d), (M, K)
        logits = linear(rows.take(part).X, weight.flatten(0, 1), bias.flatten())  # (M, M K)
        found.append(logits.unflatten(1, bias.shape)[each, each].T)
    return torch.cat(found, dim=1)


def _most_models(rows: TrainingRows, data: Data, n_bytes: int) -> int:
    """Models that are solved at the same time, whose weights of the rows take so much memory."""
    return int(max(1, min(n_bytes / (8 * len(rows.weights)), data.most_outputs / rows.n_outputs)))


class _Stack:
    """Folds (M, n) that are solved together, by what has been found of them."""

    def __init__(self, rows: TrainingRows, data: Data, weights: Tensor):
        self._objective = make_stack(rows, data, weights, NO_PENALTY).stretched()  # for any penalty
        self._total = weights.sum(dim=1).to(data.home)  # (M,)
        theta = torch.zeros(len(weights), rows.n_outputs, data.n_columns, dtype=torch.float64, device=data.home)
        # The last three C and their minima, where these go, what is known of the last, and a metric from there.
        self._path, self._tangent, self._ended, self._kept = 3 * [(0.0, theta)], None, None, None

    def solve(self, estimator, penalty: Penalty) -> SolveResult:
        """The minima for a penalty, begun from those for the last ones."""
        C, objective = penalty.C, self._objective.with_penalties(*penalty_terms(self._total, penalty))
        begin, known = _start(objective, self._path, self._tangent, C, self._ended, estimator.tol)
        if self._ended is None:  # zeros, or where an L1 penalty was before, whose minimum is of another form
            begin = objective.without_absent(objective.centred(begin) if objective.is_smooth else begin)
        kept = self._kept if LARGEST_RISE * self._path[-1][0] >= C else None
        known.update(kept=kept, leads_on=objective.is_smooth)
        result = make_deterministic(estimator, objective, begin, **known).minimise()
        self._path, self._ended = [*self._path[1:], (C, result.theta)], _ended(objective, result)
        self._kept, self._tangent = result.kept, result.tangent
        return result

    @property
    def absent(self) -> Tensor:
        """The classes (M, K) that models lack, on the CPU."""
        none = torch.zeros(len(self._total), self._objective.n_outputs, dtype=torch.bool)
        return none if self._objective.absent is None else self._objective.absent.cpu()

    @property
    def coefficients(self) -> tuple[Tensor, Tensor]:
        """Weight (M, K, d) and bias (M, K) of the last minima."""
        return self._objective.coefficients(self._path[-1][1])


def _ended(objective: Objective, result: SolveResult) -> tuple[Objective, Evaluation, Tensor] | None:
    """F, its value and gradient, and the minima of a stack that has converged, if F is smooth."""
    if not objective.is_smooth or any(status is not Status.CONVERGED for status in result.status):
        return None
    values = [curve[-1] for curve in result.loss_curve]
    point = Evaluation(torch.tensor(values, dtype=torch.float64).to(result.theta.device), torch.stack(result.gradient))
    return objective, point, result.theta


def _start(
    objective: Objective, path: list[tuple[float, Tensor]], tangent: Tensor | None, C: float, ended, tol: float
) -> tuple[Tensor, dict]:
    """Where a stack is begun, and what is known of that.

    The last minima, with what is known of them, where they are expected to do for this C too, which then costs no pass
    over X. Where they nearly do, the start is so near that float32 would not lead nearer.
    """
    if not objective.is_smooth:
        begin = path[-1][1]
    else:
        begin = _by_secants(path, C) if tangent is None else _by_tangent(path, tangent, C)
    if ended is None or not objective.is_smooth or path[-2][0] == 0:
        return begin, {}
    point = objective.from_other(*ended)
    change = path[-1][1] - path[-2][1]  # as large as the next one, or larger
    gap = (-0.5 * inner(point.gradient, change) / point.value).max().item()
    if gap <= tol:
        return path[-1][1], {"point": point, "skips_float32": True}
    return begin, {"skips_float32": gap <= NEAR_GAP}


def _by_tangent(path: list[tuple[float, Tensor]], tangent: Tensor, C: float) -> Tensor:
    """Where the minima for C may be: along the tangent at the last ones, and the parabola through those before.

    Half as far off the tangent as the parabola, whose bend changes from one C to the next.
    """
    (before, earlier), (last, theta) = path[-2:]
    if not last < C < inf:
        return theta
    step = min(log(C / last), LONGEST)
    begin = theta + step * tangent
    if not 0 < before < last:
        return begin
    known = log(last / before)
    return begin + 0.5 * (step / known) ** 2 * (known * tangent - (theta - earlier))


def _by_secants(path: list[tuple[float, Tensor]], C: float) -> Tensor:
    """Where the minima for C may be: further along the line, over log C, through those for the last two.

    As far as the last change compares with the one before: without a penalty to hold them, parameters of separable
    classes go on for ever, and others come to an end; and no further than it went. Where an L1 penalty is, the line
    would lead through zeros, and the last minima are the better ones.
    """
    (first, earliest), (before, earlier), (last, theta) = path
    if not 0 < first < before < last < C < inf:
        return theta
    changes = [(earlier - earliest) / log(before / first), (theta - earlier) / log(last / before)]
    known, new = (change.flatten(1) for change in changes)  # (M, P)
    part = ((known * new).sum(dim=1) / known.square().sum(dim=1)).nan_to_num(0.0).clamp(0.0, 1.0)  # (M,)
    return theta + min(log(C / last), log(last / before)) * part[:, None, None] * changes[1]
