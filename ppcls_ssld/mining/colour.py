"""Are two matched pictures of different colours? Structure alone takes one flag for another."""

from __future__ import annotations

import cv2
import numpy as np

from .types import Match

# Two colourful pictures whose colours are less alike are different ones; of 512 judged copies, none to four are.
LEAST = 0.3
_COLOURFUL = 10.0  # root mean square distance from grey, in levels of 8-bit Lab; paler pictures have no say


def likeness(query: np.ndarray, reference: np.ndarray, match: Match) -> float:
    """Cosine in [-1, 1] between the colours, without their lightness, where two thumbnails overlap after the transform.

    uint8 RGB [side, side, 3], each of the whole image. 1 when one of the two is pale, grey say, or nothing overlaps:
    then colours tell nothing. Robust to brightness, contrast and encoding; not to another hue, which is another
    picture.
    """
    side = len(reference)
    linear = match.transform[:, :2].astype(np.float64)
    shift = (match.transform[:, 2] + linear @ (0.5, 0.5) / side) * side - 0.5
    warp = np.column_stack([linear, shift])
    inside = cv2.warpAffine(np.ones((side, side), np.uint8), warp, (side, side), flags=cv2.INTER_NEAREST) > 0
    moved = cv2.warpAffine(query, warp, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    one, two = (cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2Lab)[inside][:, 1:].astype(np.float64) - 128
                for image in (moved, reference))
    if not len(one) or min(np.sqrt((one * one).sum(1).mean()), np.sqrt((two * two).sum(1).mean())) < _COLOURFUL:
        return 1.0
    return float((one * two).sum() / np.sqrt((one * one).sum() * (two * two).sum()))
