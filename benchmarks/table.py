"""A table of the paper, or of ours: its rows, what each is trained with, and which results are its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.environment import RESULTS as ALL_RESULTS
from benchmarks.environment import ROOT
from ppcls_ssld.config import load_config, plain
from ppcls_ssld.errors import ConfigError

TABLES = ROOT / "benchmarks" / "tables"
RESULTS = ALL_RESULTS / "rows"


@dataclass(frozen=True)
class Row:
    """config: of tools/train.py; set: what differs from it, with {input} filled in.

    init: the row whose student after its last step (same seed) this one starts from; `table:row` for another table's.
    teacher: the row whose student (of its first seed) teaches. targets: {name, views, top_k, bits}: the teacher's answers
    are stored first, once for all rows and seeds, of any table, that give the same name.
    batch: images of an optimiser step over all processes, where the learning rate was made for it; fewer processes take
    more micro-steps. expected: {"top1": share, "source": text}, published. seeds: instead of the table's.
    same_as: `table:row`, a row of another table, given instead of a config: one run and one result for both.
    """

    row: str
    what: str
    config: str
    set: Mapping[str, Any] = field(default_factory=dict)
    init: str | None = None
    teacher: str | None = None
    targets: Mapping[str, Any] | None = None
    batch: int | None = None
    expected: Mapping[str, Any] | None = None
    seeds: Sequence[int] | None = None
    same_as: str | None = None

    def identity(self) -> dict[str, Any]:
        """What makes a result this row's; inputs stay names. ConfigError for a config that does not load."""
        tree = plain(load_config(ROOT / self.config, overrides(self.set)).source)
        init = self.init.removeprefix(f"{home('', self)[0]}:") if self.init else None  # as it is called where it is trained
        return {"config": self.config, "settings": dict(self.set), "resolved": digest(tree), "init": init,
                "teacher": self.teacher, "targets": dict(self.targets) if self.targets else None, "batch": self.batch}


@dataclass(frozen=True)
class Table:
    """inputs: name -> {"what": text, "default": text or absent}. prepare: arguments of a script to run once, before.

    like: a table whose inputs, prepare and seeds this one takes. set, batch: what all rows share; a row's own values go on
    top.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    what: str = ""
    source: str = ""
    like: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    batch: int | None = None
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prepare: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    compare: Sequence[Mapping[str, Any]] = ()

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.row == name)

    def seeds_of(self, row: Row) -> Sequence[int]:
        return row.seeds or self.seeds

    def jobs(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[Row, int]]:
        """(row, seed) in the order of work: a seed's ladder as a whole before the next seed's."""
        wanted = [row for row in self.rows if not rows or row.row in rows]
        every = sorted({seed for row in wanted for seed in self.seeds_of(row) if not seeds or seed in seeds})
        return [(row, seed) for seed in every for row in wanted if seed in self.seeds_of(row)]


def load_table(path: Path) -> Table:
    """ConfigError with the file and the key for anything unknown, missing or contradictory."""
    tree = _read(path)
    if "like" in tree:
        other = load_table(path.with_name(f"{tree['like']}.yaml"))
        tree = {"inputs": other.inputs, "prepare": other.prepare, "seeds": other.seeds, **tree}
    rows = []
    for i, entry in enumerate(tree.pop("rows", None) or ()):
        where = f"{path.name}: rows.{i}"
        if not isinstance(entry, Mapping):
            raise ConfigError(f"{where}: expected row, what, config ..., found {entry!r}")
        rows.append(_made(Row, _other_row(entry, path, where) if "same_as" in entry else _with_shared(entry, tree), where))
    table = _made(Table, {"name": path.stem, "rows": tuple(rows), **tree}, path.name)
    _check(table, path.name)
    return table


def home(table: str, row: Row) -> tuple[str, str]:
    """(table, row) under which a row is trained and its result is kept: its own names, or those it is the same as."""
    return tuple(row.same_as.split(":")) if row.same_as else (table, row.row)


def result_of(results: Path, table: str, row: Row, seed: int) -> Path:
    """The file of a row's result."""
    folder, name = home(table, row)
    return results / folder / f"{name}_seed{seed}.json"


