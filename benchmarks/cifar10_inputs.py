"""What the CIFAR-10 tables are trained on: where the mined and the random images come from, and how sure the teachers are.

    python benchmarks/cifar10_inputs.py --output output/reproduce

Reads what `reproduce.py --table cifar10_ladder --output ...` left there; trains and asks nothing. Of each list its SHA-256, of
each folder of stored answers over all views: the likeliest class's probability (median), the share above 0.99, the share of
views in which the likeliest class is the label (where the list has labels).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.atomic import write_atomic  # noqa: E402
from ppcls_ssld.targets import TargetStore  # noqa: E402


def answers(store: TargetStore, labels: np.ndarray | None) -> dict[str, float]:
    """labels: int [samples], in the order of the list; None where it has none."""
    ids = np.repeat(np.arange(store.samples), store.views)
    found = store.targets(store.read(ids, np.tile(np.arange(store.views), store.samples)))
    best = np.exp(found.log_probs[:, 0].astype(np.float64))
    about = {"images": store.samples, "views": store.views, "median_probability": round(float(np.median(best)), 4),
             "share_above_0.99": round(float((best > 0.99).mean()), 4)}
    if labels is not None:
        about["share_right"] = round(float((found.classes[:, 0] == labels[ids]).mean()), 4)
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("output/reproduce"), help="of reproduce.py")
    args = parser.parse_args()
    lists = args.output / "cifar10"
    labels = np.array([int(line.rsplit(" ", 1)[1]) for line in (lists / "labelled.txt").read_text().splitlines()])
    found = {
        "lists": json.loads((lists / "lists.json").read_text()),
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(lists.glob("*.txt"))},
        "answers": {folder.name: answers(TargetStore(folder), labels if folder.name.split("_")[1] == "5k" else None)
                    for folder in sorted((args.output / "targets").iterdir()) if folder.is_dir()},
    }
    strong, weak = (found["answers"].get(name, {}).get("median_probability") for name in ("strong_5k", "weak_5k"))
    found["headline"] = f"likeliest class's probability, median over views: strong teacher {strong}, weak teacher {weak}"
    path = result_path("cifar10_inputs")
    write_atomic(path, json.dumps({**found, "environment": environment()}, indent=1) + "\n")
    print(json.dumps(found["answers"], indent=1))
    print(f"written: {path}")


if __name__ == "__main__":
    main()
