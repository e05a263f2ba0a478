"""Errors where memory ran out, with what to change."""

import re
from math import prod

import torch

# What torch says when the CPU has no more memory, in a plain RuntimeError.
ALLOCATOR = re.compile(r"you tried to allocate (\d+) bytes")


def explained(error: BaseException, estimator) -> BaseException:
    """A `MemoryError` that says what was wanted and what helps, for an error of that kind; any other as it is."""
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not ALLOCATOR.search(str(error)):
        return error
    wanted = _wanted(error)
    size = "Memory ran out" if wanted is None else f"Memory ran out: {wanted:,} bytes were wanted in one piece"
    better = MemoryError(
        f"{size} ({error}). X is used without a copy if it is float32, float64 or float16 in C order, in memory or a "
        "np.memmap. What a fit needs besides depends on the solver: 'newton' holds a matrix of all parameters squared, "
        f"'lbfgs' smaller ones, and 'sgd' with a batch_size next to nothing; this is solver={estimator.solver!r}."
    )
    better.__cause__ = error
    return better


def _wanted(error: BaseException) -> int | None:
    """Bytes, where the error tells."""
    if found := ALLOCATOR.search(str(error)):
        return int(found[1])
    if hasattr(error, "shape") and hasattr(error, "dtype"):  # NumPy's
        return prod(error.shape) * error.dtype.itemsize
    return None
