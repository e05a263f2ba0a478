"""Time to a target gap, for every problem, C and peer."""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from benchmarks import measure
from benchmarks.peers import OURS, REFERENCE, settings
from benchmarks.problems import PROBLEMS

PACKAGES = ("skl-softmax", "numpy", "scipy", "scikit-learn", "torch", "skorch")
MAX_REPEATS, REPEAT_SECONDS = 9, 5.0
# A peer's fit that has taken this many times as long as another's that reached the target decides nothing any more. Not
# less than a second, of which a first fit may need a part to wake threads and import.
PATIENCE, LEAST_PATIENCE = 3.0, 1.0


def run(names, Cs, peers, target, limit, data_dir, path):
    """Measure, and write the JSON file after every problem; what it holds of other problems, C and peers stays."""
    known = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else []
    results = {(r["problem"], r["C"]): r for r in known}
    for name in names:
        X, y = PROBLEMS[name].data(data_dir)
        for C in Cs:
            result = {"problem": name, "size": PROBLEMS[name].size, "C": C, "limit": limit, "date": machine()["date"]}
            result |= contest(X, y, C, peers, target, limit)
            results[name, C] = result if peers is None else with_others(result, results.get((name, C)), peers, target)
            ordered = [results[p, c] for p in PROBLEMS for c in sorted(c for q, c in results if q == p)]
            record = {"machine": machine(), "target": target, "results": ordered}
            path.write_text(json.dumps(record, indent=1), encoding="utf-8")
            print_result(results[name, C])


def contest(X, y, C, peers, target, limit):
    """Search the fastest setting of each peer that reaches the target, then time these in turn."""
    n_classes = len(np.unique(y))
    entries = [s for s in settings() if (peers is None or s.peer in {*peers, REFERENCE}) and s.suits(X, n_classes)]
    tried = search(entries, X, y, C, target, limit)
    best = min(t["objective"] for t in tried if np.isfinite(t["objective"]))
    for t in tried:
        t["gap"] = max(0.0, (t["objective"] - best) / abs(best))
    reached = fastest([t for t in tried if t["gap"] <= target and t["peer"] != REFERENCE])
    repeat(reached, X, y, C, limit)
    ours = next((t for t in reached if t["peer"] == OURS), None)
    read = measure.seconds_to_read(X)
    return {
        "shape": [*X.shape, n_classes],
        "dtype": str(X.dtype),
        "optimum": best,
        "read_seconds": read,
        "passes": None if ours is None else ours["passes"],
        "reached": [{k: v for k, v in t.items() if k != "setting"} for t in reached],
        "tried": [{k: v for k, v in t.items() if k not in ("setting", "seconds")} for t in tried],
    }


def with_others(result, known, peers, target):
    """The result with what an earlier run has found of peers that did not take part in this one."""
    others = [t for t in (known or {"tried": []})["tried"] if t["peer"] not in {*peers, REFERENCE}]
    tried = [*result["tried"], *others]
    best = min(t["objective"] for t in tried)
    for t in (*tried, *result["reached"]):
        t["gap"] = max(0.0, (t["objective"] - best) / abs(best))
    reached = [t for t in (known or {"reached": []})["reached"] if t["peer"] in {o["peer"] for o in others}]
    reached = [t for t in (*result["reached"], *reached) if (t["objective"] - best) / abs(best) <= target]
    return result | {"tried": tried, "reached": reached, "optimum": best}


def search(entries, X, y, C, target, limit):
    """Fit the settings once, of each peer from rough to exact, until one is stopped or has reached the target.

    What has not reached it with one number of threads is not tried with another. A peer that warns and ends where it
    did with a rougher tolerance is not held up by tolerances, so that no other is tried.
    """
    tried, finished, missed, stuck, best = [], set(), set(), set(), np.inf
    for setting in entries:
        peer = setting.peer
        if peer in stuck or (peer, setting.n_threads) in finished or (peer, setting.accuracy) in missed:
            continue
        allowed = limit if peer in (OURS, REFERENCE) else patience(tried, best, target, limit)
        with measure.PeakMemory() as peak:
            seconds, model, warns = measure.fit(setting, X, y, C, allowed)
        value = np.inf if model is None else measure.objective(model, X, y, C)
        value = np.inf if np.isnan(value) else value
        best = min(best, value)
        if model is None or value - best <= target / 2 * abs(best):
            finished.add((peer, setting.n_threads))
        elif value - best > target * abs(best):
            missed.add((peer, setting.accuracy))
            if warns and any(t["objective"] == value for t in tried if t["peer"] == peer):
                stuck.add(peer)
        passes = float(model.n_passes_) if hasattr(model, "n_passes_") else None
        tried.append(
            {"peer": peer, "label": setting.label, "setting": setting, "first": min(seconds, allowed),
             "objective": value, "warns": warns, "passes": passes, "memory": peak.bytes}
        )  # fmt: skip
    return tried


def patience(tried, best, target, limit):
    """Seconds after which a peer's fit is stopped."""
    reached = [
        t["first"] for t in tried if t["peer"] not in (OURS, REFERENCE) and t["objective"] - best <= target * abs(best)
    ]
    return min(limit, max(LEAST_PATIENCE, PATIENCE * min(reached, default=np.inf)))


def fastest(reached):
    """The quickest setting of each peer."""
    by_peer = {}
    for t in sorted(reached, key=lambda t: t["first"]):
        by_peer.setdefault(t["peer"], t)
    return list(by_peer.values())


def repeat(reached, X, y, C, limit):
    """Take turns, until each has had its repeats or its share of time, for which the first fit is enough if long."""
    for t in reached:
        t["seconds"] = [t["first"]] if t["first"] > REPEAT_SECONDS else []
    for _ in range(MAX_REPEATS):
        for t in reached:
            if not t["seconds"] or sum(t["seconds"]) < REPEAT_SECONDS:
                t["seconds"].append(measure.fit(t["setting"], X, y, C, 2 * limit)[0])
    for t in reached:
        t["median"] = float(np.median(t["seconds"]))


def machine():
    """What the figures were measured on and with."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def print_result(result):
    """One line for each peer."""
    print(f"{result['problem']} C={result['C']:g} {result['shape']} optimum {result['optimum']:.8g}", flush=True)
    for t in sorted(result["reached"], key=lambda t: t["median"]):
        print(f"    {t['median']:9.4f} s  {t['peer']}, {t['label']}, gap {t['gap']:.0e}", flush=True)
