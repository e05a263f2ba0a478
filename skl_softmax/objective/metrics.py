"""Models of the curvature of F: the metrics in which quasi-Newton steps are taken.

A metric is an approximate inverse of the Hessian at some θ. What it costs and how good it is differ:

- ``dense``: the Hessian of a sample of rows, factored. Newton's method if the sample is all rows. Of many parameters it
  is made only where as many passes as it costs have not been enough. Byrd, Chin, Neveitt & Nocedal (2011), "On the use
  of stochastic Hessian information in optimization methods for machine learning".
- ``kronecker``: (class covariance of p) ⊗ (Gram matrix of x̃ weighted by 1 - Σ_k p_k²) + penalty, diagonalised. At θ = 0
  it is the Hessian, and takes a Cholesky factor. In the manner of Martens & Grosse (2015), "Optimizing neural networks
  with Kronecker-factored approximate curvature".
- ``class by class``: the Hessian's blocks on the diagonal, one for each class, from rows drawn for each. Near the
  minimum it takes a half to a quarter of the iterations of the Kronecker metric, elsewhere no fewer.
- ``diagonal``: the diagonal of the Hessian. The only one that sparse X with many columns allows. Numbers beside them
  have blocks, one for each class, from a sample of rows.

`make_metric` chooses by counts of operations. Shapes as in `skl_softmax.objective`: θ is (M, K, p).
"""

from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from skl_softmax.objective.absent import mean_of_present
from skl_softmax.objective.costs import (
    DENSE_LIMIT,
    GRAM_LIMIT,
    ROWS_PER_COLUMN,
    class_seconds,
    correlations_pay,
    dense_rows,
    dense_seconds,
    factors_fit,
    kronecker_seconds,
    pass_seconds,
    rows_at_zero,
)
from skl_softmax.objective.curvature import (
    Inverse,
    class_covariance,
    complement,
    design_slices,
    diagonal,
    factorise,
    inverse_hessian,
    solve_by_factor,
)
from skl_softmax.products import times_transposed

# What the factors of all classes may take, and the rows, with what they weigh, that those for them are drawn from.
CLASS_BYTES, CANDIDATE_BYTES = 256 * 2**20, 64 * 2**20
# What Hessians may take that are made where passes by a rough metric have cost as much. Of nine hard tables of 40
# classes, with heavy tails and C from 7 to 1e6, three had not converged after 1,000 iterations, and take 213 to 404 so.
LATE_BYTES = 128 * 2**20
# Rows for each direction that a block of the metric by classes is taken from, if fewer do not have most of its
# curvature, and rows that each of them is drawn from at least, by what they add. With as many rows as columns blocks of
# 5,000 x 30 x 40 were noise, and took 89 passes for 17; with four times as many wherever rows had curvature, embeddings
# with C=1, of 512 columns and 90 directions, took twice the time. With fewer than columns a table of 664 x 414 with 8
# classes took 320 passes for 60.
ROWS_PER_DIRECTION, CANDIDATES_PER_ROW = 4, 4
# Columns up to which all classes are solved for in one call, which takes a tenth of the time with 20 to 60 columns and
# 0.4 of it with 200; with 257 to 800 it takes 0.7 to 1.5 times as long.
BATCHED_COLUMNS = 256
# Numbers beside sparse columns up to which blocks of their curvature are made, what these may take, and rows that they
# are taken from at least, and for each number. Of 50,000 rows with some 1,800 levels fits take a seventh of the passes
# so beside 20 numbers with two factors in common, beside 14 powers and products of four raw numbers 0.014 to 0.03,
# beside independent ones as many.
MOST_NUMBERS, NUMBERS_BYTES, NUMBERS_ROWS, ROWS_PER_NUMBER = 256, 64 * 2**20, 4096, 16
# Rows that tell whether classes have curvatures of their own, and K Σ_k p_k² from which on they have, 1 at θ = 0 and K
# where rows are certain of their class: half of the way, or this. With 2, rows of 60 columns and 20 classes that have
# nothing to do with them took 48 passes for 22, and told a tenth of their gaps; with 3 two tables of 60 classes took
# three and five times as many.
SEEN_ROWS, UNEVEN = 256, 2.5


