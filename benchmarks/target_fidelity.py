"""How much of the loss and its gradient stored targets keep, by classes kept, bits and tail rule.

    python benchmarks/target_fidelity.py --cifar FOLDER --teacher teacher.pdparams

Symmetric KL at temperature 1 in float64. Answers: (1) of a CIFAR-10 teacher on augmented training images; (2) of 1,000
classes, made up, since no ImageNet teacher comes with the package: the likeliest class's probability is drawn from
Beta(4, 1) (median 0.84), the j-th other one has a share proportional to j^-a with a from [1, 2] per image and
log-normal jitter of 0.3. Students are made up too: `a` times the teacher's logits plus normal noise, from untrained
(a = 0) to near (0.95). So the numbers show how errors grow and which rule is better, not what a certain pair of
networks would have.

loss_error: (mean stored - mean dense) / mean dense. grad_error: |stored - dense| / |dense|, over all images' gradients
with respect to the student's logits. cosine: between the two gradients of an image, averaged. bits None: not rounded.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import ROOT, environment, result_path  # noqa: E402
from ppcls_ssld.structs import SparseTargets  # noqa: E402
from ppcls_ssld.targets.answers import AnswerCodec, log_softmax  # noqa: E402

STUDENTS = {"untrained": (0.0, 0.5), "early": (0.5, 1.5), "later": (0.8, 0.8), "near": (0.95, 0.3)}  # (a, noise)
KEPT = {1000: (1, 3, 5, 10, 20, 50), 10: (1, 3, 5, 9)}
BITS = (8, 12, 16, None)
TAILS = ("student", "uniform")


def made_up_answers(n: int, classes: int, rng: np.random.Generator) -> np.ndarray:
    """log-probabilities float64 [n, classes] with the profile that the docstring above tells."""
    best = rng.beta(4, 1, (n, 1)).clip(1e-3, 1 - 1e-6)
    shares = np.arange(1, classes) ** -rng.uniform(1, 2, (n, 1)) * np.exp(0.3 * rng.normal(size=(n, classes - 1)))
    log_probs = np.log(np.concatenate([best, (1 - best) * shares / shares.sum(1, keepdims=True)], axis=1))
    return rng.permuted(log_probs, axis=1)


def cifar_answers(n: int, cifar: Path, teacher: Path) -> np.ndarray:
    """Logits float32 [n, 10] of the CIFAR-10 recipe's teacher on its augmented training images."""
    from ppcls_ssld.arch import build_frozen, logits_of, on_device
    from ppcls_ssld.config import load_config
    from ppcls_ssld.data import ViewReader
    from ppcls_ssld.targets.header import teacher_of

    config = load_config(ROOT / "configs" / "cifar10" / "ssld.yaml", [
        f"Arch.Teacher.pretrained={teacher}", "Arch.Teacher.bn_mode=eval", "DataLoader.Train.num_workers=0",
        f"DataLoader.Train.sources=[{{name: train, list: {cifar}/train_list.txt, root: {cifar}}}]",
        "DataLoader.Train.epoch_of=null"])
    network, _ = build_frozen(teacher_of(config), 10, config.Global.image_shape, "cpu")
    reader = ViewReader(config.DataLoader.Train, 10, seed=0)
    ids = np.arange(n) * reader.size // n
    return np.concatenate([logits_of(network(on_device(batch))).numpy() for batch in reader.batches(ids, 0 * ids, 64)])


def kept_exactly(log_t: np.ndarray, k: int) -> SparseTargets:
    """What AnswerCodec would give with endless bits."""
    best = np.argsort(-log_t, axis=1, kind="stable")[:, :k]
    others = log_t.copy()
    np.put_along_axis(others, best, -np.inf, 1)
    return SparseTargets(best, np.take_along_axis(log_t, best, 1), np.log(np.exp(others).sum(1)))


def completed(answer: SparseTargets, log_s: np.ndarray, tail: str) -> np.ndarray:
    """log t, float64 [N, C], with the rest spread by the tail rule."""
    shape = log_s.copy() if tail == "student" else np.zeros_like(log_s)
    np.put_along_axis(shape, answer.classes.astype(np.int64), -np.inf, 1)
    shape += answer.log_rest[:, None] - np.log(np.exp(shape).sum(1, keepdims=True))
    np.put_along_axis(shape, answer.classes.astype(np.int64), answer.log_probs.astype(np.float64), 1)
    return shape


