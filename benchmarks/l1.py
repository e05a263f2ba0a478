"""L1 and elastic-net penalties: time to a relative gap of 1e-6 beside saga, and liblinear for two classes.

Dense features are standardised, which saga needs and ours does not. saga cannot be interrupted: it is run for 10, 20,
40, ... epochs with tol=0 until it is at the target, so that its time may be up to twice what it needs; where the next
run would be over the limit, it has as many epochs as fit it, and if these do not do, the limit is its time. F is
recomputed in NumPy; F* is the lower of that of our fit and of one at tol=1e-11.
"""

import json
import time
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks import measure
from benchmarks.peers import TOLERANCES
from benchmarks.problems import PROBLEMS
from benchmarks.run import machine
from skl_softmax import TorchSoftmaxClassifier

TARGET, REPEATS = 1e-6, 3
NEARLY = 0.9  # of the limit, after which saga is not run for more epochs
L1_RATIOS = (1.0, 0.5)


def wide(_):
    """2,000 rows of 5,000 independent features, 30 of which matter to each of 5 classes."""
    rng = np.random.default_rng(0)
    X, W = rng.normal(size=(2000, 5000)), np.zeros((5, 5000))
    for k in range(5):
        W[k, rng.choice(5000, 30, replace=False)] = rng.normal(size=30)
    return X, (X @ W.T + 2 * rng.gumbel(size=(2000, 5))).argmax(axis=1)


# Data and the values of C, from few to many coefficients.
TABLES = {
    "breast_cancer": (lambda _: load_breast_cancer(return_X_y=True), (0.01, 0.1, 1.0)),
    "digits": (lambda _: load_digits(return_X_y=True), (0.01, 0.1, 1.0)),
    "letter": (PROBLEMS["letter"].data, (0.01, 0.1, 1.0)),
    "covertype_10k": (PROBLEMS["covertype_10k"].data, (0.01, 0.1, 1.0)),
    "wide": (wide, (0.02, 0.1, 1.0)),
    "sparse_text": (PROBLEMS["sparse_text"].data, (0.5, 1.0, 10.0)),
}


def objective(model, X, y, C, l1_ratio):
    """F in float64 NumPy."""
    W, n = model.coef_, X.shape[0]
    penalty = l1_ratio * np.abs(W).sum() + (1 - l1_ratio) / 2 * (W**2).sum()
    return measure.objective(model, X, y, np.inf) + penalty / (C * n)


def timed(make, X, y):
    """Seconds of a fit, and the model."""
    model = make()
    return measure.timed_fit(model, X, y)[0], model


def saga(X, y, C, l1_ratio, best, limit):
    """Seconds to the target, or infinity, and the lowest gap."""
    spent, epochs, lowest = 0.0, 10, np.inf
    while spent < NEARLY * limit:
        make = lambda: LogisticRegression(C=C, l1_ratio=l1_ratio, solver="saga", tol=0.0, max_iter=epochs)  # noqa: B023, E731
        spent, model = timed(make, X, y)
        gap = objective(model, X, y, C, l1_ratio) / best - 1
        lowest = min(lowest, gap)
        if gap <= TARGET:
            return spent, lowest
        epochs = int(epochs * min(2.0, limit / spent))
    return np.inf, lowest


def liblinear(X, y, C, best):
    """Likewise. The intercept counts as one of its coefficients, so it is made cheap by its scaling."""
    lowest = np.inf
    for tol in TOLERANCES:
        make = lambda: LogisticRegression(  # noqa: E731
            C=C, l1_ratio=1.0, solver="liblinear", tol=tol, max_iter=10_000, intercept_scaling=1e3  # noqa: B023
        )  # fmt: skip
        seconds, model = timed(make, X, y)
        gap = objective(model, X, y, C, 1.0) / best - 1
        lowest = min(lowest, gap)
        if gap <= TARGET:
            return seconds, lowest
    return np.inf, lowest


def contest(name, X, y, C, l1_ratio, limit):
    """What the table says of one problem."""
    make = lambda **more: TorchSoftmaxClassifier(C=C, l1_ratio=l1_ratio, **more)  # noqa: E731
    fits = [timed(make, X, y) for _ in range(REPEATS)]
    _, model = fits[0]
    precise = timed(lambda: make(tol=1e-11), X, y)[1]
    value = objective(model, X, y, C, l1_ratio)
    best = min(value, objective(precise, X, y, C, l1_ratio))
    peers = {"saga": saga(X, y, C, l1_ratio, best, limit)}
    if len(model.classes_) == 2 and l1_ratio == 1:
        peers["liblinear"] = liblinear(X, y, C, best)
    result = {
        "problem": name, "shape": [*X.shape, len(model.classes_)], "C": C, "l1_ratio": l1_ratio, "limit": limit,
        "nonzero": float(np.mean(model.coef_ != 0)), "seconds": float(np.median([s for s, _ in fits])),
        "gap": value / best - 1, "duality_gap": float(model.optimality_gap_ / best), "passes": model.n_passes_,
        "peers": {peer: {"seconds": s, "gap": g} for peer, (s, g) in peers.items()}, "date": machine()["date"],
    }  # fmt: skip
    print({k: v for k, v in result.items() if k != "shape"}, flush=True)
    return result


