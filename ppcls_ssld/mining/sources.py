"""What a source of images is, decided by looking at it, and the names of the images in it."""

from __future__ import annotations

import glob
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from ..config.schema import SourceConfig
from ..data.files import member_name, split_member
from ..data.lists import SUFFIXES, files_below, read_list
from ..errors import DataError

TAR_SUFFIXES = (".tar",)
PACKED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".zip")
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_OTHER = {b"PK\x03\x04": "a zip archive", b"PAR1": "a Parquet file", b"\x89HDF": "an HDF5 file",
          b"7z\xbc\xaf": "a 7z archive", b"Rar!": "a RAR archive"}
_PACKED_REFUSAL = "a compressed archive cannot be read in place; decompress it first"
_BLOCK = 512  # of a tar archive
_MOST_NESTED = 4  # tars within tars


@dataclass(frozen=True)
class Source:
    """What a path turned out to be.

    path: absolute. root: folder of a list's relative paths. kind: folder | tar | list | image | several (a pattern).
    parts: of several, what the pattern matched.
    """

    path: str
    root: str
    kind: str
    parts: tuple[Source, ...] = ()


def recognise(path: str, root: str | None = None) -> Source:
    """Source at a path or behind a pattern. DataError when nothing is there, or nothing that can be read in place."""
    path = os.path.abspath(path)
    own_root = os.path.abspath(root) if root is not None else os.path.dirname(path)
    if os.path.isdir(path):
        return Source(path, own_root, "folder")
    if os.path.isfile(path):
        return Source(path, own_root, _kind_of_file(path))
    if os.path.lexists(path):
        raise DataError(f"{path}: neither a folder nor a file, or a broken link; name a folder, list or tar archive")
    if glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))
        if not matches:
            raise DataError(f"{path}: no file or folder has a name of this pattern")
        return Source(path, own_root, "several", tuple(recognise(match, root) for match in matches))
    raise DataError(f"{path}: there is no such folder, list or tar archive")


def _kind_of_file(path: str) -> str:
    if path.lower().endswith(SUFFIXES):
        return "image"
    try:
        with open(path, "rb") as file:
            start = file.read(1 << 16)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror})") from e
    for magic, packer in _PACKED.items():
        if start.startswith(magic):
            raise DataError(f"{path}: compressed with {packer}; decompress it first: compressed archives cannot be "
                            "read in place")
    for magic, what in _OTHER.items():
        if start.startswith(magic):
            raise DataError(f"{path}: {what} cannot be read in place; unpack it into a folder or a .tar")
    if _is_tar(start[:_BLOCK]):
        return "tar"
    if path.lower().endswith(TAR_SUFFIXES):
        raise DataError(f"{path}: not a tar archive, though it is named like one ({len(start)} bytes read, first "
                        f"{start[:8]!r})")
    if b"\0" in start:
        raise DataError(f"{path}: neither a tar archive nor a text file that lists images (it begins with "
                        f"{start[:8]!r})")
    return "list"


def _is_tar(block: bytes) -> bool:
    """Whether a file that begins so is a tar archive; one without any member, all zeros, included."""
    if len(block) == _BLOCK and not any(block):
        return True
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def names_of(source: Source, unlistable: list[tuple[str, str]]) -> Iterator[str]:
    """Names of the images in a source, in no particular order; (name, reason) of others go into `unlistable`."""
    for name in _found(source, unlistable):
        if "\n" in name or "\r" in name:
            unlistable.append((printable(name), "its name has a line break in it, and lists have an image a line; "
                                                "rename it"))
        elif not _is_utf8(name):
            unlistable.append((printable(name), "its name is not UTF-8, and lists are; rename it"))
        else:
            yield name


def printable(name: str) -> str:
    """A name as one line of UTF-8."""
    name = name.encode("utf-8", "backslashreplace").decode()
    return name.replace("\r", "\\r").replace("\n", "\\n")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _found(source: Source, unlistable: list[tuple[str, str]]) -> Iterator[str]:
    if source.kind == "several":
        for part in source.parts:
            yield from _found(part, unlistable)
    elif source.kind == "folder":
        yield from _in_folder(source.path, unlistable)
    elif source.kind == "tar":
        yield from _in_archive(source.path, unlistable)
    elif source.kind == "list":
        yield from names_in_list(source.path, source.root)
    else:
        yield source.path


