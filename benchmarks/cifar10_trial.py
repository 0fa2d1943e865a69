"""Does a student learn more from a teacher and unlabelled images than from few labels? CIFAR-10, equal image views.

    python benchmarks/cifar10_trial.py --cifar FOLDER --teacher teacher.pdparams

FOLDER holds train_list.txt and test_list.txt (`path label` a line) and the images. The first 5,000 training images are
labelled; the next 45,000 are not. `baseline` learns the labels of the 5,000, `ssld` agrees with the teacher on all
50,000 and sees no label. Both see the same number of image views; the student after the last step is scored once on
the 10,000 test images. Settings were chosen with --validate, which scores on training images 5,000-10,000 (a part of
the unlabelled ones, their labels used for that alone) and never opens the test list.
Interrupted runs go on where they were.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from benchmarks.runs import train_once  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
LABELLED = 5_000
IMAGES = {"baseline": LABELLED, "ssld": 50_000}
BATCH = 128


def write_lists(cifar: Path, output: Path) -> None:
    """labelled.txt (5,000 `path label`), unlabelled.txt (paths alone), validation.txt."""
    lines = (cifar / "train_list.txt").read_text().splitlines()
    output.mkdir(parents=True, exist_ok=True)
    for name, part in (("labelled", lines[:LABELLED]), ("validation", lines[LABELLED:2 * LABELLED]),
                       ("unlabelled", [line.split()[0] for line in lines[LABELLED:]])):
        (output / f"{name}.txt").write_text("\n".join(part) + "\n")


def run_one(side: str, seed: int, args: argparse.Namespace) -> dict:
    """One training run in a process of its own; resumes what an earlier call left."""
    folder = args.output / f"{side}_seed{seed}"
    sources = ["labelled"] if side == "baseline" else ["labelled", "unlabelled"]
    scored_on = args.output / "validation.txt" if args.validate else args.cifar / "test_list.txt"
    overrides = [
        f"Global.seed={seed}", "Global.eval_interval=100000",
        f"Global.epochs={math.ceil(args.views / IMAGES[side])}", f"Global.max_steps={args.views // BATCH}",
        f"DataLoader.Eval.sources.0.list={scored_on}",
        f"DataLoader.Eval.sources.0.root={args.cifar}",
        *(f"DataLoader.Train.sources.{i}.list={args.output / name}.txt" for i, name in enumerate(sources)),
        *(f"DataLoader.Train.sources.{i}.root={args.cifar}" for i in range(len(sources))),
        *([f"Arch.Teacher.pretrained={args.teacher}"] if side == "ssld" else []),
        *args.override,
    ]
    found = train_once(ROOT / "configs" / "cifar10" / f"{side}.yaml", overrides, folder, args.threads)
    return {"side": side, "seed": seed, **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("output/cifar10"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--sides", nargs="+", default=["baseline", "ssld"], choices=["baseline", "ssld"])
    parser.add_argument("--views", type=int, default=100_000, help="image views of each run")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="OMP threads per run")
    parser.add_argument("--validate", action="store_true", help="score on training images instead of the test set")
    parser.add_argument("-o", "--override", action="append", default=[], help="as in tools/train.py, for every run")
    args = parser.parse_args()
    args.cifar, args.teacher, args.output = args.cifar.resolve(), args.teacher.resolve(), args.output.resolve()
    write_lists(args.cifar, args.output)
    with ThreadPoolExecutor(args.jobs) as pool:
        runs = list(pool.map(lambda job: run_one(*job, args), [(side, s) for s in args.seeds for side in args.sides]))
    tops = {side: [r["top1"] for r in runs if r["side"] == side] for side in args.sides}
    for side, values in tops.items():
        spread = statistics.stdev(values) if len(values) > 1 else math.nan
        print(f"{side:10s} top-1 {statistics.mean(values):.2%} (standard deviation {spread:.2%}, n={len(values)}): "
              + " ".join(f"{v:.2%}" for v in values))
    report = {"what": "CIFAR-10 trial: supervised baseline against SSLD at equal image views", "views": args.views,
              "scored_on": "validation (training images 5,000-10,000)" if args.validate else "test (10,000 images)",
              "overrides": args.override, "threads_per_run": args.threads, "jobs": args.jobs,
              "runs": runs, "environment": environment()}
    path = args.output / "validation.json" if args.validate else result_path("cifar10_trial")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
