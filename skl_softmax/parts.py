"""F of rows that are in parts elsewhere: on the workers of a cluster, or in files.

F is a sum over rows, so it is one over parts of the rows,

    F(θ) = Σ_parts F_part(θ) + λ/2 ‖W‖²,        F_part(θ) = (1/S) Σ_{i in part} s_i ℓ(y_i, z_i),

S the weight of all rows, and so are its gradient and curvature. A part is an ordinary `Objective` without a penalty, in
the coordinates that all parts share; `PartsObjective` is what a solver sees. It has no rows but a sample of them, from
which it knows the curvature.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce
from math import inf
from operator import add

import torch
from torch import Tensor

from skl_softmax.data import Data, making_on, n_bytes, standardised
from skl_softmax.inputs import TrainingRows
from skl_softmax.objective import Evaluation, Objective, costs, curvature, metrics
from skl_softmax.objective.losses import apart
from skl_softmax.pieces import RowGroup, Tally
from skl_softmax.solver_parameters import NO_PENALTY, Penalty
from skl_softmax.solvers import DETERMINISTIC, SOLVERS
from skl_softmax.training import make_part, make_stack, penalty_terms

# What minimises F of parts: neither an L1 penalty nor batches are known here.
PARTS_SOLVERS = ("auto", *(name for name in DETERMINISTIC if not SOLVERS[name].takes_l1))


class PartGroup(list):
    """Parts that are added up together, each an `Objective`."""

    def __sizeof__(self):
        return sum(n_bytes(part.data.X) + part.targets.nbytes + part.weights.nbytes for part in self)


def make_parts(groups: list[RowGroup], data: Data, total_weight: float) -> PartGroup:
    """The summands of F that belong to the rows of some groups, in the coordinates of ``data``."""
    every = (rows for group in groups for rows in group)
    return PartGroup(make_part(rows, data.over(rows.X), total_weight) for rows in every)


# What is added up over parts: a tuple of tensors from a part and vectors.
Quantity = Callable[..., tuple[Tensor, ...]]


def evaluation(part: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient at θ."""
    point = part.at(theta)
    return point.value, point.gradient


