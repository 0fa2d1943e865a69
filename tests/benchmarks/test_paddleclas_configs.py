"""What the benchmark of PaddleClas's configs says about a file, and what it overrides in it."""

import json

import pytest

from benchmarks import paddleclas_configs, paddleclas_table
from ppcls_ssld.config import differences, load_config
from ppcls_ssld.config.text import parse
from ppcls_ssld.data import read_source
from ppcls_ssld.engine.task import build_loss

MUTUAL = """
Global: {device: gpu, epochs: 100, output_dir: ./output, image_shape: [3, 32, 32]}
Arch:
  name: DistillationModel
  class_num: 3
  freeze_params_list: [FROZEN, False]
  models:
    - Teacher: {name: MobileNetV3_small_x0_35, class_num: 3, TEACHER}
    - Student: {name: MobileNetV3_small_x0_35, class_num: 3, pretrained: True, use_ssld: True, dropout_prob: null}
Loss:
  Train:
    - DistillationGTCELoss: {key: logits, model_names: [Student]}
    - DistillationDistanceLoss: {key: blocks5, model_name_pairs: [[Student, Teacher]]}
DataLoader:
  Train: &loader
    dataset: {name: ImageNetDataset, image_root: ./dataset/x, cls_label_path: ./dataset/x/list.txt, delimiter: "\\t",
              transform_ops: [{DecodeImage: }, {RandCropImage: {size: 32}}]}
    sampler: {batch_size: 128, shuffle: True}
    loader: {num_workers: 8}
  Eval:
    dataset: {name: ImageNetDataset, image_root: ./dataset/x, cls_label_path: ./dataset/x/list.txt,
              transform_ops: [{DecodeImage: }, {ResizeImage: {size: 32}}]}
    sampler: {batch_size: 64}
    loader: {num_workers: 8}
"""
RANDOM_TEACHER = MUTUAL.replace("FROZEN", "True").replace(", TEACHER", "")
PATH_TEACHER = MUTUAL.replace("FROZEN", "True").replace("TEACHER", "pretrained: a/b")
BOTH_LEARN = MUTUAL.replace("FROZEN", "False").replace(", TEACHER", "")


def tree(text):
    return parse(text, "text")[0]


def test_a_file_is_described_by_what_it_asks_for():
    words = paddleclas_table.in_words(tree(RANDOM_TEACHER))
    assert words["networks"] == "MobileNetV3_small_x0_35 → MobileNetV3_small_x0_35"
    assert words["loss"] == "GTCE + Distance (blocks5)"
    assert (words["lists"], words["classes"]) == ("`x/list.txt`", "3")
    assert words["weights"] == "**a MobileNetV3_small_x0_35 of the task**, `MobileNetV3_small_x0_35_ssld`"
    assert paddleclas_table.in_words(tree(PATH_TEACHER))["weights"].startswith("teacher's `a/b`, ")
    both = paddleclas_table.in_words(tree(BOTH_LEARN))
    assert "↔" in both["networks"] and both["weights"] == "`MobileNetV3_small_x0_35_ssld`"


@pytest.mark.parametrize("changes, found", [
    ({}, True), ({"Arch": {"name": "ResNet18"}, "Loss": {"Train": [{"CELoss": None}]}}, False),
    ({"Arch": {"name": "ResNet18"}}, True), ({"Loss": None}, True), ({"Arch": None}, False),
])
def test_distillation_is_several_models_or_a_distillation_loss(changes, found):
    assert paddleclas_table.is_distillation({**tree(BOTH_LEARN), **changes}) == found


@pytest.mark.parametrize("text, weights", [(RANDOM_TEACHER, 2), (PATH_TEACHER, 2), (BOTH_LEARN, 1)])
def test_only_paths_and_what_a_cpu_forces_are_overridden(text, weights, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(text)
    paths = paddleclas_configs.path_overrides(tree(text), tmp_path, tmp_path / "out")
    changed = [line.partition(":")[0] for line in
               differences(load_config(config).source, load_config(config, paths).source)]
    assert len(changed) == len(paths)
    assert all(key.endswith(("image_root", "cls_label_path", "pretrained", "_dir")) for key in changed)
    assert sum(key.endswith(".pretrained") for key in changed) == weights
    run = load_config(config, [*paths, *paddleclas_configs.batch_overrides(tree(text)), *paddleclas_configs.MACHINE])
    assert build_loss(run) and not run.notices and run.DataLoader.Train.batch_size == 8
    lists = [read_source(loader.sources[0], 3) for loader in (run.DataLoader.Train, run.DataLoader.Eval)]
    assert [len(images) for images in lists] == [paddleclas_configs.TRAIN_IMAGES, paddleclas_configs.EVAL_IMAGES]
    assert all(set(images.labels.tolist()) == {0, 1, 2} for images in lists)
    assert not {images.path(i) for i in range(8) for images in lists[:1]} & {lists[1].path(i) for i in range(6)}


def test_the_table_of_the_document_is_of_the_newest_result():
    results = sorted((path for path in paddleclas_configs.ROOT.glob("benchmarks/results/*_paddleclas_configs.json")),
                     key=lambda path: json.loads(path.read_text())["environment"]["time"])
    document = paddleclas_table.DOCUMENT.read_text()
    table = document.partition(paddleclas_table.BEGIN)[2].partition(paddleclas_table.END)[0].strip()
    assert table == (paddleclas_table.render(json.loads(results[-1].read_text())).strip() if results else "not run")


def test_labels_of_attributes_have_a_yes_a_no_and_unknown_ones():
    lists = [[paddleclas_configs.label(i, 26, several=True).split(",") for i in range(count)]
             for count in (paddleclas_configs.TRAIN_IMAGES, paddleclas_configs.EVAL_IMAGES)]
    for rows in lists:
        assert all(len(row) == 26 for row in rows)
        assert all({"1", "0"} <= set(column) <= {"1", "0", "-1"} for column in zip(*rows))
    assert any("-1" in row for row in lists[0])
    assert [paddleclas_configs.label(i, 3, several=False) for i in range(4)] == ["0", "1", "2", "0"]


def test_rows_of_an_earlier_result_keep_the_commit_they_are_of(tmp_path):
    newest = max(paddleclas_configs.ROOT.glob("benchmarks/results/*_paddleclas_configs.json"))
    report = json.loads(newest.read_text())
    rows = paddleclas_configs.earlier_rows(newest)
    assert len(rows) == len(report["rows"]) and all(row["commit"] for row in rows.values())
    fresh = [{key: value for key, value in row.items() if key != "commit"} for row in report["rows"]]
    carried = {**report, "rows": [{**fresh[0], "commit": "0123abc"}, *fresh[1:]],
               "environment": {**report["environment"], "commit": "fedcba9"}}
    (tmp_path / "again.json").write_text(json.dumps(carried))
    commits = {row["commit"] for row in paddleclas_configs.earlier_rows(tmp_path / "again.json").values()}
    assert {"0123abc", "fedcba9"} <= commits
    assert "commit fedcba9 (1 files as they were at 0123abc)" in paddleclas_table.render(carried)
    assert paddleclas_configs.earlier_rows(None) == {}
