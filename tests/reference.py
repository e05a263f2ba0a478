"""F and its optimum by routes that share no code with the package."""

import numpy as np
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression


def objective(model, X, y, C=1.0, sample_weight=None, l1_ratio=0.0, **_):
    """F of a fitted model, in float64 NumPy, from its public attributes; y are labels or probabilities (n, K)."""
    X, W, b = np.asarray(X, np.float64), model.coef_.astype(np.float64), model.intercept_.astype(np.float64)
    s = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, np.float64)
    proba = y if np.ndim(y) == 2 else np.eye(len(model.classes_))[np.searchsorted(model.classes_, y)]  # (n, K)
    logits = X @ W.T + b
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    excess = logsumexp(logits, axis=1, keepdims=True) - logits  # (n, K), minus log-probabilities
    loss = np.where(proba > 0, proba * excess, 0).sum(axis=1)
    penalty = 0.0 if np.isinf(C) else (l1_ratio * np.abs(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum()) / C
    return (s @ loss + penalty) / s.sum()


def converged(X, y, C=1.0, fit_intercept=True, class_weight=None, sample_weight=None):
    """scikit-learn's Newton-Cholesky at a tight tolerance."""
    model = LogisticRegression(
        C=C, fit_intercept=fit_intercept, class_weight=class_weight, solver="newton-cholesky", tol=1e-12, max_iter=1000
    )
    return model.fit(X, y, sample_weight=sample_weight)


def relative_error(actual, expected):
    """The largest difference, relative to the largest entry."""
    return np.abs(actual - expected).max() / np.abs(expected).max()
