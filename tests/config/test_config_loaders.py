"""DataLoader in its two forms."""

from __future__ import annotations

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.errors import ConfigError


def test_paddleclas_form_becomes_one_source(theirs):
    train, evaluation = resolve(theirs).DataLoader.Train, resolve(theirs).DataLoader.Eval
    source, = train.sources
    assert (source.name, source.list, source.root) == ("train", "./images/train.txt", "./images/") and source.labelled
    assert (train.batch_size, train.shuffle, train.drop_last, train.num_workers) == (16, True, False, 4)
    assert [list(op)[0] for op in train.transform_ops] == ["DecodeImage", "RandCropImage", "NormalizeImage"]
    assert evaluation.sources[0].name == "eval" and evaluation.sources[0].delimiter == "\t"
    assert evaluation.transform_ops == ({"DecodeImage": None},)


def test_plain_form_keeps_every_source(ours):
    train = resolve(ours).DataLoader.Train
    few, many = train.sources
    assert (few.list, few.root, few.ratio, few.labelled) == ("few.txt", "images", 0.25, True)
    assert (many.folder, many.ratio, many.labelled, many.list) == ("pool", 0.75, False, None)
    assert train.epoch_of == "few" and train.batch_size == 8


def test_our_keys_work_beside_a_paddleclas_dataset(theirs):
    theirs["DataLoader"]["Train"].update(on_corrupt="skip")
    theirs["DataLoader"]["Train"]["loader"]["prefetch_factor"] = 4
    train = resolve(theirs).DataLoader.Train
    assert (train.on_corrupt, train.prefetch_factor) == ("skip", 4)


@pytest.mark.parametrize("part, change, message", [
    ("dataset", {"name": "MultiLabelDataset"}, r"'MultiLabelDataset', but Global.use_multilabel is false"),
    ("dataset", {"label_ratio": True}, r"dataset.label_ratio: unknown key"),
    ("dataset", {"name": "ImagenetDataset"}, r"no dataset 'ImagenetDataset'; did you mean 'ImageNetDataset'"),
    ("dataset", {"cls_label_path": None}, r"DataLoader.Train.dataset.cls_label_path: missing"),
    ("dataset", {"cls_label_path": ["a", "b"]}, r"cls_label_path: expected text, found \['a', 'b'\]"),
    ("dataset", {"relabel": True}, r"dataset.relabel: True cannot be done here"),
    ("dataset", {"transform_op": []}, r"dataset.transform_op: unknown key; did you mean 'transform_ops'"),
    ("dataset", {"transform_ops": None}, r"dataset.transform_ops: missing"),
    ("dataset", {"transform_ops": [{"A": 1}]}, r"dataset.transform_ops.0.A: expected arguments"),
    ("dataset", {"transform_ops": [{"A": None, "B": None}]}, r"transform_ops.0: expected one `Name: \{arguments\}`"),
    ("dataset", {"transform_ops": {"A": None}}, r"transform_ops: expected a list"),
    ("sampler", {"name": "PKSampler"}, r"sampler.name: expected one of DistributedBatchSampler"),
    ("sampler", {"batch_size": "abc"}, r"sampler.batch_size: expected a positive integer, found 'abc'"),
    ("sampler", {"batch_size": True}, r"sampler.batch_size: expected a positive integer, found True"),
    ("sampler", {"shuffle": 1}, r"sampler.shuffle: expected true or false, found 1"),
    ("loader", {"num_workers": -1}, r"loader.num_workers: expected 0 or a positive integer, found -1"),
])
def test_paddleclas_form_is_checked_key_by_key(theirs, part, change, message):
    theirs["DataLoader"]["Train"][part].update(change)
    with pytest.raises(ConfigError, match=message):
        resolve(theirs)


@pytest.mark.parametrize("change, message", [
    ({"batch_size": 3}, r"DataLoader.Train.batch_size: .* it is called sampler.batch_size"),
    ({"sources": [{"name": "a", "list": "b"}]}, r"DataLoader.Train.sources: beside `dataset`"),
    ({"Gallery": {}}, r"DataLoader.Train.Gallery: .* not retrieval"),
    ({"epoch_of": "val"}, r"DataLoader.Train.epoch_of: no source 'val'"),
])
def test_keys_beside_a_paddleclas_dataset_are_checked(theirs, change, message):
    theirs["DataLoader"]["Train"].update(change)
    with pytest.raises(ConfigError, match=message):
        resolve(theirs)


def test_a_second_loader_for_unlabelled_images_is_refused_with_the_way_to_do_it(theirs):
    theirs["DataLoader"]["UnLabelTrain"] = theirs["DataLoader"]["Train"]
    with pytest.raises(ConfigError, match=r"DataLoader.UnLabelTrain: .*`labelled: false`"):
        resolve(theirs)


