"""A trained backbone as a function from images to feature vectors: the classifier taken off, the rest frozen."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence

import numpy as np
import paddle

from ..config.schema import NetworkConfig
from ..errors import ConfigError
from ..inference import InferenceEngine
from .build import build_network
from .modes import freeze
from .program import save_program
from .weights import class_num_of, head_keys, initialise

_ANY = 1000  # classes of the network whose classifier is only looked at


def known_class_num(config: NetworkConfig) -> int:
    """Classes that the weights of `config` were trained for; 1000 for PaddleClas's released weights."""
    if not config.pretrained or config.pretrained is True or "://" in str(config.pretrained):
        return _ANY
    return class_num_of(build_network(config, _ANY), str(config.pretrained), config.role)


def build_embedder(config: NetworkConfig, image_shape: Sequence[int], device: str,
                   threads: int | None = None) -> Callable[[np.ndarray], np.ndarray]:
    """float32 images [N, 3, H, W] -> float32 features [N, D], what the classifier of `config` would be given.

    Runs as a Paddle Inference program. ConfigError for a network whose last layer is no Linear.
    """
    network = build_network(config, known_class_num(config))
    initialise(network, config)
    freeze(network, "eval")
    path = head_keys(network)[0].rpartition(".")[0]
    parent, _, name = path.rpartition(".")
    owner = dict(network.named_sublayers(include_self=True))[parent]
    if not isinstance(getattr(owner, name), paddle.nn.Linear):
        raise ConfigError(f"{config.name}: its classifier '{path}' is a {type(getattr(owner, name)).__name__}; "
                          "features are taken before a Linear, so choose another backbone")
    setattr(owner, name, paddle.nn.Identity())
    with tempfile.TemporaryDirectory(prefix="embedder_") as folder:
        prefix = os.path.join(folder, "inference")
        save_program(network, prefix, image_shape)
        engine = InferenceEngine(prefix, device=device, threads=threads)
        engine(np.zeros((1, *image_shape), np.float32))  # it may read its files again at its first run
    return engine
