"""Fits, their time and memory, and what they reached, by the benchmark's own arithmetic."""

import ctypes
import signal
import time
import warnings
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
from scipy.special import logsumexp
from threadpoolctl import threadpool_limits

# Before each fit, in which the threads that the last one has left spinning go to sleep.
PAUSE = 0.1
# What takes less than this is done again until so much time has gone, and the first time is dropped: after a pause half
# of what a fit of 2 ms takes is that the machine wakes up.
TURN = 0.05
ROWS = 100_000  # at a time, so that the arithmetic does not decide the peak of memory


class TimeUp(Exception):
    """A fit took longer than the limit."""


@contextmanager
def limit(seconds):
    """Raise `TimeUp` in the block after that many seconds, as soon as Python code runs again."""

    def stop(*_):
        raise TimeUp

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def fit(setting, X, y, C, seconds):
    """Seconds that a fit took, the fitted estimator, whether it warned; infinity, None and False if it was stopped."""
    model = setting.make(C, X.shape[0])
    threads = nullcontext() if setting.n_threads is None else threadpool_limits(limits=setting.n_threads)
    with threads, limit(seconds + PAUSE):
        try:
            taken, warned = timed_fit(model, X, y)
        except TimeUp:
            return np.inf, None, False
        return taken, model, warned


def timed_fit(model, X, y):
    """Seconds that a fit took, after a pause and, if it is short, after others of the same; and whether it warned."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        seconds = turn(lambda: model.fit(X, y))
    return float(np.median(seconds[1:] or seconds)), bool(said)


def turn(call, at_least=1):
    """Seconds of each of the calls that fit in a `TURN`, the first after a pause."""
    time.sleep(PAUSE)
    seconds = []
    while len(seconds) < at_least or sum(seconds) < TURN:
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def objective(model, X, y, C):
    """F in float64 NumPy."""
    classes = np.unique(y)
    W, b = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(W) == len(classes) > 2 and hasattr(model, "loss") and model.loss == "log_loss":
        return np.nan  # one-versus-rest: not the same model
    index, total = np.searchsorted(classes, y), 0.0
    for start in range(0, X.shape[0], ROWS):
        rows = slice(start, start + ROWS)
        x = X[rows].astype(np.float64)
        logits = x @ W.T + b
        if logits.shape[1] == 1:
            logits = np.hstack([np.zeros_like(logits), logits])
        total += (logsumexp(logits, axis=1) - logits[np.arange(len(logits)), index[rows]]).sum()
    return total / X.shape[0] + (W**2).sum() / (2 * C * X.shape[0])


def process_bytes(name):
    """A figure of this process, by the system's name for it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


class PeakMemory:
    """The most memory held in a block above what was held before it, in bytes; None where the system does not tell."""

    def __enter__(self):
        self.bytes = None
        self._before = None
        with suppress(OSError, AttributeError, TypeError):  # what an earlier fit freed is not at hand for this one
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self._before = process_bytes("VmRSS")
        return self

    def __exit__(self, *_):
        if self._before is not None:
            self.bytes = process_bytes("VmHWM") - self._before


def seconds_to_read(X):
    """Median time of reading X once, by torch's sum."""
    import torch  # here, so that peers without it are not charged for its import

    values = torch.from_numpy(X.data if hasattr(X, "indptr") else X)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        values.sum()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
