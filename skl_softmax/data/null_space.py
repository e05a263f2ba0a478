"""Directions in which no logit moves, as one-hot encoded categories leave them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_array, csr_array
from scipy.sparse.linalg import SuperLU, splu
from torch import Tensor

from skl_softmax.data.compressed import take_compressed
from skl_softmax.data.rows import spread_rows

# How many rows find out most ranges of columns that are no category, and most categories that nest in no other.
FEW_ROWS, SOME_ROWS = 16, 1024
# How often others are looked for in place of ranges that are no category.
ROUNDS = 10
# What sums of a few numbers may be off by.
ROUNDING = 1e-12


@dataclass(frozen=True)
class NullSpace:
    """Directions N (p, m) in which no logit moves: X̃ N = 0.

    Only the penalty curves F along them, so that a metric that mixes them with others leaves tiny eigenvalues. The
    penalty is least where Nᵀ Λ θ = 0, with Λ = 1 for weights and 0 for the intercept. Such parameters are orthogonal to
    N in the Hessian, wherever θ is and whatever rows weigh, and gradients at them have nothing along N. With
    I - N (Nᵀ Λ N)⁻¹ Nᵀ Λ and its transpose around a metric, what is solved for stays among them: deflation, as in Saad,
    Yeung, Erhel & Guyomarc'h (2000), "A deflated version of the conjugate gradient algorithm".
    """

    directions: csr_array

    def centred(self, theta: Tensor) -> Tensor:
        """The same logits from parameters (M, K, p), on the CPU, where the penalty is least."""
        columns = _columns_of(theta)  # (p, M K)
        return _like(theta, columns - self.directions @ self._gram.solve(self._of_weights.T @ columns))

    def balanced(self, gradient: Tensor) -> Tensor:
        """A gradient (M, K, p) without what rounding has left along N: the transpose of `centred`."""
        columns = _columns_of(gradient)  # (p, M K)
        return _like(gradient, columns - self._of_weights @ self._gram.solve(self.directions.T @ columns))

    @cached_property
    def covers_most(self) -> bool:
        """Whether most columns are part of it."""
        return 2 * np.count_nonzero(np.diff(self.directions.indptr)) > self.directions.shape[0]

    @cached_property
    def _of_weights(self) -> csr_array:
        """Λ N, (p, m)."""
        weights = self.directions[:-1]
        return csr_array((weights.data, weights.indices, np.append(weights.indptr, weights.nnz)), self.directions.shape)

    @cached_property
    def _gram(self) -> SuperLU:
        """Nᵀ Λ N, factorised: categories and those that they nest in are a forest, of which factors are as sparse."""
        return splu((self._of_weights.T @ self._of_weights).tocsc())


def _columns_of(vectors: Tensor) -> np.ndarray:
    """Vectors (M, K, p) as columns (p, M K) in float64, as the few entries of N are."""
    return vectors.permute(2, 0, 1).flatten(1).double().numpy()


def _like(vectors: Tensor, columns: np.ndarray) -> Tensor:
    """Columns (p, M K) as those vectors (M, K, p) were."""
    return torch.from_numpy(columns).to(vectors.dtype).unflatten(1, vectors.shape[:2]).permute(1, 2, 0)


@dataclass(frozen=True)
class Categories:
    """Ranges of columns, in each of which every row has entries of the same sum: one of its levels, if one-hot."""

    ranges: np.ndarray  # (G, 2), where each starts and stops
    value: np.ndarray  # (G,), the sum
    counts: np.ndarray  # (d,), entries of each column

    @cached_property
    def of_column(self) -> np.ndarray:
        """In which category a column is, (d,); G for those in none."""
        category = np.full(len(self.counts), len(self.ranges))
        for number, (start, stop) in enumerate(self.ranges):
            category[start:stop] = number
        return category

    @cached_property
    def levels(self) -> list[np.ndarray]:
        """The columns of each that have entries."""
        return [start + np.flatnonzero(self.counts[start:stop]) for start, stop in self.ranges]

    def select(self, some: np.ndarray) -> "Categories":
        """Some of them."""
        return replace(self, ranges=self.ranges[some], value=self.value[some])


def find_null_space(X: Tensor, times: Callable[[Tensor], Tensor]) -> NullSpace | None:
    """That of the categories in a matrix in compressed rows, with sorted entries, beside an intercept; None without.

    What is added to the weights of all levels of a category may be taken off the intercept, the "dummy variable trap";
    of those levels that nest in one of another category, as cities in a country, off that one's weight. ``times``
    multiplies X by a vector (d,), in float64. Cost: such a product, once more where some rows have no level; to count
    the entries of columns; for each category that nests in another, to look that up in all rows.
    """
    categories = _find_categories(X, times)
    if categories is None:
        return None
    (above, values), levels, width = _find_parents(X, categories), categories.levels, X.shape[1] + 1
    category = np.repeat(np.arange(len(levels)), list(map(len, levels)))
    # A direction for each category and what is above some of its levels.
    keys, direction = np.unique(category * width + np.concatenate(above), return_inverse=True)
    ratios = (categories.value / values)[keys // width]
    places = np.concatenate([*levels, keys % width]), np.concatenate([direction, np.arange(len(keys))])
    return NullSpace(coo_array((np.concatenate([np.ones(len(direction)), -ratios]), places)).tocsr())


def _find_categories(X: Tensor, times: Callable[[Tensor], Tensor]) -> Categories | None:
    """Those whose columns lie side by side."""
    counts = torch.bincount(X.col_indices(), minlength=X.shape[1])  # (d,)
    ranges, some = _find_ranges(X, counts), torch.cat([torch.zeros(1, dtype=torch.long), _few_rows(X)])
    for _ in range(ROUNDS):
        if not len(ranges):
            break
        found = Categories(_disjoint(ranges), np.zeros(0), counts.numpy())
        sums = _row_sums(X, some, found)  # (rows, G)
        found, holds = replace(found, value=sums[0]), _agree(sums, sums[0]).all(axis=0) & (sums[0] != 0)
        if holds.all():
            holds = _hold(X, found, times)
            if holds.all():
                return found
        # Others may lie across those that do not hold.
        ranges = ranges[~np.isin(ranges[:, 0], found.ranges[~holds, 0])]
    return None


def _hold(X: Tensor, categories: Categories, times: Callable[[Tensor], Tensor]) -> np.ndarray:
    """In which of them all rows have the same sum, (G,)."""
    # Numbers of which no other sum of some is their sum.
    marks = 1 + np.random.default_rng(0).random(len(categories.value))
    sums = times(torch.from_numpy(np.append(marks / categories.value, 0.0)[categories.of_column])).numpy()  # (n,)
    wrong = torch.from_numpy(np.flatnonzero(~_agree(sums, marks.sum()))[:SOME_ROWS])
    return _agree(_row_sums(X, wrong, categories), categories.value).all(axis=0)


def _disjoint(ranges: np.ndarray) -> np.ndarray:
    """Those of ranges (G, 2), in order, that do not overlap the last one of them."""
    kept, end = [], 0
    for start, stop in ranges.tolist():
        if start >= end:
            kept.append((start, stop))
            end = stop
    return np.array(kept, dtype=np.int64).reshape(-1, 2)


def _agree(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Whether numbers are equal to rounding, and neither infinite nor NaN."""
    return np.isclose(found, expected, rtol=ROUNDING, atol=0.0) & np.isfinite(expected)


