"""What a solver is given and what it returns.

A solver is a function ``(objective, start, options) -> SolveResult``; of it nothing but the result outlives the call.
It works on a stack of M independent models: ``theta`` has shape (M, ...), values and step sizes have shape (M,), and
models that are finished leave the stack. A single fit is M = 1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

# Entries of vectors up to which a call for each model takes longer than one for all. `torch.bmm` takes for five models
# of 2,000 parameters 3 times as long in float32 as a call for each, of 1,000,000 36 times.
FEW = 4096


class Evaluation(Protocol):
    """Value (M,) in float64 and gradient (M, ...) at a point of each model."""

    value: Tensor
    gradient: Tensor


class Inverse(Protocol):
    """An inverse Hessian, as a product with a stack of vectors."""

    has_ridge: bool  # whether the Hessian was singular to rounding and has been made definite
    wants_float64: bool  # whether one in float32 would not do

    def select(self, models: Tensor) -> "Inverse": ...

    def __call__(self, vector: Tensor) -> Tensor: ...


class Metric(Protocol):
    """An approximate inverse Hessian."""

    solve: Inverse
    price: float  # what making it costs, in passes
    kind: str  # what it is, in a word
    exact: bool  # whether it is the inverse Hessian
    follows: bool  # whether another one at a new θ is sure to be better there
    apart_price: float | None  # if it is one for all models: what one for each would cost
    near_price: float | None  # if there is a better one near the minimum: what that would cost
    dense_price: float | None  # if it is rough, and one that follows would fit: what that would cost
    is_local: bool  # whether it is that one
    is_kept: bool  # whether it was made for other penalties, and has cost nothing here

    def select(self, models: Tensor) -> "Metric": ...

    def kept(self, numbers: Tensor) -> "Metric": ...


class Certificate(Protocol):
    """A point of each model, what is evaluated there, and a bound (M,) of F - F*."""

    theta: Tensor
    point: Evaluation
    gap: Tensor


class Anchor(Protocol):
    """The same functions by their changes from a point."""

    def at(self, theta: Tensor) -> Evaluation: ...

    def select(self, models: Tensor) -> "Anchor": ...


class Objective(Protocol):
    """A stack of M smooth convex functions, each a sum over rows, and what solvers may ask of it."""

    n_models: int
    n_parameters: int
    n_rows: int
    is_family: bool  # whether one metric may serve all models
    dtype: torch.dtype  # in which its products are computed
    separable_below: Tensor
    prefers_newton: bool  # whether Newton's method needs less time than L-BFGS
    is_smooth: bool
    holds_collinear: bool  # whether parameters that the rows do not fix are fixed by more than rounding

    def at(self, theta: Tensor) -> Evaluation: ...

    def metric(
        self, theta: Tensor, growth=1, is_near=False, dtype=torch.float32, passes=0.0, to_come=inf
    ) -> Metric: ...

    def inverse_hessian(self, theta: Tensor, dtype: torch.dtype) -> Inverse: ...

    def inverse_diagonal(self, theta: Tensor) -> Inverse: ...

    def bounded(self, inverse: Inverse) -> tuple[Inverse, Tensor]: ...

    def penalty_gradient(self, theta: Tensor) -> Tensor: ...

    def moves_apart(self, theta: Tensor, direction: Tensor, limit: Tensor) -> Tensor: ...

    def without_far(self, theta: Tensor, direction: Tensor, limit: Tensor) -> "Objective | None": ...

    def outlying_step(self, theta: Tensor, gradient: Tensor) -> Tensor | None: ...

    def change_at_most(self, direction: Tensor) -> Tensor: ...

    def first_order_gap(self, theta: Tensor, point: Evaluation) -> Tensor: ...

    def certificate(self, theta: Tensor) -> Certificate: ...

    def convex_gap(self, point: Evaluation) -> Tensor: ...

    def convex_certificate(self, theta: Tensor) -> Certificate: ...

    def centred(self, theta: Tensor) -> Tensor: ...

    def among_present(self, direction: Tensor) -> Tensor: ...

    def feasible(self, direction: Tensor) -> Tensor: ...

    def balanced(self, gradient: Tensor) -> Tensor: ...

    def slope_rounding(self, direction: Tensor) -> Tensor: ...

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]: ...

    def products_pay(self, passes: float) -> bool: ...

    def select(self, models: Tensor) -> "Objective": ...

    def narrow(self) -> "Objective": ...

    def rounding(self, theta: Tensor) -> tuple[Evaluation, float]: ...

    def anchor(self, theta: Tensor, point: Evaluation) -> Anchor | None: ...

    def apart(self) -> "Objective": ...

    def resolves(self, theta: Tensor) -> bool: ...

    def samples(self) -> list[tuple["Objective", float]]: ...


class PenalisedObjective(Objective, Protocol):
    """The same with an L1 penalty, Σ column_l1 |θ|."""

    column_l1: Tensor  # (M, 1, p)
    diagonal_bound: Tensor  # (M, 1, p), of the Hessian, wherever θ is
    unseen: Tensor  # (M, 1, p), bool, in which columns one number added to all classes changes nothing

    def hessian_models(self, theta: Tensor, working: Tensor, max_price: float): ...

    def hessian_diagonal(self, theta: Tensor) -> Tensor: ...

    def restrict(self, columns: Tensor) -> "PenalisedObjective": ...


class BatchedObjective(Objective, Protocol):
    """The same by some rows at a time."""

    largest_l2: Tensor  # (M,), the largest second derivative of the penalty

    def batches(
        self, size: int | None, generator: torch.Generator, shuffle: bool = True
    ) -> Iterator[tuple[float, Objective]]: ...

    def smoothness(self, batch_size: int | None) -> Tensor: ...


class Status(Enum):
    """How a model ended. The values are what the user is told, with ``{...}`` filled in."""

    CONVERGED = "converged"
    MAX_ITER = "max_iter={max_iter} iterations were used up; raise max_iter, or raise tol if this gap will do"
    SEPARABLE = (
        "the objective has no minimum: the data are separable with C=inf, or rows of one class only have a weight, and "
        "the loss goes to zero along ever larger coefficients; set a finite C, or see to the classes"
    )
    PRECISION_FLOOR = (
        "tol={tol:g} is below what rounding lets the objective resolve; the coefficients are as good as float64 "
        "can make them, raise tol"
    )
    LINE_SEARCH_FAILED = (
        "no step along the search direction lowers the objective; look for columns of extreme size or raise tol"
    )
    STALLED = (
        "the mean loss of n_iter_no_change={n_iter_no_change} epochs is not below that of as many before by more than "
        'tol={tol:g} of itself; change learning_rate, or use solver="auto"'
    )
    STOPPED = "a callback or early stopping asked for an end"
    DIVERGED = 'the loss grew beyond all bounds; lower learning_rate, scale the features, or use solver="auto"'


class Iterate(NamedTuple):
    """Where a fit is, before an iteration (deterministic solvers) or after an epoch (stochastic ones)."""

    iteration: int
    value: Tensor  # (M,)
    gap: list[float] | None  # of each model, estimate of F - F*, if the solver makes one
    theta: Tensor  # (M, ...)
    is_last: bool  # whether nothing follows
    memory: object | None = None  # what another call may go on with from here


class Kept(NamedTuple):
    """A metric of all models, one for each, and F of each (M,) where it was made."""

    metric: Metric
    value: Tensor


@dataclass(frozen=True)
class SolverOptions:
    """What a solver may be told.

    Parameters
    ----------
    tol : float
        A model is finished when the estimate of F - F* is at most tol |F|.
    accuracy : float
        A model is also finished when that estimate is at most this.
    max_iter : int
        Iterations (deterministic solvers) or epochs (stochastic ones).
    observe : callable or None
        Called with every `Iterate`; the fit ends if it returns true.
    note : callable or None
        Called with a line of text when a method has chosen how to go on.
    point : Evaluation or None
        F and its gradient at the start, if they are known.
    skips_float32 : bool
        Whether float32 would lead no nearer to the minimum than the start is.
    kept : Kept or None
        What a run for other penalties has left.
    leads_on : bool
        Whether to tell where the minima go as the penalty falls.
    fallback : (Tensor, list of float) or None
        Where to begin instead, and what F of each model has to be below at the start for that not to be better.
    """

    tol: float
    max_iter: int
    accuracy: float = 0.0
    observe: Callable[[Iterate], bool] | None = None
    note: Callable[[str], None] | None = None
    point: Evaluation | None = None
    skips_float32: bool = False
    kept: Kept | None = None
    leads_on: bool = False
    fallback: tuple[Tensor, list[float]] | None = None

    def last_gap(self, value: float) -> float:
        """The gap with which a model at this F is finished."""
        return max(self.tol * abs(value), self.accuracy)

    def say(self, text: str) -> None:
        """Pass a note on, if anybody listens."""
        if self.note is not None:
            self.note(text)


@dataclass(frozen=True)
class SolveResult:
    """What became of each of the M models."""

    theta: Tensor  # (M, ...)
    gap: Tensor  # (M,), estimate of F - F*; nan where the solver makes none
    n_iter: list[int]
    status: list[Status]
    loss_curve: list[list[float]]  # F before each iteration and, last, where the solver stopped
    n_passes: float  # over the rows, for values with gradients and for Hessian-vector products
    gradient: list[Tensor] | None = None  # of F at each θ, (...), if the solver ends with it
    memory: object = None  # what the solver may go on with in another call
    kept: Kept | None = None  # a metric that may do for other penalties
    tangent: Tensor | None = None  # (M, ...), dθ / d log C at the minima, if asked for and curvature was at hand


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each model's vectors, in float64."""
    if len(a) == 1 and a.ndim == 3 and a.mT.is_contiguous() and b.mT.is_contiguous():
        a, b = a.mT, b.mT  # without a copy
    a, b = a.flatten(1), b.flatten(1)  # (M, P)
    if a.shape[1] <= FEW:
        return (a * b).sum(dim=1).double()  # (M,)
    return torch.stack([torch.dot(x, y) for x, y in zip(a, b, strict=True)]).double()  # (M,)


def numbers(a: Tensor, b: Tensor) -> list[float]:
    """The inner product of each model's vectors, as numbers, with which tiny tables are solved sooner.

    Small ones in NumPy, whose calls there take about half the time of torch's.
    """
    if a.is_cpu and a.dtype == torch.float64 and a.numel() <= FEW:
        shape = a.shape[0], -1  # len would be a function in Python
        return np.vecdot(a.numpy().reshape(shape), b.numpy().reshape(shape)).tolist()
    return inner(a, b).tolist()


def per_model(values: Tensor, like: Tensor) -> Tensor:
    """Values (M,) in a shape that multiplies a stack (M, ...)."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))
