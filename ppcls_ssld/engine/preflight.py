"""Before the first step: are there labels for a loss that reads them, and does the teacher know what it is to teach?"""

from __future__ import annotations

import math

import numpy as np

from .. import parallel
from ..arch import Teacher, logits_of, on_device
from ..config.schema import RunConfig
from ..data import TrainReader
from ..errors import ConfigError, WeightsError
from ..loss import CombinedLoss
from ..metric import countable
from ..structs import Batch
from .evaluate import SHOWN, EvalResult, eval_reader, score


def check_labels(loss: CombinedLoss, reader: TrainReader, config: RunConfig) -> str | None:
    """A sentence about the labels (of several an image) that a loss reads and Train never knows; None without any.

    Raises ConfigError when a loss reads labels and no image of Train has a known one.
    """
    if not loss.needs_labels:
        return None
    known = any((images.labels >= 0).any() for images in reader.lists) if reader.known is None else reader.known.any()
    if not known:
        terms = ", ".join(term.name for term in loss.terms if term.needs_labels)
        sources = "; ".join(f"'{source.name}' has {'labels that say nothing' if source.labelled else 'labelled: false'}"
                            for source in config.DataLoader.Train.sources)
        raise ConfigError(f"Loss.Train: {terms} would learn from labels, and no image of DataLoader.Train has a known "
                          f"one ({sources}). Give a source with labels, or leave this loss out")
    if reader.known is None or reader.known.any(0).all():
        return None
    never = np.flatnonzero(~reader.known.any(0))
    return (f"DataLoader.Train: {len(never)} of {reader.known.shape[1]} attributes are known of no image, so labels "
            f"teach nothing of them: number {', '.join(map(str, never))} (from 0)")


def check_teacher(teacher: Teacher, config: RunConfig) -> EvalResult | None:
    """Score the teacher on a slice of the Eval list; None when there is no list, no images are asked for, or nothing
    can be counted on them (several labels an image).

    Raises WeightsError for a teacher at chance level (within three standard deviations of guessing, for the number
    of images scored), unless `Global.allow_chance_teacher` is set.
    """
    limit = config.Global.teacher_check_images
    if config.DataLoader.Eval is None or limit == 0:
        return None

    def forward(batch: Batch) -> np.ndarray:
        return logits_of(teacher(on_device(batch))).astype("float32").numpy()

    reader = eval_reader(config, limit)
    several = reader.known is not None
    if several and not countable(reader.known).any():
        return None
    result = score(forward, reader, config)
    if several:
        chance, bound = 0.5, attribute_bound(reader.known)
    else:
        chance, bound = 1 / config.Arch.class_num, chance_bound(config.Arch.class_num, result.images)
    if result.main <= bound and not config.Global.allow_chance_teacher:
        raise WeightsError(
            f"Arch.{teacher.role}: the teacher's {SHOWN[result.name]} is {result.main:.2%} on {result.images} images, "
            f"guessing gives {chance:.2%}. Its weights, its class order or its input (mean, std, size) are not "
            "those it was trained with. Check them, or set Global.allow_chance_teacher=true to go on")
    return result


def chance_bound(class_num: int, images: int) -> float:
    """Top-1 in [0, 1) that guessing exceeds once in about 700 trials: mean + 3 standard deviations, below 1."""
    p = 1 / class_num
    return min(p + 3 * math.sqrt(p * (1 - p) / images), 1 - 0.5 / images)


def attribute_bound(known: np.ndarray) -> float:
    """`ma` in [0, 1) that guessing exceeds once in about 700 trials: 0.5 + 3 standard deviations, below 1.

    known: int [2, C], images whose label is known to be no, and yes. Guesses of different attributes count as
    independent, of an attribute's images too; at worst they are yes half the time.
    """
    known = known[:, countable(known)]
    deviation = math.sqrt((1 / known).sum()) / 4 / known.shape[1]
    return min(0.5 + 3 * deviation, 1 - 0.25 / known.size / int(known.max()))


def describe(teacher: Teacher, result: EvalResult | None) -> str:
    """The line about a teacher in the log."""
    known = f"{result} of the Eval list" if result else "accuracy not checked"
    return f"{teacher.role}: {known}; engine {teacher.engine} ({teacher.reason}); {parallel.world_size()} process(es)"
