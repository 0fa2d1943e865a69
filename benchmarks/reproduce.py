"""The paper's tables, and the same ladder on CIFAR-10: train their rows, evaluate released weights, render the report.

    python benchmarks/reproduce.py --table released --imagenet FOLDER --weights FOLDER   # nothing is trained
    python benchmarks/reproduce.py --table ladder --set imagenet=FOLDER --set mined=FOLDER --processes 8
    python benchmarks/reproduce.py --table cifar10_ladder --set cifar=FOLDER --set teacher=FILE.pdparams ...
    python benchmarks/reproduce.py --report

A table is a file in benchmarks/tables; `--table X --list` prints its rows, what it needs and what is done (`released` and --report
have options of their own: add --help). Rows resume after an interruption, and any number of these commands may work on one
table at a time. Each row and seed becomes benchmarks/results/rows/<table>/<row>_seed<k>.json, with its log beside it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.rows import Machine, known, needed_inputs, work  # noqa: E402
from benchmarks.table import RESULTS, TABLES, Table, load_table  # noqa: E402
from ppcls_ssld.errors import SsldError  # noqa: E402


def main(arguments: list[str] | None = None) -> None:
    names = sorted(path.stem for path in TABLES.glob("*.yaml"))
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--table")
    first.add_argument("--report", action="store_true")
    said, rest = first.parse_known_args(arguments)
    try:
        if said.report:
            from benchmarks.report import main as report
            report(rest)
        elif said.table == "released":
            from benchmarks.released import main as released
            released(rest)
        else:
            _train(_parser(names), arguments)
        sys.stdout.flush()
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)
    except BrokenPipeError:  # `--list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python fails again when it flushes at the end
        sys.exit(141)


def _parser(names: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--table", choices=names, metavar="TABLE", help=", ".join(names))
    what.add_argument("--report", action="store_true", help="render everything that was measured")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    parser.add_argument("--rows", nargs="+", default=[], metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], metavar="K")
    parser.add_argument("--set", action="append", default=[], metavar="INPUT=PATH", help="an input of the table")
    parser.add_argument("--output", type=Path, default=Path("output/reproduce"), help="runs, weights, logs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the rows' JSON files")
    parser.add_argument("--processes", type=_positive, default=1, metavar="N", help="of a run, by paddle.distributed.launch, "
                        "on one machine; a row whose batch so many do not make takes fewer, and says so")
    parser.add_argument("--batch-size", type=_positive, metavar="N", help="images of a process at a time, where a recipe's do not "
                        "fit into memory; micro-steps make up its batch, but batch norm sees fewer")
    parser.add_argument("--device", metavar="D", help="instead of the config's: cpu, gpu")
    parser.add_argument("--threads", type=_positive, metavar="N", help="OMP threads of a process (left to the libraries)")
    return parser


def _train(parser: argparse.ArgumentParser, arguments: list[str] | None) -> None:
    args = parser.parse_args(arguments)
    args.results = args.results.resolve()
    table = load_table(TABLES / f"{args.table}.yaml")
    unknown = sorted(set(args.rows) - {row.row for row in table.rows})
    if unknown:
        parser.error(f"{args.table} has no row {', '.join(unknown)}; it has {', '.join(r.row for r in table.rows)}")
    jobs = table.jobs(args.rows, args.seeds)
    if not jobs:
        seeds = sorted({seed for row in table.rows if not args.rows or row.row in args.rows for seed in table.seeds_of(row)})
        parser.error(f"--seeds: these rows have no such seed; they have {', '.join(map(str, seeds))}")
    if args.list:
        return _list(table, jobs, args.results)
    done = sum(known(table, row, seed, args.results) for row, seed in jobs)
    if done:
        print(f"{done} of {len(jobs)} rows and seeds have results in {args.results}; to train them again give --results and "
              "--output of your own")
    inputs = _inputs(parser, table, needed_inputs(table, [row for row, _ in jobs]), args.set)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that it ends the run that it waits for
    machine = Machine(args.processes, args.threads or 0, args.batch_size, args.device)
    work(table, jobs, inputs, args.output.resolve(), args.results, machine)


def _inputs(parser: argparse.ArgumentParser, table: Table, needed: list[str], given: list[str]) -> dict[str, str]:
    """The inputs that the rows at hand need, as absolute paths."""
    said = {}
    for text in given:
        name, equals, said[name] = text.partition("=")
        if not equals:
            parser.error(f"--set {text}: expected INPUT=PATH")
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
        done = "done" if known(table, row, seed, results) else "not run"
        print(f"  {row.row}, seed {seed}: {done}; {row.what} ({row.config})")


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, found {text!r}")
    return int(text)


if __name__ == "__main__":
    main()
