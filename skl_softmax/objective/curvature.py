"""The second derivatives of F: matrices, their factors, and what they are made of.

Shapes as in `skl_softmax.objective`: θ is (M, K, p).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from skl_softmax.data import Affine
from skl_softmax.objective.costs import NARROW_WORK
from skl_softmax.objective.stretches import sum_over
from skl_softmax.products import subtract_product, times_transposed
from skl_softmax.threads import slices

# Parts of the diagonal, in units of eps, that are added in turn to a matrix without a Cholesky factor until it has one.
# Curvature that is a difference of numbers near 1 is wrong by many eps of them.
RIDGES = (0.0, *(50 * 10.0**i for i in range(8)))
# The least eigenvalue of a Hessian in float32, with parameters in units in which each has a curvature of 1, and the
# steps that find it. Pivots of Cholesky's factors, none of which is smaller, told too little: where they were 1e-5
# rounding had moved curvatures of digits, letter, covertype and 200,000 x 50 x 5 by 0.4 of themselves at most, but of
# Kahan's matrices with eigenvalues of 1e-16 all are larger, and fits ended at 1.5 times the minimum.
NARROW_EIGENVALUE, EIGENVALUE_STEPS = 1e-5, 3
# The least curvature by a class's parameters, as a part of that of another class by the same column.
LEAST_CURVATURE = torch.finfo(torch.float64).eps
# Probabilities of all rows that may be kept.
KEEP_PROBA_BYTES = 256 * 2**20
# Entries of the weighted copy of a block of the design. With half as many again Hessians of five tables take 0.92 to
# 1.05 of the time, and fits of 1,000,000 x 20 7 MB more.
WEIGHTED_ENTRIES = 2**20
# Columns up to which the Hessian of one output is a sum over so many rows at a time: of 5,000 x 30 and 5,000 x 100 it
# takes a quarter and a third of the time of one product with transposed columns, of 30,000 x 30 half, of 5,000 x 400 as
# long. In float32 half in two threads, as long in one.
FEW_COLUMNS, GRAM_ROWS = 256, 512
# Strips in which the upper triangle of a Hessian is computed: four save a quarter of the time of the whole square.
TRIANGLE_STRIPS, SMALLEST_STRIP = 4, 64
# Classes up to which, and columns from which on, each class is a strip of its own, whose square is no product: Hessians
# of 3 classes then take 0.53 to 0.96 of the time, of 4 to 8 0.7 to 1.0, of 10 and 26 with 50 to 300 columns 0.7 to
# 1.0. Those of letter, 26 classes by 17 columns, would take 1.1 to 1.4.
FEW_CLASSES, BROAD_CLASS = 8, 48


@dataclass(frozen=True)
class Inverse:
    """Approximate inverse Hessians of M models, as a product with vectors (M, K, p)."""

    product: Callable[..., Tensor]  # of a vector and the factors
    factors: tuple[Tensor, ...]  # (M, ...) each
    has_ridge: bool = False  # whether one of the Hessians was singular to rounding and has been made definite
    wants_float64: bool = False  # whether they were tried in float32, which would not do
    multiple: Tensor | None = None  # (M,), of the product, if that is not 1

    def __call__(self, vector: Tensor) -> Tensor:
        solution = self.product(vector, *self.factors)
        return solution if self.multiple is None else solution * self.multiple[:, None, None].to(solution)

    def select(self, models: Tensor) -> "Inverse":
        """Those of some of the models."""
        multiple = None if self.multiple is None else self.multiple[models]
        return replace(self, factors=tuple(factor[models] for factor in self.factors), multiple=multiple)

    def times(self, numbers: Tensor) -> "Inverse":
        """These, as they were made, times a number (M,) each."""
        return replace(self, multiple=numbers)


def solve_by_factor(factor: Tensor, right: Tensor) -> Tensor:
    """Solutions (..., P, q) by lower Cholesky factors (..., P, P).

    `torch.cholesky_solve`, which copies the factor each time, takes up to four times as long for one right side.
    """
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _solve(vector: Tensor, factor: Tensor) -> Tensor:
    """Solutions (M, K, p) by Cholesky factors (M, P, P), or by one (1, P, P) for all."""
    right = vector.to(factor.dtype).flatten(1)  # (M, P)
    if len(factor) == 1:
        solution = solve_by_factor(factor[0], right.T).T
    else:
        solution = solve_by_factor(factor, right[..., None])[..., 0]
    return solution.view_as(vector).to(vector)


def hessian(objective, theta: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The matrix of second derivatives (M, P, P), with the directions that F does not see made definite.

    Its products are in ``dtype``, as it is.

    Adding one v to every class's parameters leaves softmax as it is, so that the data term has no curvature
    along 1 ⊗ v. Where nothing is to be moved along it (`Objective.unseen`), the largest curvature of that column is put
    there (times 11ᵀ/K): gradient and Newton step have no part along it, so nothing else changes, and what rounding
    makes of a small penalty there does not add up.
    """
    return definite(objective, loss_hessian(objective, theta, dtype))


