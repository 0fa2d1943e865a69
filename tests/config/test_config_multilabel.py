"""Global.use_multilabel: what changes in lists, metric and networks, and what does not go with it."""

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.errors import ConfigError


@pytest.fixture
def several(theirs):
    """PaddleClas's form with several labels an image."""
    theirs["Global"]["use_multilabel"] = True
    for mode in ("Train", "Eval"):
        theirs["DataLoader"][mode]["dataset"].update(name="MultiLabelDataset", label_ratio=True)
        theirs["DataLoader"][mode]["dataset"].pop("delimiter", None)
    theirs["Metric"] = {"Eval": [{"ATTRMetric": None}]}
    del theirs["Infer"]
    return theirs


@pytest.fixture
def ours_several(ours):
    ours["Global"]["use_multilabel"] = True
    ours["DataLoader"]["Eval"]["sources"] = [{"name": "val", "list": "val.txt"}]
    return ours


def test_delimiters_are_those_that_are_given_and_else_left_to_the_reader_of_the_list(several, ours_several):
    several["DataLoader"]["Eval"]["dataset"]["delimiter"] = ";"
    config = resolve(several)
    assert config.Global.use_multilabel and config.Arch.class_num == 10
    assert [config.DataLoader.Train.sources[0].delimiter, config.DataLoader.Eval.sources[0].delimiter] == [None, ";"]
    ours_several["DataLoader"]["Train"]["sources"][0]["delimiter"] = " "
    assert [source.delimiter for source in resolve(ours_several).DataLoader.Train.sources] == [" ", None]


def test_the_difference_of_the_metric_is_noted(several):
    note, = resolve(several).notices
    assert "ATTRMetric takes a label as predicted where its probability is 0.5 or more" in note and "0.62" in note
    several["Metric"]["Eval"] = [{"HammingDistance": None}]
    note, = resolve(several).notices
    assert "HammingDistance is not computed; the best model is the one with the best ma" in note


def test_what_an_exported_network_ends_in_follows_from_the_labels(several):
    """PaddleClas's PULC files say `infer_add_softmax: False`, which is refused where an image has one class."""
    several["Arch"] = {"name": "PPLCNet_x1_0", "class_num": 10, "infer_add_softmax": False}
    several["Loss"] = {"Train": [{"MultiLabelLoss": {"weight": 1.0}}]}
    assert dict(resolve(several).Arch.networks[0].arguments) == {}


@pytest.mark.parametrize("change, message", [
    ({"Metric": {"Eval": [{"TopkAcc": {"topk": [1]}}]}}, "'TopkAcc' cannot be computed with Global.use_multilabel"),
    ({"Metric": {"topk": [1]}}, "Metric.topk: is accuracy among classes"),
    ({"Metric": {"Eval": [{"ATTRMetric": {"threshold": 0.3}}]}}, "ATTRMetric.threshold: expected 0.5"),
    ({"Metric": {"Eval": [{"ATTRMetric": {"treshold": 0.5}}]}}, "ATTRMetric.treshold: unknown key; did you mean"),
    ({"Arch": {"class_num": 10, "Student": {"name": "ResNet18"},
               "Teacher": {"name": "Ensemble", "bn_mode": "eval", "teachers": [{"name": "ResNet18"}] * 2}}},
     "Arch.Teacher.name: 'Ensemble' is the mean of class probabilities"),
    ({"Global": {"use_multilabel": "yes"}}, "Global.use_multilabel: expected true or false"),
])
def test_what_does_not_go_with_several_labels_is_refused(several, change, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**several, **change})


def test_lists_and_switch_must_agree(several, ours_several):
    ours_several["DataLoader"]["Eval"]["sources"] = [{"name": "val", "folder": "val"}]
    with pytest.raises(ConfigError, match="DataLoader.Eval.sources.0.folder: sub-folders are one class an image"):
        resolve(ours_several)
    several["DataLoader"]["Train"]["dataset"]["name"] = "ImageNetDataset"
    with pytest.raises(ConfigError, match="'ImageNetDataset', but Global.use_multilabel is true; make them agree"):
        resolve(several)


def test_attributes_without_the_switch_are_refused(theirs):
    theirs["Metric"] = {"Eval": [{"ATTRMetric": None}]}
    with pytest.raises(ConfigError, match="Metric.Eval.0.ATTRMetric: counts several labels an image.*set it to true"):
        resolve(theirs)
