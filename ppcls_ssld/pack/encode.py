"""One image -> the bytes of the JPEG that takes its place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..data.files import Archives, read_bytes
from ..data.pixels import decode
from ..errors import DataError
from ..mining.header import inspect

_MOST_PIXELS = 1 << 30  # OpenCV's own limit
_LONGEST_SIDE = 65_500  # pixels of a JPEG: libjpeg's JPEG_MAX_DIMENSION


@dataclass(frozen=True)
class Encoding:
    """short_side: pixels that the shorter side gets, never more than it has. quality: of JPEG, 1 to 100."""

    short_side: int = 256
    quality: int = 90

    @property
    def encoder(self) -> str:
        """Whose bytes these are: another version may make others."""
        return f"OpenCV {cv2.__version__}"


@dataclass(frozen=True)
class Packed:
    """data: a JPEG, b'' when the image cannot be read. copied: it is the file as it was. reason: why it is missing."""

    data: bytes
    copied: bool = False
    reason: str = ""


def pack_image(name: str, archives: Archives, encoding: Encoding) -> Packed:
    """The image as the reader sees it (EXIF rotation, grey, CMYK, alpha), shrunk and encoded as an RGB JPEG.

    An upright colour JPEG that is small enough stays as it is, byte for byte.
    """
    try:
        encoded = read_bytes(name, archives)
        image = decode(encoded, name)
    except DataError as e:
        return Packed(b"", reason=str(e).removeprefix(f"{name}: "))
    if min(image.shape[:2]) <= encoding.short_side and _is_plain_jpeg(encoded):
        return Packed(encoded, copied=True)
    try:
        return Packed(encode(shrink(image, encoding.short_side), encoding.quality))
    except DataError as e:
        return Packed(b"", reason=str(e))


def shrink(image: np.ndarray, short_side: int) -> np.ndarray:
    """uint8 [H, W, 3] with at most `short_side` pixels on its shorter side; a pixel is the mean of what it replaces."""
    height, width = image.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return image
    return cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)


def encode(image: np.ndarray, quality: int) -> bytes:
    """JPEG of uint8 RGB [H, W, 3], colour at half resolution (4:2:0). DataError when a side is too long for one."""
    height, width = image.shape[:2]
    if max(height, width) > _LONGEST_SIDE:
        raise DataError(f"{width}x{height} pixels, and a JPEG has at most {_LONGEST_SIDE:,} a side")
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    done, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise DataError(f"OpenCV {cv2.__version__} cannot encode {width}x{height} pixels as a JPEG")
    return jpeg.tobytes()


def _is_plain_jpeg(encoded: bytes) -> bool:
    if not encoded.startswith(b"\xff\xd8"):
        return False
    try:
        header = inspect(encoded, _MOST_PIXELS, 1)
    except DataError:
        return False
    return header.format == "JPEG" and not header.kinds
