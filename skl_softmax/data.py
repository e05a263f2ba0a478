"""X behind the few products that an objective needs.

The solvers never see X. They see parameters θ of the *standardised design*

    x̃_i = ((x_i - mean) / scale, 1),        p = d + 1 columns,

θ = (W * scale, b + W mean), an exact change of variables: F does not change, only its conditioning does. Without an
intercept there is no last column and the mean is zero. X is never copied as a whole, nor centred or scaled in memory:

- The scale is folded into the parameters: a product with x̃ is one with W = θ / scale.
- So is the mean, unless rounding would not survive it: where |mean| is far larger than the spread of a column,
  blocks of rows are centred while they are in cache. Blocks are also widened to the dtype of the computation there.
- Only of tables of a few megabytes the design itself is kept: there the calls cost more than the arithmetic.
- Sparse X is never centred.

A block holds its rows as ``n_parts`` parts of ``part`` rows each, and logits have the shape (n_parts, q, part): matrix
products with few classes are twice as fast in batches of a thousand rows as in one piece, and softmax over a middle
dimension is seven times faster than over the last one.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import add
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array, csr_matrix
from torch import Tensor
from torch.nn import functional

# A block this large, with its logits, stays in cache (on 200,000 x 50 x 5: 3 and 7 MB take 16 ms, 13 MB 17, 2 MB 23).
BLOCK_BYTES = 4 * 2**20
PART_ROWS = 1024
# A design smaller than this is kept.
KEEP_BYTES = 16 * 2**20
# From here on products are quicker class by class: 1.5x for 20,000 x 512 x 100, as quick for 26 classes.
MANY_OUTPUTS = 64
# Rows that centre and scale of the columns are taken from.
SPREAD_ROWS = 4096
# |mean| / scale up to which the mean may be folded into the parameters: products then lose as many of the digits that
# the dtype has, and F and its gradient need half of them.
FOLD_LIMIT = 1e3

# Squares of numbers within this range and their sums are numbers in float32.
FLOAT32_RANGE = 1e15
# Sparse rows are taken in one piece unless their logits need more than this.
SPARSE_LOGITS_BYTES = 256 * 2**20

# torch says once in each process, when the first sparse matrix is made, that they are in beta state. That is not news
# for somebody who passed a matrix of scipy's.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.sparse_csr_tensor([0, 1], [0], [1.0], (1, 1))


@dataclass(frozen=True)
class Affine:
    """Weight (q, d) and bias (q,) for the rows as a block holds them; no bias where it holds the design."""

    weight: Tensor
    bias: Tensor | None

    def __add__(self, other: "Affine") -> "Affine":
        bias = None if self.bias is None else self.bias + other.bias
        return Affine(self.weight + other.weight, bias)


@dataclass(frozen=True)
class DenseBlock:
    """Consecutive rows, with the products that a sum over rows is made of."""

    rows: slice
    x: Tensor  # (n_parts, part, d)

    @property
    def parts(self) -> tuple[int, int]:
        """Number of parts and rows in each."""
        return self.x.shape[0], self.x.shape[1]

    def logits(self, affine: Affine) -> Tensor:
        """W x_i + b of each row."""
        weight = affine.weight.expand(len(self.x), -1, -1)
        if affine.bias is None:
            return torch.bmm(weight, self.x.mT)  # (n_parts, q, part)
        return torch.baddbmm(affine.bias[:, None], weight, self.x.mT)  # (n_parts, q, part)

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:
        """Σ_i r_i x_i and Σ_i r_i in float64, the transpose of `logits`; ``residual`` is (n_parts, q, part)."""
        weight = torch.bmm(residual, self.x).sum(dim=0, dtype=torch.float64)  # (q, d)
        return Affine(weight, residual.sum(dim=(0, 2), dtype=torch.float64) if with_bias else None)


@dataclass(frozen=True)
class SparseBlock:
    """Consecutive rows of a sparse matrix and their transpose, each in compressed rows."""

    rows: slice
    x: Tensor  # (rows, d), CSR
    x_transposed: Tensor  # (d, rows), CSR

    @property
    def parts(self) -> tuple[int, int]:
        """One part."""
        return 1, self.x.shape[0]

    def logits(self, affine: Affine) -> Tensor:
        """W x_i + b of each row."""
        return _times(self.x, affine.weight).add_(affine.bias[:, None])[None]  # (1, q, rows)

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:  # noqa: ARG002, there always is one
        """Σ_i r_i x_i and Σ_i r_i, the transpose of `logits`; ``residual`` is (1, q, rows)."""
        return Affine(_times(self.x_transposed, residual[0]), residual[0].sum(dim=1))  # (q, d), (q,)


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
        What blocks subtract from their rows: the mean, or None if the mean is folded into the parameters.
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
    # Whether products with the columns' covariance come cheap: not where most entries are zero.
    centres: ClassVar[bool] = True

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def n_columns(self) -> int:
        """Number of columns of the design, p."""
        return self.X.shape[1] + self.fit_intercept

    def penalty_scale(self) -> Tensor:
        """What ½‖W‖² becomes in θ: ½ Σ_j θ_j² penalty_scale_j; zero for the intercept."""
        scale = self.scale.square().reciprocal()
        return torch.cat([scale, scale.new_zeros(int(self.fit_intercept))])  # (p,)

    def to_theta(self, weight: Tensor, bias: Tensor) -> Tensor:
        """θ, in float64, from weight (..., K, d) and bias (..., K) of X as the user gave it."""
        weight, bias = weight.double(), bias.double()
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

    def affine(self, theta: Tensor) -> Affine:
        """The parameters (q, p) as blocks want them."""
        if self.keeps:
            return Affine(theta.to(self.dtype), None)
        weight = theta[:, : self.X.shape[1]] / self.scale  # (q, d)
        if not self.fit_intercept:
            return Affine(weight.to(self.dtype), weight.new_zeros(len(weight), dtype=self.dtype))
        bias = theta[:, -1] if self.shift is not None else theta[:, -1] - weight @ self.mean  # (q,)
        return Affine(weight.to(self.dtype), bias.to(self.dtype))

    def gradient(self, total: Affine) -> Tensor:
        """The gradient by θ (q, p) from the sum over blocks of what their pullback gave."""
        weight = total.weight
        if total.bias is None:
            return weight  # (q, p)
        if not self.fit_intercept:
            return weight / self.scale  # (q, p)
        if self.shift is None:
            weight = weight - torch.outer(total.bias, self.mean)
        return torch.cat([weight / self.scale, total.bias[:, None]], dim=1)  # (q, p)

    def blocks(self, n_logits: int) -> Iterator[DenseBlock | SparseBlock]:
        """The rows in order, in blocks that fit the cache with ``n_logits`` logits a row."""
        raise NotImplementedError

    def block(self, rows: slice) -> DenseBlock | SparseBlock:
        """Some rows in one part."""
        raise NotImplementedError

    @property
    def fits_float32(self) -> bool:
        """Whether products in float32 neither overflow nor vanish, nor take more memory than is allowed."""
        raise NotImplementedError

    def narrow(self) -> "Data":
        """The same rows with products in float32."""
        raise NotImplementedError

    def take(self, index: Tensor) -> "Data":
        """A copy of the rows ``index``, in the same coordinates."""
        raise NotImplementedError

    def design(self, rows: slice) -> Tensor:
        """Some rows of the design itself, (rows, p) in float64."""
        raise NotImplementedError

    def column_norms(self, weights: Tensor) -> Tensor:
        """Σ_i w_ji x̃_i² for each weighting j, (q, p); ``weights`` is (q, n)."""
        raise NotImplementedError

    def row_norms(self) -> Tensor:
        """‖x̃_i‖² of each row, (n,)."""
        raise NotImplementedError


@dataclass(frozen=True)
class DenseData(Data):
    """Dense X in memory."""

    @classmethod
    def standardised(cls, X: Tensor, fit_intercept: bool) -> "DenseData":
        """Centre the columns (if there is an intercept to absorb it) and scale them to max |x̃| of about 1.

        Any centre and scale give the same F, so those of some thousand evenly spaced rows will do; a column that is
        constant in them is looked at as a whole. The scale is the largest deviation and not the standard deviation:
        squares of deviations overflow or vanish for columns beyond 1e±154.
        """
        mean, largest = _centre_and_spread(X[:: max(1, len(X) // SPREAD_ROWS)], fit_intercept)
        if len(X) > SPREAD_ROWS and (largest == 0).any():
            unseen = torch.nonzero(largest == 0)[:, 0]
            mean[unseen], largest[unseen] = _centre_and_spread(X[:, unseen], fit_intercept)
        scale = torch.where(largest > 0, largest, 1.0)
        folds = X.dtype == torch.float64 and (mean.abs() <= FOLD_LIMIT * scale).all()
        return cls(X, mean, scale, None if folds else mean, fit_intercept, torch.float64)

    @classmethod
    def raw(cls, X: Tensor, fit_intercept: bool, dtype: torch.dtype) -> "DenseData":
        """The columns as they are: the coordinates in which plain gradient descent is defined."""
        zeros = torch.zeros(X.shape[1], dtype=torch.float64)
        return cls(X, zeros, torch.ones_like(zeros), None, fit_intercept, dtype)

    @cached_property
    def keeps(self) -> bool:
        return self.n_rows * self.n_columns * self.dtype.itemsize <= KEEP_BYTES

    def blocks(self, n_logits: int) -> Iterator[DenseBlock]:
        fits = max(1, BLOCK_BYTES // (self.dtype.itemsize * max(self.n_columns, 2 * n_logits)))
        part = min(PART_ROWS, fits)
        stride = fits // part * part
        for start in range(0, self.n_rows, stride):
            stop = min(start + stride, self.n_rows)
            middle = stop - (stop - start) % part
            for rows, size in ((slice(start, middle), part), (slice(middle, stop), stop - middle)):
                if rows.stop > rows.start:
                    x = self._rows(rows)
                    yield DenseBlock(rows, x.view(-1, size, x.shape[1]))

    def block(self, rows: slice) -> DenseBlock:
        return DenseBlock(rows, self._rows(rows)[None])

    @property
    def fits_float32(self) -> bool:
        return bool(((self.scale > 1 / FLOAT32_RANGE) & (self.scale < FLOAT32_RANGE)).all())

    def narrow(self) -> "DenseData":
        # Folded means would cost digits that float32 does not have.
        return replace(self, shift=self.mean if self.fit_intercept else None, dtype=torch.float32)

    def take(self, index: Tensor) -> "DenseData":
        return replace(self, X=self.X[index])

    def design(self, rows: slice) -> Tensor:
        return self._kept[rows].double() if self.keeps else self._design(rows)

    @cached_property
    def _kept(self) -> Tensor:
        return self._design(slice(0, self.n_rows)).to(self.dtype)  # (n, p)

    def _design(self, rows: slice) -> Tensor:
        x = self.X[rows]
        design = torch.empty(len(x), self.n_columns, dtype=torch.float64)  # (rows, p)
        torch.sub(x, self.mean, out=design[:, : x.shape[1]]).div_(self.scale)
        design[:, x.shape[1] :] = 1.0
        return design

    def column_norms(self, weights: Tensor) -> Tensor:
        return sum(weights[:, rows] @ self.design(rows).square() for rows in self._portions())  # (q, p)

    def row_norms(self) -> Tensor:
        return torch.cat([self.design(rows).square().sum(dim=1) for rows in self._portions()])

    def _portions(self) -> list[slice]:
        stride = max(1, BLOCK_BYTES // (8 * self.n_columns))
        return [slice(start, start + stride) for start in range(0, self.n_rows, stride)]

    def _rows(self, rows: slice) -> Tensor:
        if self.keeps:
            return self._kept[rows]  # (rows, p)
        x = self.X[rows]
        if self.shift is None:
            return x.to(self.dtype)
        return torch.sub(x, self.shift, out=torch.empty(x.shape, dtype=self.dtype))  # (rows, d)


@dataclass(frozen=True)
class SparseData(Data):
    """Sparse X in memory, in compressed rows. Neither centred nor scaled, so that zeros stay zeros.

    The transposed product has its own storage, in compressed rows as well: the product with a transposed view is 12
    times slower. In float64 that is as large as X; float32 values are also widened, which makes it 2.5 times X.
    """

    centres: ClassVar[bool] = False

    @classmethod
    def raw(cls, X: Tensor, fit_intercept: bool, dtype: torch.dtype) -> "SparseData":
        """The columns as they are."""
        zeros = torch.zeros(X.shape[1], dtype=torch.float64)
        return cls(X, zeros, torch.ones_like(zeros), None, fit_intercept, dtype)

    def blocks(self, n_logits: int) -> Iterator[SparseBlock]:
        stride = max(1, SPARSE_LOGITS_BYTES // (self.dtype.itemsize * n_logits))
        if stride >= self.n_rows:
            yield self._whole
            return
        for start in range(0, self.n_rows, stride):
            yield self.block(slice(start, min(start + stride, self.n_rows)))

    def affine(self, theta: Tensor) -> Affine:
        weight = theta[:, : self.X.shape[1]].to(self.dtype)  # (q, d)
        return Affine(weight, theta[:, -1].to(self.dtype) if self.fit_intercept else weight.new_zeros(len(weight)))

    def gradient(self, total: Affine) -> Tensor:
        if not self.fit_intercept:
            return total.weight.contiguous()
        return torch.cat([total.weight, total.bias[:, None]], dim=1)  # (q, p)

    @cached_property
    def fits_float32(self) -> bool:
        if self.X.dtype == torch.float32:  # its values in both types would take more than 2.5 times X
            return False
        sizes = self.X.values().abs()
        return bool(((sizes > 1 / FLOAT32_RANGE) & (sizes < FLOAT32_RANGE) | (sizes == 0)).all())

    def narrow(self) -> "SparseData":
        return self._narrow

    @cached_property
    def _narrow(self) -> "SparseData":
        narrow = replace(self, dtype=torch.float32)
        whole = self._whole
        parts = (_with_values(x, x.values().float()) for x in (whole.x, whole.x_transposed))
        narrow.__dict__["_whole"] = SparseBlock(whole.rows, *parts)
        return narrow

    def take(self, index: Tensor) -> "SparseData":
        first, counts = self.X.crow_indices()[index], self.X.crow_indices().diff()[index]
        ends = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        entries = torch.arange(int(ends[-1])) + (first - ends[:-1]).repeat_interleave(counts)
        indices, values = self.X.col_indices()[entries], self.X.values()[entries]
        shape = (len(index), self.X.shape[1])
        return replace(self, X=torch.sparse_csr_tensor(ends.to(indices.dtype), indices, values, shape))

    def design(self, rows: slice) -> Tensor:
        dense = self._rows(rows).to_dense().double()
        return torch.cat([dense, dense.new_ones(len(dense), int(self.fit_intercept))], dim=1)  # (rows, p)

    def column_norms(self, weights: Tensor) -> Tensor:
        norms = _times(self._squares_transposed, weights.to(self.dtype))  # (q, d)
        if self.fit_intercept:
            norms = torch.cat([norms, weights.sum(dim=1, keepdim=True)], dim=1)
        return norms  # (q, p)

    def row_norms(self) -> Tensor:
        x = self._whole.x
        return _times(_with_values(x, x.values().square()), x.values().new_ones(1, x.shape[1]))[0] + self.fit_intercept

    @cached_property
    def _squares_transposed(self) -> Tensor:
        x = self._whole.x_transposed
        return _with_values(x, x.values().square())  # (d, n), CSR

    @cached_property
    def _whole(self) -> SparseBlock:
        return self.block(slice(0, self.n_rows))

    def block(self, rows: slice) -> SparseBlock:
        x = self._rows(rows)
        parts = (x.values().numpy(), x.col_indices().numpy(), x.crow_indices().numpy())
        transposed = csr_array(parts, shape=x.shape).T.tocsr()
        return SparseBlock(rows, x, csr_tensor(transposed))

    def _rows(self, rows: slice) -> Tensor:
        ends = self.X.crow_indices()[rows.start : rows.stop + 1]
        entries = slice(int(ends[0]), int(ends[-1]))
        values = self.X.values()[entries].to(self.dtype)
        return torch.sparse_csr_tensor(
            ends - ends[0], self.X.col_indices()[entries], values, (len(ends) - 1, self.X.shape[1])
        )


def _with_values(x: Tensor, values: Tensor) -> Tensor:
    """A sparse matrix with other values that shares the indices of ``x``."""
    return torch.sparse_csr_tensor(x.crow_indices(), x.col_indices(), values, x.shape)


def _times(x: Tensor, vectors: Tensor) -> Tensor:
    """The product of a sparse matrix (m, k) with each row of ``vectors`` (q, k), as (q, m)."""
    if len(vectors) == 1:
        return (x @ vectors[0])[None]  # a third less time than a product with a matrix of one column
    return (x @ vectors.T.contiguous()).T.contiguous()


def csr_tensor(X: csr_array | csr_matrix) -> Tensor:
    """A torch matrix in compressed rows that shares the memory of a scipy one."""
    fits = max(X.nnz, *X.shape) < 2**31
    ends, indices = (part.astype(np.int32 if fits else np.int64, copy=False) for part in (X.indptr, X.indices))
    return torch.sparse_csr_tensor(as_tensor(ends), as_tensor(indices), as_tensor(X.data), X.shape)


def standardised(X: Tensor, fit_intercept: bool) -> Data:
    """X in the coordinates that suit its storage."""
    is_dense = X.layout == torch.strided
    return DenseData.standardised(X, fit_intercept) if is_dense else SparseData.raw(X, fit_intercept, torch.float64)


def normalised(X: Tensor, weights: Tensor, fit_intercept: bool) -> Data:
    """X centred and divided by the standard deviation, both weighted, in which descent goes well; sparse X as it is."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    shares, stride = weights / weights.sum(), max(1, BLOCK_BYTES // (8 * X.shape[1]))
    chunks = [(X[i : i + stride].double(), shares[i : i + stride]) for i in range(0, len(X), stride)]
    mean = _sum_of(share @ x for x, share in chunks) * fit_intercept
    scale = _sum_of(share @ (x - mean).square() for x, share in chunks).sqrt()
    constant = ~(scale > 1e-12 * mean.abs()) | ~scale.isfinite()
    return in_coordinates(X, fit_intercept, mean, torch.where(constant, 1.0, scale))


