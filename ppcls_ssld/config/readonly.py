"""Values that cannot be changed: what a builder pops from a config is what the next builder misses."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping
from typing import Any, TypeVar

from .check import fail

T = TypeVar("T")
_SCALARS = (str, int, float, bool, type(None), datetime.date)


class ReadOnlyDict(dict):
    """A dict that refuses changes. A dict still, so that JSON, pickle, copies and `**` work as usual."""

    def _refuse(self, *_: Any, **__: Any) -> None:
        raise TypeError("a config is read-only after loading; change the file, or load it with -o key.path=value")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self):
        return type(self), (dict(self),)


def frozen(value: Any, path: str = "") -> Any:
    """A deep read-only copy: mappings to ReadOnlyDict, lists to tuples. Fails at what YAML could not have said."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                fail(path, f"expected text as a key, found {key!r}; put it in quotes")
        return ReadOnlyDict({k: frozen(v, f"{path}.{k}" if path else k) for k, v in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(frozen(v, f"{path}.{i}" if path else str(i)) for i, v in enumerate(value))
    if not isinstance(value, _SCALARS):
        fail(path, f"expected text, a number, a list or a section, found {type(value).__name__} {value!r}")
    return value


def plain(value: Any) -> Any:
    """A deep copy in dicts and lists, nothing shared: the inverse of `frozen`."""
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value


def sealed(item: T) -> T:
    """A frozen dataclass whose mappings and lists, at any depth, are read-only as well."""
    values = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    return dataclasses.replace(item, **{name: _sealed_value(value, name) for name, value in values.items()})


def _sealed_value(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value):
        return sealed(value)
    if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
        return tuple(map(sealed, value))
    return frozen(value, path)
