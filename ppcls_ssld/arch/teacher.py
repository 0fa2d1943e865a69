"""The frozen teacher: one question, "what do you make of these images?", two engines that answer it.

eager       the Paddle layer itself. Serves every case; the only one for bn_mode batch_stats and for feature taps.
inference   the same network as a Paddle Inference program (oneDNN on CPU). 5-8 times faster on CPU than eager.

A teacher is not a sub-layer of anything that is trained: it stays out of state dicts, optimisers and `train()`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import paddle

from ..config.schema import NetworkConfig
from ..errors import ConfigError
from ..inference import InferenceEngine
from .build import Outputs, build_network, logits_of
from .cpu import fast_on_cpu
from .modes import freeze
from .program import save_program
from .weights import LoadReport, initialise

PARITY = 1e-4  # largest difference between the engines, relative to the largest logit (at least 1)


class Teacher:
    """A frozen network that answers with detached outputs.

    engine: "eager" or "inference", as chosen. reason: why, for the log.
    """

    def __init__(self, role: str, network: paddle.nn.Layer, engine: InferenceEngine | None, reason: str,
                 image_shape: Sequence[int]):
        self.role = role
        self.network = network
        self.engine = "inference" if engine else "eager"
        self.reason = reason
        self._program = engine
        self._image_shape = tuple(image_shape)

    @paddle.no_grad()
    def __call__(self, images: paddle.Tensor | np.ndarray) -> paddle.Tensor | Outputs:
        """Outputs for float32 images [N, 3, H, W], on the device or on the host; no gradient.

        Returns logits [N, C], or a dict with "logits" and taps.
        """
        if self._program is None:
            return self.network(paddle.to_tensor(images))
        if tuple(images.shape[1:]) != self._image_shape:
            raise ConfigError(f"Global.image_shape is {list(self._image_shape)}, but the transforms give images of "
                              f"{list(images.shape[1:])}; make them agree, or set Arch.{self.role}.engine: eager")
        return paddle.to_tensor(self._program(np.asarray(images)))


def build_teacher(config: NetworkConfig, class_num: int, image_shape: Sequence[int], device: str,
                  taps: Iterable[str] = (), threads: int | None = None, fast_cpu: bool = False
                  ) -> tuple[Teacher, LoadReport | None]:
    """A loaded, frozen network with the engine that `config.engine` asks for; auto picks and says why.

    threads: of the inference engine on CPU; None = its own default. fast_cpu: an eager network computes as in cpu.py.
    """
    network = build_network(config, class_num, taps)
    report = initialise(network, config)
    freeze(network, config.bn_mode)
    engine, reason = _choose_engine(config, network, image_shape, device, bool(taps), threads)
    if fast_cpu and engine is None:
        fast_on_cpu(network)
    return Teacher(config.role, network, engine, reason, image_shape), report


def _choose_engine(config: NetworkConfig, network: paddle.nn.Layer, image_shape: Sequence[int], device: str,
                   has_taps: bool, threads: int | None) -> tuple[InferenceEngine | None, str]:
    where = f"Arch.{config.role}.engine"
    has_taps = has_taps or bool(config.arguments.get("return_patterns") or config.arguments.get("return_stages"))
    barred = ("bn_mode batch_stats needs the statistics of each batch" if config.bn_mode == "batch_stats" else
              "feature taps come from the layers themselves" if has_taps else None)
    if config.engine == "eager":
        return None, "as configured"
    if config.engine == "inference" and barred:
        raise ConfigError(f"{where}: inference is impossible here: {barred}; use engine: eager, or bn_mode: eval")
    if barred:
        return None, barred
    if config.engine == "auto" and not device.startswith("cpu"):
        # On an accelerator the eager network shares AMP and the stream of the student; the engine would not.
        return None, f"auto on {device}; engine: inference is there for the asking"
    with tempfile.TemporaryDirectory(prefix="teacher_") as folder:
        prefix = os.path.join(folder, "inference")
        save_program(network, prefix, image_shape)
        engine = InferenceEngine(prefix, device=device, threads=threads)
        # In here, because an engine may fall back to other kernels, and read its files again, at its first run.
        difference = _difference(network, engine, image_shape)
    if difference <= PARITY:
        return engine, f"largest difference from eager {difference:.1e} of the largest logit"
    if config.engine == "inference":
        raise ConfigError(f"{where}: the inference program differs from the network by {difference:.1e} of the largest "
                          f"logit, allowed are {PARITY:.0e}; use engine: eager")
    return None, f"the inference program differs by {difference:.1e} of the largest logit, allowed are {PARITY:.0e}"


@paddle.no_grad()
def _difference(network: paddle.nn.Layer, engine: InferenceEngine, image_shape: Sequence[int]) -> float:
    images = np.random.default_rng(0).standard_normal((4, *image_shape)).astype(np.float32)
    eager = logits_of(network(paddle.to_tensor(images))).numpy()
    return float(np.abs(engine(images) - eager).max() / max(1.0, np.abs(eager).max()))
