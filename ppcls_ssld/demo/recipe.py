"""The demo's four runs as configs: teacher, baseline, ssld, fine-tuning.

Sizes and rates were chosen over five splits of the digits; one CPU thread makes about 60 images/s in the teacher and 340
in the student. Baseline and ssld are one recipe (network, first weights, optimiser, rate, augmentation, image views) and
differ in the images and in the loss alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .images import DELIMITER, DemoImages, Lists

TEACHER = "ResNet18_vd"
STUDENT = "MobileNetV3_small_x0_35"
SIDE_PX = 32
BATCH = 64
TEACHER_VIEWS = 4300  # three epochs of the digits
STUDENT_VIEWS = 11500  # eight epochs of the digits
FINETUNE_VIEWS = 1500
TEACHER_LR, STUDENT_LR, FINETUNE_LR = 1e-3, 1e-2, 5e-4
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
ROW_EVERY = 10  # steps between rows of metrics.jsonl
CURVE_POINTS = 8  # evaluations of a run

Tree = dict[str, Any]


@dataclass(frozen=True)
class Recipe:
    """Builds the config trees of one demo, in the form of a YAML file. Output folders: `output/<run>`."""

    images: DemoImages
    lists: Lists
    output: Path
    seed: int

    def teacher(self) -> Tree:
        """The bigger network, trained on every training image with its label."""
        return self._labelled("teacher", TEACHER, self.lists.teacher, len(self.images.train), TEACHER_VIEWS, TEACHER_LR)

    def baseline(self) -> Tree:
        """The student, trained on the few labelled images."""
        return self._labelled("baseline", STUDENT, self.lists.labelled, len(self.images.labelled), STUDENT_VIEWS,
                              STUDENT_LR)

    def ssld(self, teacher_weights: str) -> Tree:
        """The same student on all training images, told nothing but the teacher's answers."""
        sources = [self._few(), {"name": "unlabelled", "list": str(self.lists.unlabelled), "root": "/",
                                 "labelled": False, "delimiter": DELIMITER}]
        return self._distilled("ssld", teacher_weights, None, sources, len(self.images.train), STUDENT_VIEWS, STUDENT_LR)

    def finetune(self, teacher_weights: str, student_weights: str) -> Tree:
        """Stage 2: the same loss on the labelled images alone (labels still unread), from stage 1's student."""
        return self._distilled("finetune", teacher_weights, student_weights, [self._few()], len(self.images.labelled),
                               FINETUNE_VIEWS, FINETUNE_LR)

    def _few(self) -> Tree:
        # A label-free loss is never shown labels; this source is called labelled because its list has them.
        return {"name": "labelled", "list": str(self.lists.labelled), "root": "/", "delimiter": DELIMITER}

    def _labelled(self, run: str, network: str, list_file: Path, count: int, views: int, lr: float) -> Tree:
        source = {"name": "labelled", "list": str(list_file), "root": "/", "delimiter": DELIMITER}
        return {
            "Global": self._global(run, count, views),
            "Arch": {"name": network, "class_num": len(self.images.classes)},
            "Loss": {"Train": [{"CELoss": {"weight": 1.0}}]},
            **self._shared([source], count, views, lr),
        }

    def _distilled(self, run: str, teacher: str, student: str | None, sources: list[Tree], count: int, views: int,
                   lr: float) -> Tree:
        return {
            "Global": self._global(run, count, views),
            "Arch": {
                "class_num": len(self.images.classes),
                # `eval` lets the fast inference engine serve the teacher.
                "Teacher": {"name": TEACHER, "pretrained": teacher, "frozen": True, "bn_mode": "eval"},
                "Student": {"name": STUDENT, "pretrained": student, "dropout_prob": 0.0},
            },
            "Loss": {"Train": [{"SymmetricKL": {"weight": 1.0}}]},
            **self._shared(sources, count, views, lr),
        }

    def _global(self, run: str, count: int, views: int) -> Tree:
        epochs = max(1, round(views / count))
        return {
            "output_dir": str(self.output / run),
            "device": "cpu",
            "seed": self.seed,
            "epochs": epochs,
            "image_shape": [3, SIDE_PX, SIDE_PX],
            "print_batch_step": ROW_EVERY,
            "eval_interval": max(1, math.ceil(epochs / CURVE_POINTS)),
            "save_interval": epochs,  # one checkpoint, of the last step: the weights that count
        }

    def _shared(self, sources: list[Tree], count: int, views: int, lr: float) -> Tree:
        batch = min(BATCH, count)
        warmup = max(1, round(0.1 * views / count))
        return {
            "Optimizer": {"name": "AdamW", "weight_decay": 0.01,
                          "lr": {"name": "Cosine", "learning_rate": lr, "warmup_epoch": warmup}},
            "DataLoader": {
                "Train": {"sources": sources, "transform_ops": self._train_ops(),
                          "sampler": {"batch_size": batch, "shuffle": True, "drop_last": True},
                          "loader": {"num_workers": 1}},
                "Eval": {"sources": [{"name": "test", "list": str(self.lists.test), "root": "/",
                                      "delimiter": DELIMITER}],
                         "transform_ops": eval_ops(), "sampler": {"batch_size": 128}, "loader": {"num_workers": 0}},
            },
            "Metric": {"Eval": [{"TopkAcc": {"topk": [1, min(5, len(self.images.classes))]}}]},
            "Infer": {"PostProcess": {"name": "Topk", "topk": min(5, len(self.images.classes)),
                                      "class_id_map_file": str(self.lists.classes)}},
        }

    def _train_ops(self) -> list[Tree]:
        mirror = [{"RandFlipImage": {"flip_code": 1}}] if self.images.mirrored else []
        return [_decode(), {"RandCropImage": {"size": SIDE_PX, "scale": [0.6, 1.0], "use_log_aspect": True}}, *mirror,
                _normalize()]


def eval_ops() -> list[Tree]:
    """Transforms of a test image: the shorter side to 32 pixels, the centre, normalised."""
    return [_decode(), {"ResizeImage": {"resize_short": SIDE_PX}}, {"CropImage": {"size": SIDE_PX}}, _normalize()]


def _decode() -> Tree:
    return {"DecodeImage": {"to_rgb": True, "channel_first": False}}


def _normalize() -> Tree:
    return {"NormalizeImage": {"scale": "1.0/255.0", "mean": MEAN, "std": STD, "order": ""}}
