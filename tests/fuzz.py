"""Random problems of the hostile kind, ours against scikit-learn: ``python tests/fuzz.py [cases] [first seed]``.

Rows 4 to 200, features 1 to 30, classes 2 to 7; constant, zero, equal and collinear columns; scales over two, ten and
300 orders of magnitude, offsets; weights over twelve orders, or repeats; C from 1e-8 to 1e6 and inf; L2, elastic net
and L1; dense and sparse, float64 and float32; with and without an intercept. A fit must not raise, hold NaN, or claim
to have converged where another solver found less than it by more than TOLERANCE.
"""

import sys
import time
import warnings

import numpy as np
import scipy.sparse as sp
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from skl_softmax import TorchSoftmaxClassifier

# Ten times tol; coefficients stored in float32 are rounded besides.
TOLERANCE, TOLERANCE_FLOAT32 = 1e-6, 1e-5


def draw(seed):
    """X, y, weights and parameters of a problem."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(4, 200)), int(rng.integers(1, 30))
    K = min(int(rng.integers(2, 8)), n)
    X = columns(rng, n, d)
    y = np.r_[np.arange(K), rng.integers(0, K, n - K)]
    if rng.random() < 0.5:
        sizes = np.abs(X).max(axis=0)
        logits = (X / np.where(sizes > 0, sizes, 1)) @ rng.normal(size=(d, K)) * 3 + rng.normal(size=(n, K))
        y[K:] = logits.argmax(axis=1)[K:]
    weights = np.ones(n)
    if (kind := rng.random()) < 0.2:
        weights = 10 ** rng.uniform(-6, 6, n)
    elif kind < 0.45:
        weights = rng.integers(0, 4, n).astype(float)
    weights[:K] = np.maximum(weights[:K], 1e-3)  # every class counts
    C = np.inf if rng.random() < 0.05 else 10 ** rng.uniform(-8, 6)
    l1_ratio = 0.0 if rng.random() < 0.5 else rng.choice([0.1, 0.5, 1.0])
    kind = rng.choice(["dense", "sparse", "float32"])
    if kind == "sparse":
        X = sp.csr_array(np.where(rng.random(X.shape) < 0.5, 0, X))
    if kind == "float32":
        X = np.clip(X, -1e30, 1e30).astype(np.float32)
    return X, y, weights, {"C": float(C), "l1_ratio": float(l1_ratio), "fit_intercept": bool(rng.random() < 0.8)}


def columns(rng, n, d):
    """Columns that are independent, constant, zero, equal or collinear, of any size."""
    X = rng.normal(size=(n, d))
    for j in range(d):
        kind = rng.integers(0, 10)
        if kind == 0:
            X[:, j] = rng.normal()
        elif kind == 1:
            X[:, j] = 0
        elif kind == 2 and j:
            X[:, j] = X[:, rng.integers(0, j)]
        elif kind == 3 and j:
            X[:, j] = X[:, :j] @ rng.normal(size=j)
    orders = rng.choice([1, 5, 150], p=[0.5, 0.4, 0.1])
    return X * 10 ** rng.uniform(-orders, orders, d) + (10 ** rng.uniform(-2, 4, d) if rng.random() < 0.3 else 0)


def objective(model, X, y, weights, C, l1_ratio, **_):
    """F in float64 NumPy."""
    W = model.coef_.astype(float)
    logits = X @ W.T + model.intercept_
    if logits.shape[1] == 1:
        logits = np.hstack([np.zeros_like(logits), logits])
    loss = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    penalty = 0.0 if np.isinf(C) else (l1_ratio * np.abs(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum()) / C
    return (weights @ loss + penalty) / weights.sum()


def lowest(X, y, weights, parameters):
    """The lowest F that scikit-learn finds."""
    smooth = parameters["l1_ratio"] == 0 or np.isinf(parameters["C"])
    found = [np.inf]
    for solver in ("newton-cholesky", "lbfgs") if smooth else ("saga",):
        for tol in (1e-4, 1e-10):
            settings = parameters | ({"l1_ratio": 0.0} if smooth else {})
            try:
                model = LogisticRegression(solver=solver, tol=tol, max_iter=2000, **settings).fit(X, y, weights)
                found.append(objective(model, X, y, weights, **parameters))
            except (ValueError, FloatingPointError, np.linalg.LinAlgError):
                continue  # peers may fail
    return np.nanmin(found)


def check(seed):
    """What is wrong with the fit of a problem, or None; and its seconds."""
    X, y, weights, parameters = draw(seed)
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = TorchSoftmaxClassifier(**parameters).fit(X, y, weights)
    seconds = time.perf_counter() - start
    if not (np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()):
        return "NaN", seconds
    if other := [w for w in said if not issubclass(w.category, ConvergenceWarning)]:
        return f"warns {other[0].message}", seconds
    if model.converged_ == bool(said):
        return f"converged_ is {model.converged_}, warnings {len(said)}", seconds
    if model.converged_:
        dense = X.toarray() if sp.issparse(X) else X.astype(float)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            ours, best = objective(model, dense, y, weights, **parameters), lowest(dense, y, weights, parameters)
        tolerance = TOLERANCE_FLOAT32 if X.dtype == np.float32 else TOLERANCE
        if ours - best > tolerance * abs(best):
            return f"claims to have converged at {ours:.9g}, but scikit-learn finds {best:.9g}", seconds
    return None, seconds


def main(n_cases=10_000, first=0):
    """Check many; print what is wrong. A fit that says that it did not converge is not."""
    wrong, slowest = 0, 0.0
    for seed in range(first, first + n_cases):
        problem, seconds = check(seed)
        slowest = max(slowest, seconds)
        if problem:
            wrong += 1
            print(seed, problem, flush=True)
    print(f"{n_cases} cases, {wrong} wrong, slowest fit {slowest:.1f} s")
    return wrong


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
