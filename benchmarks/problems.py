"""Named problems: what is fitted, on which data. Each function returns X and y; all are seeded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn import datasets
from sklearn.preprocessing import OneHotEncoder, StandardScaler


@dataclass(frozen=True)
class Problem:
    """Data by name. ``size`` is the row of the targets that it counts for."""

    name: str
    size: str
    load: Callable[[Path | None], tuple]
    dtype: str = "float64"

    def data(self, data_dir: Path | None):
        """X, in the problem's dtype, and y."""
        X, y = self.load(data_dir)
        return X.astype(self.dtype, copy=False), y


def bundled(name):
    return lambda _: getattr(datasets, f"load_{name}")(return_X_y=True)


@cache
def letter(data_dir):
    if data_dir is None:
        return datasets.fetch_openml("letter", version=1, return_X_y=True, as_frame=False)
    frame = pd.read_csv(data_dir / "letter.csv.gz")
    return frame.drop(columns="Letter").to_numpy(np.float64), frame["Letter"].to_numpy(object)


@cache
def covertype_10k(data_dir):
    if data_dir is None:
        X, y = covertype(None)
        return X[:10_000], y[:10_000]
    frame = pd.read_csv(data_dir / "covtype_10k.csv.gz")
    return frame.drop(columns="Cover_Type").to_numpy(np.float64), frame["Cover_Type"].to_numpy()


@cache
def covertype(_):
    return datasets.fetch_covtype(return_X_y=True)


@cache
def mnist_like(_):
    """10,000 images of 28 x 28 pixels, low-rank and spatially correlated, values 0 to 255, 10 classes."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 1, 28)
    blur = np.exp(-((grid[:, None] - grid) ** 2) / (2 * 0.06**2))
    patterns = np.einsum("ab,rbc,dc->rad", blur, rng.normal(size=(60, 28, 28)), blur).reshape(60, 784)
    y = rng.integers(10, size=10_000)
    codes = 0.12 * rng.normal(size=(10, 60))[y] + rng.normal(size=(10_000, 60)) * np.geomspace(1, 0.1, 60)
    pixels = codes @ patterns + 0.02 * patterns.std() * rng.normal(size=(10_000, 784))
    window = np.sin(np.pi * grid) ** 2  # dark corners, as in photographs of digits
    pixels = np.maximum(0, pixels * np.outer(window, window).reshape(784))
    return np.round(255 * np.minimum(1, pixels / np.quantile(pixels, 0.999))), y


@cache
def tall_scaled(_):
    return datasets.make_classification(
        200_000, 50, n_informative=25, n_redundant=12, n_classes=5, n_clusters_per_class=1, random_state=0
    )


@cache
def very_tall_scaled(_):
    return datasets.make_classification(
        1_000_000, 20, n_informative=10, n_redundant=5, n_classes=3, n_clusters_per_class=1, random_state=0
    )


def independent(n, d, n_classes):
    """Independent normal columns, as benign as data can be, and classes drawn by softmax of logits of variance 4."""

    @cache
    def normal(_):
        rng = np.random.default_rng(0)
        X = rng.normal(size=(n, d))
        logits = X @ rng.normal(size=(d, n_classes)) * (2 / np.sqrt(d))
        return X, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)

    return normal


def standardised(load):
    """Columns less their means, divided by their standard deviations."""

    @cache
    def scaled(data_dir):
        X, y = load(data_dir)
        return StandardScaler().fit_transform(X), y

    return scaled


def badly_scaled(load):
    """Columns multiplied by 10^U(-2, 3) and shifted by 10^U(-1, 3)."""

    @cache
    def raw(data_dir):
        X, y = load(data_dir)
        rng = np.random.RandomState(1)
        factors, shifts = 10 ** rng.uniform(-2, 3, X.shape[1]), 10 ** rng.uniform(-1, 3, X.shape[1])
        return X * factors + shifts, y

    return raw


@cache
def embeddings(_):
    """20,000 vectors of 512 correlated features around 100 class centres, of norm about one."""
    rng = np.random.default_rng(0)
    y = rng.integers(100, size=20_000)
    basis = np.linalg.qr(rng.normal(size=(512, 512)))[0] * np.geomspace(1, 0.02, 512)[:, None]
    X = (0.35 * rng.normal(size=(100, 512))[y] + rng.normal(size=(20_000, 512))) @ basis
    return X / np.linalg.norm(X, axis=1).mean() + 0.01 * rng.normal(size=512), y


@cache
def gene_like(_):
    """200 samples of 5,000 genes that 30 pathways move together, log-normal and on scales of their own, 4 classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=200)
    pathways = rng.normal(size=(200, 30)) + 0.7 * rng.normal(size=(4, 30))[y]
    loadings = rng.normal(size=(30, 5_000)) * (rng.random((30, 5_000)) < 0.1)
    logs = 0.5 * pathways @ loadings + 0.5 * rng.normal(size=(200, 5_000)) + rng.normal(scale=2, size=5_000)
    return np.exp(logs), y


