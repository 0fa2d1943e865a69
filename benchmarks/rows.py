"""The rows of a table: what each is, how it is trained, and one JSON per row and seed.

Any number of processes may work on one table: a row that another process trains is left to it, and taken over when
that process has died. A row goes on where it was.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from benchmarks.environment import environment
from benchmarks.runs import ROOT, curve, last_weights, run_logged, train_once
from ppcls_ssld.config import load_config
from ppcls_ssld.config.schema import RunConfig

TABLES = ROOT / "benchmarks" / "tables"
RESULTS = ROOT / "benchmarks" / "results" / "rows"


@dataclass(frozen=True)
class Row:
    """config: of tools/train.py; set: what differs from it, with {input} filled in.

    init: the row whose student after its last step (same seed) this one starts from; `table:row` for another table's.
    teacher: the row whose student (of its first seed) teaches. targets: {name, views, top_k, bits}: the teacher's answers
    are stored first, once for all rows and seeds, of any table, that give the same name.
    batch: images of an optimiser step over all processes, where the learning rate was made for it; fewer processes take
    more micro-steps. expected: {"top1": share, "source": text}, published. seeds: instead of the table's.
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


@dataclass(frozen=True)
class Table:
    """inputs: name -> {"what": text, "default": text or absent}. prepare: arguments of a script to run once, before.

    like: a table whose inputs, prepare and seeds this one takes. set: what all rows share; a row's own values go on top.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    what: str = ""
    source: str = ""
    like: str | None = None
    set: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    prepare: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    compare: Sequence[Mapping[str, Any]] = ()

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.row == name)

    def jobs(self, rows: Sequence[str] = (), seeds: Sequence[int] = ()) -> list[tuple[Row, int]]:
        """(row, seed) in the order of work: a seed's ladder as a whole before the next seed's."""
        wanted = [row for row in self.rows if not rows or row.row in rows]
        every = sorted({s for row in wanted for s in row.seeds or self.seeds})
        return [(row, s) for s in every for row in wanted if s in (row.seeds or self.seeds) and (not seeds or s in seeds)]


def load_table(path: Path) -> Table:
    """SystemExit with the file and the key for anything unknown, missing or contradictory."""
    tree = yaml.safe_load(path.read_text())
    if "like" in tree:
        other = load_table(path.with_name(f"{tree['like']}.yaml"))
        tree = {"inputs": other.inputs, "prepare": other.prepare, "seeds": other.seeds, **tree}
    rows = [_made(Row, {**entry, "set": {**tree.get("set", {}), **entry.get("set", {})}}, f"{path.name}: rows.{i}")
            for i, entry in enumerate(tree.pop("rows", []))]
    table = _made(Table, {"name": path.stem, "rows": tuple(rows), **tree}, path.name)
    names = [row.row for row in rows]
    if len(set(names)) < len(names):
        raise SystemExit(f"{path.name}: two rows have one name; found {', '.join(names)}")
    for row in rows:
        for other in (row.teacher, row.init if ":" not in (row.init or "") else None):
            if other and other not in names:
                raise SystemExit(f"{path.name}: {row.row} builds on '{other}', which is no row of it")
        if not (ROOT / row.config).is_file():
            raise SystemExit(f"{path.name}: {row.row}: no file {row.config}")
    for pair in table.compare:
        if not {pair.get("of"), pair.get("against")} <= set(names):
            raise SystemExit(f"{path.name}: compare: {pair} names no two rows of it")
    return table


def work(table: Table, jobs: Sequence[tuple[Row, int]], inputs: Mapping[str, str], output: Path, results: Path,
         threads: int, processes: int) -> None:
    """Train what is not done yet, in order; waits for rows that other processes train. Writes each row's JSON.

    output: runs go to <output>/<table>/<row>_seed<k>, what tables share beside them; {output} in a table is this folder.
    """
    (output / table.name).mkdir(parents=True, exist_ok=True)
    inputs = {**inputs, "output": str(output)}
    if table.prepare:
        _prepare([_filled(a, inputs) for a in table.prepare], output, threads)
    left = [job for job in jobs if not _known(table, *job, results)]
    while left:
        for row, seed in left:
            if not all((folder / "done").exists() for folder in _needed(table, row, seed, output).values()):
                _check_obtainable(table, row, seed, left, output)
                continue
            with _locked(output / table.name / f"{row.row}_seed{seed}.lock", wait=False) as mine:
                if mine and not _known(table, row, seed, results):
                    _train(table, row, seed, inputs, output, results, threads, processes)
                if mine:
                    break
        else:
            time.sleep(5)  # all that is left is in other hands, or waits for what is
        left = [job for job in left if not _known(table, *job, results)]


def settings(row: Row, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The row's overrides, inputs filled in."""
    return {key: _filled(value, inputs) for key, value in row.set.items()}


