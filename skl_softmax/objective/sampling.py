"""Samples of the rows of an objective, and what they tell of all rows."""

from dataclasses import replace

import torch
from torch import Tensor

from skl_softmax.data import spread_rows

# Sizes of the samples that a fit from zero goes through on its way to all rows: the first has this many rows for
# each parameter, each next one this many times as many, and all rows follow when they are not much more.
FIRST_SAMPLE, SAMPLE_GROWTH = 8, 8
# A sample's optimum is about P / 2m above that of all rows; the solution on the sample need not be nearer than this
# part of it.
SAMPLE_ACCURACY = 0.05
# What a sample may take of X beyond the rows that its parameters call for, so that it is small beside the memory also
# where X is a file that is not.
SAMPLE_BYTES = 256 * 2**20
# Rows that tell what float32 loses. For 512 to 4,096 of 20,000 x 512 x 100, with C from 1e-2 to 1e4, that was 5 to 40
# times what it is for all rows, of which more errors cancel; with C=1e-4 up to 340 times.
ROUNDING_ROWS = 1024


def sample(objective, n_rows: int):
    """F of ``n_rows`` rows, one drawn from each of as many equal parts of them; of all rows if there are no more.

    Of fewer rows if those would take more than `SAMPLE_BYTES`; of more where none of them counts in some model.
    """
    if n_rows >= objective.data.n_rows:
        return objective
    weights = objective.weights  # (M or 1, n)
    index = spread_rows(objective.data.n_rows, min(n_rows, _largest(objective))).to(weights.device)
    missed = (weights[:, index] > 0).logical_not_().all(dim=1)  # (M or 1,)
    return objective.take(_with_rows_of(weights[missed], index) if missed.any() else index)


def _with_rows_of(weights: Tensor, index: Tensor) -> Tensor:
    """These rows and as many, or all, of those that count in each of some models, by their weights (models, n)."""
    own = [of_model.nonzero()[:, 0] for of_model in weights]
    drawn = [rows[spread_rows(len(rows), min(len(rows), len(index))).to(rows.device)] for rows in own]
    return torch.cat([index, *drawn]).unique()


def _largest(objective) -> int:
    """Rows that a sample has at most."""
    return max(FIRST_SAMPLE * objective.n_parameters, SAMPLE_BYTES // objective.data.row_bytes)


def stages(objective, n_all: int) -> list[tuple]:
    """Ever larger samples on the way to all rows, each with the gap to its minimum that is near enough.

    ``n_all`` is the number of all rows, where the objective's are a sample of them themselves.
    """
    found, n_rows = [], FIRST_SAMPLE * objective.n_parameters
    while n_rows <= min(objective.n_rows, _largest(objective)) and 4 * n_rows <= n_all:
        found.append((objective.sample(n_rows), SAMPLE_ACCURACY * objective.n_parameters / (2 * n_rows)))
        n_rows *= SAMPLE_GROWTH
    return found


def rounding(objective, theta: Tensor) -> tuple:
    """What float32 adds to F and its gradient at θ, and what part of a pass it takes to tell."""
    rows = objective.sample(ROUNDING_ROWS)
    exact, rounded = rows.at(theta), rows.in_float32.at(theta)
    lost = replace(exact, value=rounded.value - exact.value, gradient=rounded.gradient - exact.gradient)
    return lost, 2 * rows.n_rows / objective.n_rows


def excess(objective, theta: Tensor, change: Tensor, gradient: Tensor) -> Tensor:
    """F(θ + change) - F(θ), (M,), from the gradient at θ and, for higher orders, some rows."""
    rows = objective.sample(ROUNDING_ROWS)
    here, there = rows.at(theta), rows.at(theta + change)
    slopes = ((gradient - here.gradient) * change).sum(dim=(1, 2))  # (M,)
    return there.value - here.value + slopes
