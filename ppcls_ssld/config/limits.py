"""Ranges and choices of the schema's fields, in one table."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .schema import (BN_MODES, ENGINES, AmpConfig, ArchConfig, EmaConfig, GlobalConfig, InferConfig, LoaderConfig,
                     MetricConfig, NetworkConfig, OptimizerConfig, SourceConfig)

_DEVICE = re.compile(r"(cpu|gpu|xpu|npu|mlu|gcu|dcu|mps|ascend|intel_gpu|iluvatar_gpu|metax_gpu)(:\d+)?")


@dataclass(frozen=True)
class Limit:
    """What a value of the right type must satisfy; text completes 'expected ...'."""

    text: str
    allows: Callable[[Any], bool]


def one_of(*names: str | int) -> Limit:
    return Limit("one of " + ", ".join(map(str, names)), lambda v: v in names)


POSITIVE_INTEGER = Limit("a positive integer", lambda v: v > 0)
NOT_NEGATIVE_INTEGER = Limit("0 or a positive integer", lambda v: v >= 0)
POSITIVE = Limit("a positive number", lambda v: v > 0)
NOT_NEGATIVE = Limit("0 or a positive number", lambda v: v >= 0)
NOT_EMPTY = Limit("text that is not empty", lambda v: v != "")

LIMITS: dict[type, dict[str, Limit]] = {
    GlobalConfig: {
        "output_dir": NOT_EMPTY,
        "device": Limit("cpu, gpu, gpu:N, xpu or another device of Paddle", _DEVICE.fullmatch),
        "seed": NOT_NEGATIVE_INTEGER,
        "epochs": POSITIVE_INTEGER,
        "max_steps": POSITIVE_INTEGER,
        "update_freq": POSITIVE_INTEGER,
        "print_batch_step": POSITIVE_INTEGER,
        "image_shape": Limit("three positive integers [3, height, width]", lambda v: v[0] == 3 and min(v) > 0),
        "save_interval": POSITIVE_INTEGER,
        "save_steps": POSITIVE_INTEGER,
        "keep_checkpoints": POSITIVE_INTEGER,
        "eval_interval": POSITIVE_INTEGER,
        "start_eval_epoch": NOT_NEGATIVE_INTEGER,
        "teacher_check_images": NOT_NEGATIVE_INTEGER,
        "targets": NOT_EMPTY,
    },
    ArchConfig: {"class_num": POSITIVE_INTEGER},
    NetworkConfig: {
        "name": NOT_EMPTY,
        "bn_mode": one_of(*BN_MODES),
        "engine": one_of(*ENGINES),
        "output_stride": one_of(1, 2, 4, 8, 16, 32),
        "weight": POSITIVE,
    },
    OptimizerConfig: {
        "l2": NOT_NEGATIVE,
        "clip_norm": POSITIVE,
        "layer_lr": Limit("0 or a positive number for each parameter-name prefix",
                          lambda v: all(x >= 0 for x in v.values())),
    },
    SourceConfig: {
        "name": NOT_EMPTY,
        "ratio": Limit("a number above 0 and at most 1", lambda v: 0 < v <= 1),
        "delimiter": NOT_EMPTY,
        "weights": NOT_EMPTY,
    },
    LoaderConfig: {
        "batch_size": POSITIVE_INTEGER,
        "on_corrupt": one_of("stop", "skip"),
        "num_workers": NOT_NEGATIVE_INTEGER,
        "prefetch_factor": POSITIVE_INTEGER,
    },
    AmpConfig: {"level": one_of("O1", "O2"), "dtype": one_of("float16", "bfloat16"), "scale_loss": POSITIVE},
    EmaConfig: {"decay": Limit("a number from 0 to below 1", lambda v: 0 <= v < 1)},
    MetricConfig: {"topk": Limit("a list of positive integers", lambda v: len(v) > 0 and min(v) > 0)},
    InferConfig: {"batch_size": POSITIVE_INTEGER, "topk": POSITIVE_INTEGER},
}
