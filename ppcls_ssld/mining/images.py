"""One image, of the pool or protected: from its name to what the comparisons need."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.files import Archives, read_bytes
from ..data.pixels import decode
from ..errors import DataError
from .fingerprint import image_id, perceptual_hash, pixel_digest
from .header import inspect
from .keypoints import KeypointConfig, extract
from .thumbnails import thumbnail
from .types import Keypoints


@dataclass(frozen=True)
class Look:
    """What is known of one readable image. Its pixels are let go: a large one takes half a gigabyte.

    id: 16 bytes, of the file's content. digest: 16 bytes, of the pixels. hash: of the luminance, None for a flat image.
    thumbnail: uint8 [32, 32, 3]. keypoints: None if not asked for. width, height: pixels, as decoded.
    kinds: what is odd about it (header.KINDS).
    """

    name: str
    id: bytes
    digest: bytes
    hash: np.uint64 | None
    thumbnail: np.ndarray
    keypoints: Keypoints | None
    width: int
    height: int
    kinds: tuple[str, ...]


@dataclass(frozen=True)
class Unreadable:
    """An image to be set aside. id: 16 zero bytes when not even its bytes can be read."""

    name: str
    id: bytes
    reason: str


def look(name: str, archives: Archives, max_pixels: int, min_side: int,
         keypoints: KeypointConfig | None = None) -> Look | Unreadable:
    """Read, decode and fingerprint one image; with keypoints, if it is said how to extract them."""
    content_id = bytes(16)
    try:
        encoded = read_bytes(name, archives)
        content_id = image_id(encoded)
        header = inspect(encoded, max_pixels, min_side)
        pixels = decode(encoded, name)
    except DataError as e:
        return Unreadable(name, content_id, str(e).removeprefix(f"{name}: "))
    except MemoryError:
        return Unreadable(name, content_id, "there is not enough memory to decode it; lower Mine.max_pixels")
    height, width = pixels.shape[:2]
    small = thumbnail(pixels)
    return Look(name, content_id, pixel_digest(pixels), perceptual_hash(small), small,
                extract(pixels, keypoints) if keypoints else None, width, height, header.kinds)
