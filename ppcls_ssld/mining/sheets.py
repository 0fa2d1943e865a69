"""Pictures for the report: thumbnails, and two images side by side with what was found to match between them."""

from __future__ import annotations

import base64

import cv2
import numpy as np

PAIR_HEIGHT, PAIR_WIDTH, PAIR_GAP = 150, 232, 8  # pixels: of both sides, of each at most, between them
LINES_DRAWN = 20  # more would hide the images
LEAST_SIDE = 8  # pixels of a side that would vanish, as of an image of 1 x 4000
GROUND = (44, 47, 52)  # RGB between and behind images: dark enough on a white page, not lost on a dark one
OUTLINE = (255, 214, 64)


def thumbnail(image: np.ndarray, px: int = 96) -> str:
    """Data URI of a JPEG, its longer side `px` pixels unless it is shorter as it is. image: uint8 RGB [H, W, 3]."""
    longer = max(image.shape[:2])
    return data_uri(_scaled(image, px / longer) if longer > px else image)


def data_uri(image: np.ndarray, quality: int = 80) -> str:
    """An image as a JPEG in a data URI. Small images are kept finer: they have no pixels to lose."""
    quality = 92 if max(image.shape[:2]) <= 64 else quality
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"


def missing_tile(word: str, px: int = 96) -> np.ndarray:
    """Grey uint8 RGB [px, px, 3] with a word, in place of an image that cannot be read any more."""
    tile = np.full((px, px, 3), 150, np.uint8)
    (width, height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)
    scale = px * 0.8 / max(width, 1)
    cv2.putText(tile, word, (round(px * 0.1), round(px / 2 + height * scale / 2)), cv2.FONT_HERSHEY_SIMPLEX, scale,
                (30, 30, 30), 1, cv2.LINE_AA)
    return tile


def pair_sheet(pool: np.ndarray, protected: np.ndarray, pairs: np.ndarray | None = None,
               transform: np.ndarray | None = None) -> np.ndarray:
    """Pool image left, protected image right, at equal height, in one uint8 RGB picture.

    pool, protected: uint8 RGB [H, W, 3]. pairs: [m, 4], points (x, y) of the pool image and (X, Y) of the protected
    one, in [0, 1]: a line each, for at most 20 of them. transform: [2, 3], takes (x, y, 1) of the pool image to the
    protected one: in either image a frame shows what the other one covers.
    """
    height = PAIR_HEIGHT
    for image in (pool, protected):
        height = min(height, max(round(PAIR_WIDTH * image.shape[0] / image.shape[1]), LEAST_SIDE))
    left, right = (_sized(image, height) for image in (pool, protected))
    if _is_map(transform):
        _outline(right, np.asarray(transform, np.float64))
        inverse = _inverse(np.asarray(transform, np.float64))
        if inverse is not None:
            _outline(left, inverse)
    sheet = np.empty((height, left.shape[1] + PAIR_GAP + right.shape[1], 3), np.uint8)
    sheet[:] = GROUND
    sheet[:, :left.shape[1]], sheet[:, left.shape[1] + PAIR_GAP:] = left, right
    _lines(sheet, left.shape[1], right.shape[1], pairs)
    return sheet


def covered(transform: np.ndarray | None) -> float | None:
    """Area of the pool image over that of the protected one, where they lie on each other: 0.25 for a quarter cut out.

    None without a transform that can be turned round.
    """
    if not _is_map(transform):
        return None
    area = abs(float(np.linalg.det(np.asarray(transform, np.float64)[:, :2])))
    return area if area > 1e-9 else None


def _is_map(transform: np.ndarray | None) -> bool:
    return transform is not None and bool(np.isfinite(transform).all())


def _inverse(transform: np.ndarray) -> np.ndarray | None:
    if covered(transform) is None:
        return None
    return np.linalg.inv(np.vstack([transform, (0.0, 0.0, 1.0)]))[:2]


def _scaled(image: np.ndarray, scale: float) -> np.ndarray:
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def _sized(image: np.ndarray, height: int) -> np.ndarray:
    """The image at this height. Enlarged pixels stay squares, so that a small image shows what there was to compare."""
    width = min(max(round(image.shape[1] * height / image.shape[0]), LEAST_SIDE), PAIR_WIDTH)
    shrinks = height < image.shape[0]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST)


def _outline(image: np.ndarray, transform: np.ndarray) -> None:
    """Draw where the corners (0, 0) ... (1, 1) of the other image come to lie."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]) @ transform.T * (width - 1, height - 1)
    # a corner far outside would overflow OpenCV's 32-bit coordinates
    polygon = np.clip(corners, -10_000, 10_000).round().astype(np.int32)[None]
    cv2.polylines(image, polygon, True, (0, 0, 0), 4, cv2.LINE_AA)
    cv2.polylines(image, polygon, True, OUTLINE, 2, cv2.LINE_AA)


def _lines(sheet: np.ndarray, left_width: int, right_width: int, pairs: np.ndarray | None) -> None:
    """A line for each pair, its colour telling the height of its point in the protected image."""
    pairs = np.zeros((0, 4)) if pairs is None else np.asarray(pairs, np.float64).reshape(-1, 4)
    pairs = np.clip(pairs[np.isfinite(pairs).all(axis=1)], 0, 1)
    last = sheet.shape[0] - 1
    pairs = pairs[np.lexsort(pairs.T)]
    shown = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), LINES_DRAWN)).round().astype(int))
    for x, y, other_x, other_y in pairs[shown]:
        start = (round(x * (left_width - 1)), round(y * last))
        end = (left_width + PAIR_GAP + round(other_x * (right_width - 1)), round(other_y * last))
        hue = np.array([[[int(other_y * 150), 190, 255]]], np.uint8)
        colour = tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0])
        cv2.line(sheet, start, end, colour, 1, cv2.LINE_AA)
        for point in (start, end):
            cv2.circle(sheet, point, 3, (0, 0, 0), -1, cv2.LINE_AA)
            cv2.circle(sheet, point, 2, colour, -1, cv2.LINE_AA)
