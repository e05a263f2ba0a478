"""What is so small that it takes less time than to wake threads for it.

torch's threads fall asleep between calls. To wake them takes up to 7 ms on a machine at rest, where probabilities of
1,797 rows x 64 features x 10 classes take 0.3. NumPy makes small products and powers in the thread that asks for them.
"""

import numpy as np
import torch
from torch import Tensor

# Elements up to which torch keeps sums, maxima and arithmetic to one thread. For exp that ends at 2,048.
ONE_THREAD = 2**15
# Elements up to which that is done part by part: of 300,000 in 0.3 ms, where two threads take 0.2, or 10 if asleep.
SMALL_TABLE = 2**19
# Multiplications up to which NumPy takes no longer for a product than torch with two threads awake.
SMALL_PRODUCT = 2**23
# Multiplications up to which OpenBLAS, NumPy's, makes a product in one thread; one with a vector up to 460,000.
SERIAL_PRODUCT = 2**18
# Likewise, elements of vectors for their inner product.
SERIAL_DOT = 10_000
# Rows of a part below which products of all models at once take longer than those of each: 10 times with 5 rows.
LEAST_PART = 32


class SerialRows:
    """Rows (n, p) in NumPy, whose products are made in the thread that asks for them, part by part.

    With those of all rows at once NumPy wakes threads of its own. Those stand in the way of torch's, and torch's in
    theirs, for 3 to 7 ms each time; part by part a product takes 0.7 to 1.6 times as long as in one thread at once.
    """

    def __init__(self, rows: np.ndarray):
        self._rows, self._parts = rows, {}
        self._most_at_once = SERIAL_PRODUCT // max(1, rows.size)  # outputs of which no parts are needed

    def logits(self, parameters: np.ndarray) -> np.ndarray:
        """Those of parameters (M, K, p), (M, K, n)."""
        n_models, n_outputs, n_columns = parameters.shape
        if n_models * n_outputs <= self._most_at_once:
            return (parameters.reshape(-1, n_columns) @ self._rows.T).reshape(n_models, n_outputs, -1)
        weight = self._in_groups(parameters)  # (G, q, p)
        parts, rest = self._split(weight.shape[1])
        logits, n_whole = np.empty((*weight.shape[:2], len(self._rows))), len(self._rows) - len(rest)
        by_part = _in_parts(logits[:, :, :n_whole], len(parts))  # (G, parts, q, part)
        np.matmul(weight[:, None], parts.transpose(0, 2, 1), out=by_part)
        np.matmul(weight, rest.T, out=logits[:, :, n_whole:])
        return logits.reshape(n_models, n_outputs, -1)

    def pullback(self, residual: np.ndarray) -> np.ndarray:
        """Σ_i r_i x_i of residuals (M, K, n), (M, K, p)."""
        n_models, n_outputs, n_rows = residual.shape
        if n_models * n_outputs <= self._most_at_once:
            return (residual.reshape(-1, n_rows) @ self._rows).reshape(n_models, n_outputs, -1)
        by_group = self._in_groups(residual)  # (G, q, n)
        parts, rest = self._split(by_group.shape[1])
        n_whole = n_rows - len(rest)
        total = np.matmul(_in_parts(by_group[:, :, :n_whole], len(parts)), parts).sum(axis=1)  # (G, q, p)
        total += by_group[:, :, n_whole:] @ rest
        return total.reshape(n_models, n_outputs, -1)

    def _in_groups(self, by_output: np.ndarray) -> np.ndarray:
        """What there is of outputs (M, K, ·) as of one model (1, M K, ·), unless that left parts of few rows."""
        n_outputs = by_output.shape[0] * by_output.shape[1]
        are_few = n_outputs * self._rows.shape[1] <= SERIAL_PRODUCT // LEAST_PART
        return by_output.reshape(1, n_outputs, -1) if are_few else by_output

    def _split(self, n_outputs: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows in parts (parts, part, p) and the rest of them (rest, p)."""
        if n_outputs not in self._parts:
            n_rows, n_columns = self._rows.shape
            size = min(n_rows, max(1, SERIAL_PRODUCT // (n_outputs * n_columns)))
            n_parts = n_rows // size
            n_whole = n_parts * size
            self._parts[n_outputs] = self._rows[:n_whole].reshape(n_parts, size, n_columns), self._rows[n_whole:]
        return self._parts[n_outputs]


def dots(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Inner products of vectors (..., n), in float64, in the thread that asks for them."""
    if one.shape[-1] <= SERIAL_DOT:
        return np.vecdot(one, other, dtype=np.float64)
    return np.multiply(one, other, dtype=np.float64).sum(axis=-1)


def _in_parts(by_row: np.ndarray, n_parts: int) -> np.ndarray:
    """What there is of each row (G, q, n), by parts of them (G, parts, q, part)."""
    return by_row.reshape(*by_row.shape[:2], n_parts, -1).transpose(0, 2, 1, 3)


def is_small(tensor: Tensor) -> bool:
    """Whether torch uses one thread for most of what is made of a tensor, which NumPy can take for the rest."""
    fits = tensor.numel() <= ONE_THREAD and tensor.device.type == "cpu"
    return fits and tensor.dtype in (torch.float64, torch.float32)


def parts_of(rows: Tensor) -> list[slice]:
    """Parts of rows (n, d), of each of which torch makes sums and arithmetic in one thread; all of a large table."""
    n_rows, n_columns = rows.shape
    is_cheap = rows.numel() <= SMALL_TABLE and rows.device.type == "cpu"
    return slices(n_rows, max(1, ONE_THREAD // max(1, n_columns)) if is_cheap else max(1, n_rows))


def slices(n_rows: int, size: int) -> list[slice]:
    """Rows in order, so many at a time. scikit-learn's `gen_batches` takes 25 microseconds to check these numbers."""
    return [slice(start, min(start + size, n_rows)) for start in range(0, n_rows, size)]


def is_small_product(rows: Tensor, n_outputs: int) -> bool:
    """Whether NumPy takes no longer for this many outputs of dense rows (n, d)."""
    fits = len(rows) * n_outputs <= ONE_THREAD and rows.numel() * n_outputs <= SMALL_PRODUCT
    return fits and rows.device.type == "cpu"


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """X Wᵀ + b (n, K) of few rows (n, d), weights (K, d) and bias (K,) of one type, float32 or float64."""
    x, by_column = rows.numpy(), weight.numpy().T  # (n, d), (d, K)
    logits, size = np.empty((len(x), len(weight)), x.dtype), max(1, SERIAL_PRODUCT // max(1, weight.numel()))
    with np.errstate(all="ignore"):  # as in torch, whatever the caller has set
        for part in slices(len(x), size):
            np.matmul(x[part], by_column, out=logits[part])
    return torch.from_numpy(logits).add_(bias)


def exp_(values: Tensor) -> Tensor:
    """Their exponentials, in their place."""
    if not is_small(values):
        return values.exp_()
    with np.errstate(under="ignore"):  # as in torch, whatever the caller has set
        np.exp(values.numpy(), out=values.numpy())
    return values
