"""F of a table so small that calls cost more than arithmetic.

The F of `skl_softmax.objective` by formulas for all rows at once, in NumPy, whose calls on small arrays take a third of
the time of torch's, in the thread that asks for them. A value with its gradient takes 30 microseconds on iris and not
150, on 1,000 x 100 with three classes 140 and not 280 to 500, on 5,000 x 100 with ten 0.8 milliseconds and not 1.1 to
1.6. With more work, two threads take less time: 20,000 x 16 with 26 classes as long, 5,000 x 400 with ten 0.7.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from skl_softmax import threads
from skl_softmax.data import Data
from skl_softmax.objective import losses
from skl_softmax.objective.base import Evaluation, Objective

# Multiplications of a product with all rows up to which F is evaluated here, and logits, which it takes copies of.
SMALL_PRODUCT, SMALL_LOGITS = 2**23, 2**18


def is_small(data: Data, n_logits: int) -> bool:
    """Whether calls of torch for so many logits of each row take longer than arithmetic in one thread."""
    size = data.n_rows * n_logits
    fits = size <= SMALL_LOGITS and size * data.n_columns <= SMALL_PRODUCT
    return fits and data.keeps and data.X.device.type == "cpu" and data.dtype == torch.float64


class Loss(NamedTuple):
    """What M models lose on all rows."""

    value: np.ndarray  # (M,), weighted sums
    residual: np.ndarray  # (M, K, n), their derivatives by the logits
    make_proba: Callable[[], np.ndarray]  # probabilities of the outputs (M, K, n), as of `Objective.curvature_proba`


class SmallObjective(Objective):
    """F of M models over one small dense X, in float64. Shapes as in `skl_softmax.objective`."""

    call_seconds = 3e-4  # most of it the solver's
    # Whether gradients are made to sum to zero over the classes to eps of themselves, as metrics want it.
    balances_gradients = True
    _of_rows = "_rows", "_column_sizes", "_shares", "_target_proba", "_places", "class_shares"

    def select(self, models: Tensor) -> "SmallObjective":
        some, index, known = super().select(models), models.numpy(), self.__dict__
        some.__dict__.update(
            {name: known[name] for name in ("_rows", "_column_sizes", "_target_proba") if name in known}
        )
        some.__dict__.update({name: known[name][index] for name in ("_shares", "_penalty") if name in known})
        if known.get("_places") is not None:
            some.__dict__["_places"] = known["_places"][: len(index)]  # those of the first are those of any as many
        return some

    def narrow(self) -> "SmallObjective":
        """F itself: float32 would gain nothing."""
        return self

    def stretched(self) -> "SmallObjective":
        """F itself, which is of all rows at once."""
        return self

    @cached_property
    def in_float32(self) -> Objective:
        """By the general formulas: those here are in float64, whatever the rows are."""
        return Objective(**{field.name: getattr(self, field.name) for field in fields(self)}).in_float32

    def from_other(self, other: "SmallObjective", point: Evaluation, theta: Tensor) -> Evaluation:
        parameters, by_model = theta.numpy(), (self.n_models, self.n_parameters)
        change = (self._penalty - other._penalty) * parameters  # (M, K, p)
        more = 0.5 * threads.dots(change.reshape(by_model), parameters.reshape(by_model))  # (M,)
        return Evaluation(*map(torch.from_numpy, (point.value.numpy() + more, point.gradient.numpy() + change)))

    @np.errstate(all="ignore")
    def at(self, theta: Tensor) -> Evaluation:
        parameters = theta.numpy()
        logits = self._rows.logits(parameters)  # (M, K, n)
        value, residual, make_proba = self._loss_of(logits)  # (M,), (M, K, n)
        self.__dict__["_last_two"] = [(theta, make_proba), *self.__dict__.get("_last_two", ())][:2]
        gradient = self._rows.pullback(residual)  # (M, K, p)
        if self.balances_gradients and self.n_outputs > 1:  # as `Objective.means`
            gradient -= self.class_shares.numpy() * np.add.reduce(gradient, axis=1, keepdims=True)
        penalised = self._penalty * parameters  # (M, K, p)
        gradient += penalised
        by_model = len(value), -1
        value += 0.5 * threads.dots(penalised.reshape(by_model), parameters.reshape(by_model))
        if self.l1 is not None:
            value += (self.column_l1.numpy() * np.abs(parameters)).sum(axis=(1, 2))
        return Evaluation(torch.from_numpy(value), torch.from_numpy(gradient))

    def _loss_of(self, logits: np.ndarray) -> Loss:
        """Of logits (M, K, n), whose memory is taken over."""
        if self.n_outputs == 1:
            return sigmoid_loss(logits, *self._signs_and_rests, self._shares)
        if self._places is None:
            return soft_loss(logits, self._target_proba, self._shares)
        return softmax_loss(logits, self._places, self._shares)

    def far_rows(self, theta: Tensor, direction: Tensor, limit: Tensor) -> Tensor:
        along, limit = torch.from_numpy(self._rows.logits(direction.numpy())), limit[:, None]  # (M, K, n), (M, 1)
        is_far = (losses.apart(along) >= limit) & torch.from_numpy(self._shares[:, 0] > 0)  # (M, n)
        if is_far.any():
            is_far &= losses.moved_apart(torch.from_numpy(self._rows.logits(theta.numpy())), along) >= limit
        return is_far

    def change_at_most(self, direction: Tensor) -> Tensor:
        return losses.apart(direction) @ torch.from_numpy(self._column_sizes)

    def penalty_gradient(self, theta: Tensor) -> Tensor:
        return torch.from_numpy(self._penalty * theta.numpy())

    def hessian_product(self, theta: Tensor) -> Callable[[Tensor], Tensor]:
        proba, shares = self._proba_and_shares(theta)  # (M, K, n)

        @np.errstate(all="ignore")
        def product(direction: Tensor) -> Tensor:
            vector = direction.numpy()
            along = self._rows.logits(vector)  # (M, K, n)
            if self.n_outputs == 1:
                curved = shares * (1 - proba) * along
            else:  # as `SoftmaxLoss.curvature_product`
                for _ in range(2):
                    along -= np.add.reduce(proba * along, axis=1, keepdims=True)
                curved = shares * along
            return torch.from_numpy(self._rows.pullback(curved) + self._penalty * vector)

        return product

    def _proba_and_shares(self, theta: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (M, K, n) and their parts in the mean; from an evaluation if one of the last two was at θ."""
        last_two = self.__dict__.get("_last_two", ())  # the last one may be of a longer step, which was not taken
        make_proba = next((make for known, make in last_two if known is theta), None)
        if make_proba is None:
            self.at(theta)
            _, make_proba = self.__dict__["_last_two"][0]
        proba = make_proba()
        return proba, proba * self._shares

    @cached_property
    def _rows(self) -> threads.SerialRows:
        return threads.SerialRows(self.data.small_rows)

    @cached_property
    def _column_sizes(self) -> np.ndarray:
        """The largest number of each column, (p,)."""
        return np.abs(self.data.small_rows).max(axis=0)

    @cached_property
    def _shares(self) -> np.ndarray:
        """Each row's part in the mean, s_i / S."""
        return (self.weights / self.total[:, None])[:, None].numpy()  # (M, 1, n)

    @cached_property
    def _target_proba(self) -> np.ndarray:
        """The probabilities of the outputs that the rows' targets stand for, (1 or K, n)."""
        return np.asarray(target_proba(self.targets, self.n_outputs, self.label_proba), np.float64)

    @cached_property
    def _signs_and_rests(self) -> tuple[np.ndarray, np.ndarray | None]:
        """-1 where a target of one output is near to 1, 1 where to 0, (1, n); how far it is from that, if any is."""
        near = np.rint(self._target_proba)
        rest = self._target_proba - near
        return 1 - 2 * near, rest if rest.any() else None

    @cached_property
    def _places(self) -> np.ndarray | None:
        """Where the rows' own classes are among all logits, (M, n); None if targets are probabilities."""
        if self.targets.ndim == 2 or self.label_proba is not None:
            return None
        of_one = self.targets.numpy() * self.n_rows + np.arange(self.n_rows)  # (n,)
        return np.arange(self.n_models)[:, None] * (self.n_outputs * self.n_rows) + of_one

    @cached_property
    def _penalty(self) -> np.ndarray:
        """`column_l2` in NumPy."""
        return self.column_l2.numpy()  # (M, 1, p)


