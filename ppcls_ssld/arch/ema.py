"""Exponential moving average of a network's weights."""

from __future__ import annotations

from contextlib import contextmanager

import paddle

from .weights import assign


class Ema:
    """shadow = decay * shadow + (1 - decay) * weights after each step, in float32.

    Running statistics of batch norm are themselves averages: they are taken over as they are. Early steps use the
    smaller of `decay` and (1 + step) / (10 + step), so that the average does not remember the initial weights.
    """

    def __init__(self, network: paddle.nn.Layer, decay: float):
        self._network = network
        self._decay = decay
        self.shadow = {name: value.detach().clone() for name, value in network.state_dict().items()}
        # Paddle counts running statistics among the parameters; what tells them apart is that nothing trains them.
        self._averaged = {name for name, p in network.named_parameters() if not p.stop_gradient}

    @paddle.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimiser step `step` (counted from 1)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in self._network.state_dict().items():
            if name in self._averaged:
                mean = self.shadow[name]
                mean.set_value(mean * decay + value.astype(mean.dtype) * (1.0 - decay))
        self.take_statistics()

    @paddle.no_grad()
    def take_statistics(self) -> None:
        """Take over what is not averaged: running statistics that changed outside a step."""
        for name, value in self._network.state_dict().items():
            if name not in self._averaged:
                self.shadow[name].set_value(value)

    @contextmanager
    def applied(self):
        """The network holds the averaged weights inside this context, its own again afterwards."""
        own = {name: value.detach().clone() for name, value in self._network.state_dict(use_hook=False).items()}
        assign(self._network, self.shadow)
        try:
            yield self._network
        finally:
            assign(self._network, own)
