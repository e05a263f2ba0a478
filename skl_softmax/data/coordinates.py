"""X in the coordinates that suit what is done with it, whatever its storage."""

from functools import reduce

import torch
from torch import Tensor

from skl_softmax.data.base import Data, widened
from skl_softmax.data.dense import SLICE_BYTES, DenseData
from skl_softmax.data.devices import home_of
from skl_softmax.data.span import SpanData
from skl_softmax.data.sparse import SparseData
from skl_softmax.threads import slices


def standardised(X: Tensor, fit_intercept: bool) -> Data:
    """X in the coordinates that suit its storage."""
    if X.layout != torch.strided:
        return SparseData.standardised(X, bool(fit_intercept))
    return DenseData.standardised(X, bool(fit_intercept))  # torch takes no bools of NumPy


def rotated(data: Data) -> Data:
    """Dense rows in coordinates of the space that they span, if rounding allows; others as they are."""
    return SpanData.rotated(data) if isinstance(data, DenseData) else data


def normalised(X: Tensor, weights: Tensor, fit_intercept: bool) -> Data:
    """X centred and divided by the standard deviation, both weighted, in which descent goes well; sparse X as it is."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    home, stride = home_of(X.device), max(1, SLICE_BYTES // (8 * X.shape[1]))
    shares, chunks = (weights / weights.sum()).to(home), slices(len(X), stride)
    rows_of = lambda chunk: X[chunk].to(home).double()  # noqa: E731, (rows, d)
    mean = sum(shares[chunk] @ rows_of(chunk) for chunk in chunks) * bool(fit_intercept)
    unit = reduce(torch.maximum, (rows_of(chunk).abs().amax(dim=0) for chunk in chunks))  # squares may overflow
    unit = torch.where(unit > 0, unit, 1.0)
    scale = unit * sum(shares[chunk] @ ((rows_of(chunk) - mean) / unit).square() for chunk in chunks).sqrt()
    constant = ~(scale > 1e-12 * mean.abs()) | (scale.square() == 0) | ~scale.isfinite()
    return in_coordinates(X, fit_intercept, mean, torch.where(constant, 1.0, scale))


def in_coordinates(X: Tensor, fit_intercept: bool, mean: Tensor, scale: Tensor) -> Data:
    """X in the coordinates of other rows; sparse X in its own."""
    if X.layout != torch.strided:
        return raw(X, fit_intercept)
    return DenseData.in_coordinates(X, mean, scale, bool(fit_intercept))


def raw(X: Tensor, fit_intercept: bool) -> Data:
    """X in its own coordinates and its own dtype; half precision in float32."""
    return (DenseData if X.layout == torch.strided else SparseData).raw(X, bool(fit_intercept), widened(X.dtype))
