"""Conjugate gradients on the Newton system of a stack of models."""

from collections.abc import Callable

import torch
from torch import Tensor

from skl_softmax.solvers.base import inner, per_model

# The iteration stops when its last DELAY steps have raised the decrement by less than this part of it.
DECREMENT_ACCURACY = 0.1
DELAY = 3
MAX_ITER = 250


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    gradient: Tensor,
    low: Tensor | float = 0.0,
    enough: Tensor | float = 0.0,
    delay: int = DELAY,
    max_iter: int = MAX_ITER,
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve H d = -g by preconditioned conjugate gradients, Nocedal & Wright (2006), algorithm 5.3.

    Iteration j raises ½ gᵀ H⁻¹ g, as far as it is known, by ½ α_j ρ_j. What the last ``delay`` iterations added
    estimates what is still missing (Strakoš & Tichý 2002, "On error estimation in the conjugate gradient method"); the
    iteration stops when that is a small part of the sum in each model. For sums of at most ``low`` (M,), on which more
    depends, it is estimated with more care (`_missing`). Where sum and estimate together are ``enough`` (M,) or less,
    no more has to be known.

    Returns
    -------
    direction : Tensor of shape (M, ...)
    decrement : Tensor of shape (M,)
        ½ gᵀ H⁻¹ g from below.
    missing : Tensor of shape (M,)
        What that lacks by estimate.
    """
    direction = torch.zeros_like(gradient)
    residual = -gradient
    conjugate = precondition(residual)
    rho = inner(residual, conjugate)  # (M,)
    decrement = torch.zeros_like(rho)
    missing, gains = torch.full_like(rho, torch.inf), []
    for _ in range(max_iter):
        curved = product(conjugate)
        curvature = inner(conjugate, curved)  # (M,)
        # A model that is solved exactly has rho = curvature = 0 and must stand still while others go on.
        alpha = torch.where(curvature > 0, rho / curvature, 0.0)  # (M,)
        if not gains:  # where rounding has left no curvature at all, a step by the metric
            alpha = torch.where((curvature <= 0) & (rho > 0), 1.0, alpha)
        direction.addcmul_(per_model(alpha, gradient), conjugate)
        residual.addcmul_(per_model(alpha, gradient), curved, value=-1)
        del curved  # with many parameters each vector counts
        gains.append(0.5 * alpha * rho)
        decrement = decrement + gains[-1]
        if len(gains) >= delay:
            missing = _missing(gains, decrement <= low, delay)
            if ((missing <= DECREMENT_ACCURACY * decrement) | (decrement + missing <= enough)).all():
                break
        preconditioned = precondition(residual)
        rho, previous = inner(residual, preconditioned), rho
        beta = torch.where(previous > 0, rho / previous, 0.0)  # (M,)
        conjugate = torch.addcmul(preconditioned, per_model(beta, gradient), conjugate)
        del preconditioned
    return direction, decrement, missing


def _missing(gains: list[Tensor], is_low: Tensor, delay: int) -> Tensor:
    """What the sums (M,) of gains may lack: the last ones, and where that ``is_low`` by how much gains grew before.

    That factor is the most that the gains from an iteration on were of that iteration's own. Where gains shrink and
    then grow again, as eigenvalues far from the others are found, they may do so once more. In the manner of Meurant,
    Papež & Tichý (2021), "Accurate error estimation in CG".
    """
    last = sum(gains[-delay:])  # (M,)
    if not is_low.any():
        return last
    gained = torch.stack(gains)  # (iterations, M)
    to_come = gained.flip(0).cumsum(dim=0).flip(0)  # (iterations, M)
    factor = torch.where(gained > 0, to_come / gained, 1.0).amax(dim=0)  # (M,)
    return torch.where(is_low, factor * last, last)