def sigmoid_loss(logits: np.ndarray, signs: np.ndarray, rests: np.ndarray | None, weights: np.ndarray) -> Loss:
    """Σ of weighted losses s ℓ (M,) and s (σ(z) - y) (M, 1, n) of logits (M, 1, n) and weights s (M, 1, n).

    ``signs`` and ``rests`` (1, n) are of the targets. As `SigmoidLoss.value_and_residual`.
    """
    away = signs * logits  # (M, 1, n)
    power = np.exp(-np.abs(away))
    losses = np.log1p(power)
    losses += np.maximum(away, 0.0)
    beyond = power + 1
    np.copyto(power, 1.0, where=away > 0)
    residual = np.divide(power, beyond, out=power)
    residual *= signs
    if rests is not None:
        losses -= rests * logits
        residual -= rests
    residual *= weights
    return Loss(threads.dots(losses, weights)[:, 0], residual, lambda: expit(-np.abs(logits)))


def softmax_loss(logits: np.ndarray, places: np.ndarray, weights: np.ndarray) -> Loss:
    """Σ of weighted losses s ℓ (M,) and s (p - y) (M, K, n) of logits (M, K, n) and weights s (M, 1, n).

    ``places`` (M, n) are those of the rows' own classes among the M K n. As `SoftmaxLoss.value_and_residual`, by the
    odds of the other classes.
    """
    logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
    flat = logits.reshape(-1)  # the same memory
    own = flat[places]  # (M, n)
    odds = np.exp(logits, out=logits)
    flat[places] = 0.0
    others = np.add.reduce(odds, axis=1)  # (M, n)
    beyond = others + np.expm1(own)  # the sum with the own class, less 1
    value = threads.dots(np.log1p(beyond) - own, weights[:, 0])  # (M,)
    beyond += 1
    flat[places] = np.negative(others, out=others)

    def make_proba() -> np.ndarray:
        proba = odds / beyond[:, None]
        proba.reshape(-1)[places] = np.exp(own) / beyond
        return proba

    return Loss(value, odds * (weights / beyond[:, None]), make_proba)


