"""A small world: 24 labelled and 16 unlabelled 32-pixel images of 4 colour classes, a teacher, a config tree."""

import cv2
import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_network
from ppcls_ssld.config.schema import NetworkConfig

from world import NORMALIZE

CLASSES = 4


def draw(path, label, rng):
    """A bright square on noise; its corner is the class."""
    image = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
    y, x = divmod(label, 2)
    image[16 * y:16 * y + 16, 16 * x:16 * x + 16] += 180
    cv2.imwrite(str(path), image)


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    lines, bare = [], []
    for i in range(40):
        draw(folder / f"{i:02d}.png", i % CLASSES, rng)
        (lines if i < 24 else bare).append(f"{i:02d}.png {i % CLASSES}")
    (folder / "labelled.txt").write_text("\n".join(lines) + "\n")
    (folder / "unlabelled.txt").write_text("\n".join(line.split()[0] for line in bare) + "\n")
    (folder / "poisoned.txt").write_text("\n".join(f"{line.split()[0]} {3 - int(line.split()[1])}" for line in lines))
    paddle.seed(1)
    teacher = build_network(NetworkConfig("Teacher", "PPLCNet_x0_25"), CLASSES)
    paddle.save(teacher.state_dict(), str(folder / "teacher.pdparams"))
    return folder


@pytest.fixture
def tree(world, tmp_path):
    """Config of a label-free distillation, 40 images in batches of 8: 5 steps an epoch."""
    return {
        "Global": {"output_dir": str(tmp_path / "run"), "epochs": 1, "print_batch_step": 1, "image_shape": [3, 32, 32],
                   "device": "cpu", "teacher_check_images": 0, "eval_during_train": False},
        "Arch": {"class_num": CLASSES,
                 "Teacher": {"name": "PPLCNet_x0_25", "pretrained": str(world / "teacher.pdparams"), "bn_mode": "eval"},
                 "Student": {"name": "MobileNetV3_small_x0_35"}},
        "Loss": {"Train": [{"SymmetricKL": {"weight": 1.0}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.05},
                      "regularizer": {"name": "L2", "coeff": 0.0001}},
        "DataLoader": {
            "Train": {"sources": [{"name": "few", "list": str(world / "labelled.txt"), "root": str(world)},
                                  {"name": "many", "list": str(world / "unlabelled.txt"), "root": str(world),
                                   "labelled": False}],
                      "transform_ops": [{"DecodeImage": {}}, {"RandCropImage": {"size": 32, "scale": [0.5, 1.0]}},
                                        {"RandFlipImage": {"flip_code": 1}}, NORMALIZE],
                      "batch_size": 8, "shuffle": True, "num_workers": 0},
            "Eval": {"sources": [{"name": "test", "list": str(world / "labelled.txt"), "root": str(world)}],
                     "transform_ops": [{"DecodeImage": {}}, NORMALIZE], "batch_size": 10, "num_workers": 0}},
        "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 2]}}]},
    }
