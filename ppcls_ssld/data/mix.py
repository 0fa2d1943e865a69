"""Mixup and Cutmix: each image of a batch with one partner of the same batch.

A mix is split like a random transform: `draw(rng, n, height, width) -> params` and `apply(batch, params) -> Batch`.
Labels are not blended into vectors: a Batch keeps both labels and the share of the first, and UNLABELLED stays so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import ConfigError
from ..registry import Registry, one_key
from ..structs import Batch
from .pixels import number

BATCH_TRANSFORMS = Registry("batch transform")


@BATCH_TRANSFORMS.register("Mixup", "MixupOperator")
class Mixup:
    """Blend each image with its partner; the share is drawn from Beta(alpha, alpha), one for the batch.

    arXiv 1710.09412 in PaddleClas's form (batch_operators.py).
    """

    def __init__(self, alpha: Any = 1.0):
        self.alpha = _positive(alpha)

    def draw(self, rng: np.random.Generator, n: int, height: int, width: int) -> tuple[tuple[int, ...], float]:
        """(partner of each image, share of the image itself)."""
        return tuple(rng.permutation(n).tolist()), float(rng.beta(self.alpha, self.alpha))

    def apply(self, batch: Batch, params: tuple[Sequence[int], float]) -> Batch:
        partner, share = np.asarray(params[0]), np.float32(params[1])
        images = batch.images[partner]
        images *= 1 - share
        images += share * batch.images
        return _mixed(batch, images, partner, share)


@BATCH_TRANSFORMS.register("Cutmix", "CutmixOperator")
class Cutmix:
    """Paste a random box of its partner into each image; the share is what the box leaves, one for the batch.

    arXiv 1905.04899 in PaddleClas's form (batch_operators.py): 1 - share ~ Beta(alpha, alpha) before clipping.
    """

    def __init__(self, alpha: Any = 0.2):
        self.alpha = _positive(alpha)

    def draw(self, rng: np.random.Generator, n: int, height: int, width: int
             ) -> tuple[tuple[int, ...], tuple[int, int, int, int]]:
        """(partner of each image, (left, top, right, bottom) of the box)."""
        partner = tuple(rng.permutation(n).tolist())
        side = math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        half_width, half_height = int(width * side) // 2, int(height * side) // 2
        x, y = int(rng.integers(width)), int(rng.integers(height))
        return partner, (max(0, x - half_width), max(0, y - half_height),
                         min(width, x + half_width), min(height, y + half_height))

    def apply(self, batch: Batch, params: tuple[Sequence[int], tuple[int, int, int, int]]) -> Batch:
        partner, (left, top, right, bottom) = np.asarray(params[0]), params[1]
        images = batch.images.copy()
        images[:, :, top:bottom, left:right] = batch.images[partner, :, top:bottom, left:right]
        height, width = images.shape[2:]
        return _mixed(batch, images, partner, np.float32(1 - (right - left) * (bottom - top) / (height * width)))


@BATCH_TRANSFORMS.register()
class OpSampler:
    """One of several mixes per batch: `OpSampler: {MixupOperator: {alpha: 0.8, prob: 0.5}, ...}`; none for the rest."""

    def __init__(self, **operators: Mapping[str, Any]):
        self.operators, self.probs = [], []
        for name, arguments in operators.items():
            arguments = dict(arguments or {})
            if name == "OpSampler" or "prob" not in arguments:
                raise ValueError(f"{name}: expected a mix with its prob, found {arguments}")
            self.probs.append(number(arguments.pop("prob")))
            self.operators.append(BATCH_TRANSFORMS.build(name, arguments, "OpSampler"))
        if not operators or min(self.probs) < 0 or sum(self.probs) > 1 + 1e-9:
            raise ValueError(f"expected probabilities that sum to 1 or less, found {self.probs}")

    def draw(self, rng: np.random.Generator, n: int, height: int, width: int) -> tuple[int, Any]:
        """(index of the operator, what it drew), or (-1, None) for none."""
        chosen = int(np.searchsorted(np.cumsum(self.probs), rng.random(), side="right"))
        if chosen == len(self.operators):
            return -1, None
        return chosen, self.operators[chosen].draw(rng, n, height, width)

    def apply(self, batch: Batch, params: tuple[int, Any]) -> Batch:
        chosen, drawn = params
        return batch if chosen < 0 else self.operators[chosen].apply(batch, drawn)


def build_mix(entries: Sequence[Mapping[str, Any]], where: str) -> Mixup | Cutmix | OpSampler | None:
    """The mix of a config's batch_transform_ops; None for an empty list. ConfigError names the key path."""
    if not entries:
        return None
    if len(entries) > 1:
        raise ConfigError(f"{where}: found {len(entries)} operators, but an image has one partner; "
                          "keep one, or let an OpSampler choose between them")
    name, arguments = one_key(entries[0], f"{where}.0")
    return BATCH_TRANSFORMS.build(name, arguments, f"{where}.0")


def check_mix(entries: Sequence[Mapping[str, Any]], where: str) -> None:
    """ConfigError when build_mix would raise one."""
    build_mix(entries, where)


def _positive(alpha: Any) -> float:
    if number(alpha) <= 0:
        raise ValueError(f"alpha: expected a number above 0, found {alpha!r}")
    return number(alpha)


def _mixed(batch: Batch, images: np.ndarray, partner: np.ndarray, share: np.float32) -> Batch:
    return replace(batch, images=images, partner_labels=batch.labels[partner],
                   share=np.full(len(batch), share, np.float32))
