"""Dense X in memory."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skl_softmax import threads
from skl_softmax.data.base import FLOAT32_RANGE, Affine, Data, Weigh, widened
from skl_softmax.data.devices import has_float64, home_of
from skl_softmax.data.rows import column_ranges, spread_rows
from skl_softmax.products import is_quick, times_transposed

# All rows, for blocks.
ALL_ROWS = slice(None)
# A block this large, with its logits, stays in cache, and takes longer than the calls for it: on 200,000 x 50 x 5
# blocks of 2 MB take 12.6 ms, 4 MB 10.1, 8 MB 9.4, 16 MB 10.0, 32 MB 13.3, with 32 MB of cache for all that runs.
BLOCK_BYTES = 8 * 2**20
# The same of rows that are gone over once, in float64, with several copies at a time.
SLICE_BYTES = 4 * 2**20
# Rows of this many bytes and more are gone over in a copy of the block, also where nothing is subtracted: what products
# read by strides comes slowly from memory. Of 200,000 x 50 x 5 a pass takes 9.6 ms with the copy, 11 without;
# in other minutes of a virtual machine, with memory that is read sooner, 12.5 for 12. Of 800,000 x 100 0.8 of the time.
COPIED_ROW_BYTES = 160
# Rows of a part of a block, a product of their own each: at most, and at least where all threads are to have one.
PART_ROWS, LEAST_PART = 1024, 16
# A design smaller than this is kept.
KEEP_BYTES = 16 * 2**20
# A spread below this has a square that vanishes in float64, or a coefficient that is infinite in float32.
SMALLEST_SPREAD = {torch.float64: 1e-153, torch.float32: 1e-37}
# The scale of such columns, in which their squares are zero; that of a penalty on them is not.
NEGLIGIBLE = 1e125
# Rows that centre and scale of the columns are taken from.
SPREAD_ROWS = 4096
# Rows that tell where the middle of a column is, and how far from it entries usually are: of 20,000 x 512 that takes
# 2 ms, with 4,096 of them 71.
MIDDLE_ROWS = 256
# Columns up to which these take less time from a copy column by column: of 16 a third, of 512 four times as much.
FEW_COLUMNS = 96
# |mean| / scale up to which the mean may be folded into the parameters: products then lose as many of the digits that
# the dtype has, and F and its gradient need half of them.
FOLD_LIMIT = 1e3
# |mean| / scale up to which float64 rows are rounded to float32 before their mean is subtracted and not after it, which
# takes twice as long. An entry loses a bit by that.
ROUNDED_MEAN = 1.0


@dataclass(frozen=True)
class DenseBlock:
    """Consecutive rows, with the products that a sum over rows is made of."""

    rows: slice
    x: Tensor  # (n_parts, part, d)
    wide: torch.dtype  # in which the rows are summed

    @property
    def parts(self) -> tuple[int, int]:
        """Number of parts and rows in each."""
        return self.x.shape[0], self.x.shape[1]

    def logits(self, affine: Affine) -> Tensor:
        """W x_i + b of each row."""
        if self._is_quick(len(affine.weight)):
            logits = times_transposed(affine.weight, self.x[0])[None]  # (1, q, part)
            return logits if affine.bias is None else logits.add_(affine.bias[:, None])
        weight = affine.weight.expand(len(self.x), -1, -1)
        if affine.bias is None:
            return torch.bmm(weight, self.x.mT)  # (n_parts, q, part)
        return torch.baddbmm(affine.bias[:, None], weight, self.x.mT)  # (n_parts, q, part)

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:
        """Σ_i r_i x_i and Σ_i r_i, the transpose of `logits`; ``residual`` is (n_parts, q, part)."""
        if self._is_quick(residual.shape[1]):
            weight = times_transposed(residual[0], self.x[0].T).to(self.wide)  # (q, d)
        else:
            weight = torch.bmm(residual, self.x).sum(dim=0, dtype=self.wide)  # (q, d)
        # Each part in the type of its products: to widen all of them takes four times as long.
        return Affine(weight, residual.sum(dim=2).sum(dim=0, dtype=self.wide) if with_bias else None)

    def _is_quick(self, n_outputs: int) -> bool:
        return len(self.x) == 1 and is_quick(self.x[0], self.x.dtype, n_outputs)


@dataclass(frozen=True)
class DenseData(Data):
    """Dense X in memory.

    ``always_keeps`` says that the design is kept whatever its size, as one of some columns is, which are copies anyway;
    ``may_keep`` whether it, or the memory for its blocks, is kept at all.
    """

    always_keeps: bool = False
    may_keep: bool = True

    @classmethod
    def standardised(cls, X: Tensor, fit_intercept: bool) -> "DenseData":
        """Centre the columns (if there is an intercept to absorb it) and scale them to max |x̃| of about 1.

        Any centre and scale give the same F, so those of some thousand evenly spaced rows will do; a column that is
        constant in them is looked at as a whole. The scale is the largest deviation and not the standard deviation:
        squares of deviations overflow or vanish for columns beyond 1e±154.
        """
        mean, largest = _centre_and_spread(X[:: max(1, len(X) // SPREAD_ROWS)], fit_intercept)
        if len(X) > SPREAD_ROWS and not largest.all():
            unseen = np.flatnonzero(largest == 0)
            mean[unseen], largest[unseen] = _of_columns(X, unseen, fit_intercept)
        return cls._centred(X, mean, largest, fit_intercept)

    @classmethod
    def _centred(cls, X: Tensor, mean: np.ndarray, largest: np.ndarray, fit_intercept: bool) -> "DenseData":
        """X in the coordinates of a mean and of the largest deviation from it, both (d,)."""
        is_small = largest < SMALLEST_SPREAD[widened(X.dtype)]
        scale = np.where(largest == 0, 1.0, np.where(is_small, NEGLIGIBLE, largest))
        folds = (np.abs(mean) <= FOLD_LIMIT * scale).all()
        mean, scale = torch.from_numpy(mean).to(home_of(X.device)), torch.from_numpy(scale).to(home_of(X.device))
        return cls._in(X, mean, scale, fit_intercept, not folds)

    @classmethod
    def in_coordinates(cls, X: Tensor, mean: Tensor, scale: Tensor, fit_intercept: bool) -> "DenseData":
        """X centred and divided by what other rows have given."""
        return cls._in(X, mean, scale, fit_intercept, fit_intercept)

    @classmethod
    def _in(cls, X: Tensor, mean: Tensor, scale: Tensor, fit_intercept: bool, shifts: bool) -> "DenseData":
        wide = torch.float64 if has_float64(X.device) else torch.float32
        return cls(X, mean, scale, mean.to(wide).to(X.device) if shifts else None, fit_intercept, wide)

    @classmethod
    def raw(cls, X: Tensor, fit_intercept: bool, dtype: torch.dtype) -> "DenseData":
        """The columns as they are: the coordinates in which plain gradient descent is defined."""
        zeros = torch.zeros(X.shape[1], dtype=torch.float64, device=home_of(X.device))
        return cls(X, zeros, torch.ones_like(zeros), None, fit_intercept, dtype)

    @cached_property
    def keeps(self) -> bool:
        return self._is_kept(self.dtype)

    def _is_kept(self, dtype: torch.dtype) -> bool:
        size = self.n_rows * self.n_columns * dtype.itemsize
        return self.always_keeps or (self.may_keep and size <= KEEP_BYTES)

    def blocks(self, n_logits: int, within: slice = ALL_ROWS) -> Iterator[DenseBlock]:
        """Those of all rows, or of a slice of them."""
        first, last, _ = within.indices(self.n_rows)
        fits = max(1, BLOCK_BYTES // (self.dtype.itemsize * max(self.n_columns, 2 * n_logits)))
        is_one = is_quick(self.X[first:last][:fits], self.dtype, n_logits)
        part = fits if is_one else _part_rows(last - first, fits, n_logits * self.n_columns)
        at_once = part * torch.get_num_threads()
        unit = at_once if at_once <= fits else part
        stride = fits // unit * unit
        buffer = self._buffer(min(stride, last - first)) if self._copies else None
        for start in range(first, last, stride):
            stop = min(start + stride, last)
            middle = stop - (stop - start) % part
            for rows, size in ((slice(start, middle), part), (slice(middle, stop), stop - middle)):
                if rows.stop > rows.start:
                    x = self._rows(rows, buffer)
                    yield DenseBlock(rows, x.view(-1, size, x.shape[1]), self.wide)

    @property
    def _copies(self) -> bool:
        """Whether blocks are copies of their rows."""
        is_same = self.shift is None and self.X.dtype == self.dtype
        is_long = self.X.device.type == "cpu" and self.row_bytes >= COPIED_ROW_BYTES
        return not self.keeps and (is_long or not is_same)

    def _buffer(self, n_rows: int) -> Tensor:
        """The memory for blocks of that many rows, (n_rows or more, d), the same for all of them.

        What is given back to the system between them it zeroes anew, which took up to a tenth of a sweep. Parts of rows
        on workers, of which there may be many, keep none: with small ones these took as much as X.
        """
        if not self.may_keep:
            return self.X.new_empty(n_rows, self.X.shape[1], dtype=self.dtype)
        buffer = self.__dict__.get("_kept_buffer")
        if buffer is None or len(buffer) < n_rows:
            buffer = self.X.new_empty(n_rows, self.X.shape[1], dtype=self.dtype)
            self.__dict__["_kept_buffer"] = buffer
        return buffer

    def block(self, rows: slice) -> DenseBlock:
        return DenseBlock(rows, self._rows(rows)[None], self.wide)

    @property
    def converts(self) -> bool:
        return self.X.dtype == torch.float64 and not self._is_kept(torch.float32)

    @property
    def fits_float32(self) -> bool:
        return bool(((self.scale > 1 / FLOAT32_RANGE) & (self.scale < FLOAT32_RANGE)).all())

    def narrow(self) -> "DenseData":
        return self._narrow

    @cached_property
    def _narrow(self) -> "DenseData":
        shift = None  # folded means would cost digits that float32 does not have
        if self.fit_intercept:
            is_exact = self.X.dtype == torch.float64 and (self.mean.abs() > ROUNDED_MEAN * self.scale).any()
            shift = self.mean.to(torch.float64 if is_exact else torch.float32).to(self.X.device)
        return replace(self, shift=shift, dtype=torch.float32)

    def restrict(self, features: Tensor) -> "DenseData":
        if len(features) == self.X.shape[1]:
            return self
        shift = None if self.shift is None else self.shift[features.to(self.shift.device)]
        mean, scale = self.mean[features], self.scale[features]
        return replace(
            self, X=self.X[:, features.to(self.X.device)], mean=mean, scale=scale, shift=shift, always_keeps=True
        )

    def covering(self, lowest: Tensor, highest: Tensor) -> "DenseData":
        largest = torch.maximum(highest - self.mean, self.mean - lowest)
        return self._centred(self.X, self.mean.cpu().numpy(), largest.cpu().numpy(), self.fit_intercept)

    def over(self, X: Tensor) -> "DenseData":
        home = home_of(X.device)
        mean, scale = self.mean.to(home), self.scale.to(home)
        data = self._in(X, mean, scale, self.fit_intercept, self.shift is not None)
        return replace(data, may_keep=False)

    def take(self, index: Tensor) -> "DenseData":
        return replace(self, X=self.X.index_select(0, index.to(self.X.device)))  # half the time of X[index]

    def row_memory(self, n_rows: int) -> tuple[Tensor, Tensor]:
        """What `fetch` takes for that many rows: memory for those of the design (n_rows, p) and of X (n_rows, d)."""
        design = torch.ones(n_rows, self.n_columns, dtype=self.dtype, device="cpu")
        x = design[:, : self.X.shape[1]]
        return design, x if self.X.dtype == self.dtype else torch.empty_like(x, dtype=self.X.dtype)

    def fetch(self, index: Tensor, memory: tuple[Tensor, Tensor]) -> Tensor:
        """Rows of the design (n, p), on the CPU, in a `row_memory` for as many or more."""
        design, x = (part[: len(index)] for part in memory)
        torch.index_select(self.X, 0, index, out=x)
        scaled = design[:, : x.shape[1]]
        if x.dtype != design.dtype:
            scaled.copy_(x)
        if self.mean.any() or (self.scale != 1).any():
            scaled.sub_(self.mean).div_(self.scale)
        return design

    def design(self, rows: slice, columns: Tensor | None = None) -> Tensor:
        design = self._kept[rows].to(self.home).double() if self.keeps else self._design(rows)
        return design if columns is None else design[:, columns]

    @cached_property
    def _kept(self) -> Tensor:
        return self._beside(self._design(slice(0, self.n_rows)))  # (n, p)

    def _design(self, rows: slice) -> Tensor:
        x = self.X[rows].to(self.home)
        design = torch.empty(len(x), self.n_columns, dtype=torch.float64, device=self.home)  # (rows, p)
        for part in threads.parts_of(x):
            design[part, : x.shape[1]].copy_(x[part]).sub_(self.mean).div_(self.scale)
        design[:, x.shape[1] :] = 1.0
        return design

    @cached_property
    def small_rows(self) -> np.ndarray:
        """The design of a small table, (n, p), in NumPy, whose calls take a third of the time of torch's."""
        return self._kept.numpy()

    @cached_property
    def small_columns(self) -> np.ndarray:
        """The transpose of `small_rows`, (p, n), in memory of its own."""
        return np.ascontiguousarray(self.small_rows.T)

    @cached_property
    def small_pairs(self) -> np.ndarray:
        """The products of pairs of its columns, (n, pairs), in the order of `numpy.triu_indices`."""
        one, other = np.triu_indices(self.n_columns)
        return self.small_rows[:, one] * self.small_rows[:, other]

    @cached_property
    def column_sizes(self) -> Tensor:
        """The largest |x̃_ij| of each column, (p,)."""
        lowest, highest = (end.to(self.home) for end in column_ranges(self.X))  # (d,)
        sizes = torch.maximum(highest - self.mean, self.mean - lowest) / self.scale
        return torch.cat([sizes, sizes.new_ones(int(self.fit_intercept))])  # (p,)

    @property
    def entry_sizes(self) -> tuple[Tensor, Tensor, Tensor]:
        _, usual = self._middle_and_usual
        return self.column_sizes[: len(usual)], usual, torch.full_like(usual, self.n_rows)

    @cached_property
    def _middle_and_usual(self) -> tuple[Tensor, Tensor]:
        """Of the columns of x̃ in some rows, but for the largest entry: median and deviation from it, (d,).

        From zero without an intercept, which would make up for the median.
        """
        rows = self.take(spread_rows(self.n_rows, min(self.n_rows, MIDDLE_ROWS)))
        entries = rows.design(slice(0, rows.n_rows))[:, : self.X.shape[1]]
        middle = entries.sort(dim=0).values[(len(entries) - 1) // 2] * self.fit_intercept
        squares = (entries - middle).square_()
        usual = (squares.sum(dim=0) - squares.amax(dim=0)).clamp_min(0).div(max(1, len(squares) - 1)).sqrt()
        return middle, usual

    def around_the_middle(self) -> tuple[Data, Tensor]:
        if not self.fit_intercept:
            return super().around_the_middle()
        middle, _ = self._middle_and_usual
        middle = torch.where(self.outlying, torch.cat([middle, middle.new_zeros(1)]), 0.0)  # (p,)
        mean = self.mean + middle[:-1] * self.scale
        shift = None if self.shift is None else mean.to(self.shift)
        return replace(self, mean=mean, shift=shift, may_keep=False, always_keeps=False), middle

    def norms_by_logits(self, theta: Tensor, weigh: Weigh) -> Tensor:
        theta, norms = theta.to(self.home).double(), theta.new_zeros(theta.shape, dtype=torch.float64, device=self.home)
        for rows in self._row_slices(len(theta)):
            design = self.design(rows)  # (rows, p)
            norms.addmm_(weigh(theta @ design.T, rows).double(), design.square())
        return norms  # (q, p)

    def row_norms(self) -> Tensor:
        return torch.cat([self.design(rows).square().sum(dim=1) for rows in self._row_slices()])

    def _row_slices(self, n_outputs: int = 0) -> list[slice]:
        stride = max(1, SLICE_BYTES // (8 * max(self.n_columns, n_outputs)))
        return threads.slices(self.n_rows, stride)

    def _rows(self, rows: slice, buffer: Tensor | None = None) -> Tensor:
        if self.keeps:
            return self._kept[rows]  # (rows, p)
        x = self.X[rows]
        if buffer is None and self.shift is None and x.dtype == self.dtype:
            return x
        out = x.new_empty(x.shape, dtype=self.dtype) if buffer is None else buffer[: len(x)]
        if self.shift is None:
            return out.copy_(x)
        if x.dtype == self.dtype:
            return torch.sub(x, self.shift, out=out)  # (rows, d)
        return out.copy_(x).sub_(self.shift) if self.shift.dtype == self.dtype else out.copy_(x - self.shift)


def _part_rows(n_rows: int, fits: int, row_products: int) -> int:
    """Rows of a part where ``fits`` rows make a block and each takes so many multiplications.

    Each part is multiplied by one thread: all threads have as many, and none are left over for a block of their own,
    where that can be. Three parts take 1.3 times as long as two or four, and one of 400 x 5,000 1.1 to 1.6 times.
    """
    if n_rows <= PART_ROWS and n_rows * row_products <= threads.SERIAL_PRODUCT:
        return min(n_rows, fits)
    n_threads = max(1, min(torch.get_num_threads(), fits // LEAST_PART, n_rows // LEAST_PART))
    most = min(PART_ROWS, fits // n_threads)
    least = n_threads * -(-n_rows // (most * n_threads))
    exact = (n for n in range(least, 2 * least) if n_rows % n == 0)
    return n_rows // min(exact, key=lambda n: (n % n_threads != 0, n), default=least)


def _of_columns(X: Tensor, columns: np.ndarray, fit_intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means (or zeros) of some columns, and what deviates from them at least as far as any row, some rows at a time."""
    stride = max(1, SLICE_BYTES // (8 * X.shape[1]))
    parts = [_centre_and_spread(X[i : i + stride][:, columns], fit_intercept) for i in range(0, len(X), stride)]
    means, spreads = (np.stack(part) for part in zip(*parts, strict=True))  # (parts, columns)
    mean = means[0] + (means - means[0]).mean(axis=0)  # exactly the value of a constant column
    return mean, (np.abs(means - mean) + spreads).max(axis=0)


@np.errstate(over="ignore", invalid="ignore")
def _centre_and_spread(rows: Tensor, fit_intercept: bool) -> tuple[np.ndarray, np.ndarray]:
    """Means (or zeros) of the columns and the largest deviation from them, in float64.

    In NumPy, because of tiny tables, where its calls take a third of the time of torch's.
    """
    x = rows.cpu().to(widened(rows.dtype)).numpy()
    if not fit_intercept:
        return np.zeros(x.shape[1]), np.abs(x).max(axis=0).astype(np.float64)
    # Measured from the first row, so that the mean of a constant column is exactly its value.
    first = x[0].astype(np.float64)
    order = "C" if len(first) <= FEW_COLUMNS else "K"
    deviation = np.subtract(x.T, first[:, None], order=order)  # (d, n)
    shift = deviation.mean(axis=1)
    return first + shift, np.maximum(deviation.max(axis=1) - shift, shift - deviation.min(axis=1))
