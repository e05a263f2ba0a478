"""Models of the curvature of F: the metrics in which quasi-Newton steps are taken.

A metric is an approximate inverse of the Hessian at some θ. What it costs and how good it is differ:

- ``dense``: the Hessian of a sample of rows, factored. Newton's method if the sample is all rows. Byrd, Chin, Neveitt &
  Nocedal (2011), "On the use of stochastic Hessian information in optimization methods for machine learning".
- ``kronecker``: (class covariance of p) ⊗ (Gram matrix of x̃ weighted by 1 - Σ_k p_k²) + penalty, diagonalised. Exact at
  θ = 0. In the manner of Martens & Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
  curvature".
- ``diagonal``: the diagonal of the Hessian. The only one that sparse X with many columns allows.

`make_metric` chooses by counts of operations. Shapes as in `skl_softmax.objective`: θ is (M, K, p).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skl_softmax.costs import (
    DENSE_LIMIT,
    GRAM_LIMIT,
    ROWS_PER_COLUMN,
    ROWS_PER_PARAMETER,
    dense_rows,
    dense_seconds,
    kronecker_seconds,
    pass_seconds,
)
from skl_softmax.curvature import Inverse, class_covariance, diagonal, hessian, inverse, samples


@dataclass(frozen=True)
class Metric:
    """An approximate inverse Hessian and what it took to make, in passes over the rows."""

    solve: Inverse
    price: float
    kind: str
    exact: bool  # whether it is the Hessian of all rows
    follows: bool  # whether it becomes exact with more rows, so that it is worth making again wherever θ has moved
    apart_price: float | None = None  # if it is one for all models: what one for each would cost

    def select(self, models: Tensor) -> "Metric":
        """That of some of the models."""
        return replace(self, solve=self.solve.select(models)) if self.apart_price is None else self


def make_metric(objective, theta: Tensor, growth: int = 1) -> Metric:
    """The metric at θ that suits the sizes; for a family of models that of all of them together, if rows abound.

    A sample for a dense one has ``growth`` times as many rows as usual.
    """
    n_models = objective.n_models
    if objective.is_family and objective.n_rows >= ROWS_PER_PARAMETER * objective.n_parameters:
        one = make_metric(objective.pooled(), theta.mean(dim=0, keepdim=True), growth)
        apart = n_models * _choice(objective, False)[1] / pass_seconds(objective)
        return replace(one, price=one.price / n_models, exact=False, apart_price=apart)
    kind, seconds = _choice(objective, not theta.any(), growth)
    if kind == "dense":
        solve = dense_metric(objective, theta, growth)
    else:
        solve = (kronecker_metric if kind == "kronecker" else diagonal_metric)(objective, theta)
    exact = kind == "dense" and dense_rows(objective, growth) == objective.data.n_rows
    return Metric(solve, n_models * seconds / pass_seconds(objective), kind, exact, kind == "dense")


def _choice(objective, is_zero: bool, growth: int = 1) -> tuple[str, float]:
    """The kind of metric that suits the sizes, at a θ that is zero or not, and its time for one model."""
    n_parameters, n_columns = objective.n_parameters, objective.data.n_columns
    dense_wins = not is_zero or dense_seconds(objective) <= 2 * kronecker_seconds(objective)
    if n_parameters <= DENSE_LIMIT and dense_wins:
        return "dense", dense_seconds(objective, growth)
    if n_columns <= GRAM_LIMIT and objective.data.centres:
        return "kronecker", kronecker_seconds(objective)
    return "diagonal", pass_seconds(objective)


def dense_metric(objective, theta: Tensor, growth: int = 1) -> Inverse:
    """The inverse of the Hessian of a sample of rows, through its Cholesky factor."""
    return inverse(hessian(objective.sample(dense_rows(objective, growth)), theta))


def kronecker_metric(objective, theta: Tensor) -> Inverse:
    """The inverse of M ⊗ G + I ⊗ D for a sample of rows: M class covariance, G weighted Gram matrix, D penalty.

    With the eigenvalues e of M and the generalised ones μ of (G, D), the matrix is diagonal with entries e μ + 1.
    """
    sample = objective.sample(ROWS_PER_COLUMN * objective.data.n_columns)
    n_models, n_outputs, n_columns = theta.shape
    classes = theta.new_zeros(n_models, n_outputs, n_outputs)
    grams = theta.new_zeros(n_models, n_columns, n_columns)
    for design, proba, weights in samples(sample, theta, n_columns + 3 * n_models * n_outputs):
        weighted = proba * weights  # (M, K, rows)
        classes += class_covariance(weighted, proba)
        spread = (weighted * (1 - proba)).sum(dim=1).to(objective.dtype)  # (M, rows), traces of class covariances
        narrow = design.to(objective.dtype)  # in float32 half the time, and near enough for a rough metric
        grams += (spread[:, None] * narrow.T) @ narrow
    mean_spread = classes.diagonal(dim1=1, dim2=2).sum(dim=1)  # (M,)
    grams /= mean_spread[:, None, None]
    values, vectors = torch.linalg.eigh(classes / sample.total[:, None, None])  # (M, K), (M, K, K)
    # A column without a penalty gets a tiny one, so that D can be divided by.
    penalty = objective.quadratic[:, 0] + 1e-9 * grams.diagonal(dim1=1, dim2=2)  # (M, p)
    unit = torch.where(penalty > 0, penalty.rsqrt(), 0.0)  # a column of zeros, unpenalised, is left alone
    mu, basis = torch.linalg.eigh(unit[:, :, None] * grams * unit[:, None])  # (M, p), (M, p, p)
    basis = unit[:, :, None] * basis
    inverse = 1 / (values[:, :, None].clamp_min(0) * mu[:, None].clamp_min(0) + 1)  # (M, K, p)
    return Inverse(_rotate_and_scale, (vectors, basis, inverse))


def _rotate_and_scale(vector: Tensor, vectors: Tensor, basis: Tensor, scale: Tensor) -> Tensor:
    """U (Uᵀ v B ∘ scale) Bᵀ for U (M, K, K), B (M, p, p), scale (M, K, p)."""
    return (vectors @ ((vectors.mT @ vector.double() @ basis) * scale) @ basis.mT).to(vector)


def diagonal_metric(objective, theta: Tensor) -> Inverse:
    """The inverse of the diagonal of the Hessian."""
    curved = diagonal(objective, theta)  # (M, K, p)
    # A column of zeros, unpenalised, is left alone.
    inverse = torch.where(curved > 0, 1 / curved, 0.0).to(objective.dtype)
    return Inverse(torch.mul, (inverse,))
