"""Minimise a convex quadratic plus an L1 norm."""

from typing import Protocol

import torch
from torch import Tensor

from skl_softmax.solvers.shifts import Shifts

# Sufficient decrease, Nocedal & Wright (2006), eq. 3.4.
SUFFICIENT_DECREASE = 1e-4
# Faces that are tried, and halvings of a step on one of them.
MAX_FACES, MAX_HALVINGS = 100, 8
# Times that parameters which would leave zero the wrong way are put back before the rest move.
MAX_RETURNS = 4


class Model(Protocol):
    """A symmetric positive semi-definite matrix."""

    index: Tensor  # the parameters that it is of, (P,), among all
    solves_exactly: bool  # whether what is left of a solved system is rounding

    def multiply(self, vector: Tensor) -> Tensor:
        """Its product with a vector (P,)."""

    def solve(self, free: Tensor, right: Tensor) -> Tensor:
        """The solution (P,) of the system of the parameters ``free``, for the others being zero."""

    def scale(self, right: Tensor) -> Tensor:
        """The product (P,) with the inverse of its diagonal."""

    def damp(self, ridge: Tensor) -> None:
        """Add to its diagonal what belongs there of a ridge for all parameters."""


def minimise_on_orthants(
    model: Model, gradient: Tensor, l1: Tensor, theta: Tensor, accuracy: float, shifts: Shifts
) -> tuple[Tensor, float]:
    """Minimise q(v) = g·(v - θ) + ½ (v - θ)ᵀ B (v - θ) + Σ l1 |v| by Newton steps on faces of orthants.

    The parameters that are not zero, and those at zero whose derivative says which way to leave, fix an orthant, in
    which q is a quadratic. Its minimum over the free parameters gives a direction; the step along it is bent at the
    orthant's walls, where parameters become zero. The projection is that of Andrew & Gao (2007), "Scalable training of
    L1-regularized log-linear models", the step on the free parameters that of Byrd, Chin, Nocedal & Oztoprak (2016),
    "A family of second-order methods for convex ℓ1-regularized optimization". Along what all classes have in common B
    has no curvature but the penalty's: one of them may be held there, and v is shifted to the least penalty after each
    step.

    Parameters
    ----------
    accuracy : float
        The part of the decrease of q that may be missed.
    shifts : Shifts
        Of parameters that q, but for the penalties, does not tell apart from others.

    Returns
    -------
    v : Tensor of shape (P,)
    decrease : float
        q(θ) - q(v).
    """
    v, u, decrease = shifts.shifted(theta), gradient, 0.0  # u is the gradient of the quadratic at v
    if not torch.equal(v, theta):
        curved, decrease = _gain(model, u, l1, theta, v)
        u = u + curved
    is_least = False  # on the face, whether to rounding
    for _ in range(MAX_FACES):
        enters = (v == 0) & (u.abs() > l1)  # (P,)
        free = shifts.hold((v != 0) | enters | (l1 == 0), v)  # (P,)
        enters &= free
        if is_least and not enters.any():
            break
        orthant = torch.where(enters, -u.sign(), v.sign())  # (P,)
        direction, slopes = _newton_on_face(model, u, l1, v, free, orthant)
        promised = -(slopes @ direction).item()
        if not promised > 0:
            break
        moved, curved, gain = _bent_step(model, u, l1, v, orthant, direction, slopes, shifts)
        if not gain > 0 and ((moved == 0) == (v == 0)).all():
            break
        if promised <= accuracy * decrease:
            return moved, decrease + max(gain, 0.0)
        is_least = model.solves_exactly and torch.equal(moved, v + direction)
        v, u, decrease = moved, u + curved, decrease + max(gain, 0.0)
    return v, decrease


def _newton_on_face(model: Model, u, l1, v, free, orthant) -> tuple[Tensor, Tensor]:
    """The Newton direction of the free parameters and the derivatives of q along them, (P,)."""
    for _ in range(MAX_RETURNS):
        slopes = torch.where(free, u + l1 * orthant, 0.0)  # (P,)
        direction = -model.solve(free, slopes)
        wrong = free & (v == 0) & (l1 > 0) & (direction * orthant < 0)
        if not wrong.any() or not model.solves_exactly:
            return torch.where(wrong, 0.0, direction), torch.where(wrong, 0.0, slopes)
        free = free & ~wrong
    enters = free & (v == 0) & (l1 > 0)  # (P,)
    slopes = torch.where(free, u + l1 * orthant, 0.0)
    direction = -model.solve(free & ~enters, torch.where(enters, 0.0, slopes))
    return torch.where(enters, -model.scale(slopes), direction), slopes


def _bent_step(model: Model, u, l1, v, orthant, direction, slopes, shifts) -> tuple[Tensor, Tensor, float]:
    """Where a step along the direction, bent at the walls, leads, its product with B, and the decrease of q."""
    length = 1.0
    for _ in range(MAX_HALVINGS):
        bent = _project(v + length * direction, orthant, l1)
        moved = shifts.shifted(bent)
        curved, gain = _gain(model, u, l1, v, moved)
        if gain >= -SUFFICIENT_DECREASE * (slopes @ (bent - v)).item() > 0:
            return moved, curved, gain
        length *= 0.5
    # Up to the first wall q is a quadratic that falls.
    leaves = (v * direction < 0) & (l1 > 0)
    walls = torch.where(leaves, -v / direction, torch.inf)  # (P,)
    first = walls.amin().clamp_max(1.0)
    moved = shifts.shifted(torch.where(walls <= first, 0.0, v + first * direction))
    return moved, *_gain(model, u, l1, v, moved)


def _project(v: Tensor, orthant: Tensor, l1: Tensor) -> Tensor:
    return torch.where((v * orthant < 0) & (l1 > 0), 0.0, v)


def _gain(model: Model, u: Tensor, l1: Tensor, v: Tensor, moved: Tensor) -> tuple[Tensor, float]:
    step = moved - v
    curved = model.multiply(step)
    change = u @ step + 0.5 * step @ curved + l1 @ (moved.abs() - v.abs())
    return curved, -change.item()
