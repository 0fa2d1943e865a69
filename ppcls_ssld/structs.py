"""What passes between rooms. No logic, no Paddle."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

UNLABELLED = -1  # the label of an image that has none; never a class id, never indexed with


@dataclass(frozen=True)
class ImageRecord:
    """One image of a source, before it is read.

    path: file on disk. label: class id or UNLABELLED. sample_id: stable, unique over all sources of a reader
    (source offset + line number). source: index of its source in the reader.
    """

    path: str
    label: int
    sample_id: int
    source: int


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one micro-step; N images, all of one size.

    images: float32 [N, 3, H, W], normalised.
    labels: int64 [N], class id or UNLABELLED.
    sample_ids: int64 [N].
    sources: int64 [N], index of each image's source.
    partner_labels, share: Mixup/Cutmix. Image i is `share[i]` of itself and the rest of an image labelled
        `partner_labels[i]`; without mixing, partner_labels equals labels and share is 1 (float32 [N]).
    skipped: paths of corrupt images left out of this batch under `on_corrupt: skip`.
    """

    images: np.ndarray
    labels: np.ndarray
    sample_ids: np.ndarray
    sources: np.ndarray
    partner_labels: np.ndarray
    share: np.ndarray
    skipped: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)
