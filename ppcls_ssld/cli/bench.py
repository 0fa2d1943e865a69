"""`ppcls-ssld bench`: where the time of a training step goes on this machine, and what to change."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from .main import add_config_arguments

if TYPE_CHECKING:
    from ..engine.bench import BenchReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps to measure each part over (20)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def run(args: argparse.Namespace) -> int:
    from .. import parallel
    from ..config import load_config
    from ..engine.bench import bench
    from ..errors import ConfigError

    if args.steps < 3:
        raise ConfigError(f"--steps: expected 3 or more, found {args.steps}")
    report = bench(load_config(args.config, args.override), args.steps)
    if parallel.is_main():
        print(json.dumps(report.as_json(), indent=1) if args.json else table(report))
    return 0


def table(report: BenchReport) -> str:
    """The report as text."""
    rows = [*report.parts, report.reader, report.step, report.training]
    width = max(len(part.name) for part in rows)
    of = f" on each of {report.processes} processes" if report.processes > 1 else ""
    lines = [f"batches of {report.batch_size} images{of}, {report.device}", "",
             f"{'':{width}}  {'ms/batch':>9}  {'range':>15}  {'images/s':>9}"]
    for part in rows:
        if part in (report.reader, report.training):
            lines.append("")
        span = f"{part.low:.1f}-{part.high:.1f}"
        lines.append(f"{part.name:{width}}  {part.ms:9.1f}  {span:>15}  {part.images_per_s:9.0f}  {part.note}".rstrip())
    lines += ["", *(f"- {text}" for text in report.advice or ("nothing stands out: the student's own arithmetic is what "
                                                              "takes the time",))]
    return "\n".join(lines)
