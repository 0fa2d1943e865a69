"""What identifies an image as a whole: its bytes, its pixels, and a perceptual hash that survives re-encoding.

The perceptual hash is the sign of the 63 lowest frequencies of a 32x32 luminance DCT. Signs, and not comparisons with a
median, because mirroring an image negates exactly the odd columns: the mirror's hash is one exclusive or away.
A hash within a few bits is a candidate and no proof; alignment.py decides.
"""

from __future__ import annotations

import hashlib

import cv2
import faiss
import numpy as np

SIDE = 32  # pixels of the square luminance image that is transformed
_LOW = 8  # frequencies kept each way
_MIN_CONTRAST = 2.0  # grey levels, root mean square of the kept frequencies; below it signs are noise
_FLAT_LIMIT = 200_000  # hashes up to which comparing with all of them is faster than probing buckets
_BANDS, _BAND_BITS = 4, 16
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)

_ODD_COLUMNS = np.arange(_LOW * _LOW) % _LOW % 2 == 1
_MIRROR = np.packbits(_ODD_COLUMNS, bitorder="little").view("<u8")[0]


def image_id(encoded: bytes) -> bytes:
    """16 bytes that stand for a file's content: BLAKE2b of its bytes."""
    return hashlib.blake2b(encoded, digest_size=16).digest()


def pixel_digest(image: np.ndarray) -> bytes:
    """16 bytes that stand for decoded pixels, uint8 RGB [H, W, 3]: BLAKE2b of shape and values."""
    digest = hashlib.blake2b(np.asarray(image.shape, "<i8").tobytes(), digest_size=16)
    digest.update(np.ascontiguousarray(image))
    return digest.digest()


def luminance(images: np.ndarray) -> np.ndarray:
    """float32 [..., H, W] in [0, 255] of uint8 RGB [..., H, W, 3] (BT.601 weights)."""
    return images.astype(np.float32) @ _LUMA


def square(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [side, side, 3] of uint8 RGB [H, W, 3], averaged over areas where it shrinks; its aspect ratio is lost."""
    height, width = image.shape[:2]
    if (height, width) == (side, side):
        return image
    if height > side and width > side:
        return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    # INTER_AREA enlarges by nearest neighbours, so the two directions are taken apart
    image = cv2.resize(image, (min(width, side), min(height, side)), interpolation=cv2.INTER_AREA)
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)


def dct_rows(count: int, side: int) -> np.ndarray:
    """float64 [count, side]: the first `count` vectors of the orthonormal DCT-II."""
    rows = np.cos(np.pi * np.arange(count)[:, None] * (np.arange(side) + 0.5) / side)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


_ROWS = dct_rows(_LOW, SIDE)


def perceptual_hash(image: np.ndarray) -> np.uint64 | None:
    """64-bit hash of uint8 RGB [H, W, 3], or None for an image without contrast, which has none.

    Bit 8 * v + u is set when the DCT coefficient of vertical frequency v and horizontal frequency u is positive
    (bit 0, the mean brightness, never is). An image and its thumbnail of SIDE pixels have the same hash.
    """
    low = _ROWS @ luminance(square(image, SIDE)) @ _ROWS.T
    low[0, 0] = 0
    if np.sqrt((low * low).sum()) < _MIN_CONTRAST * SIDE:  # the orthonormal DCT keeps the sum of squares
        return None
    return np.packbits(low.ravel() > 0, bitorder="little").view("<u8")[0]


def mirrored(hashes: np.ndarray | np.uint64) -> np.ndarray | np.uint64:
    """Hashes of the images mirrored left to right (a coefficient that is exactly 0 loses its bit's meaning)."""
    return hashes ^ _MIRROR


class HashIndex:
    """Hashes to be compared with: every one within `distance` bits of a query is found.

    hashes: uint64 [n]. Memory: 8 bytes a hash; from 200,000 hashes on, and for distances below 8, four bucket tables
    beside them, with which a query costs tens of microseconds instead of 0.6 per thousand hashes.
    """

    def __init__(self, hashes: np.ndarray, distance: int):
        self.count, self.distance = len(hashes), distance
        if self.count < _FLAT_LIMIT or distance >= 2 * _BANDS:
            self._index = faiss.IndexBinaryFlat(64)
        else:
            self._index = faiss.IndexBinaryMultiHash(64, _BANDS, _BAND_BITS)
            self._index.nflip = distance // _BANDS  # of 4 bands at least one differs by no more than this
        if self.count:
            self._index.add(_bytes_of(hashes))

    def within(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs within the distance: (query int64 [m], hash int64 [m], bits int32 [m]); queries: uint64 [q].

        Sorted by query, then bits, then hash. For pairs inside one pool, ask with blocks of the pool itself.
        """
        if not self.count or not len(queries):
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int32)
        faiss.omp_set_num_threads(1)
        limits, bits, found = self._index.range_search(_bytes_of(queries), self.distance + 1)
        query = np.repeat(np.arange(len(queries)), np.diff(limits.astype(np.int64)))
        order = np.lexsort((found, bits, query))
        return query[order], found[order], bits[order].astype(np.int32)


def _bytes_of(hashes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(hashes, "<u8").view(np.uint8).reshape(-1, 8)
