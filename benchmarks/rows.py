"""Rows trained: one run and one JSON per row and seed.

Any number of processes may work on one table: a row that another process trains is left to it, and taken over when
that process has died. A row goes on where it was.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT, environment
from benchmarks.runs import curve, last_weights, run_logged, train_once
from benchmarks.table import Row, Table, digest, foreign, home, overrides, result_of
from ppcls_ssld.atomic import write_atomic
from ppcls_ssld.config import load_config
from ppcls_ssld.config.schema import RunConfig
from ppcls_ssld.errors import ConfigError


@dataclass(frozen=True)
class Machine:
    """What rows are trained on; another one makes no other row.

    processes: of a run, at most; a row takes as many of them as make its batch. threads: OMP threads of each, 0 leaves them to
    the libraries. batch_size: images of a process at a time; micro-steps make up the row's batch, but batch norm sees fewer.
    device: of Global. None: the config's.
    """

    processes: int = 1
    threads: int = 0
    batch_size: int | None = None
    device: str | None = None

    def overrides(self) -> list[str]:
        said = {"DataLoader.Train.batch_size": self.batch_size, "Global.device": self.device}
        return overrides({key: value for key, value in said.items() if value is not None})


def work(table: Table, jobs: Sequence[tuple[Row, int]], inputs: Mapping[str, str], output: Path, results: Path,
         machine: Machine) -> None:
    """Train what is not done yet, in order; waits for rows that other processes train. Writes each row's JSON and log.

    output: runs go to <output>/<table>/<row>_seed<k>, what tables share beside them; {output} in a table is this folder.
    ConfigError before anything is trained: a result or a run of other settings or inputs, rows that build on rows which
    nobody trains, an input without the row's lists, a batch that no number of processes makes.
    """
    made_with = {name: _fingerprint(Path(path)) for name, path in inputs.items()}
    inputs = {**inputs, "output": str(output)}
    left = [job for job in jobs if not known(table, *job, results, made_with)]
    for row, seed in left:
        _check_obtainable(table, row, seed, left, output)
        asked = overrides(settings(row, inputs))
        _check_lists(row, load_config(ROOT / row.config, asked), output)
        share_of_work(row, load_config(ROOT / row.config, [*asked, *machine.overrides()]), machine.processes)
    for row, _ in left:
        (output / home(table.name, row)[0]).mkdir(parents=True, exist_ok=True)
    if table.prepare and left:
        _prepare([filled(part, inputs) for part in table.prepare], output, machine.threads)
    while left:
        for row, seed in left:
            if not all((folder / "done").exists() for folder in _needed(table, row, seed, output).values()):
                continue
            with locked(_beside(_run(table, row, seed, output), "lock"), wait=False) as mine:
                if mine and not known(table, row, seed, results, made_with):
                    _train(table, row, seed, inputs, made_with, output, results, machine)
                if mine:
                    break
        else:
            time.sleep(5)  # all that is left is in other hands, or waits for what is
        left = [job for job in left if not known(table, *job, results, made_with)]


def known(table: Table, row: Row, seed: int, results: Path, made_with: Mapping[str, str] | None = None) -> bool:
    """Whether the row's JSON is there. ConfigError when that is the JSON of other settings or inputs, or no JSON."""
    path = result_of(results, table.name, row, seed)
    if not path.is_file():
        return False
    try:
        found = json.loads(path.read_text())
        different = foreign(found, row)
        said = found.get("inputs") or {}
    except (ValueError, AttributeError) as e:
        raise ConfigError(f"{path}: is no result of a row ({e}); move it away to train the row again") from e
    # null: a folder without lists, in results of before such folders had a fingerprint
    different += [f"input {name}" for name, value in (made_with or {}).items() if said.get(name) not in (None, value)]
    if different:
        raise ConfigError(f"{path}: is of other {', '.join(different)} than the table asks for now; move it away, and its run's "
                          "folder, to train the row again, or give --results and --output of your own")
    return True


def needed_inputs(table: Table, rows: Sequence[Row]) -> list[str]:
    """Names of the inputs that these rows, or the table's preparation, mention."""
    said = json.dumps([list(table.prepare), *(dict(row.set) for row in rows)])
    return [name for name in table.inputs if f"{{{name}}}" in said]


def settings(row: Row, inputs: Mapping[str, str]) -> dict[str, Any]:
    """The row's overrides, inputs filled in."""
    return {key: filled(value, inputs) for key, value in row.set.items()}


