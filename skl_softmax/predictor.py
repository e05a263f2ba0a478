"""What a fitted model does: logits, probabilities, labels."""

import numpy as np
import torch
from scipy.sparse import csr_array
from sklearn.base import ClassifierMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skl_softmax.data import as_tensor, linear
from skl_softmax.inputs import as_matrix, check_prediction_rows, dense_array
from skl_softmax.losses import loss_for


class LinearPredictor(ClassifierMixin):
    """Predictions from ``classes_``, ``coef_`` and ``intercept_``."""

    def decision_function(self, X):
        """Logits: W x + b.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        logits : ndarray of shape (n_samples, n_classes), or (n_samples,) for two classes
            For two classes, that of ``classes_[1]``.
        """
        logits = self._logits(X).numpy()  # (n, K)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict_proba(self, X):
        """Probabilities of the classes: softmax, or sigmoid for two classes, of the logits.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        return loss_for(logits.shape[1]).proba(logits).numpy()

    def predict_log_proba(self, X):
        """Logarithms of the probabilities of the classes, exact also where a probability underflows.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        log_proba : ndarray of shape (n_samples, n_classes)
            In the order of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        return loss_for(logits.shape[1]).log_proba(logits).numpy()

    def predict(self, X):
        """The most probable class.

        Parameters
        ----------
        X : array-like or sparse matrix of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            Elements of ``classes_``.
        """
        logits = self._logits(X)  # (n, K)
        index = (logits[:, 0] > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1)  # (n,)
        return self.classes_[index.numpy()]

    def sparsify(self):
        """Store ``coef_`` in compressed rows, `scipy.sparse.csr_array`, which saves memory where most of it is zero.

        Predictions stay the same and take less time if few coefficients are left.

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        self.coef_ = csr_array(self.coef_)
        return self

    def densify(self):
        """Store ``coef_`` as an array again.

        Returns
        -------
        self : object
            The estimator.
        """
        check_is_fitted(self)
        self.coef_ = dense_array(self.coef_)
        return self

    @property
    def module_(self):
        """A `torch.nn.Linear` that shares the memory of ``coef_`` and ``intercept_``: change one, change both.

        After `sparsify`, a copy.
        """
        check_is_fitted(self)
        n_outputs, n_features = self.coef_.shape
        # skip_init, because Linear's own initialisation would draw from torch's global generator.
        module = nn.utils.skip_init(nn.Linear, n_features, n_outputs, bias=self.fit_intercept)
        module.weight = nn.Parameter(torch.from_numpy(np.require(dense_array(self.coef_), requirements="W")))
        if self.fit_intercept:
            module.bias = nn.Parameter(torch.from_numpy(np.require(self.intercept_, requirements="W")))
        return module

    def _logits(self, X) -> Tensor:
        check_is_fitted(self)
        return linear(check_prediction_rows(self, X), as_matrix(self.coef_), as_tensor(self.intercept_))  # (n, K)
