"""Part files of a store: whole or absent, and known again.

    records [rows * views] | crc32 of each image's encoded bytes, <u4 [rows] | trailer, 64 bytes
    trailer: b"SSLDTGT1", 16 bytes that stand for the header, part number <u8, 32 bytes BLAKE2b of all before them
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import struct
from pathlib import Path

from ..atomic import write_atomic
from ..errors import DataError

_MAGIC = b"SSLDTGT1"
_TRAILER = struct.Struct("<8s16sQ32s")
TRAILER_BYTES = _TRAILER.size
_NAME = re.compile(r"part-(\d{5,})\.targets")


def readable(size: float) -> str:
    """Bytes as KiB, MiB or GiB."""
    unit = "GiB" if size >= 2**30 else "MiB" if size >= 2**20 else "KiB"
    return f"{size / {'KiB': 2**10, 'MiB': 2**20, 'GiB': 2**30}[unit]:,.1f} {unit}"


def part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.targets"


def part_sizes(folder: Path) -> dict[int, int]:
    """Bytes of each part file that is there."""
    with os.scandir(folder) as entries:
        found = ((_NAME.fullmatch(entry.name), entry) for entry in entries)
        return {int(match[1]): entry.stat().st_size for match, entry in found if match}


def write_part(folder: Path, part: int, content: bytes, identity: bytes) -> None:
    """Write one part, atomically. CheckpointError when the disk refuses; no half of it stays."""
    start = _TRAILER.pack(_MAGIC, identity, part, b"")[:-32]
    digest = hashlib.blake2b(content, digest_size=32)
    digest.update(start)
    path = part_path(folder, part)
    write_atomic(path, content, start + digest.digest())


def remove_leftovers(folder: Path) -> None:
    """Delete what a killed process left half written. Only once all parts are there: nobody writes any more."""
    for path in folder.glob(".part-*.targets.*"):
        path.unlink(missing_ok=True)


def map_part(folder: Path, part: int, size: int, identity: bytes) -> mmap.mmap:
    """A part as a read-only memory map, its trailer compared. DataError when it is not this part of this store."""
    path = part_path(folder, part)
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno()).st_size
            if found != size:
                raise DataError(f"{path}: has {found:,} bytes, expected {size:,}; delete it and run `targets write` "
                                "again")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as e:
        raise DataError(f"{path}: cannot be read ({e.strerror}); run `targets write` again to make it") from e
    magic, of_header, number, _ = _TRAILER.unpack(mapped[-TRAILER_BYTES:])
    if (magic, of_header, number) != (_MAGIC, identity, part):
        what = "no part file" if magic != _MAGIC else f"part {number}" if number != part else "a part of another store"
        raise DataError(f"{path}: is {what} by its last bytes; delete it and run `targets write` again")
    return mapped


def is_intact(mapped: mmap.mmap) -> bool:
    """Whether a part has the checksum that its trailer states; reads all of it."""
    with memoryview(mapped) as view:
        return hashlib.blake2b(view[:-32], digest_size=32).digest() == bytes(view[-32:])
