"""The duality gap: how far F is from its minimum at most, proved.

With p_i the probabilities at (W, b) and b at its own minimum, any α in [0, 1] gives a point of the dual problem, the
residuals α (p_i - y_i). With q_i = y_i + α (p_i - y_i), the gradient G of the mean loss, and the penalty
Σ λ₁|θ| + ½ Σ λ₂θ²,

    F - F* ≤ F + (1/S) Σ_i s_i Σ_k q_ik log q_ik + Σ (α|G| - λ₁)₊² / 2λ₂,

where λ₂ = 0 asks for α|G| ≤ λ₁ in every penalised column. The inequality is Fenchel's; residuals are scaled as by Koh,
Kim & Boyd (2007), "An interior-point method for large-scale ℓ1-regularized logistic regression", section 3, for any
number of classes here.

The intercept is taken to be at its minimum; without a penalty of the features there is no bound.
"""

from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor

from skl_softmax.objective.curvature import class_covariance, factorise, solve_by_factor
from skl_softmax.objective.losses import apart

# Newton steps for the intercept alone; a class without rows takes log 2 a step to its infinite minimum and is left
# somewhere on the way.
INTERCEPT_STEPS = 60
# Those that move logits apart by this at most, where curvature changes by a quarter, are not shortened.
FULL_STEP = 0.25
# A step with a squared decrement below this part of the loss, or of 1, leaves the square of it. Where classes weigh
# 1e-11 of the others the loss is that small, and below 1e-12 intercepts were taken for the best wherever they were.
BALANCED = 1e-12
# Excesses of |G| below this part of λ₁ are rounding.
EXCESS_ROUNDING = 1e-12
# Rounding error of G, for columns of size one.
GRADIENT_ROUNDING = 4 * torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Certificate:
    """A point of each model with the intercept at its minimum, and a bound of F - F* there."""

    theta: Tensor  # (M, K, p)
    point: object  # the evaluation at θ
    gap: Tensor  # (M,)


@dataclass
class _Rows:
    """A block's logits (parts, M, K, part), and what became of them; not its rows, which may be many."""

    targets: Tensor  # (parts, 1, 1 or K, part)
    weights: Tensor  # (parts, M or 1, 1, part)
    logits: Tensor
    loss: Tensor | None = None  # (parts, M, 1, part)
    residual: Tensor | None = None  # (parts, M, K, part)


def certificate(objective, theta: Tensor) -> Certificate:
    """Put the intercepts where they are best for the weights, and bound the gap there: a pass over X in all."""
    theta, rows, loss, gradient, is_balanced = _with_best_intercepts(objective, theta)
    point = objective.penalised(loss, gradient.clone(), theta)
    scales = torch.stack([torch.ones_like(loss), _feasible_scale(objective, gradient, theta)])
    duals = [_dual_value(objective, rows, gradient, theta, scale) for scale in scales]
    gap = (point.value - torch.stack(duals).amax(dim=0)).clamp_min(0.0)  # (M,)
    return _certificate(objective, theta, point, gap + _unbalanced(objective, theta, gradient), is_balanced)


def _certificate(objective, theta: Tensor, point, gap: Tensor, is_balanced: Tensor) -> Certificate:
    """That of bounds (M,) that hold where intercepts are at their minimum; F, where it is known to go to zero."""
    bound = torch.where(is_balanced, gap, torch.inf)
    return Certificate(theta, point, torch.where(point.value < objective.separable_below, point.value, bound))


def _unbalanced(objective, theta: Tensor, gradient: Tensor) -> Tensor | float:
    """By how much (M,) the dual value may be too high where the intercepts' gradients are not quite zero.

    Where a class has no rows, its infinite minimum keeps the last step of the others short.
    """
    return (theta[..., -1] * gradient[..., -1]).abs().sum(dim=1) if objective.data.fit_intercept else 0.0


def convex_certificate(objective, theta: Tensor) -> Certificate:
    """The same by `convex_gap`, in less time, of smooth F whose weights all have a penalty."""
    theta, _, loss, gradient, is_balanced = _with_best_intercepts(objective, theta)
    point = objective.penalised(loss, gradient, theta)
    return _certificate(objective, theta, point, convex_gap(objective, point), is_balanced)


def convex_gap(objective, point) -> Tensor:
    """‖g‖² / 2λ₂, (M,), g by the weights: a bound of F - F* where the intercepts are at their minimum.

    F is then, as a function of the weights, strongly convex with λ₂: Boyd & Vandenberghe (2004), eq. 9.9. It is what
    the bound by duality with α = 1 comes to without λ₁. Infinity where weights have no penalty.
    """
    n_features = objective.data.X.shape[1]
    penalty = objective.column_l2[..., :n_features]  # (M, 1, d)
    if not (objective.is_smooth and penalty.all()):
        return torch.full_like(point.value, torch.inf)
    squares = point.gradient[..., :n_features].square()  # (M, K, d)
    return (squares @ (0.5 / penalty).mT).sum(dim=(1, 2))


