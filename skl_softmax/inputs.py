"""What the user passed, checked and turned into tensors.

With `skl_softmax.routing` the only file that imports scikit-learn's less public helpers, but for those that every
estimator does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import signature
from reprlib import repr as shortened

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import _safe_indexing, column_or_1d
from sklearn.utils.validation import (
    _check_sample_weight,
    _check_y,
    _get_feature_names,
    check_array,
    check_consistent_length,
    validate_data,
)
from torch import Tensor

from skl_softmax.data import RowBlocks, as_tensor, csr_tensor, find_device, on_device, scipy_matrix, take_rows, widened
from skl_softmax.finite import check_finite, is_large, refuse_huge
from skl_softmax.targets import as_classes, encode_targets, has_columns, refuse_missing_labels, refuse_other_order

# What X may be, for scikit-learn's validation.
ROWS = {"dtype": [np.float64, np.float32], "accept_sparse": "csr"}


def with_signature(function: Callable) -> Callable:
    """The function with its signature at hand (PEP 362), which scikit-learn reads in every `fit` and `get_params`."""
    function.__signature__ = signature(function)
    return function


@contextmanager
def naming(part: str) -> Iterator[None]:
    """Errors in the block say in which part of the rows they are, one that is checked by itself."""
    try:
        yield
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{part}: {error}") from error


@dataclass(frozen=True)
class TrainingRows:
    """Rows ready for the objective: all with a weight > 0 and, of folds, those that are there to be scored."""

    X: Tensor  # (n, d), of any floating-point type
    targets: Tensor  # (n,) of class indices, or probabilities in float64: (n,) of the second of two classes or (n, K)
    weights: Tensor  # (n,), float64
    classes: np.ndarray  # (n_classes,)
    label_proba: Tensor | None = None  # (K, K), what class indices stand for if labels are smoothed
    is_checked: bool = True  # whether X is known to hold neither NaN nor infinity

    @property
    def dtype(self) -> torch.dtype:
        """In what coefficients are stored: float32 unless X is float64."""
        return widened(self.X.dtype)

    @property
    def n_outputs(self) -> int:
        """Outputs of the linear layer: one for two classes, else one each."""
        return 1 if len(self.classes) == 2 else len(self.classes)

    @property
    def has_labels(self) -> bool:
        """Whether targets are class indices, and not probabilities."""
        return not self.targets.is_floating_point()

    @property
    def output_targets(self) -> Tensor:
        """Targets as the outputs' loss takes them: where one output is all, probabilities of the second class."""
        if self.n_outputs > 1 or not self.has_labels:
            return self.targets
        return self.targets if self.label_proba is None else self.label_proba[self.targets, 1]

    @cached_property
    def counts(self) -> Tensor:
        """Which rows have a weight > 0, (n,)."""
        return self.weights > 0

    @property
    def counted(self) -> "TrainingRows":
        """These rows, to fit: others have no influence, not even on the coordinates."""
        return self if self.all_count else self._counted

    @cached_property
    def all_count(self) -> bool:
        """Whether all rows have a weight > 0."""
        return bool(self.counts.all())

    @cached_property
    def _counted(self) -> "TrainingRows":  # never the rows themselves: a cycle would hold them
        return self.take(self.counts.nonzero()[:, 0])

    def of_counted(self, by_row: Tensor) -> Tensor:
        """What there is of those rows, of what there is of all, (M, n)."""
        return by_row if self.all_count else by_row[:, self.counts]

    def take(self, index: Tensor) -> "TrainingRows":
        """Some of the rows."""
        return replace(self, X=take_rows(self.X, index), targets=self.targets[index], weights=self.weights[index])


