"""Stage 2 of SSLD from the run of stage 1: distillation fine-tuning on the labelled set (its labels stay unread).

Numbers: PaddleClas's distillation document, sections 3.2 and 3.3, as tabled in docs: the learning rate falls to about
a hundredth of stage 1's, epochs (also those that a schedule names) to 30 of 360, L2 and loss stay.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..atomic import write_atomic
from ..config import plain, resolve, write
from ..config.networks import network_section
from ..config.schema import RunConfig
from ..errors import ConfigError
from .checkpoint import ADVICE

LR_FACTOR = 0.01
EPOCH_FACTOR = 30 / 360


def next_stage(config: RunConfig, student_weights: str) -> dict:
    """The fine-tuning config as a plain tree, with the stage-1 student's weights as its start.

    Only labelled sources stay. Raises ConfigError when the run has none, or when its sources cannot be told apart
    (PaddleClas's single list).
    """
    tree = plain(config.source)
    sources = tree["DataLoader"]["Train"].get("sources")
    if not sources:
        raise ConfigError("Global.next_stage: DataLoader.Train is one list, so the labelled images cannot be told from "
                          "the others; name them in DataLoader.Train.sources")
    labelled = [{k: v for k, v in s.items() if k != "ratio"} for s in sources if s.get("labelled", True)]
    if not labelled:
        raise ConfigError("Global.next_stage: DataLoader.Train.sources has no labelled source to fine-tune on")
    tree["DataLoader"]["Train"]["sources"] = labelled
    tree["DataLoader"]["Train"].pop("epoch_of", None)
    lr = plain(config.Optimizer.lr)  # not as written: `lr: 0.01` is allowed there
    for key in ("learning_rate", "values", "warmup_start_lr", "eta_min", "end_lr"):
        if key in lr:
            lr[key] = [v * LR_FACTOR for v in lr[key]] if isinstance(lr[key], list) else lr[key] * LR_FACTOR
    tree.setdefault("Optimizer", {})["lr"] = lr
    glob = tree["Global"]
    glob["epochs"] = max(1, round(config.Global.epochs * EPOCH_FACTOR))
    shorter = glob["epochs"] / config.Global.epochs
    if "warmup_epoch" in lr:
        lr["warmup_epoch"] = min(lr["warmup_epoch"], glob["epochs"] // 6)
    for key in ("decay_epochs", "milestones"):
        if lr.get(key):
            lr[key] = _scaled(lr[key], shorter)
    for where, key in ((lr, "step_size"), (glob, "start_eval_epoch")):
        if where.get(key):
            where[key] = max(1, round(where[key] * shorter))
    glob["output_dir"] = f"{config.Global.output_dir.rstrip('/')}_stage2"
    for key in ("next_stage", "checkpoints", "targets", "max_steps", "pretrained_model"):
        glob.pop(key, None)
    _, student = network_section(tree["Arch"], config.Arch.infer_model_name)
    student["pretrained"] = os.path.abspath(student_weights)
    resolve(tree)  # what is written must load
    return tree


def _scaled(epochs: list[float], factor: float) -> list[int]:
    """Rising epochs times `factor`, in whole numbers from 1 that rise too."""
    scaled: list[int] = []
    for epoch in epochs:
        scaled.append(max(round(epoch * factor), scaled[-1] + 1 if scaled else 1))
    return scaled


def write_next_stage(config: RunConfig, student_weights: str) -> Path:
    """Write `Global.next_stage` in one move; returns its path."""
    path = Path(config.Global.next_stage)
    header = (f"# Stage 2 of {config.Global.output_dir}: distillation fine-tuning on its labelled images.\n"
              f"# python -m paddle.distributed.launch tools/train.py -c {path}\n")
    return write_atomic(path, header, write(next_stage(config, student_weights)), advice=ADVICE)
