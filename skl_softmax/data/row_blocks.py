"""Rows that come in blocks."""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from os import PathLike, fspath
from reprlib import repr as shortened

import numpy as np

_END = object()


class RowBlocks:
    """Rows that come in blocks, for data larger than memory. In the place of X, in ``fit``, ``predict`` and the like.

    Each evaluation of the objective goes through all blocks once. A fit goes through them twice before: to check X and
    find the classes, and to draw a sample of the rows.

    Parameters
    ----------
    source : iterable
        What gives the same blocks each time it is gone through: tuples (X, y) or (X, y, sample_weight) of what ``fit``
        takes, or names of .npy files in their place, which are read as a whole; for predictions X alone will do. Not an
        iterator, which ends: a list, or an object whose ``__iter__`` starts anew, such as torch's ``DataLoader``
        without shuffling.
    read_ahead : int, default=1
        Blocks that another thread reads while one is worked on. Each has to have memory of its own: where ``source``
        makes all of them in the same, set 0, which is no thread.

    Raises
    ------
    TypeError
        If ``source`` ends once it has been gone through, or cannot be gone through; later, if a block is a dict.
    ValueError
        If ``read_ahead`` is no integer >= 0; later, with its number, for a block of other than one to three entries or
        of files that hold Python objects.

    See Also
    --------
    skl_softmax.dask.DaskTorchSoftmaxClassifier : Rows on a cluster.

    Notes
    -----
    ``fit`` takes them with the solvers "auto", "newton" and "lbfgs", without an L1 penalty or early stopping. It holds
    ``read_ahead`` + 2 blocks and a sample of the rows of some 128 MB.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skl_softmax import RowBlocks, TorchSoftmaxClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> blocks = RowBlocks([(X[i::3], y[i::3]) for i in range(3)])
    >>> clf = TorchSoftmaxClassifier().fit(blocks)
    >>> clf.predict(blocks).shape
    (150,)
    """

    def __init__(self, source: Iterable, read_ahead: int = 1):
        is_one = isinstance(source, (str, PathLike, Mapping))
        if is_one or isinstance(source, Iterator) or not isinstance(source, Iterable):
            raise TypeError(
                "source must be something that can be gone through again and again, such as a list of blocks or an "
                f"object whose __iter__ starts anew, not {type(source).__name__}."
            )
        if not isinstance(read_ahead, Integral) or read_ahead < 0:
            raise ValueError(
                f"read_ahead must be a number of blocks, 0 or more, got {shortened(read_ahead)}. Labels are passed in "
                "the blocks: RowBlocks([(X, y), ...])."
            )
        self.source, self.read_ahead = source, read_ahead

    def __iter__(self) -> Iterator[tuple]:
        """The blocks as (X, y, sample_weight), with None for what is not there."""
        blocks = (_opened(number, block) for number, block in enumerate(self.source))
        return _ahead(blocks, self.read_ahead) if self.read_ahead else blocks


def _opened(number: int, block) -> tuple:
    if isinstance(block, Mapping):
        raise TypeError(
            f"Block {number} is a {type(block).__name__}, but (X, y) or (X, y, sample_weight) is expected: pass the "
            "values in this order."
        )
    parts = tuple(block) if isinstance(block, (tuple, list)) else (block,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"Block {number} has {len(parts)} entries, but (X, y) or (X, y, sample_weight) is expected.")
    X, y, sample_weight, *_ = (*map(_read, parts), None, None)
    return X, y, sample_weight


def _read(part):
    if not isinstance(part, (str, PathLike)):
        return part
    try:
        return np.load(part)
    except ValueError as error:
        raise ValueError(
            f"{fspath(part)!r} cannot be read: {error}. Save numbers, or labels as fixed-width strings."
        ) from error


def _ahead(blocks: Iterator, size: int) -> Iterator:
    """The blocks, of which a thread makes ``size`` while one is worked on."""
    with ThreadPoolExecutor(1) as reader:
        pending = deque(reader.submit(next, blocks, _END) for _ in range(size))
        while (block := pending.popleft().result()) is not _END:
            pending.append(reader.submit(next, blocks, _END))
            yield block