def path(X, y, Cs, l1_ratio):
    """Passes and seconds of a path of C, warm and cold."""
    found = {}
    for name, warm_start in (("warm", True), ("cold", False)):
        model, passes = TorchSoftmaxClassifier(l1_ratio=l1_ratio, warm_start=warm_start), 0.0
        start = time.perf_counter()
        for C in Cs:
            passes += model.set_params(C=C).fit(X, y).n_passes_
        found[name] = {"passes": passes, "seconds": time.perf_counter() - start}
    return found


def ratio(result):
    """Time of the quickest peer that got there, or the limit, over ours; and whether it is the limit."""
    seconds = min(peer["seconds"] for peer in result["peers"].values())
    return min(seconds, result["limit"]) / result["seconds"], seconds > result["limit"]


def table(results):
    """Markdown, with the geometric mean."""
    rows = []
    for r in results:
        quotient, is_open = ratio(r)
        name, peer = min(r["peers"].items(), key=lambda item: item[1]["seconds"])
        reached = f"{peer['seconds']:.3g} ({name})" if np.isfinite(peer["seconds"]) else f"> {r['limit']:g}"
        rows.append(
            {
                "problem": r["problem"], "n × d × K": " × ".join(f"{n:,}" for n in r["shape"]), "C": f"{r['C']:g}",
                "l1_ratio": r["l1_ratio"], "not zero": f"{100 * r['nonzero']:.0f} %", "ours [s]": f"{r['seconds']:.3g}",
                "gap": f"{max(r['gap'], 0):.0e}", "passes": f"{r['passes']:.0f}", "best peer [s]": reached,
                "its lowest gap": f"{max(min(p['gap'] for p in r['peers'].values()), 0):.0e}",
                "ratio": f"{'≥ ' if is_open else ''}{quotient:.1f}×", "measured on": r["date"],
            }
        )  # fmt: skip
    quotients = [ratio(r)[0] for r in results]
    several = [q for q, r in zip(quotients, results, strict=True) if r["shape"][2] > 2]
    closed = [ratio(r)[0] for r in results if r["shape"][2] > 2 and not ratio(r)[1]]
    return (
        f"{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n\n"
        f"Geometric mean {geometric_mean(quotients):.1f}×, worst {min(quotients):.1f}×; with three or more classes, "
        f"for which liblinear has no softmax, {geometric_mean(several):.1f}× and {min(several):.1f}×; where a peer got "
        f"there within the limit, {geometric_mean(closed):.1f}×."
    )


def main(results: Path, data_dir: Path | None, limit: float, names=None):
    """Measure; write a table and the figures. Those of other problems stay."""
    file = results / "l1.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"results": [], "paths": {}}
    found, paths = known["results"], known["paths"]
    for name in names or TABLES:
        load, Cs = TABLES[name]
        X, y = load(data_dir)
        if not sp.issparse(X):
            X = StandardScaler().fit_transform(X)
        new = [contest(name, X, y, C, l1_ratio, limit) for C in Cs for l1_ratio in L1_RATIOS]
        found = [r for r in found if r["problem"] != name] + new
        paths[name] = path(X, y, np.geomspace(Cs[0], Cs[-1], 10), 1.0)
        record = {"machine": machine(), "results": found, "paths": paths}
        file.write_text(json.dumps(record, indent=1), encoding="utf-8")
    write(results)


def write(results: Path):
    """The Markdown from the figures."""
    record = json.loads((results / "l1.json").read_text(encoding="utf-8"))
    paths = pd.DataFrame(
        [
            {
                "problem": name,
                **{f"{kind} [passes]": f"{p['passes']:.0f}" for kind, p in kinds.items()},
                **{f"{kind} [s]": f"{p['seconds']:.2f}" for kind, p in kinds.items()},
            }
            for name, kinds in record["paths"].items()
        ]
    ).to_markdown(index=False, disable_numparse=True)
    about = record["machine"]
    text = (
        f"# L1 and elastic net\n\n{table(record['results'])}\n\n{__doc__.strip()}\n\n## Paths\n\n"
        f"Ten values of C from the smallest to the largest above, l1_ratio=1, each fit starting from the last "
        f"(warm_start) or from zero, on the days of these rows:\n\n{paths}\n\nMeasured on "
        f"{about['cores']} cores, scikit-learn {about['scikit-learn']}, torch {about['torch']}.\n"
    )
    (results / "l1.md").write_text(text, encoding="utf-8")
    print(text)
