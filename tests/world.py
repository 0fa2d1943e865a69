"""Small helpers around training runs, shared by the tests of several rooms."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from ppcls_ssld.arch import read_arrays
from ppcls_ssld.config import resolve
from ppcls_ssld.engine import train
from ppcls_ssld.engine.step import TrainStep


NORMALIZE = {"NormalizeImage": {"scale": "1.0/255.0", "mean": [0.5] * 3, "std": [0.5] * 3, "order": ""}}


def changed(tree, **values):
    """A copy of a config tree with values at key paths: changed(tree, Global__epochs=2)."""
    tree = copy.deepcopy(tree)
    for path, value in values.items():
        *parents, leaf = path.split("__")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return tree


def run(tree):
    return train(resolve(tree))


def rows(output_dir, kind="train"):
    """Rows of metrics.jsonl without the ones that tell time."""
    lines = [json.loads(line) for line in open(f"{output_dir}/metrics.jsonl")]
    timing = ("images_per_s", "share", "run_steps")
    return [{k: v for k, v in row.items() if k not in timing} for row in lines if row["kind"] == kind]


def student(output_dir, step):
    return read_arrays(f"{output_dir}/checkpoints/{step:08d}/student.pdparams")


class Cut(Exception):
    pass


def cut_after(monkeypatch, steps):
    """The next run is cut off in the middle of step `steps` + 1."""
    original = TrainStep.__call__
    done = []

    def step(self, *args, **kwargs):
        if len(done) == steps:
            raise Cut
        done.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", step)


def cut_and_resumed(tree, monkeypatch):
    """(an unbroken run of 10 steps, the same cut off after 7 and resumed)."""
    whole = run(tree)
    cut = changed(tree, Global__output_dir=whole.output_dir + "_cut")
    with monkeypatch.context() as patch:
        cut_after(patch, 7)
        with pytest.raises(Cut):
            run(cut)
    return whole, run(changed(cut, Global__checkpoints="auto"))


def same_arrays(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def checkpoints(output_dir):
    """Names of the checkpoint folders of a run, sorted."""
    return sorted(p.name for p in Path(output_dir, "checkpoints").iterdir())
