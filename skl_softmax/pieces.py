"""Rows that are elsewhere, in pieces, on the way to an objective.

`load_piece` (what the user passed, as tensors) → `encode` (targets and weights, once the labels of all pieces are
known) → `skl_softmax.parts.make_parts` (once the coordinates are known, from a sample that is drawn here).
"""

from copy import copy
from dataclasses import dataclass, replace
from functools import reduce
from math import ceil
from operator import add

import numpy as np
import torch
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from skl_softmax.data import column_ranges, join_rows, n_bytes, spread_rows
from skl_softmax.inputs import (
    TrainingRows,
    as_arrays,
    as_labels,
    check_prediction_rows,
    check_training_rows,
    check_weights,
    naming,
)
from skl_softmax.objective import costs
from skl_softmax.objective.sampling import FIRST_SAMPLE, SAMPLE_GROWTH
from skl_softmax.targets import (
    as_classes,
    check_probabilities,
    class_weights,
    encode_targets,
    has_columns,
    refuse_missing_labels,
    refuse_other_objects,
    refuse_other_order,
    refuse_single_class,
)

# What the sample of rows may take, of X.
DRAWN_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Piece:
    """Rows as the user passed them, X as a tensor."""

    name: str  # by which errors call it
    X: Tensor  # (n, d)
    y: np.ndarray  # (n,) or (n, K)
    sample_weight: np.ndarray | None  # (n,), float64

    def __sizeof__(self):
        return n_bytes(self.X) + self.y.nbytes


class RowGroup(list):
    """Rows of several pieces, each piece's as `TrainingRows`."""

    def __sizeof__(self):
        shared = next((rows.label_proba.nbytes for rows in self if rows.label_proba is not None), 0)
        return shared + sum(n_bytes(rows.X) + rows.targets.nbytes + rows.weights.nbytes for rows in self)


def load_piece(name: str, checker, X, y, sample_weight, classes=None) -> Piece | None:
    """Check X and turn it into a tensor; None if there are no rows.

    ``checker`` is an estimator that knows the number and names of the features, ``classes`` are those of the fit.
    """
    with naming(name):
        if y is None:
            raise ValueError("y is None, but rows to fit need labels: pass (X, y) or (X, y, sample_weight).")
        y, sample_weight = as_arrays(y), as_arrays(sample_weight)  # of a tensor, each label would be an object below
        refuse_missing_labels(y)
        refuse_other_order(y, classes)
        check_consistent_length(X, y)
        if np.shape(X)[0] == 0:
            return None
        X, y = check_prediction_rows(checker, X), np.asarray(as_labels(y))
        if not has_columns(y):
            refuse_other_objects(y)
        sample_weight = None if sample_weight is None else check_weights(sample_weight, X, may_be_zero=True)
        return Piece(name, X.contiguous() if X.layout == torch.strided else X, y, sample_weight)


# Labels and the weight of the rows that have them.
Counts = tuple[np.ndarray, np.ndarray]


def count_labels(piece: Piece | None) -> Counts | None:
    """The weight of the rows of each label; for probabilities of classes, of each column."""
    if piece is None:
        return None
    with naming(piece.name):
        weights = np.ones(len(piece.y)) if piece.sample_weight is None else piece.sample_weight
        if has_columns(piece.y):
            proba, columns = check_probabilities(piece.y, None)
            return columns, weights @ proba
        return _grouped(piece.y, weights)


def merge_counts(counts: list[Counts | None]) -> Counts | None:
    """The sum of counts."""
    found = [count for count in counts if count is not None]
    if len({isinstance(labels[0], str) for labels, _ in found}) > 1:
        raise ValueError(
            "y holds strings in some parts of the rows and numbers in others: make all labels of one kind."
        )
    return _grouped(*map(np.concatenate, zip(*found, strict=True))) if found else None


def _grouped(labels: np.ndarray, weights: np.ndarray) -> Counts:
    labels, places = np.unique(labels, return_inverse=True)
    return labels, np.bincount(places, weights, minlength=len(labels))


def settle_classes(counts: Counts | None, classes, is_soft: bool) -> Counts:
    """The sorted classes and the weight of the rows of each; a class need not have any.

    ``classes`` are all labels, or for probabilities the labels of the columns, if not those that were counted.
    """
    if counts is None:
        raise ValueError("X has no rows.")
    labels, weights = counts
    found, order = np.unique(labels if classes is None else as_classes(classes), return_index=True)
    if is_soft and len(found) != len(labels):
        raise ValueError(f"classes names {len(found)} different classes, but y has {len(labels)} columns.")
    refuse_single_class(found, classes is not None)
    if is_soft:
        return found, weights[order]
    by_class, known = np.zeros(len(found)), np.isin(labels, found)
    by_class[np.searchsorted(found, labels[known])] = weights[known]
    return found, by_class


def make_encoder(checker, classes: np.ndarray, weights: np.ndarray):
    """The ``checker`` of pieces as one of their tensors, which knows what the classes weigh."""
    encoder = copy(checker)
    encoder.class_weight = class_weights(checker, classes, weights)
    vars(encoder).pop("feature_names_in_", None)  # tensors have none
    return encoder


