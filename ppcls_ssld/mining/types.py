"""What passes between the parts of the mining room. No logic."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Keypoints:
    """Local features of one image, at working size (its longer side scaled to the extractor's `side` if larger).

    points: float32 [n, 2], x and y in pixels of the working image. sizes: float32 [n], diameter of the keypoint in
    pixels. angles: float32 [n], degrees. descriptors: uint8 [n, 128], RootSIFT. width, height: of the working image.
    """

    points: np.ndarray
    sizes: np.ndarray
    angles: np.ndarray
    descriptors: np.ndarray
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.points)


@dataclass(frozen=True)
class Match:
    """Evidence that one image is an edit of another.

    score: what the threshold is compared with; of keypoints the number of distinct matched cells, of alignment the
    correlation in [-1, 1]. transform: float32 [2, 3], takes (x, y, 1) of the pool image to the protected image, both
    in pixels of their whole images divided by (width, height), so in [0, 1]; a mirror is part of it (negative
    determinant).
    pairs: float32 [m, 4], matched points (x, y, X, Y) in the same relative coordinates, for the report; may be empty.
    """

    score: float
    transform: np.ndarray
    mirrored: bool
    pairs: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
