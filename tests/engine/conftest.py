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


@pytest.fixture(scope="session")
def attributes(world):
    """The same images with two labels each, "below" and "right"; of some not known, of images 00 and 07 neither.

    attributes.txt, complete.txt (everything known), and a teacher of two outputs.
    """
    lines, complete = [], []
    for i in range(24):
        below, right = divmod(i % CLASSES, 2)
        complete.append(f"{i:02d}.png\t{below},{right}\n")
        lines.append(f"{i:02d}.png\t{-1 if i % 5 == 0 or i == 7 else below},{-1 if i % 7 == 0 else right}\n")
    (world / "attributes.txt").write_text("".join(lines))
    (world / "complete.txt").write_text("".join(complete))
    paddle.seed(2)
    teacher = build_network(NetworkConfig("Teacher", "PPLCNet_x0_25"), 2)
    paddle.save(teacher.state_dict(), str(world / "attributes.pdparams"))
    return world


@pytest.fixture
def pulc(attributes, tmp_path):
    """PaddleClas's PULC/vehicle_attribute/PPLCNet_x1_0_distillation.yaml (d178931), 24 images in batches of 8."""
    size = [32, 32]

    def dataset(name, *transforms):
        return {"name": "MultiLabelDataset", "image_root": str(attributes), "cls_label_path": str(attributes / name),
                "label_ratio": True, "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                                       {"ResizeImage": {"size": size}}, *transforms, NORMALIZE]}

    augment = ({"TimmAutoAugment": {"prob": 0.0, "config_str": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic",
                                    "img_size": size}},
               {"Padv2": {"size": [36, 36], "pad_mode": 1, "fill_value": 0}}, {"RandomCropImage": {"size": size}},
               {"RandFlipImage": {"flip_code": 0, "prob": 0.0}})
    return {
        "Global": {"output_dir": str(tmp_path / "run"), "device": "cpu", "epochs": 3, "print_batch_step": 1,
                   "image_shape": [3, *size], "use_multilabel": True, "eval_during_train": True, "seed": 3,
                   "teacher_check_images": 0, "save_steps": 2},
        "Arch": {"name": "DistillationModel", "class_num": 2, "pretrained_list": None, "infer_model_name": "Student",
                 "freeze_params_list": [True, False], "use_ssld": True,
                 "models": [{"Teacher": {"name": "PPLCNet_x0_25", "class_num": 2,
                                         "pretrained": str(attributes / "attributes")}},
                            {"Student": {"name": "MobileNetV3_small_x0_35", "class_num": 2, "pretrained": False}}]},
        "Loss": {"Train": [{"DistillationMultiLabelLoss": {"weight": 1.0, "model_names": ["Student"],
                                                           "weight_ratio": True, "size_sum": True}},
                           {"DistillationDMLLoss": {"weight": 1.0, "weight_ratio": True, "sum_across_class_dim": False,
                                                    "model_name_pairs": [["Student", "Teacher"]]}}],
                 "Eval": [{"MultiLabelLoss": {"weight": 1.0, "weight_ratio": True, "size_sum": True}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": {"name": "Cosine", "learning_rate": 0.05},
                      "regularizer": {"name": "L2", "coeff": 0.0005}},
        "DataLoader": {"Train": {"dataset": dataset("attributes.txt", *augment),
                                 "sampler": {"name": "DistributedBatchSampler", "batch_size": 8, "drop_last": True,
                                             "shuffle": True}, "loader": {"num_workers": 0}},
                       "Eval": {"dataset": dataset("complete.txt"), "loader": {"num_workers": 0},
                                "sampler": {"name": "DistributedBatchSampler", "batch_size": 10, "drop_last": False,
                                            "shuffle": False}}},
        "Metric": {"Eval": [{"ATTRMetric": None}]},
    }
