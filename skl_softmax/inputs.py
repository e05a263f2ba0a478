"""What the user passed, checked and turned into tensors.

The only file that touches scikit-learn's less public helpers.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state, compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_array, validate_data
from torch import Tensor

from skl_softmax.data import as_tensor, csr_tensor

# What X may be, for scikit-learn's validation.
ROWS = {"dtype": [np.float64, np.float32], "accept_sparse": "csr"}


@dataclass(frozen=True)
class TrainingRows:
    """Rows that count (weight > 0), ready for the objective."""

    X: Tensor  # (n, d), float32 or float64
    targets: Tensor  # (n,), int64, index into classes
    weights: Tensor  # (n,), float64
    classes: np.ndarray  # (n_classes,)

    @property
    def n_outputs(self) -> int:
        """Outputs of the linear layer: one for two classes, else one each."""
        return 1 if len(self.classes) == 2 else len(self.classes)


def check_training_rows(estimator: BaseEstimator, X, y, sample_weight) -> TrainingRows:
    """Check X, y and the weights; set ``n_features_in_`` and ``feature_names_in_``; encode the labels."""
    X, y = validate_data(estimator, X, y, **ROWS, order="C")
    if y.dtype.kind not in "biuUS":  # those are labels in any case; on iris the check takes a tenth of the fit
        check_classification_targets(y)
    encoder = LabelEncoder()
    targets = encoder.fit_transform(y)
    classes = encoder.classes_
    if len(classes) < 2:
        raise ValueError(
            f"y holds one class only, {classes.tolist()[0]!r}, but {type(estimator).__name__} needs at least "
            "two. Check how y was made or split."
        )
    weights = _row_weights(estimator.class_weight, classes, X, y, targets, sample_weight)
    counts = weights > 0
    if not counts.all():  # left out, so that they have no influence at all, not even on rounding
        X, targets, weights = X[counts], targets[counts], weights[counts]
    return TrainingRows(_matrix(X), torch.from_numpy(targets), torch.from_numpy(weights), classes)


def check_prediction_rows(estimator: BaseEstimator, X) -> Tensor:
    """Check X against what the estimator was fitted on."""
    return _matrix(validate_data(estimator, X, reset=False, **ROWS))


def check_start(name: str, value, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Check initial coefficients given by the user."""
    value = check_array(value, dtype=np.float64, ensure_2d=False, allow_nd=True, input_name=name)
    if value.shape != shape:
        raise ValueError(
            f"{name} has shape {value.shape}, but these data call for {shape}: one row for each class (one for two "
            "classes), one column for each feature."
        )
    return as_tensor(value).to(dtype)


def torch_generator(random_state) -> torch.Generator:
    """A generator of its own for a fit: seeded with an int as such, from a RandomState by a draw, else afresh."""
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
    elif isinstance(random_state, np.random.RandomState):
        generator.manual_seed(int(check_random_state(random_state).randint(2**31)))
    else:
        generator.manual_seed(int(random_state))
    return generator


@contextmanager
def unchanged_on_error(estimator: BaseEstimator) -> Iterator[None]:
    """Leave the estimator as it was if the block raises."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def _matrix(X) -> Tensor:
    """X as a tensor that shares its memory; sparse X in compressed rows, with sorted and unique entries."""
    if not issparse(X):
        return as_tensor(X)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return csr_tensor(X)


def _row_weights(class_weight, classes, X, y, targets, sample_weight) -> np.ndarray:
    weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True, copy=True)
    if class_weight is not None:
        by_class = compute_class_weight(class_weight, classes=classes, y=y, sample_weight=weights)
        if not (by_class >= 0).all():
            raise ValueError(f"class_weight must not be negative, got {class_weight!r}.")
        weights *= by_class[targets]
    if not weights.any():
        raise ValueError("class_weight and sample_weight leave no row with a positive weight.")
    return weights
