"""Train, evaluate, freeze: the modes of a network, said explicitly.

Paddle's `Layer.train()` sets `.training` on every sub-layer directly and never calls a child's own `train()`, so a
mode is something that is done to a network from outside, and done again after every evaluation.
"""

from __future__ import annotations

from collections.abc import Iterator

import paddle

_NORMS = (paddle.nn.BatchNorm1D, paddle.nn.BatchNorm2D, paddle.nn.BatchNorm3D, paddle.nn.BatchNorm,
          paddle.nn.SyncBatchNorm)


def batch_norms(network: paddle.nn.Layer) -> Iterator[paddle.nn.Layer]:
    return (layer for layer in network.sublayers(include_self=True) if isinstance(layer, _NORMS))


def train_mode(network: paddle.nn.Layer, bn_mode: str) -> None:
    """Everything in training mode; bn_mode 'eval' keeps batch norm on its running statistics."""
    network.train()
    if bn_mode == "eval":
        for layer in batch_norms(network):
            layer.eval()


def freeze(network: paddle.nn.Layer, bn_mode: str) -> None:
    """A teacher that nothing can change: no gradients, dropout off, running statistics never written.

    bn_mode 'batch_stats' normalises with the statistics of the batch at hand, as PaddleClas's distillation does by
    leaving its teacher in training mode (76.00 against 75.84 top-1 with 'eval', its Chinese distillation document,
    section 3.4.1). Momentum 1.0 makes batch norm leave its running statistics alone.
    """
    network.eval()
    for parameter in network.parameters():
        parameter.stop_gradient = True
    if bn_mode == "batch_stats":
        for layer in batch_norms(network):
            layer._momentum = 1.0
            layer.training = True
