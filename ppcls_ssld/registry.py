"""Names in a config -> constructors. Refuses duplicates; an unknown name or argument lists the nearest."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Callable

from .errors import ConfigError


def nearest(word: str, known: Iterable[str]) -> str:
    """'; did you mean X?' for a misspelt word, or the list of known words when none is close."""
    known = sorted(map(str, known))
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(word).lower(), folded, n=1, cutoff=0.6)
    return f"; did you mean '{folded[close[0]]}'?" if close else f"; known: {', '.join(known)}"


class Registry:
    """A named table of constructors of one kind ('transform', 'loss', ...)."""

    def __init__(self, kind: str):
        self.kind = kind
        self._table: dict[str, Callable] = {}

    def register(self, *names: str) -> Callable:
        """Decorator: enter a class or function under its own name, or under the names given."""

        def enter(constructor: Callable) -> Callable:
            for name in names or (constructor.__name__,):
                if name in self._table:
                    raise ValueError(f"{self.kind} '{name}' is already registered")
                self._table[name] = constructor
            return constructor

        return enter

    def names(self) -> list[str]:
        return sorted(self._table)

    def get(self, name: str, where: str) -> Callable:
        """Constructor of `name`; `where` is the config key path that an error shows."""
        if name not in self._table:
            raise ConfigError(f"{where}: no {self.kind} '{name}'{nearest(name, self._table)}")
        return self._table[name]

    def check(self, name: str, kwargs: Mapping[str, Any], where: str) -> None:
        """Raise ConfigError when `kwargs` does not fit the constructor's signature. Builds nothing."""
        parameters = inspect.signature(self.get(name, where)).parameters
        takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        known = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        for key in kwargs:
            if key not in known and not takes_any:
                raise ConfigError(f"{where}.{name}: no argument '{key}'{nearest(key, known)}")
        required = [n for n in known if parameters[n].default is inspect.Parameter.empty]
        missing = [n for n in required if n not in kwargs]
        if missing:
            raise ConfigError(f"{where}.{name}: missing argument(s) {', '.join(missing)}")

    def build(self, name: str, kwargs: Mapping[str, Any], where: str) -> Any:
        """Checked construction. A ValueError of the constructor becomes a ConfigError that names `where`."""
        self.check(name, kwargs, where)
        try:
            return self._table[name](**kwargs)
        except ValueError as e:
            raise ConfigError(f"{where}.{name}: {e}") from e


def one_key(entry: Any, where: str) -> tuple[str, dict[str, Any]]:
    """Split PaddleClas's `- Name: {kwargs}` into (name, kwargs); `- Name:` alone means no kwargs."""
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ConfigError(f"{where}: expected one `Name: {{arguments}}`, found {entry!r}")
    (name, kwargs), = entry.items()
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ConfigError(f"{where}.{name}: expected arguments as `key: value`, found {kwargs!r}")
    return str(name), dict(kwargs or {})
