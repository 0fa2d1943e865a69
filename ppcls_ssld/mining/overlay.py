"""Does the picture agree where two images overlap? The pixels' word on what keypoints found."""

from __future__ import annotations

import cv2
import numpy as np

from .keypoints import working_image
from .types import Match

SIDE = 512  # longest side of what is compared, pixels; less where either image has less detail to offer
_FINE, _COARSE = 0.7, 2.5  # structures between these two sizes are compared (standard deviations, pixels)
# Edits of photographs agree by 0.57 and more, but for one in 400 crops; one caption on two photographs by 0.39, other
# text in one layout by 0.34.
LEAST = 0.55
_FAINT = 1.5  # grey levels; what varies less is as good as flat
_BLURS = 21, 5  # pixels; a transform is improved on blurred pictures first, which have a longer reach
_STEPS = 30  # with each blur
_FAR = 0.08  # of the longer side, by which improving may move a corner


def agreement(query: np.ndarray, reference: np.ndarray, match: Match) -> float:
    """Mean local correlation over the overlap, after the match's transform, relative to that of equal pictures.

    1 for equal pictures, 0 for unrelated ones and when nothing overlaps.

    Both are uint8 RGB [H, W, 3], whole and of any size. Every neighbourhood counts alike, so that two photographs with
    the same caption agree in the caption and nowhere else, and two pages of text in neither line. A transform from few
    keypoints may be off by some pixels: where the pictures disagree, it is first improved by their luminance.
    """
    transform = match.transform.astype(np.float64)
    area = reference.shape[0] * reference.shape[1] * abs(np.linalg.det(transform[:, :2]))
    enlarged = float(np.sqrt(area / (query.shape[0] * query.shape[1])))  # reference pixels for one of the query
    longest = max(reference.shape[:2])
    share = min(1.0, SIDE / longest, 1 / max(enlarged, 1e-6))
    target = working_image(reference, max(16, round(longest * share))).astype(np.float32)
    source = working_image(query, max(16, round(max(query.shape[:2]) * share * enlarged))).astype(np.float32)
    pixels = _between_pixels(transform, source.shape[::-1], target.shape[::-1])
    found = _correlation(source, target, pixels)
    if found < LEAST and (better := _improved(source, target, pixels)) is not None:
        found = max(found, _correlation(source, target, better))
    return found


def _correlation(source: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> float:
    """`agreement` of float32 luminance under a transform of pixel centres, [2, 3]."""
    height, width = target.shape
    moved = cv2.warpAffine(source, pixels, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones_like(source), pixels, (width, height), flags=cv2.INTER_NEAREST)
    if inside.sum() < 64:
        return 0.0
    weight = cv2.GaussianBlur(inside, (0, 0), _COARSE) + 1e-6

    def local_mean(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values * inside, (0, 0), _COARSE) / weight

    a, b = (cv2.GaussianBlur(image, (0, 0), _FINE) for image in (target, moved))
    a, b = a - local_mean(a), b - local_mean(b)
    power_a, power_b = local_mean(a * a), local_mean(b * b)
    correlation = local_mean(a * b) / np.sqrt((power_a + _FAINT**2) * (power_b + _FAINT**2))
    # Where both are flat there is nothing to compare; where one is, they differ.
    strength = inside * np.minimum(np.maximum(power_a, power_b) / _FAINT**2, 1)
    # Faint structure correlates less, even with itself: without this, misty photographs would not agree with copies.
    power = np.maximum(power_a, power_b)
    reachable = power / (power + _FAINT**2)
    return float((correlation * strength).sum() / max(float((reachable * strength).sum()), 1.0))


def _improved(source: np.ndarray, target: np.ndarray, pixels: np.ndarray) -> np.ndarray | None:
    """The transform after enhanced correlation (Evangelidis and Psarakis 2008); None where that leads far away."""
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _STEPS, 1e-4)
    warp = cv2.invertAffineTransform(pixels).astype(np.float32)
    try:
        for blur in _BLURS:
            _, warp = cv2.findTransformECC(target, source, warp, cv2.MOTION_AFFINE, stop, None, blur)
    except cv2.error:  # its only way to say that the images do not correlate
        return None
    better = cv2.invertAffineTransform(warp.astype(np.float64))
    corners = np.array([(x, y, 1) for x in (0, source.shape[1] - 1) for y in (0, source.shape[0] - 1)], np.float64)
    moved = np.abs(corners @ (better - pixels).T).max()
    return better if np.isfinite(moved) and moved <= _FAR * max(target.shape) else None


def _between_pixels(transform: np.ndarray, source: tuple[int, int], target: tuple[int, int]) -> np.ndarray:
    """The transform of relative coordinates as one of pixel centres; sizes are (width, height)."""
    linear = transform[:, :2] * np.array(target, np.float64)[:, None] / np.array(source, np.float64)
    shift = transform[:, 2] * target - 0.5 + linear @ (0.5, 0.5)
    return np.hstack([linear, shift[:, None]])