def loss_hessian(objective, theta: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """The second derivatives (M, P, P) of the sum over rows alone.

    One model after the other, each over its own rows, as portions of fewer rows for many at once take 1.2 to 1.6 times
    as long; for one output they take less.
    """
    n_models, n_outputs, _ = theta.shape
    n_parameters = theta[0].numel()
    matrix = theta.new_zeros(n_models, n_parameters, n_parameters, dtype=dtype)  # (M, P, P)
    if n_outputs == 1:
        for design, proba, weights in design_slices(objective, theta, theta.numel()):
            curved = (proba * weights * complement(proba)).to(dtype)  # (M, 1, rows)
            if n_models == 1 and n_parameters <= FEW_COLUMNS:
                matrix[0] += _weighted_gram(design.to(dtype), curved[0, 0])
                continue
            columns = design.to(dtype).T.contiguous()  # (p, rows)
            matrix += times_transposed((curved * columns).flatten(0, 1), columns).view_as(matrix)
    else:
        for m in range(n_models):
            _fill(matrix[m], objective.alone(m) if n_models > 1 else objective, theta[m : m + 1])
    matrix /= objective.total[:, None, None]
    return matrix


def _weighted_gram(design: Tensor, weights: Tensor) -> Tensor:
    """Σ w x̃ x̃ᵀ (p, p) of rows (rows, p) and their weights (rows,), some rows at a time."""
    whole = len(design) - len(design) % GRAM_ROWS
    parts = design[:whole].unflatten(0, (-1, GRAM_ROWS))  # (parts, rows, p)
    weighted = weights[:whole].view(-1, GRAM_ROWS, 1) * parts  # (parts, rows, p)
    rest = design[whole:]  # (rows, p)
    return torch.bmm(weighted.mT, parts).sum(dim=0) + (weights[whole:, None] * rest).T @ rest


def _fill(matrix: Tensor, objective, theta: Tensor) -> None:
    """Make of zeros (P, P) the Hessian of one model with several outputs.

    The blocks of classes k and l are - Σ s p_k p_l x̃ x̃ᵀ, in one product of the matrix √s p ⊗ x̃ with itself. Those on
    the diagonal, Σ s p_k (1 - p_k) x̃ x̃ᵀ, are minus the sum of the others beside them, as 1 - p_k = Σ p_l.
    """
    _, n_outputs, n_columns = theta.shape
    width = n_columns if n_outputs <= FEW_CLASSES or n_columns >= BROAD_CLASS else None
    for design, proba, weights in design_slices(objective, theta, theta.numel()):
        by_class = (proba * weights.sqrt())[0].to(matrix.dtype)  # (K, rows)
        columns = design.to(matrix.dtype).T.contiguous()  # (p, rows)
        subtract_gram(matrix, (by_class[:, None] * columns).flatten(0, 1), width)
    mirror(matrix, width)
    blocks = matrix.view(n_outputs, n_columns, n_outputs, n_columns)
    diagonal = blocks.diagonal(dim1=0, dim2=2)  # (p, p, K)
    diagonal.zero_()
    diagonal.copy_(-blocks.sum(dim=2).permute(1, 2, 0))


def definite(objective, matrix: Tensor) -> Tensor:
    """The Hessian, as of `hessian`, from the `loss_hessian` (M, P, P), which is overwritten."""
    n_models, n_outputs, n_columns = objective.n_models, objective.n_outputs, objective.data.n_columns
    by_class = matrix.view(n_models, n_outputs, n_columns, n_outputs, n_columns)
    diagonal = by_class.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2)  # (M, K, p)
    if n_outputs > 1:
        largest = diagonal.amax(dim=1, keepdim=True)  # (M, 1, p)
        # What rounding leaves of a class without rows, whose intercept has no minimum, made it go to 1e15.
        diagonal.clamp_(min=LEAST_CURVATURE * largest)
        unseen = largest * objective.unseen  # (M, 1, p)
        by_class.diagonal(dim1=2, dim2=4).add_(unseen[:, :, None] / n_outputs)
    diagonal.add_(objective.column_l2.to(matrix.dtype))
    return matrix


