"""Ten C times five folds: `TorchSoftmaxClassifierCV` beside `LogisticRegressionCV` and `GridSearchCV`.

Each contestant runs in a process of its own, so that one that is over the limit can be ended; what is timed is ``fit``
after a fit of iris, with its scores on C from 1e-4 to 1e4 and the refit. Scores are right if the mean log loss of every
C is that of our solver at tol=1e-12 to 1e-4, for the peers by scikit-learn's scorer, which clips probabilities. The
quickest setting with right scores counts, of ours and of the peers, whose tolerances go down by a factor of ten at a
time until they are; where none of the peers' is right within the limit, 300 s if not told otherwise, the limit. Ours
and all peers that are right within twice the time of the quickest take turns, of which medians count; where a fit takes
seconds, each runs once. What takes longer than that is ended. Rows of different days may be of different machines.
"""

import json
import multiprocessing
import os
import signal
import time
import warnings
from contextlib import suppress
from pathlib import Path
from statistics import geometric_mean

import numpy as np
import pandas as pd
import scipy.sparse as sp

from benchmarks.peers import TOLERANCES
from benchmarks.problems import PROBLEMS
from benchmarks.run import machine

NAMES = (
    "iris",
    "wine",
    "breast_cancer",
    "digits",
    "covertype_10k",
    "letter",
    "tall_scaled",
    "embeddings",
    "sparse_text",
)
RIGHT = 1e-4
OUR_TOLERANCES, REFERENCE_TOL = TOLERANCES[5:10], 1e-12  # from the default on
STARTUP = 15.0  # seconds for imports and data
OURS = "TorchSoftmaxClassifierCV"
SMALL, LARGE = 1e5, 1e7  # entries of X up to which two jobs may not pay, from which one fit takes seconds
NEAR = 2.0  # times the quickest that peers may take to be measured again


def ours(tol, scoring=None):
    from skl_softmax import TorchSoftmaxClassifierCV

    return TorchSoftmaxClassifierCV(cv=5, tol=tol, scoring=scoring)


def clipped(tol):
    """With scikit-learn's scores, in which no loss of a row is beyond 36."""
    return ours(tol, by_scorer)


def by_scorer(estimator, X, y):
    """In a function, as sweeps take the scorer itself for the log loss, which they do not clip."""
    from sklearn.metrics import get_scorer

    return get_scorer("neg_log_loss")(estimator, X, y)


def single():
    from skl_softmax import TorchSoftmaxClassifier

    return TorchSoftmaxClassifier()


def peer(solver, tol, n_jobs):
    from sklearn.linear_model import LogisticRegressionCV

    return LogisticRegressionCV(
        cv=5, Cs=10, scoring="neg_log_loss", solver=solver, tol=tol, n_jobs=n_jobs, max_iter=10_000,
        use_legacy_attributes=False, l1_ratios=(0.0,),
    )  # fmt: skip


def grid(solver, tol):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    model = LogisticRegression(solver=solver, tol=tol, max_iter=10_000)
    return GridSearchCV(model, {"C": np.logspace(-4, 4, 10)}, scoring="neg_log_loss", cv=5, n_jobs=2)


def settings(X, n_classes):
    """Names of peers, with the calls that make them, from quick and rough to slow and exact."""
    small = not sp.issparse(X) and X.shape[1] * n_classes <= 2000
    jobs = (1, 2) if X.shape[0] * X.shape[1] < SMALL else (2,)
    solvers = ("newton-cholesky",) * small + ("newton-cg", "lbfgs")
    for solver in solvers:
        for n_jobs in jobs:
            name = f"LogisticRegressionCV({solver}, n_jobs={n_jobs})"
            yield name, [(peer, solver, tol, n_jobs) for tol in TOLERANCES]
    yield f"GridSearchCV({solvers[0]}, n_jobs=2)", [(grid, solvers[0], tol) for tol in TOLERANCES]


def fit(connection, make, arguments, name, data_dir):
    """In a process of its own: seconds, mean scores by C, the C that was chosen."""
    os.setsid()  # so that its workers can be ended with it
    warnings.simplefilter("ignore")
    model = make(*arguments)
    model.fit(*PROBLEMS["iris"].data(None))
    X, y = PROBLEMS[name].data(data_dir)
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    scores = C = None
    if hasattr(model, "best_params_"):
        scores, C = model.cv_results_["mean_test_score"], model.best_params_["C"]
    elif hasattr(model, "scores_"):
        scores, C = model.scores_.mean(axis=0)[0], model.C_
    connection.send((seconds, None if scores is None else list(map(float, scores)), None if C is None else float(C)))