def _in_folder(folder: str, unlistable: list[tuple[str, str]]) -> Iterator[str]:
    def unreadable(error: OSError) -> None:
        unlistable.append((printable(str(error.filename)), f"the folder cannot be read ({error.strerror})"))

    for path in files_below(folder, SUFFIXES + TAR_SUFFIXES + PACKED_SUFFIXES, unreadable):
        if path.lower().endswith(SUFFIXES):
            yield path
        elif path.lower().endswith(PACKED_SUFFIXES):
            unlistable.append((printable(path), _PACKED_REFUSAL))
        else:
            try:
                source = recognise(path)
            except DataError as e:
                unlistable.append((printable(path), str(e).removeprefix(f"{path}: ")))
                continue
            yield from _found(source, unlistable)


def names_in_list(path: str, root: str) -> Iterator[str]:
    """Names in a text list, `path`, `path label` or `path<tab>label` a line, as in a listing; labels are passed over."""
    images = read_list(SourceConfig("pool", list=path, root=root, labelled=False), 0)
    for i in range(len(images)):
        path = images.path(i)
        parts = split_member(path) if "#" in path else None
        yield os.path.abspath(path) if parts is None else f"{os.path.abspath(parts[0])}#{parts[1]}"


def _in_archive(path: str, unlistable: list[tuple[str, str]]) -> Iterator[str]:
    try:
        with open(path, "rb") as file:
            yield from _members(file, path, "", 0, unlistable)
    except OSError as e:
        unlistable.append((printable(path), f"the archive cannot be read ({e.strerror})"))


def _members(file: BinaryIO, path: str, inside: str, base: int, unlistable: list[tuple[str, str]],
             depth: int = 0) -> Iterator[str]:
    """Names of the images in an open tar.

    inside: `inner.tar/` of a nested one. base: byte of `path` at which it begins. depth: archives around it.
    """
    def refuse(member: str, reason: str) -> None:
        unlistable.append((printable(f"{path}#{inside}{member}".rstrip("#/")), reason))

    try:
        archive = tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="surrogateescape")
        for member in _each(archive, file):
            name = member.name.lower()
            if member.isdir() or _is_hidden(name) or not name.endswith(SUFFIXES + TAR_SUFFIXES + PACKED_SUFFIXES):
                continue
            if reason := _refusal(member):
                refuse(member.name, reason)
            elif name.endswith(SUFFIXES):
                yield member_name(path, inside + member.name, base + member.offset_data, member.size)
            elif depth == _MOST_NESTED:
                refuse(member.name, "too many archives within archives; unpack it")
            else:
                yield from _members(archive.extractfile(member), path, f"{inside}{member.name}/",
                                    base + member.offset_data, unlistable, depth + 1)
    except tarfile.TarError as e:
        refuse("", f"the archive is damaged or no tar ({e}); what is not listed of it is lost")


def _each(archive: tarfile.TarFile, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Members as they come, none of them kept. TarError after the last when the archive is damaged or goes on."""
    while member := archive.next():
        archive.members.clear()
        yield member
    # The standard library takes a damaged header for the end.
    file.seek(archive.offset)
    if any(file.read(1 << 20)):
        raise tarfile.ReadError(f"there is no header at byte {archive.offset}, or another archive is appended there")


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in name.split("/"))


def _refusal(member: tarfile.TarInfo) -> str:
    """Why the bytes of a member cannot be read in place, or ''."""
    if member.name.lower().endswith(PACKED_SUFFIXES):
        return _PACKED_REFUSAL
    if member.issym() or member.islnk():
        return f"a link to {printable(member.linkname)} and without bytes of its own"
    if member.issparse():
        return "a sparse member, whose bytes are not stored as they are; pack it again without --sparse"
    return "" if member.isreg() else "not a regular file"
