"""What the steps since the last row of the log took, and whether their losses are finite."""

from __future__ import annotations

import math
import time
from collections import deque

import numpy as np

from ..errors import DivergedError
from ..structs import Batch
from .step import StepResult


class Window:
    """Time and losses since the last row. images: of this rank."""

    def __init__(self):
        self._losses: deque[tuple[int, np.ndarray, dict]] = deque()
        self.run_steps = 0
        self.clear()

    def add(self, step: int, group: list[Batch], result: StepResult, data_s: float) -> None:
        self._losses.append((step, np.concatenate([b.sample_ids for b in group]), result.losses))
        self.run_steps += 1
        self.images += sum(len(b) for b in group)
        self.data_s += data_s
        self.teacher_s += result.teacher_s
        self.student_s += result.student_s

    def check(self) -> None:
        """Raise DivergedError for the first loss that is not finite; waits for the device, on the student's time."""
        start = time.perf_counter()
        while self._losses:
            step, ids, losses = self._losses.popleft()
            values = {name: value.item() for name, value in losses.items()}
            if not all(math.isfinite(v) for v in values.values()):
                raise DivergedError(f"step {step}: loss is not finite: {values}; sample ids of this rank: "
                                    f"{ids.tolist()}. A lower learning rate, clip_norm or a longer warm-up may help; "
                                    "the last checkpoint is from before")
        self.student_s += time.perf_counter() - start

    def clear(self) -> None:
        self.images = 0
        self.data_s = self.teacher_s = self.student_s = 0.0
