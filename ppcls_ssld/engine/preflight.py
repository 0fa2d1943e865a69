"""Before the first step: does the teacher know the classes it is going to teach?"""

from __future__ import annotations

import math

import numpy as np

from .. import parallel
from ..arch import Teacher, logits_of, on_device
from ..config.schema import RunConfig
from ..errors import WeightsError
from ..structs import Batch
from .evaluate import EvalResult, eval_reader, score


def check_teacher(teacher: Teacher, config: RunConfig) -> EvalResult | None:
    """Score the teacher on a slice of the Eval list; None when there is no list or no images are asked for.

    Raises WeightsError for a teacher at chance level (within three standard deviations of guessing, for the number
    of images scored), unless `Global.allow_chance_teacher` is set.
    """
    limit = config.Global.teacher_check_images
    if config.DataLoader.Eval is None or limit == 0:
        return None

    def forward(batch: Batch) -> np.ndarray:
        return logits_of(teacher(on_device(batch))).astype("float32").numpy()

    result = score(forward, eval_reader(config, limit), config)
    if result.top1 <= chance_bound(config.Arch.class_num, result.images) and not config.Global.allow_chance_teacher:
        raise WeightsError(
            f"Arch.{teacher.role}: the teacher's top-1 is {result.top1:.2%} on {result.images} images, guessing gives "
            f"{1 / config.Arch.class_num:.2%}. Its weights, its class order or its input (mean, std, size) are not "
            "those it was trained with. Check them, or set Global.allow_chance_teacher=true to go on")
    return result


def chance_bound(class_num: int, images: int) -> float:
    """Top-1 in [0, 1) that guessing exceeds once in about 700 trials: mean + 3 standard deviations, below 1."""
    p = 1 / class_num
    return min(p + 3 * math.sqrt(p * (1 - p) / images), 1 - 0.5 / images)


def describe(teacher: Teacher, result: EvalResult | None) -> str:
    """The line about a teacher in the log."""
    known = f"top-1 {result.top1:.2%} on {result.images} images of the Eval list" if result else "accuracy not checked"
    return f"{teacher.role}: {known}; engine {teacher.engine} ({teacher.reason}); {parallel.world_size()} process(es)"
