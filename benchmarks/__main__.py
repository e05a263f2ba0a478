"""``python -m benchmarks run`` measures, ``python -m benchmarks report`` makes the table and the picture of it.

``python -m benchmarks descent`` compares mini-batch descent, ``l1`` L1 penalties, ``sweep`` sweeps over C, ``predict``
probabilities, ``probe`` a probe with a thousand classes, ``dask`` a cluster with one process; ``reliability`` measures
what trust rests on.
"""

import argparse
from importlib import import_module
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PARTS = ["honesty", "tables", "categories", "codes", "outliers", "memory", "threads", "leaks"]


def speed(arguments):
    from benchmarks.problems import PROBLEMS
    from benchmarks.run import run

    a = arguments
    names = a.problems or [name for name, problem in PROBLEMS.items() if problem.size != "online"]
    run(names, a.C, a.peers, a.target, a.limit, a.data_dir, a.results)


def report(arguments):
    from benchmarks.report import report

    report(arguments.results)


def study(module, *names):
    """What calls ``main`` of a module with some of the arguments, only then importing it."""
    return lambda arguments: import_module(f"benchmarks.{module}").main(
        RESULTS, *(getattr(arguments, name) for name in names)
    )


def parse():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name, call, text):
        added = commands.add_parser(name, help=text)
        added.set_defaults(call=call)
        return added

    run = command("run", speed, "measure and write results/speed.json")
    reported = command("report", report, "write results/speed.md and results/speed.png")
    command("descent", study("descent"), "time mini-batch descent and write results/descent.*")
    l1 = command("l1", study("l1", "data_dir", "limit", "problems"), "L1 penalties, to results/l1.*")
    sweep = command("sweep", study("sweep", "data_dir", "limit", "problems"), "sweeps over C, to results/sweep.*")
    predict = command("predict", study("predict", "data_dir", "problems"), "predictions, to results/predict.*")
    probe = command(
        "probe", study("probe", "limit", "rows", "classes"), "a probe with many classes, to results/probe.*"
    )
    dask = command("dask", study("cluster", "rows", "features", "gigabytes"), "a Dask cluster, to results/dask.*")
    trust = command("reliability", study("reliability", "parts", "gigabytes"), "results/reliability.*")

    run.add_argument("--C", nargs="+", type=float, default=[0.01, 1.0, 100.0], help="inverse penalties")
    run.add_argument("--peers", nargs="+", help="names; all if not given")
    run.add_argument("--target", type=float, default=1e-6, help="relative gap to reach")
    for some in (run, reported):
        some.add_argument("--results", type=Path, default=RESULTS / "speed.json", help="the file of measurements")
    for some in (run, l1, sweep, predict):
        some.add_argument("--problems", nargs="+", help="names; all but 'online' ones if not given")
        some.add_argument(
            "--data-dir",
            type=Path,
            help="folder of local copies of letter and covertype, which are fetched if not given",
        )
    for some, seconds in ((run, 60.0), (l1, 60.0), (sweep, 300.0), (probe, 300.0)):
        some.add_argument("--limit", type=float, default=seconds, help="seconds after which a fit is stopped")
    probe.add_argument("--rows", type=int, default=100_000, help="rows of X")
    probe.add_argument("--classes", type=int, default=1000, help="classes")
    dask.add_argument("--rows", type=int, default=1_000_000, help="rows of the evaluations that are timed")
    dask.add_argument("--features", type=int, default=100, help="their features")
    dask.add_argument("--gigabytes", type=float, default=4.0, help="size of the problem that is fitted")
    trust.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure; all if not given")
    trust.add_argument("--gigabytes", type=float, default=12.0, help="size of the file larger than memory")
    return parser.parse_args()


def main():
    arguments = parse()
    arguments.call(arguments)


if __name__ == "__main__":
    main()