def symmetric_kl(log_s: np.ndarray, log_t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(value [N], gradient with respect to the student's logits [N, C]); the teacher is a constant."""
    s, t, ratio = np.exp(log_s), np.exp(log_t), log_s - log_t
    backward = (s * ratio).sum(1, keepdims=True)
    return 0.5 * ((s - t) * ratio).sum(1), 0.5 * (s - t + s * (ratio - backward))


def compare(log_t: np.ndarray, rng: np.random.Generator) -> list[dict]:
    rows = []
    classes = log_t.shape[1]
    for student, (share, noise) in STUDENTS.items():
        log_s = log_softmax(share * log_t + noise * rng.normal(size=log_t.shape))
        value, slope = symmetric_kl(log_s, log_t)
        for k in KEPT[classes]:
            for bits in BITS:
                codec = AnswerCodec(classes, k, bits or 16)
                answer = codec.decode(codec.encode(log_t)) if bits else kept_exactly(log_t, k)
                for tail in TAILS:
                    found, found_slope = symmetric_kl(log_s, completed(answer, log_s, tail))
                    lengths = np.linalg.norm(found_slope, axis=1) * np.linalg.norm(slope, axis=1)
                    cosine = (found_slope * slope).sum(1) / lengths
                    rows.append({"student": student, "k": k, "bits": bits, "tail": tail, "loss": value.mean(),
                                 "loss_error": found.mean() / value.mean() - 1,
                                 "grad_error": np.linalg.norm(found_slope - slope) / np.linalg.norm(slope),
                                 "cosine": cosine.mean(), "rest": float(np.exp(answer.log_rest).mean())})
    return [{key: value if isinstance(value, str) or value is None else float(f"{value:.4g}")
             for key, value in row.items()} for row in rows]


def show(name: str, rows: list[dict]) -> None:
    """12 bits, both rules side by side; then 10 classes (or 3 of 10) by bits."""
    print(f"\n{name}, 12 bits (loss error / gradient error)")
    print(f"{'student':>10} {'k':>3} {'rest':>7}  tail student      tail uniform")
    by = {(r["student"], r["k"], r["bits"], r["tail"]): r for r in rows}
    ks = sorted({r["k"] for r in rows})
    for student in STUDENTS:
        for k in ks:
            one, two = (by[student, k, 12, tail] for tail in TAILS)
            print(f"{student:>10} {int(k):>3} {one['rest']:7.4f}  {one['loss_error']:+7.2%} {one['grad_error']:7.2%}   "
                  f"{two['loss_error']:+7.2%} {two['grad_error']:7.2%}")
    k = 10 if 10 in ks else 3
    print(f"{name}, {k} classes, tail student, gradient error by bits (None: not rounded)")
    for student in STUDENTS:
        errors = (f"{bits}: {by[student, k, bits, 'student']['grad_error']:.3%}" for bits in BITS)
        print(f"{student:>10}  " + "  ".join(errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, help="folder with train_list.txt and the images")
    parser.add_argument("--teacher", type=Path, help="ResNet50_vd for CIFAR-10, .pdparams")
    parser.add_argument("--images", type=int, default=512)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    answers = {"made up, 1,000 classes": made_up_answers(args.images, 1000, rng)}
    if args.cifar and args.teacher:
        answers["CIFAR-10 teacher"] = log_softmax(cifar_answers(args.images, args.cifar, args.teacher))
    report = {"what": "fidelity of stored targets", "images": args.images, "students": STUDENTS,
              "cifar10": "run" if len(answers) > 1 else "not run", "environment": environment(), "rows": {}}
    for name, log_t in answers.items():
        probabilities = np.sort(np.exp(log_t), axis=1)[:, ::-1]
        left = {k: float(f"{1 - probabilities[:, :k].sum(1).mean():.4g}") for k in KEPT[log_t.shape[1]]}
        depth = log_t.max(1) - log_t.min(1)
        report["rows"][name] = {"median_best": float(np.median(probabilities[:, 0])), "left_out_by_k": left,
                                "deepest_nats": float(depth.max()), "by": compare(log_t, rng)}
        show(name, report["rows"][name]["by"])
    path = result_path("target_fidelity")
    path.write_text(json.dumps(report, indent=None, separators=(",", ":")).replace('{"student"', '\n{"student"') + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
