"""Infer.PostProcess of networks with several labels an image."""

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.errors import ConfigError


@pytest.fixture
def several(ours):
    ours["Global"]["use_multilabel"] = True
    ours["Arch"]["class_num"] = 6
    ours["Loss"]["Train"] = [{"SymmetricKL": {"act": "sigmoid"}}]
    ours["DataLoader"]["Eval"]["sources"] = [{"name": "val", "list": "val.txt"}]
    return ours


def test_by_default_half_is_a_yes(several):
    assert resolve(several).Infer.attributes == {"MultiLabelThreshOutput": {"threshold": 0.5}}


def test_one_class_an_image_has_no_attributes(ours):
    assert resolve(ours).Infer.attributes is None


@pytest.mark.parametrize("post, entry", [
    ({"name": "TableAttribute", "source_threshold": 0.4}, {"TableAttribute": {"source_threshold": 0.4}}),
    ({"name": "MultiLabelThreshOutput", "threshold": 0.3, "delimiter": " ", "class_id_map_file": "names.txt"},
     {"MultiLabelThreshOutput": {"threshold": 0.3}}),
    ({"label_list": list("abcdef")}, {"MultiLabelThreshOutput": {"threshold": 0.5, "label_list": tuple("abcdef")}}),
    ({"threshold": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]},
     {"MultiLabelThreshOutput": {"threshold": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)}}),
])
def test_a_section_becomes_what_inference_yml_carries(several, post, entry):
    infer = resolve({**several, "Infer": {"PostProcess": post}}).Infer
    assert infer.attributes == entry and infer.class_id_map_file == post.get("class_id_map_file")


@pytest.mark.parametrize("infer, message", [
    ({"PostProcess": {"name": "VehicleAttribute"}}, r"Infer.PostProcess: 19 names for a network with 6 attributes"),
    ({"PostProcess": {"threshold": [0.5, 0.5]}}, r"Infer.PostProcess: 2 thresholds for a network with 6 attributes"),
    ({"PostProcess": {"name": "Topk", "topk": 5}}, r"'Topk' gives no attributes; expected MultiLabelThreshOutput"),
    ({"PostProcess": {"name": "TableAttribute", "colour_threshold": 1}}, r"did you mean 'color_threshold'"),
    ({"topk": 3}, r"Infer.topk: is for classes that exclude each other"),
    ({"PostProcess": {"label_list": "names.txt"}}, r"Infer.PostProcess: label_list: expected a list of names"),
    ({"PostProcess": {"threshold": 50}}, r"a threshold is a probability from 0 to 1, found 50"),
    ({"PostProcess": {"name": "TableAttribute", "class_id_map_file": "names.txt"}}, r"has names of its own"),
    ({"PostProcess": {"class_id_map_file": "a.txt"}, "class_id_map_file": "b.txt"}, r"beside Infer.class_id_map_file"),
    ({"PostProcess": {"delimiter": ","}}, r"PostProcess.delimiter: ',' cannot be done here"),
])
def test_what_does_not_fit_is_refused_before_training(several, infer, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**several, "Infer": infer})


def test_attributes_ask_for_several_labels(ours):
    with pytest.raises(ConfigError, match="for several labels an image, Global.use_multilabel"):
        resolve({**ours, "Infer": {"PostProcess": {"name": "MultiLabelThreshOutput"}}})


def test_attributes_come_from_postprocess_alone(several):
    with pytest.raises(ConfigError, match="Infer.attributes: unknown key"):
        resolve({**several, "Infer": {"attributes": {"TableAttribute": {}}}})