def _find_ranges(X: Tensor, counts: Tensor) -> np.ndarray:
    """Ranges of columns (G, 2) that have as many entries as there are rows, one in each of a few rows."""
    columns, ends = X.col_indices(), X.crow_indices()
    before = torch.cat([counts.new_zeros(1), counts.cumsum(0)])  # (d + 1,)
    goals = before[:-1] + X.shape[0]
    stops = torch.searchsorted(before, goals).clamp_max(X.shape[1])
    starts = ((before[stops] == goals) & (counts > 0)).nonzero()[:, 0]
    stops = stops[starts]
    for row in _few_rows(X).tolist():
        entries = columns[int(ends[row]) : int(ends[row + 1])].long()
        is_one = torch.searchsorted(entries, stops) - torch.searchsorted(entries, starts) == 1
        starts, stops = starts[is_one], stops[is_one]
    return torch.stack([starts, stops], dim=1).numpy()


def _few_rows(X: Tensor) -> Tensor:
    """Rows by which most ranges of columns that are no category are found out."""
    return spread_rows(X.shape[0], min(FEW_ROWS, X.shape[0]))


def _row_sums(X: Tensor, index: Tensor, categories: Categories) -> np.ndarray:
    """Sums of some rows over the columns of each category, (rows, G)."""
    x, width = take_compressed(X, index), len(categories.ranges) + 1
    rows = torch.arange(len(index)).repeat_interleave(x.crow_indices().diff())
    places = rows * width + torch.from_numpy(categories.of_column)[x.col_indices()]
    sums = torch.bincount(places, x.values().double(), minlength=len(index) * width)
    return sums.view(-1, width)[:, :-1].numpy()


def _find_parents(X: Tensor, categories: Categories) -> tuple[list[np.ndarray], np.ndarray]:
    """Of each category the column that is above each of its levels (levels,), and the value of these, (G,).

    That is of the category with most levels in which it nests, or else the intercept's.
    """
    above, values = [np.full(len(levels), X.shape[1]) for levels in categories.levels], np.ones(len(categories.value))
    level_of = _levels_of_rows(X, categories)
    if level_of is None:
        return above, values
    some = level_of[spread_rows(len(level_of), min(SOME_ROWS, len(level_of))).numpy()]
    sizes = list(map(len, categories.levels))
    order = sorted(range(len(sizes)), key=lambda number: (sizes[number], number), reverse=True)
    for place, child in enumerate(order):
        nests = _nests(some[:, child], some)  # (G,)
        for parent in order[place + 1 :]:
            if not nests[parent]:
                continue
            of_level = np.empty(X.shape[1], level_of.dtype)
            of_level[level_of[:, child]] = level_of[:, parent]
            if (of_level[level_of[:, child]] == level_of[:, parent]).all():
                above[child], values[child] = of_level[categories.levels[child]], categories.value[parent]
                break
    return above, values


def _nests(levels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """In which of others (n, G) the levels (n,) of some rows nest, (G,): rows of the same have the same there."""
    _, level = np.unique(levels, return_inverse=True)
    last = np.empty((level.max() + 1, others.shape[1]), others.dtype)
    last[level] = others
    return (last[level] == others).all(axis=0)


def _levels_of_rows(X: Tensor, categories: Categories) -> np.ndarray | None:
    """Each row's level of each category (n, G), if it has one entry in each."""
    columns, shape = X.col_indices().numpy(), (X.shape[0], len(categories.value))
    if len(columns) != shape[0] * shape[1]:
        columns = columns[(categories.of_column < shape[1])[columns]]
    return columns.reshape(shape) if len(columns) == shape[0] * shape[1] else None
