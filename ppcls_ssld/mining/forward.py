"""Images of the listing through a frozen network, block by block, at the speed of the network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ..config.schema import Entry
from ..data import build_transforms
from ..data.assemble import Assembler
from ..data.workers import read_ahead
from ..structs import UNLABELLED, Batch
from .listing import Listing

_PREFETCH = 3  # batches per reading process


class _ListingImages:
    """A listing in the place of an ImageList."""

    def __init__(self, listing: Listing):
        self._listing = listing
        self.labels = np.broadcast_to(np.int32(UNLABELLED), len(listing))

    def __len__(self) -> int:
        return len(self._listing)

    def path(self, index: int) -> str:
        return self._listing.name(index)


@dataclass(frozen=True)
class Answers:
    """A network's outputs on one block. index: int64 [n], positions in the listing of the images that could be read.
    outputs: float32 [n, C]. unreadable: names of the others."""

    index: np.ndarray
    outputs: np.ndarray
    unreadable: tuple[str, ...]


def run_network(network: Callable[[np.ndarray], np.ndarray], listing: Listing, blocks: Sequence[np.ndarray],
                transform_ops: Sequence[Entry], batch_size: int, workers: int) -> Iterator[Answers]:
    """Answers per block, in order; blocks: int64 [n] positions in the listing, in the order they are shown.

    A batch never holds images of two blocks and the last one is filled up with zeros: so the network sees one shape
    only, and an image's output depends on its block alone, not on who computes it or what came before.
    """
    images = Assembler([_ListingImages(listing)], build_transforms(transform_ops, "Score.transform_ops"), None, 0,
                       "skip", "the teacher's input")
    images.may_be_empty = True
    batches = [(k, positions[i:i + batch_size]) for k, positions in enumerate(blocks)
               for i in range(0, len(positions), batch_size)]

    def keys_of(m: int) -> np.ndarray:
        positions = batches[m][1]
        return np.stack([np.zeros_like(positions), positions, np.zeros_like(positions)], axis=1)

    for m in range(len(batches)):  # until one image could be read
        if images.image_shape is None:
            images.learn_shape(keys_of(m))
    with closing(_read(images, keys_of, len(batches), batch_size, workers)) as stream:
        numbered = zip((k for k, _ in batches), stream)
        k, batch = next(numbered, (None, None))
        for block in range(len(blocks)):
            index, outputs, unreadable = [], [], []
            while k == block:
                if len(batch):
                    index.append(batch.sample_ids)
                    outputs.append(_padded(network, batch.images, batch_size))
                unreadable += batch.skipped
                k, batch = next(numbered, (None, None))
            yield Answers(np.concatenate(index) if index else np.zeros(0, np.int64),
                          np.concatenate(outputs) if outputs else np.zeros((0, 1), np.float32), tuple(unreadable))


def _read(images: Assembler, keys_of: Callable[[int], np.ndarray], count: int, batch_size: int,
          workers: int) -> Generator[Batch]:
    if workers == 0 or images.image_shape is None or count == 0:
        return (images.assemble(keys_of(m)) for m in range(count))
    return read_ahead(images, keys_of, 0, count, batch_size, min(workers, count), _PREFETCH)


def _padded(network: Callable[[np.ndarray], np.ndarray], images: np.ndarray, batch_size: int) -> np.ndarray:
    n = len(images)
    if n < batch_size:
        images = np.concatenate([images, np.zeros((batch_size - n, *images.shape[1:]), images.dtype)])
    return np.asarray(network(images))[:n]
