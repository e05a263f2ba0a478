"""Rows that can be told apart: without a penalty F has no minimum then, and goes to zero.

A. Albert and J. A. Anderson, On the existence of maximum likelihood estimates in logistic regression models,
Biometrika 71 (1984).
"""

from math import inf, log

import torch
from torch import Tensor


def separable_below(objective) -> Tensor:
    """Where no penalty holds the parameters, a value of F, (M,), below which one proves that no minimum exists.

    F < log 2 min(s)/S, of the positive s, means that every row has ℓ_i < log 2, so its own class has the largest
    logit; then F goes to zero along this very θ. With targets between 0 and 1 there is a minimum.
    """
    targets, total, weights = objective.targets, objective.total, objective.weights
    between = targets.is_floating_point() and not ((targets == 0) | (targets == 1)).all()
    if between or objective.label_proba is not None:
        return torch.full_like(total, -inf)
    free = (objective.l2 == 0) & objective.is_smooth | _has_one_class(objective)  # (M,)
    if not free.any():
        return torch.full_like(total, -inf)
    lightest = objective.gathered(torch.where(weights > 0, weights, inf).amin(dim=1))  # (M or 1,)
    return torch.where(free, log(2) * lightest / total, -inf)  # (M,)


def _has_one_class(objective) -> Tensor:
    """In which models (M or 1,) all rows that count are of one class, and intercepts tell it from the others."""
    targets = objective.targets
    labels = targets if targets.ndim == 1 else targets.argmax(dim=1)  # (n,)
    counts, none = objective.weights > 0, objective.n_outputs + 1
    least, largest = torch.where(counts, labels, none).amin(dim=1), torch.where(counts, labels, -1).amax(dim=1)
    return (least == largest).to(objective.data.home) & objective.data.fit_intercept  # (M or 1,)
