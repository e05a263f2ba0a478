"""Dense X with fewer rows than columns."""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from skl_softmax.data.dense import DenseData

# The largest error of a column in the rotated rows, in units of the column's size.
MOST_ERROR = 1e-10


@dataclass(frozen=True)
class SpanData(DenseData):
    """Rows x_i by their coordinates in the space that they span: x_i - centre = Q r_i, r_i the rows of ``X``.

    What of W lies outside of that space moves no logit: with an L2 penalty there is none of it at the minimum, without
    a penalty there need be none. The columns of Q (d, n) are orthonormal, so that ‖W‖ is the norm of the coefficients V
    of r: W = V Qᵀ. That is F itself, of n columns instead of d. Hastie & Tibshirani (2004), "Efficient quadratic
    regularization for expression arrays".

    Q is kept as Householder reflectors, which takes as much as X in float64 and 2 n² d operations; a product with it
    takes as long as one with X. Reflectors of columns in the order of their size leave each column its own digits, not
    those of the largest: Cox & Higham (1998), "Stability of Householder QR factorization for weighted least squares
    problems". With sizes 1e12 apart errors fall from 3e-3 of a column to 1e-12.
    """

    centre: Tensor | None = None  # (d,), zero without an intercept
    order: Tensor | None = None  # (d,), of the columns in Q
    reflectors: Tensor | None = None  # (d, n)
    factors: Tensor | None = None  # (n,)

    rotates: ClassVar[bool] = True

    @classmethod
    def rotated(cls, data: DenseData) -> DenseData:
        """Those of ``data`` in their span, or as they are where rounding would not leave all columns their digits."""
        order = _sizes(data.X, data.mean).argsort(descending=True)  # (d,)
        x = data.X[:, order].to(data.home).double()  # (n, d)
        x -= data.mean[order]
        sizes, signs = x.norm(float("inf"), dim=0), _signs(len(x)).to(x)  # (d,), (n,)
        sums = signs @ x  # (d,)
        if not sizes.any():
            return data
        reflectors, factors = x.T, x.new_empty(len(x))
        torch.geqrf(reflectors, out=(reflectors, factors))  # in its place
        rows = x[:, : len(x)].tril()  # (n, n)
        errors = (_turn(reflectors, factors, _padded(signs @ rows, len(sizes))) - sums).abs()  # (d,)
        if (errors > MOST_ERROR * len(x) ** 0.5 * sizes).any():
            return data
        _drop_rounding(rows, sizes)
        inner = DenseData.standardised(rows, data.fit_intercept)
        known = {field.name: getattr(inner, field.name) for field in fields(inner)}
        return cls(**known, centre=data.mean, order=order, reflectors=reflectors, factors=factors)

    @property
    def offset(self) -> Tensor:
        return self.centre

    @property
    def outlying(self) -> Tensor:
        """None: each column has a large entry, the first row that it is there for."""
        return torch.zeros(self.n_columns, dtype=torch.bool, device=self.home)

    def to_theta(self, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.double().to(self.home), bias.double().to(self.home)
        turned = _turn(self.reflectors, self.factors, weight[..., self.order], transpose=True)  # (..., K, d)
        return super().to_theta(turned[..., : self.X.shape[1]], bias + weight @ self.centre)

    def from_theta(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        turned, bias = super().from_theta(theta)  # (..., K, n), (..., K)
        turned = _turn(self.reflectors, self.factors, _padded(turned, len(self.order)))  # (..., K, d)
        weight = torch.empty_like(turned)
        weight[..., self.order] = turned
        return weight, bias - weight @ self.centre


def _turn(reflectors: Tensor, factors: Tensor, vectors: Tensor, transpose: bool = False) -> Tensor:
    """Q times the vectors (..., d), or its transpose, Q being completed to a basis of all."""
    turned = torch.ormqr(reflectors, factors, vectors.reshape(-1, vectors.shape[-1]).T, transpose=transpose)
    return turned.T.reshape(vectors.shape)


def _padded(vectors: Tensor, n_columns: int) -> Tensor:
    """With zeros to the length that Q has."""
    return torch.nn.functional.pad(vectors, (0, n_columns - vectors.shape[-1]))


def _sizes(X: Tensor, mean: Tensor) -> Tensor:
    """How far the columns go from their mean, (d,)."""
    lowest, highest = X.amin(dim=0).to(mean), X.amax(dim=0).to(mean)
    return torch.maximum(highest - mean, mean - lowest)


def _signs(n_rows: int) -> Tensor:
    """What rows are added up by to see errors of any."""
    return 2.0 * torch.randint(2, (n_rows,), generator=torch.Generator().manual_seed(0), device="cpu") - 1


def _drop_rounding(rows: Tensor, sizes: Tensor) -> None:
    """Zero what a row (n, n) has that those before it do not give, where that is rounding of what is left of it.

    That is what the columns, of these ``sizes`` (d,), from its own place on have.
    """
    unit = sizes.max()  # squares may overflow
    left = (sizes / unit).square().flip(0).cumsum(0).flip(0)[: len(rows)].sqrt() * unit  # (n,)
    own = rows.diagonal()  # (n,)
    own[own.abs() <= len(rows) * torch.finfo(own.dtype).eps * left] = 0.0
