"""Rows on the workers of a Dask cluster, and sums over them.

Each worker keeps its rows in as many groups as it has threads. A sum is one task for each group, and one small result:
the sums of groups are added up in a tree on the workers. The vectors that all tasks need are sent to one worker, and
the others fetch them from there and from one another, each once. What is lost with a worker Dask makes anew: rows from
the collections that the user passed.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from dask import array, dataframe, delayed
from dask.delayed import Delayed
from distributed import Client, Future
from torch import Tensor

from skl_softmax import parts, pieces
from skl_softmax.data import as_tensor, plain_torch, take_rows
from skl_softmax.inputs import TrainingRows

# Seconds without any worker after which a call gives up, and between looks at the workers.
NO_WORKERS_SECONDS = 60.0
LOOK_SECONDS = 1.0
# What a task may carry of a vector: of more than 10 MB in a message Dask warns.
VECTOR_BYTES = 4 * 2**20
# Sums that are added up at a time.
FAN_IN = 8


class Work:
    """What one call keeps on the workers of a cluster. It is released when the block ends, however it ends.

    Parameters
    ----------
    client : distributed.Client
        The cluster's client.
    """

    def __init__(self, client: Client):
        self.client = client
        self._kept: list[Future] = []

    def __enter__(self) -> "Work":
        return self

    def __exit__(self, *_):
        self.release(self._kept)

    def keep(self, tasks: list[Delayed]) -> list[Future]:
        """Compute tasks and leave their results on the workers."""
        return self._keep(self.client.compute(tasks))

    def keep_groups(self, function: Callable, futures: list[Future], *arguments) -> list[Future]:
        """Call a function with groups of kept results, where they are; keep what it returns in their place."""
        found = self._keep(
            [
                # Of results that are lost, and will be made anew, there is no worker.
                self.client.submit(
                    function, group, *arguments, workers=worker, allow_other_workers=worker is not None, pure=False
                )
                for worker, group in self._groups(futures)
            ]
        )
        self.release(futures)
        return found

    def _keep(self, futures: list[Future]) -> list[Future]:
        self._kept += futures
        for future in futures:
            self._finish(future)
        return futures

    def release(self, futures: list[Future]) -> None:
        """Let the workers forget results, or what they still do for them."""
        gone = set(map(id, futures))
        self._kept, futures = [future for future in self._kept if id(future) not in gone], list(futures)
        for future in futures:
            future.release()

    def get(self, task: Delayed):
        """The result of a task."""
        future = self.client.compute(task, optimize_graph=False)
        patience = NO_WORKERS_SECONDS
        try:
            while True:
                self._finish(future)
                with suppress(TimeoutError):  # the workers that held the result are lost, or it is long on its way
                    return future.result(timeout=patience)
                patience *= 2
        finally:
            future.release()

    def _groups(self, futures: list[Future]) -> list[tuple[str | None, list[Future]]]:
        """Workers with the futures that they hold, in as many groups as they have threads."""
        by_worker, n_threads = defaultdict(list), self.client.nthreads()
        holders = self.client.who_has(futures)
        for future in futures:
            by_worker[next(iter(holders.get(future.key, ())), None)].append(future)
        return [
            (worker, held[i::stride])
            for worker, held in by_worker.items()
            for stride in [min(n_threads.get(worker, 1), len(held))]
            for i in range(stride)
        ]

    def _finish(self, future: Future) -> None:
        """Wait for a future, raise its error, or give up when there are no workers."""
        last_seen = time.monotonic()
        while True:
            try:
                error = future.exception(timeout=LOOK_SECONDS)
            except TimeoutError:
                if self.client.nthreads():
                    last_seen = time.monotonic()
                elif time.monotonic() - last_seen > NO_WORKERS_SECONDS:
                    raise _no_workers() from None
                continue
            if error is not None:
                raise error.with_traceback(future.traceback())
            return


def _no_workers() -> TimeoutError:
    return TimeoutError(
        f"The cluster has had no workers for {NO_WORKERS_SECONDS:g} seconds. Start some (client.wait_for_workers(n) "
        "waits for them), and call again."
    )


def tree(add: Callable[[list], object], tasks: list) -> Delayed:
    """One task from many by a function that adds up a list of results, on the workers."""
    while len(tasks) > 1:
        tasks = [delayed(add, pure=False)(tasks[i : i + FAN_IN]) for i in range(0, len(tasks), FAN_IN)]
    return tasks[0]


def align(X, y, sample_weight) -> list[tuple[Delayed | None, ...]]:
    """The partitions of X with those of y and of the weights."""
    X = whole_rows("X", X)
    columns = [_tasks(X)]
    for name, part in (("y", y), ("sample_weight", sample_weight)):
        columns.append([None] * X.npartitions if part is None else _tasks(_beside(X, name, part)))
    return list(zip(*columns, strict=True))


def _tasks(collection) -> list[Delayed]:
    """A task for each partition."""
    if isinstance(collection, array.Array):
        return list(collection.to_delayed().flat)
    # Optimised by themselves, one column of Parquet files would have fewer partitions than many.
    return collection.to_delayed(optimize_graph=False)


def is_collection(X) -> bool:
    """Whether X is one of the collections whose partitions are rows."""
    return isinstance(X, (array.Array, dataframe.DataFrame, dataframe.Series))


def whole_rows(name: str, X):
    """A collection no row of which is split."""
    if not is_collection(X):
        raise TypeError(
            f"{name} must be a dask.array or a dask.dataframe collection, not {type(X).__name__}: "
            "dask.array.from_array(...) makes one. For data in memory there is TorchSoftmaxClassifier."
        )
    return X.rechunk({1: -1}) if isinstance(X, array.Array) and X.ndim == 2 and X.numblocks[1] > 1 else X


def _beside(X, name: str, part):
    """A collection in the partitions of X, which it has to have already where Dask does not know the rows in each."""
    part = whole_rows(name, part)
    if isinstance(X, array.Array) and isinstance(part, array.Array):
        n_rows, found = X.shape[0], part.shape[0]
        if not np.isnan([n_rows, found]).any():
            if n_rows != found:
                raise ValueError(f"X has {n_rows} rows, but {name} has {found}.")
            return part.rechunk({0: X.chunks[0]})
    frames = not isinstance(X, array.Array) and not isinstance(part, array.Array)
    if frames and X.known_divisions and part.known_divisions and X.divisions != part.divisions:
        return part.repartition(divisions=X.divisions)
    if X.npartitions != part.npartitions:
        raise ValueError(
            f"X has {X.npartitions} partitions, but {name} has {part.npartitions}, and Dask does not know which rows "
            "they hold. Make both from the same collection, or call compute_chunk_sizes() on arrays."
        )
    return part


def place(work: Work, partitions: list[tuple], checker, classes, is_soft: bool) -> "PlacedRows":
    """Bring the rows of partitions to the workers, checked and encoded.

    ``checker`` is an estimator with the parameters of the fit that knows the number and names of the features.
    """
    load = delayed(pieces.load_piece, pure=False)
    loaded = work.keep([load(f"Partition {i}", checker, *partition, classes) for i, partition in enumerate(partitions)])
    counts = work.get(tree(pieces.merge_counts, [delayed(pieces.count_labels, pure=False)(piece) for piece in loaded]))
    found, weights = pieces.settle_classes(counts, classes, is_soft)
    encoder = pieces.make_encoder(checker, found, weights)
    groups = work.keep_groups(pieces.encode, loaded, encoder, found if classes is None else classes)
    total = work.get(tree(pieces.merge_tallies, [delayed(pieces.tally, pure=False)(group) for group in groups]))
    if total is None:
        raise ValueError("class_weight and sample_weight leave no row with a positive weight.")
    share = pieces.sample_share(total.n_rows, total.n_bytes, encoder.n_features_in_ + 1, len(found))
    drawn = [delayed(pieces.draw, pure=False)(group, share) for group in groups]
    return PlacedRows(work, groups, total, work.get(delayed(pieces.join, pure=False)(drawn)))


@dataclass(frozen=True)
class PlacedRows:
    """The rows of a fit, on the workers."""

    work: Work
    groups: list[Future]  # of `pieces.RowGroup`
    total: pieces.Tally
    sample: TrainingRows  # here

    def objective(self, C: float, fit_intercept: bool) -> parts.PartsObjective:
        """F of the rows, in whose place there are its summands from now on."""
        data = parts.sample_coordinates(self.sample, self.total, fit_intercept)
        nothing = take_rows(self.sample.X, torch.zeros(0, dtype=torch.int64))
        groups = self.work.keep_groups(parts.make_parts, self.groups, data.over(nothing), self.total.total_weight)
        return parts.make_parts_objective(GroupSum(self.work, groups), self.sample, data, self.total, C)


@dataclass(frozen=True)
class GroupSum:
    """Sums over the parts of groups that are kept on the workers."""

    work: Work
    groups: list[Future]

    def __call__(self, quantity: parts.Quantity, *vectors: Tensor) -> list[Tensor]:
        """The sum of a quantity over all parts."""
        together = torch.stack(vectors).numpy()
        sent = self._send(together.ravel())
        try:
            sums = [delayed(_add_up, pure=False)(quantity, group, together.shape, sent) for group in self.groups]
            return [as_tensor(total) for total in self.work.get(tree(parts.merge_sums, sums))]
        finally:
            self.work.release(sent)

    def _send(self, vector: np.ndarray) -> list[Future]:
        """A vector as results of tasks that return what they are given: scattered data would be lost with a worker."""
        slices = np.array_split(vector, -(-vector.nbytes // VECTOR_BYTES))
        return [self.work.client.submit(np.asarray, part, pure=False) for part in slices]


def _add_up(quantity: parts.Quantity, group: parts.PartGroup, shape, slices: list) -> list[np.ndarray] | None:
    with plain_torch():
        sums = parts.add_up(quantity, group, *torch.from_numpy(np.concatenate(slices).reshape(shape)))
    return None if sums is None else [total.numpy() for total in sums]
