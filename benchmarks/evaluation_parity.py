"""Is it PaddleClas's evaluation? The same weights and photographs through its Engine and through ours, logit by logit.

    python benchmarks/evaluation_parity.py --paddleclas ~/PaddleClas --images FOLDER

PaddleClas runs in a process of its own (`--paddleclas-python`), with its config of the network, unchanged but for paths:
its ImageNetDataset, its Eval transforms, its network, its way of loading, its metric. We read the same config and
evaluate with the reader of `tools/eval.py` and both engines, eager and inference.

No trained weights are needed. A network is seeded; its batch norms take the statistics of photographs in training mode;
its classifier is centred, so that a logit has mean 0 over photographs. A network straight from its initialiser answers
the same for every image, and agreement would mean little. Two images in three are labelled with the class that the eager
network finds, the others with class 0, so that both sides have something to count.

Verdict: agrees when both sides give their network the same pixels, and no logit of either engine is further than 1e-4 from
PaddleClas's. The inference engine fuses layers and rounds otherwise, in proportion to the logits, and those of trained
weights are larger: so the difference as a share of the image's largest logit stands beside. Exit code 1 when one differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import zlib  # noqa: E402, F401  before Paddle: loading Paddle 2.6.2 first can break later decompression

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import paddle  # noqa: E402

from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.arch import (batch_norms, build_network, build_teacher, head_keys, logits_of, on_device,  # noqa: E402
                             prepare_process)
from ppcls_ssld.config import RunConfig  # noqa: E402
from ppcls_ssld.config.load import load_config  # noqa: E402
from ppcls_ssld.engine.evaluate import eval_reader, score  # noqa: E402

HERE = Path(__file__).resolve().parent
CONFIGS = {"MobileNetV3_large_x1_0": "MobileNetV3/MobileNetV3_large_x1_0.yaml", "ResNet50_vd": "ResNet/ResNet50_vd.yaml"}
ALLOWED = 1e-4  # of any logit, absolute
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
CALIBRATION_BATCHES = 4


def image_paths(images: Path, root: Path | None) -> tuple[Path, list[str]]:
    """(root, paths below it) of a folder, or of a list of `path label` lines."""
    if images.is_dir():
        return images, sorted(str(p.relative_to(images)) for p in images.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    return root or images.parent, [line.rsplit(" ", 1)[0] for line in images.read_text().splitlines() if line.strip()]


def run_config(yaml: Path, root: Path, listing: Path) -> RunConfig:
    """PaddleClas's config of a network, with the user's images in the place of ImageNet's."""
    return load_config(yaml, ["Global.device=cpu", f"DataLoader.Eval.dataset.image_root={root}",
                              f"DataLoader.Eval.dataset.cls_label_path={listing}", "DataLoader.Eval.loader.num_workers=0"])


def seeded_network(config: RunConfig, seed: int) -> paddle.nn.Layer:
    """A network with the statistics of photographs, whose logits are centred over them."""
    paddle.seed(seed)
    network = build_network(config.Arch.network(config.Arch.infer_model_name), config.Arch.class_num)
    batches = [on_device(batch) for batch in eval_reader(config, CALIBRATION_BATCHES * 32).batches()]
    network.train()
    for i, images in enumerate(batches):
        for norm in batch_norms(network):
            norm._momentum = i / (i + 1)  # the mean of the batches
        with paddle.no_grad():
            network(images)
    for norm in batch_norms(network):
        norm._momentum = 0.9
    network.eval()
    with paddle.no_grad():
        logits = np.concatenate([logits_of(network(images)).numpy() for images in batches])
    state = network.state_dict()
    for key in head_keys(network):
        if len(state[key].shape) == 1:  # the bias
            state[key].set_value(state[key].numpy() - logits.mean(axis=0))
    return network


def ours(config: RunConfig, weights: Path, engine: str) -> tuple[np.ndarray, list[str], float]:
    """(logits [N, C], SHA-1 of each image as the network is given it, top-1 of our meter), as `evaluate` makes them."""
    student = replace(config.Arch.network(config.Arch.infer_model_name), pretrained=str(weights), frozen=True,
                      bn_mode="eval", engine=engine)
    network, _ = build_teacher(student, config.Arch.class_num, config.Global.image_shape, "cpu")
    logits, inputs = [], []

    def forward(batch) -> np.ndarray:
        images = on_device(batch)
        inputs.extend(hashlib.sha1(np.ascontiguousarray(image).tobytes()).hexdigest() for image in images.numpy())
        logits.append(logits_of(network(images)).numpy())
        return logits[-1]

    top1 = score(forward, eval_reader(config), config).accuracy["top1"]
    return np.concatenate(logits), inputs, top1


def compare(found: np.ndarray, expected: np.ndarray) -> dict:
    """Differences of logits [N, C]; relative: to the image's largest logit, at least 1. And how many first classes change."""
    difference = np.abs(found.astype(np.float64) - expected)
    relative = difference.max(axis=1) / np.maximum(np.abs(expected).max(axis=1), 1)
    return {"largest_difference": float(difference.max()), "mean_difference": float(difference.mean()),
            "largest_relative": float(relative.max()), "images_beyond_1e-4": int((difference.max(axis=1) > 1e-4).sum()),
            "top1_flips": int((found.argmax(1) != expected.argmax(1)).sum())}


