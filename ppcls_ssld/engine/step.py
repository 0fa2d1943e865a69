"""The training step: everything that happens between a batch and new weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import paddle

from .. import parallel
from ..arch import logits_of, on_device
from ..loss import SoftTargets, labelled_mask
from ..rng import framework_seed
from ..structs import Batch
from .task import DistillationTask


@dataclass(frozen=True)
class StepResult:
    """One optimiser step of this rank. Tensors stay on the device until somebody wants the numbers.

    losses: scalars by name; their mean over ranks is the mean over the global batch. agreement: bool [N], where the
    student's best class is the teacher's (last micro-step), or bool [N, C], where its yes or no to each of several
    labels is; None without a teacher.
    """

    losses: dict[str, paddle.Tensor]
    agreement: paddle.Tensor | None
    stop: bool  # some rank was asked to stop
    teacher_s: float
    student_s: float


class TrainStep:
    """One optimiser step over `update_freq` micro-batches; called with the step's number, counted from 0."""

    def __init__(self, task: DistillationTask, optimizer: paddle.optimizer.Optimizer,
                 scaler: paddle.amp.GradScaler | None, schedule: Callable[[int], float], seed: int):
        self._task = task
        self._optimizer = optimizer
        self._scaler = scaler
        self._schedule = schedule
        self._seed = seed

    def __call__(self, step: int, batches: Sequence[Batch], stop_asked: bool = False) -> StepResult:
        # Dropout and the like draw from a generator that depends on nothing but where we are: exact resume.
        paddle.seed(framework_seed(self._seed, step, parallel.rank()))
        n_all, n_labelled, stop = self._counts(batches, stop_asked)
        losses: dict[str, paddle.Tensor] = {}
        teacher_s = student_s = 0.0
        for i, batch in enumerate(batches):
            last = i == len(batches) - 1
            t0 = time.perf_counter()
            images = on_device(batch)
            taught = self._task.teach(batch, images)
            t1 = time.perf_counter()
            if last:
                parts, logits = self._backward(batch, images, taught, n_all, n_labelled)
            else:
                with self._task.no_sync():
                    parts, logits = self._backward(batch, images, taught, n_all, n_labelled)
            for name, value in parts.items():
                losses[name] = losses[name] + value.detach() if name in losses else value.detach()
            teacher_s += t1 - t0
            student_s += time.perf_counter() - t1
        t2 = time.perf_counter()
        self.update(step)
        agreement = _agreement(logits, taught, self._task.multilabel)
        return StepResult(losses, agreement, stop, teacher_s, student_s + time.perf_counter() - t2)

    def _backward(self, batch, images, taught, n_all, n_labelled):
        parts, logits = self._task.losses(batch, images, taught, n_all, n_labelled)
        (self._scaler.scale(parts["loss"]) if self._scaler else parts["loss"]).backward()
        return parts, logits

    def update(self, step: int) -> None:
        """One optimiser step with the gradients that are there, at the rate of step `step`."""
        self._optimizer.set_lr(self._schedule(step))
        if self._scaler:
            self._scaler.step(self._optimizer)
            self._scaler.update()
        else:
            self._optimizer.step()
        self._optimizer.clear_grad()
        if self._task.ema:
            self._task.ema.update(step + 1)

    def _counts(self, batches: Sequence[Batch], stop_asked: bool) -> tuple[float, float, bool]:
        """Images and labelled images of the whole step per rank on average, and whether any rank must stop.

        Dividing every rank's sums by these makes the average of the ranks' gradients the gradient of the mean over
        the global batch, also when ranks hold different numbers of labelled images.
        """
        n_all = sum(len(b) for b in batches)
        n_labelled = sum(int(np.sum(labelled_mask(b.labels, b.partner_labels))) for b in batches)
        if parallel.world_size() == 1:
            return float(n_all), float(n_labelled), stop_asked
        total = parallel.sum_(paddle.to_tensor([n_all, n_labelled, stop_asked], dtype="float32")).numpy()
        world = parallel.world_size()
        return float(total[0]) / world, float(total[1]) / world, bool(total[2] > 0)


def _agreement(logits: paddle.Tensor, taught: dict, multilabel: bool) -> paddle.Tensor | None:
    if not taught:
        return None
    answer = next(iter(taught.values()))
    if multilabel and not isinstance(answer, SoftTargets):
        return (logits.detach() > 0) == (logits_of(answer) > 0)
    best = answer.best if isinstance(answer, SoftTargets) else logits_of(answer).argmax(axis=-1)
    return logits.detach().argmax(axis=-1) == best
