"""Images per second of PaddleClas's tools/train.py and of ours, same config, same images, side by side.

    python benchmarks/throughput.py --paddleclas ~/PaddleClas --root data/cifar10 --list data/cifar10/train_list.txt

Both programs are watched from outside: the clock runs from one printed step to a later one, so start-up and warm-up
count for neither. Runs alternate (PaddleClas, ours, PaddleClas, ...); what is reported is the ratio of neighbours, as
median and range, which holds when the machine's speed drifts. The config is PaddleClas's own CIFAR quick start for
distillation in its own form (R50_vd teacher -> MobileNetV3_large, batch 64, crop and flip, Momentum); ours reads the
same file.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
STEP = re.compile(r"\[Iter: (\d+)/|^step (\d+)/")  # PaddleClas counts from 0, we count from 1


@dataclass(frozen=True)
class Variant:
    """One way to run our side. processes share the same global batch."""

    name: str
    processes: int
    overrides: tuple[str, ...]


UNTRAINED = "Arch.models.0.Teacher.allow_partial=true"  # speed does not depend on what the teacher knows
VARIANTS = (
    Variant("batch_stats, eager teacher (PaddleClas's own arithmetic)", 1, (UNTRAINED,)),
    Variant("eval, inference-engine teacher", 1, (UNTRAINED, "Arch.models.0.Teacher.bn_mode=eval")),
    Variant("eval, inference-engine teacher, 2 processes", 2, (UNTRAINED, "Arch.models.0.Teacher.bn_mode=eval")),
)


def config(args: argparse.Namespace) -> dict:
    """The run in PaddleClas's form, readable by both programs."""
    normalize = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                                    "order": ""}}
    return {
        "Global": {"checkpoints": None, "pretrained_model": None, "output_dir": "output", "device": args.device,
                   "save_interval": 100, "eval_during_train": False, "eval_interval": 100, "epochs": 1,
                   "print_batch_step": args.every, "use_visualdl": False, "image_shape": [3, args.size, args.size],
                   "save_inference_dir": "inference"},
        "Arch": {"name": "DistillationModel", "freeze_params_list": [True, False], "infer_model_name": "Student",
                 "models": [{"Teacher": {"name": args.teacher, "class_num": 10, "pretrained": False}},
                            {"Student": {"name": args.student, "class_num": 10, "pretrained": False}}]},
        "Loss": {"Train": [{"DistillationDMLLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}}],
                 "Eval": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "regularizer": {"name": "L2", "coeff": 0.0001},
                      "lr": {"name": "Cosine", "learning_rate": 0.04, "warmup_epoch": 0}},
        "DataLoader": {"Train": {
            "dataset": {"name": "ImageNetDataset", "image_root": str(args.root), "cls_label_path": "train.txt",
                        "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                          {"RandCropImage": {"size": args.size}}, {"RandFlipImage": {"flip_code": 1}},
                                          normalize]},
            "sampler": {"name": "DistributedBatchSampler", "batch_size": args.batch, "drop_last": True,
                        "shuffle": True},
            "loader": {"num_workers": args.workers, "use_shared_memory": True}}},
        "Metric": {"Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 5]}}]},
    }


def images_per_second(command: list[str], cwd: Path, env: dict[str, str], args: argparse.Namespace) -> float:
    """Watch one program: images between its first and last printed step after the warm-up, by our clock."""
    seen: list[tuple[int, float]] = []
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
        for line in process.stdout:
            match = STEP.search(line)
            if match:
                seen.append((int(match[1] or match[2]), time.perf_counter()))
        if process.wait() != 0 or len(seen) < 3:
            errors.seek(0)
            raise SystemExit(f"{' '.join(command)} failed ({process.returncode}):\n{errors.read()[-3000:]}")
    (first, t0), (last, t1) = seen[1], seen[-1]
    return (last - first) * args.batch / (t1 - t0)


def run_paddleclas(args: argparse.Namespace, folder: Path, env: dict[str, str]) -> float:
    return images_per_second([args.paddleclas_python, "-u", str(args.paddleclas / "tools" / "train.py"), "-c",
                              str(folder / "config.yaml")], folder, env, args)


def run_ours(variant: Variant, args: argparse.Namespace, folder: Path, env: dict[str, str], serial: int) -> float:
    overrides = [f"Global.output_dir=output_{serial}", *variant.overrides,
                 f"DataLoader.Train.sampler.batch_size={args.batch // variant.processes}"]
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(variant.processes)]
    command = [sys.executable, "-u", *(launch if variant.processes > 1 else []), str(ROOT / "tools" / "train.py"), "-c",
               "config.yaml", *(part for o in overrides for part in ("-o", o))]
    return images_per_second(command, folder, env, args)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paddleclas", type=Path, required=True, help="a checkout of PaddleClas (develop)")
    parser.add_argument("--paddleclas-python", default=sys.executable, help="a Python with what PaddleClas imports")
    parser.add_argument("--root", type=Path, required=True, help="folder that the list's paths start from")
    parser.add_argument("--list", type=Path, required=True, help="`path label` a line, labels below 10")
    parser.add_argument("--teacher", default="ResNet50_vd")
    parser.add_argument("--student", default="MobileNetV3_large_x1_0")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64, help="images a step, over all processes")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--every", type=int, default=5, help="steps between printed lines")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--variants", type=int, nargs="+", default=list(range(len(VARIANTS))), metavar="I",
                        help="; ".join(f"{i}: {v.name}" for i, v in enumerate(VARIANTS)))
    parser.add_argument("--threads", type=int, default=None, help="OMP threads per process; default: cores / processes")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.root, args.paddleclas = args.root.resolve(), args.paddleclas.resolve()
    cores = len(os.sched_getaffinity(0))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config(args)))
        lines = args.list.read_text().splitlines()[:args.steps * args.batch]
        (folder / "train.txt").write_text("\n".join(lines) + "\n")
        for variant in (VARIANTS[i] for i in args.variants):
            pairs = []
            for pair in range(args.pairs):
                env = {**os.environ, "OMP_NUM_THREADS": str(args.threads or cores)}
                theirs = run_paddleclas(args, folder, env)
                env["OMP_NUM_THREADS"] = str(args.threads or max(1, cores // variant.processes))
                ours = run_ours(variant, args, folder, env, len(rows) * args.pairs + pair)
                pairs.append({"paddleclas": theirs, "ours": ours, "ratio": ours / theirs})
                print(f"{variant.name}: PaddleClas {theirs:.1f}, ours {ours:.1f} images/s, ratio {ours / theirs:.2f}",
                      flush=True)
            ratios = [p["ratio"] for p in pairs]
            rows.append({"variant": variant.name, "pairs": pairs, "ratio_median": statistics.median(ratios),
                         "ratio_min": min(ratios), "ratio_max": max(ratios)})
    report = {"what": "whole-process training throughput against PaddleClas", "arguments":
              {k: str(v) if isinstance(v, Path) and k != "root" else v for k, v in vars(args).items()
               if k not in ("root", "list", "paddleclas", "paddleclas_python")},
              "paddleclas_revision": _revision(args.paddleclas), "environment": environment(), "rows": rows}
    path = result_path("throughput")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{'variant':70s} ratio (median, range of {args.pairs} pairs)")
    for row in rows:
        print(f"{row['variant']:70s} {row['ratio_median']:.2f} ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})")
    print(f"written: {path}")


def _revision(checkout: Path) -> str:
    done = subprocess.run(["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
