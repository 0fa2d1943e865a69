"""Augmentation policies: RandAugment, AutoAugment, TimmAutoAugment, ColorJitter, RandomErasing.

Each draws its choices as plain numbers first and applies them after (see transforms.py). The operations are Pillow's;
the laws are PaddleClas's (ppcls/data/preprocess/ops, develop d178931), its quirks included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from ..errors import DataError
from ..rng import Stream, generator
from .pixels import number, numbers

Step = tuple[str, float, str]  # operation, its argument, resampling filter
GREY = (128, 128, 128)
_FILTERS = {"nearest": Image.Resampling.NEAREST, "bilinear": Image.Resampling.BILINEAR,
            "bicubic": Image.Resampling.BICUBIC}  # those that Pillow's rotations and shears know


def run_steps(image: np.ndarray, steps: Sequence[Step], fill: tuple[int, int, int]) -> np.ndarray:
    """uint8 [H, W, 3] after the drawn steps; `fill` is the colour of what moves in from outside."""
    if not steps:
        return image
    picture = _picture(image)
    for name, value, resample in steps:
        picture = _OPERATIONS[name](picture, value, {"resample": _FILTERS[resample], "fillcolor": fill})
    return np.asarray(picture)


def _picture(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8:
        raise DataError("colour and shape augmentations work on uint8 images; "
                        "put them before NormalizeImage, and give Padv2 a whole-numbered fill_value")
    return Image.fromarray(np.ascontiguousarray(image))


def _affine(picture: Image.Image, matrix: tuple, how: dict) -> Image.Image:
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, **how)


def _solarize_add(picture: Image.Image, add: float, how: dict) -> Image.Image:
    return picture.point([min(255, level + int(add)) if level < 128 else level for level in range(256)] * 3)


def _posterize(picture: Image.Image, bits: int) -> Image.Image:
    """Keep `bits` of 8; none leaves black, which the policies use and which Pillow 13's own posterize refuses."""
    return picture.point([level >> (8 - bits) << (8 - bits) for level in range(256)] * 3)


_OPERATIONS = {
    "shear_x": lambda p, v, how: _affine(p, (1, v, 0, 0, 1, 0), how),
    "shear_y": lambda p, v, how: _affine(p, (1, 0, 0, v, 1, 0), how),
    "translate_x": lambda p, v, how: _affine(p, (1, 0, v * p.size[0], 0, 1, 0), how),  # v: share of the width
    "translate_y": lambda p, v, how: _affine(p, (1, 0, 0, 0, 1, v * p.size[1]), how),
    "rotate": lambda p, v, how: p.rotate(v, **how),  # degrees, counter-clockwise
    "color": lambda p, v, how: ImageEnhance.Color(p).enhance(v),
    "contrast": lambda p, v, how: ImageEnhance.Contrast(p).enhance(v),
    "brightness": lambda p, v, how: ImageEnhance.Brightness(p).enhance(v),
    "sharpness": lambda p, v, how: ImageEnhance.Sharpness(p).enhance(v),
    "posterize": lambda p, v, how: _posterize(p, int(v)),
    "solarize": lambda p, v, how: ImageOps.solarize(p, v),  # threshold
    "solarize_add": _solarize_add,
    "autocontrast": lambda p, v, how: ImageOps.autocontrast(p),
    "equalize": lambda p, v, how: ImageOps.equalize(p),
    "invert": lambda p, v, how: ImageOps.invert(p),
}
_CLASSIC_FILTER = {"shear_x": "bicubic", "shear_y": "bicubic"}  # RandAugment and AutoAugment; the rest is nearest


def signed_step(rng: np.random.Generator, name: str, magnitude: float) -> Step:
    """A step of RandAugment and AutoAugment: shears, shifts and enhancements go either way, rotations one way."""
    sign = 1 if rng.random() < 0.5 else -1
    if name in ("color", "contrast", "brightness", "sharpness"):
        magnitude = 1 + sign * magnitude
    elif name in ("shear_x", "shear_y", "translate_x", "translate_y"):
        magnitude = sign * magnitude
    return name, float(magnitude), _CLASSIC_FILTER.get(name, "nearest")


