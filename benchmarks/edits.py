"""Edits that turn a picture into a near-copy of itself: uint8 RGB [H, W, 3] and a generator in, uint8 RGB out.

Places, factors and texts come from the generator alone: the same generator state gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

Edit = Callable[[np.ndarray, Generator], np.ndarray]

_LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"))


def jpeg_q40(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Encoded as JPEG of quality 40 and decoded."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 40])
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def resize_half(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Half as wide and half as high."""
    height, width = image.shape[:2]
    return cv2.resize(image, (max(1, width // 2), max(1, height // 2)), interpolation=cv2.INTER_AREA)


def aspect_square(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Squeezed along its longer side until it is square."""
    side = min(image.shape[:2])
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)


def brightness(image: np.ndarray, rng: Generator) -> np.ndarray:
    """All values times 0.6 to 0.75, or times 1.3 to 1.5 with what is too bright clipped."""
    factor = rng.uniform(0.6, 0.75) if rng.random() < 0.5 else rng.uniform(1.3, 1.5)
    return np.clip(image.astype(np.float32) * factor, 0, 255).astype(np.uint8)


def grey(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Luminance in all three channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def text_overlay(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A line of random letters near its top and one near its bottom, white with black outlines, an eighth high each."""
    out = image.copy(order="C")
    height, width = out.shape[:2]
    line = height / 8
    for top in (0.05, 0.8):
        text = "".join(rng.choice(_LETTERS, 12))
        (text_width, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
        scale = min(line / 30, 0.95 * width / text_width)
        place = (int(rng.uniform(0, 0.05) * width), int(height * top + line))
        stroke = max(1, round(2 * scale))
        cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), 3 * stroke)
        cv2.putText(out, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), stroke)
    return out


def border_10(image: np.ndarray, rng: Generator) -> np.ndarray:
    """A border of one random colour around it, a tenth of width and height on each side."""
    height, width = image.shape[:2]
    y, x = max(1, height // 10), max(1, width // 10)
    colour = [int(value) for value in rng.integers(0, 256, 3)]
    return cv2.copyMakeBorder(image, y, y, x, x, cv2.BORDER_CONSTANT, value=colour)


def crop(area: float) -> Edit:
    """A crop of `area` (0 to 1) of the picture with its aspect ratio, anywhere in it."""
    def apply(image: np.ndarray, rng: Generator) -> np.ndarray:
        height, width = image.shape[:2]
        h, w = max(1, round(height * area**0.5)), max(1, round(width * area**0.5))
        top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
        return np.ascontiguousarray(image[top:top + h, left:left + w])
    return apply


def rotate_10(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Turned by 10 degrees to either side about its centre, same size, black corners."""
    height, width = image.shape[:2]
    angle = 10.0 if rng.random() < 0.5 else -10.0
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    return cv2.warpAffine(image, turn, (width, height), flags=cv2.INTER_LINEAR)


def mirror(image: np.ndarray, rng: Generator) -> np.ndarray:
    """Left and right exchanged."""
    return np.ascontiguousarray(image[:, ::-1])


def mirrored(edit: Edit) -> Edit:
    """`edit`, then the mirror."""
    return lambda image, rng: mirror(edit(image, rng), rng)


EDITS: dict[str, Edit] = {
    "jpeg_q40": jpeg_q40, "resize_half": resize_half, "aspect_square": aspect_square, "brightness": brightness,
    "grey": grey, "text_overlay": text_overlay, "border_10": border_10, "crop_80": crop(0.8), "crop_50": crop(0.5),
    "crop_25": crop(0.25), "rotate_10": rotate_10, "mirror": mirror,
    "aspect_square_mirror": mirrored(aspect_square), "border_10_mirror": mirrored(border_10),
    "crop_50_mirror": mirrored(crop(0.5)), "crop_25_mirror": mirrored(crop(0.25)),
    "rotate_10_mirror": mirrored(rotate_10),
}
