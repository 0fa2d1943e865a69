"""A teacher's stored answer, the k likeliest classes and the mass of all others, made whole again for a loss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import paddle

from ..structs import SparseTargets


@dataclass(frozen=True)
class SoftTargets:
    """Stored answers on the device. How the mass outside the k classes is spread is the `tail` rule:

    uniform   evenly over the C - k other classes.
    student   in the shape of the student's own probabilities there, t_j = rest * s_j / (sum of s over the rest). The
              loss then compares k + 1 outcomes, the last one "something else".

    Under either rule t is a distribution over all C classes, the loss is exact for it, and the gradient of KL(t||s) with
    respect to the student's logits is off from the true teacher's by at most 2 * rest in L1 norm, on the other classes
    alone. What else is lost, and the bounds of symmetric KL: targets/answers.py.

    classes: int64 [N, k]. log_probs: float32 [N, k]. log_rest: float32 [N]. temperature: at which they were stored.
    """

    classes: paddle.Tensor
    log_probs: paddle.Tensor
    log_rest: paddle.Tensor
    tail: str
    temperature: float

    @classmethod
    def on_device(cls, targets: SparseTargets, tail: str, temperature: float) -> SoftTargets:
        return cls(paddle.to_tensor(targets.classes, dtype="int64"), paddle.to_tensor(targets.log_probs),
                   paddle.to_tensor(targets.log_rest), tail, temperature)

    @property
    def best(self) -> paddle.Tensor:
        """int64 [N], the teacher's best class."""
        return self.classes[:, 0]

    @paddle.no_grad()
    def logits_for(self, student_logits: paddle.Tensor) -> paddle.Tensor:
        """float32 [N, C] whose softmax at `temperature` is the stored answer, completed by the tail rule; a constant.

        student_logits: [N, C], of the network that the answer is compared with.
        """
        with paddle.amp.auto_cast(enable=False):
            log_t = self._completed(student_logits.detach().astype("float64") / self.temperature)
            return (self.temperature * log_t).astype("float32")

    def _completed(self, log_s: paddle.Tensor) -> paddle.Tensor:
        """log t, float64 [N, C]; log_s: the student's log-probabilities up to a constant per row."""
        known = self.log_probs.astype("float64")
        if self.classes.shape[-1] == log_s.shape[-1]:
            return paddle.put_along_axis(log_s, self.classes, known, axis=1)
        shape = log_s if self.tail == "student" else paddle.zeros_like(log_s)
        others = paddle.put_along_axis(shape, self.classes, paddle.full_like(known, -math.inf), axis=1)
        highest = others.max(-1, keepdim=True)
        total = highest + paddle.log(paddle.exp(others - highest).sum(-1, keepdim=True))
        log_rest = self.log_rest.astype("float64").unsqueeze(-1)
        return paddle.put_along_axis(shape - total + log_rest, self.classes, known, axis=1)
