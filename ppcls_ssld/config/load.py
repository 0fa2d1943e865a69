"""Files, `_base_` and `-o` flags -> one tree -> RunConfig; and back to text.

The way of a value: `text.parse` reads each file, `_read` lays it over the files it inherits, `_override` sets what the
flags say, `sections.read_run` checks everything and fills schema.py's dataclasses.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from . import text
from .check import KeyPathError, shown
from .readonly import frozen, plain, sealed
from .schema import RunConfig
from .sections import read_run

Places = dict[str, str]  # key path -> "file:line" or "-o flag" that it comes from


def load_config(path: str | os.PathLike, overrides: Sequence[str] = ()) -> RunConfig:
    """The run that a YAML file describes, after `key.path=value` overrides in their order.

    `_base_` in a file names one file or a list, relative to it, to inherit from: sections merge key by key, later files
    win, lists are replaced whole, and `_delete_: true` in a section drops what it would inherit. In an override a
    number picks an item of a list. Raises ConfigError with file, line and key path.
    """
    tree, places = read_tree(path, overrides)
    return _resolve(tree, lambda key_path: place_of(key_path, places) or str(path))


def read_tree(path: str | os.PathLike | None, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], Places]:
    """(tree of a file and what it inherits, after the overrides; where each key comes from). No path: an empty tree."""
    tree, places = _read(Path(path), ()) if path else ({}, {})
    for override in overrides:
        _override(tree, override, places)
    return tree, places


def resolve(tree: Mapping[str, Any], where_from: str = "config") -> RunConfig:
    """The run that a nested dict describes; `where_from` opens the error messages."""
    return _resolve(tree, lambda _: where_from)


def dump(config: RunConfig) -> str:
    """YAML text that `load_config` reads back to an equal RunConfig: no `_base_`, overrides applied."""
    return text.write(plain(config.source))


def differences(old_source: Mapping[str, Any], new_source: Mapping[str, Any]) -> list[str]:
    """One line per key path whose value differs between two `RunConfig.source` (or plain copies of one)."""
    old, new = dict(_leaves(old_source)), dict(_leaves(new_source))
    lines = []
    for path in {**old, **new}:
        if path not in new:
            lines.append(f"{path}: {old[path]!r} -> not given")
        elif path not in old:
            lines.append(f"{path}: not given -> {new[path]!r}")
        elif old[path] != new[path]:
            lines.append(f"{path}: {old[path]!r} -> {new[path]!r}")
    return lines


def _resolve(tree: Mapping[str, Any], place: Callable[[str], str]) -> RunConfig:
    try:
        return sealed(dataclasses.replace(read_run(tree), source=frozen(tree)))
    except KeyPathError as e:
        raise ConfigError(f"{place(e.path)}: {e}") from e


def _read(path: Path, inheriting: tuple[Path, ...]) -> tuple[dict[str, Any], Places]:
    """(tree of a file laid over its bases, where each key comes from). inheriting: the files on the way here."""
    asked_by = f", the _base_ of {inheriting[-1]}" if inheriting else ""
    if any(path.resolve() == other.resolve() for other in inheriting):
        raise ConfigError(f"{path}: inherits from itself: {' -> '.join(map(str, (*inheriting, path)))}")
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}{asked_by}: cannot be read: {getattr(e, 'strerror', None) or e}") from e
    tree, places = text.parse(content, str(path))
    if not isinstance(tree or {}, dict):
        raise ConfigError(f"{path}: expected sections of `key: value`, found {shown(tree)}")
    tree = tree or {}
    bases = tree.pop("_base_", None) or []
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{places['_base_']}: _base_: expected a path or a list of paths, found {shown(bases)}")
    merged: dict[str, Any] = {}
    merged_places: Places = {}
    for base in bases:
        base_tree, base_places = _read(Path(os.path.normpath(path.parent / base)), (*inheriting, path))
        merged, merged_places = _merged(merged, base_tree), {**merged_places, **base_places}
    return _merged(merged, tree), {**merged_places, **places}


def _merged(base: Any, over: Any) -> Any:
    """`over` laid over `base`, sharing nothing with either (YAML aliases would)."""
    if not isinstance(over, dict):
        return plain(over)
    kept = base if isinstance(base, dict) and not over.get("_delete_") else {}
    laid = {key: _merged(kept.get(key), value) for key, value in over.items() if key != "_delete_"}
    return {**plain(kept), **laid}


def _override(tree: dict[str, Any], override: str, places: Places) -> None:
    flag = f"-o {override}"
    key_path, equals, value_text = override.partition("=")
    key_path = key_path.strip()
    if not equals or not all(key_path.split(".")):
        raise ConfigError(f"{flag}: expected key.path=value, such as -o Global.epochs=10")
    if not value_text.strip():  # of a shell variable that is not set
        raise ConfigError(f"{flag}: no value; write {key_path}=null to unset it")
    value, value_places = text.parse(value_text, flag)
    *parents, last = key_path.split(".")
    node: Any = tree
    for depth, part in enumerate(parents):
        key = _step(node, part, parents[:depth], flag, enters=True)
        if isinstance(node, dict) and node.get(key) is None:
            node[key] = {}
            places[".".join(parents[:depth + 1])] = flag
        node = node[key]
    node[_step(node, last, parents, flag)] = value
    places.update({f"{key_path}.{path}" if path else key_path: flag for path in ("", *value_places)})


def _step(node: Any, part: str, parents: Sequence[str], flag: str, enters: bool = False) -> str | int:
    """The key or index that `part` means in a section or list; enters: something inside it is to be set."""
    here = ".".join(parents) or "the config"
    if isinstance(node, list):
        if not part.isdecimal() or int(part) >= len(node):
            expected = f"0 to {len(node) - 1}" if node else "nothing, it is empty"
            raise ConfigError(f"{flag}: {here} is a list; expected {expected}, found '{part}'")
        return int(part)
    if not isinstance(node, dict):
        raise ConfigError(f"{flag}: {here} is {shown(node)}; nothing can be set inside it")
    if part.isdecimal() and part not in node:
        raise ConfigError(f"{flag}: {here} is no list, so it has no item {part}")
    in_entry = bool(parents) and parents[-1].isdecimal() and len(node) == 1
    if enters and in_entry and part not in node:  # a second name in a `- Name: {arguments}`
        raise ConfigError(f"{flag}: {here} is '{next(iter(node))}', not '{part}'")
    return part


def place_of(key_path: str, places: Places) -> str | None:
    """Where a key path, or the nearest part of the way to it, was written."""
    while key_path and key_path not in places:
        key_path = key_path.rpartition(".")[0]
    return places[key_path] if key_path else None


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in tree):
        for i, value in enumerate(tree):
            yield from _leaves(value, f"{path}.{i}")
    else:
        yield path, list(tree) if isinstance(tree, tuple) else tree
