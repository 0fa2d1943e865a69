"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from .errors import CheckpointError


def write_atomic(path: Path, *pieces: str | bytes) -> Path:
    """Write one file of text (as UTF-8) and bytes, on disk when this returns; its folder is made.

    CheckpointError when the disk refuses; then the file is what it was, or not there.
    """
    new = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(new, "wb") as file:
            for piece in pieces:
                file.write(piece.encode() if isinstance(piece, str) else piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # or a crash may forget the new name
        finally:
            os.close(folder)
    except OSError as e:
        with contextlib.suppress(OSError):
            new.unlink()
        free = f"; {shutil.disk_usage(path.parent).free / 2**20:,.0f} MiB free there" if path.parent.is_dir() else ""
        raise CheckpointError(f"{path}: cannot be written ({e.strerror or e}{free}); free some space or choose another "
                              "--output, then start the same command again: it goes on from there") from e
    return path
