"""What a person looks at after mining: one HTML file that needs nothing else, on a desk or a phone, light or dark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import write_atomic
from . import report_classes
from .report_classes import Chosen, chosen_shown, scores_at_ranks
from .report_pairs import STAGES, Pair, pair_groups, shortlist
from .report_pictures import Pictures

UNREADABLE_SHOWN = 50
LEVELS = {"listed": "in the pool", "kept": "left to score", "scored": "scored by the teacher",
          "above_min_score": "at or above the lowest score allowed", "chosen": "chosen",
          "random_control": "random control"}
LOSSES = {"name_duplicates": "listed more than once", "excluded": "on an exclusion list", "unreadable": "unreadable"}
KINDS = {"cmyk": "CMYK", "alpha": "with alpha", "16-bit": "16 bits a channel", "rotated": "rotated by EXIF"}
STYLES = {"chosen": "kept", "random_control": "control"}
REMOVED = "removed_"  # a count `removed_<stage>`


@dataclass(frozen=True)
class Threshold:
    """What a stage compares its score with, and what that lets through.

    estimate: count (of innocents tried), alarms, rate, low, high (95 % bounds), extrapolated; None: not measured.
    source: where the negatives came from, in words.
    """

    stage: str
    value: float
    estimate: Any | None = None
    source: str = ""


@dataclass(frozen=True)
class MiningResult:
    """All that the report shows. What stayed empty (no selection yet, say) is left out of the page.

    command: as typed. settings: nested dicts are written as key paths.
    counts: in the funnel's order. Known keys: those of LEVELS (images still there), those of LOSSES and
    `removed_<stage>` (images that left); others are shown as levels, under their own names.
    pairs: all, or what `shortlist` leaves of them. thresholds: a row of the table each.
    class_names, before, after: [C]; before: images whose best class this is, after: images chosen. top_k: what was
    asked for per class. rank_scores: of `scores_at_ranks`. score_name: the kind of score. chosen: of `chosen_shown`.
    kinds: images by what is odd about them. unreadable: (name, reason), of which the first 50 are shown.
    seconds: by stage. notes: sentences. versions: one line for the foot of the page.
    """

    command: str
    settings: Mapping[str, Any]
    counts: Mapping[str, int]
    pairs: Sequence[Pair] = ()
    thresholds: Sequence[Threshold] = ()
    class_names: Sequence[str] = ()
    before: np.ndarray | None = None
    after: np.ndarray | None = None
    top_k: int | None = None
    rank_scores: np.ndarray | None = None
    score_name: str = "probability"
    chosen: Sequence[Chosen] = ()
    kinds: Mapping[str, int] = field(default_factory=dict)
    unreadable: Sequence[tuple[str, str]] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    notes: Sequence[str] = ()
    versions: str = ""


__all__ = ["Chosen", "MiningResult", "Pair", "Threshold", "chosen_shown", "scores_at_ranks", "shortlist",
           "write_report"]
Read = Callable[[str], np.ndarray]


def write_report(result: MiningResult, target: Path, read: Read, read_protected: Read | None = None) -> Path:
    """Write the page to `target`, which is complete or not there (CheckpointError: no room for it).

    read: uint8 RGB [H, W, 3] of a pool image's name; DataError or OSError when it cannot be read any more: it is then
    shown as a grey tile. read_protected: the same for protected images; None: `read` knows their names too.
    """
    import jinja2  # here, so that the numbers of a run can be had without it

    page = jinja2.Environment(loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True,
                              lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    page.filters.update(thousands=lambda n: f"{n:,}", score=score_text, percent=percent_text, duration=duration_text,
                        stage=lambda name: STAGES.get(name, name))
    html = page.get_template("report.html.j2").render(**_context(result, Pictures(read, read_protected or read)))
    return write_atomic(target, html.encode("utf-8", "backslashreplace").decode("utf-8"))  # names need not be Unicode


def score_text(score: float) -> str:
    """Counts without decimals, all else with about three digits."""
    score = float(score)
    if np.isnan(score):
        return "–"
    if score.is_integer() and abs(score) > 1:
        return f"{score:,.0f}"
    return f"{score:.3f}" if abs(score) < 10 else f"{score:.1f}"


def percent_text(share: float) -> str:
    """A few in a million are not none."""
    return "<0.01%" if 0 < share < 1e-4 else f"{share:.2%}" if 0 < share < 0.1 else f"{share:.0%}" if share in (0, 1) \
        else f"{share:.1%}"


def duration_text(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _context(result: MiningResult, pictures: Pictures) -> dict[str, Any]:
    counts = result.counts
    removed_by_stage = {key[len(REMOVED):]: n for key, n in counts.items() if key.startswith(REMOVED)}
    return {
        "result": result, "counts": counts,
        "removed": sum(n for stage, n in removed_by_stage.items() if stage != "pool"),
        "removed_in_pool": removed_by_stage.get("pool", 0),
        "funnel": _funnel(counts),
        "settings": _flat(result.settings),
        "thresholds": [_threshold(row) for row in result.thresholds],
        "pairs": pair_groups(result.pairs, removed_by_stage, pictures),
        "classes": report_classes.histograms(result) if len(result.class_names) else None,
        "scores": report_classes.rank_scores(result),
        "sheets": report_classes.sheets(result, pictures),
        "kinds": _shares({KINDS.get(kind, kind): n for kind, n in result.kinds.items()}, counts.get("listed", 0)),
        "unreadable": list(result.unreadable)[:UNREADABLE_SHOWN],
        "seconds": _shares(result.seconds, max(result.seconds.values(), default=0)),
        "pictures_lost": pictures.lost,
    }


def _funnel(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """A bar per count: a level from the left, a loss at the end of the bar before it. start, size: per cent."""
    widest = max(counts.values(), default=0) or 1
    rows, level = [], 0
    for key, count in counts.items():
        is_loss = key in LOSSES or key.startswith(REMOVED)
        level = max(level - count, 0) if is_loss else count
        rows.append({"text": _count_text(key), "count": count, "share": count / widest, "loss": is_loss,
                     "style": "removed" if is_loss else STYLES.get(key, "pool"),
                     "start": 100 * level / widest if is_loss else 0.0, "size": 100 * count / widest})
    return rows


def _count_text(key: str) -> str:
    if key.startswith(REMOVED):
        stage = key[len(REMOVED):]
        return f"near-copy: {STAGES.get(stage, stage)}"
    return LEVELS.get(key) or LOSSES.get(key) or key.replace("_", " ")


def _threshold(row: Threshold) -> dict[str, Any]:
    known = row.estimate
    return {"stage": row.stage, "value": row.value, "source": row.source, "known": known is not None,
            **({name: getattr(known, name) for name in ("count", "alarms", "rate", "low", "high")} if known else {}),
            "extrapolated": bool(getattr(known, "extrapolated", False))}


def _shares(values: Mapping[str, float], whole: float) -> list[tuple[str, float, float]]:
    return [(name, value, value / whole if whole else 0.0) for name, value in values.items()]


def _flat(settings: Mapping[str, Any], path: str = "") -> list[tuple[str, str]]:
    """(key path, value) in order."""
    rows = []
    for key, value in settings.items():
        name = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping):
            rows += _flat(value, name)
        elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
            rows += _flat({str(i): item for i, item in enumerate(value)}, name)
        elif isinstance(value, (list, tuple)):
            rows.append((name, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((name, "none" if value is None else "yes" if value is True else "no" if value is False
                         else str(value)))
    return rows
