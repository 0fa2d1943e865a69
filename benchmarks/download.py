"""A file from a server: whole under its name, or a `.part` beside it that the next call goes on with.

A process that finds another one at the same file waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ppcls_ssld.errors import WeightsError

_PIECE = 1 << 20
_SILENCE_S = 60  # without a byte, before it is given up


def download(url: str, path: Path) -> Path:
    """Fetch `url` to `path`, unless it is there. WeightsError says what went wrong and what to do instead."""
    if path.exists():
        return path
    part, tag = path.with_name(path.name + ".part"), path.with_name(path.name + ".part.tag")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part) as file:
            if path.exists():  # the other process has fetched it
                part.unlink()
                return path
            try:
                _fetch(url, file, tag)
            except BaseException as e:
                file.flush()
                # Nothing came, or what is here is no beginning of what is there.
                if not part.stat().st_size or isinstance(e, urllib.error.HTTPError) and e.code == 416:
                    part.unlink()
                    tag.unlink(missing_ok=True)
                raise
            tag.unlink(missing_ok=True)
            part.replace(path)
    except (OSError, http.client.HTTPException) as e:  # URLError, HTTPError and time-outs among them
        again = "start again to go on" if part.exists() and tag.exists() else "start again"
        said = (str(e) if isinstance(e, OSError) else repr(e)) or type(e).__name__
        raise WeightsError(f"{url}: the download failed ({said}); {again}, or put the file into {path.parent} as {path.name}"
                           ) from e
    return path


def _fetch(url: str, file: BinaryIO, tag: Path) -> None:
    """Complete `file`, open for appending. tag: which version of the server's file its beginning is of."""
    have = os.fstat(file.fileno()).st_size if tag.exists() else 0
    # If the file has changed since, the server sends it whole instead of the rest.
    asked = {"Range": f"bytes={have}-", "If-Range": tag.read_text()} if have else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=_SILENCE_S) as answer:
        have = have if answer.status == 206 else 0
        file.truncate(have)
        length = answer.headers.get("Content-Length")
        name = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        tag.write_text(name) if name else tag.unlink(missing_ok=True)
        while piece := answer.read(_PIECE):
            file.write(piece)
    file.flush()
    size = os.fstat(file.fileno()).st_size
    if length is not None and size != have + int(length):
        raise OSError(f"{size:,} of {have + int(length):,} bytes came")


@contextlib.contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """`part`, open for appending by this process alone."""
    while True:
        with open(part, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{part}: another process is downloading it; waiting", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
            # Whoever had it may have finished, renamed or removed it meanwhile; then this is not the .part any more.
            if part.exists() and os.path.samestat(part.stat(), os.fstat(file.fileno())):
                yield file
                return


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
