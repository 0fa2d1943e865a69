"""`tools/eval.py` with a clock: one network on all or a part of the Eval list, in one process or under the launcher.

    python [-m paddle.distributed.launch --nproc_per_node N] benchmarks/timed_eval.py -c FILE --output FILE [--images N]

The same reader, engine and meter as `ppcls_ssld.engine.evaluate`. The first process writes the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib  # noqa: F401  before Paddle: loading Paddle 2.6.2 first can break later decompression
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ppcls_ssld import parallel  # noqa: E402
from ppcls_ssld.arch import build_teacher, logits_of, on_device  # noqa: E402
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.config import load_config  # noqa: E402
from ppcls_ssld.engine.evaluate import eval_reader, score  # noqa: E402
from ppcls_ssld.errors import SsldError  # noqa: E402

TOLD_EVERY_S = 60


def timed(config_file: Path, images: int | None) -> dict | None:
    """Accuracy, images, seconds and images per second over all processes, engine; None on all processes but the first.

    seconds: from the first batch asked for to the count. images_per_s: without the first batch of each process, which
    waits for workers to start and kernels to be chosen; None when there was but one.
    """
    config = load_config(config_file)
    parallel.init(config.Global.device)
    student = replace(config.Arch.network(config.Arch.infer_model_name), pretrained=config.Global.pretrained_model,
                      frozen=True, bn_mode="eval", engine="auto")
    network, report = build_teacher(student, config.Arch.class_num, config.Global.image_shape, config.Global.device)
    reader = eval_reader(config, images)
    share, done, marks = max(reader.size // parallel.world_size(), 1), 0, []
    told = started = time.monotonic()

    def forward(batch):
        nonlocal done, told
        logits = logits_of(network(on_device(batch))).numpy()
        done += len(batch)
        marks.append((time.monotonic(), done))
        if parallel.is_main() and marks[-1][0] - told > TOLD_EVERY_S:
            told = marks[-1][0]
            left = (told - started) * (share - done) / done / 60
            print(f"  {done / share:.0%}, {max(left, 0):.0f} minutes left", flush=True)
        return logits

    result = score(forward, reader, config)
    seconds = time.monotonic() - started
    several = len(marks) > 1
    speeds = parallel.gather((marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0]) if several else None)
    return None if not parallel.is_main() else {
        **result.accuracy, "images": result.images, "skipped": list(result.skipped), "seconds": round(seconds, 2),
        "images_per_s": None if None in speeds else round(sum(speeds), 2), "processes": parallel.world_size(),
        "engine": network.engine, "engine_reason": network.reason, "weights_report": report.summary(),
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--images", type=int, help="at most so many, evenly spaced in the list (all)")
    args = parser.parse_args(arguments)
    try:
        result = timed(args.config, args.images)
    except SsldError as e:
        print(f"error: {e}", file=sys.stderr, flush=True)
        return e.exit_code
    if result is not None:
        write_atomic(args.output, json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
