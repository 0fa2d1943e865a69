"""A training step with stored answers against the student alone and against a teacher at work, side by side.

    python benchmarks/step.py --root data/cifar10 --list data/cifar10/train_list.txt

`alone` is the same student on the same images with a loss that asks nobody (cross entropy with labels); `stored` agrees
with stored answers, `online` with the teacher in the inference engine. All three are built in one process and take turns,
one whole step each (next batch, loss, backward, optimiser), so that the machine's moods fall on all alike. Reported: the
ratio of neighbours, median and quartiles, and where each kind's time goes (`ppcls-ssld bench`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import zlib  # noqa: E402, F401  before Paddle 2.6.2

import numpy as np  # noqa: E402
import paddle  # noqa: E402

from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.config import RunConfig, resolve  # noqa: E402
from ppcls_ssld.engine.bench import bench  # noqa: E402
from ppcls_ssld.engine.logbook import Logbook  # noqa: E402
from ppcls_ssld.engine.train import Run  # noqa: E402
from ppcls_ssld.targets import WriteOptions, write_targets  # noqa: E402

WARM_UP = 3


def config(kind: str, args: argparse.Namespace, folder: Path) -> RunConfig:
    """The run of one kind: 'alone', 'stored' or 'online'."""
    normalize = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                                    "order": ""}}
    teacher = {"name": args.teacher, "bn_mode": "eval", "allow_partial": True}  # speed does not depend on what it knows
    return resolve({
        "Global": {"output_dir": str(folder / kind), "device": args.device, "epochs": 10_000,
                   "image_shape": [3, args.size, args.size], "eval_during_train": False,
                   **({"targets": str(folder / "targets")} if kind == "stored" else {})},
        "Arch": {"class_num": args.classes, "Student": {"name": args.student},
                 **({} if kind == "alone" else {"Teacher": teacher})},
        "Loss": {"Train": [{"CELoss": {}} if kind == "alone" else {"SymmetricKL": {}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "lr": 0.01, "regularizer": {"name": "L2", "coeff": 1e-4}},
        "DataLoader": {"Train": {
            "sources": [{"name": "images", "list": str(args.list), "root": str(args.root)}],
            "transform_ops": [{"DecodeImage": {}}, {"RandCropImage": {"size": args.size}}, {"RandFlipImage": {}},
                              normalize],
            "batch_size": args.batch, "shuffle": True, "num_workers": args.workers}},
    })


def steps(run: Run) -> Iterator[float]:
    """Seconds of one whole step after the other."""
    run.task.train_mode()
    batches = run.reader.batches(0, 1 << 30)
    for i in range(1 << 30):
        start = time.perf_counter()
        run.step(i, [next(batches)])
        if not run.config.Global.device.startswith("cpu"):
            paddle.device.synchronize()
        yield time.perf_counter() - start


def quartiles(values: list[float]) -> dict[str, float]:
    low, middle, high = np.percentile(values, [25, 50, 75]).tolist()
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--list", type=Path, required=True, help="`path label` a line, labels below --classes")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--images", type=int, default=2048, help="of the list are used")
    parser.add_argument("--teacher", default="ResNet50_vd")
    parser.add_argument("--student", default="MobileNetV3_large_x1_0")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.root = args.root.resolve()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        lines = args.list.read_text().splitlines()[:args.images]
        args.list = folder / "list.txt"
        args.list.write_text("\n".join(lines) + "\n")
        started = time.perf_counter()
        write_targets(config("online", args, folder), WriteOptions(str(folder / "targets"), block=256), 1.0)
        written_in = time.perf_counter() - started
        runs = {}
        for kind in ("alone", "stored", "online"):
            with paddle.utils.unique_name.guard():
                log = stack.enter_context(Logbook(str(folder / kind), active=False))
                runs[kind] = steps(Run(config(kind, args, folder), log))
        seconds = {kind: [] for kind in runs}
        for i in range(WARM_UP + args.steps):
            for kind, run in runs.items():
                taken = next(run)
                if i >= WARM_UP:
                    seconds[kind].append(taken)
        for run in runs.values():
            run.close()
        parts = {kind: bench(config(kind, args, folder), max(3, args.steps // 3)).as_json() for kind in runs}
    against = {kind: quartiles([alone / other for alone, other in zip(seconds["alone"], seconds[kind])])
               for kind in ("stored", "online")}
    report = {"what": "a whole training step, in speed relative to the student alone",
              "arguments": {k: v for k, v in vars(args).items() if k not in ("root", "list")},
              "images_per_s": {kind: args.batch / statistics.median(s) for kind, s in seconds.items()},
              "relative_speed": against, "written": {"views": len(lines), "seconds": written_in}, "parts": parts,
              "environment": environment()}
    path = result_path(f"step_{args.student}_{args.size}")
    path.write_text(json.dumps(report, indent=1) + "\n")
    for kind, rate in report["images_per_s"].items():
        relative = f", {against[kind]['median']:.3f} of the student alone" if kind in against else ""
        print(f"{kind:8s} {rate:8.1f} images/s{relative}")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
