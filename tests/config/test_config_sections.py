"""Global, Loss, Optimizer, AMP, EMA, Metric, Infer, and PaddleClas's keys that have no field."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest

from ppcls_ssld.config import resolve, schema
from ppcls_ssld.config.limits import LIMITS
from ppcls_ssld.errors import ConfigError


def optimizer(tree, **keys):
    return resolve({**tree, "Optimizer": keys}).Optimizer


def test_defaults_live_in_the_schema_alone(ours):
    config = resolve(ours)
    assert config.AMP == schema.AmpConfig() and config.EMA is None and config.Infer == schema.InferConfig()
    assert config.Optimizer == schema.OptimizerConfig() and config.Metric == schema.MetricConfig()
    assert config.Global == schema.GlobalConfig(epochs=2, image_shape=(3, 32, 32))


def test_null_means_not_given(theirs):
    theirs["Global"].update(epochs=None, seed=None, max_steps=None)
    config = resolve(theirs)
    assert (config.Global.epochs, config.Global.seed, config.Global.max_steps) == (1, 0, None)


def test_every_limit_belongs_to_a_field_and_holds_for_its_default():
    for cls, limits in LIMITS.items():
        fields = {f.name: f.default for f in dataclasses.fields(cls)}
        assert get_type_hints(cls).keys() >= limits.keys()
        for name, limit in limits.items():
            if fields[name] not in (dataclasses.MISSING, None):
                assert limit.allows(fields[name]), (cls, name)


@pytest.mark.parametrize("key, value, expected", [
    ("epochs", 0, "a positive integer"), ("epochs", 1.5, "a positive integer"), ("save_steps", 0, "a positive integer"),
    ("update_freq", -1, "a positive integer"), ("keep_checkpoints", 0, "a positive integer"),
    ("seed", -1, "0 or a positive integer"), ("use_visualdl", "no", "true or false"),
    ("image_shape", [3, 32], "three positive integers"), ("image_shape", [4, 32, 32], "three positive integers"),
    ("image_shape", [3, 32, "x"], "three positive integers"), ("device", "gpuu", "cpu, gpu, gpu:N"),
    ("pretrained_model", 3, "text or null"),
    ("output_dir", 2024, "text that is not empty, found 2024; put it in quotes"),
])
def test_global_values_are_checked(ours, key, value, expected):
    ours["Global"][key] = value
    with pytest.raises(ConfigError, match=rf"config: Global.{key}: expected {expected}"):
        resolve(ours)


@pytest.mark.parametrize("device", ["cpu", "gpu", "gpu:3", "xpu"])
def test_devices_of_paddle_are_accepted(ours, device):
    ours["Global"]["device"] = device
    assert resolve(ours).Global.device == device


@pytest.mark.parametrize("section, message", [
    ("Global", r"Global: expected a section of `key: value`, found \[1\]"),
    ("Archs", r"Archs: unknown key; did you mean 'Arch'"),
    ("UnLabelLoss", r"UnLabelLoss: .* cannot be done here: unlabelled images are sources"),
    ("Slim", r"Slim: .* cannot be done here: pruning"),
])
def test_sections_are_checked(ours, section, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**ours, section: [1]})


@pytest.mark.parametrize("loss, message", [
    (None, r"Loss.Train: missing"), ({}, r"Loss.Train: missing"), ({"Train": []}, r"Loss.Train: missing"),
    ({"Train": ["CELoss"]}, r"Loss.Train.0: expected one `Name"), ({"Train": "CELoss"}, r"Loss.Train: expected a list"),
    ({"Train": [{"A": None}], "Evals": []}, r"Loss.Evals: unknown key; did you mean 'Eval'"),
])
def test_a_run_needs_a_training_loss(ours, loss, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**ours, "Loss": loss})


def test_paddleclas_optimizer_keys_are_mapped(theirs):
    result = optimizer(theirs, name="Momentum", momentum=0.9, use_nesterov=True, epsilon=None, lr=0.1,
                       layer_lr={"conv": 0}, regularizer={"name": "L2", "coeff": 1e-4},
                       no_weight_decay_name=".bias norm", one_dim_param_no_weight_decay=True)
    assert result == schema.OptimizerConfig(
        "Momentum", {"momentum": 0.9, "use_nesterov": True}, {"name": "Constant", "learning_rate": 0.1}, l2=1e-4,
        layer_lr={"conv": 0.0}, no_decay=(".bias", "norm"), no_decay_1d=True)


def test_weight_decay_is_l2_except_where_it_is_decoupled(theirs):
    assert optimizer(theirs, name="Momentum", weight_decay=1e-4).l2 == 1e-4
    adamw = optimizer(theirs, name="AdamW", weight_decay=0.05, beta1=0.8)
    assert adamw.l2 == 0 and adamw.arguments == {"weight_decay": 0.05, "beta1": 0.8}


def test_a_rate_without_a_name_is_constant(theirs):
    assert optimizer(theirs, lr={"learning_rate": 0.2}).lr == {"name": "Constant", "learning_rate": 0.2}


@pytest.mark.parametrize("keys, message", [
    ({"regularizer": {"name": "L1", "coeff": 1.0}}, r"Optimizer.regularizer.name: expected L2, found 'L1'"),
    ({"regularizer": {"name": "L2"}}, r"Optimizer.regularizer.coeff: missing"),
    ({"regularizer": {"name": "L2", "coeff": -1}}, r"coeff: expected 0 or a positive number, found -1"),
    ({"regularizer": {"name": "L2", "coeff": 1}, "weight_decay": 1e-4}, r"weight_decay: beside `regularizer`"),
    ({"name": "AdamW", "regularizer": {"name": "L2", "coeff": 1}}, r"AdamW takes `weight_decay`"),
    ({"clip_norm": 0}, r"Optimizer.clip_norm: expected a positive number, found 0"),
    ({"clip_norm": float("inf")}, r"Optimizer.clip_norm: expected a positive number, found inf"),
    ({"layer_lr": {"conv": -1}}, r"Optimizer.layer_lr: expected 0 or a positive number for each"),
    ({"lr": "fast"}, r"Optimizer.lr: expected a number, found 'fast'"),
    ({"no_weight_decay_name": ["a"]}, r"no_weight_decay_name: expected text, found \['a'\]"),
])
def test_optimizers_that_mean_two_things_are_refused(theirs, keys, message):
    with pytest.raises(ConfigError, match=message):
        optimizer(theirs, **keys)


def test_a_list_of_optimizers_is_refused(theirs):
    with pytest.raises(ConfigError, match=r"Optimizer: a list of optimisers with scopes"):
        resolve({**theirs, "Optimizer": [{"SGD": {"scope": "backbone"}}]})


def test_an_amp_section_is_on_unless_it_says_otherwise(theirs):
    assert resolve({**theirs, "AMP": {"scale_loss": 128}}).AMP == schema.AmpConfig(use_amp=True, scale_loss=128.0)
    assert not resolve({**theirs, "AMP": {"use_amp": False, "level": "O2"}}).AMP.use_amp
    assert not resolve({**theirs, "AMP": {}}).AMP.use_amp


@pytest.mark.parametrize("section, keys, message", [
    ("AMP", {"level": "O3"}, r"AMP.level: expected one of O1, O2, found 'O3'"),
    ("AMP", {"dtype": "fp16"}, r"AMP.dtype: expected one of float16, bfloat16"),
    ("AMP", {"scale_los": 1}, r"AMP.scale_los: unknown key; did you mean 'scale_loss'"),
    ("EMA", {"decay": 1.0}, r"EMA.decay: expected a number from 0 to below 1"),
    ("EMA", {"decy": 0.9}, r"EMA.decy: unknown key; did you mean 'decay'"),
    ("Infer", {"topk": 0}, r"Infer.topk: expected a positive integer"),
    ("Infer", {"topk": 1, "PostProcess": {"name": "Topk", "topk": 5}}, r"Infer.PostProcess.topk: beside Infer.topk"),
    ("Infer", {"PostProcess": {"name": "PersonAttribute"}}, r"'PersonAttribute' cannot be done here"),
    ("Infer", {"PostProcess": {"name": "Topk", "delimiter": ","}}, r"PostProcess.delimiter: ',' cannot be done here"),
    ("Metric", {"topk": [1, 11]}, r"Metric.topk: 11, but there are 10 classes"),
    ("Metric", {"topk": []}, r"Metric.topk: expected a list of positive integers"),
    ("Metric", {"Train": [{"DistillationTopkAcc": {"model_key": "Studnt"}}]}, r"model_key: no network 'Studnt'; did you mean 'Student'"),
    ("Metric", {"Eval": [{"mAP": None}]}, r"Metric.Eval.0.mAP: 'mAP' cannot be computed here"),
    ("Metric", {"Eval": [{"DistillationTopkAcc": {"model_key": "Teacher"}}]}, r"but only Arch.infer_model_name"),
    ("Metric", {"Train": [{"TopkAcc": {"top": 1}}]}, r"Metric.Train.0.TopkAcc.top: unknown key; did you mean 'topk'"),
])
def test_small_sections_are_checked(ours, section, keys, message):
    with pytest.raises(ConfigError, match=message):
        resolve({**ours, section: keys})


def test_ema_is_off_when_it_is_null_and_has_a_default_decay(ours):
    assert resolve({**ours, "EMA": None}).EMA is None
    assert resolve({**ours, "EMA": {}}).EMA == schema.EmaConfig()


def test_paddleclas_metric_lists_report_the_k_of_both(theirs):
    assert resolve(theirs).Metric == schema.MetricConfig(topk=(1, 2, 5))
    theirs["Metric"] = {"Train": None, "Eval": [{"TopkAcc": {"topk": 3}}]}
    assert resolve(theirs).Metric == schema.MetricConfig(topk=(3,))


def test_the_default_k_never_exceeds_the_classes(ours):
    ours["Arch"]["class_num"] = 4
    assert resolve(ours).Metric.topk == (1,)


def test_paddleclas_postprocess_gives_k_and_class_names(theirs):
    infer = resolve(theirs).Infer
    assert (infer.topk, infer.class_id_map_file, infer.batch_size) == (3, "./classes.txt", 2)
    assert infer.transforms == ({"DecodeImage": {"to_rgb": True}}, {"ToCHWImage": None})


@pytest.mark.parametrize("section, keys, notice", [
    ("Global", {"to_static": True}, r"Global.to_static has no effect: training is eager"),
    ("Global", {"print_mem_info": True}, r"Global.print_mem_info has no effect"),
    ("AMP", {"use_amp": False, "use_fp16_test": True}, r"AMP.use_fp16_test has no effect: evaluation runs in float32"),
    ("Optimizer", {"clip_grad": 5.0}, r"Optimizer.clip_grad has no effect: it has none in PaddleClas either"),
    ("Optimizer", {"clip_norm": 5.0}, r"Optimizer.clip_norm bounds the norm of all gradients together"),
    ("Metric", {"Eval": [{"TprAtFpr": None}]}, r"Metric.Eval.0.TprAtFpr is not computed"),
    ("Infer", {"PostProcess": {"name": "ThreshOutput", "threshold": 0.9, "label_0": "no"}}, r"class 1 with 0.9"),
])
def test_keys_without_effect_are_noticed_with_the_reason(ours, section, keys, notice):
    found, = resolve({**ours, section: {**ours.get(section, {}), **keys}}).notices
    assert notice in found


@pytest.mark.parametrize("keys", [{"to_static": False, "use_dali": False, "use_multilabel": False},
                                  {"eval_mode": "classification", "train_mode": None, "image_channel": 3}])
def test_keys_that_ask_for_nothing_pass_in_silence(ours, keys):
    ours["Global"].update(keys)
    assert resolve(ours).notices == ()


@pytest.mark.parametrize("key, value, reason", [
    ("use_dali", True, "decoded by OpenCV"),
    ("eval_mode", "retrieval", "not retrieval"), ("train_mode", "progressive", "one image size"),
    ("iter_per_epoch", 100, "Global.max_steps"), ("image_channel", 4, "3 channels"),
])
def test_keys_that_would_change_the_result_are_refused_with_the_reason(ours, key, value, reason):
    ours["Global"][key] = value
    with pytest.raises(ConfigError, match=rf"Global.{key}: {value!r} cannot be done here: .*{reason}"):
        resolve(ours)
