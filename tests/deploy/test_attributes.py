"""Several labels an image: every attribute with its probability, and a yes or no."""

import ast
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from deploy.predict import list_images, main
from deploy.predictor import Classifier, Predictor, read_inference_yml
from ppcls_ssld.attributes import NAMED, Attributes, attributes_of
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.export import export_network

NORMALIZE = [{"NormalizeImage": {"order": ""}}]
THRESHOLDS = np.array([0.1, 0.5, 0.5, 0.5, 0.9])


def with_post(folder: Path, target: Path, post) -> Path:
    shutil.copytree(folder, target)
    file = target / "inference.yml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "PostProcess": post}))
    return target


def test_every_attribute_has_the_networks_probability_and_its_own_threshold(attribute_dir, logits_by_hand, photos):
    predictions = Predictor(attribute_dir).predict(list_images([str(photos)]))
    assert len({p.yes for p in predictions}) > 1, "a test whose images all look alike proves little"
    for p in predictions:
        expected = 1 / (1 + np.exp(-logits_by_hand(p.path)))
        assert p.class_ids == (0, 1, 2, 3, 4) and p.labels == ("apple", "birch tree", "cat", "dune", "elk")
        np.testing.assert_allclose(p.scores, expected, rtol=1e-4)
        assert p.yes == tuple((expected >= THRESHOLDS).tolist())


def test_a_threshold_that_is_reached_is_a_yes():
    attributes = Attributes((0.25, 0.5), ("hat", "bag"))
    quarters = Classifier(lambda x: np.full((1, 2), 0.25, np.float32), NORMALIZE, attributes=attributes)
    p, = quarters.predict([np.zeros((4, 4, 3), np.uint8)])
    assert p.yes == (True, False) and p.labels == ("hat", "bag")
    several = Classifier(lambda x: np.full((1, 3), 0.5), NORMALIZE, attributes=Attributes((0.4,)))
    p, = several.predict([np.zeros((4, 4, 3), np.uint8)])
    assert p.yes == (True,) * 3 and p.labels == ()


# "output" of PaddleClas's own predictor (deploy/python/postprocess.py, develop d178931) for
# np.random.default_rng(0).random((2, C)) in float32, built from the PostProcess section that an export writes.
PADDLECLAS = [
    ("VehicleAttribute", {"color_threshold": 0.5, "type_threshold": 0.5},
     ["1000111111101010110", "0001110111110011001"]),
    ("PersonAttribute", {"threshold": 0.5, "glasses_threshold": 0.3, "hold_threshold": 0.6},
     ["10001111111010101100001110", "11111001100110101001010110"]),
    ("TableAttribute", {"angle_threshold": 0.5},
     ["100011", "111110"]),
]


@pytest.mark.parametrize("name, arguments, answers", PADDLECLAS)
def test_yes_is_what_paddleclas_predictor_makes_of_the_same_probabilities(name, arguments, answers):
    probabilities = np.random.default_rng(0).random((2, len(answers[0]))).astype(np.float32)
    classifier = Classifier(lambda x: probabilities, NORMALIZE, attributes=attributes_of(name, arguments))
    predictions = classifier.predict([np.zeros((4, 4, 3), np.uint8)] * 2)
    assert ["".join("01"[yes] for yes in p.yes) for p in predictions] == answers


