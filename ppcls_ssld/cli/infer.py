"""`ppcls-ssld infer`, `tools/infer.py`: classes or attributes of images, by the trained or the exported network."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

from ..errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE_OR_FOLDER", help="instead of Infer.infer_imgs")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML of the run; not needed with --model, and "
                        "goes before what the export says of top-k, thresholds and class names")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE",
                        help="change one value, such as -o Infer.infer_imgs=photos")
    parser.add_argument("--model", metavar="DIR", help="an exported network instead of Global.pretrained_model")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    from deploy.predict import list_images, print_predictions
    from deploy.predictor import Predictor

    if not args.config and not args.model:
        raise ConfigError("nothing to infer with: give -c FILE (the YAML of the run), or --model DIR (an export)")
    if args.override and not args.config:
        raise ConfigError(f"-o {args.override[0]}: changes the YAML of a run, and none is given; add -c FILE, or leave "
                          "it out")
    config = None
    if args.config:
        from ..config import load_config

        config = load_config(args.config, args.override)
    paths = args.images or ([config.Infer.infer_imgs] if config and config.Infer.infer_imgs else [])
    if not paths:
        raise ConfigError("no images: name files or folders on the command line, or set Infer.infer_imgs")
    images = list_images(paths)
    if args.model and config:
        classifier = Predictor(args.model, config.Global.device, **_post_process(config))
    else:
        classifier = Predictor(args.model) if args.model else _eager(config)
    return print_predictions(classifier, images, config.Infer.batch_size if config else 32, args.json)


def _post_process(config) -> dict[str, Any]:
    """What the YAML says of answers, for a Predictor: it goes before inference.yml, as with the trained network."""
    from ..attributes import attributes_of
    from .student import class_names

    said = config.source.get("Infer") or {}
    post, answers = said.get("PostProcess") or {}, {"labels": class_names(config) or None}
    if config.Infer.attributes and post:
        found = attributes_of(*next(iter(config.Infer.attributes.items())))
        named = any("threshold" in key for key in post)  # else they are defaults that nobody wrote
        answers["attributes"] = found if named else replace(found, thresholds=())
    if said.get("topk") or post.get("topk"):
        answers["topk"] = config.Infer.topk
    return answers


def _eager(config):
    """A Classifier around the live network with the weights of Global.pretrained_model."""
    import paddle

    from deploy.predictor import Classifier

    from ..arch import logits_of
    from ..attributes import attributes_of
    from ..export import preprocessing_of
    from .student import class_names, load_student

    network = load_student(config, "infer with")
    entry = config.Infer.attributes
    head = paddle.nn.functional.sigmoid if entry else paddle.nn.functional.softmax

    @paddle.no_grad()
    def forward(images):
        return head(logits_of(network(paddle.to_tensor(images)))).numpy()

    attributes = attributes_of(*next(iter(entry.items()))) if entry else None
    return Classifier(forward, preprocessing_of(config), config.Infer.topk, class_names(config), attributes)
