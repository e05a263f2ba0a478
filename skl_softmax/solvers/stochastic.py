"""First-order descent on the whole data or on mini-batches, by the optimisers of torch."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from inspect import signature
from math import inf, log

import torch
from torch import Tensor
from torch.optim import lr_scheduler

from skl_softmax.solvers.base import BatchedObjective, Iterate, SolveResult, SolverOptions, Status

# Rates are one over no less than this, as where X is zero and nothing else curves F: what float32 holds.
LEAST_SMOOTHNESS = 1e-30
# What schedules set in an optimiser's group.
RATES = "lr", "initial_lr", "max_lr", "min_lr"
# How many times as large as at the start, or where two classes are alike, a loss is that has left all bounds. Noise of
# batches adds less.
FAR, ALIKE = 2.0, log(2)


@dataclass(frozen=True)
class DescentOptions(SolverOptions):
    """What descent may be told besides.

    Parameters
    ----------
    optimizer : callable
        Makes a `torch.optim.Optimizer` from a list of parameters and, if there is one, a learning rate ``lr``.
    learning_rate : float, "auto" or None
        "auto" is one over the smoothness of the objective, None what the optimiser has for a default.
    schedule : str
        One of `SCHEDULES`.
    batch_size : int or None
        Rows in a batch; None means all rows.
    shuffle : bool
        Whether batches are drawn anew in each epoch.
    average : bool
        Whether the result is the mean over all updates.
    patience : int
        Epochs without progress after which a run ends, or the rate of the schedule "adaptive" falls.
    generator : torch.Generator
        Source of the order of the rows.
    memory : Memory or None
        What an earlier run has left, to go on with.
    """

    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD
    learning_rate: float | str | None = "auto"
    schedule: str = "constant"
    batch_size: int | None = None
    shuffle: bool = True
    average: bool = False
    patience: int = 10
    generator: torch.Generator | None = None
    memory: "Memory | None" = None


@dataclass
class Memory:
    """What descent carries over from one call to the next."""

    state: dict  # the optimiser's, by parameter
    group: dict  # what it has set anew in its group
    smoothness: float  # of the losses of the steepest rows so far; zero where rates are given
    n_updates: int
    n_epochs: int
    theta: Tensor  # the parameters
    mean: Tensor  # of the parameters over all updates


# From the optimiser, the updates in an epoch, the epochs to come and those of earlier calls, something with a ``step``
# for each update.
SCHEDULES = {
    "constant": lambda *_: None,
    "invscaling": lambda optimizer, updates, epochs, done: lr_scheduler.LambdaLR(  # noqa: ARG005
        optimizer,
        lambda update: (1 + (done * updates + update) / updates) ** -0.5,  # the same in one call or several
    ),
    "adaptive": lambda *_: None,
    "cosine": lambda optimizer, updates, epochs, *_: lr_scheduler.CosineAnnealingLR(optimizer, updates * epochs),
    "one-cycle": lambda optimizer, updates, epochs, *_: lr_scheduler.OneCycleLR(
        optimizer, optimizer.param_groups[0]["lr"], total_steps=max(2, updates * epochs), cycle_momentum=False
    ),
}
# The schedule "adaptive" divides the rate by this when there is no progress, as `sklearn.linear_model.SGDClassifier`
# does, and ends when it is this part of what it was.
ADAPTIVE_FACTOR, ADAPTIVE_END = 5.0, 1e-6


def descend(objective: BatchedObjective, start: Tensor, options: DescentOptions) -> SolveResult:
    """Descent by an optimiser of torch's, such as θ ← θ - learning_rate · ∇F(θ), for a stack of one model.

    Each epoch visits every row once, in batches in a random order, or in one batch that holds all rows.
    The loss of an epoch is the mean over its rows, each batch before its update. The run ends after ``max_iter``
    epochs, or when the mean loss of ``patience`` epochs is not below that of as many before by more than tol of itself.
    If it is then far above where the run began, or parameters are infinite, the run has diverged: the parameters of its
    best epoch are returned, and nothing to go on with.
    """
    run = _Descent(objective, start, options)
    curve: list[float] = []
    best, best_theta, changed, status = inf, start, 0, Status.MAX_ITER
    for epoch in range(options.max_iter):
        before = run.parameter.detach().clone()
        curve.append(run.epoch(options))
        if curve[-1] < best:
            best, best_theta = curve[-1], before
        if not run.parameter.isfinite().all():
            status = Status.DIVERGED
        elif _stalls(curve[changed:], options):
            if run.slow_down():
                changed = len(curve)  # a smaller rate has as much time again
            else:
                bound = FAR * options.patience * max(curve[0], ALIKE)
                status = Status.DIVERGED if sum(curve[-options.patience :]) > bound else Status.STALLED
        is_last = status is not Status.MAX_ITER or epoch == options.max_iter - 1
        theta, memory = (best_theta, None) if status is Status.DIVERGED else (run.theta, run.memory())
        seen = Iterate(epoch, torch.tensor(curve[-1:], dtype=torch.float64), None, theta, is_last, memory)
        if options.observe is not None and options.observe(seen) and status is Status.MAX_ITER:
            status = Status.STOPPED
        if status is not Status.MAX_ITER:
            break
    return SolveResult(
        theta=theta,
        gap=torch.full((1,), torch.nan, dtype=torch.float64),
        n_iter=[len(curve)],
        status=[status],
        loss_curve=[curve],
        n_passes=run.n_passes,
        memory=memory,
    )


def _stalls(curve: list[float], options: DescentOptions) -> bool:
    """Whether the last epochs were, in the mean, no better than those before: one by one, batches differ too much."""
    if len(curve) < 2 * options.patience:
        return False
    late, early = curve[-options.patience :], curve[-2 * options.patience : -options.patience]
    return not sum(late) < sum(early) - options.tol * abs(sum(early))


class _Descent:
    """The parameters, the optimiser and its schedule."""

    def __init__(self, objective: BatchedObjective, start: Tensor, options: DescentOptions):
        self._objective, memory = objective, options.memory
        self.parameter = torch.nn.Parameter(start.clone())
        self._smoothness, rate = _first_rate(objective, options)
        self._optimizer = _made(options.optimizer, self.parameter, rate)
        self.n_passes = 0.0
        self._averages, self._mean, self._n_updates, self._n_epochs = options.average, start.clone(), 0, 0
        if memory is not None and memory.state:  # some optimisers make theirs at once, and miss it
            groups = self._optimizer.state_dict()["param_groups"]
            self._optimizer.load_state_dict({"state": memory.state, "param_groups": groups})
        (self._group,) = self._optimizer.param_groups
        self._settings = dict(self._group)
        if memory is not None:
            self._group.update(memory.group)
            self._mean = memory.mean.to(start, copy=True)
            self._n_updates, self._n_epochs = memory.n_updates, memory.n_epochs
        updates = 1 if options.batch_size is None else -(-objective.n_rows // options.batch_size)
        self._schedule = SCHEDULES[options.schedule](self._optimizer, updates, options.max_iter, self._n_epochs)
        self._adapts = options.schedule == "adaptive"
        self._lowest_rate = ADAPTIVE_END * self._group["lr"]

    @property
    def theta(self) -> Tensor:
        """The parameters, or their mean over the updates, as they are now."""
        return (self._mean if self._averages else self.parameter.detach()).clone()

    def epoch(self, options: DescentOptions) -> float:
        """Visit every row, as often as the optimiser asks; return the mean of the batches' losses before that."""
        values, shares, n_asked = [], [], 0
        for share, batch in self._objective.batches(options.batch_size, options.generator, options.shuffle):
            found = []  # the loss each time that the optimiser asks for it

            def closure(batch=batch, found=found):
                point = batch.at(self.parameter.detach())  # which a step may have put elsewhere in memory
                self.parameter.grad = point.gradient.contiguous()  # of sparse rows it lies column by column
                found.append(point.value)
                return point.value

            self._optimizer.step(closure)
            if not found:
                raise TypeError(f"{type(self._optimizer).__name__}.step has to call the closure that it is given.")
            values.append(found[0])
            shares.append(share)
            n_asked += len(found)
            self._n_updates += 1
            if self._averages:
                self._mean += (self.parameter.detach() - self._mean) / self._n_updates
            if self._schedule is not None:
                self._schedule.step()
        self.n_passes += n_asked / len(shares)
        self._n_epochs += 1
        return (torch.cat(values) @ torch.tensor(shares, dtype=values[0].dtype, device=values[0].device)).item()

    def slow_down(self) -> bool:
        """Whether there is a smaller rate to go on with."""
        if not self._adapts:
            return False
        self._group["lr"] /= ADAPTIVE_FACTOR
        return self._group["lr"] > self._lowest_rate

    def memory(self) -> Memory:
        """What the next run may go on with, as it is now: an epoch that is interrupted is none."""
        theta, mean = self.parameter.detach().clone(), self._mean.clone()
        state, group = deepcopy((self._optimizer.state_dict()["state"], self._noted()))
        return Memory(state, group, self._smoothness, self._n_updates, self._n_epochs, theta, mean)

    def _noted(self) -> dict:
        """What the optimiser has set anew in its group, such as a count of its steps; rates are set by schedules."""
        group = {name: value for name, value in self._group.items() if name not in RATES}
        return {name: value for name, value in group.items() if value is not self._settings.get(name)}