def _with_best_intercepts(objective, theta: Tensor) -> tuple[Tensor, list[_Rows], Tensor, Tensor, Tensor]:
    """θ (M, K, p) so, and there what became of the rows, the mean loss (M,) and its gradient (M, K, p).

    Last, whether the intercepts have got there, (M,), which a bound has to know.
    """
    affine, n_logits = objective.data.affine(theta.flatten(0, 1)), theta.shape[0] * theta.shape[1]
    rows = [
        _Rows(targets, weights, block.logits(affine).view(-1, *theta.shape[:2], block.parts[1]))
        for block, targets, weights, _ in objective.portions(n_logits)
    ]
    is_balanced = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
    if objective.data.fit_intercept:
        theta = theta.clone()
        moved, is_balanced = _balance(objective, rows)
        theta[..., -1] += moved
        if objective.n_outputs > 1:  # one number added to all intercepts changes nothing but the digits that are left
            theta[..., -1] -= theta[..., -1].mean(dim=1, keepdim=True)
            theta = objective.without_absent(theta)
    else:
        _differentiate(objective, rows)
    blocks = (block for block, *_ in objective.portions(n_logits))
    pulled = (
        block.pullback((r.residual * r.weights).flatten(1, 2), affine.bias is not None)
        for block, r in zip(blocks, rows, strict=True)
    )
    total = objective.total
    gradient = objective.data.gradient(reduce(add, pulled)).view_as(theta)  # (M, K, p), of the loss
    gradient /= total[:, None, None]
    return theta, rows, _mean_loss(objective, rows), gradient, is_balanced


def _mean_loss(objective, rows: list[_Rows]) -> Tensor:
    """The losses' part of F, (M,)."""
    losses = [(r.loss * r.weights).sum(dim=(0, 2, 3), dtype=objective.data.wide) for r in rows]
    return objective.gathered(reduce(add, losses)) / objective.total


def first_order_gap(objective, theta: Tensor, point) -> Tensor:
    """What the bound is without moving the intercepts, to first order in 1 - α, (M,), from the gradient alone.

    By Fenchel's equality, the loss and the dual loss of its own residuals add up to θ·G. Infinity where features have
    no penalty.
    """
    gradient = point.gradient - objective.column_l2 * theta  # (M, K, p), of the loss
    known = objective.column_l1 * theta.abs() + 0.5 * objective.column_l2 * theta.square()  # (M, K, p)
    bounds = []
    for scale in (torch.ones_like(point.value), _feasible_scale(objective, gradient, theta)):  # (M,)
        scaled = scale[:, None, None] * gradient
        terms = known + theta * scaled + _conjugate(objective, scaled, theta)
        bounds.append(torch.where(objective.unpenalised, 0.0, terms).sum(dim=(1, 2)))
    is_bound = ~objective.unpenalised[..., : objective.data.X.shape[1]].any(dim=(1, 2))  # (M,)
    return torch.where(is_bound, torch.minimum(*bounds).clamp_min(0.0), torch.inf)


def _feasible_scale(objective, gradient: Tensor, theta: Tensor) -> Tensor:
    """The largest α (M,) with α|G| ≤ λ₁, to rounding, in all penalised columns."""
    allowed = objective.column_l1 + _rounding(objective, theta)  # (M, 1, p)
    ratio = torch.where(objective.column_l1 > 0, allowed / gradient.abs(), torch.inf)  # (M, K, p)
    return ratio.nan_to_num(nan=torch.inf, posinf=torch.inf).amin(dim=(1, 2)).clamp_max(1.0)


def _rounding(objective, theta: Tensor) -> Tensor:
    """What G may be off by in each column, (M, 1, p): by rounding of its own and of the logits, sums of terms θ x̃.

    The penalty of a column of 1e150 is far less: what G exceeds it by says nothing. By the logits' no more than λ₁ is
    overlooked: where columns nearly cancel, in terms of 1e7, fits were told gaps of zero at 2 % of F.
    """
    terms = (theta.abs() @ objective.data.nominal_sizes).amax(dim=1).clamp_min(1.0)  # (M,)
    own = GRADIENT_ROUNDING * objective.diagonal_bound.sqrt()  # (M, 1, p)
    return torch.minimum(terms[:, None, None] * own, torch.maximum(own, objective.column_l1))


