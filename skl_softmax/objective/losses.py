"""The losses, as functions of logits.

Logits and their derivatives have the shape (..., K, rows), one class after the other: log_softmax over a dimension in
the middle is seven times as fast as over the last one. ``targets`` are (..., 1, rows): class indices for softmax, the
probability of the second class for the sigmoid; or (..., K, rows): probabilities of the classes for softmax.
"""

import torch
from torch import Tensor
from torch.nn import functional

from skl_softmax import threads

# From so many classes on torch.softmax takes no longer than its parts, which of 3 to 5 take a half to a quarter. Of few
# rows it takes 8 microseconds less, but wakes threads for any two, which takes 6 milliseconds where they are asleep.
MANY_CLASSES = 64
# Below this part of a row's sum of powers what is left of it is added up anew, and the least that float32 knows.
FAR, LEAST = 1 / 16, 1e-30
# Logits from which on a class is next to impossible, 1e-20: its curvature holds no direction that float64 resolves.
IMPOSSIBLE = 46.0
# Logits from which on log(1 + exp(z)) is z in float64; torch takes that for granted from 20 on, where 2e-9 are lost.
LINEAR = 40.0


class SigmoidLoss:
    """Binary cross-entropy of one output: ℓ = log(1 + exp(z)) - y z."""

    # The second derivative of ℓ is at most this (Böhning & Lindsay 1988).
    curvature_bound = 0.25

    @staticmethod
    def value(logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each row (..., 1, rows)."""
        return functional.softplus(logits, threshold=LINEAR) - targets * logits

    @staticmethod
    def value_and_residual(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row (..., 1, rows) and its derivative by the logits (..., 1, rows), σ(z) - y.

        From the class that y is near to, so that nothing cancels where rows are told apart.
        """
        near = targets.round()
        sign = 1 - 2 * near
        away = sign * logits  # (..., 1, rows)
        value, residual, rest = (
            functional.softplus(away, threshold=LINEAR),
            torch.sigmoid(away).mul_(sign),
            targets - near,
        )
        return value.addcmul_(rest, logits, value=-1), residual.sub_(rest)

    @staticmethod
    def curvature_product(proba: Tensor, direction: Tensor) -> Tensor:
        """The second derivatives by the logits times a direction v in the logits: p (1 - p) v, p = σ(z) or σ(-z)."""
        return proba * (1 - proba) * direction  # (..., 1, rows)

    @staticmethod
    def class_proba(logits: Tensor) -> Tensor:
        """Probabilities of both classes (..., 2, rows) from logits (..., 1, rows)."""
        return torch.sigmoid(torch.cat([-logits, logits], dim=-2))

    @staticmethod
    def change(proba: Tensor, along: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """As of `SoftmaxLoss`, with both classes' probabilities (..., 2, rows) and the change of one logit."""
        value, residual = change(proba, torch.cat([-targets * along, (1 - targets) * along], dim=-2))
        return value, residual[..., 1:, :]

    @staticmethod
    def negative_entropy(residual: Tensor, targets: Tensor) -> Tensor:
        """The conjugate of ℓ at residuals r (..., 1, rows): q log q + (1 - q) log(1 - q), q = y + r.

        From the class that y is near to, as losses are, so that rows are known to rounding of themselves.
        """
        near = targets.round()
        q = ((1 - 2 * near) * ((targets - near) + residual)).clamp(0.0, 1.0)  # of the class that y is not near to
        return torch.xlogy(q, q) + torch.xlogy(1 - q, 1 - q).where(q > 0.5, torch.special.xlog1py(1 - q, -q))

    @staticmethod
    def log_proba(logits: Tensor) -> Tensor:
        """Log-probabilities (n, 2) from logits (n, 1)."""
        return torch.cat([functional.logsigmoid(-logits), functional.logsigmoid(logits)], dim=1)

    @staticmethod
    def proba(logits: Tensor) -> Tensor:
        """Probabilities (n, 2) from logits (n, 1)."""
        return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=1)


class SoftmaxLoss:
    """Cross-entropy of K >= 3 outputs: ℓ = log Σ_k exp(z_k) - Σ_k y_k z_k, y one-hot or any probabilities."""

    # The second derivatives of ℓ are at most ½ (I - 11ᵀ/K) (Böhning 1992).
    curvature_bound = 0.5

    @staticmethod
    def value(logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each row (..., 1, rows), in half the time that its derivative takes besides."""
        below = logits - logits.amax(dim=-2, keepdim=True)  # (..., K, rows)
        if targets.is_floating_point():
            chosen = (below * targets).sum(dim=-2, keepdim=True)
        else:
            chosen = below.gather(-2, targets.expand(*below.shape[:-2], 1, below.shape[-1]))
        return below.exp_().sum(dim=-2, keepdim=True).log_().sub_(chosen)

    @staticmethod
    def value_and_residual(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row (..., 1, rows) and its derivative by the logits (..., K, rows), p - y.

        With class indices both come from the odds of the other classes, s: ℓ = log(1 + s), and p - 1 = -s / (1 + s).
        Nothing cancels where rows are told apart, so that both are known to eps of themselves. From log p they were
        known to eps of 1, by which 20,000 x 100 with 5 classes and C=1e6 had not converged after 13,000 passes for 43.
        """
        if targets.is_floating_point():
            log_proba = torch.log_softmax(logits, dim=-2)
            value = -(log_proba * targets).sum(dim=-2, keepdim=True)
            return value, log_proba.exp_().sub_(targets)
        index = targets.expand(*logits.shape[:-2], 1, logits.shape[-1])
        below = logits - logits.amax(dim=-2, keepdim=True)  # (..., K, rows)
        own = below.gather(-2, index)  # (..., 1, rows)
        odds = below.exp_().scatter_(-2, index, own.new_zeros(()).expand(index.shape))
        others = odds.sum(dim=-2, keepdim=True)
        beyond = others + own.expm1()  # the sum with the own class, less 1
        value = beyond.log1p().sub_(own)
        share = beyond.add_(1).reciprocal_()
        return value, odds.scatter_(-2, index, others.neg_()).mul_(share)

    @staticmethod
    def curvature_product(proba: Tensor, direction: Tensor) -> Tensor:
        """The second derivatives by the logits times a direction v in the logits: p ∘ (v - pᵀv), p = softmax(z)."""
        centred = direction - (proba * direction).sum(dim=-2, keepdim=True)  # (..., K, rows)
        return proba * (centred - (proba * centred).sum(dim=-2, keepdim=True))

    @staticmethod
    def class_proba(logits: Tensor) -> Tensor:
        """Probabilities of the classes (..., K, rows) from logits (..., K, rows)."""
        return torch.softmax(logits, dim=-2)

    @staticmethod
    def change(proba: Tensor, along: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What loss (..., 1, rows) and residual (..., K, rows) change by, where the logits change by ``along``.

        From probabilities ``proba``; both are (..., K, rows), and ``along`` is overwritten.
        """
        if targets.is_floating_point():
            own = (along * targets).sum(dim=-2, keepdim=True)
        else:
            own = along.gather(-2, targets.expand(*along.shape[:-2], 1, along.shape[-1]))  # (..., 1, rows)
        return change(proba, along.sub_(own))

    @staticmethod
    def negative_entropy(residual: Tensor, targets: Tensor) -> Tensor:
        """The conjugate of ℓ at residuals r (..., K, rows): Σ_k q_k log q_k, q = y + r.

        With class indices the own class's is (1 + r) log(1 + r), so that rows are known to rounding of themselves.
        """
        if targets.is_floating_point():
            q = (targets + residual).clamp_min(0.0)  # (..., K, rows)
            return torch.xlogy(q, q).sum(dim=-2, keepdim=True)  # (..., 1, rows)
        index = targets.expand(*residual.shape[:-2], 1, residual.shape[-1])
        q, own = residual.clamp_min(0.0), residual.gather(-2, index).clamp(-1.0, 0.0)
        others = torch.xlogy(q, q).scatter(-2, index, 0.0).sum(dim=-2, keepdim=True)
        return others + torch.special.xlog1py(1 + own, own)  # (..., 1, rows)

    @staticmethod
    def log_proba(logits: Tensor) -> Tensor:
        """Log-probabilities (n, K) from logits (n, K)."""
        if not threads.is_small(logits):
            return torch.log_softmax(logits, dim=1)
        below = logits - logits.amax(dim=1, keepdim=True)
        return below - threads.exp_(below.clone()).sum(dim=1, keepdim=True).log_()

    @staticmethod
    def proba(logits: Tensor) -> Tensor:
        """Probabilities (n, K) from logits (n, K)."""
        if logits.shape[1] >= MANY_CLASSES and not threads.is_small(logits):
            return torch.softmax(logits, dim=1)
        powers = threads.exp_(logits - logits.amax(dim=1, keepdim=True))
        return powers.div_(powers.sum(dim=1, keepdim=True))


def change(proba: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Those of loss and probabilities by those of the logits, measured from the target's (`anchor`)."""
    growth = torch.expm1(along)  # (..., K, rows)
    mean = (proba * growth).sum(dim=-2, keepdim=True)  # (..., 1, rows)
    whole = 1 + mean
    value, residual = torch.log1p(mean), growth.sub_(mean).mul_(proba).div_(whole)
    is_far = whole < FAR  # (..., 1, rows)
    if is_far.any():  # rows that come out on the right side by this step: 1 and the mean cancel
        far = is_far.expand_as(proba).movedim(-2, -1)  # (..., rows, K)
        before = proba.movedim(-2, -1)[far].view(-1, proba.shape[-2])  # (far rows, K)
        grown = along.movedim(-2, -1)[far].view_as(before).exp_().mul_(before)
        whole = grown.sum(dim=1)  # (far rows,)
        # Probabilities that float32 does not hold would be missed: such a step is no lower.
        whole = torch.where(whole > LEAST, whole, torch.inf)
        value[is_far] = whole.log()
        residual.movedim(-2, -1)[far] = (grown / whole[:, None] - before).flatten()
    return value, residual


def apart(by_output: Tensor) -> Tensor:
    """How far outputs are apart, (..., n), by numbers of each (..., K, n); one output from zero."""
    if by_output.shape[-2] == 1:
        return by_output[..., 0, :].abs()
    return by_output.amax(dim=-2) - by_output.amin(dim=-2)


def moved_apart(logits: Tensor, along: Tensor) -> Tensor:
    """How far outputs (..., K, n) are moved apart by steps ``along``, (..., n), of those not next to impossible.

    A row that is told apart by 1e9 may move by hundreds, along an output that is impossible before and after.
    """
    after = logits + along
    if logits.shape[-2] == 1:
        stays = torch.minimum(logits * logits.sign(), after * logits.sign()) > IMPOSSIBLE
        return torch.where(stays, 0.0, along.abs())[..., 0, :]
    least = -IMPOSSIBLE
    is_possible = (logits - logits.amax(dim=-2, keepdim=True) > least) | (
        after - after.amax(dim=-2, keepdim=True) > least
    )
    highest = torch.where(is_possible, along, -torch.inf).amax(dim=-2)
    return highest - torch.where(is_possible, along, torch.inf).amin(dim=-2)


def most_probable(logits: Tensor) -> Tensor:
    """Index of the most probable class of logits (n, K) or (n, K, rows), with one output for two classes."""
    return (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)


def loss_for(n_outputs: int) -> SigmoidLoss | SoftmaxLoss:
    """The loss that belongs to a number of outputs: one is the sigmoid's, more are softmax's."""
    return SigmoidLoss() if n_outputs == 1 else SoftmaxLoss()
