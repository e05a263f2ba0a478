"""NaN and infinity in X."""

import numpy as np
import torch
from torch import Tensor

# Dense X of more bytes is not read for NaN and infinity alone: F and logits show them.
LARGE_BYTES = 2**24
# Bytes that are then searched for them at a time.
SEARCHED_BYTES = 2**24


def is_large(X) -> bool:
    """Whether X is dense, used as it is, and so large that a pass for NaN and infinity alone counts."""
    if isinstance(X, Tensor):
        return X.layout == torch.strided and X.nbytes > LARGE_BYTES
    return isinstance(X, np.ndarray) and X.dtype in (np.float64, np.float32) and X.nbytes > LARGE_BYTES


def check_finite(X: Tensor) -> None:
    """Refuse NaN and infinity in dense X, some rows at a time."""
    size = max(1, SEARCHED_BYTES // max(1, X[:1].nbytes))
    for start in range(0, len(X), size):
        wrong = ~X[start : start + size].isfinite().all(dim=1)
        if wrong.any():
            raise ValueError(f"X holds NaN or infinity in row {start + int(wrong.long().argmax())}.")
