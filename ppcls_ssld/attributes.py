"""Several labels an image: what the outputs of such a network are called, and which probability is a yes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError
from .registry import nearest

GENERIC = "MultiLabelThreshOutput"
THRESHOLD = 0.5


@dataclass(frozen=True)
class Attributes:
    """thresholds: the least probability that is a yes: one for all, or one per attribute. names: one each, or none."""

    thresholds: tuple[float, ...] = (THRESHOLD,)
    names: tuple[str, ...] = ()

    def check(self, outputs: int) -> None:
        """ConfigError unless they are those of a network with so many outputs."""
        if self.names and len(self.names) != outputs:
            raise ConfigError(f"{len(self.names)} names for a network with {outputs} attributes")
        if len(self.thresholds) not in (1, outputs):
            raise ConfigError(f"{len(self.thresholds)} thresholds for a network with {outputs} attributes")


@dataclass(frozen=True)
class _Named:
    """names in the order of the outputs. thresholds: argument -> its default and the attributes that it rules."""

    names: tuple[str, ...]
    thresholds: Mapping[str, tuple[float, Iterable[int]]]


# PaddleClas's sets (deploy/python/postprocess.py, ppcls/utils/*_attribute_label_list.txt, develop d178931).
NAMED: dict[str, _Named] = {
    "VehicleAttribute": _Named(
        ("yellow", "orange", "green", "gray", "red", "blue", "white", "golden", "brown", "black",
         "sedan", "suv", "van", "hatchback", "mpv", "pickup", "bus", "truck", "estate"),
        {"color_threshold": (0.5, range(10)), "type_threshold": (0.5, range(10, 19))}),
    "PersonAttribute": _Named(
        ("Hat", "Glasses", "ShortSleeve", "LongSleeve", "UpperStride", "UpperLogo", "UpperPlaid", "UpperSplice",
         "LowerStripe", "LowerPattern", "LongCoat", "Trousers", "Shorts", "Skirt&Dress", "Boots", "HandBag",
         "ShoulderBag", "Backpack", "HoldObjectsInFront", "AgeLess18", "Age18-60", "AgeOver60", "Female", "Front",
         "Side", "Back"),
        {"threshold": (0.5, range(26)), "glasses_threshold": (0.3, [1]), "hold_threshold": (0.6, [18])}),
    "TableAttribute": _Named(
        ("Scanned", "Little", "Black-and-White", "Clear", "Without-Obstacles", "Horizontal"),
        {f"{part}_threshold": (0.5, [i]) for i, part in
         enumerate(("source", "number", "color", "clarity", "obstruction", "angle"))}),
}


def label_list(arguments: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in the `label_list` of an entry of a `PostProcess` section; empty without one. ConfigError when it is no
    list of names."""
    names = arguments.get("label_list") or ()
    if not isinstance(names, (list, tuple)) or not all(type(name) in (str, int, float) for name in names):
        raise ConfigError(f"label_list: expected a list of names, one for each output in its order, found {names!r:.80}"
                          "; put names such as yes, no, on and off in quotes, or they are true and false to YAML")
    return tuple(map(str, names))


def attributes_of(name: str, arguments: Mapping[str, Any]) -> Attributes:
    """What an entry of a `PostProcess` section asks for: GENERIC {threshold, label_list}, or a set of NAMED with its
    thresholds. ConfigError for another name or argument, or a threshold that is no probability.

    GENERIC's `delimiter`, of a file of names that was read when PaddleClas exported, is passed over.
    """
    if name != GENERIC and name not in NAMED:
        raise ConfigError(f"'{name}' gives no attributes; expected {GENERIC} or one of {', '.join(NAMED)}")
    known = NAMED[name].thresholds if name in NAMED else ("threshold", "label_list", "delimiter")
    for key in arguments:
        if key not in known:
            raise ConfigError(f"{name} has no argument '{key}'{nearest(key, known)}")
    if name == GENERIC:
        threshold = arguments.get("threshold", THRESHOLD)
        thresholds = list(threshold) if isinstance(threshold, (list, tuple)) else [threshold]
        names = label_list(arguments)
    else:
        names = NAMED[name].names
        thresholds = [THRESHOLD] * len(names)
        for key, (default, ruled) in NAMED[name].thresholds.items():  # in this order: the general before the special
            for i in ruled:
                thresholds[i] = arguments.get(key, default)
    for threshold in thresholds or [None]:
        if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
            raise ConfigError(f"{name}: a threshold is a probability from 0 to 1, found {threshold!r}")
    return Attributes(tuple(map(float, thresholds)), names)
