"""The pool of a demo: its images without labels, and among them what does not belong there, as in a pool from the web.

The demo keeps the account of what it planted; the miner gets files whose names tell nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from ..data.pixels import read
from ..errors import CheckpointError, DataError
from ..rng import Stream, generator
from .edits import OF_DRAWINGS, OF_PHOTOGRAPHS, noise, patch
from .images import DemoImages, by_class

COPY, STRANGER, BROKEN = "copy", "stranger", "broken"  # kinds of planted files
SAME_FILE = "the same file"
COPIES_SHARE, MOST_COPIES, FEWEST_COPIES = 0.1, 120, 8  # of the images without labels
STRANGERS_SHARE, MOST_STRANGERS, FEWEST_STRANGERS = 0.1, 100, 4
SIZES = 7  # of test images, that strangers have too
LONGEST_SIDE = 400  # pixels of a planted copy's original; the time of a demo with large photographs
FEWEST_INNOCENTS = 50  # images that are no copies, below which thresholds are not calibrated on them
JPEG_QUALITY = 60


@dataclass(frozen=True)
class Planted:
    """A file in the pool that does not belong there. what: what was done, or what it shows, in words.

    source: the test image that a copy was made from, else "".
    """

    path: str
    kind: str
    what: str
    source: str = ""


@dataclass(frozen=True)
class Pool:
    """folder: of the planted files. protected: list of the test images.

    innocents: list of images that are no copies of (other) test images; None where there are too few to calibrate on.
    top_k: images of the largest class that the teacher learned.
    """

    folder: Path
    planted: tuple[Planted, ...]
    protected: Path
    innocents: Path | None
    top_k: int


def make_pool(images: DemoImages, folder: Path, seed: int) -> Pool:
    """Plant files in `folder/pool`, by seed, and write the lists that the miner gets.

    CheckpointError: the folder cannot be written. DataError: scikit-learn, whose photographs are cut up, is missing.
    """
    target = folder / "pool"
    try:
        target.mkdir(parents=True)
        planted = tuple(_plant(images, target, generator(seed, 3, 0, Stream.SUBSET)))
        tests, few = [item.path for item in images.test], [item.path for item in images.labelled]
        protected = _write_paths(folder / "test_images.txt", tests)
        innocents = _write_paths(folder / "innocents.txt", [*few, *tests])
    except OSError as e:
        raise CheckpointError(f"{target}: the demo's pool cannot be written ({e.strerror}); choose another "
                              "--output") from e
    return Pool(target, planted, protected, innocents if len(tests) + len(few) >= FEWEST_INNOCENTS else None,
                max(map(len, by_class(images.train).values())))


def _plant(images: DemoImages, folder: Path, rng: Generator) -> Iterator[Planted]:
    count = len(images.unlabelled)
    copies = min(len(images.test), max(round(COPIES_SHARE * count), FEWEST_COPIES), MOST_COPIES)
    strangers = min(max(round(STRANGERS_SHARE * count), FEWEST_STRANGERS), MOST_STRANGERS)
    work = [*_copies(images, copies, rng), *_strangers(images, strangers, rng), *_broken(images, rng)]
    for number, place in enumerate(rng.permutation(len(work)).tolist()):  # so that the order tells nothing either
        kind, what, source, content, suffix = work[place]
        path = folder / f"{number:05d}{suffix}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            shutil.copyfile(content, path)
        yield Planted(os.path.abspath(path), kind, what, source)


_Work = tuple[str, str, str, bytes | str, str]  # kind, what, source, content or the file to copy, suffix


def _copies(images: DemoImages, count: int, rng: Generator) -> Iterator[_Work]:
    """Of different test images, each edit as often as the others."""
    edits = OF_PHOTOGRAPHS if images.photographs else OF_DRAWINGS
    names = [SAME_FILE, *edits]
    for i, place in enumerate(rng.permutation(len(images.test))[:count].tolist()):
        source, what = images.test[place].path, names[i % len(names)]
        if what == SAME_FILE:
            yield COPY, what, source, source, Path(source).suffix
            continue
        edit, form = edits[what]
        yield COPY, what, source, _encoded(edit(_small(read(source)), rng), form), f".{form}"


def _strangers(images: DemoImages, count: int, rng: Generator) -> Iterator[_Work]:
    """As large as some test images. Parts of photographs are strangers among drawings only."""
    photographs = [] if images.photographs else _photographs()
    sizes = [_small(read(item.path)).shape[:2] for item in images.test[:SIZES]]
    for i in range(count):
        height, width = sizes[i % len(sizes)]
        if photographs and i % 2:
            what, picture = "part of a photograph", patch(photographs, min(height, width), rng)
        else:
            what, picture = "noise", noise(height, width, rng)
        form = str(rng.choice(["png", "jpg"]))
        yield STRANGER, what, "", _encoded(picture, form), f".{form}"


def _broken(images: DemoImages, rng: Generator) -> Iterator[_Work]:
    picture = _small(read(images.test[0].path))
    for form in ("jpg", "png"):
        whole = _encoded(picture, form)
        yield BROKEN, "truncated", "", whole[:len(whole) // 2], f".{form}"
        yield BROKEN, "empty", "", b"", f".{form}"
    yield BROKEN, "a web page", "", b"<!doctype html><title>404 Not Found</title>\n", ".jpg"
    yield BROKEN, "random bytes", "", rng.bytes(2000), ".jpg"


def _photographs() -> list[np.ndarray]:
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as e:
        raise DataError("scikit-learn is missing, and the demo's photographs come with it: pip install scikit-learn, "
                        "or run the demo on images of your own with --data FOLDER") from e
    return load_sample_images().images


def _small(picture: np.ndarray) -> np.ndarray:
    scale = LONGEST_SIDE / max(picture.shape[:2])
    if scale >= 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _encoded(picture: np.ndarray, form: str) -> bytes:
    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if form == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    return cv2.imencode(f".{form}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), parameters)[1].tobytes()


def _write_paths(path: Path, paths: list[str]) -> Path:
    path.write_text("".join(f"{p}\n" for p in paths), encoding="utf-8")
    return path
