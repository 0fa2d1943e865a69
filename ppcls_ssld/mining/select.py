"""From scores to the images of each class: exact, streaming, independent of the order in which blocks come.

An image is identified by its index (row of the listing); ids (16 bytes of its content's hash) only break ties.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, fields

import numpy as np

from ..errors import ConfigError, DataError
from ..rng import Stream, generator

SCORE_KINDS = ("probability", "logit", "margin", "entropy")
_SMALLEST_BUFFER = 1 << 16


@dataclass(frozen=True)
class Selection:
    """Chosen (image, class) pairs, sorted by (class, rank).

    index: int64, image. ids: V16. classes: int32. scores: float64. ranks: int64, 0 for the best image of a class.
    """

    index: np.ndarray
    ids: np.ndarray
    classes: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def images(self) -> np.ndarray:
        """int64: the distinct images, ascending."""
        return np.unique(self.index)

    def counts(self, class_num: int) -> np.ndarray:
        """int64 [class_num]: images of each class."""
        return np.bincount(self.classes, minlength=class_num)


def scores_of(log_probs: np.ndarray, logsumexp: np.ndarray, entropy: np.ndarray, kind: str) -> np.ndarray:
    """Scores float64 [n, P] of the stored classes, higher is surer.

    log_probs: float16 [n, P], descending. logsumexp: float32 [n], of the logits. entropy: float32 [n], nats.
    kind: probability p; logit; margin p_c - the best other p; entropy -H, the same for all classes of an image.
    """
    if kind not in SCORE_KINDS:
        raise ConfigError(f"expected a score kind of {', '.join(SCORE_KINDS)}; found {kind!r}")
    log_probs = np.asarray(log_probs, np.float64)
    if kind == "logit":
        return log_probs + np.asarray(logsumexp, np.float64)[:, None]
    if kind == "entropy":
        return np.repeat(-np.asarray(entropy, np.float64)[:, None], log_probs.shape[1], axis=1)
    probs = np.exp(log_probs)
    if kind == "probability":
        return probs
    if probs.shape[1] < 2:
        raise ConfigError("a margin needs the probabilities of two classes, and one is stored per image; score again "
                          "with two or more")
    others = np.repeat(probs[:, :1], probs.shape[1], axis=1)
    others[:, 0] = probs[:, 1]
    return probs - others


@dataclass
class _Rows:
    """Images with the classes they would take, best first; the `turn`-th is where each stands now."""

    index: np.ndarray  # int64 [n]
    high: np.ndarray  # uint64 [n], first eight bytes of the id, so that numbers compare as bytes do
    low: np.ndarray  # uint64 [n], the other eight
    classes: np.ndarray  # int32 [n, P]
    scores: np.ndarray  # float64 [n, P]; -inf: no candidate of this class
    turn: np.ndarray  # int8 [n]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: np.ndarray) -> _Rows:
        return _Rows(*(getattr(self, f.name)[rows] for f in fields(self)))

    @classmethod
    def concatenate(cls, parts: Sequence[_Rows]) -> _Rows:
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))

    @classmethod
    def empty(cls, turns: int) -> _Rows:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint64),
                   np.zeros((0, turns), np.int32), np.zeros((0, turns)), np.zeros(0, np.int8))

    def here(self) -> tuple[np.ndarray, np.ndarray]:
        """Class and score of each row's turn."""
        rows = np.arange(len(self))
        return self.classes[rows, self.turn], self.scores[rows, self.turn]

    def order(self) -> np.ndarray:
        """Rows by (class, score descending, id, index)."""
        classes, scores = self.here()
        order = np.lexsort((-scores, classes))
        # Few scores are equal: only those are sorted by all keys.
        sorted_classes, sorted_scores = classes[order], scores[order]
        equal = (sorted_classes[1:] == sorted_classes[:-1]) & (sorted_scores[1:] == sorted_scores[:-1])
        tied = np.flatnonzero(np.append(equal, False) | np.insert(equal, 0, False))
        some = order[tied]
        keys = (self.index[some], self.low[some], self.high[some], -scores[some], classes[some])  # the last one first
        order[tied] = some[np.lexsort(keys)]
        return order


