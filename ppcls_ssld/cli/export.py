"""`ppcls-ssld export`, `tools/export_model.py`: the student alone, for Paddle Inference, and a parity check."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace

import numpy as np

from ..errors import EXIT_DONE, EXIT_USER, ConfigError, DataError
from .main import add_config_arguments

PARITY_IMAGES = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--format", choices=("auto", "json", "pdmodel"), default="auto",
                        help="json: Paddle 3; pdmodel: Paddle 2 too; auto: all that this Paddle can write")


def run(args: argparse.Namespace) -> int:
    from ..config import load_config
    from ..export import export_network, inference_yml, parity_report, preprocessing_of, write_parity
    from ..inference import InferenceEngine
    from .student import class_names, load_student

    config = load_config(args.config, args.override)
    operations, labels = preprocessing_of(config), class_names(config)
    # What can be refused is refused before the first file of an earlier export is replaced.
    if not re.fullmatch(r"cpu|gpu(:\d+)?", config.Global.device):
        raise ConfigError(f"Global.device: an exported network is compared on cpu, gpu or gpu:N, found "
                          f"'{config.Global.device}'; take -o Global.device=cpu")
    described = inference_yml(config.Arch.network(config.Arch.infer_model_name).name, operations, config.Infer.topk,
                              labels, config.Infer.attributes)
    network = load_student(config, "export")
    head = "sigmoid" if config.Global.use_multilabel else "softmax"
    files = export_network(network, config.Global.save_inference_dir, config.Global.image_shape, args.format, head=head,
                           description=described)
    print(f"{files.folder}: {', '.join(p.name for p in (*files.programs, files.params))}, inference.yml")
    for reason in files.left_out:
        print(f"left out: {reason}")
    source, images = _parity_images(config, operations)
    reports = {}
    for program in files.programs:
        engine = InferenceEngine(program, config.Global.device)
        reports[program.name] = parity_report(network, engine, images, head, source)
        verdict = "" if reports[program.name].passed() else ": FAILED, do not use it"
        print(f"{engine.backend}: {reports[program.name].summary()}{verdict}", flush=True)
    write_parity(files.folder, reports)
    return EXIT_DONE if all(report.passed() for report in reports.values()) else EXIT_USER


def _parity_images(config, operations) -> tuple[str, list[np.ndarray]]:
    """(where from, float32 batches): up to 64 images of the Eval list, else of Infer.infer_imgs, else noise."""
    for source, images_of in (("Eval list", _eval_images), ("Infer.infer_imgs", _infer_images)):
        try:
            if images := images_of(config, operations):
                return source, images
        except DataError as e:
            print(f"parity: the {source} cannot be read ({e})", file=sys.stderr, flush=True)
    noise = np.random.default_rng(0).standard_normal((1, PARITY_IMAGES, *config.Global.image_shape))
    return "random input only", list(noise.astype(np.float32))


def _eval_images(config, _) -> list[np.ndarray]:
    from ..arch import on_device
    from ..data import EvalReader

    if config.DataLoader.Eval is None:
        return []
    loader = config.DataLoader.Eval
    few = replace(loader, num_workers=0, batch_size=min(loader.batch_size, PARITY_IMAGES))
    reader = EvalReader(few, config.Arch.class_num, 0, 1, PARITY_IMAGES, multilabel=config.Global.use_multilabel)
    return [on_device(batch).numpy() for batch in reader.batches() if len(batch)]  # some hold corrupt images alone


def _infer_images(config, operations) -> list[np.ndarray]:
    from deploy.predict import list_images

    from ..data.pixels import pipeline, read

    if not config.Infer.infer_imgs:
        return []
    preprocess = pipeline(operations)
    return [preprocess(read(path))[None] for path in list_images([config.Infer.infer_imgs])[:PARITY_IMAGES]]
