"""Dense X with fewer rows than columns."""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from skl_softmax.data.dense import DenseData

# How many times the spread of a column another's may be. A row is rotated with an error of eps times its length, which
# the column feels as 1e-10 of itself.
MOST_UNEVEN = 1e5


@dataclass(frozen=True)
class SpanData(DenseData):
    """Rows x_i by their coordinates in the space that they span: x_i - centre = Q r_i, r_i the rows of ``X``.

    What of W lies outside of that space moves no logit: with an L2 penalty there is none of it at the minimum, without
    a penalty there need be none. The columns of Q (d, n) are orthonormal, so that ‖W‖ is the norm of the coefficients V
    of r: W = V Qᵀ. That is F itself, of n columns instead of d. Hastie & Tibshirani (2004), "Efficient quadratic
    regularization for expression arrays".

    Q is kept as Householder reflectors, which takes as much as X in float64 and 2 n² d operations; a product with it
    takes as long as one with X.
    """

    centre: Tensor | None = None  # (d,), zero without an intercept
    reflectors: Tensor | None = None  # (d, n)
    factors: Tensor | None = None  # (n,)

    rotates: ClassVar[bool] = True

    @classmethod
    def rotated(cls, data: DenseData) -> DenseData:
        """Those of ``data`` in their span, or as they are where rounding would not leave all columns their digits."""
        x = data.X.to(data.home).double() - data.mean  # (n, d)
        sizes = x.norm(float("inf"), dim=0)  # (d,)
        sizes = sizes[sizes != 0]
        if not (len(sizes) and sizes.max() <= MOST_UNEVEN * sizes.min()):
            return data
        reflectors, factors = x.T, x.new_empty(len(x))
        torch.geqrf(reflectors, out=(reflectors, factors))  # in its place
        rows = x[:, : len(x)].tril()  # (n, n)
        own = rows.diagonal()  # (n,), what a row has that those before it do not give
        own[own.abs() <= len(x) * torch.finfo(own.dtype).eps * rows.norm(dim=1)] = 0.0  # nothing but rounding
        inner = DenseData.standardised(rows, data.fit_intercept)
        known = {field.name: getattr(inner, field.name) for field in fields(inner)}
        return cls(**known, centre=data.mean, reflectors=reflectors, factors=factors)

    def to_theta(self, weight: Tensor, bias: Tensor) -> Tensor:
        weight, bias = weight.double().to(self.home), bias.double().to(self.home)
        turned = self._turn(weight, transpose=True)[..., : self.X.shape[1]]  # (..., K, n)
        return super().to_theta(turned, bias + weight @ self.centre)

    def from_theta(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        turned, bias = super().from_theta(theta)  # (..., K, n), (..., K)
        padded = torch.zeros(*turned.shape[:-1], len(self.centre), dtype=turned.dtype, device=turned.device)
        padded[..., : turned.shape[-1]] = turned
        weight = self._turn(padded)  # (..., K, d)
        return weight, bias - weight @ self.centre

    def _turn(self, weight: Tensor, transpose: bool = False) -> Tensor:
        """Q times the vectors (..., d), or its transpose, Q being completed to a basis of all."""
        turned = torch.ormqr(self.reflectors, self.factors, weight.reshape(-1, weight.shape[-1]).T, transpose=transpose)
        return turned.T.reshape(weight.shape)
