"""YAML text <-> plain Python values. The only importer of PyYAML; nothing is ever evaluated."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    pass


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind in (_Loader, _Dumper):  # the dumper too, so that it quotes the texts that the loader would misread
    # YAML 1.1 takes 1e-5 for text because it has no dot. PaddleClas's files are full of it, and mean the number.
    _kind.add_implicit_resolver("tag:yaml.org,2002:float",
                                re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+.0123456789"))
    # They also write None for null.
    _kind.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("^None$"), ["N"])


def parse(text: str, name: str) -> tuple[Any, dict[str, str]]:
    """(value of a YAML text, key path -> "name:line" of everything in it).

    Raises ConfigError with the line for broken YAML, a key given twice, or an alias that contains itself.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        places: dict[str, str] = {}
        if node is not None:
            _walk(node, "", 1, name, places, ())
        return (None if node is None else loader.construct_document(node)), places
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        place = _place(name, mark.line + 1) if mark else name
        raise ConfigError(f"{place}: not plain YAML: {e.problem}") from e
    except (yaml.YAMLError, ValueError) as e:  # characters that YAML forbids; a date such as 2024-13-45
        raise ConfigError(f"{name}: not plain YAML: {e}") from e


def write(value: Any) -> str:
    """YAML text of dicts, lists and scalars that `parse` reads back to the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)


def _walk(node: yaml.Node, path: str, line: int, name: str, places: dict[str, str], parents: tuple) -> None:
    if any(node is parent for parent in parents):
        raise ConfigError(f"{_place(name, line)}: {path} is an alias of something that contains it")
    parents = (*parents, node)
    if isinstance(node, yaml.MappingNode):
        # Merged keys (`<<: *anchor`) first: those written out override them.
        for _, value in (pair for pair in node.value if pair[0].tag == _MERGE):
            for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                _walk(merged, path, line, name, places, parents)
        first_line: dict[str, int] = {}
        for key, value in (pair for pair in node.value if pair[0].tag != _MERGE):
            key_line = key.start_mark.line + 1
            if key.tag != _TEXT:
                found = f"'{key.value}', a {key.tag.rpartition(':')[2]}" if isinstance(key.value, str) else "a list"
                raise ConfigError(f"{_place(name, key_line)}: expected text as a key, found {found}; put it in quotes")
            child = f"{path}.{key.value}" if path else key.value
            if key.value in first_line:
                raise ConfigError(f"{_place(name, key_line)}: {child} is given twice, first in line "
                                  f"{first_line[key.value]}; keep one of them")
            first_line[key.value] = key_line
            _walk(value, child, key_line, name, places, parents)
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, f"{path}.{i}" if path else str(i), item.start_mark.line + 1, name, places, parents)
    places[path] = _place(name, line)


def _place(name: str, line: int) -> str:
    return name if name.startswith("-o ") else f"{name}:{line}"  # a flag has one line
