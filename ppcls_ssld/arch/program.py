"""A live network -> the program files that Paddle Inference loads."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext

import paddle

from .build import logits_of


class _LogitsOnly(paddle.nn.Layer):
    def __init__(self, network: paddle.nn.Layer):
        super().__init__()
        self.network = network

    def forward(self, images):
        return logits_of(self.network(images))


def can_write_pir() -> bool:
    """True when this Paddle writes `.json` programs (3.x); 2.6 writes only `.pdmodel`."""
    return hasattr(paddle, "pir_utils") and hasattr(paddle.pir_utils, "OldIrGuard")


def save_program(network: paddle.nn.Layer, prefix: str, image_shape: Sequence[int], legacy: bool = False,
                 head: paddle.nn.Layer | None = None) -> None:
    """Write `prefix.json` (or `prefix.pdmodel`) and `prefix.pdiparams` for input float32 [N, *image_shape].

    The program is the network in evaluation mode, returning logits [N, C], or what `head` makes of them. A copy is
    traced, so the live network keeps its mode, its parameters and its eager forward. legacy: `.pdmodel` on Paddle 3
    too, for Paddle Inference 2.x, Lite and other converters.
    """
    layers = [_LogitsOnly(copy.deepcopy(network))] + ([head] if head is not None else [])
    traced = paddle.nn.Sequential(*layers) if head is not None else layers[0]
    traced.eval()
    spec = [paddle.static.InputSpec([None, *image_shape], "float32", name="x")]
    guard = paddle.pir_utils.OldIrGuard() if legacy and can_write_pir() else nullcontext()
    with guard:
        paddle.jit.save(paddle.jit.to_static(traced, input_spec=spec, full_graph=True), prefix)
