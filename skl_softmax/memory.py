"""Memory that is used again, and errors where it ran out, with what to change."""

import re
from math import prod

import torch

# What torch says when the CPU has no more memory, in a plain RuntimeError.
ALLOCATOR = re.compile(r"you tried to allocate (\d+) bytes")
# Nearly the largest piece by which glibc adjusts what it keeps: 32 MB (DEFAULT_MMAP_THRESHOLD_MAX in its malloc.c).
ADJUSTING_BYTES = 2**25 - 2**16


def keep_what_is_freed() -> None:
    """Have the C library keep the memory of one pass for the next.

    glibc gives what is free at the end of its heap back to the system, which zeroes it anew for the next pass: a sweep
    over letter had 120,000 page faults, a quarter of its time. It learns better from a large piece that is freed, as
    of most arrays, and keeps up to twice as much from then on ("dynamic mmap threshold", mallopt(3)). Where the process
    has not freed any, this is one, which takes 10 µs, as nothing is written to it.
    """
    torch.empty(ADJUSTING_BYTES, dtype=torch.uint8, device="cpu")


def explained(error: BaseException, estimator) -> BaseException:
    """A `MemoryError` that says what was wanted and what helps, for an error of that kind; any other as it is."""
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and not ALLOCATOR.search(str(error)):
        return error
    wanted = _wanted(error)
    size = "Memory ran out" if wanted is None else f"Memory ran out: {wanted:,} bytes were wanted in one piece"
    better = MemoryError(
        f"{size} ({error}). X is used without a copy if it is float32, float64 or float16 in C order, in memory or a "
        "np.memmap, and no row is left out by a weight of 0 or by early_stopping. What a fit needs besides depends on "
        "the solver: 'newton' holds a matrix of all parameters squared, 'lbfgs' smaller ones, and 'sgd' with a "
        f"batch_size next to nothing; this is solver={estimator.solver!r}.{_of_sweeps(estimator)}"
    )
    better.__cause__ = error
    return better


def _of_sweeps(estimator) -> str:
    return " Weights of 8 bytes are held for each row and fold: set cv to fewer." if hasattr(estimator, "cv") else ""


def _wanted(error: BaseException) -> int | None:
    """Bytes, where the error tells."""
    if found := ALLOCATOR.search(str(error)):
        return int(found[1])
    if hasattr(error, "shape") and hasattr(error, "dtype"):  # NumPy's
        return prod(error.shape) * error.dtype.itemsize
    return None
