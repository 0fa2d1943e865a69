"""What passes between rooms. No logic, no Paddle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# The label of an image that has none; never a class id, never indexed with. In a vector of labels: not known.
UNLABELLED = -1


@dataclass(frozen=True)
class Normalization:
    """What is left to do with uint8 images: (image * scale - mean) / std per channel, in float32."""

    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True)
class Drawn:
    """What chance decided about one view of an image: plain numbers, enough to make the same pixels again.

    transforms: per transform of the list what it drew, None for a deterministic one. size: (height, width) of the
    decoded image. Mixup/Cutmix: partner, the sample_id of the other image (-1 without); partner_transforms and
    partner_size, the same of its view; mix, what was drawn for the two: Mixup's share (float), Cutmix's box (left, top,
    right, bottom), or an OpSampler's (index of its operator, one of these); None without a partner.
    """

    transforms: tuple
    size: tuple[int, int]
    partner: int = -1
    partner_transforms: tuple = ()
    partner_size: tuple[int, int] = (0, 0)
    mix: Any = None


@dataclass(frozen=True)
class SparseTargets:
    """A teacher's answers for N views: its k likeliest classes and what is left for the others.

    classes: int32 [N, k], distinct, likeliest first. log_probs: float32 [N, k], natural logarithms, at the temperature
    and under the tail rule that the store's header states. log_rest: float32 [N], of the mass of all other classes (-inf
    where k is their number). exp(log_probs) and exp(log_rest) sum to 1 per view.
    """

    classes: np.ndarray
    log_probs: np.ndarray
    log_rest: np.ndarray


@dataclass(frozen=True)
class Batch:
    """What one process trains on in one micro-step; N images, all of one size.

    images: float32 [N, 3, H, W], normalised; or uint8 RGB [N, H, W, 3] with `normalization` still to do, on the device.
    labels: int64 [N], class id or UNLABELLED; with several labels an image (Global.use_multilabel) int8 [N, C], each
        1 (yes), 0 (no) or UNLABELLED (not known).
    sample_ids: int64 [N].
    sources: int64 [N], index of each image's source.
    partner_labels, share: Mixup/Cutmix. Image i is `share[i]` of itself and the rest of an image labelled
        `partner_labels[i]`; without mixing, partner_labels equals labels and share is 1 (float32 [N]).
    skipped: paths of corrupt images left out of this batch under `on_corrupt: skip`.
    targets: a teacher's stored answers for these very views, where they are stored.
    drawn: per image what chance decided; filled only where it is to be stored.
    """

    images: np.ndarray
    labels: np.ndarray
    sample_ids: np.ndarray
    sources: np.ndarray
    partner_labels: np.ndarray
    share: np.ndarray
    skipped: tuple[str, ...] = field(default=())
    normalization: Normalization | None = None
    targets: SparseTargets | None = None
    drawn: tuple[Drawn, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)