def inverse(matrix: Tensor) -> Inverse:
    """The inverse of Hessians (M, P, P), through their Cholesky factors."""
    factor, ridges = factorise_by(matrix, RIDGES)
    return Inverse(_solve, (factor,), has_ridge=ridges[0] > 0)


def inverse_hessian(objective, theta: Tensor, dtype: torch.dtype) -> Inverse:
    """The inverse of `hessian`, in ``dtype`` where that will do: in float32 it takes a half of the time of float64."""
    if objective.n_outputs > 1 and objective.is_smooth and not theta.any():
        return _inverse_at_zero(objective, dtype)
    return _inverse_of(partial(hessian, objective, theta), objective.n_rows * objective.n_parameters**2, dtype)


def _inverse_at_zero(objective, dtype: torch.dtype) -> Inverse:
    """The same for several outputs at θ = 0, as `skl_softmax.objective.tiny.InverseAtZero`, on any device.

    All probabilities are 1/K there, and it is (I - 11ᵀ/K) ⊗ G/K + I ⊗ D, G the mean of x̃ x̃ᵀ and D the penalty: G/K + D,
    of p columns and not of K p, for parameters that sum to zero over the classes. What these have in common only the
    penalty curves, and what `hessian` puts there.
    """
    make = partial(_hessian_of_class_at_zero, objective)
    found = _inverse_of(make, objective.n_rows * objective.data.n_columns**2, dtype)
    factor, penalty = found.factors[0].double(), objective.column_l2  # (M, p, p), (M, 1, p)
    curved = factor.square().sum(dim=2)[:, None] - penalty  # (M, 1, p), the diagonal of G/K
    common = (1 - 1 / objective.n_outputs) * curved + penalty  # (M, 1, p)
    return replace(found, product=_solve_at_zero, factors=(*found.factors, common))


def _hessian_of_class_at_zero(objective, dtype: torch.dtype) -> Tensor:
    """G/K + D, (M, p, p)."""
    curved = gram(objective, dtype) / objective.n_outputs  # (M or 1, p, p)
    return curved + torch.diag_embed(objective.column_l2[:, 0].to(dtype))


def _inverse_of(make: Callable[[torch.dtype], Tensor], work: int, dtype: torch.dtype) -> Inverse:
    """The inverse of matrices that are made in a type, of so many multiplications; in ``dtype`` where that will do."""
    is_tried = dtype == torch.float32 and work >= NARROW_WORK
    narrow = narrow_inverse(make(dtype)) if is_tried else None
    return replace(inverse(make(torch.float64)), wants_float64=is_tried) if narrow is None else narrow


def _solve_at_zero(vector: Tensor, factor: Tensor, common: Tensor) -> Tensor:
    """Solutions (M, K, p) by Cholesky factors (M, p, p) for each class, and what curves all alike (M, 1, p)."""
    mean = vector.mean(dim=1, keepdim=True)  # (M, 1, p)
    apart = solve_by_factor(factor, (vector - mean).to(factor.dtype).mT).mT  # (M, K, p)
    return (apart + mean / common).to(vector)


def narrow_inverse(matrix: Tensor) -> Inverse | None:
    """The inverse of Hessians (M, P, P) made in float32; None where rounding may be what they know of some direction.

    Products in float32 leave each entry wrong by some 1e-6 of the diagonal's.
    """
    factor, failed = torch.linalg.cholesky_ex(matrix)
    if failed.any() or not (_least_eigenvalue(factor, matrix) >= NARROW_EIGENVALUE).all():
        return None
    return Inverse(_solve, (factor,))


