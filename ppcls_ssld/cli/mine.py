"""`ppcls-ssld mine`, `tools/mine.py`: from a pool of unlabelled images to the list worth distilling on.

One process, or many under `python -m paddle.distributed.launch tools/mine.py ...`; the results are the same.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import ConfigError

STAGES = ("dedup", "score", "select")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("stage", nargs="?", choices=STAGES,
                        help="one stage alone, on what is in --output already; default: all three")
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML instead of, or below, the flags; "
                        "without it, DIR/config.yaml of an earlier run in --output DIR")
    parser.add_argument("-o", "--override", action="append", default=[], metavar="KEY=VALUE",
                        help="any value of the YAML, such as -o Dedup.candidates=50")
    parser.add_argument("--dry-run", action="store_true", help="select: statistics only, nothing is written")

    add = _Adder(parser.add_argument_group("data"))
    add("--pool", "Mine.pool", nargs="+", metavar="PATH", help="folders, lists, tar archives, patterns; read in place")
    add("--protect", "Mine.protect", nargs="+", metavar="PATH",
        help="validation and test images, of which no copy is to stay")
    add("--output", "Mine.output_dir", metavar="DIR", help="where everything goes")
    add("--device", "Mine.device", metavar="DEVICE", help="of the teacher; default cpu")
    add("--workers", "Mine.num_workers", type=int, metavar="N", help="processes that read and compare images")
    add("--seed", "Mine.seed", type=int, metavar="N", help="of the random control")

    add = _Adder(parser.add_argument_group("dedup"))
    add("--method", "Dedup.method", choices=("cascade", "paper"), help="default cascade")
    add("--embedding", "Dedup.embedding", metavar="ARCH", help="backbone whose features propose further candidates")
    add("--embedding-weights", "Dedup.embedding_weights", metavar="FILE", help="its weights")
    add("--within-pool", "Dedup.within_pool", const=True, action="store_const",
        help="of copies inside the pool keep one: most pixels, then first name")
    add("--negatives", "Dedup.negatives", nargs="+", metavar="PATH", help="images that are surely no copies of the "
        "protected ones: the thresholds are calibrated on them")
    add("--false-alarms", "Dedup.false_alarms", type=float, metavar="RATE",
        help="what calibration aims at; default 1e-3")

    add = _Adder(parser.add_argument_group("score"))
    add("--teacher", "Teacher.name", metavar="ARCH", help="PaddleClas backbone")
    add("--teacher-weights", "Teacher.pretrained", metavar="FILE", help=".pdparams of the teacher")
    add("--class-num", "Teacher.class_num", type=int, metavar="N", help="default: what the weights hold")
    add("--image-size", "Score.image_size", type=int, metavar="PX", help="centre crop; default 224")
    add("--resize-short", "Score.resize_short", type=int, metavar="PX", help="short side before it; default 8/7 of it")

    add = _Adder(parser.add_argument_group("select"))
    add("--top-k", "Select.top_k", type=int, metavar="K", help="images per class, at most; default 4000")
    add("--classes-per-image", "Select.classes_per_image", type=int, metavar="P",
        help="an image is a candidate of its P best classes; default 1")
    add("--several-classes", "Select.once", const=False, action="store_const",
        help="an image may be chosen in several classes")
    add("--score", "Select.score", choices=("probability", "logit", "margin", "entropy"), help="default probability")
    add("--min-score", "Select.min_score", type=float, metavar="S", help="leave out what scores less")
    add("--budget", "Select.budget", type=int, metavar="N", help="images over all classes, at most")
    add("--floor", "Select.floor", type=int, metavar="N", help="raise classes with fewer images by sampling weights")
    add("--cap", "Select.cap", type=float, metavar="W", help="largest sampling weight; default 10")
    add("--exclude", "Select.exclude", nargs="+", metavar="FILE", help="lists of names or ids to leave out")
    add("--no-control", "Select.control", const=False, action="store_const", help="write no random.txt")
    add("--format", "Select.format", choices=("list", "paddleclas"), help="paddleclas: 'path 0' on each line")
    add("--root", "Select.root", metavar="DIR", help="write names below DIR relative to it")
    add("--class-names", "Select.class_names", metavar="FILE", help="for the report")


def run(args: argparse.Namespace) -> int:
    from ..config.mine import load_mine
    from ..mining.run import mine

    flags: dict[str, dict[str, Any]] = {}
    for key, value in vars(args).items():
        section, dot, name = key.partition(".")
        if dot and value is not None:
            flags.setdefault(section, {})[name] = value
    config_file, output = args.config, flags.get("Mine", {}).get("output_dir")
    if not config_file and output and (Path(output) / "config.yaml").is_file():
        config_file = Path(output) / "config.yaml"
    if args.stage in ("score", "select") and not config_file:
        raise ConfigError(f"mine {args.stage}: expected the --output of an earlier `mine`, with its config.yaml, or -c "
                          f"FILE; found {'no config.yaml in ' + output if output else 'neither'}")
    if args.dry_run and args.stage != "select":
        raise ConfigError("--dry-run belongs to `mine select`, which then only prints what it would choose")
    mine(load_mine(config_file, args.override, flags), [args.stage] if args.stage else list(STAGES), args.dry_run)
    return 0


class _Adder:
    """Adds flags whose destination is the key path of the YAML that they set."""

    def __init__(self, group: Any):
        self._group = group

    def __call__(self, flag: str, key_path: str, **arguments: Any) -> None:
        self._group.add_argument(flag, dest=key_path, default=None, **arguments)
