"""F of rows that are in parts elsewhere: on the workers of a cluster, or in files.

F is a sum over rows, so it is one over parts of the rows,

    F(θ) = Σ_parts F_part(θ) + λ/2 ‖W‖²,        F_part(θ) = (1/S) Σ_{i in part} s_i ℓ(y_i, z_i),

S the weight of all rows, and so are its gradient and curvature. A part is an ordinary `Objective` without a penalty, in
the coordinates that all parts share; `PartsObjective` is what a solver sees. It has no rows but a sample of them, from
which it knows the curvature.

What becomes of rows on the way: `load_piece` (what the user passed, as tensors) → `encode` (targets and weights, once
the labels of all pieces are known) → `make_parts` (once the coordinates are known).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import ceil, inf
from operator import add

import numpy as np
import torch
from sklearn.utils.validation import check_consistent_length
from torch import Tensor

from skl_softmax import costs, curvature, metrics
from skl_softmax.data import Data, column_ranges, join_rows, making_on, n_bytes, spread_rows, standardised, take_rows
from skl_softmax.inputs import TrainingRows, as_arrays, check_prediction_rows, check_training_rows
from skl_softmax.objective import FIRST_SAMPLE, SAMPLE_GROWTH, Evaluation, Objective
from skl_softmax.solvers import DETERMINISTIC, SOLVERS
from skl_softmax.targets import as_classes, class_weights, has_columns, refuse_missing_labels
from skl_softmax.training import make_stack

# What minimises F of parts: neither an L1 penalty nor batches are known here.
PARTS_SOLVERS = ("auto", *(name for name in DETERMINISTIC if not SOLVERS[name].takes_l1))
# What the sample of rows may take, of X.
SAMPLE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Piece:
    """Rows as the user passed them, X as a tensor."""

    name: str  # by which errors call it
    X: Tensor  # (n, d)
    y: np.ndarray  # (n,) or (n, K)
    sample_weight: np.ndarray | None  # (n,)

    def __sizeof__(self):
        return n_bytes(self.X) + self.y.nbytes


class RowGroup(list):
    """Rows of several pieces, each piece's as `TrainingRows`."""

    def __sizeof__(self):
        return sum(n_bytes(rows.X) + rows.targets.nbytes + rows.weights.nbytes for rows in self)


class PartGroup(list):
    """Parts that are added up together, each an `Objective`."""

    def __sizeof__(self):
        return sum(n_bytes(part.data.X) + part.targets.nbytes + part.weights.nbytes for part in self)


@contextmanager
def naming(piece: str) -> Iterator[None]:
    """Errors in the block say in which piece they are."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{piece}: {error}") from error


def load_piece(name: str, checker, X, y, sample_weight) -> Piece | None:
    """Check X and turn it into a tensor; None if there are no rows.

    ``checker`` is an estimator that knows the number and names of the features.
    """
    with naming(name):
        if y is None:
            raise ValueError("y is None, but rows to fit need labels: pass (X, y) or (X, y, sample_weight).")
        y, sample_weight = as_arrays(y), as_arrays(sample_weight)  # of a tensor, each label would be an object below
        refuse_missing_labels(y)
        check_consistent_length(X, y, sample_weight)
        if np.shape(X)[0] == 0:
            return None
        X = check_prediction_rows(checker, X)
        y, sample_weight = (None if part is None else np.asarray(part) for part in (y, sample_weight))
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y  # a table of one column
        return Piece(name, X.contiguous() if X.layout == torch.strided else X, y, sample_weight)


# Labels and the weight of the rows that have them.
Counts = tuple[np.ndarray, np.ndarray]


def count_labels(piece: Piece | None) -> Counts | None:
    """The weight of the rows of each label; for probabilities of classes, of each column."""
    if piece is None:
        return None
    with naming(piece.name):
        weights = np.ones(len(piece.y)) if piece.sample_weight is None else np.asarray(piece.sample_weight, float)
        if weights.ndim > 1:
            raise ValueError(f"sample_weight must have a number for each row, but its shape is {weights.shape}.")
        if has_columns(piece.y):
            return np.arange(piece.y.shape[1]), weights @ np.asarray(piece.y, float)
        return _grouped(piece.y, weights)


def merge_counts(counts: list[Counts | None]) -> Counts | None:
    """The sum of counts."""
    found = [count for count in counts if count is not None]
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
    if len(found) < 2:
        raise ValueError(f"y holds one class only, {found.tolist()[0]!r}, but at least two are needed.")
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
            if _counts(piece, checker.class_weight, classes):
                group.append(check_training_rows(checker, piece.X, piece.y, piece.sample_weight, classes, reset=False))
    return group


def _counts(piece: Piece, by_class: np.ndarray | None, classes: np.ndarray) -> bool:
    """Whether any row has a weight other than zero: a piece need not have one."""
    weights = 1.0 if piece.sample_weight is None else np.asarray(piece.sample_weight, float)
    if by_class is not None and not has_columns(piece.y):
        weights = weights * ~np.isin(piece.y, np.unique(classes)[by_class == 0])
    return bool(np.any(weights != 0))


@dataclass(frozen=True)
class Tally:
    """What has to be known of all rows."""

    n_rows: int
    n_bytes: int  # of X
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
        return cls(len(rows.weights), n_bytes(rows.X), total_weight, lightest, telling, *column_ranges(rows.X))

    def __add__(self, other: "Tally") -> "Tally":
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
    return min(1.0, enough / n_rows, SAMPLE_BYTES / size)


def draw(group: RowGroup, share: float) -> RowGroup:
    """A part of the rows of each piece, one or more, weighted so that they stand for all of them."""
    drawn = RowGroup()
    for rows in group:
        n_rows = len(rows.weights)
        wanted = ceil(share * n_rows)
        if wanted < n_rows:
            index = spread_rows(n_rows, wanted)
            weights = rows.weights[index] * (n_rows / wanted)
            rows = replace(rows, X=take_rows(rows.X, index), targets=rows.targets[index], weights=weights)  # noqa: PLW2901
        drawn.append(replace(rows, X=rows.X.cpu()))
    return drawn


def join(groups: list[RowGroup]) -> TrainingRows:
    """All rows of some groups."""
    rows = reduce(add, map(list, groups))
    targets, weights = (torch.cat([getattr(part, name) for part in rows]) for name in ("targets", "weights"))
    return replace(rows[0], X=join_rows([part.X for part in rows]), targets=targets, weights=weights)


def make_parts(groups: list[RowGroup], data: Data, total_weight: float) -> PartGroup:
    """The summands of F that belong to the rows of some groups, in the coordinates of ``data``."""
    total = torch.tensor([total_weight], dtype=torch.float64)
    every = (rows for group in groups for rows in group)
    parts = (make_stack(rows, data.over(rows.X), rows.weights[None], C=inf, l1_ratio=0.0) for rows in every)
    return PartGroup(replace(part, total=total.to(part.data.home)) for part in parts)


# What is added up over parts: a tuple of tensors from a part and vectors.
Quantity = Callable[..., tuple[Tensor, ...]]


def evaluation(part: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient at θ."""
    point = part.at(theta)
    return point.value, point.gradient