class RandAugment:
    """`num_layers` operations out of 14, drawn with replacement, all at strength `magnitude` of 10.

    arXiv 1909.13719 in PaddleClas's form (randaugment.py). fillcolor: RGB of what moves in from outside.
    """

    def __init__(self, num_layers: int = 2, magnitude: Any = 5, fillcolor: Sequence[int] = GREY):
        level = number(magnitude) / 10
        self.num_layers = int(num_layers)
        self.fill = tuple(int(value) for value in numbers(fillcolor, 3, "fillcolor"))
        self.magnitudes = {
            "shear_x": 0.3 * level, "shear_y": 0.3 * level,
            "translate_x": 150.0 / 331 * level, "translate_y": 150.0 / 331 * level,
            "rotate": 30 * level, "color": 0.9 * level, "posterize": int(4.0 * level), "solarize": 256.0 * level,
            "contrast": 0.9 * level, "sharpness": 0.9 * level, "brightness": 0.9 * level,
            "autocontrast": 0, "equalize": 0, "invert": 0,
        }

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[Step, ...]:
        names = [tuple(self.magnitudes)[i] for i in rng.integers(len(self.magnitudes), size=self.num_layers)]
        return tuple(signed_step(rng, name, self.magnitudes[name]) for name in names)

    def apply(self, image: np.ndarray, params: Sequence[Step]) -> np.ndarray:
        return run_steps(image, params, self.fill)


class AutoAugment:
    """One of 25 pairs of operations found on ImageNet, each with its probability and strength.

    arXiv 1805.09501 in PaddleClas's form (autoaugment.py, ImageNetPolicy).
    """

    # (probability, operation, level); a level of 0-9 runs along the range in _RANGES.
    PAIRS = (
        ((0.4, "posterize", 8), (0.6, "rotate", 9)), ((0.6, "solarize", 5), (0.6, "autocontrast", 5)),
        ((0.8, "equalize", 8), (0.6, "equalize", 3)), ((0.6, "posterize", 7), (0.6, "posterize", 6)),
        ((0.4, "equalize", 7), (0.2, "solarize", 4)), ((0.4, "equalize", 4), (0.8, "rotate", 8)),
        ((0.6, "solarize", 3), (0.6, "equalize", 7)), ((0.8, "posterize", 5), (1.0, "equalize", 2)),
        ((0.2, "rotate", 3), (0.6, "solarize", 8)), ((0.6, "equalize", 8), (0.4, "posterize", 6)),
        ((0.8, "rotate", 8), (0.4, "color", 0)), ((0.4, "rotate", 9), (0.6, "equalize", 2)),
        ((0.0, "equalize", 7), (0.8, "equalize", 8)), ((0.6, "invert", 4), (1.0, "equalize", 8)),
        ((0.6, "color", 4), (1.0, "contrast", 8)), ((0.8, "rotate", 8), (1.0, "color", 2)),
        ((0.8, "color", 8), (0.8, "solarize", 7)), ((0.4, "sharpness", 7), (0.6, "invert", 8)),
        ((0.6, "shear_x", 5), (1.0, "equalize", 9)), ((0.4, "color", 0), (0.6, "equalize", 3)),
        ((0.4, "equalize", 7), (0.2, "solarize", 4)), ((0.6, "solarize", 5), (0.6, "autocontrast", 5)),
        ((0.6, "invert", 4), (1.0, "equalize", 8)), ((0.6, "color", 4), (1.0, "contrast", 8)),
        ((0.8, "equalize", 8), (0.6, "equalize", 3)),
    )
    _RANGES = {"shear_x": (0, 0.3), "rotate": (0, 30), "posterize": (8, 4), "solarize": (256, 0),
               "color": (0, 0.9), "contrast": (0, 0.9), "sharpness": (0, 0.9)}

    def __init__(self, fillcolor: Sequence[int] = GREY):
        self.fill = tuple(int(value) for value in numbers(fillcolor, 3, "fillcolor"))

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[Step, ...]:
        pair = self.PAIRS[int(rng.integers(len(self.PAIRS)))]
        return tuple(signed_step(rng, name, self.level_magnitude(name, level))
                     for probability, name, level in pair if rng.random() < probability)

    def level_magnitude(self, name: str, level: int) -> float:
        low, high = self._RANGES.get(name, (0, 0))
        value = float(np.linspace(low, high, 10)[level])
        return round(value) if name == "posterize" else value

    def apply(self, image: np.ndarray, params: Sequence[Step]) -> np.ndarray:
        return run_steps(image, params, self.fill)