def theirs(args: argparse.Namespace, yaml: Path, weights: Path, root: Path, listing: Path, folder: Path) -> dict:
    output = folder / "paddleclas.npz"
    command = [args.paddleclas_python, str(HERE / "paddleclas_evaluation.py"), str(args.paddleclas), str(yaml), str(weights),
               str(root), str(listing), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=args.paddleclas)
    if done.returncode:
        raise SystemExit(f"PaddleClas's evaluation ended with code {done.returncode}:\n{done.stdout[-2000:]}"
                         f"{done.stderr[-3000:]}")
    with np.load(output) as found:
        return {key: found[key] for key in found.files}


def run_one(name: str, args: argparse.Namespace, folder: Path) -> dict:
    yaml = args.paddleclas / "ppcls" / "configs" / "ImageNet" / CONFIGS[name]
    root, paths = image_paths(args.images.resolve(), args.root and args.root.resolve())
    count = min(args.count or len(paths), len(paths))
    paths = [paths[i * len(paths) // count] for i in range(count)]
    listing, weights = folder / "list.txt", folder / f"{name}.pdparams"
    listing.write_text("".join(f"{path} 0\n" for path in paths))
    config = run_config(yaml, root, listing)
    paddle.save(seeded_network(config, args.seed).state_dict(), str(weights))
    eager, inputs, _ = ours(config, weights, "eager")
    labels = [int(c) if i % 3 else 0 for i, c in enumerate(eager.argmax(1))]
    listing.write_text("".join(f"{path} {label}\n" for path, label in zip(paths, labels)))
    inference, _, top1 = ours(run_config(yaml, root, listing), weights, "inference")
    reference = theirs(args, yaml, weights, root, listing, folder)
    expected = reference["logits"]
    return {
        "network": name, "config": str(yaml.relative_to(args.paddleclas)), "images": len(paths), "classes": eager.shape[1],
        "identical_inputs": int((np.array(inputs) == reference["inputs"]).sum()),
        "eager": compare(eager, expected), "inference": compare(inference, expected),
        "logits": {"largest": float(np.abs(expected).max()), "deviation_over_images": float(expected.std(axis=0).mean()),
                   "first_classes": len(set(expected.argmax(1).tolist()))},
        "top1": {"ours": top1, "paddleclas": float(reference["top1"])},
        "versions": {"paddleclas_side": {key: str(reference[key]) for key in ("paddle", "opencv", "numpy")},
                     "our_side": {"paddle": paddle.__version__, "opencv": cv2.__version__, "numpy": np.__version__}},
    }


def disagreements(row: dict) -> list[str]:
    """What differs by more than is allowed, a sentence each; a logit that is no number does."""
    found = []
    if row["identical_inputs"] != row["images"]:
        found.append(f"{row['images'] - row['identical_inputs']} of {row['images']} images reach the network as other pixels")
    for engine in ("eager", "inference"):
        if not row[engine]["largest_difference"] <= ALLOWED:
            found.append(f"the {engine} engine's logits differ by up to {row[engine]['largest_difference']:.1e}, allowed {ALLOWED:.0e}")
    return found


def conclusion(rows: list[dict]) -> str:
    """'agrees: ...' or 'DIFFERS: ...'."""
    if differing := [f"{row['network']}: {said}" for row in rows for said in disagreements(row)]:
        return "DIFFERS: " + "; ".join(differing)
    eager, other = (max(row[engine]["largest_difference"] for row in rows) for engine in ("eager", "inference"))
    return (f"agrees: the same pixels; eager logits within {eager:.1e}, those of the inference engine within {other:.1e} "
            f"(allowed {ALLOWED:.0e})")


def headline(rows: list[dict]) -> str:
    def side(found: dict) -> str:
        largest = found["largest_difference"]
        return "the same bits" if largest == 0 else (f"within {largest:.1e} ({found['largest_relative']:.1e} of the image's "
                                                     f"largest), {found['top1_flips']} first classes differ")

    return "; ".join(f"{row['network']}, logits of {row['images']} photographs against PaddleClas's: "
                     f"eager {side(row['eager'])}, inference engine {side(row['inference'])}" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--paddleclas", type=Path, required=True, help="a checkout of PaddleClas (develop)")
    parser.add_argument("--paddleclas-python", default=sys.executable, help="a Python with what PaddleClas imports")
    parser.add_argument("--images", type=Path, required=True, help="a folder of photographs, or a list of `path label`")
    parser.add_argument("--root", type=Path, help="folder that the list's paths start from (the list's own)")
    parser.add_argument("--count", type=int, help="images, evenly spaced (all)")
    parser.add_argument("--networks", nargs="+", default=list(CONFIGS), choices=list(CONFIGS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file of the result (benchmarks/results/...)")
    args = parser.parse_args()
    args.paddleclas = args.paddleclas.resolve()
    prepare_process()  # sets an environment variable, so that PaddleClas's process has the same kernels
    rows = []
    for name in args.networks:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(run_one(name, args, Path(folder)))
        print(json.dumps(rows[-1], indent=1), flush=True)
    report = {"what": "logits of PaddleClas's own evaluation against ours, same weights and photographs",
              "headline": headline(rows), "verdict": conclusion(rows),
              "allowed": ALLOWED, "seed": args.seed, "rows": rows,
              "omp_num_threads": os.environ.get("OMP_NUM_THREADS"), "environment": environment()}
    path = args.output or result_path("evaluation_parity")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"\n{report['headline']}\n{report['verdict']}\nwritten: {path}")
    return 1 if any(map(disagreements, rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
