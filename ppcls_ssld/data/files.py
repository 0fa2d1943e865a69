"""The bytes of an image, from a file of its own or from inside a tar archive, which is never unpacked.

The name of a member is `ARCHIVE#MEMBER@OFFSET+SIZE`: its first byte, counted in ARCHIVE, and its number of bytes. So a
member is one read away, without an index; one in a tar within a tar (`outer.tar#inner.tar/cat.jpg@...`) is as near.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections import OrderedDict

from ..errors import DataError

_BLOCK = 512  # of a tar archive; the one before a member's bytes is its header
_NAME_BYTES = 100  # of a header; longer names, and names that are not ASCII, may stand elsewhere or be cut
_MOST_BYTES = 1 << 30
_NO_SUCH_FILE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_SPAN = re.compile(r"@(\d{1,19})\+(\d{1,19})$")


def member_name(archive: str, member: str, offset: int, size: int) -> str:
    """The name under which `read_bytes` finds a member. offset, size: bytes, counted in the outermost archive."""
    return f"{archive}#{member}@{offset}+{size}"


def split_member(name: str) -> tuple[str, str] | None:
    """(ARCHIVE, `MEMBER@OFFSET+SIZE`) by the form of the name alone, None for a plain path.

    Where '#' comes more than once, the first one that follows an existing file counts, else the very first.
    """
    if "#" not in name or not _SPAN.search(name):
        return None
    cuts = [match.start() for match in re.finditer("#", name)]
    cut = next((cut for cut in cuts if len(cuts) > 1 and os.path.isfile(name[:cut])), cuts[0])
    return name[:cut], name[cut + 1:]


class Archives:
    """Archives kept open, at most `limit` of them; the one unused for longest is closed.

    May be inherited by fork: reading moves no file position, and what a child closes stays open for its parent.
    """

    def __init__(self, limit: int = 32):
        self._limit = limit
        self._open: OrderedDict[str, int] = OrderedDict()

    def descriptor(self, path: str) -> int:
        """File descriptor of an archive. OSError when it cannot be opened."""
        if path in self._open:
            self._open.move_to_end(path)
            return self._open[path]
        if len(self._open) >= self._limit:
            os.close(self._open.popitem(last=False)[1])
        self._open[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        return self._open[path]

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __enter__(self) -> Archives:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def __del__(self):
        self.close()


def read_bytes(name: str, archives: Archives | None = None) -> bytes:
    """Bytes of the image that a path or a member's name names; a file that has a member's very name wins.

    archives: kept open between calls; without, an archive is opened for this call. DataError opens with the name.
    """
    try:
        return _read_file(name)
    except (OSError, ValueError) as e:
        parts = split_member(name) if getattr(e, "errno", None) in _NO_SUCH_FILE else None
        if parts is None:
            reason = getattr(e, "strerror", None) or e
            raise DataError(f"{name}: cannot be read ({reason}); correct the list or its root folder") from e
    if archives is not None:
        return _read_member(name, *parts, archives)
    with Archives(1) as archives:
        return _read_member(name, *parts, archives)


def _read_file(path: str) -> bytes:
    # Without waiting: a pipe that nobody writes to must not stop a run.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device"
            raise DataError(f"{path}: cannot be read (it is {kind}, not a file); correct the list or its root folder")
        _check_size(path, status.st_size)
        return _read_at(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _check_size(name: str, size: int) -> None:
    if size > _MOST_BYTES:
        raise DataError(f"{name}: {size} bytes are more than any image has; take it out of the list")


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    """`size` bytes, fewer only where the file ends."""
    data = os.pread(descriptor, size, offset)
    if len(data) in (size, 0):
        return data
    parts = [data]
    while data and (left := size - sum(map(len, parts))):
        data = os.pread(descriptor, left, offset + sum(map(len, parts)))
        parts.append(data)
    return b"".join(parts)


def _read_member(name: str, archive: str, span: str, archives: Archives) -> bytes:
    match = _SPAN.search(span)
    member, offset, size = span[:match.start()], int(match[1]), int(match[2])
    _check_size(name, size)
    if offset < _BLOCK or offset >= 1 << 62:
        raise DataError(f"{name}: byte {offset} cannot be where a member begins; list the archive again")
    try:
        data = _read_at(archives.descriptor(archive), offset - _BLOCK, _BLOCK + size)
    except OSError as e:
        raise DataError(f"{name}: the archive {archive} cannot be read ({e.strerror}); correct the list or its root "
                        "folder") from e
    if len(data) >= _BLOCK and not _is_header(data[:_BLOCK], member, size):
        raise DataError(f"{name}: the archive holds no such member there; it was changed since it was listed: list it "
                        "again")
    if len(data) < _BLOCK + size:
        raise DataError(f"{name}: the archive ends {_BLOCK + size - len(data)} bytes too early; restore it or list it "
                        "again")
    return data[_BLOCK:]


def _is_header(block: bytes, member: str, size: int) -> bool:
    """Whether a block is the header of `size` bytes named `member`, or named by the end of it (a tar within a tar)."""
    expected = os.fsencode(member)
    found = block[:_NAME_BYTES].split(b"\0")[0]
    may_differ = len(expected) > _NAME_BYTES or not expected.isascii()
    named = bool(found) and (b"/" + expected).endswith(b"/" + found)
    return (named or may_differ) and _octal(block[124:136]) == size and _octal(block[148:156]) == _checksum(block)


def _octal(field: bytes) -> int:
    digits = field.strip(b" \0")
    return int(digits, 8) if re.fullmatch(rb"[0-7]+", digits) else -1


def _checksum(block: bytes) -> int:
    """Sum of a header's bytes, its checksum field taken as spaces."""
    return sum(block) - sum(block[148:156]) + 8 * ord(" ")