def encode(pieces: list[Piece | None], checker, classes: np.ndarray) -> RowGroup:
    """Rows that count, with targets and weights; ``checker`` has the weights of the classes of all pieces."""
    group = RowGroup()
    for piece in pieces:
        if piece is None:
            continue
        with naming(piece.name):
            if _counts(piece, checker, classes):
                rows = check_training_rows(checker, piece.X, piece.y, piece.sample_weight, classes, reset=False)
                group.append(_sharing(rows, checker))
    return group


def _sharing(rows: TrainingRows, encoder) -> TrainingRows:
    """The rows with the matrix of smoothed labels that others of this encoder have: one for each would fill memory."""
    if rows.label_proba is None:
        return rows
    return replace(rows, label_proba=vars(encoder).setdefault("_label_proba", rows.label_proba))


def _counts(piece: Piece, checker, classes: np.ndarray) -> bool:
    """Whether any row has a weight other than zero: a piece need not have one."""
    weights = np.ones(len(piece.y)) if piece.sample_weight is None else piece.sample_weight
    if checker.class_weight is not None:
        weights = weights * encode_targets(checker, piece.y, classes, weights, for_folds=False).of_row
    return bool((weights != 0).any())


@dataclass(frozen=True)
class Tally:
    """What has to be known of all rows."""

    n_rows: int
    n_bytes: int  # of X, and of targets that are probabilities
    total_weight: float  # S
    lightest: float  # the smallest s_i
    telling: Tensor  # up to three targets that tell whether all are alike and any lies between 0 and 1
    lowest: Tensor  # (d,), of the columns of dense X
    highest: Tensor  # (d,)

    @classmethod
    def of(cls, rows: TrainingRows) -> "Tally":
        """That of some rows."""
        total_weight, lightest = rows.weights.sum().item(), rows.weights.min().item()
        targets = rows.output_targets
        telling = targets[_telling(targets)]
        size = n_bytes(rows.X) + (0 if rows.has_labels else targets.nbytes)
        return cls(len(rows.weights), size, total_weight, lightest, telling, *column_ranges(rows.X))

    def __add__(self, other: "Tally") -> "Tally":
        if len(self.lowest) != len(other.lowest):  # none of sparse rows
            raise ValueError("X is sparse in some partitions and dense in others: make all of them of one kind.")
        telling = torch.cat([self.telling, other.telling])
        return Tally(
            self.n_rows + other.n_rows,
            self.n_bytes + other.n_bytes,
            self.total_weight + other.total_weight,
            min(self.lightest, other.lightest),
            telling[_telling(telling)],
            torch.minimum(self.lowest, other.lowest),
            torch.maximum(self.highest, other.highest),
        )


def _telling(targets: Tensor) -> Tensor:
    """The places of the first target, of one that differs from it, and of one between 0 and 1, where there are such."""
    flat = targets.view(len(targets), -1)
    differs, between = (flat != flat[:1]).any(dim=1), ((flat > 0) & (flat < 1)).any(dim=1)
    return torch.stack([torch.zeros((), dtype=torch.int64), *(m.long().argmax() for m in (differs, between))]).unique()


def tally(group: RowGroup) -> Tally | None:
    """That of the rows of a group; None if there are none."""
    return merge_tallies([Tally.of(rows) for rows in group])


def merge_tallies(tallies: list[Tally | None]) -> Tally | None:
    """Their sum; None if there are none."""
    return reduce(add, found) if (found := [t for t in tallies if t is not None]) else None


def sample_share(n_rows: int, size: int, n_columns: int, n_outputs: int) -> float:
    """Which part of ``n_rows`` rows of ``size`` bytes is enough to know the curvature from, as far as memory allows."""
    enough = max(costs.ROWS_PER_COLUMN * n_columns, FIRST_SAMPLE * SAMPLE_GROWTH * n_columns * n_outputs)
    return min(1.0, enough / n_rows, DRAWN_BYTES / size)


def draw(group: RowGroup, share: float, before: int = 0) -> RowGroup:
    """A part of the rows, weighted so that they stand for all: of the first piece one or more, of small ones some none.

    ``before`` is how many rows there are in groups that were drawn from before.
    """
    drawn = RowGroup()
    for rows in group:
        n_rows = len(rows.weights)
        wanted = ceil(share * (before + n_rows)) - ceil(share * before)
        before += n_rows
        if wanted:
            some = rows.take(spread_rows(n_rows, wanted))  # a copy: the next block may be made in the same memory
            drawn.append(replace(some, X=some.X.cpu(), weights=some.weights / share))
    return drawn


def join(groups: list[RowGroup]) -> TrainingRows:
    """All rows of some groups."""
    rows = reduce(add, map(list, groups))
    targets, weights = (torch.cat([getattr(part, name) for part in rows]) for name in ("targets", "weights"))
    return replace(rows[0], X=join_rows([part.X for part in rows]), targets=targets, weights=weights)
