"""What a loss that uses labels is shown, and which samples count as labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle


@dataclass(frozen=True)
class Labels:
    """Class ids of N samples on the device; a negative id means unlabelled.

    labels: int64 [N]. partner_labels: int64 [N], of the image mixed in by Mixup or Cutmix. share: float32 [N] in
    [0, 1], how much of a sample is its own image; 1 without mixing, where partner_labels equals labels.
    """

    labels: paddle.Tensor
    partner_labels: paddle.Tensor
    share: paddle.Tensor


def labelled_mask(labels: Any, partner_labels: Any) -> Any:
    """bool [N]: samples for which at least one of the two labels is known. NumPy arrays or Paddle tensors."""
    return (labels >= 0) | (partner_labels >= 0)
