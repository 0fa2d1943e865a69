"""A file from a server: whole under its name, or a `.part` beside it that the next call goes on with."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

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
        have = part.stat().st_size if part.exists() and tag.exists() else 0
        # If the file has changed since, the server sends it whole instead of the rest.
        asked = {"Range": f"bytes={have}-", "If-Range": tag.read_text()} if have else {}
        with urllib.request.urlopen(urllib.request.Request(url, headers=asked), timeout=_SILENCE_S) as answer:
            have = have if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            name = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
            tag.write_text(name) if name else tag.unlink(missing_ok=True)
            with open(part, "ab" if have else "wb") as file:
                while piece := answer.read(_PIECE):
                    file.write(piece)
        size = part.stat().st_size
        if length is not None and size != have + int(length):
            raise OSError(f"{size:,} of {have + int(length):,} bytes came")
    except OSError as e:  # URLError, HTTPError and time-outs among them
        again = "start again to go on" if part.exists() and tag.exists() else "start again"
        if isinstance(e, urllib.error.HTTPError) and e.code == 416:  # what is here is no beginning of what is there
            part.unlink(missing_ok=True)
        raise WeightsError(f"{url}: the download failed ({e}); {again}, or put the file into {path.parent} as {path.name}"
                           ) from e
    part.replace(path)
    tag.unlink(missing_ok=True)
    return path


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
