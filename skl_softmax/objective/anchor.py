"""F near a point where it is known, by its changes from there.

With probabilities p of a row's classes at θ₀ and z(θ) - z(θ₀) = Δ, measured from that of the row's own class,

    ℓ(θ) - ℓ(θ₀) = log(1 + s),    p(θ) - p(θ₀) = p ∘ (e - s) / (1 + s),    e = exp(Δ) - 1,  s = pᵀe,

without a difference of numbers that are nearly the same. So the products Δ = X (W - W₀)ᵀ and those of the changes with
X may be in float32: what they lose is a part of the change, and not of F. A fit that has come as near to its minimum as
float32 leads goes on from there for a third of what float64 takes (20,000 x 512 x 100, five folds: 65 ms a pass instead
of some 220). The probabilities at θ₀ are kept.
"""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import Tensor

# What the probabilities may take, beside what X does.
PROBA_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Anchor:
    """F of M models by its changes from a point. Shapes as in `skl_softmax.objective`."""

    narrow: Any  # the objective with products in float32
    theta: Tensor  # (M, K, p), θ₀
    point: Any  # the evaluation there, in float64
    proba: Tensor  # (M, classes, n), there, in float32

    def at(self, theta: Tensor):
        """The evaluation at θ (M, K, p)."""
        objective, change = self.narrow, theta - self.theta  # (M, K, p)
        portions = objective.counted_portions()
        value, gradient = objective.means(portions, objective.total, change, self._of_logits)  # (M,), (M, K, p)
        penalty = objective.column_l2 * change  # (M, K, p)
        value = value + 0.5 * (penalty * (theta + self.theta)).sum(dim=(1, 2))
        gradient = gradient + penalty + self.point.gradient
        return replace(self.point, value=self.point.value + value, gradient=gradient)

    def _of_logits(self, portion, along: Tensor) -> tuple[Tensor, Tensor]:
        """What a portion's losses and residuals change by, where its logits change by ``along``."""
        block, targets, _, stretch = portion
        proba = stretch.some(self.proba[:, :, block.rows]).unflatten(2, block.parts).permute(2, 0, 1, 3)
        return self.narrow.loss.change(proba, along, targets)

    def select(self, models: Tensor) -> "Anchor":
        """That of some of the models."""
        point = replace(self.point, value=self.point.value[models], gradient=self.point.gradient[models])
        narrow, theta, proba = self.narrow.select(models), self.theta[models], self.proba[models]
        return replace(self, narrow=narrow, theta=theta, point=point, proba=proba)


def make_anchor(objective, theta: Tensor, point) -> Anchor | None:
    """One at θ (M, K, p), or None where float32 does not pay or is too rough, or the probabilities are too many."""
    narrow, n_models, n_outputs = objective.narrow(), objective.n_models, objective.n_outputs
    shape = n_models, max(2, n_outputs), objective.n_rows
    is_too_large = 4 * prod(shape) > min(PROBA_BYTES, objective.n_rows * objective.data.row_bytes)
    if narrow.dtype == objective.data.wide or is_too_large:
        return None
    if not narrow.resolves(theta):
        return None
    proba = narrow.weights.new_empty(shape)  # (M, classes, n)
    for block, *_ in narrow.portions(n_models * n_outputs):
        of_block = narrow.loss.class_proba(narrow.logits(block, theta))  # (parts, M, classes, part)
        proba[:, :, block.rows].unflatten(2, block.parts).copy_(of_block.permute(1, 2, 0, 3))
    return Anchor(narrow, theta, point, proba)
