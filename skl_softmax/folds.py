"""Rows to train on and to hold out, fold by fold."""

import numpy as np
from sklearn.model_selection import check_cv


def split_rows(cv, X, labels, n_rows: int, parameters: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the training and test rows of each fold; ``labels`` are None where targets are probabilities."""
    splits = check_cv(cv, labels, classifier=labels is not None).split(X, labels, **parameters)
    folds = [tuple(_row_numbers(fold, part, n_rows) for part in split) for fold, split in enumerate(splits)]
    if not folds:
        raise ValueError(f"cv={cv!r} gives no folds, but at least one is needed.")
    return folds


def _row_numbers(fold: int, part, n_rows: int) -> np.ndarray:
    """The rows of a part of a fold, from a mask or from indices, which may count from the end."""
    part = np.asarray(part)
    try:
        return np.arange(n_rows)[part if part.size else part.astype(int)]
    except IndexError as error:
        raise ValueError(f"cv gives indices in fold {fold} that do not fit {n_rows} rows: {error}.") from error


def refuse_weightless(verb: str, weights) -> None:
    """Refuse folds without rows that count, by what the rows of each weigh."""
    if len(wrong := np.flatnonzero(np.asarray(weights) <= 0)):
        raise ValueError(f"Fold {wrong[0]} of cv {verb} no row with a positive weight.")
