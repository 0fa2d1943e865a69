"""Typed reading of a section: every value is checked when it is taken, every key that nobody took is an error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from ..errors import ConfigError
from ..registry import nearest, one_key
from .limits import LIMITS, Limit
from .paddleclas import KEYS, Foreign
from .schema import Entry


class KeyPathError(ConfigError):
    """A ConfigError that knows its key path, from which the loader finds file and line."""

    def __init__(self, path: str, message: str):
        super().__init__(message)
        self.path = path


def fail(path: str, message: str) -> NoReturn:
    raise KeyPathError(path, f"{path}: {message}" if path else message)


class Section:
    """One mapping of the tree. A key whose value is null counts as not given.

    path: its key path. notices: a list shared by all sections, for what is accepted without effect.
    table: name of its rows in paddleclas.KEYS, the keys of PaddleClas that have no field here.
    """

    def __init__(self, tree: Any, path: str, notices: list[str], table: str | None = None):
        if tree is not None and not isinstance(tree, Mapping):
            fail(path, f"expected a section of `key: value`, found {shown(tree)}")
        self.path = path
        self.notices = notices
        self._tree = dict(tree or {})
        self._taken: set[str] = set()
        self._foreign: dict[str, Foreign] = KEYS.get(table, {})

    def at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else str(key)

    def has(self, key: str) -> bool:
        return self.take(key) is not None

    def take(self, key: str) -> Any:
        """The value as it stands in the file, unchecked; None when it is not given."""
        self._taken.add(key)
        return self._tree.get(key)

    def value(self, key: str, hint: Any, default: Any = None, limit: Limit | None = None) -> Any:
        """The value, checked against a type and a limit; the default when it is not given."""
        found = self.take(key)
        return default if found is None else checked(found, hint, self.at(key), limit)

    def required(self, key: str, hint: Any, limit: Limit | None = None) -> Any:
        if not self.has(key):
            fail(self.at(key), f"missing; expected {limit.text if limit else _described(hint)}")
        return self.value(key, hint, limit=limit)

    def section(self, key: str, table: str | None = None) -> Section:
        return Section(self.take(key), self.at(key), self.notices, table)

    def items(self, key: str) -> list[tuple[str, Any]]:
        """(key path, value) of each item of a list; empty when it is not given."""
        found = self.take(key)
        if found is not None and not isinstance(found, (list, tuple)):
            fail(self.at(key), f"expected a list, found {shown(found)}")
        return [(f"{self.at(key)}.{i}", item) for i, item in enumerate(found or ())]

    def entries(self, key: str) -> list[tuple[str, str, dict[str, Any]]]:
        """(key path, name, arguments) of each `- Name: {arguments}` of a list; only this form is checked."""
        entries = []
        for path, item in self.items(key):
            name, arguments = _one_key(item, path)
            entries.append((f"{path}.{name}", name, arguments))
        return entries

    def fields(self, cls: type, *names: str) -> dict[str, Any]:
        """Keyword arguments for dataclass `cls` (only the fields named, if any are) from the keys of the same names."""
        hints = get_type_hints(cls)
        values = {}
        for field in dataclasses.fields(cls):
            if names and field.name not in names:
                continue
            hint, limit = hints[field.name], LIMITS.get(cls, {}).get(field.name)
            if self.has(field.name):
                if hint == tuple[Entry, ...]:
                    self.entries(field.name)
                values[field.name] = self.value(field.name, hint, limit=limit)
            elif field.default is field.default_factory is dataclasses.MISSING:
                self.required(field.name, hint, limit)
        return values

    def unread(self) -> list[tuple[str, Any]]:
        """(key, value) of what was not taken yet; leaves it so."""
        return [(key, value) for key, value in self._tree.items() if key not in self._taken]

    def rest(self) -> dict[str, Any]:
        """All keys not taken yet, for constructors that another room checks. Takes them."""
        self._settle_foreign()
        rest = dict(self.unread())
        self._taken.update(rest)
        return rest

    def done(self) -> None:
        """Every key was taken, or is one of PaddleClas's that may stand here; else fail with the nearest name."""
        known = set(self._taken)
        self._settle_foreign()
        for key, _ in self.unread():
            fail(self.at(key), f"unknown key{nearest(key, known)}")

    def _settle_foreign(self) -> None:
        for key, foreign in self._foreign.items():
            if key in self._tree and key not in self._taken:
                value = self.take(key)
                if value in foreign.neutral:
                    continue
                if foreign.refused:
                    fail(self.at(key), f"{shown(value)} cannot be done here: {foreign.reason}")
                self.notices.append(f"{self.at(key)} has no effect: {foreign.reason}")


def checked(value: Any, hint: Any, path: str, limit: Limit | None = None) -> Any:
    """The value as its type hint wants it (3 -> 3.0, lists to tuples), or an error that says what was expected."""
    fits, result = _fit(value, hint)
    if not fits or (limit and not limit.allows(result)):
        quote = "; put it in quotes" if hint in (str, str | None) and not isinstance(value, (str, list, dict)) else ""
        fail(path, f"expected {limit.text if limit else _described(hint)}, found {shown(value)}{quote}")
    return result


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _one_key(item: Any, path: str) -> tuple[str, dict[str, Any]]:
    try:
        return one_key(item, path)
    except ConfigError as e:
        raise KeyPathError(path, str(e)) from e


def _fit(value: Any, hint: Any) -> tuple[bool, Any]:
    """(whether the value is of the hinted type, the value converted)."""
    origin, options = get_origin(hint), get_args(hint)
    if hint is Any:
        return True, value
    if origin in (Union, UnionType):
        return next((r for r in (_fit(value, option) for option in options) if r[0]), (False, value))
    if hint in (bool, int, str, NoneType):
        return type(value) is hint, value
    if hint is float:
        return (True, float(value)) if type(value) in (int, float) and math.isfinite(value) else (False, value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return False, value
        kinds = options[:1] * len(value) if options[-1] is Ellipsis else options
        items = [_fit(v, kind) for v, kind in zip(value, kinds)]
        return len(value) == len(kinds) and all(fits for fits, _ in items), tuple(v for _, v in items)
    if origin is Mapping:
        if not isinstance(value, Mapping):
            return False, value
        items = {k: _fit(v, options[1]) for k, v in value.items()}
        return all(fits for fits, _ in items.values()), {k: v for k, (_, v) in items.items()}
    raise TypeError(f"the schema uses a type that is not read here: {hint}")


def _described(hint: Any) -> str:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(_described(option) for option in options)
    if origin is tuple:
        return "a list" if options[0] is Any else f"a list of values, each {_described(options[0])}"
    if origin is Mapping:
        return "a section of `key: value`"
    return {bool: "true or false", int: "an integer", float: "a number", str: "text", NoneType: "null"}[hint]
