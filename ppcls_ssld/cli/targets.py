"""`ppcls-ssld targets`, `tools/targets.py`: ask the teacher once, store what it says, look whether it is still right.

One process, or many under `python -m paddle.distributed.launch tools/targets.py write ...`; the files are the same.
"""

from __future__ import annotations

import argparse
import json

from ..config.schema import RunConfig
from ..errors import ConfigError
from .main import add_config_arguments


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="write|verify|info")
    write = actions.add_parser("write", help="make the targets of a training config, or those still missing")
    add_config_arguments(write)
    write.add_argument("--output", metavar="DIR", help="where they go; default: Global.targets of the config")
    write.add_argument("--views", type=int, default=1, metavar="N", help="views per image, used in turn over the "
                       "epochs; default 1")
    write.add_argument("--top-k", type=int, default=10, metavar="K", help="classes kept of each answer; default 10")
    write.add_argument("--bits", type=int, default=12, choices=(8, 12, 16), help="of each probability; default 12")
    write.add_argument("--tail", default="student", choices=("student", "uniform"),
                       help="how training spreads what is left for the other classes; default student")
    write.add_argument("--block", type=int, metavar="N", help="images in a part file; default: by the list's length")
    verify = actions.add_parser("verify", help="all checksums, and a sample shown to the teacher again")
    verify.add_argument("folder", metavar="DIR")
    add_config_arguments(verify)
    verify.add_argument("--samples", type=int, default=256, metavar="N", help="views to look at again; default 256")
    verify.add_argument("--tolerance", type=float, default=0.01, metavar="P", help="of a probability, beside what the "
                        "stored bits lose; default 0.01")
    verify.add_argument("--accept", action="store_true", help="if the answers agree, let training use these targets "
                        "with the transforms and libraries as they are now")
    info = actions.add_parser("info", help="what is in a folder of targets")
    info.add_argument("folder", metavar="DIR")
    info.add_argument("--json", action="store_true", help="the whole header")


def run(args: argparse.Namespace) -> int:
    if args.action == "info":
        return _info(args)
    from .. import parallel
    from ..config import load_config
    from ..engine.preflight import check_teacher
    from ..targets import WriteOptions, verify_targets, write_targets

    config = load_config(args.config, args.override)
    if args.action == "verify":
        verify_targets(args.folder, config, _temperature(config), args.samples, args.tolerance, args.accept)
        return 0
    output = args.output or config.Global.targets
    if not output:
        raise ConfigError("targets write: expected --output DIR, or Global.targets in the config, found neither")

    def look_at(teacher) -> None:
        if parallel.world_size() == 1:
            result = check_teacher(teacher, config)
            if result:
                print(f"{teacher.role}: {result} of the Eval list", flush=True)
        elif parallel.is_main():
            print(f"{teacher.role}: not checked on the Eval list, which several processes score together, and here "
                  "they do not meet; the same command without the launcher checks it first", flush=True)

    write_targets(config, WriteOptions(output, args.views, args.top_k, args.bits, args.tail, args.block),
                  _temperature(config), look_at=look_at)
    return 0


def _temperature(config: RunConfig) -> float:
    """At which the losses read the one frozen network. ConfigError when they read more than its soft answer."""
    from ..engine.task import build_loss
    from ..targets.header import teacher_of

    return build_loss(config).soft_target_temperature(teacher_of(config).role)


def _info(args: argparse.Namespace) -> int:
    from ..targets import TargetStore

    store = TargetStore(args.folder, partial=True)
    header = store.header
    if args.json:
        print(json.dumps(header, indent=1, ensure_ascii=False))
        return 0
    print(store.describe())
    if store.missing:
        print(f"not complete: {len(store.missing):,} of {store.parts:,} parts are missing")
    for network in header["teacher"]:
        print(f"teacher: {network['name']}, share {network['share']:.3g}, bn_mode {network['bn_mode']}, weights "
              f"{network['weights']}")
    for transform in [*header["transforms"], *header["mix"]]:
        print(f"transform: {transform['name']} {json.dumps(transform['arguments'])}, version {transform['version']}")
    print(f"list: {header['samples']['count']:,} images, hash {header['samples']['list']}; seed {header['seed']}, rows "
          f"by {header['rows']['order']}, batches of {header['batch_size']}, made with {header.get('made_with')}")
    return 0
