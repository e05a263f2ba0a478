"""Logits of rows of any storage, for predictions."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from skl_softmax import products, threads
from skl_softmax.data.base import widened
from skl_softmax.data.compressed import product_with_sparse, times
from skl_softmax.data.devices import has_float64

# Outputs from which on logits, and what becomes of them, are made while they are in cache, and the bytes of them and of
# their rows: probabilities of 20,000 x 512 x 100 then take 0.8 of the time in float32, in float64 about as long.
MANY_OUTPUTS, PREDICTED_BYTES = 64, 2**23
# Rows that are widened at a time for predictions on an accelerator.
WIDENED_ROWS = 2**14
# Columns and outputs with which logits in float64 are made as W Xᵀ, and of how many rows at a time. With 400 to 4,000
# columns, probabilities of 8 and 10 outputs take 0.7 to 1.04 of the time that they do from X Wᵀ, of 20 0.35 to 0.5, of
# 30 0.5 to 0.8, of 60 to 128 0.76 to 1.04. With fewer columns, or 3 or 300 outputs, some take longer.
LONG_ROWS, SOME_OUTPUTS, LONG_ROWS_AT_A_TIME = 384, range(8, 129), 1024


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
