"""Random problems of the hostile kind, ours against others: ``python -m tests.fuzz [cases] [first seed]``.

Rows 1 to 200, some of them repeated a thousand times; features 1 to 30, classes 2 to 8, some of one row; constant,
zero, equal, collinear and subnormal columns; scales over two, ten and 300 orders of magnitude, offsets; weights over
twelve orders, or repeats; soft targets; C from 1e-8 to 1e10 and inf; L2, elastic net and L1; dense and sparse, float64
and float32; with and without an intercept. A fit must end within LIMIT seconds, and not raise, hold NaN, or claim to
have converged where a solver of scikit-learn's, or SciPy's L-BFGS-B from there on, found less than it by more than
TOLERANCE and what rounding the coefficients costs.
"""

import sys
import time
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from benchmarks.measure import TimeUp, limit
from skl_softmax import TorchSoftmaxClassifier
from tests.reference import objective

# Ten times tol.
TOLERANCE = 1e-6
# Seconds that a fit may take.
LIMIT = 60.0
# Columns are mostly independent.
COLUMNS = ("normal", "constant", "zero", "equal", "collinear", "subnormal")
COLUMN_SHARES = (0.6, 0.1, 0.1, 0.08, 0.1, 0.02)
TARGETS = ("random", "linear", "lonely", "soft")
WEIGHTS = ("one", "orders", "counts")
STORAGES = ("float64", "float32", "csr")
# Rows at the beginning that are repeated, and how often.
REPEATED, REPEATS = 3, 1000


@dataclass(frozen=True)
class Case:
    """A problem in words, so that a failing one can be read, and made smaller."""

    n_rows: int
    columns: tuple[str, ...]  # what each is, of COLUMNS
    n_classes: int
    targets: str  # of TARGETS
    weights: str  # of WEIGHTS
    storage: str  # of STORAGES
    orders: int  # columns are sized 10^-orders to 10^orders
    offset: bool  # whether columns are up to 10^4 away from zero
    repeats: bool  # whether the first rows are repeated
    C: float
    l1_ratio: float
    fit_intercept: bool
    seed: int  # of the numbers in it

    @property
    def parameters(self):
        return {"C": self.C, "l1_ratio": self.l1_ratio, "fit_intercept": self.fit_intercept}

    @property
    def has_one_class(self):
        return self.targets != "soft" and self.n_rows == 1


def draw(seed):
    """A case, by a seed."""
    rng = np.random.default_rng(seed)
    pick = lambda *args, **kwargs: np.asarray(rng.choice(*args, **kwargs)).item()  # noqa: E731, plain Python
    return Case(
        n_rows=pick(200) + 1,
        columns=tuple(rng.choice(COLUMNS, size=pick(30) + 1, p=COLUMN_SHARES).tolist()),
        n_classes=pick(7) + 2,
        targets=pick(TARGETS, p=(0.35, 0.35, 0.15, 0.15)),
        weights=pick(WEIGHTS, p=(0.55, 0.2, 0.25)),
        storage=pick(STORAGES),
        orders=pick([1, 5, 150], p=[0.5, 0.4, 0.1]),
        offset=pick(10) < 3,
        repeats=pick(20) == 0,
        C=np.inf if pick(20) == 0 else 10 ** rng.uniform(-8, 10),
        l1_ratio=pick([0.0, 0.1, 0.5, 1.0], p=[0.5, 0.16, 0.17, 0.17]),
        fit_intercept=pick(5) > 0,
        seed=seed,
    )


def problem(case):
    """X, targets (n,) or (n, K), weights and how often each row is there."""
    rng = np.random.default_rng(case.seed)
    n, d = case.n_rows, len(case.columns)
    sizes = 10 ** rng.uniform(-case.orders, case.orders, d)
    X = design(case, rng) * sizes + (10 ** rng.uniform(-2, 4, d) if case.offset else 0)
    if case.storage == "float32":
        X = np.clip(X, -1e30, 1e30).astype(np.float32)
    subnormal = np.array(case.columns) == "subnormal"
    X[:, subnormal] = rng.normal(size=(n, subnormal.sum())) * (np.finfo(X.dtype).tiny / 100)
    targets, weights = draw_targets(case, rng, X), np.ones(n)
    if case.weights == "orders":
        weights = 10 ** rng.uniform(-6, 6, n)
    elif case.weights == "counts":
        weights = rng.integers(0, 4, n).astype(float)
    weights[: case.n_classes] = np.maximum(weights[: case.n_classes], 1e-3)  # every class counts
    repeats = np.ones(n, int)
    repeats[:REPEATED] = REPEATS if case.repeats else 1
    if case.storage == "csr":
        X = sp.csr_array(np.where(rng.random(X.shape) < 0.5, 0, X))
    return X, targets, weights, repeats


