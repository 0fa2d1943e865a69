"""Several teachers that answer as one: the weighted mean of their probabilities."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import paddle

from ..config.schema import NetworkConfig
from ..errors import ConfigError
from .build import logits_of
from .teacher import Teacher, build_teacher
from .weights import LoadReport

_TINY = 1e-300  # below every probability that a float32 logit can tell from 0


class Ensemble:
    """Frozen networks in the place of one Teacher.

    weights: positive, of any sum. engine, reason: the members', for the log.
    """

    def __init__(self, role: str, members: Sequence[Teacher], weights: Sequence[float]):
        self.role, self.members = role, tuple(members)
        self.weights = [weight / sum(weights) for weight in weights]
        self.engine = "+".join(dict.fromkeys(member.engine for member in members))
        self.reason = "; ".join(f"{member.role}: {member.reason}" for member in members)

    @paddle.no_grad()
    def __call__(self, images: paddle.Tensor | np.ndarray) -> paddle.Tensor:
        """Log-probabilities float32 [N, C] of the mixture, for float32 images [N, 3, H, W]; they serve as logits."""
        with paddle.amp.auto_cast(enable=False):
            mixture = sum(weight * _probabilities(logits_of(member(images)))
                          for member, weight in zip(self.members, self.weights))
            return paddle.log(mixture.clip(min=_TINY)).astype("float32")


def build_frozen(config: NetworkConfig, class_num: int, image_shape: Sequence[int], device: str,
                 taps: Iterable[str] = (), fast_cpu: bool = False
                 ) -> tuple[Teacher | Ensemble, dict[str, LoadReport | None]]:
    """What `config`, a frozen role, stands for, and by role what each weights file gave. fast_cpu: see build_teacher.

    Raises ConfigError for feature taps of an Ensemble, which has none.
    """
    if not config.members:
        teacher, report = build_teacher(config, class_num, image_shape, device, taps, fast_cpu=fast_cpu)
        return teacher, {config.role: report}
    if taps:
        raise ConfigError(f"Arch.{config.role}: a loss reads its features ({', '.join(taps)}), but an Ensemble has "
                          "only probabilities; distil features from one teacher")
    built = [build_teacher(member, class_num, image_shape, device, fast_cpu=fast_cpu) for member in config.members]
    ensemble = Ensemble(config.role, [teacher for teacher, _ in built], [member.weight for member in config.members])
    return ensemble, {teacher.role: report for teacher, report in built}


def _probabilities(logits: paddle.Tensor) -> paddle.Tensor:
    """float64 softmax; Paddle's own clips at 64 below the maximum on CPU."""
    scores = paddle.exp(logits.astype("float64") - logits.astype("float64").max(-1, keepdim=True))
    return scores / scores.sum(-1, keepdim=True)
