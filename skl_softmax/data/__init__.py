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
- Dense rows fewer than columns are taken in coordinates of the space that they span (`span`) if a copy is small.

A block holds its rows as ``n_parts`` parts of ``part`` rows each, and logits have the shape (n_parts, q, part): matrix
products with few classes are twice as fast in batches of a thousand rows as in one piece, and softmax over a middle
dimension is seven times faster than over the last one. Large products in float32 are in one piece (`products`).
"""

from collections.abc import Callable
from functools import reduce

import torch
from scipy.sparse import vstack
from torch import Tensor
from torch.nn import functional

from skl_softmax import products, threads
from skl_softmax.data.base import Affine, Block, Data, as_tensor, widened
from skl_softmax.data.dense import PORTION_BYTES, DenseData
from skl_softmax.data.devices import find_device, has_float64, home_of, making_on, plain_torch
from skl_softmax.data.row_blocks import RowBlocks
from skl_softmax.data.span import SpanData
from skl_softmax.data.sparse import SparseData, csr_tensor, product_with_sparse, scipy_matrix, take_compressed, times

__all__ = [
    "Affine",
    "Block",
    "Data",
    "DenseData",
    "RowBlocks",
    "SparseData",
    "as_tensor",
    "column_ranges",
    "csr_tensor",
    "find_device",
    "home_of",
    "in_coordinates",
    "join_rows",
    "linear",
    "making_on",
    "n_bytes",
    "normalised",
    "on_device",
    "plain_torch",
    "raw",
    "rotated",
    "scipy_matrix",
    "spread_rows",
    "standardised",
    "take_rows",
    "widened",
]

# Outputs from which on logits, and what becomes of them, are made while they are in cache, and the bytes of them and of
# their rows: probabilities of 20,000 x 512 x 100 then take 0.8 of the time in float32, in float64 about as long.
MANY_OUTPUTS, PREDICTED_BYTES = 64, 2**23
# Rows that are widened at a time for predictions on an accelerator.
WIDENED_ROWS = 2**14
# Columns and outputs with which logits in float64 are made as W Xᵀ, and of how many rows at a time. With 400 to 4,000
# columns, probabilities of 8 and 10 outputs take 0.7 to 1.04 of the time that they do from X Wᵀ, of 20 0.35 to 0.5, of
# 30 0.5 to 0.8, of 60 to 128 0.76 to 1.04. With fewer columns, or 3 or 300 outputs, some take longer.
LONG_ROWS, SOME_OUTPUTS, LONG_ROWS_AT_A_TIME = 384, range(8, 129), 1024


def standardised(X: Tensor, fit_intercept: bool) -> Data:
    """X in the coordinates that suit its storage."""
    is_dense = X.layout == torch.strided
    return DenseData.standardised(X, fit_intercept) if is_dense else SparseData.raw(X, fit_intercept, torch.float64)


def rotated(data: Data) -> Data:
    """Dense rows in coordinates of the space that they span, if rounding allows; others as they are."""
    return SpanData.rotated(data) if isinstance(data, DenseData) else data


def normalised(X: Tensor, weights: Tensor, fit_intercept: bool) -> Data:
    """X centred and divided by the standard deviation, both weighted, in which descent goes well; sparse X as it is."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    home, stride = home_of(X.device), max(1, PORTION_BYTES // (8 * X.shape[1]))
    shares, chunks = (weights / weights.sum()).to(home), [slice(i, i + stride) for i in range(0, len(X), stride)]
    rows_of = lambda chunk: X[chunk].to(home).double()  # noqa: E731, (rows, d)
    mean = sum(shares[chunk] @ rows_of(chunk) for chunk in chunks) * fit_intercept
    unit = reduce(torch.maximum, (rows_of(chunk).abs().amax(dim=0) for chunk in chunks))  # squares may overflow
    unit = torch.where(unit > 0, unit, 1.0)
    scale = unit * sum(shares[chunk] @ ((rows_of(chunk) - mean) / unit).square() for chunk in chunks).sqrt()
    constant = ~(scale > 1e-12 * mean.abs()) | (scale.square() == 0) | ~scale.isfinite()
    return in_coordinates(X, fit_intercept, mean, torch.where(constant, 1.0, scale))


