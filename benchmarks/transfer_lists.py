"""Two small tasks for a backbone trained on CIFAR-10: handwritten digits, and whether a photograph shows an animal.

    python benchmarks/transfer_lists.py --photos FOLDER --output FOLDER

digits: scikit-learn's 1,797, ten of each for training, the others for the test. photographs: ImageNet photographs whose
file names start with the WordNet id of their class, brought to 32 pixels; all animals and as many others, every second one
for training. Lists: <task>_train.txt and <task>_test.txt, `path label` a line.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from ppcls_ssld.demo.digits import digit_images  # noqa: E402

SIDE_PX = 32
FIRST_AFTER_ANIMALS = "n02666196"  # ImageNet-1k's WordNet ids are sorted by what they are


def write_digits(output: Path) -> None:
    images = digit_images(output / "digits", seed=0)
    by_class: dict[int, list] = {}
    for item in sorted([*images.labelled, *images.unlabelled, *images.test], key=lambda item: item.path):
        by_class.setdefault(item.label, []).append(item)
    for name, part in (("train", slice(0, 10)), ("test", slice(10, None))):
        lines = [f"{item.path} {label}\n" for label, items in sorted(by_class.items()) for item in items[part]]
        (output / f"digits_{name}.txt").write_text("".join(lines))


def write_photographs(photos: Path, output: Path) -> None:
    """Short side to 32 pixels, centre crop. SystemExit when file names do not start with WordNet ids, or all show one kind."""
    found = (path for path in photos.rglob("*") if path.suffix.lower() in (".jpeg", ".jpg", ".png"))
    files = sorted(found, key=lambda path: path.name)
    if not files or not all(path.name[:1] == "n" and path.name[1:9].isdigit() for path in files):
        raise SystemExit(f"{photos}: expected photographs named as ImageNet's samples are (n02099601_golden_retriever.JPEG)")
    (output / "photographs").mkdir(exist_ok=True)
    animals = [path for path in files if path.name[:9] < FIRST_AFTER_ANIMALS]
    others = files[len(animals):]
    count = min(len(animals), len(others))
    if count < 2:
        raise SystemExit(f"{photos}: expected photographs of animals and of other things, at least two of each; found {len(animals)} "
                         f"animals and {len(others)} others")
    lines: list[list[str]] = [[], []]
    chosen = [*((path, 0) for path in _spread(animals, count)), *((path, 1) for path in _spread(others, count))]
    for i, (path, label) in enumerate(chosen):
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        small = cv2.resize(image[top:top + side, left:left + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        target = output / "photographs" / f"{path.stem}.png"
        cv2.imwrite(str(target), small)
        lines[i % 2].append(f"{target} {label}\n")
    for name, part in zip(("train", "test"), lines):
        (output / f"photographs_{name}.txt").write_text("".join(part))


def _spread(files: list[Path], count: int) -> list[Path]:
    """`count` of them, evenly over the list, so that every kind keeps its share."""
    return [files[i * len(files) // count] for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    output = args.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    write_digits(output)
    write_photographs(args.photos.resolve(), output)


if __name__ == "__main__":
    main()