def _least_eigenvalue(factor: Tensor, matrix: Tensor) -> Tensor:
    """About that of matrices (M, P, P) with a diagonal of 1 made of these, (M,), by inverse iteration.

    From above: up to half as much again after three steps where it is small, twice as much where it is one of many.
    """
    units = matrix.diagonal(dim1=1, dim2=2).sqrt()[..., None]  # (M, P, 1)
    start = torch.randn(matrix.shape[1], generator=torch.Generator().manual_seed(0), device="cpu").to(units)  # (P,)
    vector = (start / start.norm()).expand(len(matrix), -1)[..., None]  # (M, P, 1)
    for _ in range(EIGENVALUE_STEPS):
        vector = units * solve_by_factor(factor, units * vector)
        size = vector.norm(dim=1, keepdim=True)  # (M, 1, 1)
        vector = vector / size
    return 1 / size[:, 0, 0]


def complement(proba: Tensor) -> Tensor:
    """1 - p (M, K, rows), as the sum of the others' probabilities, which is exact to eps also where p is almost 1.

    With it the curvature of a row is a weighted Laplacian, which is positive semi-definite to eps of itself. A p less
    its square is off by eps, which in rows of large weights is more than all that rows of small weights have to say.
    """
    n_outputs = proba.shape[1]
    if n_outputs == 1:
        return 1 - proba
    return (1 - torch.eye(n_outputs, dtype=proba.dtype, device=proba.device)) @ proba


def subtract_gram(matrix: Tensor, rows: Tensor, width: int | None = None) -> None:
    """Subtract rows @ rows.T from the upper triangle of a matrix, and from little below it.

    Not from squares of a ``width`` on the diagonal, if one is given.
    """
    for strip in _strips(len(rows), width):
        start = strip.start if width is None else strip.stop
        subtract_product(matrix[strip, start:], rows[strip], rows[start:])


def mirror(matrix: Tensor, width: int | None = None) -> None:
    """Make a matrix symmetric whose upper triangle is right, but for squares of a ``width``, if one is given."""
    for strip in _strips(len(matrix), width):
        if width is None:
            square = matrix[strip, strip]
            square.copy_(square.triu() + square.triu(1).T)
        matrix[strip.stop :, strip] = matrix[strip, strip.stop :].T


