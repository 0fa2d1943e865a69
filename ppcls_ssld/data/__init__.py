"""Lists and folders of images -> batches of numpy arrays. Imports no Paddle; the names below are loaded when used."""

from __future__ import annotations

import importlib

_HOME = {
    "TrainReader": "reader",
    "EvalReader": "reader",
    "ViewReader": "reader",
    "ImageList": "lists",
    "read_source": "lists",
    "TrainSampler": "sampler",
    "TRANSFORMS": "transforms",
    "build_transforms": "transforms",
    "check_transforms": "transforms",
    "BATCH_TRANSFORMS": "mix",
    "build_mix": "mix",
    "check_mix": "mix",
}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    # `deploy` imports ppcls_ssld.data.pixels, which passes through here: Pillow and the reader must not come along.
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
