"""The paper's tables, and the same ladder on CIFAR-10: train their rows, evaluate released weights, render the report.

    python benchmarks/reproduce.py --table released --imagenet FOLDER --weights FOLDER   # nothing is trained
    python benchmarks/reproduce.py --table ladder --set imagenet=FOLDER --set mined=FOLDER --processes 8
    python benchmarks/reproduce.py --table cifar10_ladder --set cifar=FOLDER --set teacher=FILE.pdparams ...
    python benchmarks/reproduce.py --report

A table is a file in benchmarks/tables; `--table X --list` prints its rows, what it needs and what is done. Rows resume after an
interruption, and any number of these commands may work on one table at a time. Each row and seed becomes
benchmarks/results/rows/<table>/<row>_seed<k>.json.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.rows import RESULTS, TABLES, Row, Table, load_table, needed_inputs, result_of, work  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    names = sorted(path.stem for path in TABLES.glob("*.yaml"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"tables: {', '.join(names)}")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", choices=names, metavar="TABLE")
    what.add_argument("--report", action="store_true", help="render everything that was measured")
    if "--report" in (arguments or sys.argv[1:]) or "released" in (arguments or sys.argv[1:]):
        return _elsewhere(parser, arguments)
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="K")
    parser.add_argument("--set", action="append", default=[], metavar="INPUT=VALUE", help="an input of the table")
    parser.add_argument("--output", type=Path, default=Path("output/reproduce"), help="runs, weights, logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the rows' JSON files")
    parser.add_argument("--processes", type=int, default=1, help="of a run, by paddle.distributed.launch")
    parser.add_argument("--threads", type=int, default=0, help="OMP threads of a process; 0: left to the libraries")
    args = parser.parse_args(arguments)
    args.results = args.results.resolve()
    table = load_table(TABLES / f"{args.table}.yaml")
    unknown = sorted(set(args.rows) - {row.row for row in table.rows})
    if unknown:
        parser.error(f"{args.table} has no row {', '.join(unknown)}; it has {', '.join(r.row for r in table.rows)}")
    jobs = table.jobs(args.rows, args.seeds)
    if args.list:
        return _list(table, jobs, args.results)
    done = [job for job in jobs if _done(table, *job, args.results)]
    if done:
        print(f"{len(done)} of {len(jobs)} rows and seeds have results in {args.results}; --results FOLDER trains them again")
    inputs = _inputs(parser, table, needed_inputs(table, [row for row, _ in jobs]), args.set)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends the run that it waits for
    work(table, jobs, inputs, args.output.resolve(), args.results, args.threads, args.processes)


def _elsewhere(parser: argparse.ArgumentParser, arguments: list[str] | None) -> None:
    args, rest = parser.parse_known_args(arguments)
    if args.report:
        from benchmarks.report import main as report
        return report(rest)
    from benchmarks.released import main as released
    return released(rest)


def _inputs(parser: argparse.ArgumentParser, table: Table, needed: list[str], given: list[str]) -> dict[str, str]:
    """The inputs that the rows at hand need, as absolute paths."""
    said = dict(text.partition("=")[::2] for text in given)
    for name in said:
        if name not in table.inputs:
            parser.error(f"--set {name}: {table.name} takes {', '.join(table.inputs) or 'no inputs'}")
    found = {}
    for name in needed:
        about = table.inputs[name]
        value = said.get(name) or about.get("default")
        if not value or not Path(value).exists():
            parser.error(f"--set {name}=PATH: {about['what']}; "
                         + (f"{value} does not exist" if value else "none was given"))
        found[name] = str(Path(value).resolve())
    return found


def _list(table: Table, jobs: list, results: Path) -> None:
    print(f"{table.title}\n{table.what}".strip())
    for name, about in table.inputs.items():
        print(f"  --set {name}={about.get('default', '...')}: {about['what']}")
    for row, seed in jobs:
        done = "done" if _done(table, row, seed, results) else "not run"
        print(f"  {row.row}, seed {seed}: {done}; {row.what} ({row.config})")


def _done(table: Table, row: Row, seed: int, results: Path) -> bool:
    return result_of(results, table.name, row.row, seed).is_file()


if __name__ == "__main__":
    main()
