"""What is so small that it takes less time than to wake threads for it.

torch's threads fall asleep between calls. To wake them takes up to 7 ms on a machine at rest, where probabilities of
1,797 rows x 64 features x 10 classes take 0.3. NumPy makes small products and powers in the thread that asks for them.
"""

import numpy as np
import torch
from torch import Tensor

# Elements up to which torch keeps sums, maxima and arithmetic to one thread. For exp that ends at 2,048.
ONE_THREAD = 2**15
# Multiplications up to which NumPy takes no longer for a product than torch with two threads awake.
SMALL_PRODUCT = 2**23


def is_small(tensor: Tensor) -> bool:
    """Whether torch uses one thread for most of what is made of a tensor, which NumPy can take for the rest."""
    fits = tensor.numel() <= ONE_THREAD and tensor.device.type == "cpu"
    return fits and tensor.dtype in (torch.float64, torch.float32)


def is_small_product(rows: Tensor, n_outputs: int) -> bool:
    """Whether NumPy takes no longer for this many outputs of dense rows (n, d)."""
    fits = len(rows) * n_outputs <= ONE_THREAD and rows.numel() * n_outputs <= SMALL_PRODUCT
    return fits and rows.device.type == "cpu"


def linear(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """X Wᵀ + b (n, K) of few rows (n, d), weights (K, d) and bias (K,) of one type, float32 or float64."""
    with np.errstate(all="ignore"):  # as in torch, whatever the caller has set
        product = rows.numpy() @ weight.numpy().T
    return torch.from_numpy(product).add_(bias)


def exp_(values: Tensor) -> Tensor:
    """Their exponentials, in their place."""
    if not is_small(values):
        return values.exp_()
    with np.errstate(under="ignore"):  # as in torch, whatever the caller has set
        np.exp(values.numpy(), out=values.numpy())
    return values