@cache
def text_like(_):
    """20,000 documents of about 100 of 50,000 words, Zipf-distributed, tf-idf-like values, 20 topics."""
    rng = np.random.default_rng(0)
    n, d, per_row, n_classes = 20_000, 50_000, 100, 20
    y = rng.integers(n_classes, size=n)
    zipf = 1 / (np.arange(d) + 10.0)
    common = rng.choice(d, size=(n, per_row), p=zipf / zipf.sum())
    topics = rng.permutation(d)[: n_classes * 400].reshape(n_classes, 400)
    own = topics[y[:, None], rng.integers(400, size=(n, per_row))]
    words = np.where(rng.random((n, per_row)) < 0.1, own, common)
    values = rng.uniform(0.5, 1.5, size=(n, per_row)) / np.sqrt(per_row)
    indices, indptr = words.ravel().astype(np.int32), np.arange(0, n * per_row + 1, per_row, dtype=np.int32)
    X = sp.csr_array((values.ravel(), indices, indptr), shape=(n, d))  # SGDClassifier takes no other type of indices
    X.sum_duplicates()
    return X, y


@cache
def one_hot(_):
    """500,000 rows of 20 categorical columns of 1,000 levels each, one-hot, 2 classes."""
    rng = np.random.default_rng(0)
    n, n_columns, levels = 500_000, 20, 1_000
    codes = (levels * rng.random((n, n_columns)) ** 3).astype(np.int32) + levels * np.arange(n_columns, dtype=np.int32)
    effects = 0.5 * rng.normal(size=n_columns * levels)
    y = (effects[codes].sum(axis=1) + rng.logistic(size=n) > 0).astype(int)
    indptr = np.arange(0, n * n_columns + 1, n_columns, dtype=np.int32)
    return sp.csr_array((np.ones(n * n_columns), codes.ravel(), indptr), shape=(n, n_columns * levels)), y


@cache
def users(_):
    """200,000 visits of 20,000 users, few of whom come often, 500 cities and 30 devices, one-hot, and 5 numbers."""
    rng = np.random.default_rng(0)
    n, n_users, n_cities, n_devices = 200_000, 20_000, 500, 30
    user, device = (n_users * rng.random(n) ** 2).astype(int), rng.integers(n_devices, size=n)
    city, numbers = rng.integers(n_cities, size=n_users)[user], rng.normal(size=(n, 5))
    effects = (scale * rng.normal(size=k) for scale, k in ((0.7, n_users), (1.0, n_cities), (0.5, n_devices)))
    logits = sum(effect[level] for effect, level in zip(effects, (user, city, device), strict=True))
    logits += numbers @ rng.normal(size=5) + rng.logistic(size=n)
    levels = OneHotEncoder(dtype=np.float64).fit_transform(np.column_stack([user, city, device]))
    return sp.hstack([sp.csr_array(numbers), levels], format="csr"), np.digitize(logits, [-1.0, 1.0])


@cache
def census(_):
    """100,000 people: 3,000 towns and 300 jobs, one-hot, beside age, year, hours and income as they are."""
    rng = np.random.default_rng(0)
    n, n_towns, n_jobs = 100_000, 3_000, 300
    town, job = (n_towns * rng.random(n) ** 2).astype(int), (n_jobs * rng.random(n) ** 2).astype(int)
    age, year = rng.integers(18, 90, size=n), rng.integers(2000, 2025, size=n)
    hours, income = rng.poisson(38, size=n), np.round(np.exp(rng.normal(10, 0.6, size=n)))
    numbers = np.column_stack([age, year, hours, income])
    logits = 0.7 * rng.normal(size=n_towns)[town] + rng.normal(size=n_jobs)[job] + rng.logistic(size=n)
    logits += (numbers - numbers.mean(axis=0)) / numbers.std(axis=0) @ rng.normal(size=4)
    levels = OneHotEncoder(dtype=np.float64).fit_transform(np.column_stack([town, job]))
    return sp.hstack([sp.csr_array(numbers), levels], format="csr"), np.digitize(logits, [-1.0, 1.0])


PROBLEMS = {
    problem.name: problem
    for problem in (
        *(Problem(name, "tiny", bundled(name)) for name in ("iris", "wine", "breast_cancer")),
        Problem("digits", "medium", bundled("digits")),
        Problem("letter", "medium", letter),
        Problem("covertype_10k", "medium", covertype_10k),
        Problem("mnist_like", "medium", mnist_like),
        Problem("embeddings", "medium", embeddings),
        Problem("gene_like", "wide", gene_like),
        Problem("normal_1k", "benign", independent(1_000, 100, 3)),
        Problem("normal_5k", "benign", independent(5_000, 100, 2)),
        Problem("normal_5k_10", "benign", independent(5_000, 100, 10)),
        Problem("normal_30k", "benign", independent(30_000, 100, 10)),
        Problem("digits_scaled", "benign", standardised(bundled("digits"))),
        Problem("tall_scaled", "large", tall_scaled),
        Problem("tall_raw", "large", badly_scaled(tall_scaled)),
        Problem("tall_raw_float32", "large", badly_scaled(tall_scaled), "float32"),
        Problem("very_tall_scaled", "large", very_tall_scaled),
        Problem("very_tall_raw", "large", badly_scaled(very_tall_scaled)),
        Problem("very_tall_raw_float32", "large", badly_scaled(very_tall_scaled), "float32"),
        Problem("sparse_text", "large", text_like),
        Problem("sparse_one_hot", "large", one_hot),
        Problem("users", "nested", users),
        Problem("census", "mixed", census),
        Problem("covertype", "online", covertype),
    )
}
