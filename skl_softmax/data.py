"""X behind the few products that an objective needs.

The solvers never see X. They see sums over rows of the *standardised design*

    x̃_i = ((x_i - mean) / scale, 1),        p = d + 1 columns,

and the objective asks of each block of rows only three products with it: logits, pullback and gram.
The parameters that belong to x̃ are θ = (W * scale, b + W mean), an exact change of variables: F does not
change, only its conditioning does. Without an intercept there is no last column and the mean is zero.

X is never copied as a whole: a block is centred, scaled and widened while it is in cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# A block of the design this large stays in the cache of one core (measured on 200,000 x 50: 2 to 8 MB
# make no difference, 16 MB and more cost 10 to 30 %).
BLOCK_BYTES = 4 * 2**20
# Weighted copies of a block that a Gram product may hold at once.
GRAM_BYTES = 32 * 2**20


@dataclass(frozen=True)
class DenseBlock:
    """Consecutive rows of the design, with the products that a sum over rows is made of."""

    rows: slice
    design: Tensor  # (rows, p)

    def logits(self, theta: Tensor) -> Tensor:
        """θ x̃_i for each row i; ``theta`` is (q, p)."""
        return theta @ self.design.T  # (q, rows)

    def pullback(self, residual: Tensor) -> Tensor:
        """Σ_i r_i x̃_i, the transpose of `logits`; ``residual`` is (q, rows)."""
        return residual @ self.design  # (q, p)

    def squared_norms(self) -> Tensor:
        """‖x̃_i‖² of each row."""
        return self.design.square().sum(dim=1)  # (rows,)

    def gram(self, weights: Tensor) -> Tensor:
        """Σ_i w_ji x̃_i x̃_iᵀ for each weighting j; ``weights`` is (q, rows)."""
        n_columns = self.design.shape[1]
        stride = max(1, GRAM_BYTES // (self.design.element_size() * self.design.numel()))
        products = [
            (part[:, None, :] * self.design.T).flatten(0, 1) @ self.design  # (part * p, p)
            for part in weights.split(stride)
        ]
        return torch.cat(products).view(-1, n_columns, n_columns)  # (q, p, p)


@dataclass(frozen=True)
class DenseData:
    """Dense X in memory, as blocks of its standardised design.

    Parameters
    ----------
    X : Tensor of shape (n, d)
        The rows as the user gave them, float32 or float64. Never written to.
    mean, scale : Tensor of shape (d,), in ``dtype``
        What the columns are centred by and divided by.
    fit_intercept : bool
        Whether the design ends with a column of ones.
    dtype : torch.dtype
        The type in which products are computed and accumulated.
    """

    X: Tensor
    mean: Tensor
    scale: Tensor
    fit_intercept: bool
    dtype: torch.dtype

    @classmethod
    def standardised(cls, X: Tensor, fit_intercept: bool) -> "DenseData":
        """Centre (if there is an intercept to absorb it) and scale each column to max |x̃| = 1, in float64.

        The scale is the largest deviation and not the standard deviation: squares of deviations
        overflow or vanish for columns beyond 1e±154, and Cholesky factors do not mind the difference.
        """
        raw = cls.raw(X, fit_intercept, torch.float64)
        mean = raw._column_mean() if fit_intercept else raw.mean
        largest = torch.zeros_like(mean)
        for _, x in raw._raw_blocks():
            low, high = torch.aminmax(x, dim=0)
            largest = torch.maximum(largest, torch.maximum(high - mean, mean - low))
        scale = torch.where(largest > 0, largest, 1.0)
        return replace(raw, mean=mean, scale=scale)

    @classmethod
    def raw(cls, X: Tensor, fit_intercept: bool, dtype: torch.dtype) -> "DenseData":
        """The columns as they are: the coordinates in which plain gradient descent is defined."""
        n_features = X.shape[1]
        return cls(X, X.new_zeros(n_features, dtype=dtype), X.new_ones(n_features, dtype=dtype), fit_intercept, dtype)

    @property
    def n_rows(self) -> int:
        return self.X.shape[0]

    @property
    def n_columns(self) -> int:
        """Number of columns of the design, p."""
        return self.X.shape[1] + self.fit_intercept

    def blocks(self) -> Iterator[DenseBlock]:
        """The design, block after block, in the order of the rows."""
        n_features = self.X.shape[1]
        for rows, x in self._raw_blocks():
            design = torch.empty(len(x), self.n_columns, dtype=self.dtype)  # (rows, p)
            torch.sub(x, self.mean, out=design[:, :n_features]).div_(self.scale)
            design[:, n_features:] = 1.0
            yield DenseBlock(rows, design)

    def take(self, index: Tensor) -> "DenseData":
        """A copy of the rows ``index``, in the same coordinates."""
        return replace(self, X=self.X[index])

    def penalty_scale(self) -> Tensor:
        """What ½‖W‖² becomes in θ: ½ Σ_j θ_j² penalty_scale_j; zero for the intercept."""
        scale = self.scale.square().reciprocal()
        return torch.cat([scale, scale.new_zeros(int(self.fit_intercept))])  # (p,)

    def to_theta(self, weight: Tensor, bias: Tensor) -> Tensor:
        """θ from weight (..., K, d) and bias (..., K) of X as the user gave it."""
        weight, bias = weight.to(self.dtype), bias.to(self.dtype)
        theta = weight * self.scale
        if not self.fit_intercept:
            return theta  # (..., K, p)
        return torch.cat([theta, (bias + weight @ self.mean)[..., None]], dim=-1)  # (..., K, p)

    def from_theta(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Weight (..., K, d) and bias (..., K) of X as the user gave it, from θ (..., K, p)."""
        weight = theta[..., : self.X.shape[1]] / self.scale  # (..., K, d)
        if not self.fit_intercept:
            return weight, weight.new_zeros(weight.shape[:-1])
        return weight, theta[..., -1] - weight @ self.mean  # (..., K, d), (..., K)

    def _raw_blocks(self) -> Iterator[tuple[slice, Tensor]]:
        stride = max(1, BLOCK_BYTES // (self.n_columns * self.dtype.itemsize))
        for start in range(0, self.n_rows, stride):
            rows = slice(start, start + stride)
            yield rows, self.X[rows]

    def _column_mean(self) -> Tensor:
        # Measured from the first row, so that the mean of a constant column is exactly its value.
        first = self.X[0].to(self.dtype)
        total = torch.zeros_like(first)
        for _, x in self._raw_blocks():
            total += (x - first).sum(dim=0)
        return first + total / self.n_rows  # (d,)
