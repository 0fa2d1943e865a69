"""The files that mining leaves for people and for training: lists, tables of what went, the manifest."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..atomic import write_atomic

_ENDS_IN_NUMBER = re.compile(r"\s[+-]?\d+$")


def write_list(path: Path, names: Iterable[str], form: str, root: str | None) -> Path:
    """A list that training opens: a name a line, `name 0` for PaddleClas; names below `root` relative to it.

    A name that itself ends in a number gets the 0 in any case: readers would take that number for a label.
    """
    prefix = os.path.join(os.path.abspath(root), "") if root else None
    lines = []
    for name in names:
        if prefix and name.startswith(prefix) and not name[len(prefix)].isspace():  # readers strip a leading space
            name = name[len(prefix):]
        lines.append(f"{name} 0\n" if form == "paddleclas" or _ENDS_IN_NUMBER.search(name) else f"{name}\n")
    return write_atomic(path, "".join(lines))


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A table with one line of headings; quoted where needed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return write_atomic(path, text.getvalue())


def write_json(path: Path, tree: Mapping[str, Any]) -> Path:
    return write_atomic(path, json.dumps(tree, indent=1, ensure_ascii=False, sort_keys=False) + "\n")
