"""Two small configs that load: one in PaddleClas's distillation form, one in our plain form."""

from __future__ import annotations

import pytest
import yaml

from ppcls_ssld.config.text import parse

THEIRS = """
Global:
  checkpoints: null
  output_dir: ./output/
  device: gpu
  epochs: 4
  image_shape: [3, 32, 32]
Arch:
  name: "DistillationModel"
  class_num: &classes 10
  pretrained_list:
  freeze_params_list: [True, False]
  infer_model_name: "Student"
  models:
    - Teacher:
        name: ResNet18
        class_num: *classes
        pretrained: ./weights/teacher
    - Student:
        name: MobileNetV3_small_x1_0
        class_num: *classes
        pretrained: False
        dropout_prob: null
Loss:
  Train:
    - DistillationDMLLoss:
        weight: 1.0
        model_name_pairs:
          - ["Student", "Teacher"]
  Eval:
    - CELoss:
        weight: 1.0
Optimizer:
  name: Momentum
  momentum: 0.9
  lr: {name: Cosine, learning_rate: 4e-1, warmup_epoch: 1}
  regularizer: {name: 'L2', coeff: 1e-5}
DataLoader:
  Train:
    dataset:
      name: ImageNetDataset
      image_root: ./images/
      cls_label_path: ./images/train.txt
      transform_ops:
        - DecodeImage: {to_rgb: True}
        - RandCropImage: {size: 32}
        - NormalizeImage: {scale: 1.0/255.0, order: ''}
    sampler: {name: DistributedBatchSampler, batch_size: 16, drop_last: False, shuffle: True}
    loader: {num_workers: 4, use_shared_memory: True}
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: ./images/
      cls_label_path: ./images/val.txt
      delimiter: "\\t"
      transform_ops:
        - DecodeImage:
    sampler: {batch_size: 8, drop_last: False, shuffle: False}
    loader: {num_workers: 4, use_shared_memory: True}
Infer:
  infer_imgs: ./images/a.jpg
  batch_size: 2
  transforms:
    - DecodeImage: {to_rgb: True}
    - ToCHWImage:
  PostProcess: {name: DistillationPostProcess, func: Topk, topk: 3, class_id_map_file: ./classes.txt}
Metric:
  Train:
    - DistillationTopkAcc: {model_key: "Student", topk: [1, 5]}
  Eval:
    - TopkAcc: {topk: [1, 2]}
"""

OURS = """
Global: {epochs: 2, image_shape: [3, 32, 32]}
Arch:
  class_num: 10
  Teacher: {name: ResNet18, pretrained: ./weights/teacher, bn_mode: eval}
  Student: {name: MobileNetV3_small_x1_0, dropout_prob: 0.1}
Loss:
  Train:
    - SymmetricKL: {temperature: 1.0}
DataLoader:
  Train:
    sources:
      - {name: few, list: few.txt, root: images, ratio: 0.25}
      - {name: many, folder: pool, labelled: false, ratio: 0.75}
    transform_ops:
      - DecodeImage:
    batch_size: 8
    shuffle: true
    epoch_of: few
  Eval:
    sources:
      - {name: val, folder: val}
    transform_ops:
      - DecodeImage:
"""


@pytest.fixture
def theirs() -> dict:
    """PaddleClas's form as a tree, this test's own to change."""
    return parse(THEIRS, "theirs")[0]


@pytest.fixture
def ours() -> dict:
    return yaml.safe_load(OURS)


@pytest.fixture
def theirs_file(tmp_path):
    path = tmp_path / "theirs.yaml"
    path.write_text(THEIRS)
    return path


@pytest.fixture
def ours_file(tmp_path):
    path = tmp_path / "ours.yaml"
    path.write_text(OURS)
    return path
