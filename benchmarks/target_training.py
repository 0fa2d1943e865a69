"""Does a student learn from stored answers what it learns from the teacher at work? CIFAR-10, equal views, paired seeds.

    python benchmarks/target_training.py --cifar FOLDER --teacher teacher.pdparams

FOLDER holds train_list.txt and test_list.txt (`path label` a line) and the images. A student sees the first 5,000 training
images for 20 passes and agrees with the teacher, without labels: `online`, or from stores of 1, 5 and 20 views an image
(10 classes of 10 are too easy to store, so the 3 likeliest of them). The store's seed is the run's: its view v is what the
online run sees in pass v, so that with 20 views both see the same pixels in the same order. Scored once, on the 10,000
test images, after the last step. Interrupted runs go on where they were.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from benchmarks.intervals import estimate, paired  # noqa: E402
from benchmarks.runs import train_once  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "cifar10" / "ssld.yaml"
IMAGES, PASSES, BATCH = 5_000, 20, 128


def overrides(seed: int, args: argparse.Namespace) -> list[str]:
    return [f"Global.seed={seed}", f"Global.epochs={args.passes}", "Global.eval_interval=100000",
            f"DataLoader.Eval.sources.0.list={args.cifar / 'test_list.txt'}", f"DataLoader.Eval.sources.0.root={args.cifar}",
            f"DataLoader.Train.sources=[{{name: images, list: '{args.output / 'images.txt'}', root: '{args.cifar}', "
            "labelled: false}]", f"Arch.Teacher.pretrained={args.teacher}", *args.override]


def run_one(arm: str, seed: int, args: argparse.Namespace) -> dict:
    """arm: 'online' or a number of views."""
    asked = overrides(seed, args)
    if arm != "online":
        targets = args.output / f"targets_{arm}_seed{seed}"
        write = [sys.executable, str(ROOT / "tools" / "targets.py"), "write", "-c", str(CONFIG), "--output", str(targets),
                 "--views", arm, "--top-k", str(args.top_k), "--bits", str(args.bits), "--tail", args.tail,
                 *(part for o in asked for part in ("-o", o))]
        done = subprocess.run(write, capture_output=True, text=True,
                              env={**os.environ, "OMP_NUM_THREADS": str(args.threads)})
        if done.returncode:
            raise SystemExit(f"{' '.join(write)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        asked.append(f"Global.targets={targets}")
    return {"arm": arm, "seed": seed, **train_once(CONFIG, asked, args.output / f"{arm}_seed{seed}", args.threads)}


def against_online(runs: list[dict], arm: str) -> dict:
    """Paired differences in top-1, their mean and a 95 % interval."""
    by_seed = {name: {r["seed"]: r["top1"] for r in runs if r["arm"] == name} for name in (arm, "online")}
    differences = list(paired(by_seed[arm], by_seed["online"]).values())
    found = estimate(differences)
    return {"differences": differences, "mean": found.mean,
            "half_width_95": math.nan if found.half_width is None else found.half_width}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("output/target_training"))
    parser.add_argument("--arms", nargs="+", default=["online", "1", "5", "20"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--passes", type=int, default=PASSES)
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("--bits", type=int, default=12)
    parser.add_argument("--tail", default="student")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="OMP threads per run")
    parser.add_argument("-o", "--override", action="append", default=[], help="as in tools/train.py, for every run")
    args = parser.parse_args()
    args.cifar, args.teacher, args.output = args.cifar.resolve(), args.teacher.resolve(), args.output.resolve()
    args.output.mkdir(parents=True, exist_ok=True)
    lines = [line.rsplit(" ", 1)[0] for line in (args.cifar / "train_list.txt").read_text().splitlines()[:IMAGES]]
    (args.output / "images.txt").write_text("".join(f"{path}\n" for path in lines))
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda job: run_one(*job, args), [(arm, s) for s in args.seeds for arm in args.arms]))
    summary = {}
    for arm in args.arms:
        values = [r["top1"] for r in runs if r["arm"] == arm]
        summary[arm] = {"top1": values, "mean": statistics.mean(values),
                        "against_online": against_online(runs, arm) if arm != "online" and "online" in args.arms else None}
        print(f"{arm:8s} top-1 {statistics.mean(values):.2%}: " + " ".join(f"{v:.2%}" for v in values))
    report = {"what": "stored against online answers at equal views, CIFAR-10", "images": IMAGES, "passes": args.passes,
              "top_k": args.top_k, "bits": args.bits, "tail": args.tail, "overrides": args.override,
              "threads_per_run": args.threads, "jobs": args.jobs, "runs": runs, "summary": summary,
              "environment": environment()}
    path = result_path("target_training")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
