"""PaddleClas's own distillation YAMLs, unmodified but for paths: which run, what each needs, and why the rest does not.

    python benchmarks/paddleclas_configs.py --paddleclas CHECKOUT          # all; renders the document too
    python benchmarks/paddleclas_configs.py --paddleclas CHECKOUT --only PULC --output some.json
    python benchmarks/paddleclas_configs.py --paddleclas CHECKOUT --only _attribute --rest RESULT.json
    python benchmarks/paddleclas_configs.py --render RESULT.json                 # the table alone, into the document

Each file goes through tools/train.py in a process of its own, in the checkout's folder, for two steps and an
evaluation, at the resolution it asks for. Its lists are replaced by parts of scikit-learn's two photographs, its weights by
random ones of the same network, written here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import ROOT, environment, result_path  # noqa: E402
from benchmarks.paddleclas_table import (Network, in_words, is_distillation, networks_of, relative,  # noqa: E402
                                         write_document)
from ppcls_ssld.config.text import parse  # noqa: E402

FOLDERS = ("ImageNet/Distillation", "ImageNet/PPHGNetV2", "PULC", "quick_start")  # supervised files: loaded
STEPS, TRAIN_IMAGES, EVAL_IMAGES, LIMIT_S = 2, 8, 6, 170
# What a small machine without a GPU forces; the resolution, the transforms and everything else stay the file's own.
MACHINE = ["Global.device=cpu", f"Global.max_steps={STEPS}", "Global.print_batch_step=1",
           "Global.allow_chance_teacher=true",  # of a teacher that knows nothing
           *(f"DataLoader.{mode}.loader.num_workers=0" for mode in ("Train", "Eval"))]
EXPORTED = ("Distillation/PPLCNet_x1_0_ssld", "ssld_stage2", "safety_helmet", "textline_orientation", "traffic_sign",
            "vehicle_attribute", "CIFAR100")  # one for each kind of Infer section and image shape


def write_photographs(folder: Path) -> list[str]:
    """Names of the whole and of six parts of each of scikit-learn's two photographs, as JPEG files in `folder`."""
    import cv2
    from sklearn.datasets import load_sample_images

    names = []
    for number, photo in enumerate(load_sample_images().images):
        parts = [part for row in np.array_split(photo, 2, axis=0) for part in np.array_split(row, 3, axis=1)]
        for i, image in enumerate([photo, *parts]):
            names.append(f"{number}_{i}.jpg")
            cv2.imwrite(str(folder / names[-1]), cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))
    return names


def label(i: int, class_num: int, several: bool) -> str:
    """Of image i: classes in turn; or for attributes a yes on every second, third or fourth image, and a not known."""
    if not several:
        return str(i % class_num)
    return ",".join("-1" if i + a == 5 else str(int((i + a) % (2 + a % 3) == 0)) for a in range(class_num))


def write_lists(folder: Path, class_num: int, delimiters: dict[str, str], several: bool = False) -> dict[str, Path]:
    """{"Train", "Eval"}: lists of photographs with a class each, or with class_num labels each."""
    names = write_photographs(folder)
    shares = {"Train": names[:TRAIN_IMAGES], "Eval": names[-EVAL_IMAGES:]}
    for mode, images in shares.items():
        lines = (f"{image}{delimiters[mode]}{label(i, class_num, several)}\n" for i, image in enumerate(images))
        (folder / f"{mode}.txt").write_text("".join(lines))
    return {mode: folder / f"{mode}.txt" for mode in shares}


def write_weights(folder: Path, photographs: list[Path], network: Network, class_num: int) -> Path:
    """Random weights of a backbone of PaddleClas; written once for each kind.

    Its batch norms know the photographs: with statistics of nothing, answers grow from layer to layer until they overflow.
    """
    import cv2
    import paddle

    from ppcls_ssld.arch import batch_norms, build_network
    from ppcls_ssld.config.schema import NetworkConfig

    path = folder / f"{network.name}_{class_num}.pdparams"  # no other argument changes shapes in these files
    if not path.exists():
        paddle.set_device("cpu")
        paddle.seed(0)
        layer = build_network(NetworkConfig("Any", network.name, network.arguments), class_num)
        for norm in batch_norms(layer):
            norm._momentum = 0.0
        images = np.stack([cv2.resize(cv2.imread(str(p)), (224, 224)) for p in photographs])
        with paddle.no_grad():
            layer(paddle.to_tensor(images.transpose(0, 3, 1, 2) / np.float32(64) - 2))
        paddle.save(layer.state_dict(), str(path))
    return path