@pytest.mark.parametrize("sources, message", [
    ([], r"sources: missing; give"),
    (None, r"sources: missing; give"),
    ([{"list": "a"}], r"sources.0.name: missing"),
    ([{"name": "a"}], r"sources.0: source 'a' needs either `list` or `folder`"),
    ([{"name": "a", "list": "x", "folder": "y"}], r"needs either"),
    ([{"name": "a", "list": "x"}, {"name": "a", "list": "y"}], r"two sources are called 'a'"),
    ([{"name": "few", "list": "x", "ratio": 0.5}, {"name": "b", "list": "y"}], r"source 'b' has no ratio and others"),
    ([{"name": "few", "list": "x", "ratio": 0.5}, {"name": "b", "list": "y", "ratio": 0.6}], r"0.5, 0.6 sum to 1.1"),
    ([{"name": "few", "list": "x", "ratio": 0}], r"sources.0.ratio: expected a number above 0 and at most 1, found 0"),
    ([{"name": "few", "list": "x", "ratio": float("nan")}], r"ratio: expected a number above 0"),
    ([{"name": "few", "list": "x", "labeled": False}], r"sources.0.labeled: unknown key; did you mean 'labelled'"),
    ([{"name": "a", "list": "x"}], r"epoch_of: no source 'few'; known: a"),
    ([{"name": "few", "folder": "x", "weights": "w.txt"}], r"sources.0.weights: one number for each line of a `list`"),
    ([{"name": "few", "list": "x", "weights": 2.0}], r"sources.0.weights: expected text"),
    ([{"name": "few", "list": "x", "weights": ""}], r"sources.0.weights: expected text that is not empty"),
    (["a"], r"sources.0: expected a section"),
])
def test_impossible_sources_are_refused(ours, sources, message):
    ours["DataLoader"]["Train"]["sources"] = sources
    with pytest.raises(ConfigError, match=message):
        resolve(ours)


def test_a_list_may_have_weights(ours):
    ours["DataLoader"]["Train"]["sources"] = [{"name": "few", "list": "few.txt", "weights": "few_weights.txt"}]
    assert resolve(ours).DataLoader.Train.sources[0].weights == "few_weights.txt"
    ours["DataLoader"]["Train"]["sources"][0].pop("weights")
    assert resolve(ours).DataLoader.Train.sources[0].weights is None


def test_ratios_may_miss_one_by_rounding(ours):
    thirds = [{"name": n, "list": n, "ratio": 1 / 3} for n in ("few", "b", "c")]
    ours["DataLoader"]["Train"]["sources"] = thirds
    assert len(resolve(ours).DataLoader.Train.sources) == 3


@pytest.mark.parametrize("change, message", [
    ({"sources": [{"name": "v", "folder": "v", "labelled": False}]}, r"Eval.sources.0.labelled: false, but accuracy"),
    ({"sources": [{"name": "v", "folder": "v", "ratio": 1.0}]}, r"DataLoader.Eval.sources: ratio is for Train"),
    ({"sources": [{"name": "v", "list": "v", "weights": "w"}]}, r"Eval.sources.0.weights: for Train; evaluation"),
    ({"drop_last": True}, r"DataLoader.Eval: drop_last is true, but evaluation counts every image once"),
    ({"batch_transform_ops": [{"MixupOperator": {}}]}, r"batch_transform_ops is for Train"),
    ({"on_corrupt": "guess"}, r"on_corrupt: expected one of stop, skip, found 'guess'"),
    ({"batch_sise": 3}, r"DataLoader.Eval.batch_sise: unknown key; did you mean 'batch_size'"),
])
def test_evaluation_counts_every_image_once_against_its_label(ours, change, message):
    ours["DataLoader"]["Eval"].update(change)
    with pytest.raises(ConfigError, match=message):
        resolve(ours)


def test_training_without_an_eval_list_has_to_be_said(ours):
    del ours["DataLoader"]["Eval"]
    with pytest.raises(ConfigError, match=r"DataLoader.Eval: missing, but Global.eval_during_train is true"):
        resolve(ours)
    ours["Global"]["eval_during_train"] = False
    assert resolve(ours).notices == ("DataLoader.Eval is missing: the teacher is not scored before training",)
    del ours["DataLoader"]
    assert resolve(ours).DataLoader.Train is None


def test_training_in_list_order_is_noticed(ours):
    assert resolve(ours).notices == ()
    ours["DataLoader"]["Train"]["shuffle"] = False
    assert resolve(ours).notices == ("DataLoader.Train: shuffle is false, images come in the order of their lists",)
