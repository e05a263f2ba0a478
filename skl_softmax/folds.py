"""Rows to train on and to hold out, fold by fold."""

import warnings

import numpy as np
from sklearn.model_selection import (
    RepeatedStratifiedKFold,
    StratifiedGroupKFold,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)

# Splitters that ask for labels.
STRATIFIED = StratifiedKFold, RepeatedStratifiedKFold, StratifiedShuffleSplit, StratifiedGroupKFold

# Classes that a warning names.
NAMED = 3


def split_rows(cv, X, labels, n_rows: int, parameters: dict) -> list[tuple[np.ndarray, np.ndarray]]:
    """Numbers of the training and test rows of each fold; ``labels`` are None where targets are probabilities."""
    splitter = check_cv(cv, labels, classifier=labels is not None)
    if labels is None and isinstance(splitter, STRATIFIED):
        raise ValueError(
            f"cv={cv!r} wants labels, but y holds probabilities. Pass a splitter that asks for none, such as KFold, or "
            "the list of what it makes of labels, list(cv.split(X, labels))."
        )
    try:
        splits = [(train, test) for train, test in splitter.split(X, labels, **parameters)]
    except (TypeError, ValueError) as error:
        if "unpack" not in str(error):
            raise
        raise ValueError(f"cv must give pairs of training and test indices, got {cv!r}: {error}.") from error
    if not splits:
        raise ValueError(f"cv={cv!r} gives no folds, but at least one is needed.")
    return [tuple(_row_numbers(fold, part, n_rows) for part in split) for fold, split in enumerate(splits)]


def _row_numbers(fold: int, part, n_rows: int) -> np.ndarray:
    """The rows of a part of a fold, from a mask or from indices, which may count from the end."""
    part = np.asarray(part)
    if part.ndim != 1:
        raise ValueError(f"cv must give indices or masks of one dimension, but fold {fold} has some of {part.ndim}.")
    try:
        return np.arange(n_rows)[part if part.size else part.astype(int)]
    except IndexError as error:
        raise ValueError(f"cv gives indices in fold {fold} that do not fit {n_rows} rows: {error}.") from error


def warn_of_unknown_classes(classes: np.ndarray, index: np.ndarray, trained, tests, weights: np.ndarray) -> None:
    """Warn if rows of a class are held out where none of it is trained on.

    Rows are of the ``classes`` of this ``index`` (n,), count ``weights`` (n,) in scores and ``trained`` (F, n) in fits.
    """
    for fold, (of_train, test) in enumerate(zip(trained, tests, strict=True)):
        known, asked = (np.bincount(i, w, len(classes)) for i, w in ((index, of_train), (index[test], weights[test])))
        if (unknown := (known <= 0) & (asked > 0)).any():
            comes_out = (
                "comes out at 36 or more, or somewhat less with an L1 penalty" if len(classes) > 2 else "depends on tol"
            )
            _warn_of(f"Fold {fold} of cv", classes[unknown].tolist(), comes_out)
            return


def warn_of_single_rows(classes: np.ndarray, index: np.ndarray, trained: np.ndarray, weights: np.ndarray) -> None:
    """The same where each row is held out by itself: of classes without a row that counts, or with a single one."""
    counts = np.bincount(index, trained > 0, len(classes))
    if (unknown := (counts[index] <= (trained > 0)) & (weights > 0)).any():
        _warn_of("cv='alo'", classes[np.unique(index[unknown])].tolist(), "depends on tol")


def _warn_of(who: str, labels: list, comes_out: str) -> None:
    named = ", ".join(map(repr, labels[:NAMED])) + (f" and {len(labels) - NAMED} more" if len(labels) > NAMED else "")
    warnings.warn(
        f"{who} holds out rows of the class{'es' * (len(labels) > 1)} {named}, of which it trains on none: their log "
        f"loss has no bound, and {comes_out}. Pass a stratified splitter, or leave out classes of so few rows, or to "
        "which class_weight or sample_weight gives none.",
        UserWarning,
        stacklevel=6,
    )


def refuse_single_row(n_rows: int) -> None:
    """Refuse to leave the only row out that counts."""
    if n_rows < 2:
        raise ValueError("cv='alo' leaves each row out, but only one has a positive weight: there is nothing to fit.")


def refuse_weightless(verb: str, weights) -> None:
    """Refuse folds without rows that count, by what the rows of each weigh."""
    if len(wrong := np.flatnonzero(np.asarray(weights) <= 0)):
        raise ValueError(f"Fold {wrong[0]} of cv {verb} no row with a positive weight.")
