"""`ppcls-ssld VERB ...`: finds the verb, runs it, turns errors into one message and an exit code."""

from __future__ import annotations

import zlib  # noqa: F401  before Paddle: loading Paddle 2.6.2 first can break later decompression
import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence

from .. import __version__
from ..errors import EXIT_DONE, SsldError

VERBS = {
    "demo": "the whole method on real images in a few minutes",
    "mine": "from a pool of unlabelled images to the list worth distilling on",
    "targets": "ask the teacher once: store its answers, verify them",
    "pack": "a list of images -> a few large files of smaller ones, which are read several times as fast",
    "train": "distil a student (or train a network on labels)",
    "eval": "top-1 and top-5 of a student on a labelled list",
    "export": "student -> Paddle Inference files, with a parity check",
    "bench": "where the time of a training step goes, and what to change",
    "infer": "top-k classes of images or folders",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns its exit code (errors.py)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Paddle's chatter about compilers and executors; its errors still come through. Both before it is imported.
    os.environ.setdefault("GLOG_minloglevel", "2")
    warnings.filterwarnings("ignore", message="No ccache found")
    parser = argparse.ArgumentParser(prog="ppcls-ssld", description="Label-free distillation of better backbones.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in VERBS.items():
        sub = verbs.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            module = importlib.import_module(f".{name}", __package__)  # only the verb asked for is imported
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    args = parser.parse_args(argv)
    try:
        return args.run(args) or EXIT_DONE
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return e.exit_code


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """PaddleClas's two flags: -c FILE and repeated -o key.path=value."""
    parser.add_argument("-c", "--config", required=True, metavar="FILE", help="YAML of the run")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE",
                        help="change one value, such as -o Global.epochs=10 or -o Loss.Train.0.SymmetricKL.weight=2")
