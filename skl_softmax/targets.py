"""Labels and probabilities of classes, checked and encoded, and what classes weigh."""

from math import isnan
from reprlib import repr as shortened  # of thousands of labels, a message names some
from typing import NamedTuple

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_array, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

# How far from 1 the probabilities in a row of y may sum up to; they are then divided by the sum.
SUM_TOLERANCE = 1e-4


class Targets(NamedTuple):
    """What the number of outputs wants to know of y."""

    values: np.ndarray  # class indices (n,), or probabilities in float64: (n,) of the second of two classes or (n, K)
    classes: np.ndarray  # (n_classes,)
    of_row: np.ndarray | None  # (n,), what weights of rows are multiplied with, if anything
    label_proba: np.ndarray | None  # (K, K), what class indices stand for if labels are smoothed


def encode_targets(estimator: BaseEstimator, y, classes, weights: np.ndarray, for_folds: bool) -> Targets:
    """Targets of checked ``y``, of these classes or its own, by class_weight and label_smoothing.

    ``for_folds`` leaves "balanced" weights of classes to `balanced_weights`.
    """
    if has_columns(y):
        y, classes = check_probabilities(y, classes)
        proba, of_row = _weighted(*_settings(estimator, classes, weights @ y, for_folds, is_soft=True), y)
        return Targets(proba if len(classes) > 2 else proba[:, 1].copy(), classes, of_row, None)
    index, classes = _encode(y, classes)
    if estimator.class_weight is None and not estimator.label_smoothing:
        return Targets(index, classes, None, None)
    counts, label_proba = np.bincount(index, weights, minlength=len(classes)), None
    of_class, smoothing = _settings(estimator, classes, counts, for_folds)
    if smoothing:
        label_proba, of_class = _weighted(of_class, smoothing, np.eye(len(classes)))
    return Targets(index, classes, of_class[index], label_proba)


def true_targets(y, classes: np.ndarray) -> Tensor:
    """What rows are, by sorted classes: their indices (n,), or probabilities (n, K), or (n,) of the second of two."""
    refuse_missing_labels(y)
    refuse_other_order(y, classes)
    if not has_columns(y):
        return torch.from_numpy(_encode(column_or_1d(y), classes)[0])
    proba = torch.from_numpy(check_probabilities(y, classes)[0])  # (n, K)
    return proba[:, 1] if len(classes) == 2 else proba


def refuse_missing_labels(y) -> None:
    """Refuse None, NA, NaN and what is masked, of whose rows scikit-learn does not speak, or of objects in riddles."""
    kind, is_masked = getattr(getattr(y, "dtype", None), "kind", "O"), isinstance(y, np.ma.MaskedArray)
    if y is None or (isinstance(y, np.ndarray) and kind not in "OmMf" and not is_masked) or has_columns(y):
        return
    if is_masked:
        missing = np.flatnonzero(np.ma.getmaskarray(y))
    elif kind in "mMbiuf":
        is_missing = np.isnat if kind in "mM" else np.isnan
        missing = np.flatnonzero(y.isna() if hasattr(y, "isna") else is_missing(np.asarray(y)))
    else:
        labels = np.asarray(y, dtype=object)
        if not labels.ndim:  # no labels at all, of which scikit-learn speaks
            return
        missing = [i for i, y in enumerate(labels) if not isinstance(y, str) and _is_missing(y)]
    if len(missing):
        raise ValueError(f"y holds no label in row {missing[0]} ({len(missing)} in all). Leave out such rows.")


def refuse_probabilities(y) -> None:
    """Refuse probabilities of classes where labels are meant."""
    if has_columns(y):
        raise ValueError("y holds a column for each class, but the accuracy needs a label for each row.")


def refuse_other_order(y, classes) -> None:
    """Refuse probabilities in a data frame whose columns have the names of the classes in another order."""
    names = list(getattr(y, "column_names", getattr(y, "columns", ())))  # those of pyarrow's tables
    default = list(range(len(names)))
    if not has_columns(y) or names == default:
        return
    labels = default if classes is None else as_classes(classes).tolist()
    if names != labels and len(names) == len(labels) and set(names) == set(labels):
        raise ValueError(
            f"The columns of y are named {shortened(names)}, but are taken for the classes {shortened(labels)} in this "
            "order. Pass classes in the order of the columns, or the columns in that of the classes."
        )


def _is_missing(label) -> bool:
    return label is None or type(label).__name__ in ("NAType", "NaTType") or (isinstance(label, float) and isnan(label))