class TimmAutoAugment:
    """timm's RandAugment with probability `prob` per image, from strings such as rand-m7-mstd0.5-inc1.

    m: strength of 10 (10). n: operations per image (2), each of them applied with probability 0.5. mstd: deviation of
    the strength (0). inc1: operations that all grow with the strength. w0: timm's weights for drawing operations.
    interpolation: bilinear, bicubic, or random for either. mean: fill colour in [0, 1].
    img_size is taken and changes nothing: shifts are shares of the image's own size. Law: timm_autoaugment.py.
    """

    # Order and weights as in timm: w0 weighs by position.
    NAMES = ("autocontrast", "equalize", "invert", "rotate", "posterize", "solarize", "solarize_add", "color",
              "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y")
    _WEIGHTS = (.025, .005, 0, .3, 0, .005, .005, .025, .005, .005, .025, .2, .2, .1, .1)
    _LARGEST = {"rotate": 30.0, "shear_x": 0.3, "shear_y": 0.3, "translate_x": 0.45, "translate_y": 0.45}

    def __init__(self, prob: Any = 1.0, config_str: str = "rand-m9-mstd0.5-inc1", interpolation: str = "bicubic",
                 img_size: Any = 224, mean: Sequence[Any] = (0.485, 0.456, 0.406)):
        self.prob = number(prob)
        kind, *sections = str(config_str).strip().split("-")
        if kind != "rand":
            raise ValueError(f"config_str: expected rand-..., found {config_str!r}; AutoAugment is its own transform")
        options = {"m": 10.0, "n": 2.0, "mstd": 0.0, "inc": 0.0, "w": None}
        for section in sections:
            match = re.fullmatch(r"(mstd|inc|m|n|w)(\d+(?:\.\d+)?)", section)
            if not match:
                raise ValueError(f"config_str: cannot read '{section}' in {config_str!r}; known: m9 n2 mstd0.5 inc1 w0")
            options[match[1]] = float(match[2])
        self.magnitude, self.deviation, self.layers = options["m"], options["mstd"], int(options["n"])
        self.increasing = bool(options["inc"])
        self.weights = None if options["w"] is None else np.array(self._WEIGHTS) / sum(self._WEIGHTS)
        self.filters = ("bilinear", "bicubic") if interpolation in (None, "random") else (interpolation,)
        if self.filters[0] not in _FILTERS:
            raise ValueError(f"interpolation: expected one of {', '.join(_FILTERS)} or random, found {interpolation!r}")
        self.fill = tuple(min(255, round(255 * value)) for value in numbers(mean, 3, "mean"))

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[Step, ...]:
        if rng.random() >= self.prob:
            return ()
        chosen = rng.choice(len(self.NAMES), self.layers, replace=self.weights is None, p=self.weights)
        return tuple(self._step(rng, self.NAMES[i]) for i in chosen if rng.random() < 0.5)

    def _step(self, rng: np.random.Generator, name: str) -> Step:
        strength = rng.normal(self.magnitude, self.deviation) if self.deviation else self.magnitude
        level = min(1.0, max(0.0, strength / 10))
        sign = 1 if rng.random() < 0.5 else -1
        if name in self._LARGEST:
            value = sign * level * self._LARGEST[name]
        elif name in ("color", "contrast", "brightness", "sharpness"):
            value = 1 + sign * 0.9 * level if self.increasing else 0.1 + 1.8 * level
        elif name in ("posterize", "solarize"):
            most = 4 if name == "posterize" else 256
            value = most - int(level * most) if self.increasing else int(level * most)
        else:
            value = int(level * 110) if name == "solarize_add" else 0
        resample = self.filters[int(rng.integers(len(self.filters)))]
        return name, float(value), resample

    def apply(self, image: np.ndarray, params: Sequence[Step]) -> np.ndarray:
        return run_steps(image, params, self.fill)


