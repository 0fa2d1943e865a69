"""A teacher's answers, asked once and stored: written, verified, and read by training. Names are loaded when used."""

from __future__ import annotations

import importlib

_HOME = {"TargetStore": "store", "expect": "header", "check": "header", "read_header": "header", "TAILS": "answers",
         "BITS": "answers", "WriteOptions": "write", "write_targets": "write", "verify_targets": "verify"}
__all__ = sorted(_HOME)


def __getattr__(name: str):
    # Reader processes and `targets info` read a store without Paddle, which writing needs.
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
