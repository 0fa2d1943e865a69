"""What a loss that uses labels is shown, and which samples count as labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import paddle


@dataclass(frozen=True)
class Labels:
    """Class ids of N samples on the device; a negative id means unlabelled.

    With several labels a sample (Global.use_multilabel) labels and partner_labels are int8 [N, C], 1 yes, 0 no,
    negative not known, and nothing is mixed; yes_share: float32 [C], how often each label is yes in the list.
    labels: int64 [N]. partner_labels: int64 [N], of the image mixed in by Mixup or Cutmix. share: float32 [N] in
    [0, 1], how much of a sample is its own image; 1 without mixing, where partner_labels equals labels.
    """

    labels: paddle.Tensor
    partner_labels: paddle.Tensor
    share: paddle.Tensor
    yes_share: paddle.Tensor | None = None


def labelled_mask(labels: Any, partner_labels: Any) -> Any:
    """bool [N]: samples for which at least one label, their own or their partner's, is known. NumPy or Paddle."""
    known = (labels >= 0) | (partner_labels >= 0)
    return known if known.ndim == 1 else known.any(-1)
