"""The table and the picture of a run."""

import json
from pathlib import Path
from statistics import geometric_mean

import matplotlib as mpl
import pandas as pd

from benchmarks.peers import OURS, REFERENCE

FLOOR = 1e-10  # gaps below this are drawn there
COLORS = {
    OURS: "#D55E00",
    "LogisticRegression(lbfgs)": "#0072B2",
    "LogisticRegression(newton-cg)": "#56B4E9",
    "LogisticRegression(newton-cholesky)": "#009E73",
    "LogisticRegression(liblinear)": "#F0E442",
    "LogisticRegression(sag)": "#B8B800",
    "LogisticRegression(saga)": "#999999",
    "torch.optim.LBFGS": "#CC79A7",
    "SGDClassifier(log_loss)": "#8C6D31",
    "skorch": "#333333",
}
SIZES = ("tiny", "benign", "medium", "wide", "large", "nested", "online")


def report(path: Path):
    """Write the Markdown table and the picture beside the file of measurements."""
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [row(result) for result in record["results"]]
    parts = [
        f"# Time to a relative gap of {record['target']:g}",
        table(rows),
        summary(rows),
        silent(record),
        note(record),
    ]
    text = "\n\n".join(parts) + "\n"
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    picture(record, path.with_suffix(".png"))
    print(text)
    print(f"Written to {path.with_suffix('.md')} and {path.with_suffix('.png')}")


def row(result):
    """What the table says of a problem. A peer that did not reach the target counts with the limit."""
    limit = result["limit"]
    reached = {t["peer"]: t for t in result["reached"]}
    ours = reached.get(OURS)
    scikit = {k: t for k, t in reached.items() if k.startswith("LogisticRegression") and t["median"] <= limit}
    others = {k: t for k, t in reached.items() if k not in (OURS, REFERENCE) and t["median"] <= limit}
    best = min(scikit.values(), key=lambda t: t["median"], default=None)
    fastest = min(others.values(), key=lambda t: t["median"], default=None)
    n, d, k = result["shape"]
    tried = next(t for t in result["tried"] if t["peer"] == OURS)
    return {
        "size": result["size"],
        "problem": result["problem"],
        "C": result["C"],
        "n × d × K": f"{n:,} × {d:,} × {k}",
        "ours [s]": ours["median"] if ours else None,
        "limit [s]": f"{limit:g}",
        "best of scikit-learn [s]": best["median"] if best else limit,
        "which": f"{best['peer'][19:-1]}, {best['label']}" if best else f"none in {limit:g} s",
        "ratio": (best["median"] if best else limit) / ours["median"] if ours else None,
        "open": best is None,
        "best of all others [s]": f"{fastest['median']:.3g} ({fastest['peer']})" if fastest else "–",
        "passes": result["passes"],
        "fit / read": ours["median"] / result["read_seconds"] if ours else None,
        "memory [MB]": tried["memory"] / 1e6 if tried.get("memory") is not None else None,
        "measured on": result["date"],
    }


def table(rows):
    """Markdown."""
    frame = pd.DataFrame(rows)
    frame["ratio"] = [
        "not reached" if pd.isna(r) else f"{'≥ ' if o else ''}{r:.1f}×"
        for r, o in zip(frame["ratio"], frame["open"], strict=True)
    ]
    for column in ("ours [s]", "best of scikit-learn [s]", "passes"):
        frame[column] = ["–" if pd.isna(v) else f"{v:.3g}" for v in frame[column]]
    for column in ("fit / read", "memory [MB]"):
        frame[column] = ["–" if pd.isna(v) else f"{v:.0f}" for v in frame[column]]
    return frame.drop(columns=["size", "open"]).to_markdown(index=False, disable_numparse=True)


