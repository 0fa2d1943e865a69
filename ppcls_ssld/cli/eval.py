"""`ppcls-ssld eval`, `tools/eval.py`: accuracy of the weights in Global.pretrained_model on DataLoader.Eval."""

from __future__ import annotations

import argparse
import json

from .main import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a sentence")


def run(args: argparse.Namespace) -> int:
    from .. import parallel
    from ..config import load_config
    from ..engine import evaluate

    result = evaluate(load_config(args.config, args.override))
    if not parallel.is_main():
        return 0
    if args.json:
        print(json.dumps({**result.accuracy, "images": result.images, "loss": result.loss,
                          "skipped": list(result.skipped)}))
    else:
        print("  ".join(f"{name} {value:.2%}" for name, value in result.accuracy.items())
              + f"  on {result.images} images" + (f"  loss {result.loss:.4f}" if result.loss is not None else ""))
        for path in result.skipped:
            print(f"left out, corrupt: {path}")
    return 0
