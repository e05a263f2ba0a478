"""Stretches of rows that count in the same models.

The model of a fold has no use for the rows that the fold holds out: of five folds each row counts in four. Where rows
that count in the same models lie together, what is summed over them is so for these models alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from itertools import groupby, pairwise
from operator import attrgetter

import torch
from torch import Tensor

from skl_softmax.data import Affine

# Rows in the mean of all stretches below which none are made: thousands would be, to find that they do not pay.
LEAST_ROWS = 256
# Models up to which an integer tells which of them a row counts in.
MOST_MODELS = 62


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive rows, and the models in which they count."""

    rows: slice
    models: Tensor | None  # indices (m,), in ascending order; None for all

    @property
    def is_whole(self) -> bool:
        """Whether it is all rows, for all models."""
        return self.models is None

    def some(self, by_model: Tensor, dim: int = 0) -> Tensor:
        """What belongs to these models, of a tensor that has an entry for each along a dimension."""
        return by_model if self.is_whole else by_model.index_select(dim, self.models)

    def of(self, affine: Affine, n_models: int) -> Affine:
        """The parameters of these models, (m K, ...), of those of all of them (M K, ...)."""
        if self.is_whole:
            return affine
        by_model = (t if t is None else t.unflatten(0, (n_models, -1)) for t in (affine.weight, affine.bias))
        return Affine(*(t if t is None else self.some(t).flatten(0, 1) for t in by_model))


# All rows, for all models.
WHOLE = Stretch(slice(None), None)


def find_stretches(weights: Tensor) -> list[Stretch]:
    """Those of rows of these weights (M, n), but where they count in no model; `WHOLE` where they are short."""
    counts, n_rows = weights > 0, weights.shape[1]
    edges = (counts[:, 1:] != counts[:, :-1]).any(dim=0).nonzero()[:, 0] + 1
    if len(edges) == 0 or (len(edges) + 1) * LEAST_ROWS > n_rows:
        return [WHOLE]
    ends = [0, *edges.tolist(), n_rows]
    which = [counts[:, start].nonzero()[:, 0] for start in ends[:-1]]
    found = [Stretch(slice(*rows), models) for rows, models in zip(pairwise(ends), which, strict=True)]
    return [stretch for stretch in found if len(stretch.models)]


def order_rows(weights: Tensor) -> Tensor | None:
    """An order (n,) in which rows of these weights (M, n) lie in stretches, if they can."""
    if len(weights) > MOST_MODELS:
        return None
    powers = 2 ** torch.arange(len(weights), device=weights.device)
    kinds = ((weights > 0) * powers[:, None]).sum(dim=0)  # (n,)
    n_kinds = len(kinds.unique())
    return kinds.argsort(stable=True) if n_kinds > 1 and n_kinds * LEAST_ROWS <= len(kinds) else None


def sum_over(portions: Iterable, affine: Affine, n_models: int, of_portion: Callable) -> list[Tensor | None]:
    """The sum over portions of what ``of_portion(portion, affine)`` makes of each, with the parameters of its models.

    That is a tuple of tensors that have one or K entries for each of these models, which come to be those of all.
    """
    whole = None
    for stretch, same in groupby(portions, key=attrgetter("stretch")):
        part = stretch.of(affine, n_models)
        sums = reduce(_add, (of_portion(portion, part) for portion in same))
        if stretch.is_whole:  # there is no other
            return list(sums)
        whole = [_zeros(term, len(stretch.models), n_models) for term in sums] if whole is None else whole
        for total, term in zip(whole, sums, strict=True):
            if term is not None:
                total.index_add_(0, stretch.models, term.unflatten(0, (len(stretch.models), -1)))
    return [None if total is None else total.flatten(0, 1) for total in whole]


def _add(one: tuple, other: tuple) -> tuple:
    """Their sums, to add up terms one after the other.

    Those of all blocks in a list lie between the blocks' memory, which then is never used again.
    """
    return tuple(None if a is None else a + b for a, b in zip(one, other, strict=True))


def _zeros(term: Tensor | None, some: int, n_models: int) -> Tensor | None:
    """Zeros (M, entries for each, ...) for terms of some of M models."""
    return None if term is None else term.new_zeros(n_models, len(term) // some, *term.shape[1:])
