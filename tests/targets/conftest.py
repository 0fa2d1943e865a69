"""A small world: 26 images of 4 classes, two teachers, a training config, and a store of its answers."""

import cv2
import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_network
from ppcls_ssld.config import resolve
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.targets import WriteOptions, write_targets

from world import NORMALIZE, changed

CLASSES = 4


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(26):
        image = rng.integers(0, 90, (36 + i % 5, 44, 3), dtype=np.uint8)
        image[:18 + i % 7, 5 * (i % 4):] += 120
        cv2.imwrite(str(folder / f"{i:02d}.jpg"), image)
        lines.append(f"{i:02d}.jpg {i % CLASSES}")
    (folder / "labelled.txt").write_text("\n".join(lines[:16]) + "\n")
    (folder / "unlabelled.txt").write_text("\n".join(lines[16:]) + "\n")
    for seed in (1, 2):
        paddle.seed(seed)
        teacher = build_network(NetworkConfig("Teacher", "PPLCNet_x0_25"), CLASSES)
        for _ in range(15):  # statistics of its own, without which eval mode has one answer for all images
            teacher(paddle.randn([16, 3, 32, 32]))
        teacher.fc.weight.set_value(8 * teacher.fc.weight)
        paddle.save(teacher.state_dict(), str(folder / f"teacher{seed}.pdparams"))
    return folder


@pytest.fixture
def tree(folder):
    """Training config; eager, so that nothing is exported. Its parts are of 8 images with `write`."""
    return {
        "Global": {"image_shape": [3, 32, 32], "device": "cpu", "teacher_check_images": 0, "seed": 3,
                   "eval_during_train": False},
        "Arch": {"class_num": CLASSES, "Student": {"name": "MobileNetV3_small_x0_35"},
                 "Teacher": {"name": "PPLCNet_x0_25", "pretrained": str(folder / "teacher1.pdparams"),
                             "bn_mode": "eval", "engine": "eager"}},
        "Loss": {"Train": [{"SymmetricKL": {"weight": 1.0}}]},
        "Optimizer": {"name": "Momentum", "lr": {"name": "Constant", "learning_rate": 0.05}},
        "DataLoader": {"Train": {
            "sources": [{"name": "few", "list": str(folder / "labelled.txt"), "root": str(folder)},
                        {"name": "many", "list": str(folder / "unlabelled.txt"), "root": str(folder),
                         "labelled": False}],
            "transform_ops": [{"DecodeImage": {}}, {"RandCropImage": {"size": 32, "scale": [0.5, 1.0]}},
                              {"RandFlipImage": {"flip_code": 1}}, NORMALIZE],
            "batch_size": 5, "shuffle": True, "num_workers": 0}},
    }


@pytest.fixture
def write(tmp_path, tree):
    """write(name, views, **config changes) -> (folder of a store, its config)."""
    def make(name="store", views=2, top_k=3, bits=12, tail="student", block=8, temperature=1.0, **changes):
        config = resolve(changed(tree, **changes))
        write_targets(config, WriteOptions(str(tmp_path / name), views, top_k, bits, tail, block), temperature,
                      say=lambda text: None)
        return tmp_path / name, config
    return make