def filled(value: Any, inputs: Mapping[str, str]) -> Any:
    """{input} replaced in every text of a tree; other braces stay."""
    if isinstance(value, str):
        for key, text in inputs.items():
            value = value.replace(f"{{{key}}}", text)
        return value
    if isinstance(value, Mapping):
        return {key: filled(inner, inputs) for key, inner in value.items()}
    return [filled(inner, inputs) for inner in value] if isinstance(value, list) else value


def share_of_work(row: Row, config: RunConfig, most: int) -> tuple[int, int]:
    """(processes, at most `most`; Global.update_freq) that make the row's batch. ConfigError when nothing does."""
    each = config.DataLoader.Train.batch_size
    batch = row.batch or each
    for processes in range(most, 0, -1):
        if batch % (each * processes) == 0:
            return processes, batch // (each * processes)
    raise ConfigError(f"{row.row}: no number of processes of {each} images makes its {batch} images a step, for which the "
                      "learning rate is; give a --batch-size that divides them")


def _train(table: Table, row: Row, seed: int, inputs: Mapping[str, str], made_with: Mapping[str, str], output: Path,
           results: Path, machine: Machine) -> None:
    folder = _run(table, row, seed, output)
    name, trained = home(table.name, row)
    print(f"{name}: {trained}, seed {seed} -> {folder}.log", flush=True)
    config = ROOT / row.config
    asked = overrides(settings(row, inputs))
    own_batch_size = load_config(config, asked).DataLoader.Train.batch_size
    asked += machine.overrides()
    needed = {kind: last_weights(other) for kind, other in _needed(table, row, seed, output).items()}
    if "teacher" in needed:
        asked += overrides({"Arch.Teacher.pretrained": str(needed["teacher"])})
    if row.targets:
        asked += overrides({"Global.targets": str(_stored(row, config, asked, output, machine.threads))})
    if "init" in needed:
        arch = "Arch.Student" if "Student" in load_config(config).source["Arch"] else "Arch"
        asked += overrides({f"{arch}.pretrained": str(needed["init"])})
    run = load_config(config, asked)
    processes, update_freq = share_of_work(row, run, machine.processes)
    if processes < machine.processes:
        print(f"{trained}: {processes} of the {machine.processes} processes, because all of them do not make its batch",
              flush=True)
    batch_size = run.DataLoader.Train.batch_size
    if batch_size != own_batch_size:
        print(f"{trained}: batch norm sees {batch_size} images at a time, where the recipe has {own_batch_size}", flush=True)
    asked += overrides({"Global.update_freq": update_freq, "Global.seed": seed})
    made_with = {name: made_with[name] for name in needed_inputs(table, [row])}
    # Not what may differ when it is taken up again: where the inputs lie, and what shares the batch.
    _check_same_run(folder, digest({**row.identity(), "seed": seed, "inputs": made_with}))
    began = environment()
    commits = _beside(folder, "commits")
    with open(commits, "a") as file:
        file.write(f"{began['commit']}\n")
    found = train_once(config, asked, folder, machine.threads, processes)
    command = ["python benchmarks/reproduce.py", f"--table {name} --rows {trained} --seeds {seed}",
               *(f"--set {name}=..." for name in made_with), f"--processes {processes}",
               *([f"--threads {machine.threads}"] if machine.threads else []),
               *([f"--batch-size {machine.batch_size}"] if machine.batch_size else []),
               *([f"--device {machine.device}"] if machine.device else [])]
    report = {"table": name, "row": trained, "what": row.what, "seed": seed, **found, "processes": processes,
              "batch_per_process": batch_size, "threads": machine.threads, "device": run.Global.device,
              **row.identity(), "inputs": made_with,
              "lists": {Path(path).name: _fingerprint(Path(path)) for path in _lists(run)}, "command": " ".join(command),
              "commits": list(dict.fromkeys(commits.read_text().split())), "environment": began, "curve": curve(folder)}
    path = result_of(results, table.name, row, seed)
    store_log(folder, path)  # first: where the result is, its log is
    write_atomic(path, json.dumps(report, indent=1) + "\n")
    print(f"{name}: {trained}, seed {seed}: top-1 {found['top1']:.2%} in {found['seconds']} s", flush=True)


def store_log(folder: Path, result: Path) -> Path:
    """The run's metrics.jsonl, packed, beside its result; same rows, same bytes."""
    return write_atomic(result.with_suffix(".jsonl.gz"), gzip.compress((folder / "metrics.jsonl").read_bytes(), mtime=0))


def _check_same_run(folder: Path, resolved: str) -> None:
    """A folder is one run's: ConfigError when it holds one of another config, and may not be taken for this one."""
    said = _beside(folder, "config")
    if not any((folder / name).exists() for name in ("checkpoints", "done")):  # a run that failed before its first step was none
        said.write_text(resolved)
    if not said.exists() or said.read_text() != resolved:
        raise ConfigError(f"{folder}: holds a run of other settings or inputs; move it away (and {said.name} beside it), or give "
                          "another --output")


