"""The shape of a mining run, and its reader: YAML and flags -> one frozen, validated MineConfig.

    Mine:    {output_dir: ..., pool: [FOLDER, LIST, TAR, {path: LIST, root: FOLDER}], protect: [...]}
    Dedup:   {...}    Teacher: {name: ..., pretrained: ..., class_num: ...}    Score: {...}    Select: {...}
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .check import KeyPathError, Section, fail, shown
from .limits import LIMITS, NOT_EMPTY, NOT_NEGATIVE_INTEGER, POSITIVE_INTEGER, Limit, one_of
from .load import place_of, read_tree
from .readonly import frozen, plain, sealed
from .schema import Entry, GlobalConfig, NetworkConfig
from .text import write

SCORES = ("probability", "logit", "margin", "entropy")
_SECTIONS = ("Mine", "Dedup", "Teacher", "Score", "Select")


@dataclass(frozen=True)
class PoolSource:
    """Where images come from. path: a folder, a list, a tar archive, an image, or a pattern such as `shards/*.tar`.
    root: folder that the paths of a list are relative to, its own folder if None."""

    path: str
    root: str | None = None


@dataclass(frozen=True)
class DedupConfig:
    """Which evidence counts as a near-copy. None for a threshold: the measured default of its method."""

    method: str = "cascade"  # cascade | paper
    bytes: bool = True  # the same file
    pixels: bool = True  # the same pixels in another file
    hash: bool = True  # nearly the same whole picture
    keypoints: bool = True  # the same scene, cropped, turned, framed: local features and geometry
    thumbnail: bool = True  # small images, and those with few keypoints: dense alignment
    embedding: str | None = None  # PaddleClas backbone whose features propose further candidates
    embedding_weights: str | bool | None = None
    candidates: int = 20  # protected images that are compared in detail with one pool image, at most
    min_cells: int | None = None  # keypoints: distinct matched places that make a copy
    min_correlation: float | None = None  # hash, thumbnail: correlation after alignment that makes a copy
    min_matches: int = 25  # method paper: SIFT matches that make a copy; the paper's own number is not known
    negatives: tuple[str, ...] = ()  # images known to be no copies: both thresholds are calibrated on them
    false_alarms: float = 1e-3  # what calibration aims at, per innocent image against the whole protected set
    within_pool: bool = False  # keep one of several copies inside the pool


@dataclass(frozen=True)
class ScoreConfig:
    """How the teacher sees the pool. The transforms are those of its evaluation."""

    classes_stored: int = 10  # best classes kept per image
    batch_size: int = 64
    image_size: int = 224  # centre crop
    resize_short: int | None = None  # short side before the crop; None = image_size * 8 / 7, as 256 for 224
    transform_ops: tuple[Entry, ...] = ()  # instead of the two above, in PaddleClas's words


@dataclass(frozen=True)
class SelectConfig:
    """Which scored images are chosen."""

    top_k: int = 4000  # images per class, at most
    classes_per_image: int = 1  # an image is a candidate of its so many best classes
    once: bool = True  # an image is chosen in one class at most
    score: str = "probability"
    min_score: float | None = None
    budget: int | None = None  # distinct images over all classes, at most
    floor: int | None = None  # a class with fewer images weighs as much as so many, by sampling weights
    cap: float = 10.0  # largest sampling weight of one image
    exclude: tuple[str, ...] = ()  # text files: a name or an id a line
    control: bool = True  # also write as many images drawn at random, to measure what mining is worth
    format: str = "list"  # list | paddleclas
    root: str | None = None  # names below it are written relative to it
    class_names: str | None = None  # for the report


@dataclass(frozen=True)
class MineConfig:
    """A whole mining run. `source` is the resolved tree as written."""

    output_dir: str
    pool: tuple[PoolSource, ...]
    protect: tuple[PoolSource, ...]
    Teacher: NetworkConfig | None
    class_num: int | None  # of the teacher; None: as many as its weights hold
    Dedup: DedupConfig = field(default_factory=DedupConfig)
    Score: ScoreConfig = field(default_factory=ScoreConfig)
    Select: SelectConfig = field(default_factory=SelectConfig)
    device: str = "cpu"
    seed: int = 0
    num_workers: int | None = None  # processes that read and compare images, beside this one; None = one per core
    threads: int = 1  # of the teacher's engine on CPU; part of the result, since rounding depends on it
    block_size: int | None = None  # images per unit of work; None = by the pool's size
    max_pixels: int = 178_000_000  # half a gigabyte decoded; larger images go to quarantine
    min_side: int = 8  # pixels; smaller images, where nothing can be told from anything, go to quarantine
    source: Mapping[str, Any] = field(default_factory=dict)


LIMITS |= {
    MineConfig: {
        "output_dir": NOT_EMPTY, "device": LIMITS[GlobalConfig]["device"], "seed": NOT_NEGATIVE_INTEGER,
        "num_workers": NOT_NEGATIVE_INTEGER, "threads": POSITIVE_INTEGER, "block_size": POSITIVE_INTEGER,
        "max_pixels": POSITIVE_INTEGER, "min_side": POSITIVE_INTEGER, "class_num": POSITIVE_INTEGER,
    },
    DedupConfig: {
        "method": one_of("cascade", "paper"), "candidates": POSITIVE_INTEGER,
        "min_cells": POSITIVE_INTEGER, "min_matches": POSITIVE_INTEGER,
        "min_correlation": Limit("a number above 0 and below 1", lambda v: 0 < v < 1),
        "false_alarms": Limit("a rate above 0 and below 1", lambda v: 0 < v < 1),
    },
    ScoreConfig: {"classes_stored": Limit("an integer of 2 or more", lambda v: v >= 2), "batch_size": POSITIVE_INTEGER,
                  "image_size": POSITIVE_INTEGER, "resize_short": POSITIVE_INTEGER},
    SelectConfig: {
        "top_k": POSITIVE_INTEGER, "classes_per_image": POSITIVE_INTEGER, "score": one_of(*SCORES),
        "budget": POSITIVE_INTEGER, "floor": POSITIVE_INTEGER, "cap": Limit("a number of 1 or more", lambda v: v >= 1),
        "format": one_of("list", "paddleclas"),
    },
}
_PATHS = {"Mine": ("output_dir", "pool", "protect"), "Dedup": ("embedding_weights", "negatives"),
          "Teacher": ("pretrained",), "Select": ("exclude", "root", "class_names")}
_GENERAL = ("output_dir", "device", "seed", "num_workers", "threads", "block_size", "max_pixels", "min_side")


def load_mine(path: str | os.PathLike | None, overrides: Sequence[str] = (),
              flags: Mapping[str, Mapping[str, Any]] | None = None) -> MineConfig:
    """The mining run of a YAML file (or of nothing), after overrides `Select.top_k=100` and flags, which win."""
    tree, places = read_tree(path, overrides)
    for section, values in (flags or {}).items():
        if values:
            tree[section] = {**(tree.get(section) or {}), **values}
    _make_absolute(tree)
    try:
        return sealed(dataclasses.replace(_read(tree), source=frozen(tree)))
    except KeyPathError as e:
        raise ConfigError(f"{place_of(e.path, places) or path or 'flags'}: {e}") from e


def _make_absolute(tree: dict[str, Any]) -> None:
    """Paths as seen from any folder: the settings are kept in output_dir and may be taken up from elsewhere."""
    for section, keys in _PATHS.items():
        values = tree.get(section)
        for key in keys if isinstance(values, dict) else ():
            values[key] = _absolute(values.get(key))
            if values[key] is None:
                del values[key]


def _absolute(value: Any) -> Any:
    if isinstance(value, str) and value and "://" not in value:
        return os.path.abspath(value)
    if isinstance(value, (list, tuple)):
        return [_absolute(item) for item in value]
    if isinstance(value, Mapping):  # {path: ..., root: ...}
        return {key: _absolute(item) for key, item in value.items()}
    return value


def dump_mine(config: MineConfig) -> str:
    """YAML text that `load_mine` reads back to an equal MineConfig."""
    return write(plain(config.source))


def _read(tree: Mapping[str, Any]) -> MineConfig:
    root = Section(tree, "", [])
    for name in _SECTIONS:
        root.take(name)
    root.done()
    general = root.section("Mine")
    if not general.has("output_dir"):
        fail("Mine.output_dir", "missing; say where everything goes (--output DIR)")
    values = general.fields(MineConfig, *_GENERAL)
    values["pool"] = _sources(general, "pool")
    values["protect"] = _sources(general, "protect")
    general.done()
    if not values["pool"]:
        fail("Mine.pool", "missing; name the folders, lists or tar archives of the unlabelled images (--pool)")
    for name, cls in (("Dedup", DedupConfig), ("Score", ScoreConfig), ("Select", SelectConfig)):
        section = root.section(name)
        values[name] = cls(**section.fields(cls))
        section.done()
    values["Teacher"], values["class_num"] = _teacher(root)
    score, select, dedup = values["Score"], values["Select"], values["Dedup"]
    if dedup.negatives and dedup.method == "paper":
        fail("Dedup.negatives", "calibrates the cascade; method paper has a count of its own (Dedup.min_matches)")
    if select.classes_per_image > score.classes_stored:
        fail("Select.classes_per_image", f"{select.classes_per_image}, but Score.classes_stored keeps only "
                                         f"{score.classes_stored} classes of an image; raise the latter")
    return MineConfig(**values)


def _sources(section: Section, key: str) -> tuple[PoolSource, ...]:
    found = section.take(key)
    entries = [found] if isinstance(found, (str, Mapping)) else found or []
    if not isinstance(entries, (list, tuple)):
        fail(section.at(key), f"expected a path or a list of paths, found {shown(found)}")
    sources = []
    for i, entry in enumerate(entries):
        if isinstance(entry, str) and entry:
            sources.append(PoolSource(entry))
            continue
        if not isinstance(entry, Mapping):
            fail(f"{section.at(key)}.{i}", f"expected a path, or {{path: ..., root: ...}}, found {shown(entry)}")
        item = Section(entry, f"{section.at(key)}.{i}", section.notices)
        sources.append(PoolSource(**item.fields(PoolSource)))
        item.done()
    return tuple(sources)


def _teacher(root: Section) -> tuple[NetworkConfig | None, int | None]:
    if not root.has("Teacher"):
        return None, None
    section = root.section("Teacher")
    values = section.fields(NetworkConfig, "name", "pretrained", "use_ssld", "engine", "output_stride", "allow_partial")
    if section.value("bn_mode", str, "eval") != "eval":
        fail(section.at("bn_mode"), "expected 'eval', or leave it out: an image's score must not depend on the images "
                                    "beside it")
    if not section.value("frozen", bool, True):
        fail(section.at("frozen"), "expected true, or leave it out: nothing is trained here")
    class_num = section.value("class_num", int, None, LIMITS[MineConfig]["class_num"])
    return NetworkConfig(role="Teacher", arguments=section.rest(), frozen=True, bn_mode="eval", **values), class_num