def _encode(y, classes) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the labels in the sorted classes, which are those of ``y`` unless they are given."""
    if y.dtype.kind == "S":
        raise TypeError("y holds bytes, which scikit-learn takes for no labels. Pass y.astype(str).")
    if y.dtype.kind not in "biuU":  # those are labels in any case; on iris the checks take a tenth of the fit
        refuse_other_objects(y)
        encoder = LabelEncoder()
        targets = encoder.fit_transform(y)
        found = encoder.classes_
        # Where the classes are given, of few rows each label may be another, which is no reason to wonder.
        check_classification_targets(y if classes is None else np.tile(found, 2))
    elif y.dtype.kind in "iu":
        found, targets = _unique_integers(y)
    else:
        found, targets = np.unique(y, return_inverse=True)
    is_given = classes is not None
    if not is_given:
        if len(found) > len(y) // 2:  # which says that these look like numbers to be predicted
            check_classification_targets(y)
        classes = found
    else:
        classes = np.unique(as_classes(classes))
        try:
            place = np.searchsorted(classes, found)
            unknown = found[classes[np.minimum(place, len(classes) - 1)] != found]
        except TypeError:  # strings beside numbers
            unknown = found
        if len(unknown):
            raise ValueError(
                f"y holds the labels {shortened(unknown.tolist())}, which are not among the classes "
                f"{shortened(classes.tolist())}."
            )
        targets = place[targets]
    refuse_single_class(classes, is_given)
    return targets, classes


def refuse_single_class(classes: np.ndarray, is_given: bool) -> None:
    """Refuse less than two classes, which were ``is_given`` or are those of y."""
    if len(classes) < 2:
        name, advice = ("classes", "pass all that may come") if is_given else ("y", "check how it was made or split")
        raise ValueError(
            f"{name} holds one class only, {classes.tolist()[0]!r}, but at least two are needed: {advice}."
        )


def as_classes(classes) -> np.ndarray:
    """The classes as the user passed them, which have an order."""
    found = np.asarray(classes.tolist() if isinstance(classes, Tensor) else classes)  # on any device, of any type
    given = classes if isinstance(classes, list | tuple) else found.tolist()  # an array makes strings of numbers
    labels = given if found.ndim == 1 else []
    is_mixed = len({isinstance(label, str) for label in labels}) > 1
    if not labels or is_mixed or any(map(_is_missing, labels)):
        raise ValueError(
            f"classes must be a one-dimensional array-like of labels, got {shortened(classes)}: all numbers or all "
            "strings, none missing."
        )
    return found


def refuse_other_objects(y: np.ndarray) -> None:
    """Refuse objects that are no strings, of which scikit-learn says that their type is unknown."""
    if y.dtype.kind == "O" and not all(isinstance(label, str) for label in y):
        kinds = sorted({type(label).__name__ for label in y})
        numbers = kinds[0] if kinds in (["bool"], ["float"], ["int"]) else None
        raise ValueError(
            f"Unknown label type: y holds objects of the types {', '.join(kinds)}, but has to be an array of numbers, "
            f"booleans or strings. Pass y.astype({numbers or 'str'})."
        )


def _unique_integers(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `numpy.unique` with the inverse, of integers, by counts where those between the least and the largest are few.

    Of 1,000,000 labels of three classes it takes a tenth of the time, and 8 MB instead of 42.
    """
    least, largest = int(y.min()), int(y.max())
    if largest - least >= len(y) or largest > np.iinfo(np.int64).max:
        return np.unique(y, return_inverse=True)
    places = np.subtract(y, least, dtype=np.int64, casting="unsafe")  # the differences of small types may be large
    counts = np.bincount(places)
    found = np.flatnonzero(counts)
    index = places if len(found) == len(counts) else (np.cumsum(counts > 0) - 1)[places]
    return (found + least).astype(y.dtype), index


