"""A user's class folders as the images of a demo. Nothing is copied: the lists point at the files."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError
from .images import DemoImages, Item, by_class, spread, split_test, split_train

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
TRAIN_CAP, TEST_CAP = 2000, 500  # images; keeps the demo within minutes on two cores
LABELLED_SHARE = 0.1  # of the training images of a class, but not fewer than FEWEST
FEWEST = 5
TEST_SHARE = 0.2
MOST_CLASSES = 100


def folder_images(root: Path, seed: int, train_cap: int = TRAIN_CAP, test_cap: int = TEST_CAP) -> DemoImages:
    """`root/<class>/*`, or `root/train/<class>/*` with `root/test/<class>/*`, split by seed and capped.

    Raises DataError: no such folder, fewer than two classes, more than 100, a class with too few images.
    """
    if not root.is_dir():
        raise DataError(f"--data {root}: no such folder; expected one that holds a sub-folder of images per class")
    given = (root / "train").is_dir() and (root / "test").is_dir()
    classes = _class_names(root / "train" if given else root)
    notes = []
    if given:
        train, test = _scan(root / "train", classes, FEWEST + 2), _scan(root / "test", classes, 1)
    else:
        train, test = split_test(_scan(root, classes, FEWEST + 3), TEST_SHARE, seed)
        notes.append(f"no train/ and test/ in {root}: {TEST_SHARE:.0%} of each class is kept for the test")
    found = len(train), len(test)
    train, test = _cap(train, train_cap, len(classes)), _cap(test, test_cap, len(classes))
    if (len(train), len(test)) != found:
        notes.append(f"{len(train):,} of {found[0]:,} training and {len(test):,} of {found[1]:,} test images are used, "
                     "so that the demo takes minutes")
    smallest = min(len(group) for group in by_class(train).values())
    few = max(FEWEST, round(len(train) / len(classes) * LABELLED_SHARE))
    labelled, unlabelled = split_train(train, min(few, max(FEWEST, smallest // 2)), seed)
    return DemoImages(root.resolve().name, classes, labelled, unlabelled, test, photographs=True, notes=tuple(notes))


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise DataError(f"{root}: {len(names)} class folders found ({', '.join(names[:4]) or 'none'}); the demo takes "
                        f"2 to {MOST_CLASSES}, each with its images in it")
    return names


def _scan(root: Path, classes: tuple[str, ...], at_least: int) -> list[Item]:
    """Images of `root/<class>`, by name. DataError when a class has fewer than `at_least`."""
    items = []
    for label, name in enumerate(classes):
        folder = (root / name).absolute()
        files = sorted(e.name for e in os.scandir(folder)) if folder.is_dir() else []
        files = [file for file in files if Path(file).suffix.lower() in SUFFIXES and not file.startswith(".")]
        if len(files) < at_least:
            raise DataError(f"{folder}: {len(files)} images ({' '.join(sorted(SUFFIXES))}); the demo needs at least "
                            f"{at_least} there")
        items += [Item(str(folder / file), label) for file in files]
    return items


def _cap(items: list[Item] | tuple[Item, ...], cap: int, class_count: int) -> tuple[Item, ...]:
    """At most cap / class_count of each class, spread over its files."""
    each = max(1, cap // class_count)
    return tuple(group[i] for group in by_class(items).values() for i in spread(len(group), each))
