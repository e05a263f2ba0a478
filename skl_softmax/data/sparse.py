"""Sparse X in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from skl_softmax.data.base import FLOAT32_RANGE, OUTLYING, Affine, Data, Weigh, widened
from skl_softmax.data.compressed import (
    CONVERTED_VALUES,
    MOST_VECTORS,
    csr_tensor,
    scipy_matrix,
    take_compressed,
    times,
    with_values,
)
from skl_softmax.data.null_space import ROUNDING, NullSpace, find_null_space
from skl_softmax.threads import slices

# Rows of a block: some for each column, so that sums over the columns are little beside the products, and as many as
# make calls cheap. Of 500,000 x 20,000 with 20 entries a row the transposed product takes 11.6 ms whole, 5.4 in eight
# blocks, and to transpose it in two threads 63 ms instead of 124.
BLOCK_ROWS, BLOCK_ROWS_PER_COLUMN = 2**16, 4
# Blocks are cut smaller, each time anew, where their logits need more than this.
SPARSE_LOGITS_BYTES = 256 * 2**20

# The part of the rows that have an entry in columns that may be centred, which gives one to the others; and how many
# standard deviations from zero their mean is. One-hot tables of 300 to 3,000 levels beside ages, counts, years, incomes
# or uniform numbers take 0.04 to 1.03 of the passes so, most of them 0.2 to 0.5, as with 0.05; with 1 some take 1.5
# times as many.
MOSTLY, OFF_CENTRE = 0.9, 0.3
# Rows that tell whether any may be, and the memory in which columns are looked at.
LOOKED_AT, LOOKED_AT_BYTES = 64, 64 * 2**20

# Time of an entry of sparse X in a product over that of an entry of dense X.
SPARSE_FACTOR = 10.0


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
        if _is_zero(affine.weight):  # where a fit begins
            logits = affine.weight.new_zeros(len(affine.weight), self.x.shape[0])  # (q, rows)
        else:
            logits = times(self.x, affine.weight).contiguous()  # (q, rows)
        return (logits if affine.bias is None else logits.add_(affine.bias[:, None]))[None]  # (1, q, rows)

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:
        """Σ_i r_i x_i and, as one more column, Σ_i r_i, the transpose of `logits`; ``residual`` is (1, q, rows).

        In memory column by column, as products have it. So is then what is made of gradients: conjugate gradients would
        copy each vector twice, a fifth of their time.
        """
        (residual,), n_features = residual, self.x_transposed.shape[0]
        columns = residual.new_empty(n_features + with_bias, len(residual))  # (p, q)
        times(self.x_transposed, residual, columns[:n_features])
        if with_bias:
            torch.sum(residual, dim=1, out=columns[-1])
        return Affine(columns.T, None)  # (q, p)

    def narrow(self) -> "SparseBlock":
        """The same in float32."""
        return SparseBlock(self.rows, *(with_values(x, x.values().float()) for x in (self.x, self.x_transposed)))


@dataclass(frozen=True)
class SparseData(Data):
    """Sparse X in memory, in compressed rows. Neither centred nor scaled, so that zeros stay zeros.

    But for numbers beside an intercept that have next to no zeros, and a mean elsewhere, such as ages or time stamps:
    they are next to collinear with the intercept, and rounding may hide how they vary. Blocks are then copies.

    The transposed product has its own storage, as large as X and in compressed rows as well: the product with a
    transposed view is 12 times slower. Products of float64 X in float32 have values of their own; those of float32 X in
    float64 have theirs made some at a time.
    """

    numbers: Tensor | None = None

    is_dense: ClassVar[bool] = False
    most_outputs: ClassVar[float] = MOST_VECTORS

    @classmethod
    def raw(cls, X: Tensor, fit_intercept: bool, dtype: torch.dtype) -> "SparseData":
        """The columns as they are."""
        zeros = torch.zeros(X.shape[1], dtype=torch.float64)
        return cls(X, zeros, torch.ones_like(zeros), None, fit_intercept, dtype)

    @classmethod
    def standardised(cls, X: Tensor, fit_intercept: bool) -> "SparseData":
        """Those of numbers, which next to no zeros are among, centred."""
        numbers, means = _numbers(scipy_matrix(X))
        data = replace(cls.raw(X, fit_intercept, torch.float64), numbers=numbers)
        return replace(data, mean=data.mean.index_copy(0, numbers, means)) if fit_intercept else data

    def blocks(self, n_logits: int) -> Iterator[SparseBlock]:
        fits = max(1, SPARSE_LOGITS_BYTES // (self.dtype.itemsize * n_logits))
        if fits >= min(self.n_rows, self._block_rows):
            yield from self._blocks
            return
        yield from map(self.block, slices(self.n_rows, fits))

    @cached_property
    def nominal_sizes(self) -> Tensor:
        sizes = torch.zeros(self.X.shape[1], dtype=torch.float64)  # (d,)
        for x in [block.x for block in self._blocks] if self._centres else [self.X]:
            parts = (part.split(CONVERTED_VALUES) for part in (x.col_indices(), x.values()))
            for columns, values in zip(*parts, strict=True):
                sizes.scatter_reduce_(0, columns.long(), values.abs().double(), "amax")
        return torch.cat([sizes, sizes.new_ones(int(self.fit_intercept))])  # (p,)

    @cached_property
    def outlying(self) -> Tensor:
        lowest, highest = self.X.values().aminmax() if len(self.X.values()) else (torch.ones(()), torch.ones(()))
        if lowest > 0 and highest <= OUTLYING * lowest:  # as those of categories
            return torch.zeros(self.n_columns, dtype=torch.bool)
        return super().outlying

    @property
    def entry_sizes(self) -> tuple[Tensor, Tensor, Tensor]:
        largest, sums, counts = np.zeros((3, self.X.shape[1]))  # (d,), of squares
        for block in self._blocks:
            ends, squares = block.x_transposed.crow_indices().numpy(), block.x_transposed.values().double().square()
            some = np.flatnonzero(np.diff(ends))  # columns with entries, side by side
            largest[some] = np.maximum(largest[some], np.maximum.reduceat(squares.numpy(), ends[some]))
            sums[some] += np.add.reduceat(squares.numpy(), ends[some])
            counts += np.diff(ends)
        others = (sums - largest).clip(0) / (counts - 1).clip(1)
        return torch.from_numpy(largest).sqrt(), torch.from_numpy(others).sqrt(), torch.from_numpy(counts)

    def affine(self, theta: Tensor) -> Affine:
        weight = theta[:, : self.X.shape[1]].to(self.dtype)  # (q, d)
        return Affine(weight, theta[:, -1].to(self.dtype) if self.fit_intercept else None)

    def gradient(self, total: Affine) -> Tensor:
        return total.weight  # (q, p)

    @property
    def converts(self) -> bool:
        return False

    @cached_property
    def fits_float32(self) -> bool:
        return all(map(_fit_float32, self.X.values().split(CONVERTED_VALUES)))

    def narrow(self) -> "SparseData":
        return self._narrow

    @cached_property
    def _narrow(self) -> "SparseData":
        narrow = replace(self, dtype=torch.float32)
        narrow.__dict__["_blocks"] = [block.narrow() for block in self._blocks]
        return narrow

    def restrict(self, features: Tensor) -> "SparseData":
        if len(features) == self.X.shape[1]:
            return self
        X = csr_tensor(scipy_matrix(self.X)[:, features.numpy()])
        return replace(self, X=X, mean=self.mean[features], scale=self.scale[features], numbers=None)

    @property
    def row_length(self) -> float:
        return self.X.values().shape[0] / self.n_rows

    @property
    def row_entries(self) -> float:
        # A sparse product takes as long as a dense one with this many times the entries.
        return SPARSE_FACTOR * self.row_length

    @property
    def row_bytes(self) -> int:
        entry = self.X.values().element_size() + self.X.col_indices().element_size()
        return max(1, entry * self.X.values().shape[0] // self.n_rows)

    @cached_property
    def null_space(self) -> NullSpace | None:
        if not self.fit_intercept:
            return None
        return find_null_space(self.X, lambda vector: times(self.X, vector[None])[0])

    @cached_property
    def rarest(self) -> float:
        return torch.bincount(self.X.col_indices(), minlength=self.X.shape[1]).min().item()

    def covering(self, lowest: Tensor, highest: Tensor) -> "SparseData":  # noqa: ARG002, not scaled
        return self  # whatever is subtracted, F is the same; of rows with more zeros more entries are filled

    def over(self, X: Tensor) -> "SparseData":
        return replace(self, X=X)

    def take(self, index: Tensor) -> "SparseData":
        return replace(self, X=take_compressed(self.X, index))

    def design(self, rows: slice, columns: Tensor | None = None) -> Tensor:
        x = self._rows(rows)
        if columns is None:
            columns = torch.arange(self.n_columns)
        features = columns[columns < x.shape[1]].numpy()
        dense = torch.from_numpy(scipy_matrix(x)[:, features].toarray()).double()
        return torch.cat([dense, dense.new_ones(len(dense), len(columns) - len(features))], dim=1)  # (rows, columns)

    def norms_by_logits(self, theta: Tensor, weigh: Weigh) -> Tensor:
        affine, n_features = self.affine(theta), self.X.shape[1]
        columns = torch.zeros(self.n_columns, len(theta), dtype=self.dtype)  # (p, q)
        for block in self._blocks:
            weights = weigh(block.logits(affine)[0], block.rows).to(self.dtype)  # (q, rows)
            columns[:n_features] += times(block.x_transposed, weights, squares=True).T
            columns[n_features:] += weights.sum(dim=1)
        return columns.T  # (q, p)

    def row_norms(self) -> Tensor:
        ones = torch.ones(1, self.X.shape[1], dtype=self.dtype)
        return torch.cat([times(b.x, ones, squares=True)[0] for b in self._blocks]) + self.fit_intercept

    @cached_property
    def _blocks(self) -> list[SparseBlock]:
        rows = slices(self.n_rows, self._block_rows)
        mode = torch.is_inference_mode_enabled()

        def block(some: slice) -> SparseBlock:
            with torch.inference_mode(mode):  # which threads do not inherit
                return self.block(some)

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # SciPy transposes in one, without Python's lock
            return list(threads.map(block, rows))

    @property
    def _block_rows(self) -> int:
        return max(BLOCK_ROWS, BLOCK_ROWS_PER_COLUMN * self.X.shape[1])

    def block(self, rows: slice) -> SparseBlock:
        x = self._rows(rows)
        return SparseBlock(rows, x, csr_tensor(scipy_matrix(x).T.tocsr()))

    def _rows(self, rows: slice) -> Tensor:
        ends = self.X.crow_indices()[rows.start : rows.stop + 1]
        entries = slice(int(ends[0]), int(ends[-1]))
        columns, values = self.X.col_indices()[entries], self.X.values()[entries].to(widened(self.X.dtype))
        x = torch.sparse_csr_tensor(ends - ends[0], columns, values, (len(ends) - 1, self.X.shape[1]))
        return self._centred(x) if self._centres else x

    def _centred(self, x: Tensor) -> Tensor:
        """Rows less the mean."""
        rows, columns = scipy_matrix(x), np.flatnonzero(self.mean)
        ends = np.arange(0, len(x) * len(columns) + 1, len(columns), dtype=rows.indices.dtype)
        indices, means = np.tile(columns.astype(rows.indices.dtype), len(x)), np.tile(self.mean[columns], len(x))
        less = rows - csr_array((means, indices, ends), shape=x.shape)
        return csr_tensor(less.astype(rows.dtype, copy=False))

    @cached_property
    def _centres(self) -> bool:
        return bool(self.mean.any())


def _numbers(x: csr_array) -> tuple[Tensor, Tensor]:
    """The columns that next to no zeros are among, (f,), and where to centre them; some of the rows tell which may be.

    Not those in which there are only equal values: these may be levels of a category.
    """
    some = x[np.linspace(0, x.shape[0] - 1, LOOKED_AT).astype(int)]
    may_be = np.flatnonzero(np.bincount(some.indices, minlength=x.shape[1]) >= MOSTLY * LOOKED_AT)
    may_be = may_be[~_are_alike(some[:, may_be].toarray())]
    is_full, means = np.zeros(len(may_be), dtype=bool), np.zeros(len(may_be))
    for part in slices(len(may_be), max(1, LOOKED_AT_BYTES // (8 * x.shape[0]))):
        is_full[part], means[part] = _centre(x[:, may_be[part]].toarray().astype(np.float64, copy=False))
    return torch.from_numpy(may_be[is_full]), torch.from_numpy(means[is_full])


def _are_alike(values: np.ndarray) -> np.ndarray:
    """In which columns of (n, columns) all that is not zero is one number, to rounding."""
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)  # (1, columns)
    return (np.isclose(values, largest, rtol=ROUNDING, atol=0.0) | (values == 0)).all(axis=0)


def _centre(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which columns of (n, columns) have few zeros, and their means, 0 of those of which that is next to the mean."""
    is_full = np.count_nonzero(values, axis=0) >= MOSTLY * len(values)
    with np.errstate(over="ignore", invalid="ignore"):
        means, spreads = values.mean(axis=0), values.std(axis=0)
    return is_full, np.where(np.abs(means) > OFF_CENTRE * spreads, means, 0.0)


def _is_zero(weight: Tensor) -> bool:
    return not (weight[0].any() or weight.any())


def _fit_float32(values: Tensor) -> bool:
    sizes = values.abs()
    return bool(((sizes > 1 / FLOAT32_RANGE) & (sizes < FLOAT32_RANGE) | (sizes == 0)).all())
