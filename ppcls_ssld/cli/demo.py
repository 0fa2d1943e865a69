"""`ppcls-ssld demo`, `make demo`: the whole method on real images in a few minutes, with a report to look at."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

DEFAULT_OUTPUT = "output/demo"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="FOLDER", type=Path,
                        help="your own images, a sub-folder per class (or train/ and test/ with those in them), "
                             "instead of the handwritten digits")
    parser.add_argument("--output", metavar="DIR", type=Path, default=Path(DEFAULT_OUTPUT),
                        help=f"where everything goes; default {DEFAULT_OUTPUT}")
    parser.add_argument("--seed", type=int, default=0, help="of the split, the first weights and the augmentation")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    from ..demo.digits import digit_images
    from ..demo.folders import folder_images
    from ..demo.report import write_report
    from ..demo.story import prepare, tell
    from ..demo.table import text_table
    from ..errors import ConfigError, StoppedBySignal

    if args.seed < 0:
        raise ConfigError(f"--seed {args.seed}: expected 0 or a positive integer")
    if args.data and args.output.resolve() in (args.data.resolve(), *args.data.resolve().parents):
        raise ConfigError(f"--data {args.data} lies in --output {args.output}, which the next demo deletes; "
                          "choose another --output")
    images = folder_images(args.data, args.seed) if args.data else None  # before anything is written
    prepare(args.output)
    images = images or digit_images(args.output / "data" / "images", args.seed)

    def say(text: str) -> None:
        print(f"\n[{time.monotonic() - began:4.0f} s] {text}", flush=True)

    say(f"images: {images.title}: {len(images.labelled):,} labelled, {len(images.unlabelled):,} without labels, "
        f"{len(images.test):,} for the test, which no training sees")
    for note in images.notes:
        print(f"note: {note}", flush=True)
    try:
        story = tell(images, args.output, args.seed, say)
    except StoppedBySignal as e:
        raise StoppedBySignal("the demo was stopped; start it again, it begins anew") from e
    seconds = time.monotonic() - began
    report = write_report(args.output / "report.html", story, seconds)
    summary = {"seconds": round(time.monotonic() - began, 1), "rows": [row.summary() for row in story.rows],
               "mining": story.mined.summary()}
    (args.output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print("\n" + text_table(story, seconds))
    print(f"report: {report.resolve()}\nnumbers: {args.output / 'summary.json'}\n"
          f"predict with the exported network: python tools/infer.py --model {args.output / 'exported'} IMAGE ...",
          flush=True)
    return 0
