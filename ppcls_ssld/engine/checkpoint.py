"""Checkpoints: one folder per step, written whole or not at all, bounded in number.

    output_dir/checkpoints/00004812/   student.pdparams  optimizer.pdopt  [ema.pdparams  <peer>.pdparams]  state.json
    output_dir/best_model.pdparams     the best student so far, loadable by PaddleClas; best_model.json says how good

A folder gets its name only when every file in it is on disk, so whatever carries a step number is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..arch import read_arrays, read_named_arrays
from ..atomic import sync_folder, write_atomic
from ..errors import CheckpointError, ConfigError

FORMAT = 1
ADVICE = "the checkpoints before it are intact: free some space, then start again with --resume"
_OLD_NAMES = {"best_top1": "best", "last_top1": "last"}  # before there were several labels an image


@dataclass
class TrainState:
    """Where a run is. Saved beside the arrays as JSON.

    step: optimiser steps done. epoch: epochs done. best: accuracy (EvalResult.main) of all evaluations so far, None
    before the first; last: of the last one. metric: its name (EvalResult.name). evaluation_due: this step's evaluation is
    still to come.
    global_batch: images per optimiser step over all ranks. scaler: AMP loss scaling. skipped: corrupt images left out,
    path -> times, over all ranks. sizes: images per training source. targets: digest of the stored targets' header, None
    with a teacher at work. config: the resolved tree.
    """

    step: int = 0
    epoch: int = 0
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    metric: str = "top1"  # as in checkpoints that do not say
    evaluation_due: bool = False
    global_batch: int = 0
    seed: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    targets: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def save_checkpoint(output_dir: str, files: Mapping[str, Mapping], optimizer: paddle.optimizer.Optimizer,
                    state: TrainState, keep: int) -> Path:
    """Write `checkpoints/<step>` and prune to the `keep` newest. Raises CheckpointError; older ones are untouched."""
    root = Path(output_dir) / "checkpoints"
    final = root / f"{state.step:08d}"
    part = root / f".part-{state.step:08d}"
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for stem, tensors in files.items():
            paddle.save(dict(tensors), str(part / f"{stem}.pdparams"))
        paddle.save(flatten(optimizer.state_dict()), str(part / "optimizer.pdopt"))
        (part / "state.json").write_text(json.dumps(asdict(state), indent=1))
        for file in part.iterdir():
            _sync(file)
        if final.exists():
            shutil.rmtree(final)
        os.rename(part, final)
        sync_folder(root)
    except OSError as e:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(_disk_message(final, e, root)) from e
    for old in _complete(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def save_state(output_dir: str, state: TrainState) -> None:
    """Replace the state of the checkpoint of this very step, in one move; nothing where there is none."""
    path = Path(output_dir) / "checkpoints" / f"{state.step:08d}" / "state.json"
    if not path.exists():
        return
    write_atomic(path, json.dumps(asdict(state), indent=1), advice=ADVICE)


def save_best(output_dir: str, student: Mapping, about: Mapping[str, Any]) -> Path:
    """Replace best_model.pdparams and best_model.json, which says `about` it, each in one move."""
    path = Path(output_dir) / "best_model.pdparams"
    part = path.with_name(f".part-{path.name}")
    try:
        paddle.save(dict(student), str(part))
        _sync(part)
        os.replace(part, path)
    except OSError as e:
        raise CheckpointError(_disk_message(path, e, path.parent)) from e
    write_atomic(path.with_suffix(".json"), json.dumps(about), advice=ADVICE)
    return path


def find_checkpoint(asked: str, output_dir: str) -> Path | None:
    """The folder that `Global.checkpoints` means.

    'auto': the newest of output_dir, or None for a fresh start. Otherwise an output folder (`output/x`,
    `output/x/latest` as in PaddleClas) or one checkpoint's folder; ConfigError when it holds none.
    """
    if asked == "auto":
        found = _complete(Path(output_dir) / "checkpoints")
        return found[-1] if found else None
    path = Path(asked)
    if (path / "state.json").exists():
        return path
    if path.name == "latest" and not path.exists():
        path = path.parent
    found = _complete(path / "checkpoints") or _complete(path)
    if not found:
        raise ConfigError(f"Global.checkpoints: no checkpoint in {asked}; expected an output folder that holds "
                          "`checkpoints/<step>/state.json`, or one such folder")
    return found[-1]


def load_checkpoint(folder: Path) -> tuple[TrainState, dict[str, dict[str, np.ndarray]], dict]:
    """(state, arrays by file stem, optimiser state dict of tensors). Raises CheckpointError or WeightsError."""
    try:
        fields = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError) as e:
        raise CheckpointError(f"{folder}/state.json: cannot be read ({e}); take another checkpoint") from e
    if fields.get("format") != FORMAT:
        raise CheckpointError(f"{folder}: format {fields.get('format')}, this version reads {FORMAT}")
    files = {p.stem: read_arrays(p) for p in sorted(folder.glob("*.pdparams"))}
    for old in _OLD_NAMES.keys() & fields.keys():
        fields[_OLD_NAMES[old]] = fields.pop(old)
    return TrainState(**fields), files, unflatten(
        {key: _tensor(*named) for key, named in read_named_arrays(folder / "optimizer.pdopt").items()})


def _tensor(name: str | None, array: np.ndarray) -> paddle.Tensor:
    tensor = paddle.to_tensor(array)
    if name:
        tensor.name = name
    return tensor


def flatten(tree: Mapping, prefix: str = "") -> dict[str, Any]:
    """Nested optimiser state (AMP O2 keeps master weights in a sub-dict) -> flat keys `a/b`."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}/"))
        else:
            flat[prefix + key] = value
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def _complete(root: Path) -> list[Path]:
    """Finished checkpoint folders, oldest first."""
    if not root.is_dir():
        return []
    return sorted(p for p in root.iterdir() if p.name.isdigit() and (p / "state.json").exists())


def _sync(path: Path) -> None:
    with open(path, "rb") as f:
        os.fsync(f.fileno())


def _disk_message(target: Path, error: OSError, where: Path) -> str:
    free = shutil.disk_usage(where).free / 2**20 if where.exists() else 0
    return f"{target}: cannot be written ({error.strerror or error}; {free:,.0f} MiB free there); {ADVICE}"
