"""`inference.yml`: what an exported network needs to be told apart from its weights."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..atomic import write_atomic
from ..attributes import GENERIC
from ..config.readonly import plain
from ..config.schema import Entry, RunConfig
from ..data.pixels import number, pipeline
from ..errors import ConfigError

DESCRIPTION = "inference.yml"
ADVICE = "free some space, then export again"


def preprocessing_of(config: RunConfig) -> tuple[Entry, ...]:
    """Infer.transforms, or the Eval transforms when the config has none of its own; ConfigError when it has neither."""
    if config.Infer.transforms:
        return config.Infer.transforms
    if config.DataLoader.Eval is not None and config.DataLoader.Eval.transform_ops:
        return config.DataLoader.Eval.transform_ops
    raise ConfigError("Infer.transforms and DataLoader.Eval.dataset.transform_ops are both empty, so nobody knows how "
                      "images are prepared for the network; write one of them")


def write_inference_yml(folder: str | os.PathLike, model_name: str, transform_ops: Sequence[Entry], topk: int = 5,
                        labels: Sequence[str] = (), attributes: Entry | None = None) -> Path:
    """Write `folder/inference.yml` in PaddleClas's layout (ppcls/utils/config.py, dump_infer_config, 2.6), atomically.

    Global.model_name, PreProcess.transform_ops, PostProcess.Topk {topk, label_list}. As there, decoding is left to the
    predictor, which gives uint8 RGB [H, W, 3]; `scale: 1.0/255.0` becomes a number; the result is [3, H, W].
    attributes: for several labels an image, instead of Topk: {name: arguments} of `attributes.py`. PaddleClas's own
    predictor (deploy/python) reads its named sets; MultiLabelThreshOutput with a label_list is read by PaddleX.
    ConfigError, and nothing is written, for operations that a predictor does not know.
    """
    return write_atomic(Path(folder) / DESCRIPTION, inference_yml(model_name, transform_ops, topk, labels, attributes),
                        advice=ADVICE)


def inference_yml(model_name: str, transform_ops: Sequence[Entry], topk: int = 5, labels: Sequence[str] = (),
                  attributes: Entry | None = None) -> str:
    """What `write_inference_yml` writes."""
    operations = _for_predictor(transform_ops)
    pipeline(operations, "the preprocessing of inference.yml")
    (name, arguments), = (attributes or {"Topk": {"topk": topk}}).items()
    post = {name: plain(arguments)}
    if name not in ("Topk", GENERIC):
        post = {"main_indicator": name, **post}  # whose answer PaddleClas's predictor is to give
    elif labels:
        post[name]["label_list"] = list(labels)
    tree = {"Global": {"model_name": model_name}, "PreProcess": {"transform_ops": operations}, "PostProcess": post}
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _for_predictor(transform_ops: Sequence[Entry]) -> list[dict[str, Any]]:
    operations: list[dict[str, Any]] = []
    for entry in transform_ops:
        (name, arguments), = entry.items()
        arguments = plain(arguments)
        if name == "DecodeImage":
            if arguments and (not arguments.get("to_rgb", True) or arguments.get("channel_first")):
                raise ConfigError(f"DecodeImage: {arguments}: predictors give RGB, channels last; train on that too "
                                  f"(to_rgb: True, channel_first: False)")
            continue
        if name == "NormalizeImage" and arguments:
            if arguments.get("scale") is not None:
                arguments["scale"] = number(arguments["scale"])
            arguments.setdefault("channel_num", 3)
        operations.append({name: arguments or None})
    # PaddleClas's datasets turn images to [3, H, W] behind the transforms; a predictor has no dataset.
    if not any("ToCHWImage" in operation for operation in operations):
        operations.append({"ToCHWImage": None})
    return operations
