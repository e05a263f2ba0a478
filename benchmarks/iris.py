"""Iris with everything a scikit-learn user would pick for it, by repeated stratified 10-fold cross-validation.

Run as ``make iris``. Writes ``results/iris.md`` and ``results/iris.png`` beside this file. The contestants take turns
on each split, in one process and one thread, which is the fastest setting for all of them on 135 rows.
"""

import platform
import time
import warnings
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import sklearn
import torch
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.inspection import DecisionBoundaryDisplay
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import brier_score_loss, log_loss
from sklearn.model_selection import RepeatedStratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from threadpoolctl import threadpool_limits

from skl_softmax import TorchSoftmaxClassifier

RESULTS = Path(__file__).parent / "results"
OURS = "TorchSoftmaxClassifier"
N_REPEATS = 5


class AsFloat32(StandardScaler):
    """Standardised features in the dtype that a torch module expects."""

    def transform(self, X, copy=None):
        return super().transform(X, copy).astype(np.float32)


def contestants():
    """Each on raw features where it can be, on standardised ones where it has to be."""
    scaled = partial(make_pipeline, StandardScaler())
    linear = NeuralNetClassifier(
        torch.nn.Linear,
        module__in_features=4,
        module__out_features=3,
        criterion=torch.nn.CrossEntropyLoss,
        lr=0.5,
        max_epochs=50,
        batch_size=-1,
        train_split=None,
        verbose=0,
    )
    return {
        OURS: TorchSoftmaxClassifier(),
        "LogisticRegression(lbfgs)": LogisticRegression(),
        "LogisticRegression(newton-cholesky)": LogisticRegression(solver="newton-cholesky"),
        "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis(),
        "SGDClassifier(log_loss), scaled": scaled(SGDClassifier(loss="log_loss", random_state=0)),
        "MLPClassifier(()), scaled": scaled(MLPClassifier((), learning_rate_init=0.05, max_iter=500, random_state=0)),
        "skorch linear, scaled": make_pipeline(AsFloat32(), linear),
    }


