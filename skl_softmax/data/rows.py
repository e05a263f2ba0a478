"""Rows of any storage: taken, drawn, joined, moved and measured."""

import torch
from scipy.sparse import vstack
from torch import Tensor

from skl_softmax.data.devices import has_float64
from skl_softmax.data.sparse import csr_tensor, scipy_matrix, take_compressed


def on_device(X: Tensor, device: torch.device) -> Tensor:
    """X on a device, in float32 where there is no float64; sparse X stays on the CPU."""
    if X.layout != torch.strided or X.device == device:
        return X
    return (X if has_float64(device) or X.dtype != torch.float64 else X.float()).to(device)


def take_rows(X: Tensor, index: Tensor) -> Tensor:
    """A copy of some rows of any storage."""
    if X.layout != torch.strided:
        return take_compressed(X, index)
    return X.index_select(0, index.to(X.device))  # X[index] wakes threads, for 2 ms where NumPy has some of its own


def spread_rows(n_rows: int, wanted: int) -> Tensor:
    """Indices of ``wanted`` rows, one drawn from each of as many equal stretches, always the same."""
    within = torch.rand(wanted, dtype=torch.float64, generator=torch.Generator().manual_seed(0), device="cpu")
    return ((torch.arange(wanted, device="cpu") + within) * (n_rows / wanted)).long()


def join_rows(parts: list[Tensor]) -> Tensor:
    """Rows of any storage, one after the other."""
    if parts[0].layout == torch.strided:
        return torch.cat(parts)
    return csr_tensor(vstack([scipy_matrix(part) for part in parts], format="csr"))


def n_bytes(X: Tensor) -> int:
    """Memory of rows of any storage."""
    if X.layout == torch.strided:
        return X.nbytes
    return sum(part.nbytes for part in (X.values(), X.col_indices(), X.crow_indices()))