def check_probabilities(y, classes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of probabilities of the classes, with columns in the order of the sorted classes."""
    try:
        y = check_array(y, dtype=np.float64, input_name="y")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"A two-dimensional y holds probabilities of the classes, which these are not: {error}"
        ) from error
    sums = y.sum(axis=1)
    if (wrong := (y < 0).any(axis=1) | (np.abs(sums - 1) > SUM_TOLERANCE)).any():
        row = int(wrong.argmax())
        raise ValueError(
            f"A two-dimensional y holds the probabilities of the classes, at least 0 and with a sum of 1 in each row, "
            f"but row {row} is {shortened(y[row].tolist())}, with a sum of {sums[row]:.6g}. Divide rows by their sums, "
            "or pass labels as a one-dimensional array."
        )
    y = y / sums[:, None]
    if classes is None:
        return y, np.arange(y.shape[1])
    classes, order = np.unique(as_classes(classes), return_index=True)
    if len(order) != y.shape[1]:
        raise ValueError(f"classes names {len(order)} different classes, but y has {y.shape[1]} columns.")
    return y[:, order], classes


def has_columns(y) -> bool:
    """Whether y holds probabilities of classes, with a column for each."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y, dtype=object).shape
    return len(shape) == 2 and shape[1] > 1


def _settings(
    estimator: BaseEstimator, classes, counts: np.ndarray, for_folds: bool, is_soft: bool = False
) -> tuple[np.ndarray, float]:
    """Weights of the classes and the label smoothing, from what the rows of each class weigh, ``counts`` (K,)."""
    class_weight, smoothing = estimator.class_weight, estimator.label_smoothing
    if for_folds and isinstance(class_weight, str):
        if is_soft or smoothing:
            raise ValueError(
                "class_weight='balanced' gives every fold targets of its own if they are probabilities or smoothed. "
                "Pass a dict of weights."
            )
        class_weight = None
    return _class_weight(class_weight, classes, counts), smoothing


def _weighted(by_class: np.ndarray, smoothing: float, proba: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Targets, smoothed and weighted by class, as probabilities (n, K) again and what to weigh the rows with (n,)."""
    proba = ((1 - smoothing) * proba + smoothing / proba.shape[1]) * by_class  # (n, K)
    of_row = proba.sum(axis=1)  # (n,)
    return proba / np.where(of_row > 0, of_row, 1)[:, None], of_row


def _class_weight(class_weight, classes, counts) -> np.ndarray:
    """Weights of the classes, from the weight (K,) of the rows of each.

    "balanced" is 1 for those that have none, which scikit-learn's function refuses, and which do not count.
    """
    if class_weight is None:
        return np.ones(len(classes))
    if isinstance(class_weight, np.ndarray):  # of `class_weights`
        return class_weight
    if isinstance(class_weight, str):
        with np.errstate(over="ignore"):
            by_class = np.where(counts > 0, counts.sum() / ((counts > 0).sum() * np.where(counts > 0, counts, 1)), 1)
        if not np.isfinite(by_class).all():
            k = by_class.argmax()
            raise ValueError(
                f"class_weight='balanced' is more than float64 holds for the class {classes[[k]].tolist()[0]!r}, whose "
                f"rows weigh {counts[k]:.3g} of {counts.sum():.3g}. Leave out such rows."
            )
        return by_class
    labels = classes.tolist()
    known = set(labels)
    unknown, missing = [label for label in class_weight if label not in known], known.difference(class_weight)
    try:  # not by scikit-learn's function, which looks for the numbers that labels such as "1" stand for
        by_class = np.array([class_weight.get(label, 1.0) for label in labels], dtype=np.float64)
        why = f"{shortened(unknown)} are none of them." if unknown and missing else None
    except (OverflowError, TypeError, ValueError) as error:
        why = error
    if why is not None:
        raise ValueError(
            f"class_weight must give a number for labels among the classes {shortened(labels)}, got "
            f"{shortened(class_weight)}: {why}"
        )
    if (wrong := ~((by_class >= 0) & np.isfinite(by_class))).any():
        label, weight = classes[wrong].tolist()[0], by_class[wrong][0]
        raise ValueError(f"class_weight must be finite and not negative, but that of {label!r} is {weight:g}.")
    return by_class


def class_weights(estimator: BaseEstimator, classes: np.ndarray, counts: np.ndarray) -> np.ndarray | None:
    """Weights of the sorted classes, from the weight of each class's rows, wherever the rows are; None if all are 1."""
    by_class = _class_weight(estimator.class_weight, classes, counts)
    return None if (by_class == 1).all() else by_class


def balanced_weights(estimator: BaseEstimator, classes: np.ndarray, weights: np.ndarray, index: Tensor) -> Tensor:
    """Weights (F, n) of the rows in F training parts, with "balanced" weights of each part's classes if asked for.

    Rows are of ``classes`` by this ``index`` (n,).
    """
    if not isinstance(estimator.class_weight, str):
        return torch.from_numpy(weights)
    index, weights = index.numpy(), weights.copy()
    for fold in range(len(weights)):
        by_class, of_class = np.ones(len(classes)), np.bincount(index, weights[fold], minlength=len(classes))
        found = of_class > 0
        by_class[found] = _class_weight("balanced", classes[found], of_class[found])
        weights[fold] *= by_class[index]
    return torch.from_numpy(weights)
