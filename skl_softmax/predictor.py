"""What a fitted model does: logits, probabilities, labels."""

from collections.abc import Callable
from inspect import signature
from math import isfinite

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils.validation import check_array, check_is_fitted
from torch import Tensor

from skl_softmax._version import DOCUMENTATION
from skl_softmax.data import RowBlocks, linear, plain_torch
from skl_softmax.finite import check_finite
from skl_softmax.inputs import (
    as_arrays,
    as_given,
    as_matrix,
    check_prediction_rows,
    check_weights,
    dense_array,
    naming,
    refuse_beside_blocks,
)
from skl_softmax.objective.losses import loss_for, most_probable
from skl_softmax.targets import refuse_probabilities


class LinearPredictor(ClassifierMixin):
    """Predictions from ``classes_``, ``coef_`` and ``intercept_``: arrays, or tensors where X is one."""

    # Where the HTML representation links to.
    _doc_link_module = "skl_softmax"
    _doc_link_template = f"{DOCUMENTATION}/api/skl_softmax.{{estimator_name}}.html"

    def decision_function(self, X):
        """Logits: W x + b.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        logits : ndarray or tensor of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, that of ``classes_[1]``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named.
        """
        return as_given(self._of_logits(lambda logits: logits[:, 0] if logits.shape[1] == 1 else logits, X), X)

    def predict_proba(self, X):
        """Probabilities of the classes: softmax, or sigmoid for two classes, of the logits.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray or tensor of shape (n_samples, n_classes)
            In the order of ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named.
        """
        return as_given(self._of_logits(lambda logits: loss_for(logits.shape[1]).proba(logits), X), X)

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes, exact also where a probability underflows.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_proba : ndarray or tensor of shape (n_samples, n_classes)
            In the order of ``classes_``.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named.
        """
        return as_given(self._of_logits(lambda logits: loss_for(logits.shape[1]).log_proba(logits), X), X)

    def predict(self, X):
        """The most probable class.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray or tensor of shape (n_samples,)
            Elements of ``classes_``; strings, and what else torch does not hold, are an array also where X is a tensor.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named.
        """
        index = self._of_logits(most_probable, X)  # (n,)
        labels = self.classes_[index.cpu().numpy()]
        is_torch = labels.dtype.kind in "biuf" and labels.dtype.isnative and labels.dtype.itemsize <= 8
        # Of the two types of NumPy's for the same integers torch knows the one that this name has.
        return as_given(torch.from_numpy(labels.view(labels.dtype.str)), X) if is_torch else labels

    def score(self, X, y=None, sample_weight=None):
        """The part of the rows whose label is predicted.

        Parameters
        ----------
        X : array-like, sparse matrix, tensor or RowBlocks of shape (n_samples, n_features)
            Rows.
        y : array-like or tensor of shape (n_samples,), default=None
            Their labels. `RowBlocks` hold theirs, and their weights.
        sample_weight : array-like or tensor of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        accuracy : float
            From 0 to 1.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        TypeError
            Without ``y``, unless ``X`` are `RowBlocks`.
        ValueError
            If X has other features than those of the fit, or NaN or infinity, of which row and column are named.
            If ``y`` holds probabilities, or no row has a positive weight.
        """
        check_is_fitted(self)
        if isinstance(X, RowBlocks):
            refuse_beside_blocks(y, sample_weight)
        elif y is None:
            raise TypeError("score needs y, the labels of the rows: only RowBlocks hold their own.")
        if not isinstance(X, RowBlocks):
            right, total = self._weight_of_hits(X, y, sample_weight)
        else:
            right = total = 0.0
            for number, block in enumerate(X):
                if np.shape(block[0])[0]:
                    with naming(f"Block {number}"):
                        hits, weight = self._weight_of_hits(*block)
                    right, total = right + hits, total + weight
        if not total:
            raise ValueError("X has no rows with a positive weight.")
        return float(right / total)

    def _weight_of_hits(self, X, y, sample_weight) -> tuple[float, float]:
        """The weight of the rows that are given their labels, and of all."""
        if y is None:
            raise ValueError("no labels are held: score needs RowBlocks of (X, y).")
        refuse_probabilities(y)
        labels = as_arrays(y)
        weights = check_weights(sample_weight, np.asarray(labels), may_be_zero=True)
        if not weights.any():  # a block need not have rows that count
            return 0.0, 0.0
        counted = None if sample_weight is None else weights  # with ones, NumPy wakes threads to add them up
        labels = check_array(labels, dtype=None, ensure_2d=False, input_name="y")
        right = accuracy_score(labels, as_arrays(self.predict(X)), normalize=False, sample_weight=counted)
        return right, weights.sum()

    def sparsify(self):
        """Store ``coef_`` in compressed rows, `scipy.sparse.csr_array`, which saves memory where most of it is zero.

        Predictions stay the same and take less time if few coefficients are left.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        """
        check_is_fitted(self)
        self.coef_ = csr_array(dense_array(self.coef_))
        return self

    def densify(self):
        """Store ``coef_`` as an array again.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            Before a fit.
        """
        check_is_fitted(self)
        self.coef_ = dense_array(self.coef_)
        return self

    def __setstate__(self, state):
        # Parameters that a stored model does not know yet have their defaults.
        known = signature(type(self)).parameters
        super().__setstate__({name: parameter.default for name, parameter in known.items()} | state)

    def _of_logits(self, function: Callable[[Tensor], Tensor], X) -> Tensor:
        check_is_fitted(self)
        if not isinstance(X, RowBlocks):
            with plain_torch():
                return self._of_rows(function, X)
        found = []
        for number, (x, *_) in enumerate(X):
            with naming(f"Block {number}"):
                found += [self._of_logits(function, x)] if np.shape(x)[0] else []
        if not found:
            raise ValueError("X has no rows.")
        return torch.cat(found)

    def _of_rows(self, function: Callable[[Tensor], Tensor], X) -> Tensor:
        weight = as_matrix(self.coef_)
        is_shown = weight.layout == torch.strided  # whether logits are not finite where X is not
        rows = check_prediction_rows(self, X, is_lazy=is_shown)

        def checked(logits: Tensor) -> Tensor:
            if is_shown and rows.layout == torch.strided and not isfinite(logits.sum()):
                check_finite(rows)
            return function(logits)

        return linear(rows, weight, as_matrix(self.intercept_), checked)
