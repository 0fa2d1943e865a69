"""What a finished run tells: removed.csv, quarantine.csv, manifest.json, and the matter of the report."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..config import plain
from ..data.files import read_bytes
from ..data.pixels import decode
from ..inference import read_labels
from .calibrate import Estimate
from .choose import Choice
from .dedup import Thresholds
from .outputs import write_csv, write_json
from .report import MiningResult, Pair, Threshold, chosen_shown, scores_at_ranks, shortlist, write_report
from .score import file_digest
from .stages import copies_of
from .store import read_parts
from .workspace import ALGORITHM, Workspace, read_json

_COLUMNS = ("index", "name", "status", "stage", "protected", "score", "transform", "mirrored", "pairs", "reason",
            "kinds")
_STAGE_ORDER = ("path", "bytes", "pixels", "hash", "thumbnail", "keypoints", "embedding")


@dataclass
class Tally:
    """Of all parts.

    unreadable: images of the pool, with those `lost` between dedup and score. removed: images by stage. kinds: images
    by what is odd about them. quarantine: (path, reason), protected images too. pairs: those worth looking at.
    """

    unreadable: int = 0
    lost: int = 0
    removed: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    quarantine: list[tuple[str, str]] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)


def write_results(ws: Workspace, choice: Choice, dedup: dict[str, Any], scores: dict[str, Any],
                  estimates: dict[str, tuple[Estimate, str]], written: Sequence[Path], command: str) -> Path:
    """Write the tables, the manifest and the report; returns the report's path."""
    thresholds = Thresholds(dedup["cells"], dedup["correlation"], dedup["matches"])
    tally = _write_tables(ws, dedup, scores, thresholds)
    class_names = class_names_of(ws, len(choice.before))
    counts = _counts(ws, tally, choice)
    write_json(ws.folder / "manifest.json", {
        "made_by": f"ppcls_ssld {__version__}", "code": _code_digest(), "algorithm": ALGORITHM,
        "config": plain(ws.config.source),
        "pool": {key: ws.about["pool"][key] for key in ("digest", "count", "sources")},
        "protected": {key: ws.about["protected"][key] for key in ("digest", "count", "sources")},
        "dedup": dedup, "score": scores,
        "select": {**asdict(ws.config.Select), "seed": ws.config.seed, "exclusions": choice.exclusion_digest},
        "counts": counts, "versions": _versions(),
        "files": {path.name: file_digest(str(path)) for path in (*written, ws.folder / "removed.csv",
                                                                 ws.folder / "quarantine.csv")}})
    seconds = read_json(ws.folder / "seconds.json")
    notes = [f"{tally.lost:,} images could be read at first, but not when they were scored"] if tally.lost else []
    result = MiningResult(
        command=command, settings={k: plain(v) for k, v in ws.config.source.items()}, counts=counts, pairs=tally.pairs,
        thresholds=_threshold_rows(dedup, thresholds, estimates), class_names=class_names, before=choice.before,
        after=choice.after, top_k=ws.config.Select.top_k,
        rank_scores=scores_at_ranks(choice.selection, len(class_names), ws.config.Select.top_k),
        score_name=ws.config.Select.score, chosen=chosen_shown(choice.selection, len(class_names), ws.pool.name),
        kinds=dict(sorted(tally.kinds.items())), unreadable=tally.quarantine, seconds=seconds, notes=notes,
        versions=", ".join(f"{name} {version}" for name, version in _versions().items()))
    return write_report(result, ws.folder / "report.html", read=lambda name: decode(read_bytes(name), name))


