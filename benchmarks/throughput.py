"""Images per second of PaddleClas's tools/train.py and of ours, same config, same images, side by side.

    python benchmarks/throughput.py --paddleclas ~/PaddleClas --small data/cifar10 data/cifar10/train_list.txt \\
        --large data/photos data/photos/list.txt

Both programs are watched from outside: the clock runs from one printed step to a later one, so start-up and warm-up
count for neither. A round runs PaddleClas once and each of our variants once; what is reported is the ratio within a
round, as median and range over rounds, which holds when the machine's speed drifts. The config is PaddleClas's own CIFAR
quick start for distillation in its own form (R50_vd teacher, crop and flip, Momentum); ours reads the same file. Calls of one
commit and day add their cases to one result.
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
SMALL_PX = 64  # up to here a case takes the images of --small
TEACHER = "ResNet50_vd"


@dataclass(frozen=True)
class Case:
    """What both sides train. batch: images a step, over all processes. steps: printed in about five lines."""

    student: str
    size: int
    batch: int
    steps: int

    @property
    def name(self) -> str:
        return f"{TEACHER} -> {self.student}, {self.size} px, batch {self.batch}"

    @classmethod
    def read(cls, text: str) -> Case:
        student, size, batch, steps = text.split(":")
        return cls(student, int(size), int(batch), int(steps))


CASES = ("MobileNetV3_large_x1_0:32:64:25", "ResNet50_vd:32:64:12", "MobileNetV3_large_x1_0:224:8:10",
         "ResNet50_vd:224:8:8")


@dataclass(frozen=True)
class Variant:
    """One way to run our side. processes share the same global batch."""

    name: str
    overrides: tuple[str, ...] = ()
    processes: int = 1
    stored: bool = False


UNTRAINED = "Arch.models.0.Teacher.allow_partial=true"  # speed does not depend on what the teacher knows
EVAL = "Arch.models.0.Teacher.bn_mode=eval"
VARIANTS = {
    "online": Variant("batch_stats, eager teacher (PaddleClas's own arithmetic)"),
    "engine": Variant("eval, inference-engine teacher", (EVAL,)),
    "stored": Variant("stored targets", (EVAL,), stored=True),
    "engine2": Variant("eval, inference-engine teacher, 2 processes", (EVAL,), processes=2),
    "stored2": Variant("stored targets, 2 processes", (EVAL,), processes=2, stored=True),
}


def config(case: Case, args: argparse.Namespace) -> dict:
    """The run in PaddleClas's form, readable by both programs."""
    normalize = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
                                    "order": ""}}
    classes = 10 if case.size <= SMALL_PX else 1000
    return {
        "Global": {"checkpoints": None, "pretrained_model": None, "output_dir": "output", "device": args.device,
                   "save_interval": 100, "eval_during_train": False, "eval_interval": 100, "epochs": 1,
                   "print_batch_step": max(1, case.steps // 5), "use_visualdl": False,
                   "image_shape": [3, case.size, case.size], "save_inference_dir": "inference"},
        "Arch": {"name": "DistillationModel", "freeze_params_list": [True, False], "infer_model_name": "Student",
                 "models": [{"Teacher": {"name": TEACHER, "class_num": classes, "pretrained": False}},
                            {"Student": {"name": case.student, "class_num": classes, "pretrained": False}}]},
        "Loss": {"Train": [{"DistillationDMLLoss": {"weight": 1.0, "model_name_pairs": [["Student", "Teacher"]]}}],
                 "Eval": [{"CELoss": {"weight": 1.0}}]},
        "Optimizer": {"name": "Momentum", "momentum": 0.9, "regularizer": {"name": "L2", "coeff": 0.0001},
                      "lr": {"name": "Cosine", "learning_rate": 0.04, "warmup_epoch": 0}},
        "DataLoader": {"Train": {
            "dataset": {"name": "ImageNetDataset", "image_root": str(_data(case, args)[0]),
                        "cls_label_path": "train.txt",
                        "transform_ops": [{"DecodeImage": {"to_rgb": True, "channel_first": False}},
                                          {"RandCropImage": {"size": case.size}}, {"RandFlipImage": {"flip_code": 1}},
                                          normalize]},
            "sampler": {"name": "DistributedBatchSampler", "batch_size": case.batch, "drop_last": True,
                        "shuffle": True},
            "loader": {"num_workers": args.workers, "use_shared_memory": True}}},
        "Metric": {"Train": [{"DistillationTopkAcc": {"model_key": "Student", "topk": [1, 5]}}]},
    }


def _data(case: Case, args: argparse.Namespace) -> tuple[Path, Path]:
    """(root, list) of the case's images."""
    return args.small if case.size <= SMALL_PX else args.large


def images_per_second(command: list[str], cwd: Path, env: dict[str, str], batch: int) -> float:
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
    return (last - first) * batch / (t1 - t0)


def run_paddleclas(case: Case, args: argparse.Namespace, folder: Path, env: dict[str, str]) -> float:
    return images_per_second([args.paddleclas_python, "-u", str(args.paddleclas / "tools" / "train.py"), "-c",
                              str(folder / "config.yaml")], folder, env, case.batch)


def run_ours(case: Case, variant: Variant, folder: Path, env: dict[str, str], output: str) -> float:
    overrides = [f"Global.output_dir={output}", UNTRAINED, *variant.overrides,
                 f"DataLoader.Train.sampler.batch_size={case.batch // variant.processes}"]
    if variant.stored:
        overrides.append("Global.targets=targets")
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", str(variant.processes)]
    command = [sys.executable, "-u", *(launch if variant.processes > 1 else []), str(ROOT / "tools" / "train.py"), "-c",
               "config.yaml", *(part for o in overrides for part in ("-o", o))]
    return images_per_second(command, folder, env, case.batch)


def write_targets(folder: Path, env: dict[str, str]) -> None:
    """What the stored variants read, once and outside the clock."""
    done = subprocess.run([sys.executable, "-m", "ppcls_ssld", "targets", "write", "-c", "config.yaml", "-o", UNTRAINED,
                           "-o", EVAL, "--output", "targets", "--views", "1"], cwd=folder,
                          env={**env, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"targets write failed ({done.returncode}):\n{done.stderr[-3000:]}")


def measure(case: Case, args: argparse.Namespace) -> dict:
    """Rounds of one case. {"case", "rounds": [{variant: images/s}], "ratios": {variant: {median, min, max}}}"""
    cores = len(os.sched_getaffinity(0))
    rounds = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "config.yaml").write_text(yaml.safe_dump(config(case, args)))
        lines = _data(case, args)[1].read_text().splitlines()[:case.steps * case.batch]
        (folder / "train.txt").write_text("\n".join((lines * case.steps * case.batch)[:case.steps * case.batch]) + "\n")
        variants = {key: VARIANTS[key] for key in args.variants}
        env = {**os.environ, "OMP_NUM_THREADS": str(args.threads or cores)}
        if any(variant.stored for variant in variants.values()):
            write_targets(folder, env)
        for i in range(args.rounds):
            found = {"paddleclas": run_paddleclas(case, args, folder, env)}
            for key, variant in variants.items():
                threads = str(args.threads or max(1, cores // variant.processes))
                found[key] = run_ours(case, variant, folder, {**env, "OMP_NUM_THREADS": threads}, f"output_{key}_{i}")
            rounds.append(found)
            print(f"{case.name}: " + ", ".join(f"{key} {rate:.1f}" for key, rate in found.items()) + " images/s",
                  flush=True)
    ratios = {key: [r[key] / r["paddleclas"] for r in rounds] for key in variants}
    return {"case": case.name, "rounds": rounds,
            "ratios": {key: {"median": statistics.median(values), "min": min(values), "max": max(values)}
                       for key, values in ratios.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paddleclas", type=Path, required=True, help="a checkout of PaddleClas (develop)")
    parser.add_argument("--paddleclas-python", default=sys.executable, help="a Python with what PaddleClas imports")
    parser.add_argument("--small", type=Path, nargs=2, metavar=("ROOT", "LIST"),
                        help=f"images for cases of up to {SMALL_PX} px; LIST: `path label` a line, labels below 10")
    parser.add_argument("--large", type=Path, nargs=2, metavar=("ROOT", "LIST"), help="for larger ones; below 1000")
    parser.add_argument("--cases", type=Case.read, nargs="+", metavar="STUDENT:SIZE:BATCH:STEPS",
                        default=[Case.read(text) for text in CASES], help=f"default: {' '.join(CASES)}")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS)[:3],
                        help="; ".join(f"{key}: {v.name}" for key, v in VARIANTS.items()))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="OMP threads per process; default: cores / processes")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    args.paddleclas = args.paddleclas.resolve()
    for case in args.cases:
        if _data(case, args) is None:
            parser.error(f"{case.name}: give its images with {'--small' if case.size <= SMALL_PX else '--large'}")
    args.small, args.large = (data and [path.resolve() for path in data] for data in (args.small, args.large))
    path = result_path("throughput")
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for case in args.cases:
        rows = [row for row in rows if row["case"] != case.name] + [measure(case, args)]
        report = {"what": "whole-process training throughput against PaddleClas, same config, images and batch",
                  "arguments": {"workers": args.workers, "threads": args.threads, "device": args.device},
                  "variants": {key: VARIANTS[key].name for key in args.variants},
                  "paddleclas_revision": _revision(args.paddleclas), "environment": environment(), "rows": rows}
        path.write_text(json.dumps(report, indent=1) + "\n")
    for row in rows:
        print(f"\n{row['case']}")
        for key, ratio in row["ratios"].items():
            print(f"  {VARIANTS[key].name:60s} {ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})")
    print(f"written: {path}")


def _revision(checkout: Path) -> str:
    done = subprocess.run(["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    main()
