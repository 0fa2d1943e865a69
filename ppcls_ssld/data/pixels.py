"""Pixels without randomness: decoding, and the operators of evaluation and inference. numpy and OpenCV only.

Images are uint8 RGB [H, W, 3] until NormalizeImage makes them float32. Names, arguments and per-pixel results are those
of PaddleClas's operators (ppcls/data/preprocess/ops/operators.py, develop d178931); sizes are (width, height).
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import ConfigError, DataError

_CV2_FILTERS = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
_PIL_FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # PIL.Image.Resampling
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
# Some OpenCV versions give RGB at no cost, from libjpeg itself; of other formats not all of them do.
_JPEG_AS_RGB = getattr(cv2, "IMREAD_COLOR_RGB", None)
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
_JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")  # not a stuffed 0xff00, not a restart marker


def number(value: Any) -> float:
    """A YAML number; the strings that YAML leaves as they are, `1e-3` and `1.0/255.0`, included. ValueError if none."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    parts = [part.strip() for part in str(value).split("/")]
    if len(parts) > 2 or not all(_NUMBER.fullmatch(part) for part in parts):
        raise ValueError(f"expected a number such as 0.5 or 1.0/255.0, found {value!r}")
    if len(parts) == 1:
        return float(parts[0])
    if float(parts[1]) == 0:
        raise ValueError(f"division by zero in {value!r}")
    return float(parts[0]) / float(parts[1])


def pair(size: Any) -> tuple[int, int]:
    """`size` of a config, one int or [width, height], as (width, height). ValueError if it is neither."""
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, (list, tuple)) else ()
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise ValueError(f"size: expected one positive integer or [width, height], found {size!r}")
    return sides


def numbers(values: Any, count: int, name: str) -> list[float]:
    """`count` YAML numbers. ValueError, naming the argument, if there are not so many."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ValueError(f"{name}: expected {count} numbers, found {values!r}")
    return [number(value) for value in values]


def read(path: str) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an image file. DataError names the path when it is missing or corrupt."""
    try:
        with open(path, "rb") as file:
            encoded = file.read()
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); correct the list or its root folder") from e
    return decode(encoded, path)


def decode(encoded: bytes, where: str, reduce: int = 1) -> np.ndarray:
    """uint8 RGB [H, W, 3] of an encoded image, as cv2.IMREAD_COLOR sees it.

    Grey becomes three equal channels, alpha is dropped (a TIFF shows on black), CMYK is converted, 16 bits become 8,
    EXIF rotation is applied (to WebP by OpenCV 5 only), of several frames the first counts. GIF is decoded by Pillow,
    since not every OpenCV can. reduce: 2, 4 or 8, for a JPEG: a pixel for so many in both directions, with less work.
    DataError, opening with `where`, when the bytes are no image or end too early.
    """
    if not encoded:
        raise DataError(f"{where}: the file is empty; restore the image or take it out of the list")
    is_jpeg = encoded.startswith(b"\xff\xd8")
    # Some OpenCV versions decode a truncated JPEG silently and leave the missing rows grey.
    if is_jpeg and not _jpeg_ends(encoded):
        raise DataError(f"{where}: the JPEG is truncated ({len(encoded)} bytes, no end marker); "
                        "restore the image or take it out of the list")
    size = len(encoded)
    if encoded.startswith(b"\x89PNG\r\n\x1a\n") and (encoded := _still_png(encoded)) is None:
        raise DataError(f"{where}: the PNG is truncated or corrupt (a part goes beyond its {size} bytes); "
                        "restore the image or take it out of the list")
    if encoded.startswith((b"GIF87a", b"GIF89a")):
        return _decode_gif(encoded, where)
    as_rgb = is_jpeg and reduce == 1 and _JPEG_AS_RGB is not None
    flags = _JPEG_AS_RGB if as_rgb else _REDUCED.get(reduce, cv2.IMREAD_COLOR)
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error as e:
        raise DataError(f"{where}: OpenCV cannot decode it ({e.err})") from e
    if image is None:
        raise DataError(f"{where}: corrupt or not an image ({size} bytes, first {encoded[:4]!r}); "
                        "restore the image or take it out of the list")
    return image if as_rgb else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _still_png(encoded: bytes) -> bytes | None:
    """The PNG without its animation, whose damage OpenCV 4.11 crashes on. None when a chunk goes beyond the end.

    OpenCV would reserve what such a chunk claims first, up to 4 GB.
    """
    kept, position = [encoded[:8]], 8
    while position + 8 <= len(encoded):
        length, name = int.from_bytes(encoded[position:position + 4], "big"), encoded[position + 4:position + 8]
        end = position + 12 + length
        if name not in (b"acTL", b"fcTL", b"fdAT"):
            kept.append(encoded[position:end])
        if name == b"IEND":
            return b"".join(kept) if length == 0 else None
        position = end
    return b"".join(kept) if position <= len(encoded) else None


