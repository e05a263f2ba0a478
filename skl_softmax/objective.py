"""The objective of penalised softmax regression, its gradient and its curvature.

With rows x_i, classes y_i, weights s_i, S = Σ s_i, logits z_i = W x_i + b:

    F(W, b) = (1/S) Σ s_i ℓ(y_i, z_i)  +  λ/2 ‖W‖²_F,        λ = 1/(C S)

ℓ is softmax cross-entropy over K outputs, or, for two classes, binary cross-entropy of the sigmoid of one output.

Everything here works on a stack of M models over one X, because sweeps over C and folds solve many at
once; a single fit is M = 1. Shapes, throughout:

    theta, gradient, direction   (M, K, p)     K outputs, p columns of the design (`skl_softmax.data`)
    logits, residual             (M, K, rows)  classes before rows: log_softmax over the first of them is 7x faster
    value, penalty, total        (M,)
    weights                      (M or 1, n)
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf, log

import torch
from torch import Tensor
from torch.nn import functional

from skl_softmax.data import DenseData

# A Cholesky factorisation that fails is retried with these multiples of the largest diagonal entry added: the first
# is the rounding error of the entries, the last makes any matrix with that diagonal definite.
JITTERS = (1e-14, 1e-12, 1e-10, 1e-8, 1e-4, 1e4)


class SigmoidLoss:
    """Binary cross-entropy of one output: ℓ = log(1 + exp(z)) - y z."""

    @staticmethod
    def value_and_residual(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row and its derivative by the logits, σ(z) - y."""
        value = functional.softplus(logits) - targets * logits  # (M, 1, rows)
        return value[:, 0], torch.sigmoid(logits) - targets  # (M, rows), (M, 1, rows)

    @staticmethod
    def curvature(logits: Tensor) -> Tensor:
        """Second derivatives by the logits for each pair k <= m of outputs: σ(z) σ(-z)."""
        return torch.sigmoid(logits) * torch.sigmoid(-logits)  # (M, 1, rows)

    @staticmethod
    def curvature_product(logits: Tensor, direction: Tensor) -> Tensor:
        """Second derivatives by the logits times a direction in the logits."""
        return torch.sigmoid(logits) * torch.sigmoid(-logits) * direction  # (M, 1, rows)

    @staticmethod
    def log_proba(logits: Tensor) -> Tensor:
        """Log-probabilities (n, 2) from logits (n, 1)."""
        return functional.logsigmoid(torch.cat([-logits, logits], dim=1))  # (n, 2)

    @staticmethod
    def proba(logits: Tensor) -> Tensor:
        """Probabilities (n, 2) from logits (n, 1)."""
        return torch.sigmoid(torch.cat([-logits, logits], dim=1))  # (n, 2)

    # The second derivative of ℓ is at most this (Böhning & Lindsay 1988).
    curvature_bound = 0.25


