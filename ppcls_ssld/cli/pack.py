"""`ppcls-ssld pack`, `tools/pack.py`: images of a list -> a few large shards of smaller JPEGs, and the list of those.

One process with --workers, or many under `python -m paddle.distributed.launch tools/pack.py ...`: the same bytes.
"""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from ..errors import ConfigError

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="PATH", help="a list, a folder, a tar archive, or a pattern in quotes")
    parser.add_argument("--output", required=True, metavar="DIR", help="new folder of the shards and list.txt, or "
                        "that of a run to go on with")
    parser.add_argument("--root", metavar="DIR", help="folder of a list's relative paths; default: the list's own")
    parser.add_argument("--delimiter", help="between path and label of a list; default: a space or a tab")
    parser.add_argument("--labels", choices=("auto", "none", "folders"), default="auto", help="auto: those of a list "
                        "that has them; none: drop them; folders: each folder right below PATH is a class")
    parser.add_argument("--short-side", type=int, default=256, metavar="PX", help="of the packed images, never "
                        "enlarging; default 256")
    parser.add_argument("--quality", type=int, default=90, metavar="Q", help="of the JPEGs, 1 to 100; default 90")
    parser.add_argument("--shard-size", default="1GiB", metavar="SIZE", help="about; default 1GiB")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that encode; default: all cores")
    parser.add_argument("--on-corrupt", choices=("stop", "skip"), default="stop", help="skip: an image that cannot be "
                        "read keeps its line, with its original's name, and is listed in quarantine.csv")


def run(args: argparse.Namespace) -> int:
    from .. import parallel
    from ..pack.encode import Encoding
    from ..pack.inputs import open_inputs
    from ..pack.run import PackConfig, pack

    rank, world = parallel.rank(), parallel.world_size()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = cores // world if args.workers is None else args.workers
    if workers < 0 or args.short_side < 1 or not 1 <= args.quality <= 100:
        raise ConfigError("expected --workers from 0, --short-side from 1 and --quality from 1 to 100, found "
                          f"{workers}, {args.short_side} and {args.quality}")
    config = PackConfig(Path(args.output), Encoding(args.short_side, args.quality), _bytes(args.shard_size),
                        0 if workers == 1 else workers, args.on_corrupt)
    inputs = open_inputs(args.images, args.root, args.delimiter, args.labels, args.output)
    done = pack(inputs, config, rank, world)
    if done:
        skipped = f", {done.skipped:,} that cannot be read left where they are (quarantine.csv)" if done.skipped else ""
        print(f"{done.images:,} images in {done.packed_bytes / 2**20:,.0f} MiB, {done.copied:,} of them copied as they "
              f"were{skipped}\nfor training: image_root: {config.output}, cls_label_path: {config.output / 'list.txt'}")
    return 0


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _UNITS or float(match[1]) * _UNITS[match[2]] < 1:
        raise ConfigError(f"--shard-size: expected a size such as 1GiB or 500MB, found {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])