def _decode_gif(encoded: bytes, where: str) -> np.ndarray:
    """uint8 RGB [H, W, 3] of the first frame; transparent pixels keep the colour that the palette gives them."""
    try:
        from PIL import GifImagePlugin  # here, so that a machine without Pillow serves all other images
    except ImportError as e:
        raise DataError(f"{where}: a GIF is read with Pillow, which is not installed; install pillow, or convert it to "
                        "PNG") from e
    try:
        return np.array(GifImagePlugin.GifImageFile(io.BytesIO(encoded)).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as e:
        raise DataError(f"{where}: the GIF is corrupt or truncated ({e}); restore the image or take it out of the "
                        "list") from e


def _jpeg_ends(encoded: bytes) -> bool:
    """True when the end marker is there: at the end, or found by walking the segments.

    Searching for its two bytes is not enough: an EXIF thumbnail has an end marker of its own, and phones append videos.
    """
    if encoded.endswith(b"\xff\xd9"):
        return True
    position = 2
    while match := _JPEG_MARKER.search(encoded, position):
        if match.group() == b"\xff\xd9":
            return True
        length = int.from_bytes(encoded[match.end():match.end() + 2], "big")
        position = match.end() + max(length, 2)
    return False


def resize(image: np.ndarray, size: tuple[int, int], interpolation: str | None = None, backend: str = "cv2",
           out: np.ndarray | None = None) -> np.ndarray:
    """Resize to (width, height). interpolation: a name of the backend ('bilinear' if None). backend: cv2 | pil.

    out: memory for the result, used where it has its shape and dtype and OpenCV resizes; what is returned counts.
    Pillow's filters blur when they shrink and OpenCV's don't: the two backends give different pixels.
    """
    if backend == "cv2" and interpolation in _CV2_FILTERS:  # nearly always: this runs for every image
        return cv2.resize(image, size, dst=out, interpolation=_CV2_FILTERS[interpolation])
    check_resize(interpolation, backend)
    if backend.lower() == "cv2":
        return cv2.resize(image, size, interpolation=_CV2_FILTERS[(interpolation or "bilinear").lower()])
    return resize_box(image, (0, 0, image.shape[1], image.shape[0]), size, interpolation)


def resize_box(image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int],
               interpolation: str | None = None) -> np.ndarray:
    """Resize the box (left, top, right, bottom), fractions of a pixel included, to (width, height) with Pillow."""
    if image.dtype != np.uint8:
        raise DataError("backend: pil resizes uint8 images; put the resize before NormalizeImage")
    from PIL import Image  # here, so that a machine without Pillow serves every model that did not ask for it

    method = Image.Resampling(_PIL_FILTERS[(interpolation or "bilinear").lower()])
    return np.asarray(Image.fromarray(image).resize(size, method, box=box))


def check_resize(interpolation: str | None, backend: str) -> None:
    """ValueError when there is no such backend, or no such filter in it."""
    filters = {"cv2": _CV2_FILTERS, "pil": _PIL_FILTERS}.get(str(backend).lower())
    if filters is None:
        raise ValueError(f"backend: expected cv2 or pil, found {backend!r}")
    if interpolation is not None and str(interpolation).lower() not in filters:
        raise ValueError(f"interpolation: expected one of {', '.join(filters)} with backend {backend}, "
                         f"found {interpolation!r}")


