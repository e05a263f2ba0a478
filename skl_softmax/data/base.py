"""What every storage of X offers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from skl_softmax.data.devices import has_float64, home_of

# Squares of numbers within this range and their sums are numbers in float32.
FLOAT32_RANGE = 1e15
# What part of a column's squares the largest entry has, and how many times the size of others, where it is far out. Of
# normal ones the largest is four to five times as large.
OUTLYING_PART, OUTLYING = 0.1, 8.0


@dataclass(frozen=True)
class Affine:
    """Weight (q, d) and bias (q,) for the rows as a block holds them.

    No bias where that is the design or there is no intercept, nor in sums over rows where it is their last column.
    """

    weight: Tensor
    bias: Tensor | None

    def __add__(self, other: "Affine") -> "Affine":
        bias = None if self.bias is None else self.bias + other.bias
        return Affine(self.weight + other.weight, bias)


class Block(Protocol):
    """Consecutive rows, with the products that a sum over rows is made of."""

    rows: slice

    @property
    def parts(self) -> tuple[int, int]:
        """Number of parts and rows in each."""

    def logits(self, affine: Affine) -> Tensor:
        """W x_i + b of each row, (n_parts, q, part)."""

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:
        """Σ_i r_i x_i and, ``with_bias``, Σ_i r_i, the transpose of `logits`; ``residual`` is (n_parts, q, part)."""


# Of logits (q, rows) of a slice of the rows, weights (q, rows).
Weigh = Callable[[Tensor, slice], Tensor]


@dataclass(frozen=True)
class Data:
    """What every storage of X shares: the design's coordinates.

    Attributes
    ----------
    X : Tensor of shape (n, d)
        The rows as the user gave them. Never written to.
    mean, scale : Tensor of shape (d,), float64
        What the columns are centred by and divided by.
    shift : Tensor of shape (d,) or None
        What blocks subtract from their rows, about the mean, or None if the mean is folded into the parameters. In the
        type of the subtraction, float64 for rows in float64, else that of the products: mixed ones take nine times as
        long.
    fit_intercept : bool
        Whether the design ends with a column of ones.
    dtype : torch.dtype
        The type in which products are computed.
    """

    X: Tensor
    mean: Tensor
    scale: Tensor
    shift: Tensor | None
    fit_intercept: bool
    dtype: torch.dtype

    # Whether blocks are parts of a design that is kept.
    keeps: ClassVar[bool] = False
    # Outputs up to which more of them in a product take less time each.
    most_outputs: ClassVar[float] = inf
    # Whether all entries of X are stored, so that columns may be centred and their covariance comes cheap.
    is_dense: ClassVar[bool] = True
    # Whether the columns are not those of X as the user gave it.
    rotates: ClassVar[bool] = False
    # The `NullSpace` that one-hot encoded categories of sparse X have, if there are any, and the columns (f,) of
    # numbers beside them.
    null_space: ClassVar[None] = None
    numbers: ClassVar[None] = None

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def home(self) -> torch.device:
        """Where θ and all that is not of a row's size is."""
        return home_of(self.X.device)

    @property
    def wide(self) -> torch.dtype:
        """The widest type on the device of X, in which rows are summed."""
        return torch.float64 if has_float64(self.X.device) else torch.float32

    @property
    def n_columns(self) -> int:
        """Number of columns of the design, p."""
        return self.X.shape[1] + self.fit_intercept

    def penalty_scale(self) -> Tensor:
        """What ½‖W‖² becomes in θ: ½ Σ_j θ_j² penalty_scale_j; zero for the intercept."""
        scale = self.scale.square().reciprocal()
        return torch.cat([scale, scale.new_zeros(int(self.fit_intercept))])  # (p,)

    @property
    def nominal_sizes(self) -> Tensor:
        """What |x̃_ij| goes up to in each column, (p,): 1, where columns are divided by about that."""
        return torch.ones(self.n_columns, dtype=torch.float64, device=self.home)

    @cached_property
    def outlying(self) -> Tensor:
        """Columns (p,), bool, in which one entry is `OUTLYING` times as large as others and has a part of all squares.

        Not those in which all others seem to be alike, of which they have nothing to gain; nor the intercept.
        """
        largest, usual, counts = self.entry_sizes  # (d,)
        is_far = (usual > 0) & (largest > usual * (OUTLYING_PART * counts).sqrt().clamp_min(OUTLYING))
        return torch.cat([is_far, is_far.new_zeros(int(self.fit_intercept))])

    @property
    def entry_sizes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each column (d,) of x̃ the largest entry, the root mean square of others, and how many there are.

        Of dense columns from their middle where there is an intercept; of sparse ones the entries that are not zero.
        """
        raise NotImplementedError

    def around_the_middle(self) -> tuple["Data", Tensor]:
        """The same rows with outlying columns centred where most entries are, and where that is in x̃, (p,), else 0."""
        return self, torch.zeros(self.n_columns, dtype=torch.float64, device=self.home)

    def to_theta(self, weight: Tensor, bias: Tensor) -> Tensor:
        """θ, in float64, from weight (..., K, d) and bias (..., K) of X as the user gave it."""
        weight, bias = weight.double().to(self.home), bias.double().to(self.home)
        theta = weight * self.scale
        if not self.fit_intercept:
            return theta  # (..., K, p)
        return torch.cat([theta, (bias + weight @ self.mean)[..., None]], dim=-1)  # (..., K, p)

    def from_theta(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (..., K, d) and bias (..., K) of X as the user gave it, from θ (..., K, p)."""
        weight = theta[..., : self.X.shape[1]] / self.scale  # (..., K, d)
        if not self.fit_intercept:
            return weight, weight.new_zeros(weight.shape[:-1])
        return weight, theta[..., -1] - weight @ self.mean  # (..., K, d), (..., K)

    @property
    def offset(self) -> Tensor:
        """Where the columns of X as the user gave it lie, (d,)."""
        return self.mean

    def largest_terms(self, weight: Tensor, bias: Tensor) -> Tensor:
        """About Σ_j |w_j x_ij| + |b|, at its largest of all rows, (..., K): what logits are rounded in units of."""
        n_features = self.X.shape[1]
        spread = self.to_theta(weight, bias)[..., :n_features].abs() @ self.nominal_sizes[:n_features]  # (..., K)
        return weight.double().abs() @ self.offset.abs() + bias.double().abs() + spread

    def affine(self, theta: Tensor) -> Affine:
        """The parameters (q, p) as blocks want them."""
        if self.keeps:
            return Affine(self._beside(theta), None)
        weight = theta[:, : self.X.shape[1]] / self.scale  # (q, d)
        if not self.fit_intercept:
            return Affine(self._beside(weight), self._beside(weight.new_zeros(len(weight))))
        return Affine(self._beside(weight), self._beside(theta[:, -1] - weight @ self._folded))

    @cached_property
    def _folded(self) -> Tensor:
        """The part of the mean (d,) that blocks do not subtract: the parameters take it up."""
        return self.mean if self.shift is None else self.mean - self.shift.to(self.home).double()

    def _beside(self, tensor: Tensor) -> Tensor:
        """The tensor in the type of products, on the device of X."""
        return tensor.to(self.dtype).to(self.X.device)

    def gradient(self, total: Affine) -> Tensor:
        """The gradient by θ (q, p) from the sum over blocks of what their pullback gave."""
        weight = total.weight.to(self.home).double()
        if total.bias is None:
            return weight  # (q, p)
        if not self.fit_intercept:
            return weight / self.scale  # (q, p)
        bias = total.bias.to(self.home).double()
        weight = weight - torch.outer(bias, self._folded)
        return torch.cat([weight / self.scale, bias[:, None]], dim=1)  # (q, p)

    def blocks(self, n_logits: int) -> Iterator[Block]:
        """The rows in order, in blocks that fit the cache with ``n_logits`` logits a row, each good until the next."""
        raise NotImplementedError

    def block(self, rows: slice) -> Block:
        """Some rows in one part."""
        raise NotImplementedError

    @property
    def converts(self) -> bool:
        """Whether products in float32 convert the rows each time anew, where those in float64 take them as they are."""
        raise NotImplementedError

    @property
    def fits_float32(self) -> bool:
        """Whether products in float32 neither overflow nor vanish, nor take more memory than is allowed."""
        raise NotImplementedError

    def narrow(self) -> "Data":
        """The same rows with products in float32."""
        raise NotImplementedError

    @property
    def row_length(self) -> float:
        """How many entries of a row are not zero, or may not be, in the mean."""
        return self.n_columns

    @property
    def row_entries(self) -> float:
        """How many entries of dense X take as long in a product as a row does."""
        return self.n_columns

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of X, in the mean."""
        return self.X.element_size() * self.X.shape[1]

    def restrict(self, features: Tensor) -> "Data":
        """A copy of some of the columns of X, in the same coordinates; all of them without a copy."""
        raise NotImplementedError

    @property
    def rarest(self) -> float:
        """How many rows have an entry in the column in which the fewest have one; infinity where all entries count."""
        return inf

    def covering(self, lowest: Tensor, highest: Tensor) -> "Data":
        """The same rows in coordinates that suit other rows too, whose columns lie in these ranges (d,)."""
        raise NotImplementedError

    def over(self, X: Tensor) -> "Data":
        """Other rows, of which no copy will be kept, in the same coordinates."""
        raise NotImplementedError

    def take(self, index: Tensor) -> "Data":
        """A copy of the rows ``index``, in the same coordinates."""
        raise NotImplementedError

    def design(self, rows: slice, columns: Tensor | None = None) -> Tensor:
        """Some rows of the design itself, (rows, p) in float64, or some of its columns, in ascending order."""
        raise NotImplementedError

    def column_norms(self, weights: Tensor) -> Tensor:
        """Σ_i w_ji x̃_i² for each weighting j, (q, p); ``weights`` is (q, n)."""
        zero = torch.zeros(len(weights), self.n_columns, dtype=torch.float64, device=self.home)
        return self.norms_by_logits(zero, lambda _, rows: weights[:, rows].to(self.home))

    def norms_by_logits(self, theta: Tensor, weigh: Weigh) -> Tensor:
        """The same with weights that depend on the logits of θ (q, p), some rows at a time: ``weigh(logits, rows)``."""
        raise NotImplementedError

    def row_norms(self) -> Tensor:
        """‖x̃_i‖² of each row, (n,)."""
        raise NotImplementedError


def widened(dtype: torch.dtype) -> torch.dtype:
    """In what coefficients are stored and products computed at least: float32 for half precision."""
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of an array, read-only arrays included, of which torch warns.

    Where torch has no such tensor, of strides that go back or are no multiple of an element, it is a copy.
    """
    if any(stride < 0 or stride % array.itemsize for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writeable(array)))


class _Writeable:
    """Presents a read-only array as writeable; nothing in this package writes to X."""

    def __init__(self, array: np.ndarray):
        self._array = array  # keeps the memory alive
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}
