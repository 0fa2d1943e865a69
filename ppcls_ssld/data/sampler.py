"""Which image stands where in which batch: pure functions of the seed and of positions, without state.

A stream over n images never ends: position k belongs to pass k // n and is element k % n of that pass's permutation.
With weights a pass is as long as they sum to, and an image comes in it as often as its weight says, on average.
Batches are consecutive windows of streams, so no image is dropped or doubled and no batch is partial; a pass may end
in the middle of a batch. Batch m is a function of m: to resume is to start at another m. World size only decides which
rank takes which part of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import ConfigError
from ..rng import Stream, generator

_LONGEST_PERIOD = 10_000  # slots after which the order of sources repeats; ratios are exact to 1 / this


class ImageStream:
    """Endless order over n images; source: index that tells its permutations from those of other streams.

    weights: float [n], visits of each image per pass; None: one each. length: visits of a pass.
    """

    def __init__(self, n: int, seed: int, source: int, shuffle: bool, weights: np.ndarray | None = None):
        self.n, self.seed, self.source, self.shuffle = n, seed, source, shuffle
        self._visits = None if weights is None else Visits(weights)
        self.length = n if weights is None else self._visits.length
        self._orders: dict[int, tuple[np.ndarray, np.ndarray] | np.ndarray] = {}

    def take(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """int64 positions -> (int64 indices of images, int64 passes).

        With weights, turns in place of passes: an image has each turn at most once and misses few, so that its visits are
        augmented differently and stored views all have their turn.
        """
        passes, within = np.divmod(positions, self.length)
        indices = within.copy()
        if self._visits is not None:
            turns = np.empty_like(within)
            for p in np.unique(passes).tolist():
                mask = passes == p
                images, repeats = self._weighted_order(p)
                indices[mask] = images[within[mask]]
                turns[mask] = p * self._visits.most[indices[mask]] + repeats[within[mask]]
            return indices, turns
        if self.shuffle:
            for p in np.unique(passes).tolist():
                mask = passes == p
                indices[mask] = self._order(p)[within[mask]]
        return indices, passes

    def _order(self, p: int) -> np.ndarray:
        if p not in self._orders:
            order = generator(self.seed, p, self.source, Stream.ORDER).permutation(np.arange(self.n, dtype=np.int32))
            # A batch spans few passes and batches come in order: two permutations of 20 MB per 5 million images.
            self._orders = dict([*self._orders.items()][-1:]) | {p: order}
        return self._orders[p]

    def _weighted_order(self, p: int) -> tuple[np.ndarray, np.ndarray]:
        if p not in self._orders:
            images, repeats = self._visits.of_pass(float(generator(self.seed, p, self.source, Stream.VISITS).random()))
            if self.shuffle:
                order = generator(self.seed, p, self.source, Stream.ORDER).permutation(len(images))
                images, repeats = images[order], repeats[order]
            self._orders = dict([*self._orders.items()][-1:]) | {p: (images, repeats)}
        return self._orders[p]


class Visits:
    """How often each image comes in a pass: floor or ceil of its weight, its weight on average over passes.

    Every pass has `length` visits, the sum of the weights rounded: what is left over their whole parts is sampled
    systematically (equal steps from one random start), after a change that makes it sum to a whole number. `most`: int64
    [n], visits of a pass that an image does not exceed.
    """

    def __init__(self, weights: np.ndarray):
        weights = np.asarray(weights, np.float64)
        if not (np.isfinite(weights).all() and weights.min() >= 0 and np.rint(weights.sum()) >= 1):
            raise ConfigError(f"expected weights of 0 or more that sum to 1 or more, found {weights.min():g} to "
                              f"{weights.max():g} with sum {weights.sum():g}")
        self.length = int(np.rint(weights.sum()))
        self.most = np.ceil(weights).astype(np.int64)
        self._whole = np.floor(weights).astype(np.int32)
        self._parts = np.flatnonzero(weights > self._whole)
        shares = weights[self._parts] - self._whole[self._parts]
        self._extra = self.length - int(self._whole.sum())  # visits that the fractions share
        if self._extra <= shares.sum():
            shares *= self._extra / max(shares.sum(), 1e-300)
        else:  # their complements shrink, so that none comes to exceed 1
            shares = 1 - (1 - shares) * ((len(shares) - self._extra) / (1 - shares).sum())
        self._ends = np.cumsum(shares)

    def of_pass(self, start: float) -> tuple[np.ndarray, np.ndarray]:
        """Images int32 [length], ascending, and which visit of its image in this pass each is; start in [0, 1)."""
        steps = np.searchsorted(self._ends, start + np.arange(self._extra), side="right")
        visits = self._whole.copy()
        np.add.at(visits, self._parts[np.minimum(steps, len(self._parts) - 1)], 1)
        images = np.repeat(np.arange(len(visits), dtype=np.int32), visits)
        first = np.repeat(np.cumsum(visits) - visits, visits)
        return images, (np.arange(len(images)) - first).astype(np.int32)


def source_pattern(ratios: Sequence[float]) -> np.ndarray:
    """Period of the order of sources: int64 [D], D <= 10,000, in which source j stands in about ratios[j] * D slots.

    After any number k of slots, repeated periods included, source j has stood in floor or ceil of its share of k: no
    source is ever a whole image behind or ahead. Tijdeman's rule (The chairman assignment problem, 1980): of the
    sources that may take their next slot already, the one that must take it first.
    """
    counts, period = _whole_counts(np.asarray(ratios, np.float64))
    if len(counts) == 1:
        return np.zeros(1, np.int64)
    parts = 2 * len(counts) - 2
    pattern, taken = np.empty(period, np.int64), [0] * len(counts)
    for k in range(1, period + 1):
        best = None
        for j, count in enumerate(counts):
            if parts * (k * count - taken[j] * period) >= period:  # its share is ahead of it by 1 / parts or more
                deadline = -(-((taken[j] + 1) * parts - 1) * period // (parts * count))
                best = min(best, (deadline, j)) if best else (deadline, j)
        pattern[k - 1] = best[1]
        taken[best[1]] += 1
    return pattern


def _whole_counts(ratios: np.ndarray) -> tuple[list[int], int]:
    """Ratios as counts per period, with the smallest period that holds them exactly, else the longest."""
    for period in range(1, _LONGEST_PERIOD + 1):
        counts = np.rint(ratios * period)
        if counts.min() >= 1 and counts.sum() == period and np.abs(ratios * period - counts).max() < 1e-6:
            return counts.astype(int).tolist(), period
    shares = ratios * _LONGEST_PERIOD
    counts = np.maximum(1, np.floor(shares)).astype(int)
    for j in np.argsort(counts - shares)[:max(0, _LONGEST_PERIOD - counts.sum())]:  # largest remainders
        counts[j] += 1
    return counts.tolist(), int(counts.sum())


class TrainSampler:
    """Micro-batches of one rank.

    sizes: images per source. ratios: share of each source, summing to 1; None mixes all sources into one stream, each
    in proportion to its size. batch_size: of this rank. epoch_of: index of the source whose size defines an epoch; None
    for all together. drop_last rounds an epoch down to whole batches (at least one) instead of up; the images left over
    open the next epoch, in either case. weights: per source, visits of each of its images per pass, or None for one
    each; a pass, and so an epoch, counts visits.
    """

    def __init__(self, sizes: Sequence[int], ratios: Sequence[float] | None, batch_size: int, seed: int,
                 rank: int = 0, world: int = 1, shuffle: bool = True, epoch_of: int | None = None,
                 drop_last: bool = False, weights: Sequence[np.ndarray | None] | None = None):
        weights = [None] * len(sizes) if weights is None else weights
        if min(sizes) < 1 or batch_size < 1 or not 0 <= rank < world:
            raise ConfigError(f"expected images in every source, a batch size above 0 and a rank below the world size; "
                              f"found sizes {list(sizes)}, batch size {batch_size}, rank {rank} of {world}")
        if ratios is not None and (min(ratios) <= 0 or abs(sum(ratios) - 1) > 1e-6):
            raise ConfigError(f"expected ratios above 0 that sum to 1, found {list(ratios)}")
        self.batch_size, self.rank, self.world = batch_size, rank, world
        self.global_batch = batch_size * world
        self._offsets = np.concatenate([[0], np.cumsum(sizes)])
        if ratios is None:
            self._pattern = None
            self._streams = [ImageStream(sum(sizes), seed, 0, shuffle, _joined(sizes, weights))]
        else:
            self._pattern = source_pattern(ratios)
            self._streams = [ImageStream(n, seed, j, shuffle, weights[j]) for j, n in enumerate(sizes)]
            # _before[j, i]: slots of source j among the first i of a period
            slots = self._pattern == np.arange(len(sizes))[:, None]
            self._before = np.pad(np.cumsum(slots, axis=1), ((0, 0), (1, 0)))
        # An epoch ends when its source has been seen once; without ratios all sources end their passes together.
        images, period, count = sum(stream.length for stream in self._streams), 1, 1
        if ratios is not None and epoch_of is not None:
            images, period, count = self._streams[epoch_of].length, len(self._pattern), int(self._before[epoch_of, -1])
        whole, rest = divmod(images * period, count * self.global_batch)
        self.batches_per_epoch = max(1, whole + (rest > 0 and not drop_last))

    def batch(self, m: int) -> np.ndarray:
        """int64 [batch_size, 3]: (source, index in it, pass) of this rank's images in micro-batch m.

        With weights, the image's turn in place of the pass (ImageStream.take).
        """
        slots = np.arange(m * self.global_batch, (m + 1) * self.global_batch)
        if self._pattern is None:
            indices, passes = self._streams[0].take(slots[self.rank::self.world])
            sources = np.searchsorted(self._offsets, indices, side="right") - 1
            return np.stack([sources, indices - self._offsets[sources], passes], axis=1)

        periods, within = np.divmod(slots, len(self._pattern))
        sources = self._pattern[within]
        positions = periods * self._before[sources, -1] + self._before[sources, within]
        # Grouped by source before ranks take their strides: every rank gets its part of every source.
        mine = np.argsort(sources, kind="stable")[self.rank::self.world]
        sources, positions = sources[mine], positions[mine]
        batch = np.stack([sources, positions, positions], axis=1)
        for j in np.unique(sources).tolist():
            batch[sources == j, 1:] = np.stack(self._streams[j].take(positions[sources == j]), axis=1)
        return batch

    def counts(self, m: int) -> np.ndarray:
        """int64 [sources]: images of each source in micro-batch m, all ranks together; only with ratios."""
        slots = np.arange(m * self.global_batch, (m + 1) * self.global_batch)
        return np.bincount(self._pattern[slots % len(self._pattern)], minlength=len(self._streams))


def _joined(sizes: Sequence[int], weights: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Weights of all sources in one row, 1 for each image of a source without; None when no source has any."""
    if all(w is None for w in weights):
        return None
    return np.concatenate([np.ones(n) if w is None else w for n, w in zip(sizes, weights)])


def eval_indices(n: int, rank: int, world: int) -> np.ndarray:
    """int64 indices of this rank's images: over all ranks, each of n exactly once."""
    return np.arange(rank, n, world)
