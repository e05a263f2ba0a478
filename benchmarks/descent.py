"""Mini-batch descent on 200,000 x 50 x 5: time of an epoch, and time to a validation log loss within 1 % of the best.

Against a loop as one writes it in torch and skorch, each in both types, `SGDClassifier`, and our own default solver.
All with batches of 256, a constant rate of 0.1 without momentum where they have one, scaled features.
"""

import json
import time
import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier

from benchmarks.problems import PROBLEMS
from benchmarks.run import machine
from skl_softmax import TorchSoftmaxClassifier

FLOOR = 1e-5  # differences of the log loss below this are drawn there
RATE, BATCH, EPOCHS, ROUNDS, WITHIN = 0.1, 256, 8, 4, 0.01
PAUSE = 0.3  # seconds, as another library's threads spin for a while after its last call


def torch_loop(X, y, seconds):
    """What one writes in torch: a linear layer, index slices of a permutation. Yields the layer after each epoch."""
    X, y = torch.from_numpy(X), torch.from_numpy(y)
    layer = torch.nn.Linear(X.shape[1], 5, dtype=X.dtype)
    optimizer = torch.optim.SGD(layer.parameters(), lr=RATE)
    for _ in range(EPOCHS):
        start = time.perf_counter()
        order = torch.randperm(len(X))
        for i in range(0, len(X), BATCH):
            rows = order[i : i + BATCH]
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(X[rows]), y[rows]).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
        yield lambda Z: torch.softmax(layer(torch.from_numpy(Z)), dim=1).detach().numpy()


def by_epochs(clf, X, y, seconds):
    """An epoch in each call of ``partial_fit``."""
    for _ in range(EPOCHS):
        start = time.perf_counter()
        clf.partial_fit(X, y, classes=np.arange(5))
        seconds.append(time.perf_counter() - start)
        yield clf.predict_proba


def ours(X, y, seconds):
    """Our optimiser."""
    clf = TorchSoftmaxClassifier(solver="sgd", learning_rate=RATE, batch_size=BATCH)
    return by_epochs(clf, X, y, seconds)


def skorch_net(X, y, seconds):
    """skorch, an epoch in each call of ``partial_fit``."""
    net = NeuralNetClassifier(
        torch.nn.Linear, module__in_features=X.shape[1], module__out_features=5, criterion=torch.nn.CrossEntropyLoss,
        module__dtype=torch.from_numpy(X[:0]).dtype, optimizer=torch.optim.SGD, lr=RATE, max_epochs=1, batch_size=BATCH,
        train_split=None, verbose=0,
    )  # fmt: skip
    for _ in range(EPOCHS):
        start = time.perf_counter()
        net.partial_fit(X, y)
        seconds.append(time.perf_counter() - start)
        yield lambda Z: torch.softmax(net.forward(Z), dim=1).numpy()


def one_versus_rest(X, y, seconds):
    """`SGDClassifier`, row by row, one class against the rest."""
    return by_epochs(SGDClassifier(loss="log_loss", alpha=1 / len(X), random_state=0), X, y, seconds)


def default(X, y, seconds):
    """Our default solver."""
    start = time.perf_counter()
    clf = TorchSoftmaxClassifier().fit(X, y)
    seconds.append(time.perf_counter() - start)
    yield clf.predict_proba


OURS, LOOP, SKORCH = "TorchSoftmaxClassifier(sgd)", "torch loop", "skorch"
CONTESTANTS = {
    (OURS, "float64"): ours,
    (LOOP, "float64"): torch_loop,
    (SKORCH, "float64"): skorch_net,
    ("SGDClassifier(log_loss)", "float64"): one_versus_rest,
    ("TorchSoftmaxClassifier()", "float64"): default,
    (OURS, "float32"): ours,
    (LOOP, "float32"): torch_loop,
    (SKORCH, "float32"): skorch_net,
}