@dataclass(frozen=True)
class Metric:
    """An approximate inverse Hessian and what it took to make, in passes over the rows."""

    solve: Inverse
    price: float
    kind: str
    exact: bool  # whether it is the Hessian of all rows
    apart_price: float | None = None  # if it is one for all models: what one for each would cost
    near_price: float | None = None  # if there is a better one near the minimum: what that would cost
    dense_price: float | None = None  # if it is rough, and a dense one would fit: what that would cost
    is_kept: bool = False  # whether it was made for other penalties, and has cost nothing here

    @property
    def follows(self) -> bool:
        """Whether it becomes exact with more rows, so that it is worth making again wherever θ has moved."""
        return self.kind == "dense"

    @property
    def is_local(self) -> bool:
        """Whether it holds near the minimum only."""
        return self.kind == "class by class"

    def kept(self, numbers: Tensor) -> "Metric":
        """The same times a number (M,) each, for other penalties."""
        return replace(self, solve=self.solve.times(numbers), exact=False, is_kept=True)

    def select(self, models: Tensor) -> "Metric":
        """That of some of the models."""
        return replace(self, solve=self.solve.select(models)) if self.apart_price is None else self


def make_metric(
    objective, theta: Tensor, growth=1, is_near=False, dtype=torch.float32, passes=0.0, to_come=inf
) -> Metric:
    """The metric at θ that suits the sizes.

    For a family of models that of all of them together, if it knows correlations: sweeps over 22 tables with 0.6 to 5
    rows for each parameter take 0.24 to 0.93 of the time that they take with one for each model.

    A sample for a dense one has ``growth`` times as many rows as usual, and its products are in ``dtype`` where that
    will do. ``is_near`` says that θ is near the minimum, ``passes`` how many have led there, ``to_come`` how many are
    to come without a dense one.
    """
    dense_price = objective.n_models * dense_seconds(objective, growth) / pass_seconds(objective)
    kind = "dense" if _is_hard(objective, dense_price, passes) else _kind(objective, theta, dense_price, to_come)
    plan = _class_plan(objective, theta) if kind == "kronecker" else None
    if is_near and plan is not None:
        return metric_by_classes(objective, theta, plan)
    near_price = None if plan is None else plan.price
    may_be_dense = kind != "dense" and objective.n_parameters <= _dense_limit(objective)
    dense_price = dense_price if may_be_dense else None
    if objective.is_family and kind != "diagonal":
        pooled, mean = _pooled(objective, theta)
        one = make_metric(pooled, mean, growth, dtype=dtype, to_come=objective.n_models * to_come)
        price = one.price / objective.n_models
        apart = objective.n_models * _seconds(objective, kind, 1) / pass_seconds(objective)
        dense_price = None if one.dense_price is None else one.dense_price / objective.n_models
        known = {"apart_price": apart, "near_price": near_price, "dense_price": dense_price}
        return replace(one, price=price, exact=False, **known)
    solve = dense_metric(objective, theta, growth, dtype) if kind == "dense" else ROUGH_METRICS[kind](objective, theta)
    price = objective.n_models * _seconds(objective, kind, growth) / pass_seconds(objective)
    exact = kind == "dense" and dense_rows(objective, growth) == objective.data.n_rows
    return Metric(solve, price, kind, exact, near_price=near_price, dense_price=dense_price)


def _pooled(objective, theta: Tensor) -> tuple:
    """The objective that stands for all of a family, and the mean (1, K, p) of where they are."""
    pooled = objective.pooled()
    return pooled, pooled.without_absent(mean_of_present(objective.absent, theta))


def metric_by_classes(objective, theta: Tensor, plan: "ClassPlan") -> Metric:
    """One for all models of a family, that of all of them together at their mean; else one for each."""
    size = plan.n_rows, plan.n_candidates
    if objective.is_family:
        solve = class_metric(*_pooled(objective, theta), *size)
        return Metric(solve, plan.price, "class by class", exact=False, apart_price=objective.n_models * plan.price)
    models = torch.arange(objective.n_models).split(1)
    each = [class_metric(objective.select(model), theta[model], *size).factors[0] for model in models]
    solve = Inverse(_solve_by_class, (torch.cat(each),))
    return Metric(solve, plan.price, "class by class", exact=False)


def _kind(objective, theta: Tensor, dense_price: float, to_come: float) -> str:
    """The kind of metric at θ that suits the sizes."""
    pays = correlations_pay(objective)
    wins = dense_price <= to_come if theta.any() else dense_seconds(objective) <= 2 * kronecker_seconds(objective)
    if objective.n_parameters <= _dense_limit(objective) and wins and (pays or to_come < inf):
        return "dense"
    is_cheap = objective.data.n_columns <= GRAM_LIMIT and pays
    return "kronecker" if is_cheap and factors_fit(objective) else "diagonal"