def check_training_rows(
    estimator: BaseEstimator, X, y, sample_weight, classes=None, reset=True, for_folds=False, is_lazy=False
) -> TrainingRows:
    """Check X, y and the weights; encode the labels (`skl_softmax.targets`).

    ``is_lazy`` leaves NaN and infinity in large X to `check_finite`, for when F is not a number.

    ``n_features_in_`` and ``feature_names_in_`` are set, or without ``reset`` X is checked against them.
    ``for_folds`` keeps the rows of weight zero and leaves "balanced" weights of classes to `targets.balanced_weights`.
    """
    if isinstance(X, RowBlocks):
        raise TypeError(
            "X is RowBlocks, which only TorchSoftmaxClassifier takes, in fit, in what predicts and in score. Pass the "
            "rows themselves here: an array, which may be an np.memmap."
        )
    refuse_sparse_labels(y)
    X, y = as_rows(X), as_arrays(y)
    # Where rows are left out, what is found later would be named by another number.
    drops_rows = sample_weight is not None or isinstance(estimator.class_weight, (dict, np.ndarray))
    is_checked = drops_rows or not (is_lazy and is_large(X))
    refuse_missing_labels(y)
    refuse_other_order(y, classes)
    X, y = _check_arrays(estimator, X, y, reset, is_checked)
    weights = check_weights(sample_weight, X)
    targets, classes, of_row, label_proba = encode_targets(estimator, y, classes, weights, for_folds)
    if of_row is not None:
        with np.errstate(over="ignore"):
            weights = weights * of_row  # not in place: made of a data frame, they may be read-only
        _refuse_infinite(weights, "class_weight and sample_weight add")
    counts = (weights > 0) | (for_folds and weights.any())
    if not counts.any():
        raise ValueError("class_weight and sample_weight leave no row with a positive weight.")
    if not counts.all():  # left out, so that they have no influence, not even on rounding
        X, targets, weights = _some_rows(X, counts), targets[counts], weights[counts]
    X = as_matrix(X)
    X = on_device(X, find_device(estimator.device, X.device))
    label_proba = None if label_proba is None else torch.from_numpy(label_proba)
    return TrainingRows(X, torch.from_numpy(targets), torch.from_numpy(weights), classes, label_proba, is_checked)


def _check_arrays(estimator: BaseEstimator, X, y, reset: bool, is_checked: bool):
    """X and y, of as many rows, as scikit-learn's estimators check them, and tensors that it cannot hold likewise."""
    is_soft = has_columns(y)
    if not isinstance(X, Tensor):
        how = ROWS | {"order": "C", "multi_output": is_soft, "reset": reset, "ensure_all_finite": False}
        with _naming_columns(estimator, X, reset):
            X, y = validate_data(estimator, X, y, **how)
        if is_checked:
            check_finite(as_matrix(X))
        return X, y
    check_tensor_rows(estimator, X, reset, is_checked)
    if is_soft:
        y = check_array(y, dtype=None, ensure_2d=False, input_name="y")
    else:  # without `reset`, `validate_data` would warn of names again, and with it forget them
        y = validate_data(estimator, y=y) if reset else _check_y(y, estimator=estimator)
    check_consistent_length(X, y)
    return X, y


@contextmanager
def _naming_columns(estimator: BaseEstimator, X, reset: bool) -> Iterator[None]:
    """Errors of X, if it is a frame, name the columns that hold no numbers; NumPy would make some of times alone."""
    try:
        if _holds_times(X):
            raise TypeError("dates are no numbers, but days between them: (X - X.min()) / np.timedelta64(1, 'D')")
        yield
    except (TypeError, ValueError) as error:
        columns = range(X.shape[1]) if hasattr(X, "columns") else ()
        wrong = [j for j in columns if not _holds_numbers(_safe_indexing(X, j, axis=1))]
        if not wrong:
            raise
        validate_data(estimator, X, reset=reset, skip_check_array=True)  # other names than those of the fit come first
        names = _get_feature_names(X)
        raise ValueError(
            f"X has columns that hold no numbers: {shortened(wrong if names is None else names[wrong].tolist())} "
            f"({error}). Encode them, as with OneHotEncoder in make_column_transformer, or leave them out."
        ) from error


