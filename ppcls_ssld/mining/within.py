"""Copies inside the pool: of each group one image stays, the one with most pixels, then the first by name.

An image goes when an image that stays is its copy: same bytes, same pixels, or a near perceptual hash (mirrors too)
confirmed by dense alignment. So no chain of small changes joins unlike images. Crops of one another are not looked for
here: that would take an index over the pool. Memory: about 100 bytes per image of the pool, in one process.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.files import Archives
from . import alignment
from .blocks import stream
from .fingerprint import HashIndex, mirrored
from .images import Look, look
from .listing import Listing
from .types import Match

BITS = 6  # of 64; hashes so near are aligned
_QUERY = 1 << 14  # hashes asked at once
_PAIRS = 64  # pairs of one task


@dataclass(frozen=True)
class Copies:
    """Images of the pool that go. index: int64, ascending. keeper: int64, the image that stays. stage: bytes, pixels or
    hash. score: float32, correlation after alignment, nan for exact copies."""

    index: np.ndarray
    keeper: np.ndarray
    stage: np.ndarray
    score: np.ndarray


class _Aligner:
    """Work of one process: pairs of names -> the correlation of each pair after alignment."""

    def __init__(self, max_pixels: int, min_side: int):
        self._limits = max_pixels, min_side
        self._archives = Archives()

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        seen = [look(name, self._archives, *self._limits) for name in {name for pair in pairs for name in pair}]
        thumbnails = {s.name: s.thumbnail if isinstance(s, Look) else None for s in seen}
        return [_score(thumbnails[a], thumbnails[b]) for a, b in pairs]


def _score(one: np.ndarray | None, two: np.ndarray | None) -> float:
    match: Match | None = None if one is None or two is None else alignment.best(one, two)
    return match.score if match else -1.0


def find_copies(parts: Iterable[dict], listing: Listing, min_correlation: float, max_pixels: int, min_side: int,
                workers: int) -> Copies:
    """parts: dedup parts with index, id, pixels, hash, width, height and status."""
    columns: dict[str, list[np.ndarray]] = {key: [] for key in ("index", "id", "pixels", "hash", "area")}
    for part in parts:
        kept = part["status"] == "kept"
        part = {**part, "area": part["width"].astype(np.int64) * part["height"]}
        for key, values in columns.items():
            values.append(part[key][kept])
    table = {key: np.concatenate(values) for key, values in columns.items()} if columns["index"] else {}
    if not table or not len(table["index"]):
        return Copies(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, "U6"), np.zeros(0, np.float32))
    order = np.lexsort((table["index"], -table["area"]))  # the listing is sorted by name, so positions are names
    table = {key: values[order] for key, values in table.items()}
    n = len(order)
    keeper, stage = np.arange(n), np.full(n, "", "U6")
    score = np.full(n, np.nan, np.float32)
    for key, name in (("id", "bytes"), ("pixels", "pixels")):
        _, first, group = np.unique(table[key], return_index=True, return_inverse=True)
        copies = (first[group.ravel()] < np.arange(n)) & (keeper == np.arange(n))
        keeper[copies], stage[copies] = first[group.ravel()][copies], name
    stays = keeper == np.arange(n)
    verified = _verified_pairs(table, np.flatnonzero(stays & (table["hash"] != 0)), listing, min_correlation,
                               max_pixels, min_side, workers)
    for better, worse, correlation in sorted(verified, key=lambda pair: (pair[1], pair[0])):
        # In the order of merit: whether `better` stays was settled before `worse` is looked at.
        if stays[better] and stays[worse]:
            stays[worse], keeper[worse], stage[worse], score[worse] = False, better, "hash", correlation
    for i in np.flatnonzero(~stays):  # an exact copy of an image that went stands behind that image's keeper
        while not stays[keeper[i]]:
            keeper[i] = keeper[keeper[i]]
    gone = np.flatnonzero(~stays)
    gone = gone[np.argsort(table["index"][gone])]
    return Copies(table["index"][gone], table["index"][keeper[gone]], stage[gone], score[gone])


def _verified_pairs(table: dict[str, np.ndarray], rows: np.ndarray, listing: Listing, min_correlation: float,
                    max_pixels: int, min_side: int, workers: int) -> list[tuple[int, int, float]]:
    """(better, worse, correlation) of images whose hashes are near and that align."""
    pairs = list(_near_pairs(table["hash"][rows], rows))
    tasks = [[(listing.name(int(table["index"][a])), listing.name(int(table["index"][b]))) for a, b in
              pairs[i:i + _PAIRS]] for i in range(0, len(pairs), _PAIRS)]
    scores = [score for found in stream(_Aligner(max_pixels, min_side), tasks, workers) for score in found]
    return [(a, b, score) for (a, b), score in zip(pairs, scores) if score >= min_correlation]


def _near_pairs(hashes: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, int]]:
    index = HashIndex(hashes, BITS)
    seen: set[tuple[int, int]] = set()
    for turned in (False, True):
        for start in range(0, len(hashes), _QUERY):
            block = hashes[start:start + _QUERY]
            query, found, _ = index.within(mirrored(block) if turned else block)
            query = query + start
            for a, b in zip(query[found > query].tolist(), found[found > query].tolist()):
                if (a, b) not in seen:
                    seen.add((a, b))
                    yield int(rows[a]), int(rows[b])