def design(case, rng):
    """Columns of size 1 that are independent, constant, zero, equal or collinear."""
    X = rng.normal(size=(case.n_rows, len(case.columns)))
    for j, kind in enumerate(case.columns):
        if kind == "constant":
            X[:, j] = rng.normal()
        elif kind == "zero":
            X[:, j] = 0
        elif kind == "equal" and j:
            X[:, j] = X[:, rng.integers(0, j)]
        elif kind == "collinear" and j:
            X[:, j] = X[:, :j] @ rng.normal(size=j)
    return X


def draw_targets(case, rng, X):
    """Labels, of which the first rows have one each, or probabilities (n, K), half of them 0 or 1."""
    n, K = case.n_rows, case.n_classes
    if case.targets == "soft":
        soft = rng.dirichlet(np.ones(K), size=n)
        return np.where(rng.random((n, 1)) < 0.5, soft, np.eye(K)[rng.integers(0, K, n)])
    K = min(K, n)
    y = np.r_[np.arange(K), rng.integers(0, K, n - K)]
    if case.targets == "linear":
        sizes = np.abs(X).max(axis=0).astype(float)
        logits = (X / np.where(sizes > 0, sizes, 1)) @ rng.normal(size=(X.shape[1], K)) * 3 + rng.normal(size=(n, K))
        y[K:] = logits.argmax(axis=1)[K:]
    if case.targets == "lonely":  # classes of one row each, but for one
        y[K:] = 0
    return y


def rounding(model, X, weights):
    """What F may change by as coefficients are rounded to their dtype: the loss by twice the largest logit's change."""
    sums = np.abs(X) @ np.abs(model.coef_.astype(float)).T + np.abs(model.intercept_)  # (n, K)
    return np.finfo(model.coef_.dtype).eps * (weights @ sums.max(axis=1)) / weights.sum()


def lowest(X, proba, weights, parameters):
    """The lowest F that scikit-learn finds, with each row once for every class that is possible for it."""
    smooth = parameters["l1_ratio"] == 0 or np.isinf(parameters["C"])
    rows, labels = np.nonzero(proba * weights[:, None])
    found = [np.inf]
    for solver in ("newton-cholesky", "lbfgs") if smooth else ("saga",):
        for tol in (1e-4, 1e-10):
            settings = parameters | ({"l1_ratio": 0.0} if smooth else {})
            model = LogisticRegression(solver=solver, tol=tol, max_iter=2000, **settings)
            try:
                with limit(LIMIT):
                    model.fit(X[rows], labels, weights[rows] * proba[rows, labels])
                if len(model.classes_) == proba.shape[1]:
                    found.append(objective(model, X, proba, sample_weight=weights, **parameters))
            except (ValueError, FloatingPointError, np.linalg.LinAlgError, TimeUp):
                continue  # peers may fail
    return np.nanmin(found)


