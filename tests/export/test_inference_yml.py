from dataclasses import dataclass
from types import MappingProxyType

import pytest
import yaml
from ppcls_ssld.errors import CheckpointError, ConfigError
from ppcls_ssld.export import preprocessing_of, write_inference_yml

TRANSFORMS = (  # the Infer section of PaddleClas's ImageNet configs (ppcls/configs/ImageNet, 2.6)
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"resize_short": 256}},
    {"CropImage": {"size": 224}},
    {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                        "order": ""}},
    {"ToCHWImage": None},
)


def test_the_layout_is_the_one_that_paddleclas_writes(tmp_path):
    path = write_inference_yml(tmp_path, "MobileNetV3_large_x1_0", TRANSFORMS, 3, ["tench, Tinca tinca", "goldfish"])
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == {
        "Global": {"model_name": "MobileNetV3_large_x1_0"},
        "PreProcess": {"transform_ops": [
            {"ResizeImage": {"resize_short": 256}},
            {"CropImage": {"size": 224}},
            {"NormalizeImage": {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                                "order": "", "channel_num": 3}},
            {"ToCHWImage": None},
        ]},
        "PostProcess": {"Topk": {"topk": 3, "label_list": ["tench, Tinca tinca", "goldfish"]}},
    }
    assert [p.name for p in tmp_path.iterdir()] == ["inference.yml"]


@pytest.mark.parametrize("entry, labels, written", [
    ({"MultiLabelThreshOutput": {"threshold": 0.4}}, ["hat", "bag"],
     {"MultiLabelThreshOutput": {"threshold": 0.4, "label_list": ["hat", "bag"]}}),
    ({"MultiLabelThreshOutput": MappingProxyType({"threshold": (0.4, 0.6)})}, [],
     {"MultiLabelThreshOutput": {"threshold": [0.4, 0.6]}}),
    ({"VehicleAttribute": {"color_threshold": 0.4}}, [],
     {"main_indicator": "VehicleAttribute", "VehicleAttribute": {"color_threshold": 0.4}}),
])
def test_attributes_stand_in_place_of_the_top_classes(entry, labels, written, tmp_path):
    path = write_inference_yml(tmp_path, "m", TRANSFORMS, 5, labels, entry)
    assert yaml.safe_load(path.read_text())["PostProcess"] == written
    assert "label_list" not in next(iter(entry.values()))


def test_names_in_any_script_survive(tmp_path):
    names = ["丁鱥", "no", "1e3"]
    path = write_inference_yml(tmp_path, "m", TRANSFORMS, 1, names)
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["PostProcess"]["Topk"]["label_list"] == names


def test_read_only_config_values_can_be_written(tmp_path):
    operations = (MappingProxyType({"CropImage": MappingProxyType({"size": (32, 24)})}),)
    written = yaml.safe_load(write_inference_yml(tmp_path, "m", operations).read_text())
    assert written["PreProcess"]["transform_ops"][0] == {"CropImage": {"size": [32, 24]}}


def test_eval_transforms_without_tochw_get_it_as_paddleclas_datasets_do(tmp_path):
    written = yaml.safe_load(write_inference_yml(tmp_path, "m", TRANSFORMS[:4]).read_text())
    assert written["PreProcess"]["transform_ops"][-1] == {"ToCHWImage": None}


def test_a_network_trained_on_bgr_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="to_rgb"):
        write_inference_yml(tmp_path, "m", [{"DecodeImage": {"to_rgb": False}}])


def test_operations_that_a_predictor_does_not_know_are_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ConfigError, match="'NormaliseImage' has no place in inference"):
        write_inference_yml(tmp_path, "m", [*TRANSFORMS[:3], {"NormaliseImage": {}}])
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_old_file_and_says_where(tmp_path):
    (tmp_path / "inference.yml").mkdir()  # nothing can replace a folder, whoever runs the test
    (tmp_path / "inference.yml" / "old").write_text("kept")
    with pytest.raises(CheckpointError, match="inference.yml: cannot be written"):
        write_inference_yml(tmp_path, "m", TRANSFORMS)
    assert (tmp_path / "inference.yml" / "old").read_text() == "kept"


@dataclass
class Section:
    transforms: tuple = ()
    transform_ops: tuple = ()
    Eval: object = None


@dataclass
class Config:
    Infer: Section
    DataLoader: Section


def test_the_infer_transforms_come_before_those_of_the_eval_list():
    ours, theirs = TRANSFORMS[1:], TRANSFORMS[2:]
    evaluation = Section(Eval=Section(transform_ops=theirs))
    assert preprocessing_of(Config(Section(transforms=ours), evaluation)) == ours
    assert preprocessing_of(Config(Section(), evaluation)) == theirs
    with pytest.raises(ConfigError, match="Infer.transforms"):
        preprocessing_of(Config(Section(), Section()))
