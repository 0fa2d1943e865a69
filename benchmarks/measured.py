"""What the tables ask for and what was measured: tables/*.yaml and results/rows/<table>/<row>_seed<k>.json, read together.

A row without a result has no number here, whatever is expected of it. Files that fit no row, and what makes numbers less
comparable than they look, come as sentences.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.intervals import Estimate, estimate, paired
from benchmarks.table import foreign, home, load_table
from ppcls_ssld.errors import ConfigError

_FILE = re.compile(r"(.+)_seed(\d+)\.json")


@dataclass(frozen=True)
class Row:
    """expected: top-1 in [0, 1], None where nothing was published. results: a run's JSON by seed; () = not run."""

    name: str
    what: str
    expected: float | None
    source: str | None
    seeds: tuple[int, ...]
    results: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def top1(self) -> dict[int, float]:
        return {seed: result["top1"] for seed, result in self.results.items()}

    @property
    def measured(self) -> Estimate | None:
        return estimate(list(self.top1.values())) if self.results else None

    @property
    def difference(self) -> float | None:
        """Measured mean - expected, None where one of them is missing."""
        return None if self.expected is None or not self.results else self.measured.mean - self.expected

    def all_of(self, key: str) -> list:
        """The distinct values of a key in the results that have one, in order."""
        return sorted({result[key] for result in self.results.values() if result.get(key) is not None})


@dataclass(frozen=True)
class Comparison:
    """expected: gain in top-1 in percentage points, or None. gains: the measured ones by seed, in points."""

    of: str
    against: str
    what: str
    expected: float | None
    gains: dict[int, float]

    @property
    def measured(self) -> Estimate | None:
        return estimate(list(self.gains.values())) if self.gains else None


@dataclass(frozen=True)
class Table:
    name: str
    title: str
    what: str
    source: str
    rows: tuple[Row, ...]
    compare: tuple[Comparison, ...]
    notes: tuple[str, ...]


def read(tables_dir: Path, results_dir: Path) -> tuple[list[Table], list[str]]:
    """(tables, those with results first; sentences about results that no table shows). results_dir: holds
    <table>/<row>_seed<k>.json.

    ConfigError names the file of a table that cannot be read.
    """
    found, problems = _results(results_dir)
    every = {table: {row: dict(results) for row, results in rows.items()} for table, rows in found.items()}
    tables = []
    for path in sorted(tables_dir.glob("*.yaml")):
        results, others = _of_this_table(path, found.pop(path.stem, {}), every)
        problems += others
        tables.append(_table(path, results))
        problems += [f"{path.stem}: a result of row '{row}', which the table does not have, is not shown"
                     for row in sorted(results.keys() - {row.name for row in tables[-1].rows})]
    problems += [f"results of table '{name}' ({', '.join(sorted(rows))}) are not shown: {tables_dir.name}/{name}.yaml does "
                 "not exist" for name, rows in sorted(found.items())]
    return sorted(tables, key=lambda table: not any(row.results for row in table.rows)), list(dict.fromkeys(problems))


def _results(folder: Path) -> tuple[dict[str, dict[str, dict[int, dict]]], list[str]]:
    """Results by table, row and seed; and what is wrong with the files that are left out."""
    found: dict[str, dict[str, dict[int, dict]]] = {}
    problems = []
    for path in sorted(folder.glob("*/*.json")):
        name = f"{path.parent.name}/{path.name}"
        match = _FILE.fullmatch(path.name)
        try:
            result = json.loads(path.read_text())
            said = (result["table"], result["row"], result["seed"])
            top1 = result["top1"]
        except (ValueError, KeyError, TypeError) as e:
            problems.append(f"{name} is left out: it is no result of a row ({type(e).__name__}: {e})")
            continue
        if not match or said != (path.parent.name, match[1], int(match[2])):
            problems.append(f"{name} is left out: it says that it is table {said[0]}, row {said[1]}, seed {said[2]}")
        elif not isinstance(top1, (int, float)) or not 0 <= top1 <= 1:
            problems.append(f"{name} is left out: its top1 is {top1!r}, no share from 0 to 1")
        else:
            found.setdefault(said[0], {}).setdefault(said[1], {})[said[2]] = result
    return found, problems


def _of_this_table(path: Path, results: dict[str, dict[int, dict]], every: dict[str, dict[str, dict[int, dict]]]
                   ) -> tuple[dict[str, dict[int, dict]], list[str]]:
    """The results that were trained as the table asks for now, and sentences about the others. every: of all tables."""
    if path.stem == "released":
        return results, []
    asked = {row.row: row for row in load_table(path).rows}
    problems = []
    for row in asked.values():
        table, name = home(path.stem, row)
        if row.same_as:
            problems += [f"{path.stem}/{row.row}_seed{seed}.json is left out: the row's result is that of {row.same_as}"
                         for seed in results.pop(row.row, ())]
            results[row.row] = dict(every.get(table, {}).get(name, {}))
    for name in results.keys() & asked.keys():
        table, trained = home(path.stem, asked[name])
        for seed, result in list(results[name].items()):
            if different := foreign(result, asked[name]):
                del results[name][seed]
                problems.append(f"{table}/{trained}_seed{seed}.json is left out: it is of other {', '.join(different)} than the "
                                "table asks for now")
    return results, sorted(problems)


