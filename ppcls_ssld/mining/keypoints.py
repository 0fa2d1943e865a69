"""RootSIFT: the local features of an image, and those of its mirror image without a second look at the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import DataError
from .types import Keypoints

DESCRIPTOR_SCALE = 512  # a RootSIFT vector of length 1 is stored times this; components above 255/512 are clipped
GRID = 64  # points and sizes are multiples of 1/64 pixel, so that 16 bits hold them
TURN = 65536  # angles are multiples of 1/65536 turn
MAX_SIDE = TURN // GRID - 1

# Mirroring a patch keeps the axis along the keypoint's direction and turns the other one round: of the 4x4 cells the
# rows change places, of the 8 directions o becomes -o.
_ROW, _COLUMN, _BIN = np.meshgrid(np.arange(4), np.arange(4), np.arange(8), indexing="ij")
_MIRROR = (((3 - _ROW) * 4 + _COLUMN) * 8 + (-_BIN) % 8).ravel()


@dataclass(frozen=True)
class KeypointConfig:
    """What is extracted. side: longer side of the working image, pixels; smaller images stay as they are.

    found: keypoints of highest contrast that are looked for. count: those of them that are kept, from all over the
    image. contrast: OpenCV's contrastThreshold; lower finds fainter keypoints, which crops of plain regions need.
    """

    side: int = 224
    found: int = 288
    count: int = 256
    contrast: float = 0.005

    def __post_init__(self) -> None:
        if not 16 <= self.side <= MAX_SIDE:
            raise ValueError(f"side: expected 16 to {MAX_SIDE} pixels, found {self.side}")
        if not 1 <= self.count <= self.found:
            raise ValueError(f"count: expected 1 to found ({self.found}) keypoints, found {self.count}")


def extract(image: np.ndarray, config: KeypointConfig = KeypointConfig()) -> Keypoints:
    """Keypoints of a uint8 RGB image [H, W, 3]. A flat image has none.

    The strongest of each of 4 x 4 blocks come first, then the second strongest of each, and so on: any crop has its
    share, and a caption does not take all. Strength is contrast times size: the finest keypoints of a crop are not
    seen in the whole image, which is scaled down further. Descriptors are RootSIFT (Arandjelovic and Zisserman, 2012):
    square roots of SIFT's of sum 1, times 512, uint8.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"expected a uint8 image [H, W, 3], found {image.dtype} {list(image.shape)}")
    grey = working_image(image, config.side)
    height, width = grey.shape
    # Without precise upscaling all points are a quarter pixel off, and a mirror image has different ones.
    sift = cv2.SIFT_create(nfeatures=config.found, contrastThreshold=config.contrast, enable_precise_upscale=True)
    found, descriptors = sift.detectAndCompute(grey, None)
    if not found:
        return empty(width, height)
    table = np.array([(*k.pt, k.size, k.angle, k.response) for k in found], np.float64)
    strongest = np.lexsort((*table.T[:4], -table[:, 4] * table[:, 2]))
    order = strongest[_round_robin(table[strongest, :2] / (width, height))[:config.count]]
    return Keypoints(
        points=_on_grid(table[order, :2], GRID),
        sizes=_on_grid(table[order, 2], GRID),
        angles=((np.rint(table[order, 3] * (TURN / 360)) % TURN) * (360 / TURN)).astype(np.float32),
        descriptors=_root(descriptors[order]), width=width, height=height)


def _round_robin(places: np.ndarray) -> np.ndarray:
    """Order that takes the first of every block, then the second of every block...; places: [n, 2] in [0, 1)."""
    block = np.clip(places * 4, 0, 3).astype(np.int64) @ (1, 4)
    order = np.argsort(block, kind="stable")
    rank = np.empty(len(block), np.int64)
    rank[order] = np.arange(len(block)) - np.searchsorted(block[order], np.arange(16))[block[order]]
    return np.argsort(rank, kind="stable")


def working_image(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 grey [h, w] of a uint8 RGB image, its longer side scaled down to `side` if it is longer."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = side / max(height, width)
    if scale >= 1:
        return grey
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA)


def empty(width: int, height: int) -> Keypoints:
    """No keypoints at all."""
    return Keypoints(np.zeros((0, 2), np.float32), np.zeros(0, np.float32), np.zeros(0, np.float32),
                     np.zeros((0, 128), np.uint8), width, height)


def mirrored(keypoints: Keypoints) -> Keypoints:
    """Keypoints of the image with left and right exchanged. Its own inverse."""
    points = keypoints.points.copy()
    points[:, 0] = keypoints.width - 1 - points[:, 0]
    return Keypoints(points, keypoints.sizes, (180 - keypoints.angles) % 360, keypoints.descriptors[:, _MIRROR],
                     keypoints.width, keypoints.height)


def pack(keypoints: Keypoints) -> np.ndarray:
    """uint16 [n, 4]: x, y, size and angle as whole numbers. Nothing is lost of what `extract` gave."""
    packed = np.empty((len(keypoints), 4), np.uint16)
    packed[:, :2] = np.rint(keypoints.points * GRID)
    packed[:, 2] = np.rint(keypoints.sizes * GRID)
    packed[:, 3] = np.rint(keypoints.angles * (TURN / 360)) % TURN
    return packed


def unpack(packed: np.ndarray, descriptors: np.ndarray, width: int, height: int) -> Keypoints:
    """The reverse of `pack`; descriptors: uint8 [n, 128], taken as they are."""
    values = packed.astype(np.float64)
    return Keypoints((values[:, :2] / GRID).astype(np.float32), (values[:, 2] / GRID).astype(np.float32),
                     (values[:, 3] * (360 / TURN)).astype(np.float32), descriptors, int(width), int(height))


def _on_grid(values: np.ndarray, grid: int) -> np.ndarray:
    return (np.clip(np.rint(values * grid), 0, TURN - 1) / grid).astype(np.float32)


def _root(sift: np.ndarray) -> np.ndarray:
    share = sift / np.maximum(sift.sum(axis=1, keepdims=True), 1e-9)
    return np.minimum(np.rint(np.sqrt(share) * DESCRIPTOR_SCALE), 255).astype(np.uint8)
