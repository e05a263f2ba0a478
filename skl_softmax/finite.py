"""NaN, infinity and numbers that lead to these in X."""

from math import isnan

import numpy as np
import torch
from torch import Tensor

from skl_softmax.data import widened
from skl_softmax.threads import slices

# Dense X of more bytes is not read for NaN and infinity alone: F and logits show them.
LARGE_BYTES = 2**24
# The size of numbers whose products with others may be none in float32, to which rows may be converted.
HUGE = 1e30
# Bytes that are searched for them at a time.
SEARCHED_BYTES = 2**24


def is_large(X) -> bool:
    """Whether X is dense, used as it is, and so large that a pass for NaN and infinity alone counts."""
    if isinstance(X, Tensor):
        return X.layout == torch.strided and X.nbytes > LARGE_BYTES
    return isinstance(X, np.ndarray) and X.dtype in (np.float64, np.float32) and X.nbytes > LARGE_BYTES


def check_finite(X: Tensor) -> None:
    """Refuse NaN and infinity in X, dense or in compressed rows."""
    stored = _stored(X)
    wrong = _first_wrong(stored)
    if wrong is not None:
        _refuse(stored[wrong].item(), *_row_and_column(X, *wrong))


def refuse_huge(X: Tensor) -> None:
    """Refuse numbers that are so large that differences or products with them overflow."""
    sizes = _stored(X).abs()
    if sizes.numel() and sizes.max() >= HUGE:
        row, column = _row_and_column(X, *divmod(int(sizes.argmax()), sizes.shape[1]))
        raise ValueError(
            f"X holds a number of size {sizes.max().item():g} in row {row}, column {column}, both counted from 0, with "
            "which sums and products overflow. If it stands for a missing value, fill that in or leave the row out; "
            "else divide the column by its size."
        )


def _stored(X: Tensor) -> Tensor:
    """The numbers of dense X as it is, or of compressed rows in a column."""
    return X if X.layout == torch.strided else X.values()[:, None]


def _row_and_column(X: Tensor, row: int, column: int) -> tuple[int, int]:
    """Where in X the number in this place of `_stored` is."""
    if X.layout == torch.strided:
        return row, column
    return int((X.crow_indices()[1:] <= row).sum()), int(X.col_indices()[row])


def _first_wrong(values: Tensor) -> tuple[int, int] | None:
    """The place of the first that is NaN or infinity, looked for among some rows at a time."""
    for part in slices(len(values), max(1, SEARCHED_BYTES // max(1, values[:1].nbytes))):
        rows = values[part]
        if np.isfinite(_sum(rows)):
            continue
        wrong = rows.isfinite().logical_not_()
        if wrong.any():
            row = int(wrong.any(dim=1).long().argmax())
            return part.start + row, int(wrong[row].long().argmax())
    return None


def _sum(rows: Tensor) -> float:
    """In NumPy where it has the type: up to 16 MB that takes less time than to wake torch's threads."""
    if rows.device.type != "cpu" or rows.dtype != widened(rows.dtype):
        return rows.sum(dtype=widened(rows.dtype)).item()
    with np.errstate(all="ignore"):
        return rows.numpy().sum()


def _refuse(value: float, row: int, column: int) -> None:
    what, advice = "infinity", "Pass a wider type, if it is of numbers beyond the type of X, or other numbers"
    if isnan(value):
        what, advice = "NaN", "Fill such values in, for instance with sklearn.impute.SimpleImputer"
    raise ValueError(
        f"X holds {what} in row {row}, column {column}, both counted from 0. {advice}, or leave their rows out."
    )