def needed_inputs(table: Table, rows: Sequence[Row]) -> list[str]:
    """Names of the inputs that these rows, or the table's preparation, mention."""
    said = json.dumps([list(table.prepare), *(dict(row.set) for row in rows)])
    return [name for name in table.inputs if f"{{{name}}}" in said]


def micro_steps(row: Row, config: RunConfig, processes: int) -> int:
    """Global.update_freq with which `processes` make the row's batch; SystemExit when they cannot."""
    each = config.DataLoader.Train.batch_size
    if row.batch % (each * processes):
        possible = [n for n in range(1, row.batch // each + 1) if row.batch % (each * n) == 0]
        raise SystemExit(f"{row.row}: {processes} processes of {each} images do not make its {row.batch} images a step, for "
                         f"which the learning rate is; take --processes {', '.join(map(str, possible))}")
    return row.batch // (each * processes)


def _train(table: Table, row: Row, seed: int, inputs: Mapping[str, str], output: Path, results: Path, threads: int,
           processes: int) -> None:
    folder = output / table.name / f"{row.row}_seed{seed}"
    print(f"{table.name}: {row.row}, seed {seed} -> {folder}.log", flush=True)
    config = ROOT / row.config
    asked = _overrides(settings(row, inputs))
    needed = {kind: last_weights(other) for kind, other in _needed(table, row, seed, output).items()}
    if "teacher" in needed:
        asked += _overrides({"Arch.Teacher.pretrained": str(needed["teacher"])})
    if row.targets:
        asked += _overrides({"Global.targets": str(_stored(row, config, asked, output, threads))})
    if "init" in needed:
        arch = "Arch.Student" if "Student" in load_config(config).source["Arch"] else "Arch"
        asked += _overrides({f"{arch}.pretrained": str(needed["init"])})
    if row.batch:
        asked += _overrides({"Global.update_freq": micro_steps(row, load_config(config, asked), processes)})
    asked += _overrides({"Global.seed": seed})
    began = environment()
    commits = folder.with_name(f"{folder.name}.commits")
    with open(commits, "a") as file:
        file.write(f"{began['commit']}\n")
    found = train_once(config, asked, folder, threads, processes)
    report = {"table": table.name, "row": row.row, "what": row.what, "seed": seed, **found, "processes": processes,
              "threads": threads, "device": load_config(config, asked).Global.device, **_identity(row),
              "command": f"python benchmarks/reproduce.py --table {table.name} --rows {row.row} --seeds {seed}",
              "commits": list(dict.fromkeys(commits.read_text().split())), "environment": began, "curve": curve(folder)}
    path = result_of(results, table.name, row.row, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(path)
    print(f"{table.name}: {row.row}, seed {seed}: top-1 {found['top1']:.2%} in {found['seconds']} s", flush=True)


def _prepare(command: Sequence[str], output: Path, threads: int) -> None:
    script = ROOT / command[0]
    with _locked(output / f"{script.stem}.lock"):
        if not (output / f"{script.stem}.done").exists():
            print(f"preparing -> {output / script.stem}.log", flush=True)
            run_logged([sys.executable, str(script), *command[1:]], output / f"{script.stem}.log", threads)
            (output / f"{script.stem}.done").touch()


def _stored(row: Row, config: Path, asked: Sequence[str], output: Path, threads: int) -> Path:
    """The folder of the row's targets, written by whoever comes first; seed 0's views serve all seeds."""
    options = dict(row.targets)
    folder = output / "targets" / options.pop("name")
    folder.parent.mkdir(exist_ok=True)
    with _locked(folder.with_suffix(".lock")):
        if not folder.with_suffix(".done").exists():
            print(f"{row.row}: storing the teacher's answers -> {folder}.log", flush=True)
            flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
            run_logged([sys.executable, str(ROOT / "tools" / "targets.py"), "write", "-c", str(config), "--output",
                        str(folder), *flags, *(part for o in (*asked, "Global.seed=0") for part in ("-o", o))],
                       folder.with_suffix(".log"), threads)
            folder.with_suffix(".done").touch()
    return folder


def _needed(table: Table, row: Row, seed: int, output: Path) -> dict[str, Path]:
    """{"init": run, "teacher": run}: the folders of the runs whose students this one takes."""
    found = {}
    if row.init:
        other, name = _named(row.init, table)
        found["init"] = output / other / f"{name}_seed{seed}"
    if row.teacher:
        found["teacher"] = output / table.name / f"{row.teacher}_seed{min(table.row(row.teacher).seeds or table.seeds)}"
    return found


def _check_obtainable(table: Table, row: Row, seed: int, left: Sequence[tuple[Row, int]], output: Path) -> None:
    coming = {output / table.name / f"{r.row}_seed{s}" for r, s in left}
    for kind, folder in _needed(table, row, seed, output).items():
        if folder not in coming and not (folder / "done").exists():
            raise SystemExit(f"{row.row}, seed {seed}: its {kind} is the student of {folder.parent.name}'s {folder.name}, "
                             f"which has not been trained in {output}; train that row there first (with --results "
                             "FOLDER, where its result is known already)")


def _named(reference: str, table: Table) -> tuple[str, str]:
    """'row' or 'table:row' -> (table, row)."""
    return tuple(reference.split(":", 1)) if ":" in reference else (table.name, reference)


def _identity(row: Row) -> dict[str, Any]:
    """What makes a result this row's: a JSON that says otherwise is of another row."""
    return {"config": row.config, "settings": dict(row.set), "init": row.init, "teacher": row.teacher,
            "targets": dict(row.targets) if row.targets else None, "batch": row.batch}


def _known(table: Table, row: Row, seed: int, results: Path) -> bool:
    """Whether its JSON is there. SystemExit when that is the JSON of other settings."""
    path = result_of(results, table.name, row.row, seed)
    if not path.is_file():
        return False
    found = json.loads(path.read_text())
    different = [key for key, value in _identity(row).items() if found.get(key) != value]
    if different:
        raise SystemExit(f"{path}: is of other {' and '.join(different)} than the table asks for now; move it (and its "
                         "run's folder) away to train the row again")
    return True


def result_of(results: Path, table: str, row: str, seed: int) -> Path:
    """The file of a row's result."""
    return results / table / f"{row}_seed{seed}.json"


def _overrides(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]


def _filled(value: Any, inputs: Mapping[str, str]) -> Any:
    """{input} replaced in every text of a tree; other braces stay."""
    if isinstance(value, str):
        for key, text in inputs.items():
            value = value.replace(f"{{{key}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: _filled(inner, inputs) for key, inner in value.items()}
    return [_filled(inner, inputs) for inner in value] if isinstance(value, list) else value


@contextmanager
def _locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file, and let child processes hold it; yields False when `wait` is off and another one holds it."""
    with open(path, "w") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def _made(kind: type, values: Mapping[str, Any], where: str):
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise SystemExit(f"{where}: unknown {', '.join(unknown)}; expected {', '.join(sorted(known))}")
    try:
        return kind(**values)
    except TypeError as e:
        raise SystemExit(f"{where}: {e}") from e
