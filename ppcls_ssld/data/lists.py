"""A source of images as one compact object: from a list file, or from a folder.

5 million lines are one buffer of bytes and three numpy arrays: forked workers share them, and no file is looked at
before it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..config.schema import SourceConfig
from ..errors import ConfigError, DataError
from ..structs import UNLABELLED
from .label_vectors import NO_VECTOR, are_labels, label_vectors

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")  # in any case
_CHUNK_BYTES = 1 << 25  # parsed at once, so that temporary arrays stay small
_MOST_DIGITS = 9  # of a label: fits int32
_LARGEST_WEIGHT = 1_000_000


@dataclass(frozen=True)
class ImageList:
    """The images of one source.

    root: folder that paths are relative to. buffer: text that holds the paths, in the file system's bytes.
    starts: int64 [n], lengths: int32 [n]: where each path lies in it. labels: int32 [n], class id or UNLABELLED; with
    several labels an image int8 [n, C], 1 (yes), 0 (no) or UNLABELLED (not known) each.
    class_names: of a labelled folder, else (). weights: float32 [n], visits of each image per pass; None: one each.
    """

    root: str
    buffer: bytes
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, index: int) -> str:
        start = int(self.starts[index])
        return os.path.join(self.root, os.fsdecode(self.buffer[start:start + int(self.lengths[index])]))


def read_source(source: SourceConfig, class_num: int, where: str = "DataLoader", multilabel: bool = False) -> ImageList:
    """ImageList of a source, from its list or its folder. `where` opens a ConfigError.

    multilabel: an image has class_num labels, each yes, no or not known; only a list says which.
    """
    if (source.list is None) == (source.folder is None):
        raise ConfigError(f"{where}: source '{source.name}' needs either a list or a folder, "
                          f"found list={source.list!r} and folder={source.folder!r}")
    if source.list is None:
        if source.weights is not None:
            raise ConfigError(f"{where}: source '{source.name}' has weights, one for each line of a list, but is a "
                              "folder; list its images")
        return read_folder(source, class_num, multilabel)
    images = read_list(source, class_num, multilabel)
    return images if source.weights is None else replace(images, weights=read_weights(source, len(images)))


def read_weights(source: SourceConfig, count: int) -> np.ndarray:
    """float32 [count] from source.weights, one number a line. DataError names file and line."""
    path, line = source.weights, 0

    def numbers():
        nonlocal line
        with open(path, encoding="utf-8") as file:
            for line, text in enumerate(file, 1):
                yield float(text)

    try:
        weights = np.fromiter(numbers(), np.float64)
    except OSError as e:
        raise DataError(f"{path}: the weights of source '{source.name}' cannot be read ({e.strerror})") from e
    except ValueError as e:
        raise DataError(f"{path}:{line}: expected one number, how often a pass visits the image ({e})") from e
    bad = np.flatnonzero(~((weights >= 0) & (weights <= _LARGEST_WEIGHT)))
    if len(bad):
        raise DataError(f"{path}:{bad[0] + 1}: expected a number from 0 to {_LARGEST_WEIGHT:,}, found "
                        f"{weights[bad[0]]:g}")
    if len(weights) != count:
        raise DataError(f"{path}: found {len(weights):,} weights, expected {count:,}, one for each image of "
                        f"{source.list}; both files come from one run of the miner")
    if np.rint(weights.sum()) < 1:
        raise DataError(f"{path}: the weights sum to {weights.sum():g}, so no image would ever be visited; expected a "
                        "sum of 1 or more")
    return weights.astype(np.float32)


def read_list(source: SourceConfig, class_num: int, multilabel: bool = False) -> ImageList:
    """ImageList of a text file, `path<delimiter>label` a line; a path may contain the delimiter.

    multilabel: class_num labels a line, such as `a.jpg<delimiter>1,0,-1`. Of an unlabelled source a whole number, or
    several with commas between them, behind the last delimiter is dropped. DataError names file and line.
    """
    if source.delimiter is None and source.labelled:
        source = replace(source, delimiter="\t" if multilabel else " ")
    path, delimiter = source.list, source.delimiter
    if delimiter is not None and (len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\r\n"):
        raise ConfigError(f"source '{source.name}': expected a delimiter of one ASCII character, found {delimiter!r}")
    try:
        with open(path, "rb") as file:
            buffer = file.read()
    except OSError as e:
        raise DataError(f"{path}: the list of source '{source.name}' cannot be read ({e.strerror})") from e

    parts, position, line = [], 3 if buffer.startswith(b"\xef\xbb\xbf") else 0, 1
    while position < len(buffer):
        end = buffer.rfind(b"\n", position, position + _CHUNK_BYTES) + 1 or buffer.find(b"\n", position) + 1
        end = end or len(buffer)
        chunk = np.frombuffer(buffer, np.uint8, end - position, position)
        _check_utf8(buffer, position, end, path, line)
        starts, lengths, labels, lines = _parse(chunk, (delimiter or "\t ").encode(), source.labelled,
                                                class_num if multilabel else None)
        if source.labelled:
            check = _check_vectors if multilabel else _check_labels
            check(labels, class_num, source, lambda i: (f"{path}:{line + lines[i]}", _line(chunk, starts[i])))
        parts.append((starts + position, lengths, labels))
        position, line = end, line + int(np.count_nonzero(chunk == 10))
    if not sum(len(part[0]) for part in parts):
        raise DataError(f"{path}: the list of source '{source.name}' is empty; expected one image a line")
    starts, lengths, labels = (np.concatenate(columns) for columns in zip(*parts))
    if multilabel and not source.labelled:
        labels = _nothing_known(len(labels), class_num)
    return ImageList(source.root, buffer, starts, lengths, labels)


def _nothing_known(images: int, class_num: int) -> np.ndarray:
    """int8 [images, class_num] of UNLABELLED, without the memory."""
    return np.broadcast_to(np.int8(UNLABELLED), (images, class_num))


_MISSING, _MALFORMED = -(2**31), -(2**31) + 1  # in place of a label: no delimiter; no whole number


def _parse(chunk: np.ndarray, delimiters: bytes, labelled: bool, several: int | None) -> tuple[np.ndarray, ...]:
    """Lines of uint8 text -> starts, lengths, labels and line numbers (from 0), blank lines left out.

    delimiters: one, of unlabelled lines any. several: how many labels a line has, where it is not one class id.
    """
    newlines = np.flatnonzero(chunk == 10)
    starts = np.concatenate([[0], newlines + 1])
    ends = np.concatenate([newlines, [len(chunk)]])
    starts, ends = _strip(chunk, starts, ends)
    lines = np.flatnonzero(ends > starts)
    starts, ends = starts[lines], ends[lines]

    if not labelled:
        cut = _before_labels(chunk, starts, ends, delimiters)
        labels = np.full(len(starts), UNLABELLED, np.int32)
    else:
        cut = _last(chunk, delimiters[0], ends)
        if several is None:
            labels = np.where(cut > starts, _whole_numbers(chunk, cut + 1, ends), _MISSING).astype(np.int32)
        else:
            labels = label_vectors(_texts(chunk, np.where(cut > starts, cut + 1, ends), ends), several)
        cut = np.where(cut > starts, cut, ends)
    starts, ends = _strip(chunk, starts, cut)
    return starts, (ends - starts).astype(np.int32), labels, lines


def _before_labels(chunk: np.ndarray, starts: np.ndarray, ends: np.ndarray, delimiters: bytes) -> np.ndarray:
    """Where the whole numbers at the end of each line begin, at the first delimiter that has only them behind it; the
    line's end where there are none."""
    cuts = ends.copy()
    # Few lines of paths alone end so, and only these are looked at further.
    digit = (chunk[ends - 1] >= ord("0")) & (chunk[ends - 1] <= ord("9"))
    for delimiter in delimiters:
        cut = _last(chunk, delimiter, ends)
        rows = np.flatnonzero(digit & (cuts == ends) & (cut > starts))
        labels = _whole_numbers(chunk, cut[rows] + 1, ends[rows]) > _MALFORMED
        labels[~labels] = are_labels(_texts(chunk, cut[rows[~labels]] + 1, ends[rows[~labels]]))
        cuts[rows[labels]] = cut[rows[labels]]
    return cuts