def _sum_of(terms: Iterator[Tensor]) -> Tensor:
    return reduce(add, terms)


def in_coordinates(X: Tensor, fit_intercept: bool, mean: Tensor, scale: Tensor) -> Data:
    """X in the coordinates of other rows; sparse X in its own."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    return DenseData(X, mean, scale, mean if fit_intercept else None, fit_intercept, torch.float64)


def raw(X: Tensor, fit_intercept: bool) -> Data:
    """X in its own coordinates and its own dtype."""
    return (DenseData if X.layout == torch.strided else SparseData).raw(X, fit_intercept, X.dtype)


def linear(X: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Logits (n, K) of rows of any storage, in the wider one of the dtypes."""
    dtype = torch.promote_types(X.dtype, weight.dtype)
    X, weight, bias = X.to(dtype), weight.to(dtype), bias.to(dtype)
    if X.layout != torch.strided:
        return X @ weight.T + bias
    if len(weight) < MANY_OUTPUTS:
        return functional.linear(X, weight, bias)
    return torch.addmm(bias[:, None], weight, X.T).T


def as_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the memory of an array, read-only arrays included, of which torch warns."""
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array if array.flags.writeable else np.asarray(_Writeable(array)))


class _Writeable:
    """Presents a read-only array as writeable; nothing in this package writes to X."""

    def __init__(self, array: np.ndarray):
        self._array = array  # keeps the memory alive
        self.__array_interface__ = array.__array_interface__ | {"data": (array.ctypes.data, False)}


def _centre_and_spread(x: Tensor, fit_intercept: bool) -> tuple[Tensor, Tensor]:
    """Means (or zeros) of the columns and the largest deviation from them, in float64."""
    if not fit_intercept:
        low, high = torch.aminmax(x, dim=0)
        return low.new_zeros(len(low), dtype=torch.float64), torch.maximum(high, -low).double()
    # Measured from the first row, so that the mean of a constant column is exactly its value.
    first = x[0].double()
    deviation = x - first  # (n, d)
    shift = deviation.mean(dim=0)
    low, high = torch.aminmax(deviation, dim=0)
    return first + shift, torch.maximum(high - shift, shift - low)