class SoftmaxLoss:
    """Cross-entropy of K >= 3 outputs: ℓ = log Σ_k exp(z_k) - z_y."""

    @staticmethod
    def value_and_residual(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row and its derivative by the logits, p - onehot(y)."""
        log_proba = torch.log_softmax(logits, dim=1)  # (M, K, rows)
        index = targets.expand(len(logits), 1, -1)  # (M, 1, rows)
        value = -log_proba.gather(1, index)[:, 0]  # (M, rows)
        proba = log_proba.exp_()  # (M, K, rows)
        return value, proba.scatter_add_(1, index, proba.new_full((), -1.0).expand(index.shape))

    @staticmethod
    def curvature(logits: Tensor) -> Tensor:
        """Second derivatives by the logits for each pair k <= m of outputs: p_k (δ_km - p_m)."""
        proba = torch.softmax(logits, dim=1)  # (M, K, rows)
        k, m = torch.triu_indices(logits.shape[1], logits.shape[1])
        return proba[:, k] * ((k == m)[:, None].to(proba.dtype) - proba[:, m])  # (M, pairs, rows)

    @staticmethod
    def curvature_product(logits: Tensor, direction: Tensor) -> Tensor:
        """Second derivatives by the logits times a direction v in the logits: p ∘ (v - pᵀv)."""
        proba = torch.softmax(logits, dim=1)  # (M, K, rows)
        return proba * (direction - (proba * direction).sum(dim=1, keepdim=True))  # (M, K, rows)

    @staticmethod
    def log_proba(logits: Tensor) -> Tensor:
        """Log-probabilities (n, K) from logits (n, K)."""
        return torch.log_softmax(logits, dim=1)  # (n, K)

    @staticmethod
    def proba(logits: Tensor) -> Tensor:
        """Probabilities (n, K) from logits (n, K)."""
        return torch.softmax(logits, dim=1)  # (n, K)

    # The second derivatives of ℓ are at most ½ (I - 11ᵀ/K) (Böhning 1992).
    curvature_bound = 0.5


def loss_for(n_outputs: int) -> SigmoidLoss | SoftmaxLoss:
    """The loss that belongs to a number of outputs: one is the sigmoid's, more are softmax's."""
    return SigmoidLoss() if n_outputs == 1 else SoftmaxLoss()


@dataclass(frozen=True)
class Evaluation:
    """F and its gradient at one point of each model: one pass over X."""

    value: Tensor  # (M,), float64
    gradient: Tensor  # (M, K, p)


@dataclass(frozen=True)
class Objective:
    """F of M models over one X. See the module's docstring for the formula and the shapes.

    Parameters
    ----------
    data : DenseData
        The rows.
    targets : Tensor of shape (n,)
        Class indices (int64) for several outputs; 0 or 1 in the data's dtype for one output.
    weights : Tensor of shape (M or 1, n)
        Positive row weights s_i.
    penalty : Tensor of shape (M,)
        λ = 1/(C S), float64; 0 means no penalty.
    n_outputs : int
        K, or 1 for two classes.
    total : Tensor of shape (M,)
        What the sum over rows is divided by: S, also where ``data`` is a batch of the rows.
    """

    data: DenseData
    targets: Tensor
    weights: Tensor
    penalty: Tensor
    n_outputs: int
    total: Tensor

    @cached_property
    def loss(self) -> SigmoidLoss | SoftmaxLoss:
        return loss_for(self.n_outputs)

    @cached_property
    def quadratic(self) -> Tensor:
        """The penalty of each model and column: it adds ½ Σ quadratic θ² to F."""
        quadratic = self.penalty[:, None] * self.data.penalty_scale()  # (M, p)
        return quadratic[:, None].to(self.data.dtype)  # (M, 1, p)

    @property
    def n_models(self) -> int:
        return len(self.penalty)

    @property
    def n_parameters(self) -> int:
        """Number of parameters of one model, K p."""
        return self.n_outputs * self.data.n_columns

    def select(self, models: Tensor) -> "Objective":
        """The same objective for some of the models."""
        weights = self.weights if len(self.weights) == 1 else self.weights[models]
        return replace(self, weights=weights, penalty=self.penalty[models], total=self.total[models])

    def batches(self, size: int | None, generator: torch.Generator) -> Iterator["Objective"]:
        """Unbiased estimates of F from ``size`` rows each, every row once; F itself where size is None."""
        n_rows = self.data.n_rows
        if size is None or size >= n_rows:
            yield self
            return
        for index in torch.randperm(n_rows, generator=generator).split(size):
            yield replace(
                self,
                data=self.data.take(index),
                targets=self.targets[index],
                weights=self.weights[:, index],
                total=self.total * (len(index) / n_rows),
            )

    def centred(self, theta: Tensor) -> Tensor:
        """The same probabilities from parameters that sum to zero over the classes, as they do at the minimum."""
        return theta if self.n_outputs == 1 else theta - theta.mean(dim=1, keepdim=True)  # (M, K, p)

    def at(self, theta: Tensor) -> Evaluation:
        """F and its gradient."""
        value = torch.zeros(self.n_models, dtype=torch.float64)
        gradient = torch.zeros_like(theta)
        for block in self.data.blocks():
            weights = self.weights[:, block.rows]  # (M or 1, rows)
            loss, residual = self.loss.value_and_residual(self._logits(block, theta), self.targets[block.rows])
            value += (loss * weights).sum(dim=1, dtype=torch.float64)
            residual *= weights[:, None]  # (M, K, rows)
            gradient += block.pullback(residual.flatten(0, 1)).view_as(theta)
        penalised = self.quadratic * theta  # (M, K, p)
        value = value / self.total + 0.5 * (penalised * theta).sum(dim=(1, 2), dtype=torch.float64)
        return Evaluation(value, gradient / self._total(3) + penalised)

    def hessian(self, theta: Tensor) -> Tensor:
        """The matrix of second derivatives, with the directions that F does not see made definite.

        Adding one v to every class's parameters leaves softmax as it is, so that the data term has no curvature
        along 1 ⊗ v. Where there is no penalty either, the largest curvature of that column is put there
        (times 11ᵀ/K): gradient and Newton step have no part along it, so nothing else changes.
        """
        n_models, n_outputs, n_columns = theta.shape
        pairs = n_outputs * (n_outputs + 1) // 2
        grams = theta.new_zeros(n_models * pairs, n_columns, n_columns)
        for block in self.data.blocks():
            curvature = self.loss.curvature(self._logits(block, theta)) * self.weights[:, None, block.rows]
            grams += block.gram(curvature.flatten(0, 1))
        grams = grams.view(n_models, pairs, n_columns, n_columns) / self._total(4)
        hessian = theta.new_empty(n_models, n_outputs, n_columns, n_outputs, n_columns)
        k, m = torch.triu_indices(n_outputs, n_outputs)
        hessian[:, k, :, m] = hessian[:, m, :, k] = grams.transpose(0, 1)
        diagonal = hessian.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2)  # (M, K, p)
        if n_outputs > 1:
            unseen = torch.where(self.quadratic == 0, diagonal.amax(dim=1, keepdim=True), 0.0)  # (M, 1, p)
            hessian.diagonal(dim1=2, dim2=4).add_(unseen[:, :, None] / n_outputs)
        hessian.diagonal(dim1=1, dim2=3).diagonal(dim1=1, dim2=2).add_(self.quadratic)
        return hessian.view(n_models, self.n_parameters, self.n_parameters)

    def inverse_hessian(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        """The inverse of `hessian`, as a product with vectors (M, K, p), through its Cholesky factor."""
        factor = factorise(self.hessian(theta))
        return lambda vector: torch.cholesky_solve(vector.flatten(1)[..., None], factor).view_as(vector)

    def hessian_product(self, theta: Tensor, direction: Tensor) -> Tensor:
        """The matrix of second derivatives times a direction, without the matrix: one pass over X."""
        product = torch.zeros_like(theta)
        for block in self.data.blocks():
            logits, along = self._logits(block, theta), self._logits(block, direction)  # (M, K, rows)
            curved = self.loss.curvature_product(logits, along) * self.weights[:, None, block.rows]
            product += block.pullback(curved.flatten(0, 1)).view_as(theta)
        return product / self._total(3) + self.quadratic * direction  # (M, K, p)

    @cached_property
    def gram(self) -> Tensor:
        """Σ s_i x̃_i x̃_iᵀ / S of each model."""
        gram = torch.zeros(len(self.weights), self.data.n_columns, self.data.n_columns, dtype=self.data.dtype)
        for block in self.data.blocks():
            gram += block.gram(self.weights[:, block.rows])
        return gram / self._total(3)  # (M, p, p)

    def smoothness(self, batch_size: int | None) -> Tensor:
        """A Lipschitz constant (M,) of the gradient of F, or of its estimate from ``batch_size`` rows.

        From the curvature bound: L of all rows is c λ_max(gram) + λ; that of batches lies between L and the largest
        one of a single row, Gower et al. (2019), "SGD: general analysis and improved rates", eq. 33.
        """
        bound, penalty = self.loss.curvature_bound, self.quadratic.amax(dim=(1, 2))
        whole = bound * torch.linalg.eigvalsh(self.gram)[:, -1]  # (M,)
        n_rows = self.data.n_rows
        if batch_size is None or batch_size >= n_rows:
            return whole + penalty
        heaviest = torch.stack(
            [(self.weights[:, b.rows] * b.squared_norms()).amax(dim=1) for b in self.data.blocks()]
        ).amax(dim=0)  # (M,)
        single = bound * heaviest * n_rows / self.total.to(heaviest.dtype)
        rest = batch_size * (n_rows - 1)
        return n_rows * (batch_size - 1) / rest * whole + (n_rows - batch_size) / rest * single + penalty

    @cached_property
    def metric(self) -> Callable[[Tensor], Tensor]:
        """The inverse of an upper bound of the curvature, the same for every class and every θ.

        The bound is c Σ s_i x̃_i x̃_iᵀ / S + λ with c = ¼ (sigmoid) or ½ (softmax): Böhning & Lindsay
        (1988), "Monotonicity of quadratic-approximation algorithms"; Böhning (1992), "Multinomial
        logistic regression algorithm". A solver that measures lengths by it does not see the units of X.
        """
        factor = factorise(self.loss.curvature_bound * self.gram + torch.diag_embed(self.quadratic[:, 0]))
        return lambda vector: torch.cholesky_solve(vector.mT, factor).mT  # (M, K, p)

    @cached_property
    def separable_below(self) -> Tensor:
        """Where no penalty holds the parameters, a value of F below this proves that no minimum exists.

        F < log 2 min(s)/S means that every row has ℓ_i < log 2, so its own class has the largest
        logit; then F goes to zero along this very θ.
        """
        smallest = self.weights.amin(dim=1)
        one_class = self.data.fit_intercept and bool((self.targets == self.targets[0]).all())
        return torch.where((self.penalty == 0) | one_class, log(2) * smallest / self.total, -inf)  # (M,)

    def _total(self, ndim: int) -> Tensor:
        return self.total.to(self.data.dtype).view(-1, *[1] * (ndim - 1))

    def _logits(self, block, theta: Tensor) -> Tensor:
        return block.logits(theta.flatten(0, 1)).view(*theta.shape[:2], -1)  # (M, K, rows)


def factorise(matrices: Tensor) -> Tensor:
    """Cholesky factors of positive semi-definite matrices (..., p, p), with the least jitter that it takes."""
    largest = matrices.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp_min(torch.finfo(matrices.dtype).tiny)  # (...)
    for jitter in (0.0, *JITTERS):
        ridge = (jitter * largest)[..., None].expand(matrices.shape[:-1])
        factor, info = torch.linalg.cholesky_ex(matrices + torch.diag_embed(ridge) if jitter else matrices)
        if not info.any():
            break
    return factor
