"""The images of a demo: a few labelled, many without a label, and test images that no training sees."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..mining.sources import printable
from ..rng import Stream, generator

DELIMITER = "\t"  # a user's paths may hold spaces


@dataclass(frozen=True)
class Item:
    """An image file and its class id. The id of an unlabelled image is known to the demo and written to no list
    but the teacher's."""

    path: str
    label: int


@dataclass(frozen=True)
class DemoImages:
    """title: what the images are, for people. notes: what was left out and why, one sentence each.

    photographs: they may be mirrored, as digits may not, and take longer to learn.
    """

    title: str
    classes: tuple[str, ...]
    labelled: tuple[Item, ...]
    unlabelled: tuple[Item, ...]
    test: tuple[Item, ...]
    photographs: bool
    notes: tuple[str, ...] = ()

    @property
    def train(self) -> tuple[Item, ...]:
        return (*self.labelled, *self.unlabelled)


@dataclass(frozen=True)
class Lists:
    """List files of a demo, in its data folder; `path<tab>label` a line, absolute paths."""

    folder: Path
    labelled: Path  # the few
    unlabelled: Path  # paths alone
    teacher: Path  # every training image with its label
    test: Path
    classes: Path  # `id name` a line


def split_train(items: Sequence[Item], few: int, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(labelled, unlabelled): `few` of each class, drawn by seed, and the rest, by path. DataError without a rest."""
    labelled, unlabelled = [], []
    for label, group in by_class(items).items():
        if len(group) <= few:
            raise DataError(f"class {label} has {len(group)} training images; expected more than {few}, the number "
                            "that keeps its labels, so that some are left as unlabelled. Add images or leave it out")
        order = generator(seed, 0, label, Stream.SUBSET).permutation(len(group))
        labelled += [group[i] for i in order[:few]]
        unlabelled += [group[i] for i in order[few:]]
    return tuple(labelled), tuple(sorted(unlabelled, key=lambda item: item.path))


def split_test(items: Sequence[Item], share: float, seed: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """(train, test): `share` of each class goes to test, drawn by seed; at least one image."""
    train, test = [], []
    for label, group in by_class(items).items():
        count = max(1, round(len(group) * share))
        chosen = set(generator(seed, 1, label, Stream.SUBSET).permutation(len(group))[:count].tolist())
        test += [item for i, item in enumerate(group) if i in chosen]
        train += [item for i, item in enumerate(group) if i not in chosen]
    return tuple(train), tuple(test)


def by_class(items: Iterable[Item]) -> dict[int, list[Item]]:
    """Items by class id, ids ascending, order kept within a class."""
    groups: dict[int, list[Item]] = {}
    for item in items:
        groups.setdefault(item.label, []).append(item)
    return dict(sorted(groups.items()))


def write_lists(images: DemoImages, folder: Path) -> Lists:
    """Write the lists of `images` into `folder`. DataError for an image whose name cannot stand in a list."""
    bad = next((i.path for i in (*images.train, *images.test) if printable(i.path) != i.path), None)
    if bad is not None:
        raise DataError(f"{printable(bad)}: this name has a line break in it, or is not UTF-8, and lists are UTF-8 "
                        "with an image a line; rename it")
    folder.mkdir(parents=True, exist_ok=True)
    lists = Lists(folder, folder / "train_labelled.txt", folder / "train_unlabelled.txt",
                  folder / "train_all_labelled.txt", folder / "test.txt", folder / "classes.txt")
    _write(lists.labelled, (f"{i.path}{DELIMITER}{i.label}" for i in images.labelled))
    _write(lists.unlabelled, (i.path for i in images.unlabelled))
    _write(lists.teacher, (f"{i.path}{DELIMITER}{i.label}" for i in images.train))
    _write(lists.test, (f"{i.path}{DELIMITER}{i.label}" for i in images.test))
    _write(lists.classes, (f"{i} {name}" for i, name in enumerate(images.classes)))
    return lists


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def spread(count: int, limit: int) -> np.ndarray:
    """Up to `limit` indices below `count`, evenly spread, ascending."""
    return np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