def _strips(size: int, width: int | None) -> list[slice]:
    return slices(size, width or max(SMALLEST_STRIP, -(-size // TRIANGLE_STRIPS)))


def gram(objective, dtype: torch.dtype = torch.float64) -> Tensor:
    """Σ s_i x̃_i x̃_iᵀ / S of each model, (M, p, p), by products in ``dtype``."""
    n_columns = objective.data.n_columns
    total = torch.zeros(len(objective.weights), n_columns, n_columns, dtype=dtype, device=objective.data.home)
    for rows in row_slices(objective.data.n_rows, 3 * n_columns):  # larger ones leave holes in the heap
        columns = objective.data.design(rows).to(dtype).T.contiguous()  # (p, rows)
        weighted = objective.weights[:, None, rows].to(columns) * columns  # (M, p, rows)
        total += times_transposed(weighted.flatten(0, 1), columns).view_as(total)
    return total / objective.total[:, None, None].to(dtype)


def row_slices(n_rows: int, n_entries: int) -> list[slice]:
    """Rows in order, in as many at a time as have `WEIGHTED_ENTRIES` entries."""
    return slices(n_rows, max(1, WEIGHTED_ENTRIES // max(1, n_entries)))


def class_covariance(weighted: Tensor, proba: Tensor) -> Tensor:
    """Σ s (diag(p) - p pᵀ) of each model, (M, K, K), from s p and p, both (M, K, rows)."""
    return torch.diag_embed(weighted.sum(dim=2)) - weighted @ proba.mT


def hessian_product(objective, theta: Tensor) -> Callable[[Tensor], Tensor]:
    """Products of the Hessian at θ with directions, without the matrix: a pass over X each.

    The probabilities at θ are kept for all of them, unless they are too many; then each product costs half a
    pass more.
    """
    data, n_logits = objective.data, objective.n_models * objective.n_outputs
    keeps = 8 * n_logits * objective.n_rows <= KEEP_PROBA_BYTES
    at_theta, portions = data.affine(theta.flatten(0, 1)), objective.counted_portions

    def proba_of(portion) -> Tensor:
        return objective.block_proba(portion.block, portion.stretch.of(at_theta, len(theta)))

    kept = {portion.block.rows.start: proba_of(portion) for portion in portions()} if keeps else {}
    total, l2 = objective.total[:, None, None].to(objective.dtype), objective.column_l2.to(objective.dtype)

    def product(direction: Tensor) -> Tensor:
        def of_portion(portion, affine) -> tuple:
            block, _, weights, _ = portion
            proba = kept.get(block.rows.start)
            proba = proba_of(portion) if proba is None else proba
            along = block.logits(affine).view_as(proba)
            curved = objective.loss.curvature_product(proba, along).mul_(weights)
            sums = block.pullback(curved.flatten(1, 2), affine.bias is not None)
            return sums.weight, sums.bias

        sums = sum_over(portions(), data.affine(direction.flatten(0, 1)), len(theta), of_portion)
        curved = data.gradient(Affine(*sums)).view_as(theta).div_(total)
        return curved.to(direction.dtype).addcmul_(l2, direction)  # (M, K, p)

    return product


def diagonal(objective, theta: Tensor) -> Tensor:
    """The diagonal of the Hessian of all rows, (M, K, p)."""

    def variances(logits: Tensor, rows: slice) -> Tensor:
        proba = objective.curvature_proba(logits.view(*theta.shape[:2], -1))  # (M, K, rows)
        weights = objective.weights[:, None, rows].to(proba)  # (M, 1, rows)
        return complement(proba).mul_(proba).mul_(weights).flatten(0, 1)

    curved = objective.data.norms_by_logits(theta.flatten(0, 1), variances).view_as(theta)  # (M, K, p)
    _refuse_infinite(curved)
    return curved.div_(objective.total[:, None, None]).add_(objective.column_l2)


def factorise(matrices: Tensor) -> Tensor:
    """Cholesky factors of positive semi-definite matrices (..., p, p), singular ones made definite by `RIDGES`.

    Each parameter gets its due, however different their curvatures are. Eigenvalues, which would tell rounding from
    curvature in every direction, take ten times as long and led Newton's method no better.
    """
    return factorise_by(matrices, RIDGES)[0]


def factorise_by(matrices: Tensor, ridges: tuple[float, ...]) -> tuple[Tensor, tuple[float, ...]]:
    """Cholesky factors as of `factorise` by one of these ridges, and those that may yet do for others of the kind.

    Infinity on the diagonal, of squares that overflow, would hide its parameter: a FloatingPointError.
    """
    _refuse_infinite(matrices.diagonal(dim1=-2, dim2=-1))
    factor, failed = torch.linalg.cholesky_ex(with_ridge(matrices, ridges[0]) if ridges[0] else matrices)
    if failed.any() and len(ridges) > 1:
        return factorise_by(matrices, ridges[1:])
    return factor, ridges


def _refuse_infinite(diagonal: Tensor) -> None:
    if (diagonal == torch.inf).any():
        raise FloatingPointError("The Hessian is not finite: squares of X overflow.")


def with_ridge(matrices: Tensor, ridge: float) -> Tensor:
    """Matrices (..., p, p) with this multiple of eps, and of their diagonals, added to these."""
    diagonal = matrices.diagonal(dim1=-2, dim2=-1)  # (..., p)
    sizes = torch.where(diagonal > 0, diagonal, 1.0)  # (..., p)
    return matrices + torch.diag_embed(ridge * torch.finfo(matrices.dtype).eps * sizes)


def design_slices(objective, theta: Tensor, n_entries: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The rows in slices: design (rows, p), probabilities (M, K, rows), weights (M or 1, 1, rows).

    ``n_entries`` is how many numbers a row becomes in what is made of it.
    """
    for rows in row_slices(objective.data.n_rows, n_entries):
        design = objective.data.design(rows)  # (rows, p)
        yield design, objective.curvature_proba(theta @ design.T), objective.weights[:, None, rows].to(design)
