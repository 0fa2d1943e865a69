"""Stage 1: is a pool image a near-copy of a protected one? A cascade, cheap evidence first.

path            the very same name
bytes, pixels   the same file; the same pixels in another file
hash            a near perceptual hash proposes, dense alignment confirms
thumbnail       small images and those with few keypoints: likeness as a whole proposes, dense alignment confirms
keypoints       an inverted index over the protected images' local features proposes, geometry confirms, then the pixels
embedding       an embedding proposes what that index did not find; confirmed as for keypoints

From hash on, the colours have to agree too. Method paper counts matching keypoints instead, within a class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..config.mine import DedupConfig
from ..data.files import Archives, read_bytes
from ..data.pixels import decode
from ..errors import DataError
from . import alignment, colour, overlay
from .geometry import GeometryConfig, paper_match_count, verify
from .images import Look, Unreadable, look
from .keypoints import KeypointConfig
from .protected import Protected, group_of
from .types import Match

FEW_KEYPOINTS = 8  # with fewer, geometry has nothing to count
SMALL_SIDE = 64  # pixels; below, SIFT sees little
ALIGNED = 6  # candidates of a hash or thumbnail that are aligned, at most
WEAK_CELLS, WEAK_CORRELATION = 5, 0.5  # of evidence that is noted although it removes nothing


@dataclass(frozen=True)
class Thresholds:
    """A score at or above removes.

    cells: of keypoints and embedding. correlation: of hash and thumbnail. matches: of method paper.
    """

    cells: int
    correlation: float
    matches: int

    def of(self, stage: str) -> float:
        return {"hash": self.correlation, "thumbnail": self.correlation, "keypoints": float(self.cells),
                "embedding": float(self.cells), "paper": float(self.matches)}.get(stage, float("nan"))


@dataclass(frozen=True)
class Task:
    """Consecutive images of the pool. proposed: per image, protected images that an embedding found near."""

    first: int
    names: tuple[str, ...]
    proposed: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What speaks for a pool image being a copy of protected image number `protected`."""

    stage: str
    protected: int
    match: Match