def narrow_evaluation(part: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient at θ, with products in float32 where they fit."""
    return evaluation(part.narrow(), theta)


def hessian_product(part: Objective, theta: Tensor, direction: Tensor) -> tuple[Tensor]:
    """The Hessian at θ times a direction."""
    return (part.hessian_product(theta)(direction),)


def narrow_hessian_product(part: Objective, theta: Tensor, direction: Tensor) -> tuple[Tensor]:
    """The same with products in float32 where they fit."""
    part = part.narrow()
    return hessian_product(part, theta, direction.to(part.dtype))


def moves_apart(part: Objective, theta: Tensor, direction: Tensor, limit: float) -> tuple[Tensor]:
    """1 if a step moves two logits of a row apart by this limit or more, else 0: (1,)."""
    return (part.moves_apart(theta, direction, theta.new_tensor([limit])).double(),)


def hessian(part: Objective, theta: Tensor) -> tuple[Tensor]:
    """The Hessian at θ."""
    return (curvature.loss_hessian(part, theta),)


def hessian_diagonal(part: Objective, theta: Tensor) -> tuple[Tensor]:
    """The diagonal of the Hessian at θ."""
    return (part.hessian_diagonal(theta),)


def add_up(quantity: Quantity, parts: PartGroup, *vectors: Tensor) -> list[Tensor] | None:
    """The sum of a quantity over parts, wherever they are, on the CPU; None of no parts."""
    return merge_sums([_of_part(quantity, part, vectors) for part in parts])


def _of_part(quantity: Quantity, part: Objective, vectors: tuple[Tensor, ...]) -> list[Tensor]:
    home = part.data.home
    with making_on(home):
        return [tensor.cpu() for tensor in quantity(part, *(vector.to(home) for vector in vectors))]


def merge_sums(sums: list[list[Tensor] | None]) -> list[Tensor] | None:
    """The sum of sums."""
    found = [terms for terms in sums if terms is not None]
    return [reduce(add, terms) for terms in zip(*found, strict=True)] if found else None


@dataclass(frozen=True)
class PartsObjective:
    """F of one model over all rows.

    Parameters
    ----------
    sum_of : callable
        ``sum_of(quantity, *vectors)`` is the sum of a `Quantity` over all parts, a list of tensors.
    sample : Objective
        F of a sample of the rows, with the same λ and coordinates.
    total : Tally
        What is known of all rows.
    dtype : torch.dtype
        In which products are computed.
    """

    sum_of: Callable[..., list[Tensor]]
    sample: Objective
    total: Tally
    dtype: torch.dtype = torch.float64

    n_models = 1
    is_smooth = True
    is_family = False
    null_space = None  # that of a sample need not be that of all rows

    # What these are does not depend on rows.
    n_parameters, prefers_newton = Objective.n_parameters, Objective.prefers_newton
    absent = None
    centred, feasible, coefficients = Objective.centred, Objective.feasible, Objective.coefficients
    without_absent, among_present = Objective.without_absent, Objective.among_present
    resolves, apart, products_pay = Objective.resolves, Objective.apart, Objective.products_pay
    call_seconds = Objective.call_seconds

    @property
    def data(self) -> Data:
        """The coordinates, with the sample's rows."""
        return self.sample.data

    @property
    def n_outputs(self) -> int:
        return self.sample.n_outputs

    @property
    def unseen(self) -> Tensor:
        return self.sample.unseen

    @property
    def n_rows(self) -> int:
        return self.total.n_rows

    def balanced(self, gradient: Tensor) -> Tensor:
        """A gradient with a sum of zero over the classes, as of `Objective`."""
        return self.sample.balanced(gradient)

    def at(self, theta: Tensor) -> Evaluation:
        """F and its gradient."""
        quantity = evaluation if self.dtype == torch.float64 else narrow_evaluation
        return self.sample.penalised(*self.sum_of(quantity, theta), theta)

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """Products of the Hessian at θ with directions. Nothing of θ is kept with the rows from one to the next."""
        quantity = hessian_product if self.dtype == torch.float64 else narrow_hessian_product

        def product(direction: Tensor) -> Tensor:
            (curved,) = self.sum_of(quantity, theta, direction)
            return torch.addcmul(curved.to(direction), self.sample.column_l2.to(direction), direction)

        return product

    def moves_apart(self, theta: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
        """Whether a step moves two logits of a row apart by this limit (1,) or more, (1,)."""
        (counted,) = self.sum_of(partial(moves_apart, limit=limit.item()), theta, direction)
        return counted > 0

    def without_far(self, theta: Tensor, direction: Tensor, limit: Tensor) -> None:
        """None: parts of F have no names by which some of their rows could be left out."""

    def outlying_step(self, theta: Tensor, gradient: Tensor) -> None:
        """None: a sample does not know of which columns one row is far out."""

    def change_at_most(self, direction: Tensor) -> Tensor:
        """How far it moves them at most, (1,), as dense columns are 1 in size; infinity of sparse rows."""
        return apart(direction).sum(dim=1) if self.data.is_dense else torch.full((1,), inf, dtype=torch.float64)

    def slope_rounding(self, direction: Tensor) -> Tensor:
        """What rounding makes of the slope along a direction (1, K, p), as of `Objective`."""
        return self.sample.slope_rounding(direction)

    @property
    def holds_collinear(self) -> bool:
        return self.sample.holds_collinear

    def first_order_gap(self, theta: Tensor, point: Evaluation) -> Tensor:
        """What a bound by duality is about to be, (1,), at no price."""
        return self.sample.first_order_gap(theta, point)

    def convex_gap(self, point: Evaluation) -> Tensor:  # noqa: ARG002, the best intercepts would take passes
        """Infinity: a bound that has to know the best intercepts costs passes here."""
        return torch.full((1,), inf, dtype=torch.float64)

    def inverse_hessian(self, theta: Tensor, dtype=torch.float64) -> curvature.Inverse:  # noqa: ARG002, reads rows anyway
        """The inverse of the Hessian of all rows, as a product with vectors."""
        (matrix,) = self.sum_of(hessian, theta)
        return curvature.inverse(curvature.definite(self.sample, matrix.clone()))

    def inverse_diagonal(self, theta: Tensor) -> curvature.Inverse:
        """The inverse of the diagonal of that Hessian, as a product with vectors."""
        (curved,) = self.sum_of(hessian_diagonal, theta)
        return metrics.inverse_of_diagonal(self.sample, curved + self.sample.column_l2)

    def bounded(self, inverse: curvature.Inverse) -> tuple[curvature.Inverse, Tensor]:
        """An inverse diagonal for conjugate gradients, with a bound (1,) of the eigenvalues of the Hessian in it."""
        return metrics.bounded_diagonal(self.sample, inverse)

    def metric(
        self, theta: Tensor, growth=1, is_near=False, dtype=torch.float32, passes=0.0, to_come=inf
    ) -> metrics.Metric:
        """The sample's, but for the diagonal one: a column may be zero in all rows of a sample."""
        share = self.sample.n_rows / self.n_rows
        metric = self.sample.metric(theta, growth, is_near, dtype, passes / share, to_come / share)
        if metric.kind != "diagonal":
            prices = {name: getattr(metric, name) for name in ("price", "near_price", "dense_price")}
            prices = {name: share * price for name, price in prices.items() if price is not None}
            return replace(metric, **prices, exact=metric.exact and share == 1)
        return replace(metric, solve=metrics.with_numbers(self.sample, theta, self.inverse_diagonal(theta)))

    def samples(self) -> list[tuple[Objective, float]]:
        """Ever larger samples on the way to all rows."""
        return self.sample.samples(self.n_rows)

    def narrow(self) -> "PartsObjective":
        """F with products in float32; each part decides whether they fit."""
        if self.dtype == torch.float32 or not costs.narrow_pays(self, self.data.X.dtype == torch.float64):
            return self
        return replace(self, dtype=torch.float32)

    def rounding(self, theta: Tensor) -> tuple[Evaluation, float]:
        """What float32 adds to F and its gradient at θ, by a sample of rows, and what part of a pass that takes."""
        lost, passes = self.sample.rounding(theta)
        return lost, passes * self.sample.n_rows / self.n_rows

    def excess(self, theta: Tensor, change: Tensor, gradient: Tensor) -> Tensor:
        """F(θ + change) - F(θ), (M,), as of `Objective`."""
        return self.sample.excess(theta, change, gradient)

    def anchor(self, theta: Tensor, point: Evaluation) -> None:
        """None: what is known of the rows at θ would have to be kept with them."""

    @cached_property
    def separable_below(self) -> Tensor:
        """As of `Objective`, from the few targets that tell."""
        targets = self.total.telling.to(self.sample.targets.dtype)
        weights = torch.full((1, len(targets)), self.total.lightest, dtype=torch.float64)
        total = torch.tensor([self.total.total_weight], dtype=torch.float64)
        return replace(self.sample, targets=targets, weights=weights, total=total).separable_below


def make_parts_objective(sum_of, rows: TrainingRows, data: Data, total: Tally, C: float) -> PartsObjective:
    """F of all rows from a sample of them, ``rows``, in the coordinates ``data``."""
    sample = make_stack(rows, data, rows.weights[None], NO_PENALTY)
    sample = replace(sample, absent=None)  # of classes that it lacks there may be other rows
    l2, _ = penalty_terms(sample.total.new_tensor([total.total_weight]), Penalty(0.0, C))
    return PartsObjective(sum_of, replace(sample, l2=l2, null_space=None), total)


def sample_coordinates(rows: TrainingRows, total: Tally, fit_intercept: bool) -> Data:
    """Those of a sample of rows, scaled to the ranges of the columns of all rows."""
    return standardised(rows.X, fit_intercept).covering(total.lowest, total.highest)
