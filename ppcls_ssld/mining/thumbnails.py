"""Candidates by whole-image likeness: for a pool image, the protected thumbnails that look most like it.

A descriptor holds the low frequencies of a window's luminance DCT, each weighted by its frequency, which levels a
photograph's falling spectrum: a product of two descriptors compares edges, where that of raw pixels compares shading.
Brightness, contrast and colour have no say in it, and mirroring negates the odd columns. Crops, borders and shifts are
met by windows: protected images are indexed whole and through nine windows, a pool image asks whole and by its centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import faiss
import numpy as np

from .fingerprint import SIDE, dct_rows, luminance, square

_LOW = 8
_MIN_CONTRAST = 2.0  # grey levels, root mean square over a window; flatter windows look like everything and nothing
_OVERSAMPLING = 3  # hits asked for per candidate wanted: windows of one reference crowd the list
_FINE = 4  # samples per pixel and axis when a window's DCT is taken
Window = tuple[float, float, float, float]  # left, top, width, height, of the image's sides
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


def windows(share: float, places: int) -> tuple[Window, ...]:
    """places x places windows, each `share` of the sides, spread evenly over the image."""
    offsets = [(1 - share) / 2] if places == 1 else np.linspace(0, 1 - share, places).tolist()
    return tuple((x, y, share, share) for y in offsets for x in offsets)


@dataclass(frozen=True)
class ThumbnailConfig:
    """share: side of the windows relative to the image's. min_similarity: cosine below which nothing is a candidate."""

    share: float = 0.84
    min_similarity: float = 0.6

    @property
    def query_windows(self) -> tuple[Window, ...]:
        """Symmetric about the middle, so that their mirrors are windows of the mirrored image."""
        return (WHOLE, *windows(self.share, 1))

    @property
    def reference_windows(self) -> tuple[Window, ...]:
        return (WHOLE, *windows(self.share, 3))


def thumbnail(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """uint8 [side, side, 3] of uint8 RGB [H, W, 3]: what an index and `alignment.verify` take."""
    return square(image, side)


class Describer:
    """Descriptors of the same windows of many thumbnails of one size, as one matrix product."""

    def __init__(self, views: tuple[Window, ...], side: int = SIDE):
        self.views, self.side = views, side
        frequency = np.hypot(np.arange(_LOW)[:, None], np.arange(_LOW))
        rows = [(frequency[:, :, None, None] * np.einsum("vy,ux->vuyx", _axis(y, height, side), _axis(x, width, side)))
                for x, y, width, height in views]
        self._matrix = np.stack(rows).reshape(len(views), _LOW * _LOW, side * side)[:, 1:].astype(np.float32)

    @property
    def dim(self) -> int:
        return self._matrix.shape[1]

    def __call__(self, thumbnails: np.ndarray) -> np.ndarray:
        """float32 [n, views, dim] of uint8 RGB [n, side, side, 3]: of unit length, zero where there is no contrast."""
        flat = luminance(thumbnails).reshape(len(thumbnails), -1)
        found = (flat @ self._matrix.reshape(-1, flat.shape[1]).T).reshape(len(flat), len(self.views), -1)
        length = np.sqrt(np.einsum("nvd,nvd->nv", found, found))[..., None]
        return np.where(length < _MIN_CONTRAST, 0, found / np.maximum(length, 1e-6)).astype(np.float32)


def mirrored(descriptors: np.ndarray) -> np.ndarray:
    """Descriptors [..., dim] of the mirrored thumbnails (and, of a window off the middle, of the mirrored window)."""
    return descriptors * np.where(np.arange(1, _LOW * _LOW) % _LOW % 2 == 1, np.float32(-1), np.float32(1))


class ThumbnailIndex:
    """Thumbnails of the protected images to be searched with pool thumbnails, each as it is and mirrored.

    thumbnails: uint8 [n, side, side, 3] (a memory map will do; it is read in blocks and not kept).
    Memory: 10 windows x 63 numbers x 4 bytes = 2.5 KB a reference; cost: see benchmarks/cifar10_duplicates.py.
    """

    def __init__(self, thumbnails: np.ndarray, config: ThumbnailConfig = ThumbnailConfig()):
        self.count, self.config = len(thumbnails), config
        side = thumbnails.shape[1]
        self._query = Describer(config.query_windows, side)
        reference = Describer(config.reference_windows, side)
        self._index = faiss.IndexFlatIP(reference.dim)
        for start in range(0, self.count, 1024):
            self._index.add(reference(np.asarray(thumbnails[start:start + 1024])).reshape(-1, reference.dim))

    def search(self, thumbnails: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The `top` most similar references of each pool thumbnail: (int64 [n, top], float32 [n, top]).

        Best first, -1 and 0 where fewer than `top` reach the configured similarity. A flat thumbnail has none.
        """
        ids = np.full((len(thumbnails), top), -1, np.int64)
        similarities = np.zeros((len(thumbnails), top), np.float32)
        if not self.count or not len(thumbnails):
            return ids, similarities
        asked = self._query(thumbnails)
        asked = np.concatenate([asked, mirrored(asked)], axis=1)
        faiss.omp_set_num_threads(1)
        views = len(self.config.reference_windows)
        count = min(_OVERSAMPLING * top, self._index.ntotal)
        found, where = self._index.search(asked.reshape(-1, asked.shape[2]), count)
        shape = len(thumbnails), 2, len(self.config.query_windows), -1
        # the last bits of a product depend on how many images were asked for at once
        found, where = found.round(4).reshape(shape), (where // views).reshape(shape)
        for i in range(len(thumbnails)):
            # by turns of each window's best: a frame around an image finds frames as a whole, the image by its centre
            ranked = [_distinct(found[i, :, w].ravel(), where[i, :, w].ravel()) for w in range(shape[2])]
            turns = [(rank, -values[rank], references[rank]) for values, references in ranked
                     for rank in range(min(top, len(values))) if values[rank] >= self.config.min_similarity]
            best: dict[int, float] = {}
            for _, negative, reference in sorted(turns):
                best[int(reference)] = max(best.get(int(reference), 0.0), float(-negative))
            best = dict(list(best.items())[:top])
            ids[i, :len(best)], similarities[i, :len(best)] = list(best), list(best.values())
        return ids, similarities


def _distinct(values: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each reference once, with its best value; best first, then lower numbers first."""
    order = np.lexsort((references, -values))
    first = np.sort(np.unique(references[order], return_index=True)[1])
    return values[order][first], references[order][first]


def _axis(start: float, length: float, side: int) -> np.ndarray:
    """float64 [8, side]: from pixels of a whole axis to the DCT of the window [start, start + length]."""
    fine = _FINE * side
    at = np.clip((start + (np.arange(fine) + 0.5) / fine * length) * side - 0.5, 0, side - 1)
    left = np.minimum(at.astype(int), side - 2)
    resample = np.zeros((fine, side))
    resample[np.arange(fine), left] = 1 - (at - left)
    resample[np.arange(fine), left + 1] = at - left
    return dct_rows(_LOW, fine) @ resample / np.sqrt(fine)
