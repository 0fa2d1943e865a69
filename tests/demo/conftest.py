"""A small made-up demo, so that the report can be tested without training anything."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ppcls_ssld.demo.images import DemoImages, Item
from ppcls_ssld.demo.recipe import STUDENT, TEACHER


def write_image(path: Path, width: int = 32, height: int = 32, seed: int = 0) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.random.default_rng(seed).integers(0, 256, [height, width, 3], np.uint8))
    return str(path)


@pytest.fixture
def class_folders():
    """class_folders(root, {"ant": 12, ...}) makes `root/<class>/NNN.png`, noise."""

    def make(root: Path, counts: dict[str, int], width: int = 32, height: int = 32) -> Path:
        for name, count in counts.items():
            for i in range(count):
                write_image(root / name / f"{i:03d}.png", width, height, seed=i)
        return root

    return make


@pytest.fixture
def images(tmp_path) -> DemoImages:
    """Three classes, one name with markup in it; 6 labelled, 12 unlabelled and 30 test images."""
    pictures = [write_image(tmp_path / f"{i}.png", seed=i) for i in range(48)]
    items = [Item(path, i % 3) for i, path in enumerate(pictures)]
    return DemoImages("Noise", ("ant", "<bee>", "cat"), tuple(items[:6]), tuple(items[6:18]), tuple(items[18:]),
                      photographs=True, notes=("some images are left out",))


@pytest.fixture
def pool(images, tmp_path):
    from ppcls_ssld.demo.pool import make_pool

    return make_pool(images, tmp_path / "demo" / "data", seed=3)


@pytest.fixture
def mined_folder(images, pool, tmp_path) -> Path:
    """What a mining run leaves: all copies but the last found, one real image with them, the rest chosen but for one
    real image and the strangers save one."""
    folder = tmp_path / "demo" / "mining"
    folder.mkdir(parents=True)
    copies, strangers, broken = ([p for p in pool.planted if p.kind == kind] for kind in ("copy", "stranger", "broken"))
    copies.sort(key=lambda copy: copy.what)
    real = [item.path for item in images.unlabelled]
    rows = [(p.path, p.source, "bytes" if p.what == "the same file" else "thumbnail",
             "" if p.what == "the same file" else 0.97) for p in copies[:-1]]
    rows.append((real[0], images.test[0].path, "keypoints", 9))
    write_table(folder / "removed.csv", ("path", "copy_of", "stage", "score"), rows)
    write_table(folder / "quarantine.csv", ("path", "reason"), [(p.path, "it is broken") for p in broken])
    chosen = [*real[2:], copies[-1].path, strangers[0].path]
    (folder / "selected.txt").write_text("".join(f"{path}\n" for path in sorted(chosen)))
    (folder / "manifest.json").write_text(json.dumps({"dedup": {"correlation": 0.91, "cells": 8}}))
    return folder


def write_table(path: Path, header, rows) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


@pytest.fixture
def mined(images, pool, mined_folder):
    from ppcls_ssld.config.mine import SelectConfig
    from ppcls_ssld.demo.mined import account

    return account(images, pool, mined_folder, SelectConfig(top_k=6, min_score=0.5))


@pytest.fixture
def story(images, pool, mined, tmp_path):
    """A finished story: the baseline guesses, the SSLD student is right but for the first five test images."""
    from ppcls_ssld.demo.predict import Exported
    from ppcls_ssld.demo.story import Row, Story
    from ppcls_ssld.export import ParityReport

    rng = np.random.default_rng(0)
    truth = np.array([item.label for item in images.test])
    good = np.eye(3, dtype=np.float32)[truth] * 0.8 + 0.2 / 3
    good[:5] = np.roll(good[:5], 1, axis=1)
    probabilities = {"baseline": rng.dirichlet([1, 1, 1], len(truth)).astype(np.float32), "ssld": good,
                     "ssld_finetuned": good, "exported": good}
    story = Story(images, tmp_path / "demo", seed=3)
    for name in ("teacher", *probabilities):
        top1 = float((probabilities.get(name, good).argmax(1) == truth).mean())
        story.rows.append(Row(name, TEACHER if name == "teacher" else STUDENT, f"how {name} was trained",
                              {"teacher": 18, "baseline": 6}.get(name, 0), top1, f"make {name}"))
    story.parameters = {TEACHER: 11_200_000, STUDENT: 400_000}
    for run in ("teacher", "baseline", "ssld", "finetune"):
        story.metrics[run] = [
            {"kind": "train", "step": 10, "images_seen": 640, "loss": 2.0},
            {"kind": "eval", "step": 10, "images_seen": 640, "top1": 0.5},
            {"kind": "train", "step": 20, "images_seen": 1280, "loss": 0.5},
            {"kind": "eval", "step": 20, "images_seen": 1280, "top1": 0.8},
        ]
        story.views[run] = 1280
        story.seconds[run] = 10.0
    story.seconds["export"] = 2.0
    story.pool, story.mined = pool, mined
    story.probabilities = probabilities
    story.asked = list(range(len(images.unlabelled)))
    story.teacher_says = rng.dirichlet([1, 1, 1], len(images.unlabelled)).astype(np.float32)
    parity = {"inference.json": ParityReport(30, 1e-6, 1e-6, 0, "test images")}
    files = ("inference.json", "inference.pdiparams")
    story.exported = Exported(tmp_path / "demo" / "exported", files, 1.8, parity, good)
    return story
