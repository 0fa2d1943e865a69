"""Shards: tar archives of consecutive images, each with a small index beside it that says it is finished.

Everything about a shard follows from the images in it and the settings: not from who writes it, or when.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..atomic import write_atomic
from ..data.files import member_name
from ..errors import CheckpointError, ConfigError
from .encode import Packed

_BLOCK = 512  # of a tar archive


@dataclass(frozen=True)
class Index:
    """What is in a finished shard.

    tar_bytes: its size. sizes: bytes of each image, -1 for one that is left out. copied: images taken byte for byte.
    reasons: why images were left out, by place in the shard.
    """

    tar_bytes: int
    sizes: list[int]
    copied: int
    reasons: dict[int, str]


def member(sample_id: int) -> str:
    """Name of an image in its shard; for tools that read WebDataset shards, its key and `.jpg`."""
    return f"{sample_id:09d}.jpg"


def shard_name(shard: int) -> str:
    return f"shard-{shard:05d}.tar"


def stored_bytes(size: int) -> int:
    """What `size` bytes of a member take in an archive: a header, and blocks."""
    return _BLOCK + -(-size // _BLOCK) * _BLOCK


def names_in(shard: int, first: int, index: Index) -> list[str | None]:
    """Member names, relative to the folder of the shards; None for images left out. first: sample id of the first."""
    names, offset = [], 0
    for k, size in enumerate(index.sizes):
        names.append(None if size < 0 else member_name(shard_name(shard), member(first + k), offset + _BLOCK, size))
        offset += stored_bytes(size) if size >= 0 else 0
    return names


def write_shard(folder: Path, shard: int, first: int, images: Iterable[Packed]) -> Index:
    """Write one shard and then its index; both appear complete or not at all. CheckpointError when the disk refuses."""
    target, partial = folder / shard_name(shard), folder / f".{shard_name(shard)}.partial"
    sizes: list[int] = []
    reasons: dict[int, str] = {}
    copied = 0
    try:
        with open(partial, "ab") as file:
            _lock(file, partial)
            file.truncate(0)  # what a killed run left
            file.seek(0)
            with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
                for k, packed in enumerate(images):
                    sizes.append(-1 if packed.reason else len(packed.data))
                    if packed.reason:
                        reasons[k] = packed.reason
                        continue
                    copied += packed.copied
                    info = tarfile.TarInfo(member(first + k))  # time 0, no owner: the same bytes whoever writes them
                    info.size = len(packed.data)
                    archive.addfile(info, io.BytesIO(packed.data))
                    archive.members.clear()  # it would keep all of them
            file.flush()
            os.fsync(file.fileno())
            index = Index(file.tell(), sizes, copied, reasons)
            os.replace(partial, target)
    except OSError as e:
        free = shutil.disk_usage(folder).free / 2**20
        raise CheckpointError(f"{partial}: cannot be written ({e.strerror or e}; {free:,.0f} MiB free there); free "
                              "some space, then start the same command again: finished shards are kept") from e
    write_atomic(_index_path(folder, shard), json.dumps(vars(index)))
    return index


def read_index(folder: Path, shard: int) -> Index | None:
    """Index of a shard; None when it is not finished, or is not the size that it had then."""
    try:
        tree = json.loads(_index_path(folder, shard).read_text(encoding="utf-8"))
        if (folder / shard_name(shard)).stat().st_size != tree["tar_bytes"]:
            return None
    except FileNotFoundError:
        return None
    return Index(tree["tar_bytes"], tree["sizes"], tree["copied"], {int(k): v for k, v in tree["reasons"].items()})


def _index_path(folder: Path, shard: int) -> Path:
    return folder / "index" / f"{shard:05d}.json"


def _lock(file: io.BufferedWriter, partial: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unmoved = os.path.samestat(os.fstat(file.fileno()), os.stat(partial))  # or it has just been finished
    except (BlockingIOError, FileNotFoundError):
        unmoved = False
    if not unmoved:
        raise ConfigError(f"{partial}: another process is writing it; wait for it, or stop it first")
