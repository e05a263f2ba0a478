"""What the README says of trust, measured: honesty of the gap, files larger than memory, threads, leaks.

Each part leaves its figures in results/reliability.json; the page results/reliability.md is made of them.
"""

import json

import sklearn
import torch

from benchmarks.reliability import honesty, leaks, memory, threads
from benchmarks.run import machine

PARTS = {
    "honesty": (honesty.measure, honesty.report),
    "tables": (honesty.measure_tables, honesty.report_tables),
    "memory": (memory.measure, memory.report),
    "threads": (threads.measure, threads.report),
    "leaks": (leaks.measure, leaks.report),
}


def main(folder, parts, gigabytes):
    """Measure the parts, keep the figures of the others, write the page."""
    path = folder / "reliability.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in parts:
        results[name] = PARTS[name][0](*([gigabytes] if name == "memory" else []))
        results.setdefault("measured", {})[name] = machine()["date"]
        path.write_text(json.dumps(results))
    dates = ", ".join(f"{name} on {date}" for name, date in results["measured"].items())
    lines = [
        "# Reliability\n",
        f"Measured: {dates}; with scikit-learn {sklearn.__version__} and torch {torch.__version__}. Again: `python -m "
        f"benchmarks reliability`, some parts: `--parts {' '.join(PARTS)}`. Hostile problems beside scikit-learn: "
        "`make fuzz`.\n",
    ]
    for name, (_, report) in PARTS.items():
        lines += [*report(results[name]), ""] if name in results else []
    page = "\n".join(lines)
    (folder / "reliability.md").write_text(page)
    print(page)
