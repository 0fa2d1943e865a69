"""1,797 handwritten digits that ship with scikit-learn (UCI Optical Recognition of Handwritten Digits), as image files.

They are 8 x 8 grey values from 0 to 16, scanned from forms that 43 people filled in; here 32 x 32 RGB.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from ..errors import CheckpointError, DataError
from .images import DemoImages, Item, split_test, split_train

SIDE_PX = 32
FEW = 5  # labelled images of each digit
TEST_SHARE = 0.2


def digit_images(folder: Path, seed: int) -> DemoImages:
    """Write all digits as `folder/NNNN.png` and split them by seed: test 20 %, 5 of each digit labelled."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as e:
        raise DataError("scikit-learn is missing, and the demo's digits come with it: pip install scikit-learn, or run "
                        "the demo on images of your own with --data FOLDER") from e
    digits = load_digits()
    folder.mkdir(parents=True, exist_ok=True)
    # One folder for all: a path must not tell the class of an unlabelled image.
    items = [Item(_write_png(folder / f"{index:04d}.png", image), int(label))
             for index, (image, label) in enumerate(zip(digits.images, digits.target))]
    train, test = split_test(items, TEST_SHARE, seed)
    labelled, unlabelled = split_train(train, FEW, seed)
    return DemoImages("Handwritten digits (scikit-learn)", tuple("0123456789"), labelled, unlabelled, test,
                      photographs=False)


def enlarge(grey: np.ndarray) -> np.ndarray:
    """8 x 8 values from 0 to 16 -> uint8 [32, 32], white ink on black, cubic interpolation."""
    pixels = np.clip(np.asarray(grey, np.float32) * (255 / 16), 0, 255)
    pixels = cv2.resize(pixels, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_CUBIC)  # overshoots at edges
    return np.clip(pixels, 0, 255).round().astype(np.uint8)


def _write_png(path: Path, grey: np.ndarray) -> str:
    """Returns the absolute path."""
    if not cv2.imwrite(str(path), enlarge(grey)):
        raise CheckpointError(f"{path}: the image could not be written; is the disk full, or the folder read-only?")
    return str(path.absolute())
