"""Mixup and Cutmix: each image with one partner, of the same batch or, for stored targets, of the whole list.

A mix is split like a random transform: `draw(rng, height, width)` gives plain numbers, `blend(images, others, drawn)`
does the same for the same numbers. Labels are not blended into vectors: a Batch keeps both labels and the share of the
first, and UNLABELLED stays so.
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
Box = tuple[int, int, int, int]  # left, top, right, bottom


@BATCH_TRANSFORMS.register("Mixup", "MixupOperator")
class Mixup:
    """Blend each image with its partner; the share is drawn from Beta(alpha, alpha), one for the batch.

    arXiv 1710.09412 in PaddleClas's form (batch_operators.py).
    """

    makes_floats = True

    def __init__(self, alpha: Any = 1.0):
        self.alpha = _positive(alpha)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> float:
        """Share of the image itself."""
        return float(rng.beta(self.alpha, self.alpha))

    def blend(self, images: np.ndarray, others: np.ndarray, drawn: float) -> tuple[np.ndarray, np.float32]:
        """(images, share of the first); float32 [N, 3, H, W]."""
        share = np.float32(drawn)
        others = others * (1 - share)
        others += share * images
        return others, share


@BATCH_TRANSFORMS.register("Cutmix", "CutmixOperator")
class Cutmix:
    """Paste a random box of its partner into each image; the share is what the box leaves, one for the batch.

    arXiv 1905.04899 in PaddleClas's form (batch_operators.py): 1 - share ~ Beta(alpha, alpha) before clipping.
    """

    makes_floats = False

    def __init__(self, alpha: Any = 0.2):
        self.alpha = _positive(alpha)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> Box:
        side = math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        half_width, half_height = int(width * side) // 2, int(height * side) // 2
        x, y = int(rng.integers(width)), int(rng.integers(height))
        return (max(0, x - half_width), max(0, y - half_height),
                min(width, x + half_width), min(height, y + half_height))

    def blend(self, images: np.ndarray, others: np.ndarray, drawn: Box) -> tuple[np.ndarray, np.float32]:
        """(images, share of the first); float32 [N, 3, H, W] or uint8 [N, H, W, 3]."""
        left, top, right, bottom = drawn
        images = images.copy()
        rows, columns = slice(top, bottom), slice(left, right)
        box = (slice(None), rows, columns) if images.dtype == np.uint8 else (..., rows, columns)
        images[box] = others[box]
        height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:]
        return images, np.float32(1 - (right - left) * (bottom - top) / (height * width))


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
        self.makes_floats = any(operator.makes_floats for operator in self.operators)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> tuple[int, Any] | None:
        """(index of the operator, what it drew), or None for none."""
        chosen = int(np.searchsorted(np.cumsum(self.probs), rng.random(), side="right"))
        if chosen == len(self.operators):
            return None
        return chosen, self.operators[chosen].draw(rng, height, width)

    def blend(self, images: np.ndarray, others: np.ndarray, drawn: tuple[int, Any]) -> tuple[np.ndarray, np.float32]:
        return self.operators[drawn[0]].blend(images, others, drawn[1])


Mix = Mixup | Cutmix | OpSampler


def mix_batch(mix: Mix, batch: Batch, rng: np.random.Generator) -> Batch:
    """Each image with a partner of the batch, all with the same share; the batch itself where the mix draws none."""
    height, width = batch.images.shape[1:3] if batch.images.dtype == np.uint8 else batch.images.shape[2:]
    partner = rng.permutation(len(batch))
    drawn = mix.draw(rng, height, width)
    if drawn is None:
        return batch
    images, share = mix.blend(batch.images, batch.images[partner], drawn)
    return replace(batch, images=images, partner_labels=batch.labels[partner],
                   share=np.full(len(batch), share, np.float32))


def build_mix(entries: Sequence[Mapping[str, Any]], where: str) -> Mix | None:
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
