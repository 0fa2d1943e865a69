"""What is to be packed: the images of a list, a folder or tar archives, each with its place and its label, if any."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

import numpy as np

from ..config.schema import SourceConfig
from ..data.lists import ImageList, read_folder, read_list
from ..errors import ConfigError, DataError
from ..mining.sources import Source, names_of, printable, recognise
from ..structs import UNLABELLED

_MOST_CLASSES = 2**31 - 1  # a list's own labels are taken as they are


@dataclass(frozen=True)
class Inputs:
    """images: in the order that gives them their numbers. unlistable: (name, reason) of what is there and has none.

    digest: SHA-256 of names and labels; the root folder is not in it.
    """

    images: ImageList
    unlistable: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> bool:
        return self.images.labels.ndim > 1 or bool((self.images.labels != UNLABELLED).any())

    @property
    def digest(self) -> str:
        found = hashlib.sha256(self.images.buffer)
        found.update(self.images.lengths.tobytes() + self.images.labels.tobytes())
        return found.hexdigest()

    def name(self, index: int) -> str:
        """Path, or name of a member, from the root of the file system."""
        return self.images.path(index)


def open_inputs(path: str, root: str | None = None, delimiter: str | None = None, labels: str = "auto",
                output: str | None = None) -> Inputs:
    """What is at `path`: a list, a folder, a tar archive, an image, or several by a pattern.

    root: folder of a list's relative paths; None: the list's own. delimiter: of a list; None: a tab or a space. labels:
    auto takes those of a list whose first line has one or several; none drops them; folders makes a class of each folder
    right below `path`. output: ConfigError when a folder that is searched would hold it. The order is that in which a
    reader counts the same list or folder; members of archives are sorted by name.
    """
    if path.lower().endswith((".yaml", ".yml")) and os.path.isfile(path):
        raise ConfigError(f"{path}: is a config; name the list in it instead (cls_label_path, with its image_root as "
                          "--root)")
    source = recognise(path, root)
    _check_output(source, output)
    if labels == "folders" and source.kind != "folder":
        raise ConfigError(f"{path}: a {source.kind} has no class folders; leave --labels folders out")
    if source.kind == "list":
        delimiter, count = _first_labels(source.path, delimiter) if labels == "auto" else (delimiter, 0)
        described = SourceConfig("pack", list=source.path, root=source.root, labelled=count > 0, delimiter=delimiter)
        return Inputs(read_list(described, count if count > 1 else _MOST_CLASSES, multilabel=count > 1))
    if source.kind == "folder" and not _has_archives(source.path):
        described = SourceConfig("pack", folder=source.path, labelled=labels == "folders")
        classes = sum(entry.is_dir() and not entry.name.startswith(".") for entry in os.scandir(source.path))
        inputs = Inputs(read_folder(described, classes))
        _check_names(inputs.images)
        return inputs
    if labels == "folders":
        raise ConfigError(f"{path}: holds tar archives, whose images have no class folders; pack without labels, or "
                          "list them with their labels")
    unlistable: list[tuple[str, str]] = []
    names = sorted(names_of(source, unlistable))
    if not names:
        raise DataError(f"{path}: there is no image in it" + (f" ({unlistable[0][1]})" if unlistable else ""))
    return Inputs(_image_list(names), tuple(unlistable))


def _check_output(source: Source, output: str | None) -> None:
    """The shards would be images of the next start, which could not go on with this one."""
    for each in (source, *source.parts):
        folder = os.path.realpath(each.path)
        if output and each.kind == "folder" and os.path.commonpath([folder, os.path.realpath(output)]) == folder:
            raise ConfigError(f"--output {output}: lies in {each.path}, whose images are to be packed; choose a folder "
                              "outside of it, or the packed ones would be among them when this is started again")


def _first_labels(path: str, delimiter: str | None) -> tuple[str | None, int]:
    """(delimiter, number of labels) of a list's first line; 0 labels without one behind this delimiter, or any."""
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = next((line for line in file if line.strip()), "")
    for each in "\t " if delimiter is None else [delimiter]:
        if found := re.search(re.escape(each) + r"\s*(\d+|[+-]?\d+(\s*,\s*[+-]?\d+)+)\s*$", first):
            return each, found[1].count(",") + 1
    return delimiter, 0


def _has_archives(folder: str) -> bool:
    return any(name.lower().endswith(".tar") for _, _, files in os.walk(folder, followlinks=False) for name in files
               if not name.startswith("."))


def _check_names(images: ImageList) -> None:
    """DataError when a name of an image or of a class cannot stand in a list."""
    bad = next((name for name in images.class_names if printable(name) != name), None)
    if bad is not None:
        raise DataError(f"{images.root}: the class folder {printable(bad)!r} has a line break in its name, or is not "
                        "UTF-8; rename it")
    if b"\n" in images.buffer or b"\r" in images.buffer:
        bad = next(p for p in map(images.path, range(len(images))) if "\n" in p or "\r" in p)
        raise DataError(f"{bad!r}: the name has a line break in it, and lists have an image a line; rename it")
    try:
        images.buffer.decode()
    except UnicodeDecodeError as e:
        raise DataError(f"{images.root}: a name below it is not UTF-8 (byte 0x{images.buffer[e.start]:02x}, near "
                        f"{images.buffer[max(0, e.start - 40):e.start]!r}), and lists are; rename it") from e


def _image_list(names: list[str]) -> ImageList:
    encoded = [os.fsencode(name) for name in names]
    lengths = np.array([len(name) for name in encoded], np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return ImageList("", b"".join(encoded), starts, lengths, np.full(len(names), UNLABELLED, np.int32))
