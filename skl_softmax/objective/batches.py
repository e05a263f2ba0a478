"""F from some of its rows at a time, as optimisers go over them."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from skl_softmax.objective import costs, curvature
from skl_softmax.objective.base import Evaluation, Objective
from skl_softmax.objective.small import loss_and_proba, target_proba

# Rows that are fetched at a time, for many batches.
CHUNK_ROWS = 2**13
# Targets of a chunk, as probabilities, and entries of a batch, up to which NumPy is quicker: by 1.2 to 4.5 times for
# 14 shapes from 64 x 64 x 10 to 8,192 x 50 x 1 and 1,024 x 784 x 10, in float64 and float32.
SMALL = 2**20


class BatchedObjective(Objective):
    """F of one model, with what descent by an optimiser asks for. Shapes as in `skl_softmax.objective`."""

    def batches(
        self, size: int | None, generator: torch.Generator, shuffle: bool = True
    ) -> Iterator[tuple[float, "Batch | SmallBatch | BatchedObjective"]]:
        """Unbiased estimates of F from ``size`` rows each, every row once, with their parts of the rows.

        F itself where size is None.
        """
        if size is None or size >= self.n_rows:
            yield 1.0, SmallBatch(self._whole, slice(None), self.total.item()) if self._is_small(self.n_rows) else self
            return
        in_order = torch.arange(self.n_rows, device="cpu")
        order = torch.randperm(self.n_rows, generator=generator, device="cpu") if shuffle else in_order
        indices, is_small = order.split(max(1, CHUNK_ROWS // size) * size), self._is_small(size)
        chunks = self._small_chunks(indices) if is_small else map(self.take, indices)
        make, total = (SmallBatch, self.total.item()) if is_small else (Batch, self.total)
        for index, chunk in zip(indices, chunks, strict=True):  # one copy for many batches
            for start in range(0, len(index), size):
                rows = slice(start, min(start + size, len(index)))
                share = (rows.stop - start) / self.n_rows
                yield share, make(chunk, rows, share * total)

    @property
    def largest_l2(self) -> Tensor:
        """The largest second derivative of the penalty, (M,)."""
        return self.column_l2.amax(dim=(1, 2))

    def smoothness(self, batch_size: int | None) -> Tensor:
        """A Lipschitz constant (M,) of the gradient of the mean loss, or of its estimate from ``batch_size`` rows.

        From the curvature bound: L of all rows is c λ_max(gram); that of batches lies between L and the largest one of
        a single row, Gower et al. (2019), "SGD: general analysis and improved rates", eq. 33.
        """
        bound = self.loss.curvature_bound
        norms = self.data.row_norms()  # (n,)
        if self.n_parameters <= costs.DENSE_LIMIT:
            whole = bound * torch.linalg.eigvalsh(curvature.gram(self))[:, -1]  # (M,)
        else:  # the trace
            whole = bound * (self.weights.to(norms) @ norms) / self.total
        n_rows = self.data.n_rows
        if batch_size is None or batch_size >= n_rows:
            return whole
        single = bound * (self.weights.to(norms) * norms).amax(dim=1) * n_rows / self.total
        rest = batch_size * (n_rows - 1)
        return n_rows * (batch_size - 1) / rest * whole + (n_rows - batch_size) / rest * single

    def _small_chunks(self, indices: Sequence[Tensor]) -> Iterator["SmallChunk"]:
        """The rows of each index, in the same memory one after the other.

        What is made for each of many would lie between what else is, and not all of it be used again.
        """
        memory = self.data.row_memory(len(indices[0]))
        return (SmallChunk(self, index, memory) for index in indices)

    def _is_small(self, size: int) -> bool:
        """Whether batches of this many rows are small, in memory and dense."""
        data, rows = self.data, max(size, CHUNK_ROWS)
        fits = rows * self.n_outputs <= SMALL and size * data.n_columns <= SMALL
        return fits and data.X.layout == torch.strided and data.X.device.type == "cpu" and self.l1 is None

    @cached_property
    def _whole(self) -> "SmallChunk":
        index = torch.arange(self.n_rows, device="cpu")
        return SmallChunk(self, index, self.data.row_memory(self.n_rows))


class Batch:
    """An unbiased estimate of F from some rows, consecutive in a part of them that is at hand."""

    def __init__(self, chunk: Objective, rows: slice, total: Tensor):
        self._chunk, self._rows, self._total = chunk, rows, total

    def at(self, theta: Tensor) -> Evaluation:
        """The estimate and its gradient."""
        portion = self._chunk.portion(self._chunk.data.block(self._rows))
        return self._chunk.mean_over([portion], self._total, theta)


class SmallChunk:
    """Rows of which small batches are parts: design, weights and weighted targets (n, p), (1, 1, n), (1, K, n)."""

    def __init__(self, objective: BatchedObjective, index: Tensor, memory: tuple[Tensor, Tensor]):
        self.design, self.penalty = objective.data.fetch(index, memory).numpy(), objective.column_l2.numpy()
        self.weights = objective.weights[0].index_select(0, index).numpy()[None, None]  # a tenth of the time of (1, n)
        targets = objective.targets.index_select(0, index)
        proba = target_proba(targets, objective.n_outputs, objective.label_proba)
        self.targets = (self.weights * proba).astype(self.design.dtype, copy=False)


class SmallBatch:
    """A `Batch` by the formulas of small tables (`skl_softmax.objective.small`)."""

    def __init__(self, chunk: SmallChunk, rows: slice, total: float):
        self._parts = chunk.design[rows], chunk.weights[..., rows], chunk.targets[..., rows]
        self._total, self._penalty = total, chunk.penalty  # (1, 1, p)

    @np.errstate(all="ignore")
    def at(self, theta: Tensor) -> Evaluation:
        """The estimate and its gradient."""
        (x, weights, targets), parameters = self._parts, theta.numpy()  # (1, K, p)
        loss, residual = loss_and_proba(parameters @ x.T, weights, targets)  # (1,), (1, K, size)
        residual *= weights
        residual -= targets
        gradient = residual @ x  # (1, K, p)
        gradient /= self._total
        penalty = self._penalty * parameters  # (1, K, p)
        gradient += penalty
        value = loss / self._total + 0.5 * np.vdot(penalty, parameters)
        return Evaluation(torch.from_numpy(value), torch.from_numpy(gradient))