def _prepare(command: Sequence[str], output: Path, threads: int) -> None:
    script = ROOT / command[0]
    done = output / f"{script.stem}.done"
    with locked(output / f"{script.stem}.lock"):
        if not done.exists():
            print(f"preparing -> {output / script.stem}.log", flush=True)
            run_logged([sys.executable, str(script), *command[1:]], output / f"{script.stem}.log", threads)
            done.write_text("\n".join(command))
        elif done.read_text() != "\n".join(command):
            raise ConfigError(f"{done}: what {script.name} made there is of other inputs; give another --output")


def _stored(row: Row, config: Path, asked: Sequence[str], output: Path, threads: int) -> Path:
    """The folder of the row's targets, written by whoever comes first; seed 0's views serve all seeds."""
    options = dict(row.targets)
    folder = output / "targets" / options.pop("name")
    folder.parent.mkdir(exist_ok=True)
    with locked(_beside(folder, "lock")):
        if not _beside(folder, "done").exists():
            print(f"{row.row}: storing the teacher's answers -> {folder}.log", flush=True)
            flags = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
            run_logged([sys.executable, str(ROOT / "tools" / "targets.py"), "write", "-c", str(config), "--output",
                        str(folder), *flags, *(part for o in (*asked, "Global.seed=0") for part in ("-o", o))],
                       _beside(folder, "log"), threads)
            _beside(folder, "done").touch()
    return folder


def _needed(table: Table, row: Row, seed: int, output: Path) -> dict[str, Path]:
    """{"init": run, "teacher": run}: the folders of the runs whose students this one takes."""
    found = {}
    if row.init:
        other, _, name = row.init.rpartition(":")
        found["init"] = output / other / f"{name}_seed{seed}" if other else _run(table, table.row(name), seed, output)
    if row.teacher:
        teacher = table.row(row.teacher)
        found["teacher"] = _run(table, teacher, min(table.seeds_of(teacher)), output)
    return found


def _beside(folder: Path, suffix: str) -> Path:
    """A file about a run, next to its folder, whose name may have a dot of its own."""
    return folder.with_name(f"{folder.name}.{suffix}")


def _run(table: Table, row: Row, seed: int, output: Path) -> Path:
    """The folder of a row's run."""
    folder, name = home(table.name, row)
    return output / folder / f"{name}_seed{seed}"


def _check_obtainable(table: Table, row: Row, seed: int, left: Sequence[tuple[Row, int]], output: Path) -> None:
    coming = {_run(table, r, s, output) for r, s in left}
    for kind, folder in _needed(table, row, seed, output).items():
        if folder not in coming and not (folder / "done").exists():
            raise ConfigError(f"{row.row}, seed {seed}: its {kind} is the student of {folder.parent.name}'s {folder.name}, "
                              f"which has not been trained in {output}; train that row there first (where its result is "
                              "known already, with a --results of your own)")


def _lists(config: RunConfig) -> list[str]:
    """Every list of images that a run reads."""
    loaders = (config.DataLoader.Train, config.DataLoader.Eval)
    return [source.list for loader in loaders if loader for source in loader.sources if source.list]


def _check_lists(row: Row, config: RunConfig, output: Path) -> None:
    """Those that the preparation does not write must be there, before hours are spent on the rows ahead of this one."""
    for path in map(Path, _lists(config)):
        if not path.is_file() and not path.is_relative_to(output):
            raise ConfigError(f"{row.row}: its list {path} is not there; make it (docs/reproduction.md says how), or say with "
                              "--set INPUT=FOLDER where it is")


def _fingerprint(path: Path) -> str:
    """SHA-256 of a file; of a folder's lists; of the names and sizes of the files right in it where it has no list."""
    whole = hashlib.sha256()
    files = [path] if path.is_file() else sorted([*path.glob("*_list.txt"), *path.glob("selected.txt")])
    for file in files:
        with open(file, "rb") as content:
            while chunk := content.read(1 << 22):
                whole.update(chunk)
    if not files:  # not what lies deeper: a folder of data sets gets one more, and may hold millions
        for file in sorted(file for file in path.iterdir() if file.is_file()):
            whole.update(f"{file.name} {file.stat().st_size}\n".encode("utf-8", "surrogateescape"))
    return whole.hexdigest()


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file, and let child processes hold it; yields False when `wait` is off and another one holds it."""
    with open(path, "w") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
