"""Class names from a text file."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import DataError


def read_labels(path: str | os.PathLike, class_num: int | None = None) -> tuple[str, ...]:
    """Names of the classes 0, 1, ... from a UTF-8 file with one class a line.

    Either `id name` on every line, in any order (PaddleClas's imagenet1k_label_list.txt), or the name alone in the
    order of the ids. DataError when ids are missing or doubled, or when there are not `class_num` names.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as e:
        raise DataError(f"{path}: the class names cannot be read ({e.strerror})") from e
    except UnicodeDecodeError as e:
        raise DataError(f"{path}: class names must be UTF-8 text ({e.reason} at byte {e.start})") from e
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    split = [line.split(maxsplit=1) for line in lines]
    if lines and all(len(parts) == 2 and parts[0].isdecimal() for parts in split):
        by_id = {int(parts[0]): parts[1] for parts in split}
        if sorted(by_id) != list(range(len(lines))):
            raise DataError(f"{path}: every line opens with a number, so {len(lines)} lines must carry the ids "
                            f"0..{len(lines) - 1}, each once; {_odd_one(by_id, len(lines))}")
        names = tuple(by_id[i] for i in range(len(lines)))
    else:
        names = tuple(lines)
    if not names:
        raise DataError(f"{path}: no class names in it; expected one a line")
    if class_num is not None and len(names) != class_num:
        raise DataError(f"{path}: {len(names)} class names, but the network has {class_num} classes")
    return names


def _odd_one(by_id: dict[int, str], count: int) -> str:
    missing = next((i for i in range(count) if i not in by_id), None)
    return "an id is there twice" if missing is None else f"id {missing} is missing"