def batch_overrides(tree: dict[str, Any]) -> list[str]:
    """2 images, which cost little; 8 small ones, since batch norm divides by nothing where 2 images give 1 x 1 maps."""
    batch = 2 if min(tree["Global"]["image_shape"][1:]) > 64 else 8
    return [f"DataLoader.{mode}.sampler.batch_size={batch}" for mode in ("Train", "Eval")]


def path_overrides(tree: dict[str, Any], scratch: Path, output: Path) -> list[str]:
    """Where this machine has what the file names elsewhere: its lists, its weights, its outputs."""
    (scratch / "images").mkdir(exist_ok=True)
    networks = networks_of(tree)
    several = bool(tree["Global"].get("use_multilabel"))
    usual = "\t" if several else " "
    delimiters = {mode: tree["DataLoader"][mode]["dataset"].get("delimiter") or usual for mode in ("Train", "Eval")}
    lists = write_lists(scratch / "images", networks[0].class_num, delimiters, several)
    overrides = [f"Global.output_dir={output}", f"Global.save_inference_dir={output / 'inference'}"]
    for mode, path in lists.items():
        overrides += [f"DataLoader.{mode}.dataset.image_root={path.parent}",
                      f"DataLoader.{mode}.dataset.cls_label_path={path}"]
    for network in networks:
        if network.pretrained or network.frozen:
            # PaddleClas's released weights have ImageNet's classes, whatever the task's are
            class_num = 1000 if network.pretrained is True else network.class_num
            photographs = [lists["Eval"].parent / f"{i}_0.jpg" for i in range(2)]
            weights = write_weights(scratch, photographs, network, class_num)
            overrides.append(f"{network.key}.pretrained={weights}")
    return overrides


def run_tool(tool: str, config: Path, overrides: list[str], checkout: Path) -> tuple[int | None, str, float]:
    """(exit code, or None when it was too slow; all it said; seconds)."""
    command = [sys.executable, str(ROOT / "tools" / tool), "-c", str(config), *(w for o in overrides for w in ("-o", o))]
    started = time.monotonic()
    try:
        done = subprocess.run(command, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=LIMIT_S, env={**os.environ, "OMP_NUM_THREADS": "1"})
        code, said = done.returncode, done.stdout
    except subprocess.TimeoutExpired as e:
        code, said = None, (e.stdout or b"").decode(errors="replace")
    return code, said, round(time.monotonic() - started, 1)


def refusal(said: str, config: Path) -> str:
    """The last line that a failed tool wrote, without the path of this machine."""
    lines = [line for line in said.splitlines() if line.strip()]
    return lines[-1].removeprefix("error: ").replace(f"{config}:", "line ") if lines else "it said nothing"


def try_one(config: Path, tree: dict[str, Any], checkout: Path, scratch: Path) -> dict[str, Any]:
    """One row of the result."""
    name = relative(config, checkout)
    output = scratch / "out" / name.replace("/", "_").removesuffix(".yaml")
    overrides = MACHINE
    if networks_of(tree):
        overrides = [*path_overrides(tree, scratch, output), *batch_overrides(tree), *MACHINE]
    code, said, seconds = run_tool("train.py", config, overrides, checkout)
    said = said.replace(str(scratch), "SCRATCH")
    row = {"file": name, "words": in_words(tree), "runs": False, "seconds": seconds,
           "overrides": [o.replace(str(scratch), "SCRATCH") for o in overrides]}
    if code != 0:
        return {**row, "why": refusal(said, config) if code is not None else f"not done after {LIMIT_S} s"}
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    train, evals = ([r for r in rows if r["kind"] == kind] for kind in ("train", "eval"))
    losses, images = [r["loss"] for r in train + evals], [r["images"] for r in evals]
    if len(train) != STEPS or set(images) != {EVAL_IMAGES} or not all(map(math.isfinite, losses)):
        return {**row, "why": f"exit code 0, but losses {losses} and evaluations of {images} images"}
    row |= {"runs": True, "losses": losses, "parts": train[-1]["parts"],
            "notes": [line.split("note: ", 1)[1] for line in said.splitlines() if "note: " in line]}
    if any(word in name for word in EXPORTED):
        more = [f"Global.pretrained_model={output / 'best_model'}"]
        code, said, seconds = run_tool("export_model.py", config, [*overrides, *more], checkout)
        files = sorted(p.name for p in (output / "inference").glob("*"))
        said = said.replace(str(scratch), "SCRATCH").splitlines()[-2:]
        row["export"] = {"ok": code == 0, "seconds": seconds, "files": files, "said": said}
    return row