def penalised_loss(model, X, y):
    """F of `LogisticRegression` at C=1, recomputed in float64."""
    logits = X @ model.coef_.T + model.intercept_
    loss = (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
    return loss + (model.coef_**2).sum() / (2 * len(y))


def iterations(model):
    """Passes through the solver's loop, under whatever name."""
    last = model[-1] if hasattr(model, "steps") else model
    if hasattr(last, "history"):
        return len(last.history)
    return int(np.max(getattr(last, "n_iter_", np.nan))) if hasattr(last, "n_iter_") else np.nan


def measure(name, model, X, y, train, test):
    """Fit and judge one contestant on one split."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        model.fit(X[train], y[train])
        fitted = time.perf_counter()
        proba = model.predict_proba(X[test])
        predicted = time.perf_counter()
    same_objective = isinstance(model, LogisticRegression | TorchSoftmaxClassifier)
    return {
        "classifier": name,
        "accuracy": (proba.argmax(axis=1) == y[test]).mean(),
        "log loss": log_loss(y[test], proba),
        "Brier score": brier_score_loss(y[test], proba),
        "fit [ms]": 1e3 * (fitted - start),
        "predict_proba [ms]": 1e3 * (predicted - fitted),
        "iterations": iterations(model),
        "fits that warn": len(caught) > 0,
        "objective": penalised_loss(model, X[train], y[train]) if same_objective else np.nan,
    }


def run():
    """One row for each split and contestant."""
    X, y = load_iris(return_X_y=True)
    optimum = LogisticRegression(solver="newton-cholesky", tol=1e-12)
    rows = []
    for number, (train, test) in enumerate(RepeatedStratifiedKFold(n_repeats=N_REPEATS, random_state=0).split(X, y)):
        best = penalised_loss(clone(optimum).fit(X[train], y[train]), X[train], y[train])
        models = list(contestants().items())
        turn = number % len(models)  # nobody is always first
        for name, model in models[turn:] + models[:turn]:
            row = measure(name, model, X, y, train, test)
            row["relative gap"] = np.maximum(0.0, row.pop("objective") / best - 1)
            rows.append(row)
    return pd.DataFrame(rows)


def table(rows):
    """Means of the scores, medians of the times, the largest gap."""
    how = {"accuracy": "mean", "log loss": "mean", "Brier score": "mean", "fit [ms]": "median"}
    how |= {"predict_proba [ms]": "median", "iterations": "median", "fits that warn": "mean", "relative gap": "max"}
    summary = rows.groupby("classifier").agg(how).loc[list(contestants())]
    formats = {"accuracy": "{:.3f}", "log loss": "{:.3f}", "Brier score": "{:.3f}", "fit [ms]": "{:.2f}"}
    formats |= {"predict_proba [ms]": "{:.2f}", "iterations": "{:.0f}", "fits that warn": "{:.0%}"}
    formats |= {"relative gap": "{:.0e}"}
    for column, pattern in formats.items():
        summary[column] = [pattern.format(value) if pd.notna(value) else "–" for value in summary[column]]
    return summary.reset_index()


def picture(rows, path):
    """Decision regions of ours; times and losses of all."""
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(
        1, 3, figsize=(13, 4.2), layout="constrained", gridspec_kw={"width_ratios": [5, 4, 4]}
    )
    iris = load_iris()
    X, y = iris.data[:, 2:], iris.target
    colors = ["#0072B2", "#E69F00", "#009E73"]
    DecisionBoundaryDisplay.from_estimator(
        TorchSoftmaxClassifier().fit(X, y), X, ax=left, multiclass_colors=colors, response_method="predict_proba",
        plot_method="pcolormesh", alpha=0.6, grid_resolution=400, xlabel="petal length [cm]", ylabel="petal width [cm]",
    )  # fmt: skip
    for k, name in enumerate(iris.target_names):
        left.scatter(*X[y == k].T, s=18, color=colors[k], edgecolor="black", linewidth=0.5, label=name)
    left.set_title(f"{OURS}, two features")
    left.legend(loc="upper left", framealpha=0.95)
    names = list(contestants())[::-1]
    by_name = rows.groupby("classifier")
    for axes, column, how, title in (
        (middle, "fit [ms]", "median", "median time of a fit [ms]"),
        (right, "log loss", "mean", "log loss on held-out rows"),
    ):
        values = by_name[column].agg(how).loc[names]
        bars = axes.barh(names, values, color=["#D55E00" if name == OURS else "#8A94A0" for name in names])
        axes.bar_label(bars, fmt="{:.3g}", padding=3, fontsize=8)
        axes.set_title(title)
        axes.margins(x=0.18)
        axes.spines[["top", "right"]].set_visible(False)
    middle.set_xscale("log")
    right.set_yticklabels([])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    mpl.use("Agg")
    RESULTS.mkdir(exist_ok=True)
    with threadpool_limits(limits=1):
        run()  # warm-up
        rows = run()
    versions = f"Python {platform.python_version()}, scikit-learn {sklearn.__version__}, torch {torch.__version__}"
    note = (
        f"Repeated stratified 10-fold ({N_REPEATS} repeats), default settings but for the networks' rates and epochs, "
        f"raw features unless scaled is said; {versions}, one thread. Relative gap: the largest (F − F*)/F* on the "
        "training rows, for those that minimise the same F."
    )
    text = table(rows).to_markdown(index=False, disable_numparse=True, colalign=("left", *["right"] * 8))
    (RESULTS / "iris.md").write_text(f"# Iris\n\n{text}\n\n{note}\n", encoding="utf-8")
    picture(rows, RESULTS / "iris.png")
    print(text, f"\nWritten to {RESULTS / 'iris.md'}", f"and {RESULTS / 'iris.png'}", sep="\n")


if __name__ == "__main__":
    main()
