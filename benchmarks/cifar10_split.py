"""The CIFAR-10 ladder's 5,000 labelled images, divided for choosing a setting: 4,000 to train, 1,000 to validate.

    python benchmarks/cifar10_split.py --cifar FOLDER --output FOLDER

The test images have no part in it. Lists: setting_train.txt and setting_val.txt, `path label` a line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.cifar10_mining import LABELLED  # noqa: E402

TRAIN = 4_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cifar", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    cifar, output = args.cifar.resolve(), args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    lines = (cifar / "train_list.txt").read_text().splitlines()[:LABELLED]
    for name, part in (("train", lines[:TRAIN]), ("val", lines[TRAIN:])):
        (output / f"setting_{name}.txt").write_text("".join(f"{cifar / line}\n" for line in part))


if __name__ == "__main__":
    main()
