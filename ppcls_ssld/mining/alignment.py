"""Verification by dense alignment: is one small image an edit of the other? For what is too small for keypoints.

The pair is aligned by an affine transform (enhanced correlation coefficient, Evangelidis and Psarakis 2008), started
from the windows that look most alike, as it is and mirrored. What is then compared over the overlap is fine structure
alone: luminance without its local mean, divided by its local contrast. Skies, lighting and large shapes, which
different photographs share, count for little in it; brightness, contrast and colour for nothing.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import cv2
import numpy as np

from .fingerprint import luminance, square
from .thumbnails import Describer, ThumbnailConfig, Window, mirrored
from .types import Match

_Start = tuple[bool, np.ndarray, Window, Window]  # mirrored?, relative transform [2, 3], both images' windows
_SURE = 0.85  # a score at which no other alignment is tried
_COARSE = 16  # side of the images that starts are chosen by
_CELLS = 8  # a side; neighbouring pixels tell the same, so cells are counted as evidence and not pixels


@dataclass(frozen=True)
class AlignmentConfig:
    """min_score: what counts as an edit. starts: alignments tried of each pair. steps: iterations of each.

    min_correlation: luminance correlation below which an alignment is given up without a closer look.
    min_overlap: share of the smaller image's area that must be compared. max_stretch: largest ratio of the transform's
    two scales. max_shear: largest cosine between its axes. min_contrast: grey levels, root mean square of the fine
    structure in the overlap; flatter overlaps prove nothing.
    """

    min_score: float = 0.65
    starts: int = 2
    steps: int = 12
    min_correlation: float = 0.7
    min_overlap: float = 0.4
    max_stretch: float = 1.4
    max_shear: float = 0.12
    min_contrast: float = 2.0


def verify(query: np.ndarray, reference: np.ndarray, config: AlignmentConfig = AlignmentConfig()) -> Match | None:
    """The best alignment of two thumbnails, uint8 RGB [side, side, 3] of one side, or None below `min_score`.

    The score is a cautious correlation of fine structure, at most 1: the correlation less 3 standard errors (Fisher's
    z; the sample are the cells of the overlap with structure in them), less the shear and 0.3 of the stretch of the
    transform, which edits seldom need and look-alikes often. It depends on the two images alone. With the default
    `min_score` about 1 in 1,000 images of CIFAR-10 is taken for a copy and is none (judged by eye,
    benchmarks/cifar10_duplicates.py); drawings and handwriting need a higher one, calibrated on them.
    """
    match = best(query, reference, config)
    return match if match is not None and match.score >= config.min_score else None


def best(query: np.ndarray, reference: np.ndarray, config: AlignmentConfig = AlignmentConfig()) -> Match | None:
    """As `verify`, whatever the score; None where no plausible alignment exists. For calibration and reports."""
    return best_each(query, reference[None], config)[0]


def best_each(query: np.ndarray, references: np.ndarray,
              config: AlignmentConfig = AlignmentConfig()) -> list[Match | None]:
    """`best` with each reference, uint8 RGB [n, side, side, 3]; cheaper than one by one, with the same results."""
    if not len(references):
        return []
    asked, grey = _described(query), luminance(query)
    greys = grey, np.ascontiguousarray(grey[:, ::-1])
    return [_best(greys, luminance(reference), _starts(asked, _described(reference), config.starts), config)
            for reference in references]


def _best(greys: tuple[np.ndarray, np.ndarray], reference: np.ndarray, starts: list[_Start],
          config: AlignmentConfig) -> Match | None:
    found = None
    for flip, start, window, known in starts:
        warp = _in_pixels(start, len(reference))
        if known[2] < window[2]:  # what is aligned is the smaller window: around it may be a border
            warp = _refine(reference, known, greys[flip], cv2.invertAffineTransform(warp), config)
            warp = None if warp is None else cv2.invertAffineTransform(warp)
        else:
            warp = _refine(greys[flip], window, reference, warp, config)
        score = None if warp is None else _score(greys[flip], reference, warp, config)
        if score is not None and (found is None or score > found.score):
            found = Match(score, _relative(warp, len(reference), flip), flip)
        if found is not None and found.score > _SURE:
            break
    return found


def _described(image: np.ndarray) -> np.ndarray:
    """float32 [windows, dim]. One image at a time: in a larger product the last bits would depend on the others."""
    return _describer()(square(image, _COARSE)[None])[0]


@functools.lru_cache(maxsize=1)
def _describer() -> Describer:
    return Describer(ThumbnailConfig().reference_windows, _COARSE)


@functools.lru_cache(maxsize=1)
def _all_starts() -> tuple[list[_Start], np.ndarray]:
    """A start for each pair of windows and mirror, and bool [n, n]: which are nearly the same transform."""
    views, starts = _describer().views, []
    for flip in (False, True):
        for x, y, width, height in views:
            x = 1 - x - width if flip else x  # a descriptor's mirror describes the mirrored window
            for left, top, wide, high in views:
                across, down = wide / width, high / height
                transform = np.array([[across, 0, left - across * x], [0, down, top - down * y]])
                starts.append((flip, transform, (x, y, width, height), (left, top, wide, high)))
    flips, transforms = np.array([s[0] for s in starts]), np.stack([s[1].ravel() for s in starts])
    near = abs(transforms[:, None] - transforms).max(axis=2) < 0.02
    return starts, near & (flips[:, None] == flips)


def _starts(asked: np.ndarray, known: np.ndarray, count: int) -> list[_Start]:
    """The starts of the `count` most similar pairs of windows, each another transform."""
    starts, same = _all_starts()
    similar = np.concatenate([(asked @ known.T).ravel(), (mirrored(asked) @ known.T).ravel()])
    found = []
    while len(found) < count:
        found.append(int(similar.argmax()))
        similar[same[found[-1]]] = -2
    return [starts[i] for i in found]


def _refine(one: np.ndarray, window: Window, two: np.ndarray, warp: np.ndarray,
            config: AlignmentConfig) -> np.ndarray | None:
    """Affine warp float32 [2, 3] from pixels of `one`, whose window is aligned, to those of `two`, started from `warp`.

    None when it diverges or is implausible.
    """
    x, y, width, height = window
    left, top = round(x * len(one)), round(y * len(one))
    part = one[top:round((y + height) * len(one)), left:round((x + width) * len(one))]
    corner = np.array([left, top], np.float32)
    warp = np.column_stack([warp[:, :2], warp[:, 2] + warp[:, :2] @ corner])
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, config.steps, 1e-3)
    try:
        correlation, warp = cv2.findTransformECC(part, two, warp, cv2.MOTION_AFFINE, stop, None, 3)
    except cv2.error:  # its only way to say that the images do not correlate
        return None
    warp = np.column_stack([warp[:, :2], warp[:, 2] - warp[:, :2] @ corner])
    linear = warp[:, :2].astype(np.float64)
    if correlation < config.min_correlation or not np.isfinite(warp).all() or np.linalg.det(linear) <= 0:
        return None
    stretch, shear = _distortion(linear)
    return warp if stretch <= config.max_stretch and shear <= config.max_shear else None


def _distortion(linear: np.ndarray) -> tuple[float, float]:
    """Ratio of the scales along x and y, at least 1, and the cosine between the axes."""
    across, down = np.linalg.norm(linear, axis=0)
    return float(max(across, down) / min(across, down)), float(abs(linear[:, 0] @ linear[:, 1]) / (across * down))


def _score(query: np.ndarray, reference: np.ndarray, warp: np.ndarray, config: AlignmentConfig) -> float | None:
    """Cautious correlation of structure in the overlap, less the warp's distortion; None where it proves nothing."""
    flags, size = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, query.shape[::-1]
    inside = cv2.warpAffine(np.ones_like(reference), warp, size, flags=flags)
    overlap = float((inside > 0.99).mean())
    linear = warp[:, :2].astype(np.float64)
    if overlap * max(1.0, float(np.linalg.det(linear))) < config.min_overlap:
        return None
    mask = cv2.erode((inside > 0.99).astype(np.float32), np.ones((3, 3)), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    if not mask.any():
        return None
    one, floor_one = _structure(query, mask)
    two, floor_two = _structure(cv2.warpAffine(reference, warp, size, flags=flags), mask)
    if min(floor_one, floor_two) < config.min_contrast:
        return None
    product, power = one * two, np.sqrt(float((one * one).sum()) * float((two * two).sum()))
    strength = cv2.resize(np.abs(one) + np.abs(two), (_CELLS, _CELLS), interpolation=cv2.INTER_AREA)
    cells = max(int((strength > 0.25 * strength.max()).sum()), 4)
    correlation = np.clip(float(product.sum()) / power, -0.9999, 0.9999)
    stretch, shear = _distortion(linear)
    return float(np.tanh(np.arctanh(correlation) - 3 / np.sqrt(cells - 3))) - shear - 0.3 * (stretch - 1)


def _structure(grey: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, float]:
    """Luminance minus local mean over local contrast in the mask, 0 outside; and the contrast's root mean square."""
    grey = (grey - _plane(grey, mask)) * mask
    high = (_blur(grey, 0.6) - _blur(grey, 2) / np.maximum(_blur(mask, 2), 1e-6)) * mask
    contrast = np.sqrt(_blur(high * high, 3) / np.maximum(_blur(mask, 3), 1e-6))
    overall = float(np.sqrt((high * high).sum() / mask.sum()))
    return high / (contrast + 0.5 * overall + 0.5), overall


def _plane(grey: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The plane nearest to the luminance inside the mask: a ramp has no structure, whatever happens at its edges."""
    rows, columns = np.indices(grey.shape, np.float32) / len(grey) - 0.5
    terms = np.stack([np.ones_like(rows), columns, rows])
    inside = (terms * mask).reshape(3, -1)
    flat = terms.reshape(3, -1)
    solved = np.linalg.lstsq((inside @ flat.T).astype(np.float64), inside @ grey.ravel(), rcond=1e-6)[0]
    return np.tensordot(solved.astype(np.float32), terms, 1)


def _blur(grey: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)


def _in_pixels(relative: np.ndarray, side: int) -> np.ndarray:
    """A transform of [0, 1]^2 as one of pixel centres, float32 [2, 3]."""
    offset = relative[:, :2] @ np.array([0.5, 0.5]) + relative[:, 2] * side - 0.5
    return np.column_stack([relative[:, :2], offset]).astype(np.float32)


def _relative(warp: np.ndarray, side: int, flip: bool) -> np.ndarray:
    """A transform of pixel centres as one of [0, 1]^2, the mirror included, float32 [2, 3]."""
    linear = warp[:, :2].astype(np.float64)
    offset = (warp[:, 2] + 0.5 - linear @ np.array([0.5, 0.5])) / side
    if flip:
        offset = offset + linear[:, 0]
        linear = linear * np.array([-1.0, 1.0])
    return np.column_stack([linear, offset]).astype(np.float32)
