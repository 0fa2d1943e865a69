"""Drawn pictures that are alike without being copies: uint8 RGB, from a generator alone."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.random import Generator

_WORDS = ("the of and to in is you that it he was for on are as with his they at be this from have or by one "
          "had not but what all were when we there can an your which their said if do will each about how up "
          "out them then she many some so these would other into has more her two like him see time could no "
          "make than first been its who now people my made over did down only way find use may water long "
          "little very after words called just where most know ").split()


def flag(rng: Generator) -> np.ndarray:
    """Three bars, upright or flat, some with a disc or a cross."""
    image = np.empty((240, 360, 3), np.uint8)
    colours = rng.integers(0, 256, (5, 3))
    bars = np.arange(360 if rng.random() < 0.5 else 240) * 3
    bars = np.minimum(bars // len(bars), 2)
    image[:] = colours[bars][None] if len(bars) == 360 else colours[bars][:, None]
    sign, size = rng.integers(3), int(rng.integers(30, 70))
    colour = [int(value) for value in colours[3]]
    if sign == 1:
        cv2.circle(image, (180, 120), size, colour, -1)
    elif sign == 2:
        image[120 - size // 4:120 + size // 4] = image[:, 120 - size // 4:120 + size // 4] = colours[4]
    return image


def gradient(rng: Generator) -> np.ndarray:
    """From one colour to another in a random direction."""
    y, x = np.mgrid[:240, :320] / 320
    turn = rng.uniform(0, 2 * np.pi)
    share = np.cos(turn) * x + np.sin(turn) * y
    share = (share - share.min()) / np.ptp(share)
    start, end = rng.uniform(0, 255, (2, 3))
    return (start + share[..., None] * (end - start)).astype(np.uint8)


def text_page(rng: Generator) -> np.ndarray:
    """Fourteen lines of common words in one font, size and layout."""
    image = np.full((360, 480, 3), 255, np.uint8)
    for line in range(14):
        text = " ".join(rng.choice(_WORDS, 9))
        cv2.putText(image, text[:44], (10, 25 + 24 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)
    return image


def letter_grid(rng: Generator) -> np.ndarray:
    """Twelve lines of thirty letters, each letter in its cell as a typewriter sets them."""
    image = np.full((320, 480, 3), 240, np.uint8)
    for row in range(12):
        for column in range(30):
            letter = "abcdefghijklmnopqrstuvwxyz"[rng.integers(26)]
            cv2.putText(image, letter, (12 + 15 * column, 28 + 25 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (20, 20, 20),
                        1, cv2.LINE_AA)
    return image


def pattern(rng: Generator) -> np.ndarray:
    """Checks, stripes or bricks of random pitch, phase, turn and colours, with a little noise."""
    y, x = np.mgrid[:300, :400].astype(np.float64)
    turn = rng.choice([0.0, 0.0, rng.uniform(0, np.pi)])
    x, y = np.cos(turn) * x + np.sin(turn) * y + rng.uniform(0, 50), np.cos(turn) * y - np.sin(turn) * x
    pitch, kind = rng.uniform(10, 45), rng.integers(3)
    column, row = np.floor(x / pitch), np.floor(y / pitch)
    if kind == 0:
        on = (column + row) % 2
    elif kind == 1:
        on = column % 2
    else:
        shifted = x + (row % 2) * pitch
        on = ((shifted % (2 * pitch) > 3) & (y % pitch > 3)).astype(np.float64)
    colours = rng.uniform(0, 255, (2, 3))
    image = colours[0] + on[..., None] * (colours[1] - colours[0]) + rng.normal(0, 3, (300, 400, 1))
    return np.clip(image, 0, 255).astype(np.uint8)


def few_dots(rng: Generator) -> np.ndarray:
    """A plain picture with one to seven blurred dots: fewer than eight keypoints, as a rule."""
    image = np.full((240, 320, 3), 128, np.uint8)
    for _ in range(rng.integers(1, 8)):
        centre = int(rng.integers(30, 290)), int(rng.integers(30, 210))
        cv2.circle(image, centre, int(rng.integers(4, 15)), [int(v) for v in rng.integers(0, 256, 3)], -1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 2)


DRAWN: dict[str, Callable[[Generator], np.ndarray]] = {
    "flag": flag, "gradient": gradient, "text_page": text_page, "letter_grid": letter_grid, "pattern": pattern,
    "few_dots": few_dots,
}