def load_only(config: Path) -> str | None:
    """Why a supervised file would be refused before the first step; None when it would not."""
    from ppcls_ssld.arch import check_name
    from ppcls_ssld.config import load_config
    from ppcls_ssld.data import check_transforms
    from ppcls_ssld.engine.task import build_loss
    from ppcls_ssld.errors import ConfigError

    try:
        run = load_config(config)
        for network in run.Arch.networks:
            check_name(network)
        build_loss(run)
        for mode in ("Train", "Eval"):
            if loader := getattr(run.DataLoader, mode):
                check_transforms(loader.transform_ops, f"DataLoader.{mode}.transform_ops")
    except ConfigError as e:
        return str(e).replace(f"{config}:", "line ")
    return None


def earlier_rows(result: Path | None) -> dict[str, dict[str, Any]]:
    """File -> its row of an earlier result, with the commit that it is of."""
    if result is None:
        return {}
    report = json.loads(result.read_text())
    return {row["file"]: {"commit": report["environment"]["commit"], **row} for row in report["rows"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paddleclas", type=Path, metavar="CHECKOUT")
    parser.add_argument("--only", default="", help="files whose path holds this; the document is then left alone")
    parser.add_argument("--rest", type=Path, metavar="RESULT",
                        help="an earlier result, whose rows stand for what --only leaves out")
    parser.add_argument("--output", type=Path, help="instead of benchmarks/results; the document is then left alone")
    parser.add_argument("--render", type=Path, metavar="RESULT")
    args = parser.parse_args()
    if args.render:
        write_document(json.loads(args.render.read_text()))
        return
    if not args.paddleclas:
        parser.error("--paddleclas CHECKOUT is needed: https://github.com/PaddlePaddle/PaddleClas, develop")
    if not args.output and (args.only and not args.rest or environment()["commit"].endswith("-dirty")):
        parser.error("only a whole run of a clean checkout goes to benchmarks/results; give --output")
    checkout = args.paddleclas.resolve()
    rows, supervised, earlier = [], {}, earlier_rows(args.rest)
    with tempfile.TemporaryDirectory() as name:
        for config in sorted((checkout / "ppcls" / "configs").rglob("*.yaml")):
            tree = parse(config.read_text(), str(config))[0]
            file = relative(config, checkout)
            if args.only not in file and not args.rest:
                continue
            if is_distillation(tree) and args.only not in file:
                rows.append(earlier[file])
            elif is_distillation(tree):
                rows.append(try_one(config, tree, checkout, Path(name)))
                last = rows[-1]
                print(f"{file}: {'runs' if last['runs'] else last['why']} ({last['seconds']} s)", flush=True)
                if "export" in last:
                    print(f"  export: {last['export']}", flush=True)
            elif file.startswith(FOLDERS):
                supervised[file] = load_only(config)
    running = sum(row["runs"] for row in rows)
    loading = sum(why is None for why in supervised.values())
    report = {
        "what": "PaddleClas's distillation YAMLs, two steps and an evaluation each",
        "headline": f"{running} of {len(rows)} distillation files of PaddleClas run; "
                    f"{loading} of {len(supervised)} supervised ones load",
        "paddleclas": subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=checkout, capture_output=True,
                                     text=True).stdout.strip(),
        "rows": rows, "supervised": supervised, "environment": environment(),
    }
    path = args.output or result_path("paddleclas_configs")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{report['headline']}\nwritten: {path}")
    if not args.output:
        write_document(report)


if __name__ == "__main__":
    main()
