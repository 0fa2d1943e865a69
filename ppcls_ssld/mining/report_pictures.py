"""Pictures of a report by name; one that cannot be read any more becomes a grey tile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .sheets import missing_tile


@dataclass(frozen=True)
class Picture:
    """image: uint8 RGB [H, W, 3]. size: in words."""

    image: np.ndarray
    size: str


class Pictures:
    """Reads pool and protected images. lost: how many could not be read."""

    def __init__(self, read: Callable[[str], np.ndarray], read_protected: Callable[[str], np.ndarray]):
        self._read, self._read_protected = read, read_protected
        self.lost = 0

    def pool(self, name: str) -> Picture:
        return self._picture(self._read, name)

    def protected(self, name: str) -> Picture:
        return self._picture(self._read_protected, name)

    def _picture(self, read: Callable[[str], np.ndarray], name: str) -> Picture:
        try:
            image = read(name)
        except (DataError, OSError):  # a report must not fail over a picture that was moved since
            self.lost += 1
            return Picture(missing_tile("missing"), "cannot be read any more")
        return Picture(image, f"{image.shape[1]}×{image.shape[0]}")
