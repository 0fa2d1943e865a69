"""Encoded images that are out of the ordinary, by what is odd about them; made here, the same everywhere."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image


def picture(height=40, width=56):
    """uint8 RGB [H, W, 3], smooth enough for JPEG."""
    y, x, c = np.mgrid[:height, :width, :3]
    return ((y * 3 + x * 2 + c * 50) % 256).astype(np.uint8)


def encode(image, kind="JPEG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def by_opencv(suffix, image):
    return cv2.imencode(suffix, image if image.ndim == 2 else image[..., ::-1])[1].tobytes()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: show it turned clockwise
    return exif


def plain():
    """One image in every format that is read."""
    image = picture()
    return {"jpeg": encode(image, quality=95), "progressive": encode(image, quality=95, progressive=True),
            "png": encode(image, "PNG"), "webp": encode(image, "WEBP", lossless=True), "bmp": encode(image, "BMP"),
            "tiff": encode(image, "TIFF"), "ppm": encode(image, "PPM"),
            "gif": encode(Image.fromarray(image).quantize(256), "GIF")}


def odd():
    """name -> (bytes, kinds that header.inspect shall find)."""
    image, grey = picture(), picture()[..., 0]
    colors, other = Image.fromarray(image), Image.fromarray(255 - image)
    rgba = Image.fromarray(np.dstack([image, grey]))
    frames = {"save_all": True, "append_images": [other], "duration": 100}
    return {
        "grey.jpg": (encode(grey), ("grey",)), "grey.png": (encode(grey, "PNG"), ("grey",)),
        "grey.pgm": (encode(grey, "PPM"), ("grey",)), "grey.tif": (encode(grey, "TIFF"), ("grey",)),
        "bits.png": (encode(colors.convert("1"), "PNG"), ("grey",)),
        "grey alpha.png": (encode(Image.fromarray(grey).convert("LA"), "PNG"), ("grey", "alpha")),
        "alpha.png": (encode(rgba, "PNG"), ("alpha",)), "alpha.webp": (encode(rgba, "WEBP", lossless=True), ("alpha",)),
        "alpha.tif": (encode(rgba, "TIFF"), ("alpha",)),
        "cmyk.jpg": (encode(colors.convert("CMYK"), quality=95), ("cmyk",)),
        "cmyk.tif": (encode(colors.convert("CMYK"), "TIFF"), ("cmyk",)),
        "palette.png": (encode(colors.quantize(), "PNG"), ("palette",)),
        "palette alpha.png": (encode(colors.quantize(), "PNG", transparency=0), ("alpha", "palette")),
        "palette.gif": (encode(colors.quantize(), "GIF"), ("palette",)),
        "deep.png": (by_opencv(".png", image.astype(np.uint16) * 257), ("16-bit",)),
        "deep.tif": (by_opencv(".tiff", image.astype(np.uint16) * 257), ("16-bit",)),
        "deep.ppm": (by_opencv(".ppm", image.astype(np.uint16) * 257), ("16-bit",)),
        "deep grey.png": (by_opencv(".png", grey.astype(np.uint16) * 257), ("grey", "16-bit")),
        "deep grey.pgm": (by_opencv(".pgm", grey.astype(np.uint16) * 257), ("grey", "16-bit")),
        "deep grey.tif": (by_opencv(".tiff", grey.astype(np.uint16) * 257), ("grey", "16-bit")),
        "animated.gif": (encode(colors.quantize(), "GIF", **frames), ("palette", "animated")),
        "animated.png": (encode(colors, "PNG", **frames), ("animated",)),
        "animated.webp": (encode(colors, "WEBP", lossless=True, **frames), ("animated",)),
        "pages.tif": (encode(colors, "TIFF", save_all=True, append_images=[other]), ("animated",)),
        "turned.jpg": (encode(image, exif=turned()), ("rotated",)),
        "turned.png": (encode(image, "PNG", exif=turned()), ("rotated",)),
        "turned.tif": (encode(image, "TIFF", exif=turned()), ("rotated",)),
        "turned.webp": (encode(image, "WEBP", exif=turned()), ("rotated",)),
    }


def huge(width, height):
    """A PNG that says it has width x height pixels and holds next to none."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")


def broken():
    """name -> (bytes, a word of the reason). What no decoder shall be trusted with."""
    whole = encode(picture(), quality=95)
    png = encode(picture(), "PNG")
    return {
        "empty.jpg": (b"", "empty"), "text.jpg": (b"see the other folder", "not an image"),
        "page.jpg": (b"<!DOCTYPE html><html>404</html>", "HTML"), "drawing.png": (b"<svg width='9'/>", "SVG"),
        "photo.heic.jpg": (b"\0\0\0\x18ftypheic" + bytes(40), "HEIC"), "zeros.jpg": (bytes(600), "not an image"),
        "half.jpg": (whole[:len(whole) // 2], "truncated"), "endless.jpg": (whole[:-2], "truncated"),
        "head.jpg": (whole[:20], "damaged|truncated"), "magic.png": (png[:8], "damaged|corrupt"),
        "half.png": (png[:len(png) // 2], "PNG is truncated"),
        "half.gif": (plain()["gif"][:900], "GIF is corrupt or truncated"),
        "pixel.png": (encode(picture(1, 1), "PNG"), "too small: 1 x 1"),
        "line.png": (encode(picture(2, 300), "PNG"), "too small: 300 x 2"),
        "huge.png": (huge(60000, 50000), "too large: 60000 x 50000 = 3000000000 pixels"),
    }
