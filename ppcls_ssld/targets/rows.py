"""Where a view is stored: sample id -> row -> part file and place in it. Arithmetic alone: reading looks nothing up."""

from __future__ import annotations

import numpy as np

from ..rng import Stream, generator

_ROUNDS = 6
MOST_PARTS = 512  # a process may hold each of them open
_LEAST_BLOCK = 1024  # samples


def block_of(samples: int, multiple_of: int = 1) -> int:
    """Samples in a part file: a power of two for which there are not too many files, then a whole number of batches."""
    block = _LEAST_BLOCK
    while samples // block > MOST_PARTS:
        block *= 2
    return -(-block // multiple_of) * multiple_of


class Rows:
    """samples x views on parts of `block` rows; the last part takes what is left over, less than two blocks.

    shuffle: seed of a bijection from sample ids to rows, which makes each run of rows a random sample of the list
    (lists are often sorted by class, and a teacher that normalises by the batch must not see one class at a time).
    None: row = sample id.
    """

    def __init__(self, samples: int, views: int, block: int, shuffle: int | None = None):
        self.samples, self.views, self.block = samples, views, block
        self.parts = max(1, samples // block)
        self._seed = shuffle
        if shuffle is not None:
            self._half = np.uint64(max(1, -(-(max(samples - 1, 1)).bit_length() // 2)))
            self._mask = np.uint64((1 << int(self._half)) - 1)
            self._keys = generator(shuffle, 0, 0, Stream.ROWS).integers(2**64, size=_ROUNDS, dtype=np.uint64)

    def part_rows(self, part: int) -> range:
        return range(part * self.block, self.samples if part == self.parts - 1 else (part + 1) * self.block)

    def of(self, sample_ids: np.ndarray) -> np.ndarray:
        """int64 rows of int64 sample ids."""
        return sample_ids if self._seed is None else self._walk(sample_ids, self._keys)

    def samples_of(self, rows: np.ndarray) -> np.ndarray:
        """int64 sample ids of int64 rows."""
        return rows if self._seed is None else self._walk(rows, self._keys[::-1])

    def plan(self, part: int, batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """In which order the views of a part are made: int64 rows [M], int64 views [M], bool [M], which of them count.

        By row, so that an image is decoded once for all its views. In a shuffled store view by view, each in another
        order, so that an image has other batch mates in each; there every batch is full: the last one of a view is
        filled up with images that have had their turn.
        """
        rows = np.array(self.part_rows(part))
        if self._seed is None:
            views = np.tile(np.arange(self.views), len(rows))
            return np.repeat(rows, self.views), views, np.ones(len(views), bool)
        full = -(-len(rows) // batch_size) * batch_size
        orders = [generator(self._seed, view, part + 1, Stream.ROWS).permutation(rows) for view in range(self.views)]
        return (np.concatenate([np.resize(order, full) for order in orders]), np.repeat(np.arange(self.views), full),
                np.tile(np.arange(full) < len(rows), self.views))

    def _walk(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """A Feistel network on the next power of four, walked until it is back within `samples`."""
        found = self._network(values.astype(np.uint64), keys)
        while (outside := found >= self.samples).any():
            found[outside] = self._network(found[outside], keys)
        return found.astype(np.int64)

    def _network(self, values: np.ndarray, keys: np.ndarray) -> np.ndarray:
        left, right = values >> self._half, values & self._mask
        for key in keys:
            mixed = (right ^ key) * np.uint64(0x9E3779B97F4A7C15)
            mixed = (mixed ^ mixed >> np.uint64(29)) * np.uint64(0xBF58476D1CE4E5B9)
            left, right = right, left ^ mixed >> np.uint64(32) & self._mask
        return right << self._half | left