def test_lines_name_every_attribute(attribute_dir, photos, capsys):
    flags = ["--model", str(attribute_dir), str(photos / "a.png")]
    assert main([*flags, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert [a["name"] for a in row["attributes"]] == ["apple", "birch tree", "cat", "dune", "elk"]
    assert [a["yes"] for a in row["attributes"]] == [a["score"] >= t for a, t in zip(row["attributes"], THRESHOLDS)]
    assert list(row) == ["attributes", "file_name"] and row["file_name"] == str(photos / "a.png")
    assert main(flags) == 0
    assert ast.literal_eval(capsys.readouterr().out) == row


def test_without_names_attributes_are_numbered_and_a_file_may_name_them(attribute_dir, photos, tmp_path, capsys):
    folder = with_post(attribute_dir, tmp_path / "m", {"MultiLabelThreshOutput": None})
    (tmp_path / "names.txt").write_text("".join(f"{i} thing {i}\n" for i in range(5)))
    flags = ["--model", str(folder), "--json", str(photos / "a.png")]
    named = ["--labels", str(tmp_path / "names.txt")]
    for extra, expected in (([], list("01234")), (named, [f"thing {i}" for i in range(5)])):
        assert main([*flags, *extra]) == 0
        assert [a["name"] for a in json.loads(capsys.readouterr().out)["attributes"]] == expected


def test_a_deploy_section_of_paddleclas_brings_names_and_thresholds(network, model_dir, photos, tmp_path):
    """As in its deploy/configs/PULC/table_attribute/inference_table_attribute.yaml, with 6 attributes."""
    wider = paddle.nn.Sequential(*list(network)[:-1], paddle.nn.Linear(32, 6))
    wider.eval()
    post = {"main_indicator": "TableAttribute", "TableAttribute": {"source_threshold": 0.0, "angle_threshold": 1.0}}
    folder = with_post(model_dir, tmp_path / "m", post)
    export_network(wider, folder, (3, 24, 24), head="sigmoid")
    p, = Predictor(folder).predict([photos / "a.png"])
    assert p.labels == NAMED["TableAttribute"].names and p.yes[0] and not p.yes[5]


def test_of_several_sections_the_main_indicator_decides(attribute_dir, tmp_path):
    sections = {"VehicleAttribute": {"color_threshold": 0.4}, "MultiLabelThreshOutput": {"label_list": list("abcde")},
                "Topk": {"topk": 2}, "ThreshOutput": {"threshold": 0.5}}
    for main, names in ((None, NAMED["VehicleAttribute"].names), ("MultiLabelThreshOutput", tuple("abcde")),
                        ("VehicleAttribute", NAMED["VehicleAttribute"].names), ("Topk", None), ("ThreshOutput", None),
                        ("nothing there", NAMED["VehicleAttribute"].names)):
        found = read_inference_yml(with_post(attribute_dir, tmp_path / str(main), {"main_indicator": main} | sections))
        assert (found.attributes and found.attributes.names) == names and found.topk == 2


@pytest.mark.parametrize("post, message", [
    ({"Topk": {"label_list": "names.txt"}}, "PostProcess: label_list: expected a list of names.*found 'names.txt'"),
    ({"MultiLabelThreshOutput": {"label_list": "names.txt"}}, "PostProcess: label_list: expected a list of names"),
    ({"MultiLabelThreshOutput": 3}, "expected .* PostProcess with Topk or a section of attributes"),
    ([3], "expected .* PostProcess with Topk or a section of attributes .VehicleAttribute")])
def test_a_file_that_says_it_wrongly_is_refused_with_what_is_expected(attribute_dir, tmp_path, post, message):
    with pytest.raises(ConfigError, match=message):
        read_inference_yml(with_post(attribute_dir, tmp_path / "m", post))


def test_heads_and_sections_that_do_not_fit_are_refused(attribute_dir, model_dir, network, photos, tmp_path):
    image = photos / "a.png"
    topk = with_post(attribute_dir, tmp_path / "topk", {"Topk": {"topk": 2}})
    with pytest.raises(ConfigError, match="do not sum to 1"):
        Predictor(topk).predict([image])
    wrong = with_post(attribute_dir, tmp_path / "wrong", {"VehicleAttribute": {}})
    with pytest.raises(ConfigError, match="19 class names for a network with 5 classes"):
        Predictor(wrong).predict([image])
    two = with_post(attribute_dir, tmp_path / "two", {"MultiLabelThreshOutput": {"threshold": [0.5, 0.5]}})
    with pytest.raises(ConfigError, match="2 thresholds for a network with 5 attributes"):
        Predictor(two).predict([image])
    odd = with_post(attribute_dir, tmp_path / "odd", {"MultiLabelThreshOutput": {"threshold": 7}})
    with pytest.raises(ConfigError, match="inference.yml: PostProcess: .*found 7"):
        Predictor(odd)
    with pytest.raises(ConfigError, match="topk 2: .* each a yes or no"):
        Predictor(attribute_dir, topk=2)
    bare = with_post(attribute_dir, tmp_path / "bare", {"MultiLabelThreshOutput": {}})
    export_network(network, bare, (3, 24, 24), head=None)
    with pytest.raises(ConfigError, match="exported without sigmoid"):
        Predictor(bare).predict(list_images([str(photos)]))
    for value in (np.nan, 1.5, -0.5):
        broken = Classifier(lambda x: np.full((1, 2), value), NORMALIZE, attributes=Attributes())
        with pytest.raises(ConfigError, match="weights are damaged"):
            broken.predict([np.zeros((4, 4, 3), np.uint8)])
