"""Mini-batch descent on 200,000 x 50 x 5: time of an epoch, and time to a validation log loss within 1 % of the best.

Against a loop as one writes it in torch, skorch, `SGDClassifier`, and our own default solver. All with batches of 256,
a constant rate of 0.1 without momentum where they have one, scaled features.
"""

import json
import time
import warnings
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
RATE, BATCH, EPOCHS, ROUNDS, WITHIN = 0.1, 256, 8, 3, 0.01


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
    """skorch, an epoch in each call of ``partial_fit``, in float32."""
    net = NeuralNetClassifier(
        torch.nn.Linear, module__in_features=X.shape[1], module__out_features=5, criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD, lr=RATE, max_epochs=1, batch_size=BATCH, train_split=None, verbose=0,
    )  # fmt: skip
    X = X.astype(np.float32)
    for _ in range(2):
        start = time.perf_counter()
        net.partial_fit(X, y)
        seconds.append(time.perf_counter() - start)
        yield lambda Z: torch.softmax(torch.from_numpy(net.forward(Z.astype(np.float32)).numpy()), dim=1).numpy()


def one_versus_rest(X, y, seconds):
    """`SGDClassifier`, row by row, one class against the rest."""
    return by_epochs(SGDClassifier(loss="log_loss", alpha=1 / len(X), random_state=0), X, y, seconds)


def default(X, y, seconds):
    """Our default solver."""
    start = time.perf_counter()
    clf = TorchSoftmaxClassifier().fit(X, y)
    seconds.append(time.perf_counter() - start)
    yield clf.predict_proba


CONTESTANTS = {
    "TorchSoftmaxClassifier(sgd)": ours,
    "torch loop": torch_loop,
    "skorch": skorch_net,
    "SGDClassifier(log_loss)": one_versus_rest,
    "TorchSoftmaxClassifier()": default,
}


def measure():
    """Seconds of every epoch and the validation log loss after it, contestants in turn."""
    X, y = PROBLEMS["tall_scaled"].data(None)
    X, X_valid, y, y_valid = train_test_split(StandardScaler().fit_transform(X), y, test_size=0.1, random_state=0)
    runs = {name: [] for name in CONTESTANTS}
    for i in range(ROUNDS):
        for name, contestant in CONTESTANTS.items():
            if name == "skorch" and i > 1:
                continue  # minutes
            seconds, losses = [], []
            for proba in contestant(X, y, seconds):
                losses.append(log_loss(y_valid, proba(X_valid)))
            runs[name].append({"seconds": seconds, "losses": losses})
    return runs


def table(runs):
    """Markdown: an epoch, over the torch loop's, and the time to come near the best log loss."""
    best = min(min(run["losses"]) for entries in runs.values() for run in entries)
    loop = np.median([s for run in runs["torch loop"] for s in run["seconds"]])
    rows = []
    for name, entries in runs.items():
        epoch = np.median([s for run in entries for s in run["seconds"]])
        near = [time_to(run, (1 + WITHIN) * best) for run in entries]
        reached = np.median(near)
        rows.append(
            {
                "": name,
                "epoch [s]": f"{epoch:.3f}" if name != "TorchSoftmaxClassifier()" else "–",
                "over the torch loop's": f"{epoch / loop:.2f}×" if name != "TorchSoftmaxClassifier()" else "–",
                "to within 1 % of the best log loss [s]": f"{reached:.2f}" if np.isfinite(reached) else "not reached",
                "lowest log loss": f"{min(min(run['losses']) for run in entries):.4f}",
            }
        )
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)


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
    best = min(min(run["losses"]) for entries in runs.values() for run in entries)
    for (name, entries), marker in zip(runs.items(), "os^vD", strict=True):
        run = entries[-1]
        excess = np.maximum(np.array(run["losses"]) / best - 1, FLOOR)
        axes.plot(np.cumsum(run["seconds"]), excess, marker=marker, markersize=5, label=name)
    axes.axhline(WITHIN, color="black", linewidth=0.7, linestyle="--")
    axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="validation log loss above the lowest, relative")
    axes.set_xticks([0.2, 0.5, 1, 2], ["0.2", "0.5", "1", "2"])
    axes.set_xticks([], minor=True)
    axes.set_title("200,000 × 50, 5 classes; a point after each epoch")
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
        f"# Mini-batch descent\n\n{table(runs)}\n\n{__doc__.strip()}\n\nMedians of {ROUNDS} rounds in turn (skorch 2); "
        f"{record['date']}, {record['cores']} cores, {versions}.\n\n"
        "![Log loss against seconds](descent.png)\n"
    )
    (results / "descent.md").write_text(text, encoding="utf-8")
    print(text)