def _holds_times(X) -> bool:
    """Whether X, or the first column of a frame, is of dates, times or spans of time."""
    is_frame = hasattr(X, "columns") and X.shape[1]
    if not (is_frame or isinstance(X, np.ndarray)):
        return False
    first = _safe_indexing(X, 0, axis=1)[:1] if is_frame else X
    return getattr(getattr(first, "dtype", None), "kind", np.asarray(first).dtype.kind) in "mM"  # also with a time zone


def _holds_numbers(column) -> bool:
    return np.asarray(column).dtype.kind not in "mMc" and as_numbers(column).ndim == 1


def refuse_sparse_labels(y) -> None:
    """Refuse a sparse y, of which NumPy speaks in riddles."""
    if issparse(y):
        raise TypeError(
            f"y is a sparse {type(y).__name__}, but has to be dense. Pass y.toarray(), for labels .ravel()."
        )


def check_weights(sample_weight, X, may_be_zero: bool = False) -> np.ndarray:
    """Weights of the rows in float64, ones if there are none; ``may_be_zero`` lets all be, as those of a piece."""
    if sample_weight is None:
        return np.ones(X.shape[0])
    sample_weight = as_arrays(sample_weight)
    numbers = as_numbers(sample_weight)
    wrong = ~(numbers >= 0)
    if wrong.any() and not numbers.ndim:
        raise ValueError(f"sample_weight must have a number >= 0 for each row, or one for all, got {sample_weight!r}.")
    if wrong.any() and numbers.shape == (X.shape[0],):
        row = int(wrong.argmax())
        raise ValueError(f"Negative values or NaN in sample_weight: that of row {row} is {numbers[row]:g}.")
    how = {"dtype": np.float64, "ensure_non_negative": True, "copy": True, "allow_all_zero_weights": may_be_zero}
    rows = np.broadcast_to(0.0, X.shape[0])  # to be counted: with array API dispatch weights would follow a tensor
    weights = _check_sample_weight(sample_weight, rows, **how)
    _refuse_infinite(weights, "sample_weight adds")
    return np.require(weights, requirements="W")  # those of some series are not, of which torch warns


def _refuse_infinite(weights: np.ndarray, what: str) -> None:
    with np.errstate(over="ignore"):
        if not np.isfinite(weights.sum()):
            raise ValueError(f"{what} up to more than float64 holds. Divide the weights by their largest.")


def check_batch(estimator: BaseEstimator, X, y, classes, sample_weight) -> TrainingRows:
    """As `check_training_rows`, for a batch of a stream; ``classes`` are asked for in the first."""
    if estimator.class_weight == "balanced":
        raise ValueError(
            "class_weight='balanced' needs the labels of all rows, which partial_fit does not see. Pass "
            "dict(zip(classes, compute_class_weight('balanced', classes=classes, y=y))) of a sample of them "
            "(sklearn.utils.class_weight)."
        )
    if estimator.early_stopping:
        raise ValueError(
            "early_stopping=True holds out rows of a whole fit, and partial_fit sees a batch. Set early_stopping=False "
            "and score rows of your own between the batches."
        )
    is_first = not hasattr(estimator, "classes_")
    if is_first and classes is None and not has_columns(y):
        raise ValueError("classes must be passed in the first call of partial_fit: all labels that may come.")
    if not is_first:
        if classes is not None and not np.array_equal(np.unique(as_classes(classes)), estimator.classes_):
            began = shortened(estimator.classes_.tolist())
            raise ValueError(
                f"classes is {shortened(as_classes(classes).tolist())}, but partial_fit began with {began}."
            )
        classes = estimator.classes_ if classes is None else classes  # in the order of y's columns, where it has some
    return check_training_rows(estimator, X, y, sample_weight, classes, reset=is_first, is_lazy=True)


