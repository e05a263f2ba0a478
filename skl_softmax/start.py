"""Where a fit begins."""

from math import sqrt

import torch
from torch import Tensor, nn

from skl_softmax.inputs import TrainingRows, check_start


def zeros(rows: TrainingRows) -> tuple[Tensor, Tensor]:
    """Equal probabilities for all classes."""
    weight = torch.zeros(rows.n_outputs, rows.X.shape[1], dtype=rows.X.dtype)  # (K, d)
    return weight, weight.new_zeros(rows.n_outputs)  # (K, d), (K,)


def drawn(rows: TrainingRows, fit_intercept: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The initial weights of ``torch.nn.Linear(d, K)`` right after ``torch.manual_seed``, in float32 as there."""
    n_features = rows.X.shape[1]
    weight, bias = torch.empty(rows.n_outputs, n_features), torch.zeros(rows.n_outputs)  # (K, d), (K,)
    nn.init.kaiming_uniform_(weight, a=sqrt(5), generator=generator)
    if fit_intercept:
        bound = 1 / sqrt(n_features)
        nn.init.uniform_(bias, -bound, bound, generator=generator)
    return weight.to(rows.X.dtype), bias.to(rows.X.dtype)


def given(rows: TrainingRows, coef_init, intercept_init) -> tuple[Tensor, Tensor]:
    """What the user passed; zeros for what was not passed."""
    weight, bias = zeros(rows)
    if coef_init is not None:
        weight = check_start("coef_init", coef_init, tuple(weight.shape), weight.dtype)
    if intercept_init is not None:
        bias = check_start("intercept_init", intercept_init, tuple(bias.shape), bias.dtype)
    return weight, bias
