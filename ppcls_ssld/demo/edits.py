"""Edits that turn a picture into a near-copy of itself, and pictures that show nothing: what a demo plants in its pool.

Pictures are uint8 RGB [H, W, 3]; chance comes from the generator alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.random import Generator

Edit = Callable[[np.ndarray, Generator], np.ndarray]


def as_it_is(picture: np.ndarray, rng: Generator) -> np.ndarray:
    return picture


def framed(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """A border of one colour, a tenth of width and height on each side."""
    y, x = (max(1, side // 10) for side in picture.shape[:2])
    return cv2.copyMakeBorder(picture, y, y, x, x, cv2.BORDER_CONSTANT, value=rng.integers(0, 256, 3).tolist())


def resized(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """Half as large, or half as large again."""
    if rng.random() < 0.5 and min(picture.shape[:2]) >= 32:
        return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return cv2.resize(picture, None, fx=1.5, fy=1.5, interpolation=cv2.INTER_LINEAR)


def darker(picture: np.ndarray, rng: Generator) -> np.ndarray:
    return (picture * rng.uniform(0.5, 0.8)).astype(np.uint8)


def shifted(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """One or two pixels along each axis; black comes in."""
    x, y = (int(rng.integers(1, 3)) * int(rng.choice([-1, 1])) for _ in range(2))
    return _warped(picture, np.float32([[1, 0, x], [0, 1, y]]))


def turned(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """By 8 degrees to either side, black corners."""
    height, width = picture.shape[:2]
    return _warped(picture, cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), float(rng.choice([-8, 8])), 1))


def cropped(picture: np.ndarray, rng: Generator) -> np.ndarray:
    """Half of its area, anywhere in it."""
    height, width = (max(1, round(side * 0.5 ** 0.5)) for side in picture.shape[:2])
    y, x = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(picture.shape, (height, width)))
    return picture[y:y + height, x:x + width]


def mirrored(picture: np.ndarray, rng: Generator) -> np.ndarray:
    return picture[:, ::-1]


# What was done, in words: the edit, and how its result is stored.
EDITS: dict[str, tuple[Edit, str]] = {
    "stored anew": (as_it_is, "png"),
    "as JPEG": (as_it_is, "jpg"),
    "framed": (framed, "png"),
    "resized": (resized, "png"),
    "darker": (darker, "jpg"),
    "turned by 8°": (turned, "png"),
}
OF_DRAWINGS = {**EDITS, "shifted": (shifted, "png")}
OF_PHOTOGRAPHS = {**EDITS, "half of it": (cropped, "jpg"), "mirrored": (mirrored, "jpg")}


def noise(height: int, width: int, rng: Generator) -> np.ndarray:
    """Random colours or greys, in grains of one pixel or in blots."""
    grain = int(rng.choice([1, 2, 4, 8]))
    channels = int(rng.choice([1, 3]))
    small = rng.integers(0, 256, [-(-height // grain), -(-width // grain), channels], np.uint8)
    picture = cv2.resize(np.broadcast_to(small, (*small.shape[:2], 3)).copy(), (width, height),
                         interpolation=cv2.INTER_CUBIC)
    return picture


def patch(photographs: Sequence[np.ndarray], side: int, rng: Generator) -> np.ndarray:
    """[side, side, 3]: a square of a photograph, of `side` to four times as many pixels wide."""
    photograph = photographs[int(rng.integers(len(photographs)))]
    wide = min(int(side * rng.uniform(1, 4)), *photograph.shape[:2])
    y, x = (int(rng.integers(0, whole - wide + 1)) for whole in photograph.shape[:2])
    return cv2.resize(photograph[y:y + wide, x:x + wide], (side, side), interpolation=cv2.INTER_AREA)


def _warped(picture: np.ndarray, warp: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return cv2.warpAffine(picture, warp, (width, height), flags=cv2.INTER_LINEAR)