def summary(rows):
    """Geometric mean and worst of the ratios, by size."""
    heads = "size", "problems", "reached", "geometric mean", "worst", "others there within the limit", "their mean"
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for size in SIZES:
        chosen = [r for r in rows if r["size"] == size]
        ratios = [r["ratio"] for r in chosen if r["ratio"] is not None]
        closed = [r["ratio"] for r in chosen if r["ratio"] is not None and not r["open"]]
        if ratios:
            at_least = "≥ " if len(closed) < len(ratios) else ""
            of_closed = f"{geometric_mean(closed):.1f}×" if closed else "–"
            means = f"{at_least}{geometric_mean(ratios):.1f}× | {min(ratios):.1f}×"
            lines.append(f"| {size} | {len(chosen)} | {len(ratios)} | {means} | {len(closed)} | {of_closed} |")
    return "\n".join(lines)


def silent(record):
    """Fits of the peers at their default tolerance, with iterations enough, that stopped short without a warning."""
    what = "stopped without a warning, at tol=1e-4 and with iterations enough"
    lines = [f"| problem | C | {what} | relative gap |", "| --- | --- | --- | --- |"]
    for result in record["results"]:
        for t in result["tried"]:
            short = 1e-4 < t["gap"] < float("inf") and not t.get("warns", True)
            if short and t["peer"].startswith("LogisticRegression") and "tol=0.0001, 1 " in t["label"]:
                lines.append(f"| {result['problem']} | {result['C']:g} | {t['peer']} | {t['gap']:.0e} |")
    return "\n".join(lines)


def note(record):
    """How it was measured."""
    machine = record["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("scikit-learn", "torch", "numpy", "scipy"))
    return (
        f"Measured on {machine['cores']} cores, Python {machine['python']}, {versions}. Ours is "
        "the constructor with nothing but C. F is recomputed in float64 NumPy; F* is the lowest F that any contestant "
        "or our solver newton at tol=1e-11 reached. Of every peer the quickest setting (tolerance, threads) that "
        "reaches the target counts, medians of up to nine turns after a pause each (a turn is one fit, or as many as "
        "take 50 ms, without the first; of what takes more than 5 s the first fit); one that does not within the "
        "limit, or stops short of it at every tolerance from 1e-2 to 1e-12, counts with the limit (≥). A peer's fit "
        "is stopped before that when it has taken three times as long as the quickest that got there, and its "
        "tolerances are given up when it warns and ends where it did with a rougher one. newton-cholesky, which forms "
        "a Hessian, takes part with dense X, up to 2,000 parameters, sag and saga, which cannot be stopped, with less "
        "than 200,000 numbers in X, liblinear and SGDClassifier where there are two classes: with more they fit "
        "another model. So does liblinear if its penalty reaches the intercept, from which intercept_scaling=1000 "
        "keeps it. Passes: over X, for values with gradients and Hessian-vector products, samples by their share. fit "
        "/ read: time of a fit over that of reading X once. Memory: the most held beyond what was held before the "
        "fit, once what earlier fits freed had been given back."
    )


def picture(record, path):
    """Time against gap of everything that was tried."""
    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    results = [r for r in record["results"] if r["C"] == 1.0]
    n_rows = -(-len(results) // 4)
    figure, grid = plt.subplots(n_rows, 4, figsize=(14, 2.7 * n_rows), layout="constrained", squeeze=False)
    for axes in grid.flat[len(results) :]:
        axes.set_visible(False)
    for axes, result in zip(grid.flat, results, strict=False):
        for t in result["tried"]:
            if t["gap"] < float("inf") and t["peer"] != REFERENCE:
                mine = t["peer"] == OURS
                axes.scatter(
                    t["first"], min(1.0, max(t["gap"], FLOOR)), color=COLORS[t["peer"]], s=90 if mine else 22,
                    marker="*" if mine else "o", zorder=3 if mine else 2,
                )  # fmt: skip
        axes.axhline(record["target"], color="black", linewidth=0.7, linestyle="--")
        axes.set(xscale="log", yscale="log", ylim=(FLOOR / 3, 3), title=result["problem"])
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
    for axes in grid[:, 0]:
        axes.set_ylabel("relative gap")
    for axes in grid[-1]:
        axes.set_xlabel("seconds")
    marks = [plt.Line2D([], [], color=c, marker="*" if p == OURS else "o", linestyle="") for p, c in COLORS.items()]
    figure.legend(marks, COLORS, loc="outside lower center", ncols=5, fontsize=9)
    figure.savefig(path, dpi=80)
    plt.close(figure)