def _made(optimizer: Callable, parameter: Tensor, rate: float | None) -> torch.optim.Optimizer:
    """An optimiser of a parameter, given the rate by torch's name for it or, if it has another, in its place."""
    known = signature(optimizer).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
    if rate is None:
        made = optimizer([parameter])
    elif "lr" in known or takes_any:
        made = _by_name(optimizer, parameter, rate)
    else:
        made = optimizer([parameter], rate)
    group = made.param_groups[0]
    if "lr" not in group or rate not in (None, group["lr"]):
        raise TypeError(
            f"solver={type(made).__name__} does not keep its learning rate as 'lr' in its param_groups, as optimisers "
            "of torch.optim do, by which schedules and epochs go. Pass lr in the defaults of its base class."
        )
    return made


def _by_name(optimizer: Callable, parameter: Tensor, rate: float) -> torch.optim.Optimizer:
    """One that takes ``lr``, or passes it on to what it sets from another name: then by its place."""
    try:
        return optimizer([parameter], lr=rate)
    except TypeError:
        return optimizer([parameter], rate)


def _first_rate(objective: BatchedObjective, options: DescentOptions) -> tuple[float, float | None]:
    """The smoothness of the losses, as it is known after this run, and the rate with which the run begins."""
    known = 0.0 if options.memory is None else options.memory.smoothness
    if options.learning_rate != "auto":
        return known, options.learning_rate
    smoothness = max(objective.smoothness(options.batch_size).item(), known)  # rows may be less steep than some before
    return smoothness, 1 / max(smoothness + objective.largest_l2.item(), LEAST_SMOOTHNESS)