def in_coordinates(X: Tensor, fit_intercept: bool, mean: Tensor, scale: Tensor) -> Data:
    """X in the coordinates of other rows; sparse X in its own."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    return DenseData.in_coordinates(X, mean, scale, fit_intercept)


def raw(X: Tensor, fit_intercept: bool) -> Data:
    """X in its own coordinates and its own dtype; half precision in float32."""
    return (DenseData if X.layout == torch.strided else SparseData).raw(X, fit_intercept, widened(X.dtype))


def on_device(X: Tensor, device: torch.device) -> Tensor:
    """X on a device, in float32 where there is no float64; sparse X stays on the CPU."""
    if X.layout != torch.strided or X.device == device:
        return X
    return (X if has_float64(device) or X.dtype != torch.float64 else X.float()).to(device)


def take_rows(X: Tensor, index: Tensor) -> Tensor:
    """A copy of some rows of any storage."""
    if X.layout != torch.strided:
        return take_compressed(X, index)
    return X.index_select(0, index.to(X.device))  # X[index] wakes threads, for 2 ms where NumPy has some of its own


def spread_rows(n_rows: int, wanted: int) -> Tensor:
    """Indices of ``wanted`` rows, one drawn from each of as many equal stretches, always the same."""
    within = torch.rand(wanted, dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu")
    return ((torch.arange(wanted, device="cpu") + within) * (n_rows / wanted)).long()


def join_rows(parts: list[Tensor]) -> Tensor:
    """Rows of any storage, one after the other."""
    if parts[0].layout == torch.strided:
        return torch.cat(parts)
    return csr_tensor(vstack([scipy_matrix(part) for part in parts], format="csr"))


def column_ranges(X: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest and the largest value of each column (d,) of dense X, in float64; nothing of sparse X."""
    if X.layout != torch.strided:
        return torch.zeros(0), torch.zeros(0)
    return X.amin(dim=0).cpu().double(), X.amax(dim=0).cpu().double()


def n_bytes(X: Tensor) -> int:
    """Memory of rows of any storage."""
    if X.layout == torch.strided:
        return X.nbytes
    return sum(part.nbytes for part in (X.values(), X.col_indices(), X.crow_indices()))


def linear(X: Tensor, weight: Tensor, bias: Tensor, then: Callable[[Tensor], Tensor] = lambda logits: logits) -> Tensor:
    """Logits (n, K) of rows of any storage, in the wider one of the dtypes, or what is made of them row by row.

    Of dense X with many outputs, or long rows, or that has to be widened, some rows at a time.
    """
    dtype = torch.promote_types(widened(X.dtype), weight.dtype) if has_float64(X.device) else torch.float32
    weight, bias, is_dense = weight.to(dtype).to(X.device), bias.to(dtype).to(X.device), X.layout == torch.strided
    if is_dense and weight.layout == torch.strided and threads.is_small_product(X, len(weight)):
        return then(threads.linear(X.to(dtype), weight, bias))
    stride = _rows_at_a_time(X, weight) if is_dense else len(X)
    if stride >= len(X):
        return then(_logits(X.to(dtype) if is_dense else X, weight, bias))
    # One for all, as holes that the last one left are taken by what is smaller: predictions took up to 110 MB.
    wide = None if X.dtype == dtype else X.new_empty(stride, X.shape[1], dtype=dtype)
    result = None
    for start in range(0, len(X), stride):
        rows = slice(start, start + stride)
        x = X[rows] if wide is None else wide[: len(X[rows])].copy_(X[rows])
        part = then(_logits(x, weight, bias))
        result = part.new_empty(len(X), *part.shape[1:]) if result is None else result
        result[rows] = part
    return result


def _rows_at_a_time(X: Tensor, weight: Tensor) -> int:
    """Dense rows whose logits are made at a time."""
    n_outputs, n_columns = weight.shape
    if X.device.type != "cpu":
        return len(X) if X.dtype == weight.dtype else WIDENED_ROWS
    if X.dtype == weight.dtype and _is_long(X, weight):
        return LONG_ROWS_AT_A_TIME
    if X.dtype == weight.dtype and n_outputs < MANY_OUTPUTS:
        return len(X)
    return max(1, PREDICTED_BYTES // (weight.dtype.itemsize * (n_columns + n_outputs)))


def _is_long(X: Tensor, weight: Tensor) -> bool:
    """Whether W Xᵀ takes less time than X Wᵀ."""
    is_wide = weight.dtype == torch.float64 and X.device.type == "cpu" and weight.layout == torch.strided
    return is_wide and X.shape[1] >= LONG_ROWS and len(weight) in SOME_OUTPUTS


def _logits(X: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    if weight.layout != torch.strided:
        return product_with_sparse(X, weight) + bias
    if X.layout != torch.strided:
        return times(X, weight).T.add_(bias)  # (n, K)
    if _is_long(X, weight):
        return torch.addmm(bias[:, None], weight, X.T).T.contiguous()  # (n, K)
    if products.is_quick(X, X.dtype, len(weight)):
        return products.times_transposed(X, weight).add_(bias)
    return functional.linear(X, weight, bias)