def narrow_evaluation(part: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient at θ, with products in float32 where they fit."""
    return evaluation(part.narrow(), theta)


def hessian_product(part: Objective, theta: Tensor, direction: Tensor) -> tuple[Tensor]:
    """The Hessian at θ times a direction."""
    return (part.hessian_product(theta)(direction),)


def narrow_hessian_product(part: Objective, theta: Tensor, direction: Tensor) -> tuple[Tensor]:
    """The same with products in float32 where they fit."""
    part = part.narrow()
    return hessian_product(part, theta, direction.to(part.dtype))


def hessian(part: Objective, theta: Tensor) -> tuple[Tensor]:
    """The Hessian at θ."""
    return (curvature.loss_hessian(part, theta),)


def hessian_diagonal(part: Objective, theta: Tensor) -> tuple[Tensor]:
    """The diagonal of the Hessian at θ."""
    return (part.hessian_diagonal(theta),)


def add_up(quantity: Quantity, parts: PartGroup, *vectors: Tensor) -> list[Tensor] | None:
    """The sum of a quantity over parts, wherever they are, on the CPU; None of no parts."""
    return merge_sums([_of_part(quantity, part, vectors) for part in parts])


def _of_part(quantity: Quantity, part: Objective, vectors: tuple[Tensor, ...]) -> list[Tensor]:
    home = part.data.home
    with making_on(home):
        return [tensor.cpu() for tensor in quantity(part, *(vector.to(home) for vector in vectors))]


def merge_sums(sums: list[list[Tensor] | None]) -> list[Tensor] | None:
    """The sum of sums."""
    found = [terms for terms in sums if terms is not None]
    return [reduce(add, terms) for terms in zip(*found, strict=True)] if found else None


@dataclass(frozen=True)
class PartsObjective:
    """F of one model over all rows.

    Parameters
    ----------
    sum_of : callable
        ``sum_of(quantity, *vectors)`` is the sum of a `Quantity` over all parts, a list of tensors.
    sample : Objective
        F of a sample of the rows, with the same λ and coordinates.
    total : Tally
        What is known of all rows.
    dtype : torch.dtype
        In which products are computed.
    """

    sum_of: Callable[..., list[Tensor]]
    sample: Objective
    total: Tally
    dtype: torch.dtype = torch.float64

    n_models = 1
    is_smooth = True
    is_family = False

    # What these are does not depend on rows.
    n_parameters, prefers_newton = Objective.n_parameters, Objective.prefers_newton
    centred, coefficients = Objective.centred, Objective.coefficients
    resolves, apart = Objective.resolves, Objective.apart

    @property
    def data(self) -> Data:
        """The coordinates, with the sample's rows."""
        return self.sample.data

    @property
    def n_outputs(self) -> int:
        return self.sample.n_outputs

    @property
    def unseen(self) -> Tensor:
        return self.sample.unseen

    @property
    def n_rows(self) -> int:
        return self.total.n_rows

    def at(self, theta: Tensor) -> Evaluation:
        """F and its gradient."""
        quantity = evaluation if self.dtype == torch.float64 else narrow_evaluation
        return self.sample.penalised(*self.sum_of(quantity, theta), theta)

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Products of the Hessian at θ with directions. Nothing of θ is kept with the rows from one to the next."""
        quantity = hessian_product if self.dtype == torch.float64 else narrow_hessian_product

        def product(direction: Tensor) -> Tensor:
            (curved,) = self.sum_of(quantity, theta, direction)
            return torch.addcmul(curved.to(direction), self.sample.quadratic.to(direction), direction)

        return product

    def largest_change(self, direction: Tensor) -> Tensor:
        """How far a step along the direction moves two logits of a row of the sample apart at most, (1,)."""
        return self.sample.largest_change(direction)

    @property
    def holds_collinear(self) -> bool:
        return self.sample.holds_collinear

    def first_order_gap(self, theta: Tensor, point: Evaluation) -> Tensor:
        """What a bound by duality is about to be, (1,), at no price."""
        return self.sample.first_order_gap(theta, point)

    def convex_gap(self, point: Evaluation) -> Tensor:  # noqa: ARG002, the best intercepts would take passes
        """Infinity: a bound that has to know the best intercepts costs passes here."""
        return torch.full((1,), inf, dtype=torch.float64)

    def inverse_hessian(self, theta: Tensor) -> curvature.Inverse:
        """The inverse of the Hessian of all rows, as a product with vectors."""
        (matrix,) = self.sum_of(hessian, theta)
        return curvature.inverse(curvature.definite(self.sample, matrix.clone()))

    def inverse_diagonal(self, theta: Tensor) -> curvature.Inverse:
        """The inverse of the diagonal of that Hessian, as a product with vectors."""
        (curved,) = self.sum_of(hessian_diagonal, theta)
        curved = curved + self.sample.quadratic  # (1, K, p)
        return curvature.Inverse(torch.mul, (torch.where(curved > 0, 1 / curved, 0.0),))

    def metric(self, theta: Tensor, growth=1, is_near=False, dtype=torch.float32, passes=0.0) -> metrics.Metric:
        """The sample's, but for the diagonal one: a column may be zero in all rows of a sample."""
        metric = self.sample.metric(theta, growth, is_near, dtype, passes * self.n_rows / self.sample.n_rows)
        if metric.kind != "diagonal":
            share = self.sample.n_rows / self.n_rows
            near_price = None if metric.near_price is None else share * metric.near_price
            return replace(metric, price=share * metric.price, near_price=near_price, exact=metric.exact and share == 1)
        return replace(metric, solve=self.inverse_diagonal(theta))

    def samples(self) -> list[tuple[Objective, float]]:
        """Ever larger samples on the way to all rows."""
        return self.sample.samples(self.n_rows)

    def narrow(self) -> "PartsObjective":
        """F with products in float32; each part decides whether they fit."""
        if self.dtype == torch.float32 or not costs.narrow_pays(self, self.data.X.dtype == torch.float64):
            return self
        return replace(self, dtype=torch.float32)

    def rounding(self, theta: Tensor) -> tuple[Evaluation, float]:
        """What float32 adds to F and its gradient at θ, by a sample of rows, and what part of a pass that takes."""
        lost, passes = self.sample.rounding(theta)
        return lost, passes * self.sample.n_rows / self.n_rows

    def excess(self, theta: Tensor, change: Tensor, gradient: Tensor) -> Tensor:
        """F(θ + change) - F(θ), (M,), as of `Objective`."""
        return self.sample.excess(theta, change, gradient)

    def anchor(self, theta: Tensor, point: Evaluation) -> None:
        """None: what is known of the rows at θ would have to be kept with them."""

    @cached_property
    def separable_below(self) -> Tensor:
        """As of `Objective`, from the few targets that tell."""
        targets = self.total.telling.to(self.sample.targets.dtype)
        weights = torch.full((1, len(targets)), self.total.lightest, dtype=torch.float64)
        total = torch.tensor([self.total.total_weight], dtype=torch.float64)
        return replace(self.sample, targets=targets, weights=weights, total=total).separable_below


def make_parts_objective(sum_of, rows: TrainingRows, data: Data, total: Tally, C: float) -> PartsObjective:
    """F of all rows from a sample of them, ``rows``, in the coordinates ``data``."""
    sample = make_stack(rows, data, rows.weights[None], C=C, l1_ratio=0.0)
    return PartsObjective(sum_of, replace(sample, penalty=sample.penalty * (sample.total / total.total_weight)), total)


def sample_coordinates(rows: TrainingRows, total: Tally, fit_intercept: bool) -> Data:
    """Those of a sample of rows, scaled to the ranges of the columns of all rows."""
    return standardised(rows.X, fit_intercept).covering(total.lowest, total.highest)
