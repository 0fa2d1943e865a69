"""The removed and the nearly removed, side by side with the protected images they resemble."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .report_pictures import Pictures
from .sheets import covered, data_uri, pair_sheet

STAGES = {"path": "the same file", "bytes": "the same bytes", "pixels": "the same pixels", "hash": "perceptual hash",
          "thumbnail": "small images aligned", "embedding": "embedding", "keypoints": "matched keypoints",
          "pool": "another image of the pool"}
STRONGEST_SHOWN, DOUBTFUL_SHOWN, KEPT_SHOWN = 4, 8, 8  # of each stage


@dataclass(frozen=True)
class Pair:
    """A pool image and the protected one it was compared with.

    stage: as in the counts. score, threshold: nan where a stage has none (the same bytes): then they are identical.
    transform: [2, 3] and pairs: [m, 4], as in types.Match; None where the stage finds none. status: removed | kept.
    """

    pool: str
    protected: str
    stage: str
    score: float = float("nan")
    threshold: float = float("nan")
    mirrored: bool = False
    transform: np.ndarray | None = None
    pairs: np.ndarray | None = None
    status: str = "removed"


def shortlist(pairs: Iterable[Pair]) -> list[Pair]:
    """Those of `pairs` that the report would show, in memory that does not grow with their number."""
    found: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        group = found.setdefault((pair.stage, pair.status), [])
        group.append(pair)
        if len(group) > 100:
            group[:] = _ends(group)
    return [pair for group in found.values() for pair in _ends(group)]


def _ends(pairs: Sequence[Pair]) -> list[Pair]:
    """The closest to the threshold and the farthest from it."""
    ordered = _by_distance(pairs)
    closest = max(DOUBTFUL_SHOWN, KEPT_SHOWN)
    return ordered[:closest] + ordered[max(closest, len(ordered) - STRONGEST_SHOWN):]


def pair_groups(pairs: Sequence[Pair], removed_by_stage: Mapping[str, int], pictures: Pictures) -> list[dict[str, Any]]:
    """Per stage, in the order of STAGES: the surest, the most doubtful and the nearly removed, drawn."""
    groups = []
    for stage in sorted({pair.stage for pair in pairs}, key=_place):
        parts = parts_of([pair for pair in pairs if pair.stage == stage])
        groups.append({"stage": stage, "removed": removed_by_stage.get(stage),
                       "parts": [(text, [_drawn(pair, pictures) for pair in shown]) for text, shown in parts]})
    return groups


def parts_of(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """What is shown of the pairs of one stage: (what they are, pairs)."""
    removed = _by_distance([pair for pair in pairs if pair.status == "removed"])
    kept = _by_distance([pair for pair in pairs if pair.status != "removed"])
    if all(np.isnan(_distance(pair)) for pair in removed):  # equal bytes leave no doubt
        parts = [("removed", removed[:STRONGEST_SHOWN])]
    elif len(removed) < STRONGEST_SHOWN + DOUBTFUL_SHOWN:
        parts = [("removed, most doubtful first", removed)]
    else:
        parts = [("removed, surest", removed[::-1][:STRONGEST_SHOWN]),
                 ("removed, most doubtful first", removed[:DOUBTFUL_SHOWN])]
    parts.append(("kept, nearest to being removed first", kept[:KEPT_SHOWN]))
    return [(text, shown) for text, shown in parts if shown]


def _place(stage: str) -> tuple[int, str]:
    return (list(STAGES).index(stage) if stage in STAGES else len(STAGES)), stage


def _by_distance(pairs: Sequence[Pair]) -> list[Pair]:
    """Closest to the threshold first; those without a score last; ties by name."""
    return sorted(pairs, key=lambda pair: (np.nan_to_num(_distance(pair), nan=np.inf), pair.pool, pair.protected))


def _distance(pair: Pair) -> float:
    return abs(pair.score - pair.threshold)


def _drawn(pair: Pair, pictures: Pictures) -> dict[str, Any]:
    pool, protected = pictures.pool(pair.pool), pictures.protected(pair.protected)
    sheet = pair_sheet(pool.image, protected.image, pair.pairs, pair.transform)
    words = [part for part in ("mirrored" if pair.mirrored else "", _extent(covered(pair.transform))) if part]
    return {"pair": pair, "exact": np.isnan(_distance(pair)), "picture": data_uri(sheet),
            "width": sheet.shape[1], "height": sheet.shape[0], "words": ", ".join(words), "pool": pool,
            "protected": protected}


def _extent(area: float | None) -> str:
    if area is None:
        return ""
    if area < 0.97:
        return f"shows {area:.0%} of the protected image" if area >= 0.005 else "shows a scrap of the protected image"
    if area > 1.03:
        return f"the protected image fills {1 / area:.0%} of it"
    return "the whole image"
