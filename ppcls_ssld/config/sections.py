"""The tree of a config -> RunConfig, one reader per section. Arch and DataLoader have files of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..attributes import GENERIC, NAMED, THRESHOLD, attributes_of
from ..errors import ConfigError
from ..registry import nearest
from .check import Section, fail
from .limits import LIMITS
from .loaders import read_data
from .networks import read_arch
from .paddleclas import LOSSES, REPORTS_ONLY, REPORTS_ONLY_OF_ATTRIBUTES
from .schema import (AmpConfig, ArchConfig, EmaConfig, Entry, GlobalConfig, InferConfig, LossConfig, MetricConfig,
                     OptimizerConfig, RunConfig)

SECTIONS = ("Global", "Arch", "Loss", "Optimizer", "DataLoader", "AMP", "EMA", "Metric", "Infer")


def read_run(tree: Mapping[str, Any]) -> RunConfig:
    """Everything checked; `source` and read-only wrapping are left to the caller."""
    notices: list[str] = []
    root = Section(tree, "", notices, "")
    for name in SECTIONS:
        root.take(name)
    root.done()  # first, so that `Archs:` is a misspelt section and not a missing one
    global_section = root.section("Global", "Global")
    legacy_class_num = global_section.value("class_num", int)
    general = _read_global(global_section)
    arch = read_arch(root, legacy_class_num, general.use_multilabel)
    data = read_data(root.section("DataLoader", "DataLoader"), general.use_multilabel)
    if data.Train and not data.Eval:
        _check_without_eval(general, arch, notices)
    return RunConfig(
        Global=general,
        Arch=arch,
        Loss=_read_loss(root.section("Loss")),
        Optimizer=_read_optimizer(root.take("Optimizer"), root),
        DataLoader=data,
        AMP=_read_amp(root.section("AMP", "AMP")),
        EMA=_read_ema(root),
        Metric=_read_metric(root.section("Metric"), arch, general.use_multilabel),
        Infer=_read_infer(root.section("Infer"), arch, general.use_multilabel),
        notices=tuple(notices),  # last: the readers above add to them
    )


def _read_global(section: Section) -> GlobalConfig:
    config = GlobalConfig(**section.fields(GlobalConfig))
    section.done()
    return config


def _read_loss(section: Section) -> LossConfig:
    if not section.entries("Train"):
        fail(section.at("Train"), "missing; give at least one `- Name: {weight: 1.0}`")
    for path, name, _ in section.entries("Train"):
        if name in LOSSES:
            fail(path, f"cannot be computed here: {LOSSES[name]}")
    config = LossConfig(**section.fields(LossConfig))
    section.done()
    return config


def _read_optimizer(tree: Any, root: Section) -> OptimizerConfig:
    """PaddleClas's keys beside our own; what is neither goes to the optimiser's constructor."""
    if isinstance(tree, (list, tuple)):
        fail("Optimizer", "a list of optimisers with scopes cannot be built here: one optimiser trains all; "
                          "give the learning rates of parts of a network with `layer_lr`")
    section = Section(tree, "Optimizer", root.notices, "Optimizer")
    values = section.fields(OptimizerConfig, "name", "clip_norm", "layer_lr", "l2", "no_decay", "no_decay_1d")
    name = values.get("name", OptimizerConfig.name)
    arguments = {}
    l2_keys = [key for key in ("l2", "regularizer", "weight_decay") if section.has(key)]
    if len(l2_keys) > 1:
        fail(section.at(l2_keys[1]), f"beside `{l2_keys[0]}`; both mean weight decay, keep one of them")
    if name == "AdamW":  # its weight_decay acts on the weights, not through the gradient
        if l2_keys and l2_keys != ["weight_decay"]:
            fail(section.at(l2_keys[0]), f"{name} takes `weight_decay`, which is no L2 term")
        if l2_keys:
            arguments["weight_decay"] = section.value("weight_decay", float)
    elif "weight_decay" in l2_keys:
        values["l2"] = section.value("weight_decay", float, limit=LIMITS[OptimizerConfig]["l2"])
    elif "regularizer" in l2_keys:
        values["l2"] = _read_regularizer(section.section("regularizer"))
    if section.has("no_weight_decay_name"):
        values["no_decay"] = (*values.get("no_decay", ()), *section.value("no_weight_decay_name", str).split())
    if section.has("one_dim_param_no_weight_decay"):
        values["no_decay_1d"] = section.value("one_dim_param_no_weight_decay", bool)
    if section.has("lr"):
        values["lr"] = _read_lr(section)
    if "clip_norm" in values:
        section.notices.append(f"{section.at('clip_norm')} bounds the norm of all gradients together; PaddleClas "
                               "bounds each tensor's by itself")
    arguments |= {key: value for key, value in section.rest().items() if value is not None}
    return OptimizerConfig(arguments=arguments, **values)


def _read_regularizer(section: Section) -> float:
    name = section.required("name", str)
    if name != "L2":
        fail(section.at("name"), f"expected L2, found '{name}'")
    l2 = section.required("coeff", float, LIMITS[OptimizerConfig]["l2"])
    section.done()
    return l2


def _read_lr(section: Section) -> Mapping[str, Any]:
    """A number means a constant rate, as does a section without a name."""
    if not isinstance(section.take("lr"), Mapping):
        return {"name": "Constant", "learning_rate": section.value("lr", float)}
    return {"name": "Constant", **section.value("lr", Mapping[str, Any])}


def _read_amp(section: Section) -> AmpConfig:
    values = section.fields(AmpConfig)
    section.done()
    return AmpConfig(**{"use_amp": True, **values}) if values else AmpConfig()  # as in PaddleClas: an AMP section is on


def _read_ema(root: Section) -> EmaConfig | None:
    if not root.has("EMA"):
        return None
    section = root.section("EMA")
    values = section.fields(EmaConfig)
    section.done()
    return EmaConfig(**values)


def _read_metric(section: Section, arch: ArchConfig, multilabel: bool) -> MetricConfig:
    """Ours: {topk}. PaddleClas's: {Train: [- TopkAcc: ...], Eval: [...]}; both lists' k are reported.

    With several labels an image there is nothing to choose: they are counted by metric.AttributeAccuracy.
    """
    if multilabel:
        return _read_attribute_metric(section)
    if section.has("Train") or section.has("Eval"):
        values = _read_metric_lists(section, arch)
    else:
        values = section.fields(MetricConfig)
        _check_metric(section, values, arch)
    section.done()
    return MetricConfig(**{"topk": tuple(k for k in MetricConfig.topk if k <= arch.class_num), **values})


def _read_attribute_metric(section: Section) -> MetricConfig:
    for mode in ("Eval", "Train"):
        for path, name, arguments in section.entries(mode):
            if name in REPORTS_ONLY_OF_ATTRIBUTES:
                section.notices.append(f"{path} is not computed; the best model is the one with the best ma")
                continue
            if name != "ATTRMetric":
                fail(path, f"'{name}' cannot be computed with Global.use_multilabel; expected ATTRMetric")
            entry = Section(arguments, path, section.notices)
            if entry.value("threshold", float, 0.5) != 0.5:
                fail(entry.at("threshold"), "expected 0.5: a label is predicted where its probability is that or more")
            entry.done()
            section.notices.append(f"{path} takes a label as predicted where its probability is 0.5 or more; PaddleClas "
                                   "compares logits with 0.5, which is a probability of 0.62")
    if section.has("topk"):
        fail(section.at("topk"), "is accuracy among classes that exclude each other, and Global.use_multilabel is "
                                 "true; leave it out")
    section.done()
    return MetricConfig()


def _read_metric_lists(section: Section, arch: ArchConfig) -> dict[str, Any]:
    topk: dict[int, None] = {}
    roles = [network.role for network in arch.networks]
    for mode in ("Eval", "Train"):
        for path, name, arguments in section.entries(mode):
            if name in REPORTS_ONLY:
                section.notices.append(f"{path} is not computed; the best model is the one with the best top-1")
                continue
            if name == "ATTRMetric":
                fail(path, "counts several labels an image, and Global.use_multilabel is false; set it to true")
            if name not in ("TopkAcc", "DistillationTopkAcc"):
                fail(path, f"'{name}' cannot be computed here; expected TopkAcc or DistillationTopkAcc")
            if isinstance(arguments.get("topk"), int):
                arguments["topk"] = [arguments["topk"]]
            model_key = arguments.pop("model_key", None)
            if model_key is not None and model_key not in roles:
                fail(f"{path}.model_key", f"no network '{model_key}'{nearest(model_key, roles)}")
            entry = Section(arguments, path, section.notices, "metric")
            found = entry.fields(MetricConfig)
            entry.done()
            _check_metric(entry, found, arch)
            topk |= dict.fromkeys(found.get("topk", ()))
            if mode == "Eval" and model_key not in (None, arch.infer_model_name):
                fail(f"{path}.model_key", f"'{model_key}', but only Arch.infer_model_name "
                                          f"('{arch.infer_model_name}') is evaluated")
    return {"topk": tuple(topk)} if topk else {}


def _check_metric(section: Section, values: Mapping[str, Any], arch: ArchConfig) -> None:
    largest = max(values.get("topk", (1,)))
    if largest > arch.class_num:
        fail(section.at("topk"), f"{largest}, but there are {arch.class_num} classes; expected at most their number")


def _read_infer(section: Section, arch: ArchConfig, use_multilabel: bool) -> InferConfig:
    values = section.fields(InferConfig, "transforms", "infer_imgs", "batch_size", "topk", "class_id_map_file")
    post = section.section("PostProcess", "PostProcess")
    if use_multilabel:
        if "topk" in values:
            fail(section.at("topk"), "is for classes that exclude each other, and Global.use_multilabel is true; every "
                                     "attribute is answered, leave it out")
        values["attributes"] = _read_attributes(post, arch.class_num, values)
    elif section.has("PostProcess"):
        name = post.required("name", str)
        if name == "DistillationPostProcess":
            name = post.value("func", str, "Topk")
            role = post.value("model_name", str, "Student")
            if role != arch.infer_model_name:
                fail(post.at("model_name"), f"'{role}', but Arch.infer_model_name is '{arch.infer_model_name}'")
        if name == "ThreshOutput":
            section.notices.append(f"{post.path}: predictions are the top classes with their scores, not {name}'s two "
                                   f"labels; compare the score of class 1 with {post.take('threshold')}")
            post.take("label_0")
            post.take("label_1")
        elif name == GENERIC or name in NAMED:
            fail(post.at("name"), f"'{name}' cannot be done here: it is for several labels an image, Global.use_multilabel")
        elif name != "Topk":
            fail(post.at("name"), f"'{name}' cannot be done here; predictions are the top classes and scores: Topk")
        _add_once(values, post, "topk", "class_id_map_file")
    post.done()
    section.done()
    return InferConfig(**values)


def _read_attributes(post: Section, class_num: int, values: dict[str, Any]) -> Entry:
    """PostProcess, by default GENERIC, as an entry; only GENERIC has its names in a file, which goes to `values`."""
    name = post.value("name", str, GENERIC)
    _add_once(values, post, "class_id_map_file")
    if name != GENERIC and "class_id_map_file" in values:
        fail(post.at("name"), f"'{name}' has names of its own; take {GENERIC} for those of a class_id_map_file")
    arguments = {**({"threshold": THRESHOLD} if name == GENERIC else {}), **post.rest()}
    try:
        attributes_of(name, arguments).check(class_num)
    except ConfigError as e:
        fail(post.path, str(e))
    return {name: arguments}


def _add_once(values: dict[str, Any], post: Section, *names: str) -> None:
    for key, value in post.fields(InferConfig, *names).items():
        if key in values:
            fail(post.at(key), f"beside Infer.{key}; keep one of them")
        values[key] = value


def _check_without_eval(general: GlobalConfig, arch: ArchConfig, notices: list[str]) -> None:
    if general.eval_during_train:
        fail("DataLoader.Eval", "missing, but Global.eval_during_train is true; give a list to evaluate on, or set "
                                "Global.eval_during_train to false")
    if general.teacher_check_images and any(network.frozen for network in arch.networks):
        notices.append("DataLoader.Eval is missing: the teacher is not scored before training")
