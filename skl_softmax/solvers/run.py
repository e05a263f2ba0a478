"""The models of a stack that are still being solved, and the record of those that are finished."""

import torch
from torch import Tensor

from skl_softmax.solvers.base import Evaluation, Objective, SolveResult, SolverOptions, Status
from skl_softmax.solvers.conjugate_gradients import conjugate_gradients
from skl_softmax.solvers.line_search import backtrack

# Differences of F below this multiple of |F| are rounding.
ROUNDING = 4 * torch.finfo(torch.float64).eps


class Run:
    """One call of a descent method: where each model stands, when it is finished, what it has cost.

    The loop of every descent method is then::

        while run.active:
            direction, gap = ...            # what distinguishes the method
            keep = run.settle(gap)          # finished models leave the stack
            run.descend(direction[keep])    # line search
    """

    def __init__(self, objective: Objective, start: Tensor, options: SolverOptions):
        self.objective, self.options = objective, options
        self.theta = start
        self.n_evaluations = self.n_products = self.iteration = 0
        self.models = torch.arange(objective.n_models)
        self.stuck = torch.zeros(objective.n_models, dtype=torch.bool)
        self.point = self.evaluate(start)
        self._theta = start.clone()
        self._gap = torch.full((objective.n_models,), torch.nan, dtype=torch.float64)
        self._n_iter = [0] * objective.n_models
        self._status = [Status.MAX_ITER] * objective.n_models
        self._curve: list[list[float]] = [[] for _ in range(objective.n_models)]

    @property
    def active(self) -> bool:
        """Whether any model is left."""
        return len(self.models) > 0

    def evaluate(self, theta: Tensor) -> Evaluation:
        """Value and gradient, counted."""
        self.n_evaluations += 1
        return self.objective.at(theta)

    def newton_by_products(self, models: Tensor) -> tuple[Tensor, Tensor]:
        """Newton's direction (m, ...) and the decrement (m,) of some of the models, by conjugate gradients."""
        objective = self.objective if len(models) == len(self.models) else self.objective.select(models)
        theta = self.theta[models]

        def product(direction: Tensor) -> Tensor:
            self.n_products += 1
            return objective.hessian_product(theta, direction)

        return conjugate_gradients(product, objective.metric, self.point.gradient[models])

    def settle(self, gap: Tensor) -> Tensor:
        """Record the finished models and drop them from the stack; return the index of those that stay."""
        if self.options.report is not None:
            self.options.report(self.iteration, self.point.value, gap)
        stay = []
        below = self.objective.separable_below.tolist()
        stuck = self.stuck.tolist()
        rows = zip(self.models.tolist(), self.point.value.tolist(), gap.tolist(), below, stuck, strict=True)
        for i, (model, value, model_gap, separable_below, model_stuck) in enumerate(rows):
            self._curve[model].append(value)
            self._gap[model] = model_gap
            self._n_iter[model] = self.iteration
            status = self._status_of(value, model_gap, separable_below, model_stuck)
            if status is None:
                stay.append(i)
            else:
                self._status[model] = status
                self._theta[model] = self.theta[i]
        return self._drop(torch.tensor(stay, dtype=torch.int64))

    def descend(self, direction: Tensor) -> None:
        """Move every model along its direction by a line search."""
        self.theta, self.point, self.stuck = backtrack(self.evaluate, self.theta, self.point, direction)
        self.iteration += 1

    def result(self) -> SolveResult:
        """The record, once no model is active."""
        return SolveResult(
            theta=self._theta,
            gap=self._gap,
            n_iter=self._n_iter,
            status=self._status,
            loss_curve=self._curve,
            n_evaluations=self.n_evaluations,
            n_products=self.n_products,
        )

    def _status_of(self, value: float, gap: float, separable_below: float, stuck: bool) -> Status | None:
        if gap <= self.options.tol * abs(value):
            return Status.CONVERGED
        if value < separable_below:
            return Status.SEPARABLE
        if gap <= ROUNDING * abs(value):
            return Status.PRECISION_FLOOR
        if stuck:
            return Status.LINE_SEARCH_FAILED
        if self.iteration >= self.options.max_iter:
            return Status.MAX_ITER
        return None

    def _drop(self, keep: Tensor) -> Tensor:
        if len(keep) < len(self.models):
            self.models, self.theta, self.stuck = self.models[keep], self.theta[keep], self.stuck[keep]
            self.point = type(self.point)(self.point.value[keep], self.point.gradient[keep])
            if len(keep):
                self.objective = self.objective.select(keep)
        return keep
