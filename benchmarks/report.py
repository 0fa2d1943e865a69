"""Expected beside measured, of every table: one page of Markdown, one of HTML that needs nothing else.

    python benchmarks/reproduce.py --report [--results DIR] [--html FILE]

A row without a result reads "not run". What is written comes from `measured.read` alone.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.curves import Curve, curve_chart  # noqa: E402
from benchmarks.intervals import Estimate  # noqa: E402
from benchmarks.measured import Comparison, Row, Table, read  # noqa: E402
from benchmarks.table import RESULTS as ROWS  # noqa: E402
from benchmarks.table import TABLES  # noqa: E402
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.demo.charts import ticks  # noqa: E402
from ppcls_ssld.errors import SsldError  # noqa: E402

HERE = Path(__file__).resolve().parent
NOT_RUN, NONE = "not run", "–"
COLOURS = 10  # of the page; rows beyond take them again, dashed


def render(tables_dir: Path, results_dir: Path) -> tuple[str, str]:
    """(Markdown, HTML) of the tables in `tables_dir` with the results below `results_dir`, <table>/<row>_seed<k>.json."""
    tables, problems = read(tables_dir, results_dir)
    page = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True,
                              undefined=jinja2.StrictUndefined)
    html = page.get_template("report.html.j2").render(
        tables=[_section(table) for table in tables], problems=problems, not_run=NOT_RUN,
        run=sum(bool(row.results) for table in tables for row in table.rows), rows=sum(len(t.rows) for t in tables),
        runs=sum(len(row.results) for table in tables for row in table.rows))
    return _markdown(tables, problems), html


def _markdown(tables: Sequence[Table], problems: Sequence[str]) -> str:
    lines = ["# Expected and measured", "", "Made by `python benchmarks/reproduce.py --report`. Top-1 accuracy in %, mean ± "
             "standard deviation over n seeds; differences in percentage points. \"not run\": no result, so no number.", ""]
    for table in tables:
        sources = _numbered(row.source for row in table.rows if row.expected is not None)
        verdicts = any(row.all_of("verdict") for row in table.rows)
        lines += [f"## {table.title}", "", *([table.what, ""] if table.what else []),
                  *([f"Source: {table.source}", ""] if table.source else []),
                  *_grid(["row", "what", "expected", "measured", "n", "difference", "images", "views",
                          *(["verdict"] if verdicts else [])],
                         [[f"`{row.name}`", row.what, _expected(row, sources), measured(row), f"{len(row.results)}",
                           signed(None if row.difference is None else 100 * row.difference), _span(row.all_of("images")),
                           _span(row.all_of("views")), *([", ".join(row.all_of("verdict")) or NONE] if verdicts else [])]
                          for row in table.rows])]
        lines += [f"[{number}] {source}  " for source, number in sources.items()] + [""] * bool(sources)
        if table.compare:
            lines += ["Differences, paired by seed:", "", *_grid(
                ["difference", "what", "expected", "measured", "95 % interval", "n", "by seed"],
                [[f"`{pair.of}` - `{pair.against}`", pair.what, signed(pair.expected), gain(pair.measured),
                  interval(pair.measured), str(len(pair.gains)), ", ".join(map(signed, pair.gains.values())) or NONE]
                 for pair in table.compare])]
        lines += [f"- {note}" for note in table.notes] + [""] * bool(table.notes)
    if problems:
        lines += ["## Not shown", "", *(f"- {problem}" for problem in problems), ""]
    return "\n".join(lines).rstrip() + "\n"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *cells)] + [""]


def _numbered(sources: Iterable[str | None]) -> dict[str, int]:
    return {source: i for i, source in enumerate(dict.fromkeys(filter(None, sources)), 1)}


def _expected(row: Row, sources: dict[str, int]) -> str:
    if row.expected is None:
        return NONE
    return percent(row.expected) + (f" [{sources[row.source]}]" if row.source else "")


def percent(share: float) -> str:
    return f"{100 * share:.2f}"


def measured(row: Row) -> str:
    """'61.20 ± 0.31'; one seed without deviation; the interval in brackets where a part of the images was looked at."""
    if not row.results:
        return NOT_RUN
    text = percent(row.measured.mean)
    if row.measured.deviation is not None:
        return f"{text} ± {100 * row.measured.deviation:.2f}"
    bounds = next(iter(row.results.values())).get("interval")
    return f"{text} [{percent(bounds[0])}, {percent(bounds[1])}]" if bounds else text


def signed(points: float | None) -> str:
    return NONE if points is None else f"{points:+.2f}"


def gain(found: Estimate | None) -> str:
    if found is None:
        return NOT_RUN
    return signed(found.mean) + (f" ± {found.deviation:.2f}" if found.deviation is not None else "")


def interval(found: Estimate | None) -> str:
    if found is None or found.half_width is None:
        return NONE
    return f"[{signed(found.mean - found.half_width)}, {signed(found.mean + found.half_width)}]"


def _span(values: Sequence[int]) -> str:
    """'299,904', or 'from - to' where seeds differ."""
    return NONE if not values else " - ".join(f"{value:,}" for value in sorted({values[0], values[-1]}))


def _section(table: Table) -> dict[str, Any]:
    """What the page shows of a table."""
    styles = {row.name: f"c{i % COLOURS}{' dashed' if i >= COLOURS else ''}" for i, row in enumerate(table.rows)}
    sources = _numbered(row.source for row in table.rows if row.expected is not None)
    shares = [value for row in table.rows for value in (*row.top1.values(), row.expected) if value is not None]
    shares += [bound for row in table.rows for bound in _bounds(row)]
    axis = Axis([100 * share for share in shares])
    gains = Axis([0.0, *(value for pair in table.compare for value in _gain_values(pair))])
    return {
        "name": table.name, "title": table.title, "what": table.what, "source": table.source, "notes": table.notes,
        "run": sum(bool(row.results) for row in table.rows),
        "sources": sources, "axis": axis, "gains": gains,
        "rows": [{"row": row, "style": styles[row.name], "expected": _expected(row, sources), "measured": measured(row),
                  "n": f"{len(row.results)} of {len({*row.seeds, *row.results})}", "bounds": _bounds(row),
                  "difference": signed(None if row.difference is None else 100 * row.difference),
                  "images": _span(row.all_of("images")), "views": _span(row.all_of("views")),
                  "verdict": ", ".join(row.all_of("verdict"))} for row in table.rows],
        "pairs": [{"pair": pair, "measured": gain(pair.measured), "interval": interval(pair.measured),
                   "expected": signed(pair.expected)} for pair in table.compare],
        "legend": [(row.name, styles[row.name]) for row in table.rows if any(r.get("curve") for r in row.results.values())],
        "charts": [(title, Markup(svg)) for title, key in (("Top-1 in %", "top1"), ("Training loss", "loss"))
                   if (svg := curve_chart([_curve(row, key, styles[row.name]) for row in table.rows], key == "top1",
                                          f"{title} over training views: {table.title}"))],
        "runs": [{"row": row.name, "seed": seed, "top1": percent(result["top1"]), "command": result.get("command") or NONE,
                  "machine": machine(result)} for row in table.rows for seed, result in row.results.items()],
    }


def _bounds(row: Row) -> tuple[float, ...]:
    """Lowest and highest share of the row's 95 % interval; () where there is none."""
    if not row.results:
        return ()
    found = row.measured
    if found.half_width is None:
        return tuple(next(iter(row.results.values())).get("interval") or ())
    return found.mean - found.half_width, found.mean + found.half_width