def _table(path: Path, results: dict[str, dict[int, dict]]) -> Table:
    tree = yaml.safe_load(path.read_text())
    if "like" in tree:
        tree = {"seeds": load_table(path).seeds, **tree}
    try:
        rows = tuple(_row(entry, tree, dict(sorted(results.get(entry["row"], {}).items()))) for entry in tree["rows"])
        by_name = {row.name: row for row in rows}
        compare = tuple(_comparison(entry, by_name) for entry in tree.get("compare") or ())
        title = tree["title"]
    except (KeyError, TypeError, ValueError) as e:
        raise ConfigError(f"{path}: not a table of rows ({type(e).__name__}: {e}); expected title, rows (row, what, expected: "
                          "{top1: a share from 0 to 1, source}) and compare (of, against: names of rows)") from e
    return Table(path.stem, title, _one_line(tree.get("what")), _one_line(tree.get("source")), rows, compare,
                 tuple(_notes(rows, compare, by_name)))


def _row(entry: dict, tree: dict, results: dict[int, dict]) -> Row:
    expected = entry.get("expected") or {}
    top1 = expected.get("top1")
    if top1 is not None and not 0 <= top1 <= 1:
        raise ValueError(f"row {entry['row']}: expected top1 is {top1}")
    seeds = entry.get("seeds", tree.get("seeds", [0]))
    source = _one_line(expected.get("source")) or None
    if source and source[0].isdigit():
        source = f"section {source} of the table's source"
    same = f"the run of {entry['same_as']}" if "same_as" in entry else None
    what = "; ".join(filter(None, (_one_line(entry.get("what")), _one_line(entry.get("note")), same)))
    return Row(entry["row"], what, top1, source, tuple(seeds), results)


def _comparison(entry: dict, rows: dict[str, Row]) -> Comparison:
    gains = paired(rows[entry["of"]].top1, rows[entry["against"]].top1)
    expected = entry.get("expected")
    return Comparison(entry["of"], entry["against"], _one_line(entry.get("what")),
                      None if expected is None else float(expected), {seed: 100 * gain for seed, gain in gains.items()})


def _notes(rows: tuple[Row, ...], compare: tuple[Comparison, ...], by_name: dict[str, Row]) -> list[str]:
    """What a reader of the numbers has to know besides."""
    notes = []
    for row in rows:
        if row.results and (missing := [seed for seed in row.seeds if seed not in row.results]):
            notes.append(f"{row.name}: seed {', '.join(map(str, missing))} not run yet")
        if extra := [seed for seed in row.results if seed not in row.seeds]:
            notes.append(f"{row.name}: seed {', '.join(map(str, extra))} counts too, though the table does not ask for it")
        for key, name in (("images", "test images"), ("views", "training views"), ("steps", "steps")):
            if len(values := row.all_of(key)) > 1:
                notes.append(f"{row.name}: its seeds differ in {name} ({', '.join(f'{v:,}' for v in values)})")
    for pair in compare:
        of, against = by_name[pair.of], by_name[pair.against]
        if not pair.gains:
            continue
        if lonely := sorted(of.results.keys() ^ against.results.keys()):
            notes.append(f"{pair.of} - {pair.against}: seed {', '.join(map(str, lonely))} left out, run on one side only")
        for key, name, tolerance in (("views", "training views", 0.01), ("images", "test images", 0)):
            if not _equal(of.all_of(key), against.all_of(key), tolerance):
                notes.append(f"{pair.of} - {pair.against}: not at equal {name} ({_several(of.all_of(key))} against "
                             f"{_several(against.all_of(key))})")
    commits = sorted({commit for row in rows for result in row.results.values() for commit in _commits(result)})
    if dirty := [commit for commit in commits if commit.endswith("-dirty") or commit == "unknown"]:
        notes.append(f"run from files that no commit holds: {', '.join(dirty)}")
    if len(commits) > 1:
        notes.append(f"run at {len(commits)} commits: {', '.join(commits)}")
    return notes


def _commits(result: dict[str, Any]) -> list[str]:
    """Of a run that was interrupted and went on, all."""
    return result.get("commits") or [(result.get("environment") or {}).get("commit") or "unknown"]


def _equal(these: list, those: list, tolerance: float) -> bool:
    """Whether no number is further from another than this share of it. Nothing equals nothing alone."""
    return bool(these) == bool(those) and (not these or max(*these, *those) <= (1 + tolerance) * min(*these, *those))


def _several(values: list) -> str:
    return ", ".join(f"{value:,}" for value in values) or "unknown"


def _one_line(text: str | None) -> str:
    return " ".join(str(text).split()) if text else ""