def improved(model, X, proba, weights, parameters, tiny):
    """The lowest F that SciPy's L-BFGS-B finds from a fitted model, by weights that are split into two parts >= 0.

    In columns that are centred, if there is an intercept, and divided by their size, unless that is ``tiny`` at most.
    """
    mean = X.mean(axis=0) * parameters["fit_intercept"]
    sizes = np.abs(X - mean).max(axis=0)
    sizes[~(sizes > tiny)] = 1.0
    rows, n_outputs = (X - mean) / sizes, len(model.coef_)
    strength = 0.0 if np.isinf(parameters["C"]) else 1 / (parameters["C"] * weights.sum())
    l1, l2 = parameters["l1_ratio"] * strength / sizes, (1 - parameters["l1_ratio"]) * strength / sizes / sizes
    W, shares = model.coef_.astype(float), (weights / weights.sum())[:, None]
    b = model.intercept_ + W @ mean

    def value(parts):
        up, down, bias = np.split(parts, [W.size, 2 * W.size])
        up, down = up.reshape(W.shape), down.reshape(W.shape)
        logits = rows @ (up - down).T + bias
        logits = np.column_stack([np.zeros(len(rows)), logits]) if n_outputs == 1 else logits
        log_proba = log_softmax(logits, axis=1)
        residual = (shares * (np.exp(log_proba) - proba))[:, -n_outputs:]
        slope = residual.T @ rows + l2 * (up - down)
        loss = -(shares * np.where(proba > 0, proba * log_proba, 0)).sum()
        F = loss + (l1 * (up + down)).sum() + 0.5 * (l2 * (up - down) ** 2).sum()
        slope_of_bias = residual.sum(axis=0) * parameters["fit_intercept"]
        return F, np.concatenate([(slope + l1).ravel(), (l1 - slope).ravel(), slope_of_bias])

    begin = W * sizes
    begin = np.concatenate([np.maximum(begin, 0).ravel(), np.maximum(-begin, 0).ravel(), b])
    bounds = [(0, None)] * (2 * W.size) + [(None, None)] * n_outputs
    settings = {"maxiter": 200, "maxfun": 1000, "ftol": 0.0, "gtol": 0.0}
    found = minimize(value, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=settings)
    return found.fun


def fit(case, X, targets, weights, repeats):
    """The fitted model and what it warned of."""
    index = np.repeat(np.arange(case.n_rows), repeats)
    model = TorchSoftmaxClassifier(**case.parameters)
    with warnings.catch_warnings(record=True) as said, limit(LIMIT):
        warnings.simplefilter("always")
        model.fit(X[index], targets[index], weights[index])
    return model, said


def check(case):
    """What is wrong with the fit of a problem, or None; and its seconds.

    In one thread, as the limit is one of time: two only get in each other's way on matrices this small.
    """
    drawn = problem(case)
    start = time.perf_counter()
    try:
        with threadpool_limits(limits=1):
            model, said = fit(case, *drawn)
        wrong = judge(case, model, said, *drawn)
    except TimeUp:
        wrong = f"no end in {LIMIT:g} s"
    except ValueError as error:
        wrong = None if case.has_one_class and "one class only" in str(error) else repr(error)
    except Exception as error:  # every other one is a finding
        wrong = repr(error)
    return wrong, time.perf_counter() - start


def judge(case, model, said, X, targets, weights, repeats):
    """What is wrong with a fitted model."""
    if not (np.isfinite(model.coef_).all() and np.isfinite(model.intercept_).all()):
        return "NaN"
    if other := [w for w in said if not issubclass(w.category, ConvergenceWarning)]:
        return f"warns {other[0].message}"
    if model.converged_ == bool(said):
        return f"converged_ is {model.converged_}, warnings {len(said)}"
    if not model.converged_:
        return None
    dense = X.toarray() if sp.issparse(X) else X.astype(float)
    proba = targets if targets.ndim == 2 else np.eye(len(model.classes_))[targets]
    weights = weights * repeats
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        ours = objective(model, dense, proba, sample_weight=weights, **case.parameters)
        best = lowest(dense, proba, weights, case.parameters)
        best = np.nanmin([best, improved(model, dense, proba, weights, case.parameters, np.finfo(X.dtype).tiny)])
    if not ours - best <= TOLERANCE * abs(best) + rounding(model, dense, weights):
        return f"claims to have converged at {ours:.9g}, but another solver finds {best:.9g}"
    return None


def main(n_cases=10_000, first=0):
    """Check many; print what is wrong. A fit that says that it did not converge is not."""
    wrong, slowest = 0, (0.0, None)
    for seed in range(first, first + n_cases):
        said, seconds = check(draw(seed))
        slowest = max(slowest, (seconds, seed))
        if said:
            wrong += 1
            print(seed, said, flush=True)
    print(f"{n_cases} cases, {wrong} wrong, slowest {slowest[0]:.1f} s (seed {slowest[1]})")
    return wrong


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])) > 0)
