"""Gradient descent on the whole data or on mini-batches."""

from math import inf

import torch
from torch import Tensor

from skl_softmax.solvers.base import SolveResult, SolverOptions, Status

# Epochs without progress after which a run ends. Full-batch descent at the step sizes of textbooks zigzags for
# dozens of epochs before it gets going (the published examples do).
PATIENCE = 100


def sgd(objective, start: Tensor, options: SolverOptions) -> SolveResult:
    """Gradient descent, θ ← θ - learning_rate · ∇F(θ), by `torch.optim.SGD`, for a stack of one model.

    Each epoch visits every row once, in batches in a random order, or in one batch that holds all rows.
    The loss of an epoch is the mean over its batches, each before its update. The run ends after ``max_iter`` epochs
    or when the loss has not fallen by more than tol of itself in `PATIENCE` epochs. If it is then above where it
    began, or infinite, the run has diverged, and the parameters of its best epoch are returned.
    """
    parameter = torch.nn.Parameter(start.clone())
    rate = options.learning_rate
    if rate == "auto":
        rate = 1 / objective.smoothness(options.batch_size).item()
    optimizer = torch.optim.SGD([parameter], lr=rate)
    curve: list[float] = []
    best, best_epoch, best_theta, status, n_passes = inf, 0, start, Status.MAX_ITER, 0
    for epoch in range(options.max_iter):
        before = parameter.detach().clone()
        values = []
        for batch in objective.batches(options.batch_size, options.generator):
            point = batch.at(parameter.detach())
            parameter.grad = point.gradient
            optimizer.step()
            values.append(point.value)
        n_passes += 1
        value = torch.cat(values).mean().item()
        curve.append(value)
        if options.report is not None:
            options.report(epoch, torch.tensor([value]), None)
        if epoch == 0 or value < best - options.tol * abs(best):
            best, best_epoch, best_theta = value, epoch, before
        if not parameter.isfinite().all() or epoch - best_epoch >= PATIENCE:
            status = Status.STALLED if value <= curve[0] else Status.DIVERGED
            break
    if status is Status.DIVERGED:
        parameter.data = best_theta
    return SolveResult(
        theta=parameter.detach(),
        gap=torch.full((1,), torch.nan, dtype=torch.float64),
        n_iter=[len(curve)],
        status=[status],
        loss_curve=[curve],
        n_passes=n_passes,
    )
