"""The demo's pool through the miner, and the account of where everything in it ended."""

from __future__ import annotations

import csv
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config.mine import SelectConfig, load_mine
from ..mining.run import mine
from .images import DemoImages
from .pool import BROKEN, COPY, STRANGER, Pool

REAL = "real"  # images that belong in the pool, beside the kinds of planted ones
ENDS = UNREADABLE, REMOVED, PASSED, CHOSEN = "unreadable", "removed", "passed over", "chosen"  # of an image's way


@dataclass(frozen=True)
class Removal:
    """Why the miner took an image for a copy. stage: whose evidence it was. score: nan for exact copies."""

    copy_of: str
    stage: str
    score: float


@dataclass(frozen=True)
class Mined:
    """What mining made of the pool.

    selected: the list for training. report: the miner's own. chosen: the images of the list, in order. removed,
    unreadable: by path. ended: where each image of the pool ended, by kind and then by end: paths, ascending.
    correlation, cells: thresholds of whole-image likeness and of keypoints. innocents: images that these were
    calibrated on, 0 for the miner's defaults. top_k, min_score: what images were chosen by.
    """

    selected: Path
    report: Path
    chosen: tuple[str, ...]
    removed: dict[str, Removal]
    unreadable: dict[str, str]
    ended: dict[str, dict[str, list[str]]]
    correlation: float
    cells: int
    innocents: int
    top_k: int
    min_score: float

    def line(self) -> str:
        """What happened, in one line."""
        return (f"{self.count(COPY, REMOVED):,} of {self.count(COPY):,} copies of test images found, "
                f"{self.count(REAL, REMOVED):,} of {self.count(REAL):,} real images taken for copies; "
                f"{self.count(REAL, CHOSEN):,} real images and {self.count(STRANGER, CHOSEN):,} of "
                f"{self.count(STRANGER):,} strangers chosen")

    def summary(self) -> dict[str, Any]:
        """Numbers of images by kind and end, and the thresholds."""
        return {**{kind: {end: len(paths) for end, paths in ends.items()} for kind, ends in self.ended.items()},
                "min_correlation": self.correlation, "min_cells": self.cells, "min_score": self.min_score,
                "top_k": self.top_k}

    def count(self, kind: str, end: str | None = None) -> int:
        """Images of a kind, or those of them that ended there."""
        return sum(len(paths) for at, paths in self.ended[kind].items() if end in (None, at))

    def total(self, end: str | None = None) -> int:
        """Images of the pool, or those that ended there."""
        return sum(self.count(kind, end) for kind in self.ended)


def mine_pool(images: DemoImages, pool: Pool, file: Path) -> Mined:
    """Run the miner on the pool as `file` says. Errors as of `mining.run.mine`."""
    config = load_mine(file)
    mine(config)
    return account(images, pool, Path(config.output_dir), config.Select)


def account(images: DemoImages, pool: Pool, output: Path, select: SelectConfig) -> Mined:
    """Read what a finished mining run left in `output`, and compare it with what the demo knows."""
    selected = output / "selected.txt"
    chosen = tuple(filter(None, selected.read_text(encoding="utf-8").split("\n")))
    removed = {row["path"]: Removal(row["copy_of"], row["stage"], float(row["score"] or "nan"))
               for row in _rows(output / "removed.csv")}
    unreadable = {row["path"]: row["reason"] for row in _rows(output / "quarantine.csv")}
    dedup = json.loads((output / "manifest.json").read_text(encoding="utf-8"))["dedup"]
    kinds = {os.path.abspath(item.path): REAL for item in images.unlabelled} | {p.path: p.kind for p in pool.planted}
    is_chosen = set(chosen)
    ended = {kind: {end: [] for end in ENDS} for kind in (REAL, COPY, STRANGER, BROKEN)}
    for path, kind in sorted(kinds.items()):
        end = (UNREADABLE if path in unreadable else REMOVED if path in removed else
               CHOSEN if path in is_chosen else PASSED)
        ended[kind][end].append(path)
    innocents = len(pool.innocents.read_bytes().splitlines()) if pool.innocents else 0
    return Mined(selected, output / "report.html", chosen, removed, unreadable, ended,
                 dedup["correlation"], dedup["cells"], innocents, select.top_k, select.min_score)


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