def foreign(found: Mapping[str, Any], row: Row) -> list[str]:
    """The fields in which a result is another row's, or this row's as it was once."""
    return [key for key, value in row.identity().items() if found.get(key) != value]


def overrides(values: Mapping[str, Any]) -> list[str]:
    """`-o` texts; JSON is YAML, so that no value is read as something else."""
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def digest(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]


def _with_shared(entry: Mapping[str, Any], tree: Mapping[str, Any]) -> dict[str, Any]:
    """A row with what its table says for all; its own values go on top."""
    shared = {"batch": tree["batch"]} if "batch" in tree else {}
    return {**shared, **entry, "set": {**tree.get("set", {}), **(entry.get("set") or {})}}


def _other_row(entry: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """A row that is the same as another table's, with what it takes from there."""
    if extra := sorted(set(entry) - {"row", "what", "same_as", "expected"}):
        raise ConfigError(f"{where}: same_as goes without {', '.join(extra)}, which the other row says")
    name, _, row = str(entry["same_as"]).partition(":")
    beside = path.parent / f"{name}.yaml"
    tree = _read(beside) if beside.parent == path.parent and beside != path and beside.is_file() else {}
    other = next((other for other in tree.get("rows") or () if other.get("row") == row), {})
    if "config" not in other or "teacher" in other:
        raise ConfigError(f"{where}: same_as: expected TABLE:ROW, a row of another table, trained there and without a row for "
                          f"its teacher; found {entry['same_as']!r}")
    other = _with_shared(other, tree)
    init = other.get("init")
    return {**{key: other[key] for key in ("config", "set", "targets", "batch") if key in other},
            "init": f"{name}:{init}" if init and ":" not in init else init, **entry}


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as e:
        raise ConfigError(f"{path}: cannot be read as a table: {e}") from e
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a table (title, rows, ...), found {type(tree).__name__}")
    return tree


def _check(table: Table, where: str) -> None:
    names = [row.row for row in table.rows]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"{where}: expected rows, each with a name of its own; found {', '.join(names) or 'none'}")
    for row in table.rows:
        if not (ROOT / row.config).is_file():
            raise ConfigError(f"{where}: {row.row}: no file {row.config}")
        for other in _builds_on(row):
            if other not in names:
                raise ConfigError(f"{where}: {row.row} builds on '{other}', which is no row of it")
        seen, ahead = set(), _builds_on(row)
        while ahead:
            if row.row in ahead:
                raise ConfigError(f"{where}: {row.row} builds on itself")
            seen.update(ahead)
            ahead = [name for other in ahead for name in _builds_on(table.row(other)) if name not in seen]
        if row.expected is not None and not 0 <= row.expected.get("top1", -1) <= 1:
            raise ConfigError(f"{where}: {row.row}.expected: expected {{top1: a share from 0 to 1, source: text}}, found "
                              f"{dict(row.expected)}")
        if row.batch is not None and not (isinstance(row.batch, int) and row.batch > 0):
            raise ConfigError(f"{where}: {row.row}.batch: expected a positive integer, found {row.batch!r}")
    for name, seeds in (("seeds", table.seeds), *((f"{row.row}.seeds", row.seeds or ()) for row in table.rows)):
        if not isinstance(seeds, (list, tuple)) or not all(isinstance(seed, int) for seed in seeds):
            raise ConfigError(f"{where}: {name}: expected a list of integers, found {seeds!r}")
    for pair in table.compare:
        if not {pair.get("of"), pair.get("against")} <= set(names):
            raise ConfigError(f"{where}: compare: {pair} names no two rows of it")


def _builds_on(row: Row) -> list[str]:
    """Rows of the same table."""
    return [name for name in (row.teacher, row.init) if name and ":" not in name]


def _made(kind: type, values: Mapping[str, Any], where: str):
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except TypeError as e:
        raise ConfigError(f"{where}: {e}") from e
