"""What the README says of trust, measured: honesty of the gap, files larger than memory, threads, leaks.

Each part leaves its figures in results/reliability.json; the page results/reliability.md is made of them.
"""

import json

import pandas as pd

from benchmarks.reliability import honesty, leaks, memory, threads
from benchmarks.run import machine

PARTS = {
    "honesty": (honesty.measure, honesty.report),
    "tables": (honesty.measure_tables, honesty.report_tables),
    "categories": (honesty.measure_categories, honesty.report_categories),
    "codes": (honesty.measure_codes, honesty.report_codes),
    "outliers": (honesty.measure_outliers, honesty.report_outliers),
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
        results.setdefault("measured", {})[name] = {key: machine()[key] for key in ("date", "scikit-learn", "torch")}
        path.write_text(json.dumps(results))
    measured = pd.DataFrame(results["measured"]).T.rename_axis("part").to_markdown(disable_numparse=True)
    lines = [
        "# Reliability\n",
        f"{measured}\n",
        f"Again: `python -m benchmarks reliability`, some parts: `--parts {' '.join(PARTS)}`. Hostile problems beside "
        "scikit-learn: `make fuzz`.\n",
    ]
    for name, (_, report) in PARTS.items():
        lines += [*report(results[name]), ""] if name in results else []
    page = "\n".join(lines)
    (folder / "reliability.md").write_text(page)
    print(page)