def _dense_limit(objective) -> int:
    """Parameters up to which a dense metric is made: of one output it is a Gram matrix, and needs no eigenvectors."""
    return GRAM_LIMIT if objective.n_outputs == 1 and objective.data.is_dense else DENSE_LIMIT


def _is_hard(objective, dense_price: float, passes: float) -> bool:
    """Whether as many passes as a dense metric costs have not led to the minimum, and it fits."""
    fits = 8 * objective.n_models * objective.n_parameters**2 <= LATE_BYTES
    return fits and dense_price <= passes


class ClassPlan(NamedTuple):
    """What a metric by classes takes: its price in passes, rows for each class, and those that they are drawn from."""

    price: float
    n_rows: int
    n_candidates: int


def _class_plan(objective, theta: Tensor) -> ClassPlan | None:
    """That of a metric at θ, if it fits and dense rows choose among few of many classes, 1 / Σ_k p_k²."""
    n_columns, n_metrics = objective.data.n_columns, 1 if objective.is_family else objective.n_models
    n_bytes = 4 * n_metrics * objective.n_parameters * n_columns
    if not objective.data.is_dense or objective.n_outputs == 1 or n_bytes > CLASS_BYTES:
        return None
    n_rows, n_candidates = n_columns, min(objective.n_rows, _most_candidates(objective))
    if theta.any():  # else nothing is known yet
        is_uneven, telling, directions = _seen(objective.sample(SEEN_ROWS), theta)
        if not is_uneven:
            return None
        wanted = min(ROWS_PER_DIRECTION * directions, telling * objective.n_rows)
        n_rows = max(n_columns, round(wanted))
        n_candidates = int(min(n_candidates, CANDIDATES_PER_ROW * n_rows / telling))
    price = n_metrics * class_seconds(objective, n_rows, n_candidates) / pass_seconds(objective)
    return ClassPlan(price, n_rows, n_candidates)


def _seen(sample, theta: Tensor) -> tuple[bool, float, float]:
    """What some rows tell of the Hessian's blocks A_k = Σ_i q_ik x̃_i x̃_iᵀ, q_ik = s_i p_ik (1 - p_ik) / S, at θ.

    Whether classes have blocks of their own; the part of the rows that have most of one's curvature, (Σ_i q_ik)² / n
    Σ_i q_ik²; and how many directions it has more curvature in than the penalty, Σ_j A_kjj / (A_kjj + λ_j), which is no
    less than the effective dimension tr A_k (A_k + Λ)⁻¹. Of classes and models the means.
    """
    design = sample.data.design(slice(0, sample.n_rows))  # (n, p)
    proba = sample.curvature_proba(theta @ design.T)  # (M, K, n)
    is_uneven = proba.square().sum(dim=1).mean().item() * sample.n_outputs > min(UNEVEN, (1 + sample.n_outputs) / 2)
    mass = proba * complement(proba) * (sample.weights[:, None].to(design) / sample.total[:, None, None])  # (M, K, n)
    part = mass / mass.amax(dim=2, keepdim=True)  # (M, K, n), whose squares are not rounded to zero
    telling = part.sum(dim=2).square() / part.square().mean(dim=2) / sample.n_rows**2  # (M, K)
    curved = mass @ design.square()  # (M, K, p)
    directions = (curved / (curved + sample.column_l2)).nan_to_num(0.0).sum(dim=2)  # (M, K)
    return is_uneven, max(telling.nan_to_num(0.0).mean().item(), 1 / sample.n_rows), directions.mean().item()