def timed(make, arguments, name, data_dir, limit):
    """What `fit` sends, or infinity if it takes longer than the limit."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=fit, args=(there, make, arguments, name, data_dir))
    process.start()
    there.close()
    try:
        return here.recv() if here.poll(limit + STARTUP) else (np.inf, None, None)
    except EOFError:
        return np.inf, None, None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()


def contest(name, data_dir, limit):
    """What the table says of one problem."""
    X, y = PROBLEMS[name].data(data_dir)
    _, exact, best = timed(ours, (REFERENCE_TOL,), name, data_dir, 10 * limit)
    _, right, _ = timed(clipped, (REFERENCE_TOL,), name, data_dir, 10 * limit)
    entries = X.shape[0] * X.shape[1]
    repeats = 5 if entries <= SMALL else 3 if entries <= LARGE else 1
    for tol in OUR_TOLERANCES:  # the loosest that is right
        _, scores, C = timed(ours, (tol,), name, data_dir, 10 * limit)
        if (error := off_by(scores, exact)) <= RIGHT:
            break
    peers, rivals = first_round(name, data_dir, limit, settings(X, len(np.unique(y))), right, repeats > 1)
    calls = {OURS: (ours, tol), "single": (single,)} | rivals
    turns = [{key: timed(make, args, name, data_dir, 10 * limit)[0] for key, (make, *args) in calls.items()}
             for _ in range(repeats)]  # fmt: skip
    seconds = {key: float(np.median([turn[key] for turn in turns])) for key in calls}
    for label in rivals:
        peers[label]["seconds"] = seconds[label]
    result = {
        "problem": name, "date": machine()["date"], "shape": [*X.shape, len(np.unique(y))], "limit": limit,
        "best": best, "tol": tol, "seconds": seconds[OURS], "error": error, "C": C, "single": seconds["single"],
        "turns": repeats,
        "peers": peers,
    }  # fmt: skip
    print({k: v for k, v in result.items() if k != "peers"}, flush=True)
    return result


def off_by(scores, truth):
    """By how much scores are wrong, at most."""
    return np.inf if scores is None else float(np.abs(np.array(scores) - truth).max())


def first_round(name, data_dir, limit, contestants, right, may_be_near):
    """The peers by setting, each once, and the calls of those that are to take turns: right, and near the quickest."""
    peers, rivals, margin = {}, {}, NEAR if may_be_near else 1.0
    for peer_name, calls in contestants:
        for make, *arguments in calls:
            seconds, scores, C = timed(make, arguments, name, data_dir, limit)
            label = f"{peer_name}, tol={arguments[1]:g}"
            peers[label] = {"seconds": seconds, "error": off_by(scores, right), "C": C}
            print(name, label, peers[label], flush=True)
            if peers[label]["error"] <= RIGHT:
                limit = min(limit, margin * seconds)
                rivals[label] = (make, *arguments)
                break  # a tighter tolerance would be slower still
            if seconds > limit:
                break
    return peers, {label: call for label, call in rivals.items() if may_be_near and peers[label]["seconds"] <= limit}


def row(result):
    """A line of the table."""
    right = {k: p for k, p in result["peers"].items() if p["error"] <= RIGHT and p["seconds"] <= result["limit"]}
    name, best = min(right.items(), key=lambda item: item[1]["seconds"], default=(None, None))
    wrong = {k: p for k, p in result["peers"].items() if RIGHT < p["error"] < np.inf}
    worst = max(wrong.items(), key=lambda item: item[1]["error"], default=None)
    seconds = best["seconds"] if best else result["limit"]
    return {
        "problem": result["problem"], "n × d × K": " × ".join(f"{n:,}" for n in result["shape"]),
        "ours [s]": f"{result['seconds']:.3g}", "tol": f"{result.get('tol', 1e-7):g}",
        "off by": f"{result['error']:.0e}", "turns": str(result.get("turns", 1)),
        "C": f"{result['C']:.3g}",
        "single fits": f"{result['seconds'] / result['single']:.1f}",
        "best with right scores [s]": f"{seconds:.3g} ({name})" if best else f"> {seconds:g}",
        "ratio": f"{'' if best else '≥ '}{seconds / result['seconds']:.1f}×", "measured on": result["date"],
        "most wrong": f"{worst[0]}: C={worst[1]['C']:.3g}, log loss off by {worst[1]['error']:.1g}" if worst else "–",
    }, seconds / result["seconds"]  # fmt: skip


def write(results: Path):
    """The Markdown from the figures."""
    record = json.loads((results / "sweep.json").read_text(encoding="utf-8"))
    rows = [row(result) for result in record["results"]]
    quotients = [quotient for _, quotient in rows]
    mean = geometric_mean(quotients)
    about = record["machine"]
    text = (
        "# The sweep over C\n\n"
        f"{pd.DataFrame([r for r, _ in rows]).to_markdown(index=False, disable_numparse=True)}\n\n"
        f"Geometric mean {mean:.1f}×, worst {min(quotients):.1f}×. Single fits: the sweep's time over that of one "
        f"default fit at C=1.\n\n{__doc__.strip()}\n\nMeasured "
        f"on {about['cores']} cores, scikit-learn {about['scikit-learn']}, torch {about['torch']}.\n"
    )
    (results / "sweep.md").write_text(text, encoding="utf-8")
    print(text)


def main(results: Path, data_dir: Path | None, limit: float, names=None):
    """Measure; write a table and the figures. Those of other problems stay."""
    path = results / "sweep.json"
    known = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    found = {r["problem"]: r for r in known}
    for name in names or NAMES:
        found[name] = contest(name, data_dir, limit)
        record = {"machine": machine(), "results": [found[n] for n in NAMES if n in found]}
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")
    write(results)
