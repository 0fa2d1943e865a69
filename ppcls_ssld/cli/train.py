"""`ppcls-ssld train`, `tools/train.py`: one process, or many under `python -m paddle.distributed.launch`."""

from __future__ import annotations

import argparse

from ..errors import ConfigError
from .main import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--resume", action="store_true",
                        help="go on from the newest checkpoint of Global.output_dir, if it holds one")


def run(args: argparse.Namespace) -> int:
    from ..config import load_config
    from ..config.networks import network_section
    from ..engine import train

    if args.resume and any(o.startswith("Global.checkpoints=") for o in args.override):
        raise ConfigError("--resume and -o Global.checkpoints=... are two ways to say where to go on from; give one")
    resume = ["Global.checkpoints=auto"] if args.resume else []
    config = load_config(args.config, [*args.override, *resume])
    if config.Global.pretrained_model:
        student, _ = network_section(config.source["Arch"], config.Arch.infer_model_name)
        raise ConfigError(f"Global.pretrained_model: {config.Global.pretrained_model} would not be read: training "
                          f"starts from {student}.pretrained; give the path there, and set this one to null")
    train(config)
    return 0
