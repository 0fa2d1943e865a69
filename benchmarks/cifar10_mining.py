"""Is mining worth it? CIFAR-10: what the miner takes from a dirty pool, and SSLD on mined against random images.

    python benchmarks/cifar10_mining.py --cifar FOLDER --photos FOLDER --teacher teacher.pdparams

The pool: 45,000 CIFAR-10 training images (all but the first 5,000, which stand for the labelled set), 15,000 crops of
the photographs at 32 pixels, 15,000 images of noise, 2,000 edited copies of test images. Protected: the 10,000 test
images. The classes of the training images are known to this script and used to judge, never to choose. `mined` and
`random` are SSLD runs on the labelled set's images and on the chosen, or as many random, images of the pool (copies
removed from both); equal image views, no label read; the student after its last step is scored once on the test images.
Interrupted runs go on where they were.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.edits import EDITS  # noqa: E402
from benchmarks.environment import environment, result_path  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
LABELLED, PHOTO_CROPS, NOISE, PLANTED, BATCH = 5_000, 15_000, 15_000, 2_000, 128
# Edits that leave something at 32 pixels.
AT_32_PX = ("jpeg_q40", "brightness", "grey", "mirror", "border_10", "crop_80")


def make_pool(cifar: Path, photos: Path, output: Path) -> None:
    """Lists of the CIFAR-10 parts; folders of crops, noise and planted copies, all PNG."""
    if (output / "pool_made").exists():
        return
    output.mkdir(parents=True, exist_ok=True)
    lines = [line.rsplit(" ", 1) for line in (cifar / "train_list.txt").read_text().splitlines()]
    tests = [line.rsplit(" ", 1)[0] for line in (cifar / "test_list.txt").read_text().splitlines()]
    for name, paths in (("labelled", [p for p, _ in lines[:LABELLED]]), ("pool", [p for p, _ in lines[LABELLED:]]),
                        ("protected", tests)):
        (output / f"{name}.txt").write_text("".join(f"{cifar / path}\n" for path in paths))
    rng = np.random.default_rng(0)
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    folders = {name: output / name for name in ("photo_crops", "noise", "planted")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    for i in range(PHOTO_CROPS):
        if i % math.ceil(PHOTO_CROPS / len(files)) == 0:
            image = cv2.imread(str(files[i // math.ceil(PHOTO_CROPS / len(files))]))
        side = int(min(image.shape[:2]) * rng.uniform(0.4, 1))
        y, x = (int(rng.integers(0, n - side + 1)) for n in image.shape[:2])
        crop = cv2.resize(image[y:y + side, x:x + side], (32, 32), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folders["photo_crops"] / f"{i:05d}.png"), crop)
    for i in range(NOISE):
        grain = [1, 4, 16][i % 3]  # fine noise, blotches, smooth colours
        noise = rng.integers(0, 256, (32 // grain, 32 // grain, 3), dtype=np.uint8)
        cv2.imwrite(str(folders["noise"] / f"{i:05d}.png"), cv2.resize(noise, (32, 32), interpolation=cv2.INTER_CUBIC))
    for i, path in enumerate(tests[:PLANTED]):
        edit = AT_32_PX[i % len(AT_32_PX)]
        image = EDITS[edit](cv2.cvtColor(cv2.imread(str(cifar / path)), cv2.COLOR_BGR2RGB), np.random.default_rng(i))
        cv2.imwrite(str(folders["planted"] / f"{i:05d}_{edit}.png"), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    (output / "pool_made").touch()


def mine(args: argparse.Namespace) -> dict:
    """Run the miner as a user would; its seconds by stage."""
    command = [sys.executable, "-m", "ppcls_ssld", "mine", "--pool", str(args.output / "pool.txt"),
               *(str(args.output / name) for name in ("photo_crops", "noise", "planted")),
               "--protect", str(args.output / "protected.txt"), "--teacher", "ResNet50_vd", "--teacher-weights",
               str(args.teacher), "--image-size", "32", "--resize-short", "32", "--top-k", str(args.top_k),
               "--output", str(args.output / "mined"), "--workers", str(args.workers)]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return json.loads((args.output / "mined" / "seconds.json").read_text())


def kind_of(path: str, output: Path) -> str:
    for name in ("photo_crops", "noise"):
        if path.startswith(str(output / name)):
            return name
    planted = re.search(r"_([a-z0-9_]+)\.png$", path) if path.startswith(str(output / "planted")) else None
    return f"planted {planted[1]}" if planted else "cifar10"


def describe(args: argparse.Namespace) -> dict:
    """What was removed, what was chosen, and how right the teacher's classes are."""
    mined, classes = args.output / "mined", (args.cifar / "classes.txt").read_text().split()
    with open(mined / "removed.csv") as file:
        removed = list(csv.DictReader(file))
    with open(mined / "selected.csv") as file:
        chosen = list(csv.DictReader(file))
    true_class = {path: int(label) for path, label in
                  (line.rsplit(" ", 1) for line in (args.cifar / "train_list.txt").read_text().splitlines())}
    known = [(int(row["class"]), true_class[os.path.relpath(row["path"], args.cifar)]) for row in chosen
             if kind_of(row["path"], args.output) == "cifar10"]
    planted = Counter(f"planted {AT_32_PX[i % len(AT_32_PX)]}" for i in range(PLANTED))
    gone = Counter(kind_of(row["path"], args.output) for row in removed)
    right_copy = sum(os.path.relpath(row["copy_of"], args.cifar) == test for row in removed
                     if (m := re.search(r"/planted/(\d+)_", row["path"])) for test in [_tests(args)[int(m[1])]])
    random = [kind_of(line, args.output) for line in (mined / "random.txt").read_text().splitlines()]
    return {
        "classes": classes, "removed_by_kind": dict(gone),
        "removed_by_stage": dict(Counter(row["stage"] for row in removed)),
        "planted_recall": {kind.removeprefix("planted "): gone[kind] / planted[kind] for kind in sorted(planted)},
        "planted_removed_for_the_right_test_image": right_copy,
        "chosen_by_kind": dict(Counter(kind_of(row["path"], args.output) for row in chosen)),
        "chosen_of_the_right_class": sum(a == b for a, b in known) / len(known),
        "random_by_kind": dict(Counter(random)),
        "funnel": json.loads((mined / "manifest.json").read_text())["counts"]}


