"""Log loss and accuracy: of logits, of a model on rows, of the models of a sweep on the rows held out of them.

And what scores of folds tell, whoever has given them.
"""

import warnings
from collections.abc import Callable
from inspect import signature
from math import sqrt

import numpy as np
import torch
from scipy.stats import rankdata
from sklearn.metrics import get_scorer
from torch import Tensor

from skl_softmax.data import linear, n_bytes, take_rows
from skl_softmax.inputs import TrainingRows, check_weights
from skl_softmax.objective.losses import loss_for, most_probable
from skl_softmax.routing import scorer_parts

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
    found = most_probable(logits)  # (J, rows)
    if targets.is_floating_point():
        targets = targets.argmax(dim=1, keepdim=True) if targets.shape[1] > 1 else targets > 0.5
    return (found == targets[:, 0].long()).double()


# Scores by name that need no more than logits; None is what is taken where none is named.
MEASURES = {None: negative_log_loss, "neg_log_loss": negative_log_loss, "accuracy": accuracy}


def find_measure(scoring) -> Measure | None:
    """The measure of logits that ``scoring`` names, or is the scorer of, if it is one of these."""
    if scoring is None or isinstance(scoring, str):  # a scorer need not have a hash
        return MEASURES.get(scoring)
    *function, parameters = scorer_parts(scoring) or (None, {})
    names = (name for name in MEASURES if name and function == [*scorer_parts(get_scorer(name))[:-1]])
    return None if parameters else MEASURES.get(next(names, ""))


def refuse_metrics_of_labels(scoring, scorer) -> None:
    """Refuse scikit-learn's metrics where y holds probabilities, as they want labels; functions of others may not."""
    function, *_ = scorer_parts(scorer) or [None]
    if find_measure(scoring) is None and getattr(function, "__module__", "").startswith("sklearn."):
        raise ValueError(
            f"scoring={scoring!r} wants labels, but y holds probabilities. Set scoring='neg_log_loss', 'accuracy' or a "
            "function of (estimator, X, y)."
        )


def refuse_scorers_without_weights(scoring, scorer) -> None:
    """Refuse a scorer that takes no weights, which it would be given, before all models are solved."""
    function, *_ = scorer_parts(scorer) or [scorer]
    try:
        known = signature(function).parameters
    except ValueError:  # some functions in C have none
        return
    if "sample_weight" not in known and not any(one.kind is one.VAR_KEYWORD for one in known.values()):
        raise ValueError(
            f"scoring={scoring!r} takes no sample_weight, by which scores are weighted. Set another, give it that "
            "argument, or say with scikit-learn's metadata routing that weights are for the fit alone."
        )


def mean_score(rows: TrainingRows, weight: Tensor, bias: Tensor, measure: Measure) -> float:
    """Mean of a measure over the rows, weighted, for weight (K, d) and bias (K,). Labels are not smoothed."""
    return mean_of_logits(linear(rows.X, weight, bias), rows.targets, rows.weights, measure)


def mean_of_logits(logits: Tensor, targets: Tensor, weights: Tensor, measure: Measure) -> float:
    """Mean of a measure, weighted, of logits (n, K) and targets and weights (n,)."""
    by_row = measure(logits.cpu().double().T[None], by_class(targets))[0]  # (n,)
    by_row = torch.where(weights > 0, by_row, 0.0)  # scores of others may be no numbers
    return (by_row @ weights / weights.sum()).item()


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
        counted = torch.from_numpy(test)
        counted = counted[weights[counted] > 0]  # scores of others may be no numbers
        for index in counted.split(max(1, SCORE_ENTRIES // (entries + bias.numel()))):
            logits = linear(take_rows(X, index), weight.flatten(0, 1), bias.flatten()).cpu()  # (rows, J K)
            logits = logits.T.contiguous().unflatten(0, bias.shape)  # (J, K, rows)
            sums = sums + measure(logits, by_class(targets[index])) @ weights[index]  # (J,)
            total += weights[index].sum()
        scores[fold] = (sums / total).numpy()
    return scores


def by_class(targets: Tensor) -> Tensor:
    """Class indices (n,) or probabilities (n, K) as (1, 1 or K, n)."""
    return targets[None, None] if targets.ndim == 1 else targets.T[None]


def score_weights(for_scorer: dict, truth: Tensor) -> Tensor:
    """What each row counts in a score, (n,)."""
    return torch.from_numpy(check_weights(for_scorer.get("sample_weight"), truth.numpy()))


def standard_errors(scores: np.ndarray) -> np.ndarray:
    """Of the mean over folds, (J,), from those of the folds (F, J); 0 of one fold and of infinite scores."""
    if len(scores) == 1:
        return np.zeros(scores.shape[1])
    with np.errstate(invalid="ignore"):
        return np.nan_to_num(scores.std(axis=0, ddof=1) / sqrt(len(scores)))


def of_rows(by_row: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Means (J,), weighted, of scores of single rows (J, n), and their standard errors (J,)."""
    shares = weights / weights.sum()  # (n,)
    means = by_row @ shares  # (J,)
    return means, ((by_row - means[:, None]).square() @ shares / len(shares)).sqrt()


def as_score(score) -> float:
    """The number that a scorer has given."""
    try:
        return float(np.asarray(score).item())
    except (TypeError, ValueError) as error:
        raise ValueError(f"scoring must give a number for each model, but gave {score!r}.") from error


def check_scores(scores: np.ndarray) -> None:
    """Refuse scores (F, J) of which no penalty has numbers, and warn if some have none."""
    is_nan = np.isnan(scores)
    known = ~is_nan.any(axis=0)  # (J,)
    if not known.any():
        raise ValueError(
            f"scoring gave nan for every C, first in fold {is_nan.any(axis=1).argmax()}: no C is the best. If it "
            "lacks a class, pass a stratified splitter, or a score that does without."
        )
    if not known.all():
        warnings.warn("Some scores are nan: their C count as the worst.", UserWarning, stacklevel=4)


def place_of_best(scores: np.ndarray) -> tuple[int, int]:
    """Where the best of scores (n_l1_ratios, n_cs) is: of equal ones that of the first C, as in scikit-learn.

    Some has to be known, not nan, of which `check_scores` makes sure.
    """
    by_C = scores.T.flatten()
    known = np.flatnonzero(~np.isnan(by_C))
    j, i = np.unravel_index(known[by_C[known].argmax()], scores.T.shape)
    return int(i), int(j)


def search_results(scores: np.ndarray, tried: list[dict[str, float]]) -> dict[str, np.ndarray | list]:
    """The ``cv_results_`` of scikit-learn's searches, from scores (F, J) with the J parameters that were tried."""
    with np.errstate(invalid="ignore"):
        means, spread = scores.mean(axis=0), scores.std(axis=0)  # (J,)
    return {
        **{f"param_{name}": np.array([parameters[name] for parameters in tried]) for name in tried[0]},
        "params": tried,
        **{f"split{i}_test_score": of_fold.copy() for i, of_fold in enumerate(scores)},
        "mean_test_score": means,
        "std_test_score": spread,
        "rank_test_score": rankdata(-np.where(np.isnan(means), -np.inf, means), method="min").astype(np.int32),
    }