def _last(chunk: np.ndarray, delimiter: int, ends: np.ndarray) -> np.ndarray:
    """Index of the last delimiter before each end, be it on another line; -1 where there is none."""
    places = np.concatenate([[-1], np.flatnonzero(chunk == delimiter)])
    return places[np.searchsorted(places, ends) - 1]


def _texts(chunk: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
    return [bytes(chunk[a:b]) for a, b in zip(starts.tolist(), ends.tolist())]


def _strip(chunk: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bounds without the spaces, tabs and carriage returns around them."""
    starts, ends = starts.copy(), ends.copy()
    for bounds, step, at in ((ends, -1, -1), (starts, 1, 0)):
        active = np.flatnonzero(ends > starts)
        while len(active := active[np.isin(chunk[bounds[active] + at], (32, 9, 13))]):
            bounds[active] += step
            active = active[ends[active] > starts[active]]
    return starts, ends


def _whole_numbers(chunk: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """int64 value of the decimal text within each bounds, with or without a sign, or _MALFORMED."""
    first = chunk[np.minimum(starts, len(chunk) - 1)]
    negative = first == ord("-")
    starts = starts + (negative | (first == ord("+")))
    digits = ends - starts
    good = (digits > 0) & (digits <= _MOST_DIGITS)
    values = np.zeros(len(starts), np.int64)
    for k in range(min(int(digits.max(initial=0)), _MOST_DIGITS)):
        inside = k < digits
        digit = chunk[np.minimum(starts + k, len(chunk) - 1)].astype(np.int64) - ord("0")
        good &= ~inside | ((digit >= 0) & (digit <= 9))
        values = np.where(inside, values * 10 + digit, values)
    return np.where(good, np.where(negative, -values, values), _MALFORMED)


def _line(chunk: np.ndarray, start: int) -> str:
    return bytes(chunk[start:start + 300]).split(b"\n")[0].decode(errors="replace").rstrip()


def _check_utf8(buffer: bytes, start: int, end: int, path: str, line: int) -> None:
    try:
        str(memoryview(buffer)[start:end], "utf-8")
    except UnicodeDecodeError as e:
        line += buffer.count(b"\n", start, start + e.start)
        raise DataError(f"{path}:{line}: byte 0x{buffer[start + e.start]:02x} is not UTF-8; "
                        "convert the list, for example with iconv -t UTF-8") from e


def _check_labels(labels: np.ndarray, class_num: int, source: SourceConfig,
                  locate: Callable[[int], tuple[str, str]]) -> None:
    """DataError for the first label that is not a class id. locate: index -> (file:line, the line's text)."""
    bad = np.flatnonzero((labels < 0) | (labels >= class_num))
    if not len(bad):
        return
    where, text = locate(int(bad[0]))
    label = int(labels[bad[0]])
    if label in (_MISSING, _MALFORMED):
        raise DataError(f"{where}: expected 'path{source.delimiter}label' with a whole number as label, "
                        f"found {text!r}; correct the line or the delimiter ({source.delimiter!r}), or set "
                        f"labelled: false for source '{source.name}' if its images have no labels")
    raise DataError(f"{where}: label {label} is outside [0, {class_num}) in {text!r}; correct the label or "
                    "Arch.class_num, or set labelled: false for a source without labels")


def _check_vectors(labels: np.ndarray, class_num: int, source: SourceConfig,
                   locate: Callable[[int], tuple[str, str]]) -> None:
    """DataError for the first line that has not class_num labels."""
    bad = np.flatnonzero((labels == NO_VECTOR).any(1))
    if len(bad):
        where, text = locate(int(bad[0]))
        raise DataError(f"{where}: expected 'path{source.delimiter}label,label,...' with {class_num} labels "
                        f"(Arch.class_num), each 1 (yes), 0 (no) or {UNLABELLED} (not known), found {text!r}; correct "
                        f"the line, the delimiter ({source.delimiter!r}) or Arch.class_num, or set labelled: false for "
                        f"source '{source.name}' if its images have no labels")


def read_folder(source: SourceConfig, class_num: int, multilabel: bool = False) -> ImageList:
    """ImageList of all images below a folder, folder by folder, each sorted by name; hidden names are left out.

    With labels, each folder right below is a class, in sorted order, and there must be class_num of them: one missing
    would silently move the labels of all that follow.
    """
    root = source.folder
    if not os.path.isdir(root):
        raise DataError(f"{root}: the folder of source '{source.name}' does not exist")
    if not source.labelled:
        images = _folder_list(root, [("", UNLABELLED)], (), source.name)
        return replace(images, labels=_nothing_known(len(images), class_num)) if multilabel else images
    if multilabel:
        raise ConfigError(f"source '{source.name}': sub-folders are one class an image, and several labels an image "
                          "were asked for; give a list, or set labelled: false")
    with os.scandir(root) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    names = tuple(entry.name for entry in visible if entry.is_dir())
    stray = [entry.name for entry in visible if _is_image(entry.name) and not entry.is_dir()]
    if stray:
        raise DataError(f"{root}: {len(stray)} image(s) such as {stray[0]} lie in no class folder; move them into "
                        f"one, or set labelled: false for source '{source.name}'")
    if len(names) != class_num:
        raise DataError(f"{root}: found {len(names)} class folders, expected {class_num} (Arch.class_num); correct "
                        "class_num, or make an empty folder for a class without images")
    return _folder_list(root, [(name, label) for label, name in enumerate(names)], names, source.name)


def _folder_list(root: str, tops: list[tuple[str, int]], class_names: tuple[str, ...], name: str) -> ImageList:
    buffer, lengths, labels = bytearray(), [], []
    for top, label in tops:
        for path in files_below(os.path.join(root, top)):
            encoded = os.fsencode(os.path.relpath(path, root))
            buffer += encoded
            lengths.append(len(encoded))
            labels.append(label)
    if not labels:
        raise DataError(f"{root}: the folder of source '{name}' has no images ({', '.join(SUFFIXES)})")
    lengths = np.array(lengths, np.int32)
    starts = np.cumsum(lengths, dtype=np.int64) - lengths
    return ImageList(root, bytes(buffer), starts, lengths, np.array(labels, np.int32), class_names)


def files_below(top: str, suffixes: tuple[str, ...] = SUFFIXES,
                on_error: Callable[[OSError], None] | None = None) -> Iterator[str]:
    """Paths of the files in a tree that end like this, in any case; hidden names are left out.

    Links are followed, but no folder is entered twice. on_error: told of folders that cannot be read.
    """
    seen = set()
    for folder, folders, files in os.walk(top, onerror=on_error, followlinks=True):
        real = os.path.realpath(folder)
        folders[:] = [] if real in seen else sorted(f for f in folders if not f.startswith("."))
        if real not in seen:
            yield from (os.path.join(folder, f) for f in sorted(files) if _is_image(f, suffixes))
        seen.add(real)


def _is_image(name: str, suffixes: tuple[str, ...] = SUFFIXES) -> bool:
    return not name.startswith(".") and name.lower().endswith(suffixes)
