"""F near a point where it is known, by its changes from there.

With probabilities p of a row's classes at θ₀ and z(θ) - z(θ₀) = Δ, measured from that of the row's own class,

    ℓ(θ) - ℓ(θ₀) = log(1 + s),    p(θ) - p(θ₀) = p ∘ (e - s) / (1 + s),    e = exp(Δ) - 1,  s = pᵀe,

without a difference of numbers that are nearly the same. So the products Δ = X (W - W₀)ᵀ and those of the changes with
X may be in float32: what they lose is a part of the change, and not of F. A fit that has come as near to its minimum as
float32 leads goes on from there for a third of what float64 takes (20,000 x 512 x 100, five folds: 65 ms a pass instead
of 230). The probabilities at θ₀ are kept.
"""

from dataclasses import dataclass, replace
from functools import reduce
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
        affine, total = objective.data.affine(change.flatten(0, 1)), objective.total
        terms = (self._of_block(affine, *p) for p in objective.portions(objective.n_models * objective.n_outputs))
        value, sums = reduce(lambda a, b: (a[0] + b[0], a[1] + b[1]), terms)
        gradient = objective.gathered(objective.data.gradient(sums)).view_as(theta) / total[:, None, None]  # (M, K, p)
        penalty = objective.quadratic * change  # (M, K, p)
        value = objective.gathered(value) / total + 0.5 * (penalty * (theta + self.theta)).sum(dim=(1, 2))  # (M,)
        gradient = objective.centred(gradient) + penalty
        return replace(self.point, value=self.point.value + value, gradient=self.point.gradient + gradient)

    def _of_block(self, affine, block, targets: Tensor, weights: Tensor):
        """A block's change of the sum of losses (M,) and of its derivatives by the parameters."""
        objective = self.narrow
        along = block.logits(affine).view(-1, objective.n_models, objective.n_outputs, block.parts[1])
        proba = self.proba[:, :, block.rows].unflatten(2, block.parts).permute(2, 0, 1, 3)
        value, residual = objective.loss.change(proba, along, targets)
        value = (value * weights).sum(dim=(0, 2, 3), dtype=objective.data.wide)  # (M,)
        return value, block.pullback(residual.mul_(weights).flatten(1, 2), affine.bias is not None)

    def select(self, models: Tensor) -> "Anchor":
        """That of some of the models."""
        point = replace(self.point, value=self.point.value[models], gradient=self.point.gradient[models])
        narrow, theta, proba = self.narrow.select(models), self.theta[models], self.proba[models]
        return replace(self, narrow=narrow, theta=theta, point=point, proba=proba)


def make_anchor(objective, theta: Tensor, point) -> Anchor | None:
    """One at θ (M, K, p), or None where float32 does not pay or is too rough, or the probabilities are too many."""
    narrow = objective.narrow()
    n_logits = objective.n_models * objective.n_outputs
    n_bytes = 4 * n_logits * objective.n_rows
    if narrow is objective or n_bytes > min(PROBA_BYTES, objective.n_rows * objective.data.row_bytes):
        return None
    if not narrow.resolves(theta):
        return None
    affine, (n_models, n_outputs) = narrow.data.affine(theta.flatten(0, 1)), theta.shape[:2]
    proba = narrow.weights.new_empty(n_models, max(2, n_outputs), objective.n_rows)  # (M, classes, n)
    for block, _, _ in narrow.portions(n_logits):
        logits = block.logits(affine).view(-1, n_models, n_outputs, block.parts[1])
        proba[:, :, block.rows].unflatten(2, block.parts).copy_(narrow.loss.class_proba(logits).permute(1, 2, 0, 3))
    return Anchor(narrow, theta, point, proba)
