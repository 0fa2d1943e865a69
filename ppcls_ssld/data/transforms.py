"""The transforms a config can name, and the pipeline that runs them. Names and arguments are PaddleClas's.

A deterministic transform has `apply(image)`. A random one is split in two: `draw(rng, height, width) -> params`, plain
numbers and tuples, and `apply(image, params)`, which does the same for the same params: what was drawn can be stored
and done again. Images are [H, W, 3], uint8 until NormalizeImage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from ..errors import ConfigError, DataError
from ..registry import Registry, one_key
from ..structs import Drawn, Normalization
from . import augment, pixels, reduced

_TAIL = (pixels.NormalizeImage, pixels.ToCHWImage)  # from uint8 [H, W, 3] to what a network takes
TRANSFORMS = Registry("transform")
for _ready in (*pixels.DETERMINISTIC.values(), augment.RandAugment, augment.AutoAugment, augment.TimmAutoAugment,
               augment.RandomErasing, augment.ColorJitter):
    TRANSFORMS.register()(_ready)


@TRANSFORMS.register()
class RandCropImage:
    """A random part of the image, resized to `size`: Inception's crop, drawn by PaddleClas's law.

    scale: range of the part's share of the image area. ratio: range of its width / height, uniform or log-uniform
    (use_log_aspect). interpolation 'random' draws bilinear or bicubic. The share is capped so that the part fits.
    """

    def __init__(self, size: Any, scale: Sequence[Any] = (0.08, 1.0), ratio: Sequence[Any] = (3 / 4, 4 / 3),
                 interpolation: str | None = None, use_log_aspect: bool = False, backend: str = "cv2"):
        self.size = pixels.pair(size)
        self.scale = pixels.numbers((0.08, 1.0) if scale is None else scale, 2, "scale")
        self.ratio = pixels.numbers((3 / 4, 4 / 3) if ratio is None else ratio, 2, "ratio")
        if not 0 < self.scale[0] <= self.scale[1] or not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"expected scale and ratio as [low, high] above 0, found {self.scale} and {self.ratio}")
        self.filters = ("bilinear", "bicubic") if interpolation == "random" else (interpolation or "bilinear",)
        pixels.check_resize(self.filters[0], backend)
        self.use_log_aspect, self.backend = use_log_aspect, backend

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int, str]:
        """(left, top, width, height, interpolation) of the part."""
        if self.use_log_aspect:
            aspect = math.exp(_uniform(rng, *map(math.log, self.ratio)))
        else:
            aspect = _uniform(rng, *self.ratio)
        largest = min(width / height / aspect, height / width * aspect)  # share of the area at which the part touches
        share = _uniform(rng, min(self.scale[0], largest), min(self.scale[1], largest))
        area = width * height * share
        part_width = min(width, max(1, int(math.sqrt(area * aspect))))
        part_height = min(height, max(1, int(math.sqrt(area / aspect))))
        left = int(rng.integers(width - part_width + 1))
        top = int(rng.integers(height - part_height + 1))
        return left, top, part_width, part_height, _choose(rng, self.filters)

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int, str],
              out: np.ndarray | None = None) -> np.ndarray:
        left, top, width, height, interpolation = params
        return pixels.resize(image[top:top + height, left:left + width], self.size, interpolation, self.backend, out)

    def from_jpeg(self, encoded: bytes, where: str, header: reduced.Header,
                  params: tuple[int, int, int, int, str]) -> np.ndarray:
        """What `apply` makes of the decoded image, nearly: from as few of its pixels as will do."""
        return reduced.crop_and_resize(encoded, where, header, tuple(params[:4]), self.size, params[4], self.backend)


@TRANSFORMS.register("RandCropImageV2", "RandomCropImage")
class RandCropImageV2:
    """A part of exactly `size` pixels at a random place, not resized. DataError when the image is smaller."""

    def __init__(self, size: Any):
        self.size = pixels.pair(size)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int]:
        """(left, top)."""
        crop_width, crop_height = self.size
        if crop_width > width or crop_height > height:
            raise DataError(f"cannot crop {crop_width}x{crop_height} out of an image of {width}x{height} pixels; "
                            "put a ResizeImage or Padv2 before the crop, or use PadRandCrop")
        return int(rng.integers(width - crop_width + 1)), int(rng.integers(height - crop_height + 1))

    def apply(self, image: np.ndarray, params: tuple[int, int]) -> np.ndarray:
        (left, top), (width, height) = params, self.size
        return image[top:top + height, left:left + width]


@TRANSFORMS.register()
class PadRandCrop(RandCropImageV2):
    """`padding` pixels of `fill` on each side, then a crop of `size`: the usual one for 32 x 32 images (padding 4).

    Not in PaddleClas, where it takes Pad and RandCropImageV2.
    """

    def __init__(self, size: Any, padding: int = 4, fill: int = 0):
        super().__init__(size)
        if type(padding) is not int or padding < 0:
            raise ValueError(f"padding: expected a number of pixels, found {padding!r}")
        self.padding, self.fill = padding, fill

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int]:
        return super().draw(rng, height + 2 * self.padding, width + 2 * self.padding)

    def apply(self, image: np.ndarray, params: tuple[int, int]) -> np.ndarray:
        p = self.padding
        padded = cv2.copyMakeBorder(image, p, p, p, p, cv2.BORDER_CONSTANT, value=(self.fill,) * 3)
        return super().apply(padded, params)


@TRANSFORMS.register()
class Padv2:
    """Pad to `size` with fill_value. pad_mode: 0 right and below, 1 on all sides, 2 left and above, -1 at `offsets`."""

    def __init__(self, size: Any, pad_mode: int = 0, offsets: Sequence[int] | None = None,
                 fill_value: Any = (127.5, 127.5, 127.5)):
        if pad_mode not in (-1, 0, 1, 2) or (pad_mode == -1 and offsets is None):
            raise ValueError(f"pad_mode: expected 0, 1, 2, or -1 with offsets, found {pad_mode!r}")
        self.size, self.pad_mode = pixels.pair(size), pad_mode
        self.offsets = offsets and [int(value) for value in pixels.numbers(offsets, 2, "offsets")]
        fill = fill_value if isinstance(fill_value, (list, tuple)) else [fill_value] * 3
        self.fill = pixels.numbers(fill, 3, "fill_value")
        self.makes_floats = any(value % 1 for value in self.fill)  # 127.5 is no uint8

    def apply(self, image: np.ndarray) -> np.ndarray:
        (width, height), (image_height, image_width) = self.size, image.shape[:2]
        right, below = width - image_width, height - image_height
        if right < 0 or below < 0:
            raise DataError(f"cannot pad an image of {image_width}x{image_height} pixels to {width}x{height}; "
                            "put a ResizeImage before it")
        left, above = {-1: self.offsets, 0: (0, 0), 1: (right // 2, below // 2), 2: (right, below)}[self.pad_mode]
        if self.makes_floats:
            image = image.astype(np.float32)
        return cv2.copyMakeBorder(image, above, below - above, left, right - left, cv2.BORDER_CONSTANT,
                                  value=self.fill)


@TRANSFORMS.register()
class RandFlipImage:
    """Flip with probability `prob`. flip_code: 1 left-right, 0 upside down, -1 both."""

    def __init__(self, flip_code: int = 1, prob: Any = 0.5):
        if flip_code not in (-1, 0, 1):
            raise ValueError(f"flip_code: expected 1, 0 or -1, found {flip_code!r}")
        self.flip_code, self.prob = flip_code, pixels.number(prob)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> bool:
        return bool(rng.random() < self.prob)

    def apply(self, image: np.ndarray, params: bool, out: np.ndarray | None = None) -> np.ndarray:
        return cv2.flip(image, self.flip_code, dst=out) if params else image  # `out` may be the image itself


class TransformError(DataError):
    """A readable image that the transforms cannot take; the message names both. Leaving it out would hide a mistake."""


class Pipeline:
    """Transforms in order: uint8 RGB [H, W, 3] -> float32 [3, h, w], whether or not the list ends in ToCHWImage.

    raw: what is left of the list when its tail of NormalizeImage and ToCHWImage is cut off; with `raw=True` the methods
    stop there and return uint8 RGB [h, w, 3]. None when such a tail is not all that follows, or floats come before it.
    """

    def __init__(self, transforms: Sequence[Any], where: str = "transform_ops"):
        pixels.check_layout(transforms, where)
        self.transforms = tuple(transforms)
        self._where = where
        # After the last crop only: a crop must not write where it reads. A flip may.
        resized = max((i for i, t in enumerate(transforms) if isinstance(t, RandCropImage)), default=0)
        self._steps = tuple(
            (i, t, hasattr(t, "draw"), i >= resized and isinstance(t, (RandCropImage, RandFlipImage)))
            for i, t in enumerate(transforms))  # (index, transform, is it random, does it take `out`)
        self._tail = next((i for i, t in enumerate(transforms) if isinstance(t, _TAIL)), len(transforms))
        self.raw = self._left_to_do()
        self._reduces = bool(transforms) and getattr(transforms[0], "reduced", False)
        self._last: tuple[bytes | None, np.ndarray | None] = None, None  # the image decoded last

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.record(image, rng)[0]

    def record(self, image: np.ndarray, rng: np.random.Generator, raw: bool = False) -> tuple[np.ndarray, tuple]:
        """The image, and what each transform drew (None for a deterministic one)."""
        drawn: list[Any] = [None] * len(self.transforms)
        return self._run(image, 0, drawn, rng, raw), tuple(drawn)

    def replay(self, image: np.ndarray, drawn: Sequence[Any], raw: bool = False) -> np.ndarray:
        """The same image again, from what `record` returned."""
        self._check_count(drawn)
        return self._run(image, 0, drawn, None, raw)

    def from_bytes(self, encoded: bytes, where: str, rng: np.random.Generator, raw: bool = False,
                   out: np.ndarray | None = None) -> tuple[np.ndarray, Drawn]:
        """The image of an encoded file, and what chance decided about it.

        out: with `raw`, uint8 [h, w, 3] to work in; the image lies there when the last transforms are a crop and flips.
        DataError, opening with `where`, when it cannot be decoded; TransformError when it does not fit the list.
        """
        drawn: list[Any] = [None] * len(self.transforms)
        image, size = self._view(encoded, where, drawn, rng, raw, out)
        return image, Drawn(tuple(drawn), size)

    def replay_bytes(self, encoded: bytes, where: str, drawn: Drawn, raw: bool = False,
                     out: np.ndarray | None = None) -> np.ndarray:
        """The same image again, from what `from_bytes` returned. Errors as there; also when its size has changed."""
        self._check_count(drawn.transforms)
        return self._view(encoded, where, drawn.transforms, None, raw, out, tuple(drawn.size))[0]

    def _view(self, encoded: bytes, where: str, drawn: Any, rng: np.random.Generator | None, raw: bool,
              out: np.ndarray | None, expected: tuple[int, int] | None = None) -> tuple[np.ndarray, tuple[int, int]]:
        """(the view, (height, width) of the image): what an rng draws, which goes into `drawn`, or what is there."""
        header = reduced.jpeg_header(encoded) if self._reduces else None
        image = self._decoded(encoded, where) if header is None else None
        size = image.shape[:2] if header is None else (header.height, header.width)
        if expected not in (None, size):
            raise TransformError(f"{where}: has {size[1]}x{size[0]} pixels, but its view was recorded on "
                                 f"{expected[1]}x{expected[0]}; it was replaced since: restore it, or record again")
        if header is not None:
            decode, crop = self.transforms[:2]
            if rng is not None:
                drawn[1] = crop.draw(rng, *size)
            image = decode.apply(crop.from_jpeg(encoded, where, header, drawn[1]))
        try:
            return self._run(image, 0 if header is None else 2, drawn, rng, raw, out), size
        except DataError as e:
            raise TransformError(f"{where}: {e} ({self._where})") from e

    def forget(self) -> None:
        """Let go of the image decoded last, before another one is read."""
        self._last = None, None

    def _decoded(self, encoded: bytes, where: str) -> np.ndarray:
        """The whole image; views of one image that follow each other decode it once."""
        if encoded is not self._last[0]:
            self._last = encoded, pixels.decode(encoded, where)
        return self._last[1]

    def _run(self, image: np.ndarray, first: int, drawn: Any, rng: np.random.Generator | None, raw: bool,
             out: np.ndarray | None = None) -> np.ndarray:
        """The transforms from `first` on."""
        if raw and self.raw is None:
            raise ValueError("raw: the transform list does not end with uint8 images")
        for i, transform, random, takes_out in self._steps[first:self._tail if raw else None]:
            if not random:
                image = transform.apply(image)
                continue
            if rng is not None:
                drawn[i] = transform.draw(rng, *image.shape[:2])
            image = transform.apply(image, drawn[i], out) if takes_out else transform.apply(image, drawn[i])
        return image if raw else pixels.finish(image, self.transforms)

    def _check_count(self, drawn: Sequence[Any]) -> None:
        if len(drawn) != len(self.transforms):
            raise DataError(f"found {len(drawn)} drawn parameters, expected one for each of {len(self.transforms)} "
                            "transforms; they were recorded with another transform list")

    def _left_to_do(self) -> Normalization | None:
        tail = self.transforms[self._tail:]
        normalize = [t for t in tail if isinstance(t, pixels.NormalizeImage)]
        if len(normalize) > 1 or not all(isinstance(t, _TAIL) for t in tail) or any(
                getattr(t, "makes_floats", False) for t in self.transforms[:self._tail]):
            return None
        if not normalize:
            return Normalization(1.0, (0.0,) * 3, (1.0,) * 3)
        return Normalization(normalize[0].scale, tuple(normalize[0].mean), tuple(normalize[0].std))


def build_transforms(entries: Sequence[Mapping[str, Any]], where: str) -> Pipeline:
    """Pipeline of a config's transform_ops. ConfigError names the key path of what is wrong."""
    transforms = []
    for i, entry in enumerate(entries):
        name, arguments = one_key(entry, f"{where}.{i}")
        transforms.append(TRANSFORMS.build(name, arguments, f"{where}.{i}"))
    return Pipeline(transforms, where)


def check_transforms(entries: Sequence[Mapping[str, Any]], where: str) -> None:
    """ConfigError when build_transforms would raise one. Constructors only store their arguments, so they are run."""
    build_transforms(entries, where)


def _uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """The bits of rng.uniform, in a third of its time."""
    return low + (high - low) * rng.random()


def _choose(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))] if len(options) > 1 else options[0]