def check_prediction_rows(estimator: BaseEstimator, X, is_lazy: bool | None = None) -> Tensor:
    """Check X against what the estimator was fitted on.

    ``is_lazy`` leaves NaN and infinity in dense X to the caller: where not given, in large X.
    """
    X = as_rows(X)
    is_lazy = is_large(X) if is_lazy is None else is_lazy
    if isinstance(X, Tensor):
        check_tensor_rows(estimator, X, reset=False, is_checked=not is_lazy)
        return X
    if is_lazy and _is_as_fitted(estimator, X):
        return as_tensor(X)
    with _naming_columns(estimator, X, reset=False):
        X = validate_data(estimator, X, reset=False, ensure_all_finite=False, **ROWS)  # sparse of such a frame
    rows = as_matrix(X)
    if issparse(X) or not is_lazy:
        check_finite(rows)
    return rows


def _is_as_fitted(estimator: BaseEstimator, X) -> bool:
    """Whether scikit-learn's checks have nothing to find, or convert, in X, but for NaN and infinity.

    For a few hundred rows they take twice as long as the probabilities.
    """
    is_plain = type(X) is np.ndarray and X.dtype in ROWS["dtype"] and X.ndim == 2 and len(X) > 0
    n_features = getattr(estimator, "n_features_in_", None)  # None of a model whose coefficients were set by hand
    return is_plain and X.shape[1] == n_features and not hasattr(estimator, "feature_names_in_")


def refuse_bad_rows(rows: TrainingRows) -> None:
    """Refuse what in X makes F no number: NaN and infinity, where that has not been done, and what overflows."""
    if not rows.is_checked:
        check_finite(rows.X)
    refuse_huge(rows.X)


def note_features(estimator: BaseEstimator, X) -> None:
    """Set ``n_features_in_`` and ``feature_names_in_`` from X, whose values are checked elsewhere."""
    validate_data(estimator, X, skip_check_array=True)


def as_rows(X):
    """X as scikit-learn can check it: a tensor as the array or sparse matrix that shares its memory.

    What NumPy cannot hold, half precision and dense tensors on another device, is left, or becomes, a tensor of
    floating-point numbers. Sparse tensors are copied to the CPU. Other things are left alone.
    """
    if isinstance(X, np.ndarray) and X.dtype == np.float16:
        return as_tensor(X)
    if not isinstance(X, Tensor):
        if hasattr(X, "collect") and not hasattr(X, "shape"):
            raise TypeError(f"X is a {type(X).__name__}, which has no rows yet: pass X.collect().")
        return X
    _refuse_other_tensors(X)
    X = _plain(X)
    if X.layout != torch.strided:
        X = X.cpu()
        X = X.coalesce().to_sparse_csr() if X.layout == torch.sparse_coo else X
        return scipy_matrix(X.to(widened(X.dtype) if X.is_floating_point() else torch.float64))
    if X.device.type == "cpu":
        return X if X.dtype in (torch.float16, torch.bfloat16) else X.numpy()
    return X if X.is_floating_point() else on_device(X.cpu().double(), X.device)


def _refuse_other_tensors(X: Tensor) -> None:
    """Refuse tensors that are no matrix that NumPy or SciPy could hold, of which torch speaks in riddles."""
    if X.is_nested or X.layout not in (torch.strided, torch.sparse_coo, torch.sparse_csr):
        layout = "nested" if X.is_nested else X.layout
        raise TypeError(f"A tensor of layout {layout} is not supported: pass a dense one, CSR or COO.")
    if X.is_complex():
        raise ValueError(f"Complex data not supported: X is a tensor of {X.dtype}.")
    if X.is_quantized or (X.is_floating_point() and X.dtype.itemsize < torch.half.itemsize):
        how = "X.dequantize()" if X.is_quantized else "X.half()"
        raise TypeError(f"A tensor of {X.dtype} is not supported: pass {how}.")
    if X.layout != torch.strided and (X.ndim != 2 or X.dense_dim()):
        raise ValueError(f"A sparse X must have rows and columns of numbers, but its shape is {tuple(X.shape)}.")


