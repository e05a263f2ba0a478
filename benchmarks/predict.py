"""Probabilities of all training rows: `TorchSoftmaxClassifier` and the `LogisticRegression` of the same coefficients.

Each with two threads and, `LogisticRegression`, with one, the quicker of which counts; the problems' own types of X.
"""

import json
from contextlib import nullcontext
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks import measure
from benchmarks.problems import PROBLEMS
from benchmarks.run import machine
from skl_softmax import TorchSoftmaxClassifier

NAMES = (
    "iris",
    "breast_cancer",
    "digits",
    "letter",
    "covertype_10k",
    "mnist_like",
    "embeddings",
    "tall_scaled",
    "tall_raw_float32",
    "very_tall_scaled",
    "sparse_text",
    "sparse_one_hot",
)
TURNS = 9


def turn(model, X, n_threads):
    """Seconds of the first call after a rest and, the median, of those that follow it for a while."""
    with nullcontext() if n_threads is None else threadpool_limits(limits=n_threads):
        seconds = measure.turn(lambda: model.predict_proba(X), at_least=2)
    return seconds[0], float(np.median(seconds[1:]))


def contest(name, data_dir):
    """Medians over turns, of each contestant in seconds: after a rest, and going on."""
    X, y = PROBLEMS[name].data(data_dir)
    clf = TorchSoftmaxClassifier(tol=1.0).fit(X, y)
    theirs = clf.to_sklearn()
    contestants = {"ours": (clf, None), "1 thread": (theirs, 1), "2 threads": (theirs, 2)}
    np.testing.assert_allclose(clf.predict_proba(X[:1000]), theirs.predict_proba(X[:1000]), rtol=0, atol=1e-5)
    turns = [{label: turn(model, X, n) for label, (model, n) in contestants.items()} for _ in range(TURNS)]
    found = {label: np.median([t[label] for t in turns], axis=0).tolist() for label in contestants}
    result = {"problem": name, "shape": [*X.shape, len(clf.classes_)], "dtype": str(X.dtype), "seconds": found}
    print(result, flush=True)
    return result


def row(result):
    """A line of the table, and how many times ours is as quick."""
    rest, on = (
        {label: seconds[i] for label, seconds in result["seconds"].items()} for i in range(2)
    )  # after a rest, going on
    best, best_rest = (min(s["1 thread"], s["2 threads"]) for s in (on, rest))
    return {
        "problem": result["problem"],
        "n × d × K": " × ".join(f"{n:,}" for n in result["shape"]),
        "X": result["dtype"],
        "ours [ms]": f"{1e3 * on['ours']:.3g}",
        "LogisticRegression [ms]": f"{1e3 * best:.3g}",
        "ratio": f"{best / on['ours']:.1f}×",
        "after a rest [ms]": f"{1e3 * rest['ours']:.3g}",
        "LogisticRegression after a rest [ms]": f"{1e3 * best_rest:.3g}",
    }, best / on["ours"]


def write(results: Path):
    """The Markdown from the figures."""
    record = json.loads((results / "predict.json").read_text(encoding="utf-8"))
    rows = [row(result) for result in record["results"]]
    mean = geometric_mean(quotient for _, quotient in rows)
    about = record["machine"]
    text = (
        f"# Predictions\n\n{pd.DataFrame([r for r, _ in rows]).to_markdown(index=False, disable_numparse=True)}\n\n"
        f"Geometric mean {mean:.1f}×, worst {min(q for _, q in rows):.1f}×.\n\n{__doc__.strip()} Medians of {TURNS} "
        f'turns of each, a turn being the first call after a pause of {measure.PAUSE:g} s ("after a rest") and those '
        f"that follow it for {1e3 * measure.TURN:.0f} ms.\n\nMeasured on {about['date']} on {about['cores']} cores, "
        f"scikit-learn {about['scikit-learn']}, torch {about['torch']}.\n"
    )
    (results / "predict.md").write_text(text, encoding="utf-8")
    print(text)


def main(results: Path, data_dir: Path | None, names=None):
    """Measure; write a table and the figures."""
    found = [contest(name, data_dir) for name in names or NAMES]
    (results / "predict.json").write_text(json.dumps({"machine": machine(), "results": found}, indent=1), "utf-8")
    write(results)