class Selector:
    """Top-k images per class of a stream of blocks. Memory O(class_num x top_k x P), whatever was added.

    class_num, top_k: classes, and images of each. classes_per_image: P, an image is a candidate of its P best classes.
    once=False: an image may be chosen in several classes (Yalniz et al. 2019, arXiv 1905.00546).
    once=True: in one at most. Images prefer classes by score, classes images: the stable assignment proposed by the
        images (Gale and Shapley 1962). It is unique, so neither order nor blocks matter: a class that takes a better
        image lets its worst go, which then stands for its next class. min_score: a pair below it is no candidate.
    Ties: higher score, then smaller id, then smaller index; an image's equal scores: the class given first.
    """

    def __init__(self, class_num: int, top_k: int, classes_per_image: int = 1, once: bool = True,
                 min_score: float | None = None):
        if min(class_num, top_k, classes_per_image) < 1 or classes_per_image > min(class_num, 127):
            raise ConfigError(f"expected classes, images per class and classes per image (at most the classes, and "
                              f"127) of 1 or more; found {class_num}, {top_k}, {classes_per_image}")
        self.class_num, self.top_k, self.classes_per_image = class_num, top_k, classes_per_image
        self._once, self._min_score = once, -np.inf if min_score is None else min_score
        self._turns = classes_per_image if once else 1
        self._held = _Rows.empty(self._turns)  # sorted, at most top_k of each class
        self._waiting: list[_Rows] = []
        self._waiting_count = 0
        # Rows worse than the last image of a full class need no sorting: this is what keeps long streams fast.
        self._floor_score = np.full(class_num, -np.inf)
        self._floor_high, self._floor_low = np.full((2, class_num), np.iinfo(np.uint64).max, np.uint64)
        self._floor_index = np.full(class_num, np.iinfo(np.int64).max)

    def add(self, classes: np.ndarray, scores: np.ndarray, ids: np.ndarray, index: np.ndarray) -> None:
        """One block, in any order; each image once in all blocks.

        classes: int32 [n, Q], Q >= P, an image's best first. scores: [n, Q]. ids: V16 [n]. index: int64 [n].
        """
        p = self.classes_per_image
        classes, scores = np.asarray(classes, np.int32), np.asarray(scores, np.float64)
        self._check(classes, scores, ids, index)
        classes, scores = classes[:, :p], scores[:, :p]
        if self._turns > 1:
            best = np.argsort(-scores, axis=1, kind="stable")
            classes, scores = np.take_along_axis(classes, best, 1), np.take_along_axis(scores, best, 1)
        pairs = scores >= np.maximum(self._floor_score[classes], self._min_score)
        if self._once:
            rows = np.flatnonzero(pairs.any(axis=1))
            classes, scores = classes[rows], np.where(pairs[rows], scores[rows], -np.inf)
        else:
            rows, columns = np.nonzero(pairs)
            classes, scores = classes[rows, columns, None], scores[rows, columns, None]
        if len(rows):
            halves = np.ascontiguousarray(np.asarray(ids)[rows]).view(">u8").reshape(-1, 2).astype(np.uint64)
            self._wait(_Rows(np.asarray(index, np.int64)[rows], halves[:, 0], halves[:, 1], classes, scores,
                             np.zeros(len(rows), np.int8)))
            self._settle(down_to=max(_SMALLEST_BUFFER, len(self._held)))

    def result(self) -> Selection:
        """The selection from all blocks so far; more may follow."""
        self._settle(down_to=0)
        held = self._held
        classes, scores = held.here()
        first = np.searchsorted(classes, np.arange(self.class_num))
        ids = np.stack([held.high, held.low], axis=1).astype(">u8").view("V16")[:, 0]
        return Selection(held.index.copy(), ids, classes, scores, np.arange(len(held)) - first[classes])

    def _wait(self, rows: _Rows) -> None:
        """Let each row stand for the first of its classes that may take it; drop those without one."""
        while len(rows):
            refused = self._refused(rows)
            if not refused.any():
                break
            rows.turn[refused] += 1
            alive = rows.turn < self._turns
            rows.turn[~alive] = 0
            rows = rows[alive]
        if len(rows):
            self._waiting.append(rows)
            self._waiting_count += len(rows)

    def _refused(self, rows: _Rows) -> np.ndarray:
        """bool: no candidate of its class, or worse than the last image of that class, which is full."""
        classes, scores = rows.here()
        floor = self._floor_score[classes]
        refused = (scores < floor) | (scores == -np.inf)
        tied = np.flatnonzero((scores == floor) & ~refused)
        if len(tied):
            c, high, low = classes[tied], rows.high[tied], rows.low[tied]
            same = (high == self._floor_high[c])
            refused[tied] = (high > self._floor_high[c]) | (same & (low > self._floor_low[c])) | (
                same & (low == self._floor_low[c]) & (rows.index[tied] > self._floor_index[c]))
        return refused

    def _settle(self, down_to: int) -> None:
        """Let classes choose until at most so many rows wait.

        Not at every block: a sort of all that is held pays when as much is new. To put off a choice is harmless, as the
        stable assignment does not depend on who stands when.
        """
        while self._waiting_count > down_to:
            new = _Rows.concatenate(self._waiting)
            self._waiting, self._waiting_count = [], 0
            touched = np.zeros(self.class_num, bool)
            touched[new.here()[0]] = True
            mine = touched[self._held.here()[0]]
            rest, rows = self._held[~mine], _Rows.concatenate([self._held[mine], new])
            rows = rows[rows.order()]
            classes, scores = rows.here()
            ranks = np.arange(len(rows)) - np.searchsorted(classes, classes)
            last = np.flatnonzero(ranks == self.top_k - 1)
            full = classes[last]
            self._floor_score[full], self._floor_index[full] = scores[last], rows.index[last]
            self._floor_high[full], self._floor_low[full] = rows.high[last], rows.low[last]
            chosen = ranks < self.top_k
            held = _Rows.concatenate([rest, rows[chosen]])
            self._held = held[np.argsort(held.here()[0], kind="stable")] if len(rest) else held
            self._wait(rows[~chosen])

    def _check(self, classes: np.ndarray, scores: np.ndarray, ids: np.ndarray, index: np.ndarray) -> None:
        n = len(index)
        if classes.ndim != 2 or classes.shape != scores.shape or len(classes) != n or len(ids) != n:
            raise DataError(f"expected classes and scores of one shape [n, Q], n ids and n indices; found "
                            f"{classes.shape}, {scores.shape}, {len(ids)} and {n}")
        if classes.shape[1] < self.classes_per_image:
            raise ConfigError(f"an image is to be a candidate of its {self.classes_per_image} best classes, but "
                              f"{classes.shape[1]} are stored; score again with more, or ask for fewer")
        if n and not 0 <= classes.min() <= classes.max() < self.class_num:
            raise DataError(f"expected classes in [0, {self.class_num}), found {classes.min()} .. {classes.max()}; do "
                            "the scores belong to this teacher?")
        if np.isnan(scores).any():
            bad = np.asarray(index)[np.isnan(scores).any(axis=1)]
            raise DataError(f"{len(bad)} image(s) have a score that is not a number, row {bad[0]} of the listing "
                            "first; score them again")


