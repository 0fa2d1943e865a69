"""The demo's runs as configs: teacher, mining, baseline, ssld, fine-tuning.

Rates and crops were chosen on several splits of the digits. Baseline and ssld share the network, the first weights, the
optimiser, the schedule and the number of image views; they differ in the images, in the loss, and in crop and dropout,
where each has what suited it better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .images import DELIMITER, DemoImages, Lists
from .pool import Pool

TEACHER = "ResNet18_vd"
STUDENT = "MobileNetV3_small_x0_35"
SIDE_PX = 32
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ROW_EVERY = 10  # steps between rows of metrics.jsonl
CURVE_POINTS = 8  # evaluations during a run

Tree = dict[str, Any]


@dataclass(frozen=True)
class Effort:
    """views: images trained on, repeats counted. rate: highest learning rate. crop: smallest share of the area."""

    views: int
    batch: int
    rate: float
    crop: float


TEACHER_EFFORT = Effort(views=2876, batch=32, rate=0.002, crop=0.8)
BASELINE_EFFORT = Effort(views=11500, batch=64, rate=0.02, crop=0.7)
SSLD_EFFORT = Effort(views=11500, batch=64, rate=0.02, crop=0.8)
FINETUNE_EFFORT = Effort(views=950, batch=64, rate=0.0001, crop=0.8)
PHOTOGRAPH_FACTOR = 1.5  # times the views


@dataclass(frozen=True)
class Recipe:
    """Config trees of one demo, in the form of a YAML file. A run's output folder is `output/<run>`."""

    images: DemoImages
    lists: Lists
    output: Path
    seed: int

    def teacher(self) -> Tree:
        """The bigger network, trained on every training image with its label."""
        return self._on_labels("teacher", {"name": TEACHER}, self.lists.teacher, len(self.images.train), TEACHER_EFFORT)

    def mining(self, teacher_weights: str, pool: Pool, min_score: float) -> Tree:
        """The images of the pool that are no copies of test images and that the teacher is sure of."""
        calibrated = {"negatives": [str(pool.innocents)]} if pool.innocents else {}
        # Digits are small, and thumbnails find of small images whatever hashes would: once is enough.
        return {
            "Mine": {"output_dir": str(self.output / "mining"), "pool": [str(self.lists.unlabelled), str(pool.folder)],
                     "protect": [str(pool.protected)], "seed": self.seed},
            "Dedup": {"hash": self.images.photographs, **calibrated},
            "Teacher": {"name": TEACHER, "pretrained": teacher_weights},
            "Score": {"image_size": SIDE_PX, "resize_short": SIDE_PX},
            "Select": {"top_k": pool.top_k, "min_score": min_score, "control": False,
                       "class_names": str(self.lists.classes)},
        }

    def baseline(self) -> Tree:
        """The student, trained on the few labelled images."""
        return self._on_labels("baseline", {"name": STUDENT, "dropout_prob": 0.2}, self.lists.labelled,
                               len(self.images.labelled), BASELINE_EFFORT)

    def ssld(self, teacher_weights: str, mined: Path, mined_count: int) -> Tree:
        """The same student on the labelled images and the mined ones, told nothing but the teacher's answers.

        mined: the miner's list, of mined_count images.
        """
        # The miner's lists are for a reader's default delimiter.
        sources = [_source("labelled", self.lists.labelled),
                   {"name": "mined", "list": str(mined), "root": "/", "labelled": False}]
        count = len(self.images.labelled) + mined_count
        return self._distilled("ssld", teacher_weights, {}, sources, count, SSLD_EFFORT)

    def finetune(self, teacher_weights: str, student_weights: str) -> Tree:
        """Stage 2: the same loss on the labelled images alone, their labels still unread, from stage 1's student."""
        # Batch norm keeps stage 1's statistics: those of a few images would be worse.
        begin = {"pretrained": student_weights, "bn_mode": "eval"}
        return self._distilled("finetune", teacher_weights, begin, [_source("labelled", self.lists.labelled)],
                               len(self.images.labelled), FINETUNE_EFFORT)

    def _on_labels(self, run: str, network: Tree, list_file: Path, count: int, effort: Effort) -> Tree:
        return {
            "Global": self._global(run, count, effort),
            "Arch": {"class_num": len(self.images.classes), "Student": network},
            "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
            **self._shared([_source("labelled", list_file)], count, effort),
        }

    def _distilled(self, run: str, teacher: str, begin: Tree, sources: list[Tree], count: int, effort: Effort) -> Tree:
        return {
            "Global": self._global(run, count, effort),
            "Arch": {
                "class_num": len(self.images.classes),
                # bn_mode `eval` lets the fast inference engine serve the teacher.
                "Teacher": {"name": TEACHER, "pretrained": teacher, "frozen": True, "bn_mode": "eval"},
                "Student": {"name": STUDENT, "dropout_prob": 0.0, **begin},
            },
            "Loss": {"Train": [{"SymmetricKL": {"weight": 1.0}}]},
            **self._shared(sources, count, effort),
        }

    def _global(self, run: str, count: int, effort: Effort) -> Tree:
        epochs = self._epochs(count, effort)
        return {
            "output_dir": str(self.output / run),
            "device": "cpu",
            "seed": self.seed,
            "epochs": epochs,
            "image_shape": [3, SIDE_PX, SIDE_PX],
            "print_batch_step": ROW_EVERY,
            "eval_interval": math.ceil(epochs / CURVE_POINTS),
            "save_interval": epochs,  # one checkpoint: of the last step, whose weights count
        }

    def _shared(self, sources: list[Tree], count: int, effort: Effort) -> Tree:
        return {
            "Optimizer": {"name": "AdamW", "weight_decay": 0.01,
                          "lr": {"name": "Cosine", "learning_rate": effort.rate,
                                 "warmup_epoch": round(self._epochs(count, effort) / 10, 2)}},
            "DataLoader": {
                "Train": {"sources": sources, "transform_ops": self._train_ops(effort.crop),
                          "batch_size": min(effort.batch, count), "shuffle": True, "drop_last": True, "num_workers": 1},
                "Eval": {"sources": [_source("test", self.lists.test)], "transform_ops": eval_ops(),
                         "batch_size": 128, "num_workers": 0},
            },
            "Metric": {"topk": [1]},
            "Infer": {"topk": min(3, len(self.images.classes)), "class_id_map_file": str(self.lists.classes)},
        }

    def _epochs(self, count: int, effort: Effort) -> int:
        """Passes over `count` images that make up the views; the last, broken batch of a pass is dropped."""
        batch = min(effort.batch, count)
        views = effort.views * (PHOTOGRAPH_FACTOR if self.images.photographs else 1)
        whole = int if effort is SSLD_EFFORT else round  # ssld's views depend on mining, and are never more
        return max(1, whole(views / (count // batch * batch)))

    def _train_ops(self, crop: float) -> list[Tree]:
        mirror = [{"RandFlipImage": {"flip_code": 1}}] if self.images.photographs else []
        return [_decode(), {"RandCropImage": {"size": SIDE_PX, "scale": [crop, 1.0], "use_log_aspect": True}}, *mirror,
                _normalize()]


def eval_ops() -> list[Tree]:
    """Transforms of a test image: the shorter side to 32 pixels, the centre, normalised."""
    return [_decode(), {"ResizeImage": {"resize_short": SIDE_PX}}, {"CropImage": {"size": SIDE_PX}}, _normalize()]


def _source(name: str, list_file: Path) -> Tree:
    return {"name": name, "list": str(list_file), "root": "/", "labelled": True, "delimiter": DELIMITER}


def _decode() -> Tree:
    return {"DecodeImage": {"to_rgb": True, "channel_first": False}}


def _normalize() -> Tree:
    return {"NormalizeImage": {"scale": 1 / 255, "mean": MEAN, "std": STD, "order": ""}}
