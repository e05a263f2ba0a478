"""What classes weigh, and those that no row of a model is of, such as those of which a fold holds all rows out.

F falls as intercepts of the latter go to minus infinity, ever less: each of Newton's steps leaves some third of what
is to be gained. Solvers begin where F has got to: these classes have no probability, to the last bit, and no gradient,
and stay there.
"""

from math import log

import torch
from torch import Tensor

from skl_softmax.data import spread_rows

# Rows that tell which part of the weight classes have.
SHARE_ROWS = 512
# Intercepts by which exp(z) is zero in float64, as it is below -745, beside logits with a mean of zero.
GONE = -1000.0
# What users get in their place: beside such logits the probability is eps at most, and F as good. With an L1 penalty,
# where logits may have another mean, it was up to 1e-12.
RARE = torch.finfo(torch.float64).eps


def class_shares(objective) -> Tensor:
    """About which part of the weight each class has, (M or 1, K, 1), by some rows."""
    index = spread_rows(objective.n_rows, min(objective.n_rows, SHARE_ROWS)).to(objective.weights.device)
    # On the CPU, where sums are the same each time.
    targets, weights = objective.targets[index].cpu(), objective.weights[:, index].cpu().double()
    shares = _by_class(targets, weights, objective.n_outputs)  # (M or 1, K)
    if targets.ndim == 1 and objective.label_proba is not None:
        shares = shares @ objective.label_proba.cpu().double()
    shares += torch.finfo(shares.dtype).tiny  # where none of these rows counts
    return objective.gathered(shares / shares.sum(dim=1, keepdim=True))[..., None]


def absent_classes(objective) -> Tensor | None:
    """Which classes no row is of, (M, K), bool, and at least two others are; None if none, or no intercept tells so."""
    if objective.n_outputs == 1 or objective.label_proba is not None or not objective.data.fit_intercept:
        return None
    if objective.n_rows > SHARE_ROWS and objective.class_shares.min() >= RARE:  # else it would tell as much, but slower
        return None
    weight = _by_class(objective.targets, objective.weights, objective.n_outputs)  # (M or 1, K)
    if weight.all():
        return None
    is_absent = (weight == 0).to(objective.data.home)
    is_absent &= (~is_absent).sum(dim=1, keepdim=True) > 1  # else F goes to zero, and has no minimum
    return is_absent.expand(objective.n_models, -1) if is_absent.any() else None


def _by_class(targets: Tensor, weights: Tensor, n_outputs: int) -> Tensor:
    """What the classes weigh (M or 1, K), by class indices (n,) or probabilities (n, K), and weights (M or 1, n)."""
    if targets.ndim == 1:
        return weights.new_zeros(len(weights), n_outputs).index_add_(1, targets, weights)
    return weights @ targets.to(weights)


def without_absent(objective, theta: Tensor) -> Tensor:
    """θ (M, K, p) with no probability for absent classes, and as `Objective.centred` has it over the others."""
    if objective.absent is None:
        return theta
    centred = _among(objective.absent, theta)  # (M, K, p)
    if not objective.is_smooth:
        centred = torch.where(objective.unseen, centred, torch.where(objective.absent[..., None], 0.0, theta))
    centred[..., -1].masked_fill_(objective.absent, GONE)
    return centred


def among_present(objective, direction: Tensor) -> Tensor:
    """A direction (M, K, p) of the other classes alone, with a sum of zero over them."""
    return direction if objective.absent is None else _among(objective.absent, direction)


def mean_of_present(is_absent: Tensor | None, theta: Tensor) -> Tensor:
    """The mean (1, K, p) of θ (M, K, p) over the models that have rows of a class, which is zero where none has."""
    if is_absent is None:
        return theta.mean(dim=0, keepdim=True)
    counts = (~is_absent).sum(dim=0).clamp_min(1)[:, None].to(theta)  # (K, 1)
    return _among(is_absent, theta).sum(dim=0, keepdim=True) / counts  # of intercepts that compare


def rare(objective, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (..., K, d) and bias (..., K) as users get them, finite for absent classes."""
    is_absent = objective.absent.view(bias.shape)
    bias = _among(is_absent, bias[..., None])[..., 0]
    return torch.where(is_absent[..., None], 0.0, weight), torch.where(is_absent, log(RARE), bias)


def _among(is_absent: Tensor, theta: Tensor) -> Tensor:
    """θ (..., K, p) less its mean over the classes that are present, and zero for the others."""
    present = (~is_absent)[..., None].to(theta)  # (..., K, 1)
    return present * (theta - (theta * present).sum(dim=-2, keepdim=True) / present.sum(dim=-2, keepdim=True))
