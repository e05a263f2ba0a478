"""Conjugate gradients on the Newton system of a stack of models."""

from collections.abc import Callable
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from skl_softmax.solvers.base import inner, per_model

# The iteration stops when its last DELAY steps have raised the decrement by less than this part of it.
DECREMENT_ACCURACY = 0.1
DELAY = 3
MAX_ITER = 250
# Where what is missing is estimated, not bounded, so small a part of what is enough has to be.
WELL_WITHIN = 0.1


class Care(NamedTuple):
    """When conjugate gradients have done enough, for each of M models."""

    low: Tensor | float = 0.0  # sums up to this, and those from `high` on, are looked at with more care
    high: Tensor | float = inf
    enough: Tensor | float = 0.0  # where sum and what is missing are no more, no more has to be known
    least: Tensor | None = None  # the least eigenvalue that the preconditioned matrix can have, if that is known
    delay: int = DELAY
    max_iter: int = MAX_ITER


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    gradient: Tensor,
    care: Care = Care(),  # noqa: B008, immutable
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve H d = -g by preconditioned conjugate gradients, Nocedal & Wright (2006), algorithm 5.3.

    Iteration j raises ½ gᵀ H⁻¹ g, as far as it is known, by ½ α_j ρ_j. What the last ``delay`` iterations added
    estimates what is still missing (Strakoš & Tichý 2002, "On error estimation in the conjugate gradient method"); the
    iteration stops when that is a small part of the sum in each model. Where more depends on the sum, what is missing
    is bounded if the least eigenvalue is, and else estimated with more care (`_missing`).

    Returns
    -------
    direction : Tensor of shape (M, ...)
    decrement : Tensor of shape (M,)
        ½ gᵀ H⁻¹ g from below.
    missing : Tensor of shape (M,)
        What that lacks by estimate or bound.
    """
    direction = torch.zeros_like(gradient)
    residual = -gradient
    conjugate = precondition(residual)
    rho = inner(residual, conjugate)  # (M,)
    decrement = torch.zeros_like(rho)
    gains, radau = [], Radau(care.least)
    for _ in range(care.max_iter):
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
        preconditioned = precondition(residual)
        rho, previous = inner(residual, preconditioned), rho
        beta = torch.where(previous > 0, rho / previous, 0.0)  # (M,)
        matters = (decrement <= care.low) | (decrement >= care.high)  # (M,)
        bound = torch.where(matters, radau.bound(alpha, beta, rho), torch.nan)  # (M,)
        missing = _missing(gains, bound, matters, care.delay)
        is_known = missing <= DECREMENT_ACCURACY * decrement  # (M,)
        enough = torch.where(bound.isnan(), WELL_WITHIN * care.enough, care.enough)  # (M,)
        if (is_known | (decrement + missing <= enough)).all():
            break
        conjugate = torch.addcmul(preconditioned, per_model(beta, gradient), conjugate)
        del preconditioned
    return direction, decrement, missing


class Radau:
    """Bounds of what sums lack, by the rule of Gauss and Radau with a node at a bound of the least eigenvalue.

    Meurant & Tichý (2013), "On computing quadrature-based bounds for the A-norm of the error in conjugate gradients",
    eq. 3.5. Where gains are small before small eigenvalues are found, as of columns that are nearly collinear, nothing
    in them tells: fits of one-hot columns of three categories ended at up to 1,500 times their tolerance.
    """

    def __init__(self, least: Tensor | None):
        self._least = 0.0 if least is None else least
        self._factor = inf if least is None else 1 / least  # (M,)

    def bound(self, alpha: Tensor, beta: Tensor, rho: Tensor) -> Tensor:
        """What is missing at most after the iteration with these coefficients and the new ρ, all (M,).

        It is nan where no eigenvalue is known, and where rounding is all there is.
        """
        rest = self._factor - alpha  # (M,)
        goes_on = (rest > 0) & ((alpha > 0) | (rho == 0)) & (rho >= 0)  # (M,)
        self._factor = torch.where(goes_on, rest / (self._least * rest + beta), torch.nan)
        return 0.5 * self._factor * rho


def _missing(gains: list[Tensor], bound: Tensor, matters: Tensor, delay: int) -> Tensor:
    """What the sums (M,) of gains may lack: the bound, if there is one, or by the last gains.

    Where it ``matters``, these are multiplied by how much gains grew before: the most that the gains from an iteration
    on were of that iteration's own. Where gains shrink and then grow again, as eigenvalues far from the others are
    found, they may do so once more. In the manner of Meurant, Papež & Tichý (2021), "Accurate error estimation in CG".
    """
    is_bound = ~bound.isnan()  # (M,)
    if is_bound.all():
        return bound
    last = sum(gains[-delay:]) if len(gains) >= delay else torch.full_like(bound, torch.inf)  # (M,)
    if matters.any():
        gained = torch.stack(gains)  # (iterations, M)
        to_come = gained.flip(0).cumsum(dim=0).flip(0)  # (iterations, M)
        factor = torch.where(gained > 0, to_come / gained, 1.0).amax(dim=0)  # (M,)
        last = torch.where(matters, factor * last, last)
    return torch.where(is_bound, bound, last)