def _dual_value(objective, rows: list[_Rows], gradient: Tensor, theta: Tensor, scale: Tensor) -> Tensor:
    """The dual objective (M,) at the residuals scaled by α (M,); minus infinity where that is not allowed."""
    entropies = []
    for r in rows:
        shifted = scale[None, :, None, None].to(r.residual.dtype).to(r.residual.device) * r.residual
        entropies.append((objective.loss.negative_entropy(shifted, r.targets) * r.weights).sum(dim=(0, 2, 3)))
    conjugate = torch.where(objective.unpenalised, 0.0, _conjugate(objective, scale[:, None, None] * gradient, theta))
    return -objective.gathered(reduce(add, entropies)) / objective.total - conjugate.sum(dim=(1, 2))  # (M,)


def _conjugate(objective, gradient: Tensor, theta: Tensor) -> Tensor:
    """The penalty's conjugate (M, K, p) at minus the gradient, a column with an excess of rounding being feasible."""
    over = (gradient.abs() - objective.column_l1).clamp_min(0.0)  # (M, K, p)
    # α has put one of them there.
    rounding = 2 * torch.maximum(_rounding(objective, theta), EXCESS_ROUNDING * objective.column_l1)
    squares = over.square() / (2 * objective.column_l2)
    # How far the minimum may be: columns that nearly cancel, with less of a penalty than rounding, were told gaps of
    # zero at 1e-3 of F by their own parameters.
    sizes = objective.data.nominal_sizes  # (p,)
    sizes = torch.where(sizes > 0, sizes, 1.0)
    missed = over / sizes * (theta.abs() * sizes).amax(dim=(1, 2), keepdim=True)  # (M, K, p)
    return torch.where(over > rounding, squares, torch.minimum(missed, squares.nan_to_num(0.0)))


def _balance(objective, rows: list[_Rows]) -> tuple[Tensor, Tensor]:
    """Add to the logits the intercepts (M, K) at which the residuals sum to zero; return them, and whether they do.

    Long steps, that move logits apart by S, are shortened to log(1 + S), with which Newton's method converges from
    anywhere: Sun & Tran-Dinh (2019), "Generalized self-concordant functions: a recipe for Newton-type methods".
    """
    n_models, n_outputs = rows[0].logits.shape[1:3]
    moved = torch.zeros(n_models, n_outputs, dtype=torch.float64)
    is_balanced = torch.zeros(n_models, dtype=torch.bool)
    for _ in range(INTERCEPT_STEPS):
        _differentiate(objective, rows)
        gradient, curvature = _of_intercepts(objective, rows)  # (M, K), (M, K, K)
        step = -solve_by_factor(factorise(curvature), gradient[..., None])[..., 0]  # (M, K)
        loss = _mean_loss(objective, rows)  # (M,)
        is_balanced = -(gradient * step).sum(dim=1) <= BALANCED * loss.clamp_max(1.0)  # (M,)
        is_balanced |= loss < objective.separable_below  # there is no best one
        moves = apart(step[..., None])[:, 0]  # (M,)
        step = torch.where(moves > FULL_STEP, moves.log1p() / moves, 1.0)[:, None] * step
        if not step.isfinite().all():  # probabilities of 0 and 1 only have no curvature
            break
        moved += step
        for r in rows:
            r.logits += step[:, :, None].to(r.logits.dtype).to(r.logits.device)
        if is_balanced.all():
            break
    _differentiate(objective, rows)
    return moved, is_balanced


def _of_intercepts(objective, rows: list[_Rows]) -> tuple[Tensor, Tensor]:
    """Gradient (M, K) and Hessian (M, K, K) of F by the intercepts."""
    gradients, curvatures = [], []
    for r in rows:
        weighted = (r.residual * r.weights).permute(1, 2, 0, 3).flatten(2)  # (M, K, rows)
        gradients.append(objective.gathered(weighted.sum(dim=2, dtype=objective.data.wide)))
        proba = objective.curvature_proba(r.logits)  # (parts, M, K, part)
        shares = (proba * r.weights).permute(1, 2, 0, 3).flatten(2)  # (M, K, rows)
        proba = proba.permute(1, 2, 0, 3).flatten(2)
        curvatures.append(objective.gathered(class_covariance(shares, proba)))
    total = objective.total[:, None]
    gradient, curvature = reduce(add, gradients) / total, reduce(add, curvatures) / total[..., None]
    if gradient.shape[1] > 1:  # softmax does not see one number added to all of them
        curvature += curvature.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
    return gradient, curvature


def _differentiate(objective, rows: list[_Rows]) -> None:
    for r in rows:
        r.loss, r.residual = objective.loss.value_and_residual(r.logits, r.targets)
