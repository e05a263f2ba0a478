"""Log loss and accuracy: of logits, of a model on rows, of the models of a sweep on the rows held out of them."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from skl_softmax.data import linear, n_bytes, take_rows
from skl_softmax.inputs import TrainingRows
from skl_softmax.losses import loss_for

# Entries of held-out rows and of their logits that are made at a time.
SCORE_ENTRIES = 2**22

# The score (J, rows) of logits (J, K, rows) and targets (1, 1 or K, rows).
Measure = Callable[[Tensor, Tensor], Tensor]


def negative_log_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Minus the loss (J, rows) of logits (J, K, rows)."""
    n_outputs = logits.shape[1]
    targets = targets.to(logits.dtype) if n_outputs == 1 else targets
    return -loss_for(n_outputs).value(logits, targets)[:, 0]


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether (J, rows) the most probable class is that of the target."""
    found = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)  # (J, rows)
    if targets.is_floating_point():
        targets = targets.argmax(dim=1, keepdim=True) if targets.shape[1] > 1 else targets > 0.5
    return (found == targets[:, 0].long()).double()


def mean_score(rows: TrainingRows, weight: Tensor, bias: Tensor, measure: Measure) -> float:
    """Mean of a measure over the rows, weighted, for weight (K, d) and bias (K,)."""
    logits = linear(rows.X, weight, bias).cpu().double().T[None]  # (1, K, n)
    targets = rows.targets if rows.label_proba is None else rows.label_proba[rows.targets]  # (n,) or (n, K)
    return (measure(logits, by_class(targets))[0] @ rows.weights / rows.weights.sum()).item()


def held_out_scores(
    X: Tensor,
    models: tuple[Tensor, Tensor],
    targets: Tensor,
    weights: Tensor,
    tests: list[np.ndarray],
    measure: Measure,
) -> np.ndarray:
    """Mean of a measure over the held-out rows of each fold, for each penalty: (F, J), from one pass over X.

    ``models`` are weight (F, J, K, d) and bias (F, J, K), ``targets`` class indices (n,) or probabilities (n, K),
    ``weights`` (n,) what the rows count in the mean.
    """
    scores, entries = np.empty(models[1].shape[:2]), n_bytes(X) // (8 * len(X))
    for fold, (test, weight, bias) in enumerate(zip(tests, *models, strict=True)):  # (J, K, d), (J, K)
        sums, total = 0.0, 0.0
        for index in torch.from_numpy(test).split(max(1, SCORE_ENTRIES // (entries + bias.numel()))):
            logits = linear(take_rows(X, index), weight.flatten(0, 1), bias.flatten()).cpu()  # (rows, J K)
            logits = logits.T.contiguous().unflatten(0, bias.shape)  # (J, K, rows)
            sums = sums + measure(logits, by_class(targets[index])) @ weights[index]  # (J,)
            total += weights[index].sum()
        scores[fold] = (sums / total).numpy()
    return scores


def by_class(targets: Tensor) -> Tensor:
    """Class indices (n,) or probabilities (n, K) as (1, 1 or K, n)."""
    return targets[None, None] if targets.ndim == 1 else targets.T[None]
