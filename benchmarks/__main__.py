"""``python -m benchmarks run`` measures, ``python -m benchmarks report`` makes the table and the picture of it.

``python -m benchmarks descent`` compares mini-batch descent, ``python -m benchmarks l1`` L1 penalties,
``python -m benchmarks sweep`` sweeps over C, ``python -m benchmarks probe`` a probe with a thousand classes,
``python -m benchmarks reliability`` measures what trust rests on.
"""

import argparse
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def parse():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure and write results/speed.json")
    run.add_argument("--problems", nargs="+", help="names; all but those that need the internet if not given")
    run.add_argument("--C", nargs="+", type=float, default=[0.01, 1.0, 100.0], help="inverse penalties")
    run.add_argument("--peers", nargs="+", help="names; all if not given")
    run.add_argument("--target", type=float, default=1e-6, help="relative gap to reach")
    l1 = commands.add_parser("l1", help="measure L1 penalties and write results/l1.*")
    sweep = commands.add_parser("sweep", help="measure sweeps over C and write results/sweep.*")
    for command in (l1, sweep):
        command.add_argument("--problems", nargs="+", help="names; all if not given")
    probe = commands.add_parser("probe", help="measure a probe with many classes and write results/probe.*")
    probe.add_argument("--rows", type=int, default=100_000, help="rows of X")
    probe.add_argument("--classes", type=int, default=1000, help="classes")
    for command in (run, l1, sweep, probe):
        command.add_argument("--limit", type=float, default=60.0, help="seconds after which a fit is stopped")
    for command in (run, l1, sweep):
        command.add_argument("--data-dir", type=Path, help="folder of local copies of letter and covertype")
    for command in (run, commands.add_parser("report", help="write results/speed.md and results/speed.png")):
        command.add_argument("--results", type=Path, default=RESULTS / "speed.json", help="the file of measurements")
    reliability = commands.add_parser("reliability", help="write results/reliability.*")
    parts = ["honesty", "memory", "threads", "leaks"]
    reliability.add_argument(
        "--parts", nargs="+", choices=parts, default=parts, help="what to measure; all if not given"
    )
    reliability.add_argument("--gigabytes", type=float, default=12.0, help="size of the file larger than memory")
    commands.add_parser("descent", help="time mini-batch descent and write results/descent.*")
    return parser.parse_args()


def main():
    arguments = parse()
    if arguments.command == "report":
        from benchmarks.report import report

        report(arguments.results)
        return
    if arguments.command == "l1":
        from benchmarks.l1 import main as l1

        l1(RESULTS, arguments.data_dir, arguments.limit, arguments.problems)
        return
    if arguments.command == "sweep":
        from benchmarks.sweep import main as sweep

        sweep(RESULTS, arguments.data_dir, arguments.limit, arguments.problems)
        return
    if arguments.command == "probe":
        from benchmarks.probe import main as probe

        probe(RESULTS, arguments.limit, arguments.rows, arguments.classes)
        return
    if arguments.command == "reliability":
        from benchmarks.reliability import main as reliability

        reliability(RESULTS, arguments.parts, arguments.gigabytes)
        return
    if arguments.command == "descent":
        from benchmarks.descent import main as descent

        descent(RESULTS)
        return
    from benchmarks.problems import PROBLEMS
    from benchmarks.run import run

    names = arguments.problems or [name for name, problem in PROBLEMS.items() if problem.size != "online"]
    run(names, arguments.C, arguments.peers, arguments.target, arguments.limit, arguments.data_dir, arguments.results)


if __name__ == "__main__":
    main()
