"""A JPEG decoded no larger than its crop needs: at 1/2, 1/4 or 1/8 of its size, which is less work than all of it.

Crops are drawn, and recorded, in the pixels of the whole image; only the pixels that they are resized from are fewer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import DataError
from . import pixels

_FACTORS = (8, 4, 2)
_FILTERS = {"nearest": cv2.INTER_NEAREST, "bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}
_SIZE_MARKERS = {0xC0, 0xC1, 0xC2}  # baseline, extended, progressive: what decoders read
_BEFORE_SIZE = {0xC4, 0xCC, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)}  # tables, comments, applications' own
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright, from 5 on the sides are exchanged


@dataclass(frozen=True)
class Header:
    """height, width: pixels as shown. upright: EXIF does not turn or mirror what is stored."""

    height: int
    width: int
    upright: bool


def jpeg_header(encoded: bytes) -> Header | None:
    """Header of a JPEG, found without decoding it; None for other formats and for anything out of the ordinary."""
    if not encoded.startswith(b"\xff\xd8"):
        return None
    position, orientation = 2, 1
    try:
        while encoded[position] == 0xFF:
            marker, length = encoded[position + 1], int.from_bytes(encoded[position + 2:position + 4], "big")
            if marker in _SIZE_MARKERS:
                height, width = struct.unpack_from(">HH", encoded, position + 5)
                if not height or not width:
                    return None
                return Header(*((width, height) if orientation >= 5 else (height, width)), orientation == 1)
            if marker not in _BEFORE_SIZE:
                return None
            if marker == 0xE1 and encoded[position + 4:position + 10] == b"Exif\0\0":
                orientation = _orientation(encoded[position + 10:position + 2 + length])
            position += 2 + length
    except (IndexError, struct.error):
        pass
    return None


def _orientation(exif: bytes) -> int:
    """1 to 8; 1 where there is none. struct.error when it ends too early."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    first, = struct.unpack_from(order + "I", exif, 4)
    count, = struct.unpack_from(order + "H", exif, first)
    for entry in range(first + 2, first + 2 + 12 * count, 12):
        tag, = struct.unpack_from(order + "H", exif, entry)
        if tag == _ORIENTATION:
            value, = struct.unpack_from(order + "H", exif, entry + 8)
            return value if value in range(1, 9) else 1
    return 1


def factor_for(header: Header, part: tuple[int, int], size: tuple[int, int], interpolation: str) -> int:
    """8, 4, 2, or 1 for the whole image: the reduced part (width, height) has at least `size` pixels either way."""
    if interpolation.lower() not in _FILTERS:
        return 1
    for factor in _FACTORS:
        # Where the last pixels stand for fewer than `factor`, turning the image would move all the others.
        whole = header.upright or header.height % factor == header.width % factor == 0
        if whole and part[0] >= size[0] * factor and part[1] >= size[1] * factor:
            return factor
    return 1


def crop_and_resize(encoded: bytes, where: str, header: Header, box: tuple[int, int, int, int],
                    size: tuple[int, int], interpolation: str, backend: str) -> np.ndarray:
    """uint8 RGB of `size` (width, height) from the box (left, top, width, height) of an encoded JPEG.

    The box keeps its place to a fraction of a reduced pixel. DataError, opening with `where`, when it is corrupt.
    """
    left, top, width, height = box
    factor = factor_for(header, (width, height), size, interpolation)
    image = pixels.decode(encoded, where, factor)
    expected = (-(-header.height // factor), -(-header.width // factor))
    if image.shape[:2] != expected:
        raise DataError(f"{where}: its header promises {header.width}x{header.height} pixels, decoded at 1/{factor} it "
                        f"has {image.shape[1]}x{image.shape[0]}; restore the image or take it out of the list")
    if factor == 1:
        return pixels.resize(image[top:top + height, left:left + width], size, interpolation, backend)
    left, top, width, height = (value / factor for value in box)
    if backend.lower() == "pil":
        return pixels.resize_box(image, (left, top, left + width, top + height), size, interpolation)
    # As cv2.resize has it: the centre of a pixel of the result lies at (i + 0.5) * scale - 0.5.
    x, y = width / size[0], height / size[1]
    place = np.array([[x, 0, left + 0.5 * x - 0.5], [0, y, top + 0.5 * y - 0.5]])
    return cv2.warpAffine(image, place, size, flags=_FILTERS[interpolation.lower()] | cv2.WARP_INVERSE_MAP,
                          borderMode=cv2.BORDER_REPLICATE)
