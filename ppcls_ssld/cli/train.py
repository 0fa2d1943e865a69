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
    from ..engine import train

    if args.resume and any(o.startswith("Global.checkpoints=") for o in args.override):
        raise ConfigError("--resume and -o Global.checkpoints=... are two ways to say where to go on from; give one")
    resume = ["Global.checkpoints=auto"] if args.resume else []
    train(load_config(args.config, [*args.override, *resume]))
    return 0