def soft_loss(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> Loss:
    """The same with probabilities of the classes for targets, (K, n)."""
    value, proba = loss_and_proba(logits, weights, weights * targets)
    return Loss(value, (proba - targets) * weights, lambda: proba)


def loss_and_proba(logits: np.ndarray, weights: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Σ of weighted losses (M,), in float64, and probabilities (M, K, n); ``logits`` is overwritten.

    ``weights`` are (M, 1, n), ``targets`` probabilities of the classes times these, (M, K, n).
    """
    if logits.shape[1] == 1:
        proba = expit(logits)
        losses = np.abs(logits)  # (M, 1, n)
        np.log1p(np.exp(np.negative(losses, out=losses), out=losses), out=losses)
        gained = threads.dots(logits, targets - (logits > 0) * weights)  # (M, 1)
    else:
        logits -= np.maximum.reduce(logits, axis=1, keepdims=True)
        gained = threads.dots(logits, targets)  # (M, K)
        proba = np.exp(logits, out=logits)
        sums = np.add.reduce(proba, axis=1, keepdims=True)  # (M, 1, n)
        proba /= sums
        losses = np.log(sums)
    return threads.dots(losses, weights)[:, 0] - gained.sum(axis=1), proba


def target_proba(targets: Tensor, n_outputs: int, label_proba: Tensor | None) -> np.ndarray:
    """The probabilities of the classes that the rows' targets stand for, (n,) or (K, n)."""
    if targets.ndim == 2 or n_outputs == 1:
        return targets.numpy().T
    if label_proba is not None:
        return label_proba.numpy()[targets.numpy()].T
    return targets.numpy() == np.arange(n_outputs)[:, None]