class ColorJitter:
    """Brightness, contrast, saturation and hue, in random order, with probability `prob`.

    A number x draws a factor from [max(0, 1 - x), 1 + x] (hue: a shift from [-x, x], x <= 0.5, in turns of the colour
    circle); [low, high] draws from that range. prob above 1, PaddleClas's default 2, means always.
    """

    def __init__(self, prob: Any = 2, brightness: Any = 0, contrast: Any = 0, saturation: Any = 0, hue: Any = 0):
        self.prob = number(prob)
        ranges = {"brightness": self._range(brightness, "brightness"), "contrast": self._range(contrast, "contrast"),
                  "color": self._range(saturation, "saturation"), "hue": self._range(hue, "hue")}
        self.ranges = {name: limits for name, limits in ranges.items() if limits not in ((1, 1), (0, 0))}

    @staticmethod
    def _range(value: Any, name: str) -> tuple[float, float]:
        centre, lowest, highest = (0, -0.5, 0.5) if name == "hue" else (1, 0, math.inf)
        if isinstance(value, (list, tuple)):
            low, high = numbers(value, 2, name)
        else:
            low, high = centre - number(value), centre + number(value)
            low = low if name == "hue" else max(low, 0)
        if not lowest <= low <= high <= highest:
            raise ValueError(f"{name}: expected a range within [{lowest}, {highest}], found {value!r}")
        return low, high

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[tuple[str, float], ...]:
        if rng.random() >= self.prob:
            return ()
        names = list(self.ranges)
        return tuple((names[i], float(rng.uniform(*self.ranges[names[i]]))) for i in rng.permutation(len(names)))

    def apply(self, image: np.ndarray, params: Sequence[tuple[str, float]]) -> np.ndarray:
        if not params:
            return image
        picture = _picture(image)
        for name, value in params:
            picture = _shift_hue(picture, value) if name == "hue" else _OPERATIONS[name](picture, value, {})
        return np.asarray(picture)


def _shift_hue(picture: Image.Image, turns: float) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    hue = hue.point([(level + int(turns * 255)) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


class RandomErasing:
    """Overwrite a random rectangle, with probability EPSILON; after NormalizeImage, where its noise belongs.

    arXiv 1708.04896 in PaddleClas's form (random_erasing.py). sl, sh: range of the rectangle's share of the area. r1:
    its height / width is drawn from [r1, 1 / r1], uniform or log-uniform (use_log_aspect). attempt: tries to find one
    that fits. mode: const (`mean`), rand (one normal colour), pixel (normal noise).
    """

    def __init__(self, EPSILON: Any = 0.5, sl: Any = 0.02, sh: Any = 0.4, r1: Any = 0.3,
                 mean: Sequence[Any] = (0.0, 0.0, 0.0), attempt: int = 100, use_log_aspect: bool = False,
                 mode: str = "const"):
        self.prob, self.sl, self.sh, self.r1 = number(EPSILON), number(sl), number(sh), number(r1)
        if not 0 < self.sl <= self.sh or not 0 < self.r1 <= 1:
            raise ValueError(f"expected 0 < sl <= sh and 0 < r1 <= 1, found sl={sl!r}, sh={sh!r}, r1={r1!r}")
        if mode not in ("const", "rand", "pixel"):
            raise ValueError(f"mode: expected const, rand or pixel, found {mode!r}")
        self.mean, self.mode = numbers(mean, 3, "mean"), mode
        self.attempt, self.use_log_aspect = attempt, use_log_aspect

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int, int] | None:
        """(left, top, width, height, seed of the noise), or None to leave the image alone."""
        if rng.random() >= self.prob:
            return None
        for _ in range(self.attempt):
            area = height * width * rng.uniform(self.sl, self.sh)
            if self.use_log_aspect:
                aspect = math.exp(rng.uniform(math.log(self.r1), -math.log(self.r1)))
            else:
                aspect = rng.uniform(self.r1, 1 / self.r1)
            box_height, box_width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if box_width < width and box_height < height:
                return (int(rng.integers(width - box_width + 1)), int(rng.integers(height - box_height + 1)),
                        box_width, box_height, int(rng.integers(2**31)))
        return None

    def apply(self, image: np.ndarray, params: tuple[int, int, int, int, int] | None) -> np.ndarray:
        if params is None:
            return image
        left, top, width, height, seed = params
        if self.mode == "const":
            value = np.array(self.mean)
        else:
            shape = (height, width, 3) if self.mode == "pixel" else (1, 1, 3)
            value = generator(seed, 0, 0, Stream.AUGMENT).standard_normal(shape)
        if image.dtype == np.uint8:
            value = np.clip(value, 0, 255)
        image = image.copy()
        image[top:top + height, left:left + width] = value
        return image