def _gain_values(pair: Comparison) -> list[float]:
    values = [*pair.gains.values(), *([] if pair.expected is None else [pair.expected])]
    if pair.measured and pair.measured.half_width is not None:
        values += [pair.measured.mean - pair.measured.half_width, pair.measured.mean + pair.measured.half_width]
    return values


def _curve(row: Row, key: str, style: str) -> Curve:
    seeds = [[(point["views"], point[key]) for point in result.get("curve") or () if point.get(key) is not None]
             for result in row.results.values()]
    return Curve(row.name, style, [seed for seed in seeds if len(seed) > 1])  # one point, at the end, is no curve


def machine(result: dict[str, Any]) -> str:
    """'812 s, 1 process, Intel ..., Paddle 3.3.1, commit 1234abc, 2026-11-21'"""
    found, processes = result.get("environment") or {}, result.get("processes")
    parts = [f"{result['seconds']:,.0f} s" if result.get("seconds") is not None else None,
             f"{processes} process{'es' if processes != 1 else ''}" if processes else None, found.get("cpu"),
             f"Paddle {found.get('paddlepaddle') or found.get('paddlepaddle-gpu') or 'unknown'}",
             f"commit {', '.join(result.get('commits') or [found.get('commit', 'unknown')])}", found.get("date")]
    return ", ".join(part for part in parts if part)


class Axis:
    """A scale around some values: where they lie, in % of its width, and its round ticks."""

    def __init__(self, values: Sequence[float]):
        """Without values it has no ticks."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = max(0.06 * (high - low), 0.1)
        step = ticks(high - low + 2 * room)[1]
        self._low, self._high = low - room, high + room
        first = math.ceil(self._low / step)
        self.ticks = [round(i * step, 6) for i in range(first, math.floor(self._high / step) + 1)] if values else []

    def at(self, value: float) -> str:
        return f"{100 * (value - self._low) / (self._high - self._low):.2f}%"

    def wide(self, low: float, high: float) -> str:
        return f"{100 * (high - low) / (self._high - self._low):.2f}%"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", type=Path, default=ROWS, help="the rows' JSON files: <table>/<row>_seed<k>.json")
    parser.add_argument("--tables", type=Path, default=TABLES, help="folder with the tables' YAML")
    parser.add_argument("--html", type=Path, help="the page with plots (report.html beside REPRODUCTION.md)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write REPRODUCTION.md beside the results' folder, and the page with plots."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    args = parser.parse_args(arguments)
    for folder in (args.results, args.tables):
        if not folder.is_dir():
            parser.error(f"{folder} is no folder")
    beside = args.results.resolve().parent
    try:
        markdown, html = render(args.tables, args.results)
        for path, text in ((beside / "REPRODUCTION.md", markdown), (args.html or beside / "report.html", html)):
            print(f"written: {write_atomic(path, text)}")
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(e.exit_code)


if __name__ == "__main__":
    main()