def _most_candidates(objective) -> int:
    """Rows that those of a metric by classes are drawn from, as far as memory allows."""
    return max(1, CANDIDATE_BYTES // (4 * (objective.data.n_columns + 3 * objective.n_outputs)))


def _seconds(objective, kind: str, growth: int) -> float:
    """Estimated time of a metric of one model."""
    if kind == "dense":
        return dense_seconds(objective, growth)
    return kronecker_seconds(objective) if kind == "kronecker" else pass_seconds(objective)


def dense_metric(objective, theta: Tensor, growth: int = 1, dtype: torch.dtype = torch.float32) -> Inverse:
    """The inverse of the Hessian of a sample of rows, through its Cholesky factor, in ``dtype`` where that will do.

    In float32 it takes a quarter to a half of the time of float64.
    """
    sample = objective.sample(dense_rows(objective, growth))
    return inverse_hessian(sample, theta, dtype)


def kronecker_metric(objective, theta: Tensor) -> Inverse:
    """The inverse of M ⊗ G + I ⊗ D for a sample of rows: M class covariance, G weighted Gram matrix, D penalty.

    With the eigenvalues e of M and the generalised ones μ of (G, D), the matrix is diagonal with entries e μ + 1. At
    θ = 0, where it is the Hessian, it is made as that, which takes no eigenvalues, and of more rows.
    """
    if not theta.any():
        return inverse_hessian(objective.sample(rows_at_zero(objective)), theta, torch.float32)
    sample = objective.sample(ROWS_PER_COLUMN * objective.data.n_columns)
    n_models, n_outputs, n_columns = theta.shape
    classes = theta.new_zeros(n_models, n_outputs, n_outputs)
    grams = theta.new_zeros(n_models, n_columns, n_columns)
    for design, proba, weights in design_slices(sample, theta, n_columns + 3 * n_models * n_outputs):
        weighted = proba * weights  # (M, K, rows)
        classes += class_covariance(weighted, proba)
        spread = (weighted * complement(proba)).sum(dim=1).to(objective.dtype)  # (M, rows), traces of class covariances
        # In float32 a third of the time or less, and near enough for a rough metric.
        columns = design.to(objective.dtype).T.contiguous()  # (p, rows)
        grams += times_transposed((spread[:, None] * columns).flatten(0, 1), columns).view_as(grams)
    mean_spread = classes.diagonal(dim1=1, dim2=2).sum(dim=1)  # (M,)
    # Where every row is certain of its class there are none, and the penalty is all that is left.
    grams /= torch.where(mean_spread > 0, mean_spread, 1.0)[:, None, None]
    values, vectors = torch.linalg.eigh(classes / sample.total[:, None, None])  # (M, K), (M, K, K)
    # A column without a penalty gets a tiny one, so that D can be divided by.
    penalty = objective.column_l2[:, 0] + 1e-9 * grams.diagonal(dim1=1, dim2=2)  # (M, p)
    unit = torch.where(penalty > 0, penalty.rsqrt(), 0.0)  # a column of zeros, unpenalised, is left alone
    mu, basis = torch.linalg.eigh(unit[:, :, None] * grams * unit[:, None])  # (M, p), (M, p, p)
    basis = unit[:, :, None] * basis
    inverse = 1 / (values[:, :, None].clamp_min(0) * mu[:, None].clamp_min(0) + 1)  # (M, K, p)
    return Inverse(_rotate_and_scale, (vectors, basis, inverse))


def _rotate_and_scale(vector: Tensor, vectors: Tensor, basis: Tensor, scale: Tensor) -> Tensor:
    """U (Uᵀ v B ∘ scale) Bᵀ for U (M, K, K), B (M, p, p), scale (M, K, p)."""
    return (vectors @ ((vectors.mT @ vector.double() @ basis) * scale) @ basis.mT).to(vector)


def class_metric(objective, theta: Tensor, n_rows: int, n_candidates: int) -> Inverse:
    """The inverses of the Hessian's diagonal blocks, one for each class, of one model, through Cholesky factors.

    A_k = Σ_i q_ik x̃_i x̃_iᵀ + penalty, q_ik = s_i p_ik (1 - p_ik) / S, is estimated from m of the candidates, drawn one
    by one for each class with probabilities π_ik = min(1, q_ik / τ_k) and weighted by 1 / π_ik, that is, by
    max(q_ik, τ_k) in all: where classes are told apart, few rows have any curvature, and these are all drawn.
    In float32. What would be added to all classes alike, which F does not see, is left out on both sides.

    Takes 2 K m p² operations for the blocks and K p³ / 3 for the factors, and the memory of these. Rows that are drawn
    by what they add to a Hessian: Xu, Yang, Roosta-Khorasani, Ré & Mahoney (2016), "Sub-sampled Newton methods with
    non-uniform sampling".
    """
    n_columns = objective.data.n_columns
    candidates = objective.sample(n_candidates)
    designs, masses = [], []
    for design, proba, weights in design_slices(candidates, theta, n_columns + 3 * objective.n_outputs):
        designs.append(design.float())
        masses.append((proba * complement(proba) * (weights / candidates.total[:, None, None]))[0].float())
    design, mass = torch.cat(designs), torch.cat(masses, dim=1)  # (n, p), (K, n)
    drawn, shares = draw_columns(mass, n_rows)
    penalty = objective.column_l2[0, 0].float()  # (p,)
    factors = design.new_empty(1, objective.n_outputs, n_columns, n_columns)  # (1, K, p, p)
    for k in range(objective.n_outputs):
        index = drawn[k].nonzero()[:, 0]
        rows = design.index_select(0, index).mul_(shares[k, index].sqrt()[:, None])  # (about m, p)
        columns = rows.T.contiguous()
        block = times_transposed(columns, columns)
        block.diagonal().add_(penalty)
        factors[0, k] = factorise(block)
    return Inverse(_solve_by_class, (factors,))


def draw_columns(mass: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """About ``size`` of the columns of each row (K, n) of masses >= 0, and the weights that make up for the others.

    Which (bool) and weights, both (K, n): the largest masses surely, the others as systematic sampling has it (Madow
    1949, "On the theory of systematic sampling, II"). The drawn weights of a row add up to its masses, but for one of
    them at most.
    """
    top = mass.topk(min(size, mass.shape[1]), dim=1).values.double()
    left = mass.sum(dim=1, keepdim=True, dtype=torch.float64) - top.cumsum(dim=1) + top  # without the largest 0, 1, ...
    thresholds = left.clamp_min(0) / (size - torch.arange(top.shape[1], device=top.device))
    n_sure = (top > thresholds).long().cumprod(dim=1).sum(dim=1, keepdim=True)
    threshold = thresholds.gather(1, n_sure.clamp_max(top.shape[1] - 1))  # (K, 1)
    shares = (mass / threshold).nan_to_num_().clamp_max_(1)
    ends = (shares.cumsum(dim=1) + 0.5).floor_()
    drawn = torch.diff(ends, dim=1, prepend=ends.new_zeros(len(ends), 1)) > 0
    return drawn, torch.maximum(mass, threshold.to(mass.dtype))


def _solve_by_class(vector: Tensor, factors: Tensor) -> Tensor:
    """Solutions (M, K, p) by factors (M or 1, K, p, p), less the mean over classes before and after."""
    right = (vector - vector.mean(dim=1, keepdim=True)).to(factors.dtype)  # (M, K, p)
    right = right.permute(1, 2, 0)[None] if len(factors) == 1 else right[..., None]  # (1 or M, K, p, M or 1)
    if factors.shape[3] <= BATCHED_COLUMNS:
        solution = solve_by_factor(factors, right)
    else:
        pairs = zip(factors.flatten(0, 1), right.flatten(0, 1), strict=True)
        solution = torch.stack([solve_by_factor(*pair) for pair in pairs]).view_as(right)
    solution = solution[0].permute(2, 0, 1) if len(factors) == 1 else solution[..., 0]  # (M, K, p)
    solution = solution.to(vector.dtype)
    return solution - solution.mean(dim=1, keepdim=True)


def diagonal_metric(objective, theta: Tensor) -> Inverse:
    """The inverse of the diagonal of the Hessian."""
    return inverse_of_diagonal(objective, diagonal(objective, theta))


def inverse_of_diagonal(objective, curved: Tensor) -> Inverse:
    """The inverse of a diagonal (M, K, p) of the Hessian."""
    # Where all rows are told apart, what an intercept's curvature has left is rounding, and its inverse no number.
    seen = torch.finfo(objective.dtype).eps * objective.diagonal_bound  # (M, 1, p)
    curved = torch.where(objective.unpenalised, torch.maximum(curved, seen), curved)
    # A column of zeros, unpenalised, is left alone.
    inverse = torch.where(curved > 0, 1 / curved, 0.0).to(objective.dtype)
    return Inverse(torch.mul, (inverse,))


def diagonal_with_numbers(objective, theta: Tensor) -> Inverse:
    """The inverse of the diagonal of the Hessian, of numbers beside sparse columns of blocks."""
    return with_numbers(objective, theta, diagonal_metric(objective, theta))


def with_numbers(objective, theta: Tensor, diagonal: Inverse) -> Inverse:
    """An inverse diagonal, for numbers beside sparse columns the inverses of blocks of the Hessian, one for each class.

    A_k = Σ_i q_ik x̃_i x̃_iᵀ + penalty, q_ik = s_i p_ik (1 - p_ik) / S, over a sample of rows and these columns, scaled
    to the diagonal, which is of more rows: of a class that the sample lacks it would be the penalty.
    """
    numbers = objective.data.numbers
    n_models, n_outputs, _ = theta.shape
    if numbers is None or not _blocks_fit(len(numbers), n_models * n_outputs):
        return diagonal
    sample = objective.sample(NUMBERS_ROWS + ROWS_PER_NUMBER * len(numbers))
    proba = sample.row_proba(theta)  # (M, K, rows)
    mass = proba * complement(proba) * sample.weights[:, None].to(proba) / sample.total[:, None, None]  # (M, K, rows)
    design = sample.data.design(slice(0, sample.n_rows), numbers)  # (rows, f)
    blocks = torch.stack([(design.T * q) @ design for q in mass.double().flatten(0, 1)])  # (M K, f, f)
    penalty = torch.diag_embed(objective.column_l2[:, :, numbers])  # (M, 1, f, f)
    blocks = blocks.unflatten(0, (n_models, n_outputs)) + penalty  # (M, K, f, f)
    unit = blocks.diagonal(dim1=2, dim2=3).rsqrt().nan_to_num(posinf=0.0)  # (M, K, f)
    blocks *= unit[..., None] * unit[..., None, :]
    blocks.diagonal(dim1=2, dim2=3).fill_(1.0)
    factors = factorise(blocks)  # (M, K, f, f)
    places = numbers.expand(n_models, -1)  # (M, f)
    return replace(diagonal, product=_scale_and_solve, factors=(*diagonal.factors, factors, places))


def _blocks_fit(n_numbers: int, n_blocks: int) -> bool:
    return 1 < n_numbers <= MOST_NUMBERS and 8 * n_blocks * n_numbers**2 <= NUMBERS_BYTES


def _scale_and_solve(vector: Tensor, scale: Tensor, factors: Tensor, places: Tensor) -> Tensor:
    """A vector times a scale D, (M, K, p), but √D R⁻¹ √D of it by factors of R (M, K, f, f) at these places (M, f)."""
    result, numbers = vector * scale, places[0]
    root = scale[..., numbers].to(factors.dtype).sqrt()  # (M, K, f)
    part = solve_by_factor(factors, (root * vector[..., numbers])[..., None])[..., 0]  # (M, K, f)
    result[..., numbers] = (root * part).to(result)
    return result


def bounded_diagonal(objective, inverse: Inverse) -> tuple[Inverse, Tensor]:
    """An inverse diagonal D⁻¹ with more for intercepts, and the least eigenvalue that the Hessian can have in it, (M,).

    That is half the least λ_j / D_j, or zero without a penalty. With rows of r entries and one output the loss has the
    curvature q = Σ s (x w + b)² along (w, b), and that of the intercept, D_b b² = Σ s b², is at most
    (√q + √(r Σ D_j w_j²))². As columns may add up to a constant, as those of r categories do, q may vanish, and the
    penalty of w alone would have to make up for D_b: the least eigenvalue could be r times less. With D_b / (1 + r) in
    its place it cannot. For more classes, rows of r entries in the mean and a diagonal of another θ that is a rule and
    no proof. One-hot columns of 5 to 40 categories took a third of the products so, before their `NullSpace` was
    known, and sparse text with C=100 takes 0.8. For blocks √D R √D it is divided by the largest
    eigenvalue of R.
    """
    scale, *blocks = inverse.factors  # (M, K, p)
    l2, multiple = objective.column_l2, 1.0 if inverse.multiple is None else inverse.multiple.to(scale)  # (M, 1, p)
    held = torch.where(l2 > 0, l2 * scale, torch.inf)  # (M, K, p)
    if blocks:
        factors, numbers = blocks[0], blocks[1][0]
        held[..., numbers] /= _largest(factors).to(held)
    least = 0.5 * multiple * held.flatten(1).amin(dim=1)  # (M,)
    is_known = least.isfinite()  # (M,), with a penalty
    is_intercept = objective.unpenalised & is_known[:, None, None]  # (M, 1, p)
    times = torch.where(is_intercept, 1 + objective.data.row_length, 1.0).to(scale)  # (M, 1, p)
    return replace(inverse, factors=(times * scale, *blocks)), torch.where(is_known, least, 0.0)


def _largest(factors: Tensor) -> Tensor:
    """What the eigenvalues of matrices with these factors (M, K, f, f) are at most, (M, K, 1): a sum over a row."""
    return (factors @ factors.mT).abs().sum(dim=3).amax(dim=2, keepdim=True)


# Metrics that do not become exact with more rows.
ROUGH_METRICS = {"kronecker": kronecker_metric, "diagonal": diagonal_with_numbers}
