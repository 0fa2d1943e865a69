"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import CheckpointError

ADVICE = "free some space or choose another output folder, then start the same command again: it goes on from there"


def write_atomic(path: Path, *pieces: str | bytes, advice: str = ADVICE) -> Path:
    """Write one file of text (as UTF-8) and bytes, as `replacing` does; its path."""
    with replacing(path, advice) as file:
        for piece in pieces:
            file.write(piece.encode() if isinstance(piece, str) else piece)
    return path


@contextlib.contextmanager
def replacing(path: Path, advice: str = ADVICE) -> Iterator[BinaryIO]:
    """A new file, in a folder that is made if need be; it takes the place of `path`, and is on disk, when the block ends.

    Whatever the block raises, `path` is what it was, or not there. A disk that refuses is a CheckpointError, which ends
    with `advice`; so the block should do nothing but write.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(new, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, path)
        finally:
            with contextlib.suppress(OSError):
                new.unlink()
        sync_folder(path.parent)
    except OSError as e:
        free = f"; {shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free there" if path.parent.is_dir() else ""
        raise CheckpointError(f"{path}: cannot be written ({e.strerror or e}{free}); {advice}") from e


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk, or a crash may forget the newest."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