def measure():
    """Seconds of every epoch and the validation log loss after it, contestants in turn."""
    X, y = PROBLEMS["tall_scaled"].data(None)
    X, X_valid, y, y_valid = train_test_split(StandardScaler().fit_transform(X), y, test_size=0.1, random_state=0)
    tables = {dtype: (X.astype(dtype), X_valid.astype(dtype)) for dtype in ("float64", "float32")}
    runs = []
    for _ in range(ROUNDS):
        turns = []
        for (name, dtype), contestant in CONTESTANTS.items():
            run = {"name": name, "dtype": dtype, "seconds": [], "losses": []}
            turns.append((run, contestant(tables[dtype][0], y, run["seconds"])))
        for run, epochs in turns * EPOCHS:  # an epoch each in turn
            time.sleep(PAUSE)
            for proba in islice(epochs, 1):
                run["losses"].append(log_loss(y_valid, proba(tables[run["dtype"]][1]).astype(float)))
        runs += [run for run, _ in turns]
    return runs


def table(runs):
    """Markdown: an epoch, against the torch loop's and skorch's, and the time to come near the best log loss."""
    goal = (1 + WITHIN) * min(min(run["losses"]) for run in runs)
    rows = []
    for name, dtype in CONTESTANTS:
        mine = [run for run in runs if (run["name"], run["dtype"]) == (name, dtype)]
        epoch, reached = epoch_of(runs, name, dtype), np.median([time_to(run, goal) for run in mine])
        is_epoch = name != "TorchSoftmaxClassifier()"
        rows.append(
            {
                "": name,
                "type": dtype,
                "epoch [s]": f"{epoch:.3f}" if is_epoch else "–",
                "over the torch loop's": f"{epoch / epoch_of(runs, LOOP, dtype):.2f}×" if is_epoch else "–",
                "skorch's over it": f"{epoch_of(runs, SKORCH, dtype) / epoch:.1f}×" if is_epoch else "–",
                "to within 1 % of the best log loss [s]": f"{reached:.2f}" if np.isfinite(reached) else "not reached",
                "lowest log loss": f"{min(min(run['losses']) for run in mine):.4f}",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


def epoch_of(runs, name, dtype):
    """Median seconds of an epoch."""
    return np.median([s for run in runs if (run["name"], run["dtype"]) == (name, dtype) for s in run["seconds"]])


def time_to(run, loss):
    """Seconds until the validation log loss was that low."""
    for seconds, value in zip(np.cumsum(run["seconds"]), run["losses"], strict=True):
        if value <= loss:
            return seconds
    return np.inf


def picture(runs, path):
    """Log loss against seconds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    best = min(min(run["losses"]) for run in runs)
    last = [run for run in runs[-len(CONTESTANTS) :] if run["dtype"] == "float64"]
    for run, marker in zip(last, "os^vD", strict=True):
        excess = np.maximum(np.array(run["losses"]) / best - 1, FLOOR)
        axes.plot(np.cumsum(run["seconds"]), excess, marker=marker, markersize=5, label=run["name"])
    axes.axhline(WITHIN, color="black", linewidth=0.7, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="validation log loss above the lowest, relative")
    axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5], ["0.1", "0.2", "0.5", "1", "2", "5"])
    axes.set_xticks([], minor=True)
    axes.set_title("200,000 × 50, 5 classes, float64; a point after each epoch")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main(results: Path):
    """Measure; write a table, a picture and the figures."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runs = measure()
    record = machine()
    (results / "descent.json").write_text(json.dumps({"machine": record, "runs": runs}, indent=1), encoding="utf-8")
    picture(runs, results / "descent.png")
    versions = ", ".join(f"{name} {record[name]}" for name in ("scikit-learn", "torch", "skorch"))
    text = (
        f"# Mini-batch descent\n\n{table(runs)}\n\n{__doc__.strip()}\n\n"
        f"Medians of {ROUNDS * EPOCHS} epochs, one each in turn; {record['date']}, {record['cores']} cores, "
        f"{versions}.\n\n"
        "![Log loss against seconds](descent.png)\n"
    )
    (results / "descent.md").write_text(text, encoding="utf-8")
    print(text)