class Cascade:
    """Work of one process on the pool: a Task -> rows of a dedup part."""

    def __init__(self, config: DedupConfig, protected: Protected, thresholds: Thresholds, max_pixels: int,
                 min_side: int, keypoints: KeypointConfig = KeypointConfig(),
                 geometry: GeometryConfig = GeometryConfig()):
        self._config, self._protected, self._thresholds = config, protected, thresholds
        self._max_pixels, self._min_side = max_pixels, min_side
        self._keypoints = keypoints
        self._geometry = replace(geometry, cells=min(WEAK_CELLS, thresholds.cells))
        self._archives = Archives()

    def __call__(self, task: Task) -> list[dict[str, Any]]:
        """One row per image, with the columns of store's kind 'dedup'."""
        seen = [self.look(name) for name in task.names]
        found = self._exact(seen)
        unsure = [i for i, s in enumerate(seen) if isinstance(s, Look) and found[i] is None]
        proposed = task.proposed or ((),) * len(seen)
        for i, evidence in zip(unsure, self.evidence([seen[i] for i in unsure], [proposed[i] for i in unsure])):
            found[i] = evidence[-1] if evidence else None
        return [self._row(task.first + i, s, found[i]) for i, s in enumerate(seen)]

    def look(self, name: str) -> Look | Unreadable:
        """An image with all that the stages in use need."""
        config = self._config
        wanted = config.keypoints or config.thumbnail or config.method == "paper"
        return look(name, self._archives, self._max_pixels, self._min_side, self._keypoints if wanted else None)

    def _exact(self, seen: Sequence[Look | Unreadable]) -> list[Evidence | None]:
        """Evidence of name, bytes and pixels; an unreadable copy is a copy too."""
        found: list[Evidence | None] = []
        config, protected = self._config, self._protected
        for s in seen:
            stage = position = None
            if protected.count:
                position, stage = protected.position(s.name), "path"
                if position is None and config.bytes:
                    position, stage = protected.same_bytes(s.id), "bytes"
                if position is None and config.pixels and isinstance(s, Look):
                    position, stage = protected.same_pixels(s.digest), "pixels"
            found.append(None if position is None else Evidence(stage, position, _SAME))
        return found

    def evidence(self, seen: Sequence[Look], proposed: Sequence[Sequence[int]] = (),
                 without: Sequence[int] | None = None) -> list[list[Evidence]]:
        """Per image, its evidence of each stage that was tried, surest last. Later stages are tried while nothing
        reaches its threshold.

        proposed: per image, protected images that an embedding found near. without: per image, a protected image that
        is not to be looked at (the image itself, where it is protected too), or -1.
        """
        protected, config = self._protected, self._config
        if not protected.count:
            return [[] for _ in seen]
        proposed = proposed or [()] * len(seen)
        without = without or [-1] * len(seen)
        if config.method == "paper":
            return [self._paper(s, skip) for s, skip in zip(seen, without)]
        small = [i for i, s in enumerate(seen) if config.thumbnail and (
            min(s.width, s.height) < SMALL_SIDE or len(s.keypoints) < FEW_KEYPOINTS)]
        alike = dict(zip(small, protected.near_thumbnails(np.stack([seen[i].thumbnail for i in small]),
                                                          config.candidates))) if small else {}
        results = []
        for i, s in enumerate(seen):
            evidence: list[Evidence] = []
            if config.hash and s.hash is not None:
                near = [r for r in protected.near_hashes(s.hash, ALIGNED + 1) if r != without[i]]
                evidence += self._aligned("hash", s, near[:ALIGNED])
            if i in alike and not self._enough(evidence):
                evidence += self._aligned("thumbnail", s, [r for r in alike[i] if r != without[i]][:ALIGNED])
            if config.keypoints and not self._enough(evidence) and len(s.keypoints) >= FEW_KEYPOINTS:
                evidence += self._matched(s, proposed[i], without[i])
            results.append(sorted(evidence, key=self._margin))
        return results

    def _aligned(self, stage: str, s: Look, candidates: Sequence[int]) -> list[Evidence]:
        least = min(WEAK_CORRELATION, self._thresholds.correlation)
        matches = alignment.best_each(s.thumbnail, np.asarray(self._protected.thumbnails[candidates]))
        found = [Evidence(stage, r, match) for r, match in zip(candidates, matches)
                 if match is not None and match.score >= least and self._alike(s, r, match)]
        return [max(found, key=lambda e: e.match.score)] if found else []

    def _matched(self, s: Look, proposed: Sequence[int], skip: int) -> list[Evidence]:
        """The best match of the index's candidates, and of those that an embedding proposes besides."""
        protected, top, points = self._protected, self._config.candidates, s.keypoints
        voted = [c for c in protected.keypoint_index.search(points, top) if c.reference != skip]
        known = {c.reference for c in voted}
        further = [r for r in proposed if r not in known and r != skip][:top]
        best = []
        for stage, candidates in (("keypoints", [(c.reference, c.mirrored) for c in voted]),
                                  ("embedding", [(r, None) for r in further])):
            found = [Evidence(stage, r, match) for r, mirror in candidates
                     if (match := verify(points, protected.keypoints[r], self._geometry, mirror))
                     and self._confirmed(s, r, match)]
            best += [max(found, key=lambda e: e.match.score)] if found else []
        return best

    def _confirmed(self, s: Look, position: int, match: Match) -> bool:
        """Whether colours and pixels agree where keypoints do. They refuse other text in one layout, or one caption."""
        if match.score < min(self._thresholds.cells, GeometryConfig().cells):
            return True  # removes nothing, so it is not worth reading two images
        if not self._alike(s, position, match):
            return False
        try:
            query, reference = (decode(read_bytes(name, self._archives), name)
                                for name in (s.name, self._protected.listing.name(position)))
        except DataError:
            return True  # they could be read once; what was found then stands
        return overlay.agreement(query, reference, match) >= overlay.LEAST

    def _alike(self, s: Look, position: int, match: Match) -> bool:
        return colour.likeness(s.thumbnail, np.asarray(self._protected.thumbnails[position]), match) >= colour.LEAST

    def _paper(self, s: Look, skip: int) -> list[Evidence]:
        """SIFT matches with the protected images of the same class, as far as the original is known."""
        counts = [(paper_match_count(s.keypoints, self._protected.keypoints[r]), r)
                  for r in self._protected.groups.get(group_of(s.name), []) if r != skip]
        if not counts:
            return []
        count, r = max(counts, key=lambda pair: (pair[0], -pair[1]))
        return [Evidence("keypoints", r, replace(_SAME, score=float(count)))]

    def _margin(self, evidence: Evidence) -> float:
        return evidence.match.score / self.threshold(evidence.stage)

    def threshold(self, stage: str) -> float:
        """Score from which evidence of a stage removes an image."""
        return self._thresholds.of("paper" if self._config.method == "paper" else stage)

    def _enough(self, evidence: Sequence[Evidence]) -> bool:
        return any(self._margin(e) >= 1 for e in evidence)

    def _row(self, index: int, s: Look | Unreadable, evidence: Evidence | None) -> dict[str, Any]:
        readable = isinstance(s, Look)
        exact = evidence is not None and evidence.match is _SAME
        is_copy = evidence is not None and (exact or self._margin(evidence) >= 1)
        has_match = evidence is not None and not exact and self._config.method != "paper"
        return {
            "index": index, "name": s.name, "id": s.id,
            "status": "removed" if is_copy else "kept" if readable else "unreadable",
            "stage": evidence.stage if evidence else "",
            "protected": self._protected.listing.name(evidence.protected) if evidence else "",
            "score": evidence.match.score if evidence and not exact else np.nan,
            "transform": evidence.match.transform if has_match else np.full((2, 3), np.nan, np.float32),
            "mirrored": bool(has_match and evidence.match.mirrored),
            "pairs": evidence.match.pairs if has_match and evidence.stage in ("keypoints", "embedding") else _NO_PAIRS,
            "reason": "" if readable else s.reason, "kinds": ",".join(s.kinds) if readable else "",
            "width": s.width if readable else 0, "height": s.height if readable else 0,
            "hash": (s.hash or 0) if readable else 0, "pixels": s.digest if readable else bytes(16),
        }


_SAME = Match(1.0, np.eye(2, 3, dtype=np.float32), False)
_NO_PAIRS = np.zeros((0, 4), np.float32)


def columns_of(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def tasks_of(names: Sequence[str], first: int, size: int, make: Callable[..., Any],
             proposed: Sequence[Sequence[int]] = ()) -> list[Any]:
    """Consecutive tasks of `size` images."""
    return [make(first + i, tuple(names[i:i + size]), *([tuple(proposed[i:i + size])] if proposed else []))
            for i in range(0, len(names), size)]