def budget(selection: Selection, n: int) -> Selection:
    """At most n distinct images: the longest run of pairs by (rank, -score, id, index) with no more, so that classes
    shrink evenly and each keeps its best."""
    halves = np.ascontiguousarray(selection.ids).view(">u8").reshape(-1, 2)
    order = np.lexsort((selection.index, halves[:, 1], halves[:, 0], -selection.scores, selection.ranks))
    new = np.zeros(len(order), bool)
    new[np.unique(selection.index[order], return_index=True)[1]] = True
    kept = np.sort(order[np.cumsum(new) <= n])
    return Selection(*(getattr(selection, f.name)[kept] for f in fields(Selection)))


def weights(selection: Selection, class_num: int, floor: int, cap: float) -> np.ndarray:
    """Sampling weight float64 of each of selection.images(): how often a pass visits it, on average.

    Images of a class with m < floor of them weigh floor / m each, so that the class counts as `floor` images, but at
    most `cap`; an image of several classes takes the largest; all others weigh 1.
    """
    if floor < 0 or cap < 1:
        raise ConfigError(f"expected a floor of 0 or more images and a cap of 1 or more; found {floor} and {cap}")
    counts = np.maximum(selection.counts(class_num), 1)
    of_class = np.clip(floor / counts, 1, cap)
    images, row = np.unique(selection.index, return_inverse=True)
    result = np.ones(len(images))
    np.maximum.at(result, row, of_class[selection.classes])
    return result


class RandomControl:
    """n images drawn uniformly from a stream: those whose hashes under a key of the seed are smallest.

    Whether an image is drawn does not depend on the order or the blocks. Memory O(n).
    """

    def __init__(self, n: int, seed: int):
        self.n = n
        self._key = generator(seed, 0, 0, Stream.CONTROL).integers(0, 2**64, 2, np.uint64)
        self._parts = [np.zeros((4, 0), np.uint64)]  # columns of hash, high, low, index
        self._count = 0
        self._limit = np.iinfo(np.uint64).max

    def add(self, ids: np.ndarray, index: np.ndarray) -> None:
        """ids: V16 [n]. index: int64 [n]."""
        halves = np.ascontiguousarray(ids).view(">u8").reshape(-1, 2).astype(np.uint64)
        hashes = _mixed(_mixed(halves[:, 0] ^ self._key[0]) ^ halves[:, 1] ^ self._key[1])
        near = hashes <= self._limit
        new = np.stack([hashes, halves[:, 0], halves[:, 1], np.asarray(index).astype(np.uint64)])[:, near]
        self._parts.append(new)
        self._count += new.shape[1]
        if self._count > 2 * self.n + _SMALLEST_BUFFER:
            self._cut()

    def result(self) -> np.ndarray:
        """int64: the drawn images, ascending; fewer than n when there were fewer."""
        self._cut()
        return np.sort(self._parts[0][3].astype(np.int64))

    def _cut(self) -> None:
        columns = np.concatenate(self._parts, axis=1)
        columns = columns[:, np.lexsort(columns[::-1])[:self.n]]
        self._parts, self._count = [columns], columns.shape[1]
        if self._count == self.n > 0:
            self._limit = columns[0, -1]


def not_listed(values: np.ndarray | Sequence[str], listed: Container) -> np.ndarray:
    """bool [n]: whose name (str) or id (V16; 16 bytes each in `listed`) is not on an exclusion list (a set)."""
    if isinstance(values, np.ndarray) and values.dtype.kind == "V":
        values = (value.tobytes() for value in values)
    return np.array([value not in listed for value in values], bool)


def _mixed(x: np.ndarray) -> np.ndarray:
    """uint64 -> uint64, a bijection without visible structure: the finaliser of SplitMix64 (Steele et al. 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