def _plain(tensor: Tensor) -> Tensor:
    """Without a graph, and without signs that NumPy does not see."""
    return tensor.detach().resolve_neg()


def as_arrays(values):
    """Labels, weights or coefficients that may be a tensor, on any device, as an array.

    Nullable integers and bools of pandas, and categories that are bools, become plain ones if none is missing;
    scikit-learn would make floats of them.
    """
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    if getattr(categories, "dtype", None) == np.dtype(bool) and not values.isna().any():
        return np.asarray(values)
    plain = getattr(getattr(values, "dtype", None), "numpy_dtype", None)
    if plain is not None and plain.kind in "biu" and not values.isna().any():
        return values.to_numpy(plain)
    if not isinstance(values, Tensor):
        return values
    values = _plain(values).cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def as_labels(y):
    """Labels as splitters and scorers want them, an array or a series; probabilities of classes as they are."""
    y = as_arrays(y)
    is_plain = has_columns(y) or (hasattr(y, "iloc") and y.ndim == 1)
    return y if is_plain else column_or_1d(np.asarray(y))


def as_numbers(values) -> np.ndarray:
    """In float64; without dimensions, and not a number, where they are none."""
    try:
        return np.asarray(as_arrays(values), dtype=np.float64)
    except (TypeError, ValueError):
        return np.array(np.nan)


def as_given(result: Tensor, X):
    """A result as X was given: a tensor on its device, or an array."""
    return on_device(result, X.device) if isinstance(X, Tensor) else result.cpu().numpy()


def check_tensor_rows(estimator: BaseEstimator, X: Tensor, reset: bool, is_checked: bool) -> None:
    """Check dense X that NumPy cannot hold: half precision, which scikit-learn would widen, or on another device."""
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must have rows and columns, but its shape is {tuple(X.shape)}.")
    validate_data(estimator, X, skip_check_array=True, reset=reset)
    if is_checked:
        check_finite(X)


def _some_rows(X, mask: np.ndarray):
    return X[torch.from_numpy(mask).to(X.device)] if isinstance(X, Tensor) else X[mask]


def refuse_beside_blocks(y, sample_weight) -> None:
    """Refuse labels and weights that are passed beside `RowBlocks`."""
    if y is not None or sample_weight is not None:
        raise ValueError("Blocks hold their labels and weights: pass RowBlocks of (X, y, sample_weight), and neither.")


def check_start(name: str, value, shape: tuple[int, ...]) -> Tensor:
    """Check initial coefficients given by the user, in float64."""
    try:
        numbers = np.atleast_1d(np.asarray(dense_array(value), dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be an array of numbers of shape {shape}, got {shortened(value)}.") from error
    value = check_array(numbers, ensure_2d=False, allow_nd=True, input_name=name)
    if value.shape != shape:
        raise ValueError(
            f"{name} has shape {value.shape}, but these data call for {shape}: one row for each class (one for two "
            "classes), one column for each feature."
        )
    return as_tensor(value)


def torch_generator(random_state) -> torch.Generator:
    """A generator of its own for a fit: seeded with an int as such, from a RandomState by a draw, else afresh."""
    generator = torch.Generator()
    if random_state is None:
        generator.seed()
    elif isinstance(random_state, np.random.RandomState):
        generator.manual_seed(int(random_state.randint(2**31)))
    else:
        generator.manual_seed(int(random_state))
    return generator


def dense_array(X) -> np.ndarray:
    """X as an array: a tensor's values, or made dense if it is sparse."""
    return X.toarray() if issparse(X) else as_arrays(X)


def as_matrix(X) -> Tensor:
    """X as a tensor that shares its memory; sparse X in compressed rows, with sorted and unique entries."""
    if isinstance(X, Tensor):
        return X
    if not issparse(X):
        return as_tensor(X)
    if not X.has_canonical_format:
        X = X.copy()
        X.sum_duplicates()
    return csr_tensor(X)