def _write_tables(ws: Workspace, dedup: dict[str, Any], scores: dict[str, Any], thresholds: Thresholds) -> Tally:
    """removed.csv and quarantine.csv from the parts, in the order of the listing.

    What could not be listed comes first; copies inside the pool, and unreadable protected images, come last.
    """
    tally, removed = Tally(), []
    quarantine = [(path, reason) for path, reason in ws.about["pool"]["unlistable"]]
    copies = copies_of(ws, dedup)
    copied = set(copies.index.tolist()) if copies else set()

    def pairs() -> Iterator[Pair]:
        blocks = range(len(ws.blocks))
        dedup_parts = read_parts(ws.folder / "dedup", blocks, "dedup", dedup, _COLUMNS)
        score_parts = read_parts(ws.folder / "score", blocks, "score", scores, ("index",))
        for row, scored in _rows(dedup_parts, score_parts):
            tally.kinds.update(filter(None, row["kinds"].split(",")))
            if row["status"] == "removed":
                tally.removed[row["stage"]] += 1
                removed.append((row["name"], row["protected"], row["stage"], _number(row["score"]),
                                _transform(row["transform"]), "yes" if row["mirrored"] else "no"))
            elif row["status"] == "unreadable" or (row["index"] not in scored and row["index"] not in copied):
                tally.unreadable += 1
                tally.lost += row["status"] == "kept"
                quarantine.append((row["name"], row["reason"] or "could be read at first, but not when it was scored"))
            if row["stage"] and row["status"] != "unreadable":
                threshold = thresholds.of("paper" if dedup["method"] == "paper" else row["stage"])
                yield Pair(row["name"], row["protected"], row["stage"], row["score"], threshold, row["mirrored"],
                           row["transform"], row["pairs"], row["status"])
        for index, keeper, stage, score in zip(copies.index.tolist(), copies.keeper.tolist(), copies.stage.tolist(),
                                               copies.score.tolist()) if copies else ():
            tally.removed["pool"] += 1
            name, kept = ws.pool.name(index), ws.pool.name(keeper)
            removed.append((name, kept, f"pool {stage}", _number(score), "", ""))
            yield Pair(name, kept, "pool", score, thresholds.correlation)

    tally.pairs = shortlist(pairs())
    quarantine += [(path, f"protected image: {reason}") for path, reason in _protected_unreadable(ws)]
    write_csv(ws.folder / "removed.csv", ("path", "copy_of", "stage", "score", "transform", "mirrored"), removed)
    write_csv(ws.folder / "quarantine.csv", ("path", "reason"), quarantine)
    tally.quarantine = quarantine
    return tally


def _rows(dedup_parts: Iterable[dict[str, Any]],
          score_parts: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], set[int]]]:
    """(row of dedup, positions that are scored in its block)."""
    for part, scores in zip(dedup_parts, score_parts):
        scored = set(scores["index"].tolist())
        yield from ((dict(zip(part, values)), scored) for values in zip(*part.values()))


def _code_digest() -> str:
    """BLAKE2b of the package's source, which a version number alone does not tell."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).resolve().parent.parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _counts(ws: Workspace, tally: Tally, choice: Choice) -> dict[str, int]:
    """The funnel, in its order."""
    about = ws.about["pool"]
    listed = about["count"] + about["duplicates"] + len(about["unlistable"])
    counts = {"listed": listed, "name_duplicates": about["duplicates"],
              "unreadable": tally.unreadable + len(about["unlistable"])}
    counts |= {f"removed_{stage}": tally.removed[stage] for stage in (*_STAGE_ORDER, "pool") if tally.removed[stage]}
    counts |= {"scored": choice.scored}
    if choice.excluded:
        counts |= {"excluded": choice.excluded}
    if ws.config.Select.min_score is not None:
        counts |= {"above_min_score": choice.above_min}
    counts |= {"chosen": len(choice.images)}
    if choice.control is not None:
        counts |= {"random_control": len(choice.control)}
    return counts


def _threshold_rows(dedup: dict[str, Any], thresholds: Thresholds,
                    estimates: dict[str, tuple[Estimate, str]]) -> list[Threshold]:
    if dedup["method"] == "paper":
        return [Threshold("keypoints", float(thresholds.matches))]
    rows = []
    for key, stage, value in (("correlation", "hash", thresholds.correlation),
                              ("correlation", "thumbnail", thresholds.correlation),
                              ("cells", "keypoints", float(thresholds.cells))):
        estimate, source = estimates.get(key, (None, ""))
        rows.append(Threshold(stage, value, estimate, source))
    return rows


def class_names_of(ws: Workspace, class_num: int) -> Sequence[str]:
    file = ws.config.Select.class_names
    return read_labels(file, class_num) if file else [str(c) for c in range(class_num)]


def _protected_unreadable(ws: Workspace) -> list[tuple[str, str]]:
    if ws.protected is None:
        return []
    return [tuple(pair) for pair in (*ws.about["protected"]["unlistable"],
                                     *read_json(ws.folder / "protected" / "protected.json")["unreadable"])]


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("paddlepaddle", "paddlepaddle-gpu", "paddleclas", "numpy", "opencv-python-headless",
                    "opencv-python", "faiss-cpu", "pyarrow"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _transform(transform: np.ndarray) -> str:
    """Six numbers, row by row; see types.Match."""
    return "" if np.isnan(transform).any() else " ".join(f"{v:.5g}" for v in np.asarray(transform).ravel())
