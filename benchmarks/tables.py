"""Hostile tables of the sizes that users have, drawn by number: medium and wide, raw and scaled, dense and sparse."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from sklearn.preprocessing import OneHotEncoder

KINDS = ("normal", "correlated", "raw", "repeated", "float32", "expression", "counts", "one-hot")
MOST_NUMBERS, MOST_PARAMETERS = 2e6, 2e4


@dataclass(frozen=True)
class Table:
    """Rows, their labels, and the C to fit with."""

    kind: str
    X: np.ndarray | sp.csr_array
    y: np.ndarray
    C: float


def draw(seed):
    """The table of this number: 30 to 5,000 rows, 30 to 4,000 columns, 2 to 60 classes."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(KINDS))
    while True:
        n, d = (int(10 ** rng.uniform(1.5, high)) for high in (3.7, 3.6))
        n_classes = int(rng.choice([2, 2, 3, 8, 20, 60]))
        if n > n_classes and n * d <= MOST_NUMBERS and d * n_classes <= MOST_PARAMETERS:
            break
    y = rng.integers(n_classes, size=n)
    y[:n_classes] = np.arange(n_classes)  # none is missing
    X = (sparse_rows if kind in ("counts", "one-hot") else dense_rows)(rng, kind, y, d)
    # In units in which rows have length one, as else hardly a C would matter to raw tables.
    length = np.sqrt(X.multiply(X).mean() * d if sp.issparse(X) else np.square(X - X.mean(axis=0)).mean() * d)
    return Table(kind, X, y, float(10 ** rng.uniform(-2, 5) / length**2))


def categories(seed):
    """10,000 rows of 2,500 users, most of them rare, two more categories and three numbers, one-hot; 3 classes.

    The columns of each category sum to one, as the intercept's does, so that only the penalty tells them apart.
    """
    rng = np.random.default_rng(seed)
    users, city = rng.zipf(1.3, 10_000) % 2500, rng.choice(4, 10_000, p=[0.9, 0.09, 0.009, 0.001])
    numbers = rng.normal(size=(10_000, 3))
    levels = OneHotEncoder().fit_transform(np.column_stack([users, city, rng.integers(3, size=10_000)]))
    logits = numbers[:, 0] + 1.5 * (city == 1) + rng.normal(size=2500)[users] + rng.logistic(size=10_000)
    X = sp.hstack([levels, sp.csr_array(numbers)], format="csr")
    return Table("categories", X, np.digitize(logits, [-1.0, 1.0]), float(10 ** rng.uniform(0, 2)))


def codes(seed):
    """2,000 rows of 2 to 20 normal columns, in which one to three values are 1e4 to 1e9, as codes for missing ones are.

    Their rows hold directions while they saturate; C is 1, 1e4 or infinite, and there are 2 to 6 classes.
    """
    rng = np.random.default_rng(seed)
    d, n_classes = int(rng.integers(2, 21)), int(rng.choice([2, 3, 6]))
    X = rng.normal(size=(2000, d))
    y = (X @ rng.normal(size=(d, n_classes)) + rng.gumbel(size=(2000, n_classes))).argmax(axis=1)
    for row in range(rng.integers(1, 4)):
        X[row, rng.integers(min(d, 2))] = 10 ** rng.uniform(4, 9)
    return Table("codes", X, y, float(rng.choice([1.0, 1e4, np.inf])))


def outliers(seed):
    """Correlated rows, dense and sparse by turns, in which one or three numbers are 1e2 to 1e6.

    500 to 3,000 rows, 60 to 1,000 columns, 2 to 40 classes around centres of their own, C from 0.1 to 1e5.
    """
    rng = np.random.default_rng(seed)
    sizes = [(1000, 300, 5), (600, 300, 10), (1000, 128, 20), (2000, 100, 3), (3000, 1000, 2), (500, 60, 40)]
    n, d, n_classes = sizes[seed // 2 % len(sizes)]
    y = rng.integers(n_classes, size=n)
    y[:n_classes] = np.arange(n_classes)
    X = (rng.normal(size=(n, d)) * np.arange(1, d + 1) ** -0.5) @ rng.normal(size=(d, d)) / d**0.5
    X += rng.choice([0.0, 0.5, 2.0]) * rng.normal(size=(n_classes, d))[y] / d**0.5
    has_length_one = rng.random() < 0.5
    if has_length_one:
        X /= np.linalg.norm(X, axis=1, keepdims=True)
    if seed % 2:
        X[rng.random((n, d)) < 0.9] = 0.0
    for _ in range(rng.choice([1, 3])):
        X[rng.integers(n), rng.integers(d)] = 10 ** rng.uniform(2, 6) * rng.choice([-1, 1])
    C = 10.0 ** rng.integers(-1, 4) * (100 if has_length_one else 1)
    return Table("outliers", sp.csr_array(X) if seed % 2 else X, y, C)


def dense_rows(rng, kind, y, d):
    """Rows around the centres of their classes, which may lie nearer or farther apart."""
    n, distance = len(y), rng.choice([0.0, 0.5, 3.0])
    X = rng.normal(size=(n, d)) + distance * (rng.normal(size=(y.max() + 1, d)) * (rng.random(d) < 0.1))[y]
    if kind == "correlated":
        X = X @ (rng.normal(size=(d, d)) / np.arange(1, d + 1))
    elif kind == "raw":
        width = rng.uniform(1, 4)
        X = X * 10 ** rng.uniform(-width, width, size=d) + 10 ** rng.uniform(-width, width, size=d)
    elif kind == "repeated":
        X[n // 2 :] = X[: n - n // 2]
    elif kind == "expression":
        X = np.exp(rng.uniform(0.5, 1.5) * X + rng.normal(scale=2, size=d))
    return X.astype(np.float32) if kind == "float32" else X


def sparse_rows(rng, kind, y, d):
    """Counts of words, most of them rare, some of a class's own; or levels of four categories."""
    n, n_classes = len(y), y.max() + 1
    if kind == "one-hot":
        levels = d // 4
        columns = levels * np.arange(4) + (levels * rng.random((n, 4)) ** 2).astype(int)
    else:
        own = rng.random((n, max(1, d // 20))) < rng.choice([0.0, 0.1, 0.5])
        common = (d * rng.random(own.shape) ** 3).astype(int)
        columns = np.where(own, (common % (d // n_classes + 1) + y[:, None] * (d // n_classes)) % d, common)
    ends = np.arange(0, columns.size + 1, columns.shape[1])
    X = sp.csr_array((np.ones(columns.size), columns.ravel(), ends), shape=(n, d))
    X.sum_duplicates()
    return X
