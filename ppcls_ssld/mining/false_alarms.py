"""How often would an innocent image be removed? Measured on images known to be no copies, and thresholds from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from ..config.mine import PoolSource
from .alignment import AlignmentConfig
from .blocks import stream
from .calibrate import Estimate, estimate, threshold_for
from .dedup import Cascade, Thresholds
from .geometry import GeometryConfig
from .images import Look
from .protected import Protected
from .workspace import Workspace

SAMPLE = 500  # protected images that are tried against the other protected ones
_TASK = 8
_NEVER = Thresholds(cells=10**6, correlation=2.0, matches=10**6)  # no stage ends the cascade early
STAGES = {"correlation": ("hash", "thumbnail"), "cells": ("keypoints", "embedding")}  # by the threshold they share


class _Scorer:
    """Work of one process: names -> the highest score of each threshold's stages, 0 without evidence.

    Images that cannot be read are left out.
    """

    def __init__(self, ws: Workspace, protected: Protected):
        config = ws.config
        self._cascade = Cascade(config.Dedup, protected, _NEVER, config.max_pixels, config.min_side)
        self._protected = protected

    def __call__(self, names: Sequence[str]) -> list[dict[str, float]]:
        readable = [s for name in names if isinstance(s := self._cascade.look(name), Look)]
        without = [-1 if (at := self._protected.position(s.name)) is None else at for s in readable]
        return [{key: max((e.match.score for e in evidence if e.stage in stages), default=0.0)
                 for key, stages in STAGES.items()} for evidence in self._cascade.evidence(readable, without=without)]


def scores_of_innocents(ws: Workspace, protected: Protected, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Per threshold, the worst score of each readable image against all protected images but itself."""
    tasks = [names[i:i + _TASK] for i in range(0, len(names), _TASK)]
    rows = [row for part in stream(_Scorer(ws, protected), tasks, ws.all_workers, ws.stop.check)
            for row in part]
    return {key: np.array([row[key] for row in rows]) for key in STAGES}


def calibrate(ws: Workspace, protected: Protected) -> dict[str, Any]:
    """Thresholds from the user's negatives, each aimed at half of Dedup.false_alarms, and what they let through.

    Never below the measured defaults: a few harmless negatives are no reason to trust less evidence.
    """
    config = ws.config.Dedup
    listing = ws.list_images("negatives", [PoolSource(path) for path in config.negatives])
    scores = scores_of_innocents(ws, protected, listing.names(0, len(listing)))
    cells, of_cells = threshold_for(scores["cells"].astype(np.int64), config.false_alarms / 2)
    correlation, of_correlation = threshold_for(scores["correlation"], config.false_alarms / 2)
    if cells < (least := GeometryConfig().cells):
        cells, of_cells = least, estimate(scores["cells"], least)
    if correlation < (least := AlignmentConfig().min_score):
        correlation, of_correlation = least, estimate(scores["correlation"], least)
    ws.say(f"calibrated on {of_cells.count:,} negatives: {cells:.0f} cells, correlation {correlation:.3f}")
    if correlation > 1:
        ws.say(f"warning: no correlation keeps the false alarms at {config.false_alarms:g}: the hash and thumbnail "
               "stages will remove nothing. Are there copies of protected images among the negatives? 10,000 negatives "
               "are good")
    return {"cells": int(cells), "correlation": correlation, "listing": listing.digest(),
            "estimates": {"cells": asdict(of_cells), "correlation": asdict(of_correlation)},
            "scores": {key: values.tolist() for key, values in scores.items()}}


def at_threshold(calibration: dict[str, Any], key: str, threshold: float) -> Estimate:
    """False alarms of the user's negatives at the threshold in force, which need not be the calibrated one."""
    if threshold == calibration[key]:
        return Estimate(**calibration["estimates"][key])
    return estimate(np.array(calibration["scores"][key]), threshold)


def leave_one_out(ws: Workspace, protected: Protected, thresholds: Thresholds) -> dict[str, Estimate]:
    """False alarms of the protected images against each other: an upper bound, since copies among them count too."""
    count = len(ws.protected)
    names = [ws.protected.name(i * count // min(SAMPLE, count)) for i in range(min(SAMPLE, count))]
    scores = scores_of_innocents(ws, protected, names)
    if not len(scores["cells"]):  # none of the sample can be read
        return {}
    return {"cells": estimate(scores["cells"], thresholds.cells),
            "correlation": estimate(scores["correlation"], thresholds.correlation)}
