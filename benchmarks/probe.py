"""A linear probe on embeddings with a thousand classes: 100,000 x 512 x 1,000, float32 and float16.

One fit and a sweep over three C with one validation set, beside `LogisticRegression` on the float32 rows by newton-cg
and lbfgs, at ever smaller tolerances from 1e-4 on until a relative gap of 1e-6 is reached or a fit is stopped after the
limit. F is recomputed in float64 NumPy from the coefficients and the rows as they are stored; the gap is that to the
lowest F of rows of the same type.
"""

import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit

from benchmarks import measure
from benchmarks.peers import Setting
from benchmarks.run import machine
from skl_softmax import TorchSoftmaxClassifier, TorchSoftmaxClassifierCV

N_FEATURES, C, CS = 512, 1.0, (0.1, 1.0, 10.0)
TARGET, DTYPES = 1e-6, ("float32", "float16")
SOLVERS, TOLERANCES = ("newton-cg", "lbfgs"), (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)


def data(n_rows, n_classes):
    """Vectors of correlated features around class centres, of norm about one, in float32."""
    rng = np.random.default_rng(0)
    y = rng.integers(n_classes, size=n_rows)
    spread = np.geomspace(1, 0.02, N_FEATURES).astype(np.float32)
    basis = np.linalg.qr(rng.normal(size=(N_FEATURES, N_FEATURES)))[0].astype(np.float32) * spread[:, None]
    centres = 0.35 * rng.standard_normal((n_classes, N_FEATURES), dtype=np.float32)
    X = (centres[y] + rng.standard_normal((n_rows, N_FEATURES), dtype=np.float32)) @ basis
    return X / np.linalg.norm(X, axis=1).mean(), y


def single(name, make, X, y, limit):
    """What the table says of one fit."""
    with measure.PeakMemory() as memory:
        seconds, model, _ = measure.fit(Setting(name, "", lambda *_: make()), X, y, C, limit)
    found = {"name": name, "dtype": str(X.dtype), "seconds": seconds, "bytes": memory.bytes}
    if model is not None:
        found["F"] = measure.objective(model, X, y, C)
        found["passes"] = float(getattr(model, "n_passes_", np.nan))
    print(found, flush=True)
    return found


def peers(X, y, limit, best):
    """What the table says of the fits by scikit-learn; ``best`` is the lowest F known."""
    for solver in SOLVERS:
        for tol in TOLERANCES:
            make = lambda: LogisticRegression(solver=solver, tol=tol, max_iter=10_000)  # noqa: B023, E731
            yield (found := single(f"LogisticRegression({solver}), tol={tol:g}", make, X, y, limit))
            if found.get("F", best) <= best * (1 + TARGET):
                break


def sweep(X, y):
    """Seconds of a sweep, its bytes, and the C it chose."""
    fold = np.where(np.arange(len(y)) % 10 == 0, 0, -1)
    model = TorchSoftmaxClassifierCV(Cs=CS, cv=PredefinedSplit(fold))
    with measure.PeakMemory() as memory:
        start = time.perf_counter()
        model.fit(X, y)
        seconds = time.perf_counter() - start
    found = {"dtype": str(X.dtype), "seconds": seconds, "bytes": memory.bytes, "C": model.C_}
    print(found, flush=True)
    return found


def main(results: Path, limit: float, n_rows: int, n_classes: int):
    """Measure; write a table and the figures."""
    X, y = data(n_rows, n_classes)
    half = X.astype(np.float16)
    fits = [
        single("TorchSoftmaxClassifier", TorchSoftmaxClassifier, X, y, 10 * limit),
        single("TorchSoftmaxClassifier", TorchSoftmaxClassifier, half, y, 10 * limit),
    ]
    fits += peers(X, y, limit, fits[0]["F"])
    sweeps = [sweep(X, y), sweep(half, y)]
    record = {"machine": machine(), "shape": [*X.shape, n_classes], "limit": limit, "fits": fits, "sweeps": sweeps}
    (results / "probe.json").write_text(json.dumps(record, indent=1), encoding="utf-8")
    write(results)


def write(results: Path):
    """The Markdown from the figures."""
    record = json.loads((results / "probe.json").read_text(encoding="utf-8"))
    n, d, n_classes = record["shape"]
    megabytes = lambda n_bytes: "–" if n_bytes is None else f"{n_bytes / 1e6:,.0f}"  # noqa: E731
    best = {dtype: min(f["F"] for f in record["fits"] if f["dtype"] == dtype and "F" in f) for dtype in DTYPES}
    fits = pd.DataFrame(
        {
            "": f["name"], "X": f["dtype"], "fit [s]": f"{f['seconds']:.0f}" if "F" in f else f"> {record['limit']:g}",
            "passes": f"{f['passes']:.0f}" if f.get("passes", np.nan) == f.get("passes") else "–",
            "F": f"{f['F']:.8f}" if "F" in f else "–",
            "relative gap": f"{f['F'] / best[f['dtype']] - 1:.0e}" if "F" in f else "–",
            "memory above X [MB]": megabytes(f["bytes"]),
        }
        for f in record["fits"]
    )  # fmt: skip
    sweeps = pd.DataFrame(
        {
            "X": s["dtype"], "sweep of 3 C and the refit [s]": f"{s['seconds']:.0f}", "C": f"{s['C']:g}",
            "memory above X [MB]": megabytes(s["bytes"]),
        }
        for s in record["sweeps"]
    )  # fmt: skip
    about = record["machine"]
    text = (
        f"# A linear probe: {n:,} × {d} × {n_classes:,}\n\n{fits.to_markdown(index=False, disable_numparse=True)}\n\n"
        f"{sweeps.to_markdown(index=False, disable_numparse=True)}\n\nX takes {megabytes(4 * n * d)} MB in float32, "
        f"all logits in float32 would take {megabytes(4 * n * n_classes)} MB.\n\n{__doc__.strip()}\n\n"
        f"There are no figures of an accelerator yet.\n\nMeasured on {about['date']} on {about['cores']} cores, "
        f"scikit-learn {about['scikit-learn']}, torch {about['torch']}.\n"
    )
    (results / "probe.md").write_text(text, encoding="utf-8")
    print(text)
