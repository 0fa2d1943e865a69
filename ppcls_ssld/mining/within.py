"""Copies inside the pool: of each group one image stays, the one with most pixels, then the first by name.

An image goes when an image that stays is its copy: same bytes, same pixels, or a near perceptual hash (mirrors too),
confirmed by dense alignment and by the colours. Exact copies of an image that goes follow it; else no chain of small
changes joins unlike images. Of the better images with a near hash, 64 at most are aligned with an image. Crops of one
another are not looked for here: that would take an index over the pool. Memory: about 200 bytes per image of the pool,
in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..data.files import Archives
from . import alignment, colour
from .blocks import stream
from .fingerprint import HashIndex, mirrored
from .images import Look, look
from .listing import Listing

BITS = 6  # of 64; hashes so near are aligned
_QUERY = 256  # hashes asked at once, so that a heap of equal ones does not fill the memory
_NEIGHBOURS, _ROUNDS = 8, 8  # images that one is compared with in a round; rounds
_PAIRS = 64  # pairs of one task


@dataclass(frozen=True)
class Copies:
    """Images of the pool that go. index: int64, ascending. keeper: int64, the image that stays. stage: bytes, pixels or
    hash, what they went for; an exact copy of an image that went itself has that one's keeper, stage and score. score:
    float32, correlation after alignment, nan for exact copies."""

    index: np.ndarray
    keeper: np.ndarray
    stage: np.ndarray
    score: np.ndarray


class _Aligner:
    """Work of one process: pairs of names -> the correlation of each pair after alignment.

    -1 where one cannot be read, nothing aligns or the colours differ.
    """

    def __init__(self, max_pixels: int, min_side: int):
        self._limits = max_pixels, min_side
        self._archives = Archives()

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        seen = [look(name, self._archives, *self._limits) for name in {name for pair in pairs for name in pair}]
        thumbnails = {s.name: s.thumbnail if isinstance(s, Look) else None for s in seen}
        return [_score(thumbnails[a], thumbnails[b]) for a, b in pairs]


def _score(one: np.ndarray | None, two: np.ndarray | None) -> float:
    match = None if one is None or two is None else alignment.best(one, two)
    return match.score if match and colour.likeness(one, two, match) >= colour.LEAST else -1.0


def find_copies(parts: Iterable[dict], listing: Listing, min_correlation: float, max_pixels: int, min_side: int,
                workers: int, check: Callable[[], None] = lambda: None) -> Copies:
    """parts: dedup parts with index, id, pixels, hash, width, height and status. check: see `blocks.stream`."""
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
    rows = np.flatnonzero(stays & (table["hash"] != 0))
    for better, worse, correlation in _near_copies(table["hash"][rows], table["index"][rows], listing, min_correlation,
                                                   _Aligner(max_pixels, min_side), workers, check):
        worse, better = rows[worse], rows[better]
        stays[worse], keeper[worse], stage[worse], score[worse] = False, better, "hash", correlation
    for i in np.flatnonzero(~stays):  # an exact copy of an image that went goes for the same reason
        while not stays[keeper[i]]:
            keeper[i], stage[i], score[i] = keeper[keeper[i]], stage[keeper[i]], score[keeper[i]]
    gone = np.flatnonzero(~stays)
    gone = gone[np.argsort(table["index"][gone])]
    return Copies(table["index"][gone], table["index"][keeper[gone]], stage[gone], score[gone])


def _near_copies(hashes: np.ndarray, index: np.ndarray, listing: Listing, min_correlation: float, aligner: _Aligner,
                 workers: int, check: Callable[[], None]) -> Iterator[tuple[int, int, float]]:
    """(position that stays, position that goes, correlation); hashes and index: best image first.

    In rounds: each image that stays is compared with a few near ones before it that stay, in turns the best of them and
    the nearest. Those with more near ones than were compared go into the next round, without what has gone meanwhile: a
    heap of copies is settled in one or two.
    """
    stays = np.ones(len(hashes), bool)
    open_ = np.arange(len(hashes))
    done: set[tuple[int, int]] = set()
    for turn in range(_ROUNDS):
        pairs, open_ = _near_before(hashes, np.flatnonzero(stays), open_[stays[open_]], done, by_bits=turn % 2 == 1)
        done.update(pairs)
        tasks = [[(listing.name(int(index[a])), listing.name(int(index[b]))) for a, b in pairs[i:i + _PAIRS]]
                 for i in range(0, len(pairs), _PAIRS)]
        scores = [score for found in stream(aligner, tasks, workers, check) for score in found]
        # In the order of merit: whether `a` stays was settled before `b` is looked at.
        for (a, b), score in sorted(zip(pairs, scores), key=lambda pair: (pair[0][1], pair[0][0])):
            if score >= min_correlation and stays[a] and stays[b]:
                stays[b] = False
                yield a, b, score


def _near_before(hashes: np.ndarray, known: np.ndarray, asked: np.ndarray, done: set[tuple[int, int]],
                 by_bits: bool) -> tuple[list[tuple[int, int]], np.ndarray]:
    """(pairs (before, asked) of near hashes or mirrors, at most _NEIGHBOURS of each; those asked that have more)."""
    index, pairs, more = HashIndex(hashes[known], BITS), [], []
    for start in range(0, len(asked), _QUERY):
        block = asked[start:start + _QUERY]
        found = []
        for turned in (hashes[block], mirrored(hashes[block])):
            query, near, bits = index.within(turned)
            before = known[near] < block[query]
            found.append(np.stack([query[before], bits[before], known[near][before]]))
        query, _, near = table = np.concatenate(found, axis=1)
        order = np.lexsort(table[::-1] if by_bits else (near, query))
        counts = np.zeros(len(block), np.int64)
        for q, a in zip(query[order].tolist(), near[order].tolist()):
            pair = (a, int(block[q]))
            if counts[q] > _NEIGHBOURS or pair in done:
                continue
            counts[q] += 1
            if counts[q] <= _NEIGHBOURS and pair not in pairs[-2 * _NEIGHBOURS:]:
                pairs.append(pair)
        more.append(block[counts > _NEIGHBOURS])
    return pairs, np.concatenate(more) if more else np.zeros(0, np.int64)
