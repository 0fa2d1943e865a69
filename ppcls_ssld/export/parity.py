"""The proof that an exported network is the network: same numbers on the same images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable

import numpy as np
import paddle

from ..arch import logits_of
from ..atomic import write_atomic
from ..errors import DataError
from .inference_yml import ADVICE
from .paddle_inference import PROOF

LOG_FLOOR = -60.0  # Paddle's CPU softmax stops at e^-64; below this, both sides count as equal
LOGIT_CEILING = 7.0  # of a sigmoid, whose float32 answers to greater logits are too close to 1; equal above it too
TIE = 1e-6  # two logits this close, relative to their size (at least 1), may come out in either order
UNDECIDED = 1e-5  # and a logit this close to 0, relative to the largest of its image, on either side of it


@dataclass(frozen=True)
class ParityReport:
    """What one exported program makes of real images, beside the network it came from.

    max_abs_diff: largest difference of a logit. max_rel_diff: the same, as a share of the largest logit (at least 1).
    flips: images whose most likely class differs, or attributes of an image on whose yes or no (at 0.5) they differ;
        ties within float32 do not count. source: which images were used.
    """

    images: int
    max_abs_diff: float
    max_rel_diff: float
    flips: int
    source: str = ""

    def passed(self, max_rel_diff: float = 1e-4, max_flips: int = 0) -> bool:
        return self.max_rel_diff <= max_rel_diff and self.flips <= max_flips  # False for NaN

    def summary(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return (f"parity on {self.images} images{source}: largest difference {self.max_abs_diff:.1e} "
                f"({self.max_rel_diff:.1e} of the largest logit), {self.flips} flips")


def write_parity(folder: str | os.PathLike, reports: Mapping[str, ParityReport]) -> Path:
    """`folder/parity.json`: program file -> its report, atomically."""
    tree = {program: {**asdict(report), "passed": report.passed()} for program, report in reports.items()}
    return write_atomic(Path(folder) / PROOF, json.dumps(tree, indent=1) + "\n", advice=ADVICE)


def parity_report(network: paddle.nn.Layer, engine: Callable[[np.ndarray], np.ndarray], batches: Iterable[np.ndarray],
                  head: str | None = "softmax", source: str = "") -> ParityReport:
    """Compare the eager network (in evaluation mode; its own mode comes back) with an engine on the same images.

    batches: float32 [N, 3, H, W]. head: what the engine gives, as in export_network. The logarithm of a softmax
    stands for its logits, which differ from it by a constant per image; a sigmoid is turned back into them.
    DataError when there is no image.
    """
    images, flips, worst, scale = 0, 0, 0.0, 0.0
    with _evaluating(network), paddle.no_grad():
        for batch in batches:
            expected = logits_of(network(paddle.to_tensor(batch))).numpy().astype(np.float64)
            found = engine(batch).astype(np.float64)
            images += len(batch)
            scale = max(scale, float(np.abs(expected).max()))
            if head == "sigmoid":
                flips += _turned(expected, found >= 0.5)
                expected, found = np.clip(expected, LOG_FLOOR, LOGIT_CEILING), _logits(found)
            else:
                flips += _flips(expected, found.argmax(axis=1))
            if head == "softmax":
                expected = np.maximum(_log_softmax(expected), LOG_FLOOR)
                found = np.log(np.maximum(found, np.exp(LOG_FLOOR)))
            worst = float(np.maximum(worst, np.abs(expected - found).max()))  # keeps a NaN, which max() may drop
    if not images:
        raise DataError("parity: no image to compare the exported network on")
    return ParityReport(images, worst, worst / max(scale, 1.0), flips, source)


def _flips(logits: np.ndarray, chosen: np.ndarray) -> int:
    """Images for which a class was chosen that is less likely than the best, by more than rounding."""
    best = logits.max(axis=1)
    lost = best - np.take_along_axis(logits, chosen[:, None], axis=1)[:, 0]
    return int((lost > TIE * np.maximum(1.0, np.abs(best))).sum())


def _turned(logits: np.ndarray, yes: np.ndarray) -> int:
    """Answers that are not those of the logits, by more than rounding."""
    largest = np.abs(logits).max(axis=1, keepdims=True)
    return int(((yes != (logits >= 0)) & (np.abs(logits) > UNDECIDED * np.maximum(1.0, largest))).sum())


def _logits(sigmoids: np.ndarray) -> np.ndarray:
    """From LOG_FLOOR to LOGIT_CEILING."""
    bounded = np.clip(sigmoids, np.exp(LOG_FLOOR), 1 / (1 + np.exp(-LOGIT_CEILING)))
    return np.log(bounded) - np.log1p(-bounded)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


@contextmanager
def _evaluating(network: paddle.nn.Layer):
    """Evaluation mode for every layer, and each layer's own mode afterwards."""
    layers = network.sublayers(include_self=True)
    modes = [layer.training for layer in layers]
    network.eval()
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes):
            layer.training = mode