def _tests(args: argparse.Namespace) -> list[str]:
    return [line.rsplit(" ", 1)[0] for line in (args.cifar / "test_list.txt").read_text().splitlines()]


def train(arm: str, seed: int, args: argparse.Namespace) -> dict:
    """One SSLD run in a process of its own; goes on where an earlier call stopped."""
    folder = args.output / f"{arm}_seed{seed}"
    images = sum(1 for _ in open(args.output / "mined" / "selected.txt")) + LABELLED
    listed = {"mined": "selected", "random": "random"}[arm]
    overrides = [
        f"Global.output_dir={folder}", f"Global.seed={seed}", "Global.eval_interval=100000",
        f"Global.epochs={math.ceil(args.views / images)}", f"Global.max_steps={args.views // BATCH}",
        f"DataLoader.Eval.sources.0.list={args.cifar / 'test_list.txt'}",
        f"DataLoader.Eval.sources.0.root={args.cifar}",
        f"DataLoader.Train.sources.0.list={args.output / 'labelled.txt'}", "DataLoader.Train.sources.0.labelled=false",
        f"DataLoader.Train.sources.1.list={args.output / 'mined' / listed}.txt",
        f"Arch.Teacher.pretrained={args.teacher}"]
    command = [sys.executable, str(ROOT / "tools" / "train.py"), "-c", str(ROOT / "configs" / "cifar10" / "ssld.yaml"),
               "--resume", *(part for o in overrides for part in ("-o", o))]
    began = time.monotonic()
    with open(folder.with_suffix(".log"), "a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT,
                       env={**os.environ, "OMP_NUM_THREADS": "1"})
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    final = [row for row in rows if row["kind"] == "eval"][-1]
    return {"arm": arm, "seed": seed, "top1": final["top1"], "steps": final["step"], "views": final["images_seen"],
            "seconds_of_this_call": round(time.monotonic() - began)}


def compare(runs: list[dict], seeds: list[int]) -> dict:
    """Means, and the paired difference with a 95 % interval (Student's t)."""
    from scipy.stats import t

    top1 = {(run["arm"], run["seed"]): run["top1"] for run in runs}
    gains = [top1["mined", seed] - top1["random", seed] for seed in seeds]
    mean, half = statistics.mean(gains), math.nan
    if len(gains) > 1:
        half = float(t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
    return {**{arm: statistics.mean(top1[arm, seed] for seed in seeds) for arm in ("mined", "random")},
            "difference": mean, "interval": [mean - half, mean + half]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("output/cifar10_mining"))
    parser.add_argument("--top-k", type=int, default=2_000)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--views", type=int, default=100_000, help="image views of each run")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: mining alone")
    args = parser.parse_args()
    args.cifar, args.teacher, args.output = args.cifar.resolve(), args.teacher.resolve(), args.output.resolve()
    make_pool(args.cifar, args.photos, args.output)
    seconds = mine(args)
    report = {"what": "CIFAR-10: mining from a dirty pool, and SSLD on mined against random images",
              "top_k": args.top_k, "seconds": seconds, **describe(args), "views": args.views,
              "environment": environment()}
    print(json.dumps({k: v for k, v in report.items() if k != "environment"}, indent=1))
    if args.seeds:
        report["runs"] = [train(arm, seed, args) for seed in args.seeds for arm in ("mined", "random")]
        report["comparison"] = compare(report["runs"], args.seeds)
        print(json.dumps(report["comparison"], indent=1))
    path = result_path("cifar10_mining")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
