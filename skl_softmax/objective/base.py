"""F of M models over one X, and what solvers ask of it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf

import torch
from torch import Tensor

from skl_softmax.data import Affine, Block, Data, NullSpace
from skl_softmax.objective import (
    absent,
    costs,
    curvature,
    duality,
    metrics,
    outliers,
    quadratic,
    sampling,
    separability,
)
from skl_softmax.objective.anchor import Anchor, make_anchor
from skl_softmax.objective.losses import SigmoidLoss, SoftmaxLoss, apart, loss_for, moved_apart
from skl_softmax.objective.portions import Portion, Portions
from skl_softmax.objective.stretches import WHOLE, Stretch, find_stretches, order_rows, sum_over

# Errors of logits beyond this are not rounding but another objective: with 3e-4 F had seven right digits.
LOGIT_ACCURACY = 1e-3
# What an entry of the gradient may be off by, of columns of numbers of size 1: of a sum over rows errors cancel.
SLOPE_ROUNDING = 16 * torch.finfo(torch.float64).eps
# Rows that tell the diagonal of the Hessian, at least.
DIAGONAL_ROWS, DIAGONAL_ROWS_PER_COLUMN = 1024, 2
# The least penalty, as part of a column's curvature, with which what collinear columns gain is not rounding.
HELD = torch.finfo(torch.float64).eps ** 1.25
# What a copy of the rows in another order may take.
STRETCHED_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Evaluation:
    """F and the gradient of its smooth part at one point of each model: one pass over X."""

    value: Tensor  # (M,), float64
    gradient: Tensor  # (M, K, p)


@dataclass(frozen=True)
class Objective:
    """F of M models over one X. See the package's docstring for the formula and the shapes.

    Parameters
    ----------
    data : Data
        The rows.
    targets : Tensor of shape (n,) or (n, K)
        Class indices (int64) or probabilities of the classes for several outputs; probabilities (n,) of the second
        class for one output. Probabilities in the data's dtype.
    weights : Tensor of shape (M or 1, n)
        Weights of the rows s_i, zero for those that folds hold out.
    l2 : Tensor of shape (M,)
        λ₂, float64; 0 means no such penalty.
    n_outputs : int
        K, or 1 for two classes.
    total : Tensor of shape (M,)
        What the sum over rows is divided by: S, also where ``data`` is a batch of the rows.
    label_proba : Tensor of shape (K, K) or None
        The probabilities of the classes that a class index stands for, if not the class itself: smoothed labels.
    l1 : Tensor of shape (M,) or None
        λ₁, float64; None if it is zero for all models.
    is_family : bool
        Whether the models differ by a part of the rows only, as folds do, so that one curvature will do for all.
    null_space : NullSpace or None
        Directions in which no logit moves, where they are known and F is smooth.
    absent : Tensor of shape (M, K) or None
        The classes that no row of a model is of, bool, for which intercepts have no minimum; None if there are none.
    """

    data: Data
    targets: Tensor
    weights: Tensor
    l2: Tensor
    n_outputs: int
    total: Tensor
    label_proba: Tensor | None = None
    l1: Tensor | None = None
    is_family: bool = False
    null_space: NullSpace | None = None
    absent: Tensor | None = None

    # What an evaluation costs at least, in seconds.
    call_seconds = costs.CALL_SECONDS
    # What is kept of the rows, whatever the penalties are.
    _of_rows = "_portions", "_stretches", "class_shares"

    @cached_property
    def loss(self) -> SigmoidLoss | SoftmaxLoss:
        return loss_for(self.n_outputs)

    @cached_property
    def column_l2(self) -> Tensor:
        """λ₂ of each model and column, (M, 1, p), in the units of θ: it adds ½ Σ λ₂θ² to F."""
        products = self.l2[:, None] * self.data.penalty_scale()  # (M, p)
        return products.clamp_max(torch.finfo(products.dtype).max)[:, None]  # (M, 1, p), as infinity times zero is none

    @cached_property
    def column_l1(self) -> Tensor:
        """λ₁ likewise: it adds Σ λ₁|θ|."""
        if self.l1 is None:
            return torch.zeros_like(self.column_l2)
        return (self.l1[:, None] * self.data.penalty_scale().sqrt())[:, None]  # (M, 1, p)

    @cached_property
    def unpenalised(self) -> Tensor:
        """Which columns of each model have no penalty, (M, 1, p)."""
        return (self.column_l2 == 0) & (self.column_l1 == 0)

    @property
    def unseen(self) -> Tensor:
        """In which columns solvers of each model take no notice of one number added to all classes, (M, 1, p).

        That leaves the probabilities of several outputs as they are. Where F is smooth, parameters that sum to zero
        over the classes go on doing so.
        """
        if self.n_outputs == 1:
            return torch.zeros_like(self.unpenalised)
        return torch.ones_like(self.unpenalised) if self.is_smooth else self.unpenalised

    @cached_property
    def n_rows(self) -> int:
        return self.data.n_rows

    @property
    def is_smooth(self) -> bool:
        """Whether F has no L1 penalty."""
        return self.l1 is None

    @property
    def dtype(self) -> torch.dtype:
        """The type in which products are computed."""
        return self.data.dtype

    @property
    def prefers_newton(self) -> bool:
        """Whether Newton's method needs less time than L-BFGS.

        Of sparse columns whose correlations cost too much, conjugate gradients find a step sooner than L-BFGS finds its
        pairs, if most are no levels of categories; of few dense rows the Hessian of all costs little more than one of a
        sample, and takes a third of the steps.
        """
        if costs.correlations_pay(self):
            return costs.newton_pays(self)
        return self.null_space is None or not self.null_space.covers_most

    @cached_property
    def n_models(self) -> int:
        return len(self.l2)

    @cached_property
    def n_parameters(self) -> int:
        """Number of parameters of one model, P = K p."""
        return self.n_outputs * self.data.n_columns

    def products_pay(self, passes: float) -> bool:
        """Whether Newton's steps, after so many passes, come sooner from products than from the Hessian of all rows."""
        return costs.products_pay(self, passes)

    def select(self, models: Tensor) -> "Objective":
        """The same objective for some of the models."""
        weights = self.weights if len(self.weights) == 1 else self.weights[models]
        l1, is_absent = (None if known is None else known[models] for known in (self.l1, self.absent))
        return replace(self, weights=weights, l2=self.l2[models], total=self.total[models], l1=l1, absent=is_absent)

    def with_penalties(self, l2: Tensor, l1: Tensor | None) -> "Objective":
        """The same rows and models with other λ₂ and λ₁ (M,), and what of the rows has been made for these."""
        other = replace(self, l2=l2, l1=l1, null_space=self.null_space if l1 is None else None)
        other.__dict__.update({name: self.__dict__[name] for name in self._of_rows if name in self.__dict__})
        return other

    def alone(self, model: int) -> "Objective":
        """F of one model, from its rows of positive weight."""
        one = self.select(torch.tensor([model]))
        index = one.weights[0].nonzero()[:, 0]
        return one if len(index) == one.n_rows else replace(one.take(index), total=one.total)

    def pooled(self) -> "Objective":
        """The one objective that stands for all of a family: the mean of their weights and penalties."""
        weights, total, l2 = self.weights.mean(dim=0, keepdim=True), self.total.mean()[None], self.l2.mean()[None]
        is_absent = None if self.absent is None else self.absent.all(dim=0, keepdim=True)
        return replace(self, weights=weights, total=total, l2=l2, is_family=False, absent=is_absent)

    def apart(self) -> "Objective":
        """The same models, each with a curvature of its own."""
        return replace(self, is_family=False) if self.is_family else self

    def restrict(self, columns: Tensor) -> "Objective":
        """F by the parameters of some columns of the design, the others being zero; the intercept's has to be there."""
        return replace(self, data=self.data.restrict(columns[columns < self.data.X.shape[1]]), null_space=None)

    def take(self, index: Tensor) -> "Objective":
        """F of some of the rows, with the same λ."""
        index = index.to(self.weights.device)
        weights = self.weights[:, index]
        total = self.gathered(weights.sum(dim=1, dtype=self.data.wide)).expand(self.n_models)
        return replace(self, data=self.data.take(index), targets=self.targets[index], weights=weights, total=total)

    def gathered(self, tensor: Tensor) -> Tensor:
        """A sum over rows where θ is, in float64."""
        return tensor.to(self.data.home).double()

    def sample(self, n_rows: int) -> "Objective":
        """F of so many rows, spread over all; F itself if there are no more."""
        return sampling.sample(self, n_rows)

    def samples(self, n_all: int | None = None) -> list[tuple["Objective", float]]:
        """Ever larger samples on the way to all rows, ``n_all`` if not these, each with a gap that is near enough."""
        return sampling.stages(self, n_all or self.n_rows)

    def narrow(self) -> "Objective":
        """F with products in float32, for steps that are far from the minimum; F itself where that gains nothing."""
        if self.data.dtype == torch.float32 or not costs.narrow_pays(self, self.data.converts):
            return self
        return self.in_float32 if self.data.fits_float32 else self

    @cached_property
    def in_float32(self) -> "Objective":
        """F with products in float32."""
        targets = self.targets.float() if self.targets.is_floating_point() else self.targets
        return replace(self, data=self.data.narrow(), targets=targets, weights=self.weights.float())

    def rounding(self, theta: Tensor) -> tuple[Evaluation, float]:
        """What float32 adds to F and its gradient at θ, by a sample of rows, and what part of a pass that takes."""
        return sampling.rounding(self, theta)

    def excess(self, theta: Tensor, change: Tensor, gradient: Tensor) -> Tensor:
        """F(θ + change) - F(θ), (M,), from the gradient at θ and, for higher orders, a sample of rows."""
        return sampling.excess(self, theta, change, gradient)

    def anchor(self, theta: Tensor, point: Evaluation) -> Anchor | None:
        """F by its changes from θ, with products in float32, if that gains anything."""
        return make_anchor(self, theta, point)

    def resolves(self, theta: Tensor) -> bool:
        """Whether the logits at θ, sums of terms that may cancel, come out of ``dtype`` near enough to go by.

        The errors are eps Σ_j |θ_kj x̃_j| at most. Collinear columns with next to no penalty let θ grow until that is
        all there is: the raw tall table at C = 100 has 3e5 after one step.
        """
        terms = theta.abs() @ self.data.nominal_sizes.to(theta)  # (M, K)
        return torch.finfo(self.dtype).eps * terms.max().item() <= LOGIT_ACCURACY

    @cached_property
    def holds_collinear(self) -> bool:
        """Whether the penalty fixes parameters that the rows do not, so that they are not left to rounding.

        The gradient along collinear columns of size 1 is wrong by eps, which is worth eps² / 2λ of F.
        """
        held = self.column_l2 > HELD * self.diagonal_bound  # (M, 1, p)
        return self.dtype == torch.float64 and bool(held[..., : self.data.X.shape[1]].all())

    def slope_rounding(self, direction: Tensor) -> Tensor:
        """What rounding of X and of the gradient makes of the slope along a direction (M, K, p), about, (M,)."""
        offsets = self.data.mean.abs() / self.data.scale  # (d,), of the numbers in X from those of θ's columns
        sizes = self.data.nominal_sizes + torch.cat([offsets, offsets.new_zeros(int(self.data.fit_intercept))])  # (p,)
        return SLOPE_ROUNDING * (direction.abs() @ sizes).sum(dim=1)

    def centred(self, theta: Tensor) -> Tensor:
        """The same probabilities from parameters as they are at the minimum of a smooth F.

        They sum to zero over the classes, and the penalty of what moves no logit is least.
        """
        theta = theta if self.n_outputs == 1 else theta - theta.mean(dim=1, keepdim=True)  # (M, K, p)
        return theta if self.null_space is None else self.null_space.centred(theta)

    def balanced(self, gradient: Tensor) -> Tensor:
        """A gradient (M, K, p) with a sum of zero over the classes, as residuals have it, but for rounding.

        Metrics make much of what is left. It is taken off the classes by what they weigh: from one that has no rows,
        whose curvature is next to none, a K-th of it led intercepts to 1e6. Likewise along what
        moves no logit.
        """
        if self.n_outputs > 1:
            left = gradient.sum(dim=1, keepdim=True)  # (M, 1, p)
            gradient = torch.addcmul(gradient, self.class_shares.to(gradient), left, value=-1)
        return gradient if self.null_space is None else self.null_space.balanced(gradient)

    def without_absent(self, theta: Tensor) -> Tensor:
        """θ (M, K, p) with no probability for absent classes."""
        return absent.without_absent(self, theta)

    def among_present(self, direction: Tensor) -> Tensor:
        """A direction (M, K, p) that leaves absent classes where they are."""
        return absent.among_present(self, direction)

    def feasible(self, direction: Tensor) -> Tensor:
        """The same, by which parameters go on summing to zero over the classes, as `centred` has them."""
        return self.centred(self.among_present(direction))

    @cached_property
    def class_shares(self) -> Tensor:
        """About which part of the weight each class has, (M or 1, K, 1), by some rows."""
        return absent.class_shares(self)

    def coefficients(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (..., K, d) and bias (..., K) of X as the user gave it, from θ (..., K, p).

        Biases of three or more classes sum to zero, as do scikit-learn's: those of θ do so with an L1 penalty, beside
        weights that do not.
        """
        weight, bias = self.data.from_theta(theta)
        if self.absent is not None:
            weight, bias = absent.rare(self, weight, bias)
        return weight, bias if self.n_outputs == 1 else bias - bias.mean(dim=-1, keepdim=True)

    def at(self, theta: Tensor) -> Evaluation:
        """F and the gradient of its smooth part."""
        return self.mean_over(self.counted_portions(), self.total, theta)

    def mean_over(self, portions: Iterable[Portion], total: Tensor, theta: Tensor) -> Evaluation:
        """The penalty and the sum over some of the rows, divided by ``total``, with their gradient."""
        of_logits = lambda portion, logits: self.loss.value_and_residual(logits, portion.targets)  # noqa: E731
        return self.penalised(*self.means(portions, total, theta, of_logits), theta)

    def means(
        self, portions: Iterable[Portion], total: Tensor, theta: Tensor, of_logits: Callable
    ) -> tuple[Tensor, Tensor]:
        """A sum over some of the rows, divided by ``total``, and its gradient, (M,) and (M, K, p).

        ``of_logits`` makes of a portion and its logits for θ (parts, models, K, part) what is summed, (parts, models,
        1, part), and its derivatives by the logits.
        """

        def of_portion(portion: Portion, affine: Affine) -> tuple[Tensor, Tensor, Tensor | None]:
            block, _, weights, _ = portion
            logits = block.logits(affine).unflatten(1, (-1, theta.shape[1]))
            term, residual = of_logits(portion, logits)
            value = (term * weights).sum(dim=(0, 2, 3), dtype=self.data.wide)  # (models,)
            sums = block.pullback(residual.mul_(weights).flatten(1, 2), affine.bias is not None)
            return value, sums.weight, sums.bias

        affine = self.data.affine(theta.flatten(0, 1))
        value, *sums = sum_over(portions, affine, len(theta), of_portion)
        gradient = self.gathered(self.data.gradient(Affine(*sums))).view_as(theta).div_(total[:, None, None])
        return self.gathered(value) / total, self.balanced(gradient)

    def penalised(self, loss: Tensor, gradient: Tensor, theta: Tensor) -> Evaluation:
        """F at θ from the mean loss (M,) and its gradient (M, K, p); the latter's memory is taken over."""
        penalty = self.column_l2 * theta  # (M, K, p)
        gradient += penalty
        value = loss + 0.5 * penalty.mul_(theta).sum(dim=(1, 2))
        if self.l1 is not None:
            value += (self.column_l1 * theta.abs()).sum(dim=(1, 2))
        return Evaluation(value, gradient.to(theta.dtype))

    def from_other(self, other: "Objective", point: Evaluation, theta: Tensor) -> Evaluation:
        """F and its gradient at θ from those of one with other penalties, without a pass over X."""
        change = (self.column_l2 - other.column_l2) * theta  # (M, K, p)
        value = point.value + 0.5 * (change * theta).sum(dim=(1, 2))
        return Evaluation(value, point.gradient + change)

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Products of the Hessian of all rows with directions (M, K, p), without the matrix: a pass over X each."""
        return curvature.hessian_product(self, theta)

    def far_rows(self, theta: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
        """Which rows that count a step from θ moves far, (M, n), bool: two logits apart by these limits (M,) or more.

        Of outputs that are not next to impossible, which logits at θ tell where any row seems to be moved so far.
        """
        n_models, limit = self.n_models, limit.to(self.dtype).to(self.weights.device)[:, None]
        here, along = (self.data.affine(each.flatten(0, 1)) for each in (theta, direction))
        far = torch.empty(n_models, self.n_rows, dtype=torch.bool, device=self.weights.device)
        for block, _, weights, _ in self.portions(n_models * self.n_outputs):
            moved = block.logits(along).unflatten(1, (n_models, -1))  # (parts, M, K, part)
            is_far = (apart(moved) >= limit) & (weights[:, :, 0] > 0)  # (parts, M, part)
            if is_far.any():
                is_far &= moved_apart(block.logits(here).view_as(moved), moved) >= limit
            far[:, block.rows] = is_far.transpose(0, 1).flatten(1)
        return far

    def moves_apart(self, theta: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
        """Whether there are any, (M,)."""
        return self.far_rows(theta, direction, limit).any(dim=1).to(self.data.home)

    def without_far(self, theta: Tensor, direction: Tensor, limit: Tensor) -> "Objective | None":
        """What the penalty and the other rows add to F, by themselves; None where no other row counts in a model."""
        weights = torch.where(self.far_rows(theta, direction, limit), 0.0, self.weights)  # (M, n)
        return replace(self, weights=weights, is_family=False) if (weights > 0).any(dim=1).all() else None

    def outlying_step(self, theta: Tensor, gradient: Tensor) -> Tensor | None:
        """Newton's step (M, K, p) by single parameters of columns in which one row is far out; None without such."""
        return outliers.outlying_step(self, theta, gradient)

    def change_at_most(self, direction: Tensor) -> Tensor:
        """How far it moves them at most, (M,), by the sizes of the columns; infinity where rows tell that as soon."""
        if not costs.bound_pays(self):
            return torch.full((len(direction),), inf, dtype=torch.float64)
        return apart(direction).double() @ self.data.column_sizes

    def block_proba(self, block: Block, affine: Affine) -> Tensor:
        """Those of `curvature_proba` for a block."""
        logits = block.logits(affine).unflatten(1, (-1, self.n_outputs))
        return self.curvature_proba(logits)  # (parts, M, K, part)

    def row_proba(self, theta: Tensor) -> Tensor:
        """Those of `curvature_proba` for all rows, (M, K, n)."""
        affine, n_logits = self.data.affine(theta.flatten(0, 1)), self.n_models * self.n_outputs
        blocks = [self.block_proba(b, affine).permute(1, 2, 0, 3).flatten(2) for b, *_ in self.portions(n_logits)]
        return torch.cat(blocks, dim=2).to(self.data.home)

    def inverse_hessian(self, theta: Tensor, dtype: torch.dtype = torch.float64) -> curvature.Inverse:
        """The inverse of the Hessian of all rows, as a product with vectors (M, K, p); in ``dtype`` if that will do."""
        return curvature.inverse_hessian(self, theta, dtype)

    def inverse_diagonal(self, theta: Tensor) -> curvature.Inverse:
        """The inverse of the diagonal of that Hessian, as a product with vectors (M, K, p); of dense rows by a sample.

        Over 48 tables of 1,200 parameters and more what it promises is 0.96 to 1.08 times as much as by all rows in
        three quarters, and 16 in one of twenty, where a few rows are far out. Sparse ones might show a column nowhere.
        """
        n_rows = max(DIAGONAL_ROWS, DIAGONAL_ROWS_PER_COLUMN * self.data.n_columns)
        rows = self.sample(n_rows) if self.data.is_dense else self
        return metrics.diagonal_metric(rows, theta)

    def bounded(self, inverse: curvature.Inverse) -> tuple[curvature.Inverse, Tensor]:
        """An inverse diagonal for conjugate gradients, with a bound (M,) of the eigenvalues of the Hessian in it."""
        return metrics.bounded_diagonal(self, inverse)

    def penalty_gradient(self, theta: Tensor) -> Tensor:
        """The part of the gradient (M, K, p) that is the L2 penalty's."""
        return self.column_l2 * theta

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float) -> "quadratic.HessianModels | None":
        """Quadratic models of the smooth part at θ, for the parameters ``working`` (M, K, p), bool."""
        return quadratic.make_hessian_models(self, theta, working, max_price)

    def hessian_diagonal(self, theta: Tensor) -> Tensor:
        """The diagonal of the Hessian, (M, K, p)."""
        return curvature.diagonal(self, theta)

    @cached_property
    def diagonal_bound(self) -> Tensor:
        """What the diagonal of the Hessian is at most, wherever θ is, (M, 1, p)."""
        norms = self.data.column_norms(self.weights) / self.total[:, None]  # (M, p)
        return (self.loss.curvature_bound * norms)[:, None] + self.column_l2

    def certificate(self, theta: Tensor) -> duality.Certificate:
        """A bound of F - F* by duality."""
        return duality.certificate(self, theta)

    def first_order_gap(self, theta: Tensor, point: Evaluation) -> Tensor:
        """What that bound is about to be, (M,), at no price."""
        return duality.first_order_gap(self, theta, point)

    def convex_certificate(self, theta: Tensor) -> duality.Certificate:
        """A bound of F - F* by the curvature of the penalty alone."""
        return duality.convex_certificate(self, theta)

    def convex_gap(self, point: Evaluation) -> Tensor:
        """What that bound is about to be, (M,), at no price; infinity where to know it costs too much."""
        return duality.convex_gap(self, point) if costs.balancing_pays(self) else torch.full_like(point.value, inf)

    def metric(
        self, theta: Tensor, growth=1, is_near=False, dtype=torch.float32, passes=0.0, to_come=inf
    ) -> metrics.Metric:
        """An approximate inverse of the Hessian, as good as it is worth, from ``growth`` times the usual rows.

        ``is_near`` says that θ is near the minimum, ``passes`` how many have led there, ``to_come`` how many are to
        come with a rough one. Hessians are in ``dtype`` where that will do.
        """
        return metrics.make_metric(self, theta, growth, is_near, dtype, passes, to_come)

    @cached_property
    def separable_below(self) -> Tensor:
        """What F (M,) has to be below to prove that there is no minimum, as rows can be told apart."""
        return separability.separable_below(self)

    def curvature_proba(self, logits: Tensor) -> Tensor:
        """Probabilities of the outputs (..., K, rows), by which the curvature goes.

        For one output that of the less likely class, q, which is known to eps of itself. q (1 - q) is the curvature as
        well, and not 0 where the other one is 1 to rounding.
        """
        return torch.sigmoid(-logits.abs()) if self.n_outputs == 1 else torch.softmax(logits, dim=-2)

    def logits(self, block: Block, theta: Tensor) -> Tensor:
        """Logits of a block at θ."""
        affine = self.data.affine(theta.flatten(0, 1))
        return block.logits(affine).unflatten(1, theta.shape[:2])  # (parts, M, K, part)

    @cached_property
    def _portions(self) -> Portions:
        return Portions(self.data, self.targets, self.weights, self.label_proba)

    def portions(self, n_logits: int) -> Iterator[Portion]:
        """All rows, in blocks for so many logits of each."""
        return self._portions.of_all(n_logits)

    def counted_portions(self) -> Iterator[Portion]:
        """The rows, in blocks for the logits of the models in which they count."""
        if self._stretches[0].is_whole:
            return self.portions(self.n_models * self.n_outputs)
        return self._portions.of_stretches(self._stretches, self.n_outputs)

    def portion(self, block: Block) -> Portion:
        """A block with what belongs to its rows."""
        return self._portions.of(block)

    @cached_property
    def _stretches(self) -> list[Stretch]:
        """Those of the rows, or the whole where they do not pay."""
        if not self.data.is_dense or not costs.stretches_pay(self, 1):
            return [WHOLE]
        found = find_stretches(self.weights)
        return found if costs.stretches_pay(self, len(found)) else [WHOLE]

    def stretched(self) -> "Objective":
        """F of the same rows, in an order in which those that count in the same models lie together, if that pays.

        They are a copy then, of `STRETCHED_BYTES` at most.
        """
        is_large = self.n_rows * self.data.row_bytes > STRETCHED_BYTES
        if is_large or not self.data.is_dense or not costs.stretches_pay(self, self.n_models):
            return self
        order = order_rows(self.weights) if self._stretches[0].is_whole else None
        other = self if order is None else self.take(order)
        return self if other._stretches[0].is_whole else other
