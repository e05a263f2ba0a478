"""Sparse X in memory."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
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
from skl_softmax.data.null_space import NullSpace, find_null_space
from skl_softmax.data.numbers import dense_columns, find_numbers, without_columns
from skl_softmax.threads import slices

# Rows of a block: some for each column, so that sums over the columns are little beside the products, and as many as
# make calls cheap. Of 500,000 x 20,000 with 20 entries a row the transposed product takes 11.6 ms whole, 5.4 in eight
# blocks, and to transpose it in two threads 63 ms instead of 124.
BLOCK_ROWS, BLOCK_ROWS_PER_COLUMN = 2**16, 4
# Blocks are cut smaller, each time anew, where their logits need more than this.
SPARSE_LOGITS_BYTES = 256 * 2**20

# Time of an entry of sparse X in a product over that of an entry of dense X.
SPARSE_FACTOR = 10.0


@dataclass(frozen=True)
class SparseBlock:
    """Consecutive rows of a sparse matrix and their transpose, each in compressed rows, and its numbers in dense ones.

    ``x`` may hold entries in the columns of numbers, where ``x_transposed`` has none.
    """

    rows: slice
    x: Tensor  # (rows, d), CSR
    x_transposed: Tensor  # (d, rows), CSR
    numbers: Tensor  # (f,), columns
    values: Tensor  # (f, rows), of numbers less their means

    @property
    def parts(self) -> tuple[int, int]:
        """One part."""
        return 1, self.x.shape[0]

    def logits(self, affine: Affine) -> Tensor:
        """W x_i + b of each row."""
        weight = affine.weight
        if _is_zero(weight):  # where a fit begins
            logits = weight.new_zeros(len(weight), self.x.shape[0])  # (q, rows)
        elif not len(self.numbers):
            logits = times(self.x, weight).contiguous()  # (q, rows)
        else:
            logits = times(self.x, weight.index_fill(1, self.numbers, 0.0)).contiguous()  # (q, rows)
            logits.addmm_(weight[:, self.numbers], self.values)
        return (logits if affine.bias is None else logits.add_(affine.bias[:, None]))[None]  # (1, q, rows)

    def pullback(self, residual: Tensor, with_bias: bool) -> Affine:
        """Σ_i r_i x_i and, as one more column, Σ_i r_i, the transpose of `logits`; ``residual`` is (1, q, rows).

        In memory column by column, as products have it. So is then what is made of gradients: conjugate gradients would
        copy each vector twice, a fifth of their time.
        """
        (residual,), n_features = residual, self.x_transposed.shape[0]
        columns = residual.new_empty(n_features + with_bias, len(residual))  # (p, q)
        times(self.x_transposed, residual, columns[:n_features])
        if len(self.numbers):
            columns[self.numbers] = self.values @ residual.T  # (f, q)
        if with_bias:
            torch.sum(residual, dim=1, out=columns[-1])
        return Affine(columns.T, None)  # (q, p)

    def narrow(self) -> "SparseBlock":
        """The same in float32."""
        x, x_transposed = (with_values(x, x.values().float()) for x in (self.x, self.x_transposed))
        return replace(self, x=x, x_transposed=x_transposed, values=self.values.float())


@dataclass(frozen=True)
class SparseData(Data):
    """Sparse X in memory, in compressed rows. Neither centred nor scaled, so that zeros stay zeros.

    But for numbers that have next to no zeros, such as ages or time stamps, which have dense storage, a third smaller.
    Beside an intercept those with a mean elsewhere are centred: they are next to collinear with it, and rounding may
    hide how they vary.

    The transposed product has its own storage, as large as X and in compressed rows as well: the product with a
    transposed view is 12 times slower. If most entries are of numbers, rows are copies without these: of 100,000 x
    3,304 with four of six entries products take 0.8 of the time so. Products of float64 X in float32 have values of
    their own; those of float32 X in float64 have theirs made some at a time.
    """

    numbers: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

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
        numbers, means = find_numbers(scipy_matrix(X))
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
        parts = (part.split(CONVERTED_VALUES) for part in (self.X.col_indices(), self.X.values()))
        for columns, values in zip(*parts, strict=True):
            sizes.scatter_reduce_(0, columns.long(), values.abs().double(), "amax")
        sizes[self.numbers] = self._values.abs().amax(dim=1)
        return torch.cat([sizes, sizes.new_ones(int(self.fit_intercept))])  # (p,)

    @cached_property
    def outlying(self) -> Tensor:
        lowest, highest = self.X.values().aminmax() if len(self.X.values()) else (torch.ones(()), torch.ones(()))
        if not len(self.numbers) and lowest > 0 and highest <= OUTLYING * lowest:  # as those of categories
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
        numbers, squares = self.numbers.numpy(), self._values.square().numpy()
        largest[numbers], sums[numbers], counts[numbers] = squares.max(axis=1), squares.sum(axis=1), self.n_rows
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
        narrow.__dict__["_values"] = self._values
        narrow.__dict__["_blocks"] = [block.narrow() for block in self._blocks]
        return narrow

    def restrict(self, features: Tensor) -> "SparseData":
        if len(features) == self.X.shape[1]:
            return self
        X, numbers = csr_tensor(scipy_matrix(self.X)[:, features.numpy()]), torch.isin(features, self.numbers)
        return replace(self, X=X, mean=self.mean[features], scale=self.scale[features], numbers=numbers.nonzero()[:, 0])

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
        return self  # whatever is subtracted, F is the same

    def over(self, X: Tensor) -> "SparseData":
        return replace(self, X=X)

    def take(self, index: Tensor) -> "SparseData":
        return replace(self, X=take_compressed(self.X, index))

    def design(self, rows: slice, columns: Tensor | None = None) -> Tensor:
        x = self._rows(rows)
        if columns is None:
            columns = torch.arange(self.n_columns)
        features = columns[columns < x.shape[1]].numpy()
        dense = torch.from_numpy(scipy_matrix(x)[:, features].toarray()).double() - self.mean[features]
        return torch.cat([dense, dense.new_ones(len(dense), len(columns) - len(features))], dim=1)  # (rows, columns)

    def norms_by_logits(self, theta: Tensor, weigh: Weigh) -> Tensor:
        affine, n_features = self.affine(theta), self.X.shape[1]
        columns = torch.zeros(self.n_columns, len(theta), dtype=self.dtype)  # (p, q)
        for block in self._blocks:
            weights = weigh(block.logits(affine)[0], block.rows).to(self.dtype)  # (q, rows)
            columns[:n_features] += times(block.x_transposed, weights, squares=True).T
            columns[self.numbers] += block.values.square() @ weights.T
            columns[n_features:] += weights.sum(dim=1)
        return columns.T  # (q, p)

    def row_norms(self) -> Tensor:
        ones = torch.ones(1, self.X.shape[1], dtype=self.dtype).index_fill_(1, self.numbers, 0.0)
        norms = [times(b.x, ones, squares=True)[0] + b.values.square().sum(dim=0) for b in self._blocks]
        return torch.cat(norms) + self.fit_intercept

    @cached_property
    def _blocks(self) -> list[SparseBlock]:
        rows, _ = slices(self.n_rows, self._block_rows), self._values  # which each thread would make
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
        x, values = self._rows(rows), self._values[:, rows].to(self.dtype)
        if not len(self.numbers):
            return SparseBlock(rows, x, csr_tensor(scipy_matrix(x).T.tocsr()), self.numbers, values)
        others = without_columns(scipy_matrix(x), self.numbers.numpy())
        x = csr_tensor(others) if 2 * others.nnz < x.values().shape[0] else x
        return SparseBlock(rows, x, csr_tensor(others.T.tocsr()), self.numbers, values)

    def _rows(self, rows: slice) -> Tensor:
        ends = self.X.crow_indices()[rows.start : rows.stop + 1]
        entries = slice(int(ends[0]), int(ends[-1]))
        columns, values = self.X.col_indices()[entries], self.X.values()[entries].to(widened(self.X.dtype))
        return torch.sparse_csr_tensor(ends - ends[0], columns, values, (len(ends) - 1, self.X.shape[1]))

    @cached_property
    def _values(self) -> Tensor:
        """Numbers less their means, (f, n)."""
        values = torch.from_numpy(dense_columns(scipy_matrix(self.X), self.numbers.numpy()))
        return values.sub_(self.mean[self.numbers, None])


def _is_zero(weight: Tensor) -> bool:
    return not (weight[0].any() or weight.any())


def _fit_float32(values: Tensor) -> bool:
    sizes = values.abs()
    return bool(((sizes > 1 / FLOAT32_RANGE) & (sizes < FLOAT32_RANGE) | (sizes == 0)).all())
