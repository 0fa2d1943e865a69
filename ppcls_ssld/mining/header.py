"""What kind of image some bytes hold, without decoding it: its size, and what is odd about it."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass

from PIL import (BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, PpmImagePlugin,
                 TiffImagePlugin, WebPImagePlugin)

from ..config.mine import MineConfig
from ..errors import DataError

KINDS = ("grey", "alpha", "cmyk", "palette", "16-bit", "animated", "rotated")
_ORIENTATION = 0x0112  # EXIF and TIFF tag; 1 is upright, from 5 on the sides are exchanged
_TIFF_WIDTH, _TIFF_HEIGHT, _BITS_PER_SAMPLE = 0x0100, 0x0101, 0x0102
# The plugins themselves, not Image.open: that one tries dozens of formats, and warns of large images or refuses them by
# a limit of its own.
_READERS = (
    ("JPEG", re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    ("WEBP", re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    ("GIF", re.compile(rb"GIF8[79]a"), GifImagePlugin.GifImageFile),
    ("BMP", re.compile(rb"BM"), BmpImagePlugin.BmpImageFile),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"), TiffImagePlugin.TiffImageFile),
    ("PPM", re.compile(rb"P[1-6]\s"), PpmImagePlugin.PpmImageFile),
)
_REFUSED = (  # readable in some installations, so not the same everywhere
    ("an AVIF or HEIC image", re.compile(rb"....ftyp", re.DOTALL)),
    ("a JPEG 2000 image", re.compile(rb"\0\0\0\x0cjP|\xff\x4f\xff\x51")),
    ("a JPEG XL image", re.compile(rb"\xff\x0a|\0\0\0\x0cJXL ")),
    ("an SVG or other XML text", re.compile(rb"\s*<(\?xml|svg)", re.IGNORECASE)),
    ("an HTML page", re.compile(rb"\s*<(!doctype|html|head)", re.IGNORECASE)),
)
# What Pillow raises at damaged headers, by experience; a later frame may be a "bomb" where the first is none.
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, struct.error,
           Image.DecompressionBombError)
_ACCEPTED = ", ".join(name for name, _, _ in _READERS)


@dataclass(frozen=True)
class Header:
    """format: JPEG, PNG, WEBP, GIF, BMP, TIFF or PPM. width, height: pixels, as shown (EXIF rotation applied).

    kinds: those of KINDS that hold, in their order. grey: one channel. alpha: transparency of any form. animated: more
    than one frame or page, of which the first counts. rotated: EXIF says it is to be shown turned or mirrored.
    """

    format: str
    width: int
    height: int
    kinds: tuple[str, ...]


def inspect(encoded: bytes, max_pixels: int = MineConfig.max_pixels,
            min_side: int = MineConfig.min_side) -> Header:
    """Header of an encoded image.

    DataError, its text the reason to set the image aside, when there is no image in a format that is read, its header
    is damaged, it has more than max_pixels pixels in all, or fewer than min_side on its shorter side.
    What is damaged behind the header shows when it is decoded (`data.pixels.decode`).
    """
    image = _open(encoded)
    try:
        width, height = _stored_size(image)
        orientation = _orientation(image)
        kinds = _kinds(image, orientation)
    except _DAMAGE as e:
        raise DataError(f"the header of the {image.format} is damaged ({e})") from e
    if orientation >= 5:
        width, height = height, width
    if width * height > max_pixels:
        raise DataError(f"too large: {width} x {height} = {width * height} pixels, at most {max_pixels} are decoded; "
                        "shrink it, or raise the limit")
    if min(width, height) < min_side:
        raise DataError(f"too small: {width} x {height} pixels, the shorter side needs {min_side}")
    return Header(image.format, width, height, kinds)


def _open(encoded: bytes) -> ImageFile.ImageFile:
    if not encoded:
        raise DataError("the file is empty")
    for name, magic, reader in _READERS:
        if magic.match(encoded):
            try:
                return reader(io.BytesIO(encoded), "")
            except _DAMAGE as e:
                raise DataError(f"the header of the {name} is damaged ({e or 'unreadable'})") from e
    for name, magic in _REFUSED:
        if magic.match(encoded):
            raise DataError(f"it is {name}; read are {_ACCEPTED}")
    raise DataError(f"not an image in a format that is read ({_ACCEPTED}): {len(encoded)} bytes, first {encoded[:8]!r}")


def _stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Width and height before EXIF rotation. Of a TIFF, some versions of Pillow exchange them."""
    if image.format == "TIFF":
        return int(image.tag_v2[_TIFF_WIDTH]), int(image.tag_v2[_TIFF_HEIGHT])
    return image.size


def _kinds(image: ImageFile.ImageFile, orientation: int) -> tuple[str, ...]:
    found = {
        "grey": image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"),
        "alpha": image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info,
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "16-bit": _bits(image) > 8,
        "animated": getattr(image, "is_animated", False),
        "rotated": orientation != 1,
    }
    return tuple(kind for kind in KINDS if found[kind])


def _bits(image: ImageFile.ImageFile) -> int:
    """Bits of one channel as stored. Pillow's mode does not tell: 16-bit colour is RGB to it."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    if image.format == "PNG" and image.tile and "16" in str(image.tile[0][3]):
        return 16
    if image.format == "PPM" and image.tile:
        levels = image.tile[0][3]
        return 16 if image.mode == "I" or isinstance(levels, tuple) and levels[-1] > 255 else 8
    return 16 if image.mode.startswith("I") else 8


def _orientation(image: ImageFile.ImageFile) -> int:
    """1 to 8; 1, upright, also where EXIF is damaged, as decoders have it."""
    if image.format == "TIFF":
        value = image.tag_v2.get(_ORIENTATION, 1)
    elif "exif" in image.info:  # not image.getexif(): it decodes a PNG in search of one
        exif = Image.Exif()
        try:
            exif.load(image.info["exif"])
            value = exif.get(_ORIENTATION, 1)
        except _DAMAGE:
            return 1
    else:
        return 1
    return value if value in range(1, 9) else 1