def resize_short(image: np.ndarray, short: int, interpolation: str | None = None, backend: str = "cv2") -> np.ndarray:
    """Resize so that the shorter side has `short` pixels, keeping the aspect ratio to the nearest pixel."""
    height, width = image.shape[:2]
    scale = float(short) / min(width, height)
    return resize(image, (int(round(width * scale)), int(round(height * scale))), interpolation, backend)


def center_crop(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The central (width, height) of an image. DataError when the image is smaller."""
    (width, height), (image_height, image_width) = size, image.shape[:2]
    if width > image_width or height > image_height:
        raise DataError(f"cannot crop {width}x{height} out of an image of {image_width}x{image_height} pixels; "
                        "put a ResizeImage with a size at least as large before the crop")
    left, top = (image_width - width) // 2, (image_height - height) // 2
    return image[top:top + height, left:left + width]


def normalize(image: np.ndarray, scale: float, mean: Sequence[float], std: Sequence[float], order: str) -> np.ndarray:
    """(image * scale - mean) / std in float32; mean and std per channel. order: 'chw', or '' for [H, W, C]."""
    shape = (-1, 1, 1) if order == "chw" else (1, 1, -1)
    mean, std = (np.asarray(values, np.float64).reshape(shape).astype(np.float32) for values in (mean, std))
    return (image.astype(np.float32) * np.float32(scale) - mean) / std


def to_chw(image: np.ndarray) -> np.ndarray:
    """[H, W, C] -> contiguous [C, H, W]."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


class DecodeImage:
    """Stands first in PaddleClas's lists. Files are decoded by `read`; this only honours `to_rgb: False`.

    backend and to_np are taken and change nothing: OpenCV decodes, and images are arrays. reduced: decode a JPEG no
    larger than the RandCropImage that follows needs (data/reduced.py); not PaddleClas's, and neither are the pixels.
    """

    def __init__(self, to_np: bool = True, to_rgb: bool = True, channel_first: bool = False, backend: str = "cv2",
                 reduced: bool = False):
        if channel_first:
            raise ValueError("channel_first: True is not supported; images are [H, W, C] until the end of the list")
        self.to_rgb, self.reduced = to_rgb, reduced

    def apply(self, image: np.ndarray) -> np.ndarray:
        return image if self.to_rgb else np.ascontiguousarray(image[:, :, ::-1])


class ResizeImage:
    """Resize to `size` (int or [width, height]), or to a shorter side of `resize_short` pixels, which wins."""

    def __init__(self, size: Any = None, resize_short: int | None = None, interpolation: str | None = None,
                 backend: str = "cv2", return_numpy: bool = True):
        check_resize(interpolation, backend)
        if resize_short is None and size is None:
            raise ValueError("expected size or resize_short, found neither")
        self.short = None if resize_short is None else pair(resize_short)[0]
        self.size = pair(size) if resize_short is None else None
        self.interpolation, self.backend = interpolation, backend

    def apply(self, image: np.ndarray) -> np.ndarray:
        if self.short:
            return resize_short(image, self.short, self.interpolation, self.backend)
        return resize(image, self.size, self.interpolation, self.backend)


class CropImage:
    """The centre of the image; size: int or [width, height]."""

    def __init__(self, size: Any):
        self.size = pair(size)

    def apply(self, image: np.ndarray) -> np.ndarray:
        return center_crop(image, self.size)


class NormalizeImage:
    """`normalize` with PaddleClas's defaults, ImageNet's mean and std. order: 'chw' only after ToCHWImage, else ''."""

    def __init__(self, scale: Any = None, mean: Sequence[Any] | None = None, std: Sequence[Any] | None = None,
                 order: str = "chw", output_fp16: bool = False, channel_num: int = 3):
        if output_fp16 or channel_num != 3:
            raise ValueError("output_fp16 and channel_num: 4 are not supported; batches are float32 with 3 channels "
                             "and AMP casts them")
        if order not in ("chw", "hwc", ""):
            raise ValueError(f"order: expected 'chw', 'hwc' or '', found {order!r}")
        self.scale = 1.0 / 255.0 if scale is None else number(scale)
        self.mean = numbers([0.485, 0.456, 0.406] if mean is None else mean, 3, "mean")
        self.std = numbers([0.229, 0.224, 0.225] if std is None else std, 3, "std")
        if 0 in self.std:
            raise ValueError(f"std: expected numbers other than 0, found {self.std}")
        self.order = "chw" if order == "chw" else ""
        levels = np.arange(256).reshape(1, 256, 1).repeat(3, axis=2)
        self._table = normalize(levels, self.scale, self.mean, self.std, "")

    def apply(self, image: np.ndarray) -> np.ndarray:
        # Same bits as the formula, ten times faster: there are only 256 levels.
        if image.dtype == np.uint8 and not self.order:
            return cv2.LUT(image, self._table)
        return normalize(image, self.scale, self.mean, self.std, self.order)


class ToCHWImage:
    """[H, W, C] -> [C, H, W]. A list without it gets it at its end."""

    def apply(self, image: np.ndarray) -> np.ndarray:
        return to_chw(image)


DETERMINISTIC = {op.__name__: op for op in (DecodeImage, ResizeImage, CropImage, NormalizeImage, ToCHWImage)}


def check_layout(ops: Sequence[Any], where: str) -> None:
    """ConfigError unless [H, W, C] operators stand before ToCHWImage and NormalizeImage knows where it stands."""
    chw = False
    for i, op in enumerate(ops):
        name = type(op).__name__
        if getattr(op, "reduced", False) and (i > 0 or not hasattr(ops[1] if len(ops) > 1 else None, "from_jpeg")):
            raise ConfigError(f"{where}.{name}: reduced: true decodes what a random crop needs; put RandCropImage "
                              "right after it, or leave `reduced` out")
        if isinstance(op, NormalizeImage) and (op.order == "chw") != chw:
            raise ConfigError(f"{where}.{name}: order is {op.order or 'hwc'!r}, but here images are "
                              f"{'[C, H, W]' if chw else '[H, W, C]'}; set order: {'chw' if chw else repr('')}")
        if chw and not isinstance(op, NormalizeImage):
            raise ConfigError(f"{where}: {name} comes after ToCHWImage but takes [H, W, C]; move ToCHWImage to the end")
        chw = chw or isinstance(op, ToCHWImage)


def finish(image: np.ndarray, ops: Sequence[Any]) -> np.ndarray:
    """float32 [3, H, W] of what `ops` made, whether or not ToCHWImage is among them."""
    if not any(isinstance(op, ToCHWImage) for op in ops):
        image = to_chw(image)
    return image.astype(np.float32, copy=False)


def pipeline(transform_ops: Sequence[Mapping[str, Any]],
             where: str = "transform_ops") -> Callable[[np.ndarray], np.ndarray]:
    """The preprocessing of an exported model: uint8 RGB [H, W, 3] -> float32 [3, H, W].

    transform_ops: `{Name: {arguments}}` entries of the five deterministic operators, as in inference.yml.
    """
    ops = []
    for i, entry in enumerate(transform_ops):
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ConfigError(f"{where}.{i}: expected one `Name: {{arguments}}`, found {entry!r}")
        (name, arguments), = entry.items()
        if name not in DETERMINISTIC:
            raise ConfigError(f"{where}.{i}: '{name}' has no place in inference; known: {', '.join(DETERMINISTIC)}")
        try:
            ops.append(DETERMINISTIC[name](**(arguments or {})))
        except (TypeError, ValueError) as e:
            raise ConfigError(f"{where}.{i}.{name}: {e}") from e
    check_layout(ops, where)

    def preprocess(image: np.ndarray) -> np.ndarray:
        for op in ops:
            image = op.apply(image)
        return finish(image, ops)

    return preprocess
