"""What a run says: a live bar or plain lines, metrics.jsonl, config.yaml, VisualDL. Only rank 0 says anything."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ..atomic import write_atomic
from ..errors import CheckpointError, ConfigError
from .checkpoint import ADVICE


class Logbook:
    """Numbers and sentences of one run. On other ranks than 0 every call does nothing."""

    def __init__(self, output_dir: str, active: bool, use_visualdl: bool = False):
        self.folder = Path(output_dir)
        self._active = active
        self._stream = sys.stdout
        self._bar: tqdm | None = None
        self._started = 0.0
        self._visualdl = None
        if not active:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise ConfigError(f"Global.output_dir: {output_dir} cannot be made ({e.strerror})") from e
        try:
            self._metrics = open(self.folder / "metrics.jsonl", "a", buffering=1)
        except OSError as e:
            raise ConfigError(f"Global.output_dir: {self.folder / 'metrics.jsonl'} cannot be written ({e.strerror}); "
                              "give a folder that is yours to write") from e
        if use_visualdl:
            from visualdl import LogWriter  # a slow import that few runs need
            self._visualdl = LogWriter(logdir=str(self.folder / "vdl"))

    def say(self, text: str) -> None:
        """A sentence for a person; the bar stays whole. What the stream cannot show (file names) is escaped."""
        if self._active:
            encoding = self._stream.encoding or "utf-8"
            text = text.encode(encoding, "backslashreplace").decode(encoding)
            tqdm.write(text, file=self._stream) if self._bar else print(text, file=self._stream, flush=True)

    def save_text(self, name: str, text: str) -> Path:
        """Write a small file into the output folder; its path. File names in it keep their bytes."""
        if self._active:
            write_atomic(self.folder / name, text.encode("utf-8", "surrogateescape"), advice=ADVICE)
        return self.folder / name

    def rewind(self, step: int, evaluated: bool = True) -> None:
        """Drop rows after `step`: they come from steps that are about to be done again. evaluated: else so is the
        evaluation of `step` itself."""
        if not self._active:
            return
        path = self.folder / "metrics.jsonl"
        kept = [line for line in path.read_text().splitlines() if _place_of(line) <= (step, evaluated)]
        self._metrics.close()
        write_atomic(path, *(f"{line}\n" for line in kept), advice=ADVICE)
        self._metrics = open(path, "a", buffering=1)

    def start(self, step: int, steps: int) -> None:
        """Training begins; until its end there is a bar, or `train_row` says when that will be."""
        self._started = time.monotonic()
        if self._active:
            self._bar = tqdm(total=steps, initial=step, unit="step", file=self._stream, dynamic_ncols=True,
                             disable=not self._stream.isatty())

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update()

    def train_row(self, row: dict[str, Any], steps: int) -> None:
        """A row of training numbers; see Run._row in train.py for its keys."""
        if not self._active:
            return
        self._write({"kind": "train", **row})
        share = " ".join(f"{k} {v:.0%}" for k, v in row["share"].items())
        if self._bar is not None and not self._bar.disable:
            self._bar.set_postfix_str(f"loss {row['loss']:.4f}, {row['images_per_s']:.0f} img/s, {share}",
                                      refresh=False)
        else:
            left = (time.monotonic() - self._started) / max(row["run_steps"], 1) * (steps - row["step"])
            self.say(f"step {row['step']}/{steps}  epoch {row['epoch']:.2f}  loss {row['loss']:.4f}  "
                     f"lr {row['lr']:.3g}  {row['images_per_s']:.0f} img/s  {share}  eta {_clock(left)}")
        self._scalars("train", {"loss": row["loss"], "lr": row["lr"], "images_per_s": row["images_per_s"],
                                **{f"part/{k}": v for k, v in row["parts"].items()}}, row["step"])

    def eval_row(self, row: dict[str, Any], accuracy: dict[str, float]) -> None:
        """A row of an evaluation; accuracy: its numbers in [0, 1], EvalResult's."""
        if not self._active:
            return
        self._write({"kind": "eval", **row, **accuracy})
        numbers = "  ".join(f"{k} {v:.2%}" for k, v in accuracy.items())
        self.say(f"eval  step {row['step']}  {row['weights']}  {numbers}  on {row['images']} images"
                 + (f"  loss {row['loss']:.4f}" if row.get("loss") is not None else ""))
        tag = "eval" if row["weights"] == "student" else f"eval_{row['weights']}"
        self._scalars(tag, accuracy, row["step"])

    def images(self, tag: str, images: np.ndarray, step: int) -> None:
        """Sample images for VisualDL: uint8 [N, H, W, 3]."""
        if self._active and self._visualdl:
            for i, image in enumerate(images):
                self._visualdl.add_image(tag=f"{tag}/{i}", img=image, step=step)

    def close(self) -> None:
        if not self._active:
            return
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._metrics.close()
        if self._visualdl:
            self._visualdl.close()

    def __enter__(self) -> Logbook:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _write(self, row: dict[str, Any]) -> None:
        with _disk(self.folder / "metrics.jsonl"):
            self._metrics.write(json.dumps(row) + "\n")

    def _scalars(self, tag: str, values: dict[str, float], step: int) -> None:
        if self._visualdl:
            for name, value in values.items():
                self._visualdl.add_scalar(tag=f"{tag}/{name}", value=value, step=step)


@contextmanager
def _disk(path: Path):
    try:
        yield
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be written ({e.strerror}); {ADVICE}") from e


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Rows of a metrics.jsonl; a last line cut short by a kill is left out."""
    rows = []
    for line in Path(path).read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _place_of(line: str) -> tuple[float, bool]:
    """(step, after its training) of a row."""
    try:
        row = json.loads(line)
        return row["step"], row["kind"] == "eval"
    except json.JSONDecodeError:
        return float("inf"), True


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}"
