"""The lists of the CIFAR-10 ladder: 5,000 labelled images, and what the miner takes from a dirty pool of the others.

    python benchmarks/cifar10_lists.py --cifar FOLDER --photos FOLDER --teacher teacher.pdparams --output FOLDER

The pool is that of cifar10_mining.py: 45,000 CIFAR-10 training images, 30,000 distractors (crops of photographs, noise) and 2,000
edited copies of test images. The miner scores it once; the 500, 1,500 and 4,500 best images of each class become
mined_5k.txt, mined_15k.txt, mined_45k.txt; as many random images of the cleaned pool are in random_5k.txt and so on.
The pool and the miner's folder are kept in OUTPUT/pool; an interrupted call goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks import cifar10_mining  # noqa: E402

PER_CLASS = {"5k": 500, "15k": 1_500, "45k": 4_500}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cifar", "photos", "teacher", "output"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    cifar, output = args.cifar.resolve(), args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    lines = (cifar / "train_list.txt").read_text().splitlines()[:cifar10_mining.LABELLED]
    (output / "labelled.txt").write_text("".join(f"{cifar / line}\n" for line in lines))
    pool = argparse.Namespace(cifar=cifar, photos=args.photos.resolve(), teacher=args.teacher.resolve(),
                              output=(output / "pool").resolve(), workers=0)
    cifar10_mining.make_pool(pool.cifar, pool.photos, pool.output)
    found = {}
    for name, pool.top_k in PER_CLASS.items():
        cifar10_mining.mine(pool)  # after the first time only the choice is made again
        for ours, its in ((f"mined_{name}", "selected"), (f"random_{name}", "random")):
            shutil.copyfile(pool.output / "mined" / f"{its}.txt", output / f"{ours}.txt")
        about = cifar10_mining.describe(pool)
        found[name] = {key: about[key] for key in ("chosen_by_kind", "chosen_of_the_right_class", "random_by_kind")}
    (output / "lists.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
