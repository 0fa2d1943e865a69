"""From folders, lists and tar archives to one canonical list of names on disk: unique, sorted, memory-mapped.

It does not depend on the order of the sources or of their lines, and takes little memory however long it is: names are
sorted in runs, and the runs are merged.
"""

from __future__ import annotations

import hashlib
import heapq
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from ..config.mine import PoolSource
from ..errors import CheckpointError, DataError
from .sources import Source, names_of, recognise

_RUN = 1 << 20  # names sorted at once
_BATCH = 1 << 16  # names in a record batch of the file: all but the last have as many
_SCHEMA = pa.schema([("name", pa.string()), ("source", pa.uint16())])


@dataclass(frozen=True)
class SourceCount:
    """images: names found in the source at `path`, those that another line or source has too included."""

    path: str
    images: int


@dataclass(frozen=True)
class ListingReport:
    """What was found.

    count: unique names. duplicates: names found again, each time counted. sources: in the order of the file's source
    numbers. unlistable: (name, reason), sorted, of what is there and cannot be listed; names as one line of UTF-8.
    """

    count: int
    duplicates: int
    sources: tuple[SourceCount, ...]
    unlistable: tuple[tuple[str, str], ...] = ()


def write_listing(sources: Sequence[PoolSource], target: Path) -> ListingReport:
    """Write the names in all sources to `target`, an Arrow file with the columns `name` (UTF-8) and `source` (uint16).

    Names are absolute, without '.', '..' and doubled slashes, links not resolved; of tar members as in `data.files`.
    A name in several sources belongs to the first by path. The file appears complete or not at all. DataError when a
    source is missing, is nothing that can be read in place, or holds no image; CheckpointError when the disk refuses.
    """
    ordered = sorted({(os.path.abspath(source.path), source.root or "") for source in sources})
    if not 0 < len(ordered) < 1 << 16:
        raise DataError(f"expected 1 to {(1 << 16) - 1} sources of images, found {len(ordered)}; a pattern such as "
                        "'shards/*.tar' is one source")
    recognised = [recognise(path, root or None) for path, root in ordered]
    unlistable: list[tuple[str, str]] = []
    found = [0] * len(ordered)
    try:
        with ExitStack() as stack:
            folder = _scratch_folder(target, stack)
            runs = _sorted_runs(_names(recognised, found, unlistable), folder, stack)
            count = _write(heapq.merge(*runs), folder / "listing.arrow")
            os.replace(folder / "listing.arrow", target)
    except OSError as e:
        raise CheckpointError(f"{target}: the listing cannot be written ({e}); free some space or choose another "
                              "folder, and start again") from e
    counts = tuple(SourceCount(path, n) for (path, _), n in zip(ordered, found))
    return ListingReport(count, sum(found) - count, counts, tuple(sorted(set(unlistable))))


def _scratch_folder(target: Path, stack: ExitStack) -> Path:
    """An empty folder beside `target` while `stack` lasts. Its name is fixed: what a killed run left is cleared."""
    folder = target.parent / f".{target.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _names(sources: list[Source], found: list[int], unlistable: list[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    """(name, source number) of all images, as they come; counts go into `found`."""
    for number, source in enumerate(sources):
        refused = len(unlistable)
        for name in names_of(source, unlistable):
            found[number] += 1
            yield name, number
        if not found[number]:
            reasons = [f" that can be listed ({name}: {reason})" for name, reason in unlistable[refused:]]
            raise DataError(f"{source.path}: there is no image in it{next(iter(reasons), '')}")


def _sorted_runs(names: Iterator[tuple[str, int]], folder: Path, stack: ExitStack) -> list[Iterator[tuple[str, int]]]:
    runs, chunks, size = [], [], 0
    texts: list[str] = []
    numbers: list[int] = []

    def pack() -> None:
        chunks.append(pa.record_batch([pa.array(texts, pa.string()), pa.array(numbers, pa.uint16())], schema=_SCHEMA))
        texts.clear()
        numbers.clear()

    def sort() -> None:
        table = pa.Table.from_batches(chunks, _SCHEMA).sort_by([("name", "ascending"), ("source", "ascending")])
        chunks.clear()
        path = folder / f"run-{len(runs)}"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
            writer.write_table(table, max_chunksize=_BATCH)
        runs.append(_rows(pa.ipc.open_file(stack.enter_context(pa.memory_map(str(path))))))

    for text, number in names:
        texts.append(text)
        numbers.append(number)
        if len(texts) == _BATCH:
            size += _BATCH
            pack()
            if size >= _RUN:
                sort()
                size = 0
    if texts:
        pack()
    if chunks:
        sort()
    return runs


def _rows(file: pa.RecordBatchFileReader) -> Iterator[tuple[str, int]]:
    for i in range(file.num_record_batches):
        batch = file.get_batch(i)
        yield from zip(batch.column(0).to_pylist(), batch.column(1).to_pylist())


def _write(rows: Iterator[tuple[str, int]], path: Path) -> int:
    """Write sorted rows without those whose name was there already; number of rows written."""
    count, last = 0, None
    texts: list[str] = []
    numbers: list[int] = []
    with open(path, "wb") as sink:
        with pa.ipc.new_file(sink, _SCHEMA) as writer:
            for text, number in rows:
                if text == last:
                    continue
                if len(texts) == _BATCH:
                    writer.write_batch(pa.record_batch([texts, pa.array(numbers, pa.uint16())], schema=_SCHEMA))
                    texts, numbers = [], []
                texts.append(last := text)
                numbers.append(number)
                count += 1
            writer.write_batch(pa.record_batch([pa.array(texts, pa.string()), pa.array(numbers, pa.uint16())],
                                               schema=_SCHEMA))
        sink.flush()
        os.fsync(sink.fileno())
    return count


class Listing:
    """The names of a listing, read where they are needed; processes that map the same file share its memory."""

    def __init__(self, file: pa.RecordBatchFileReader):
        self._file = file
        last = file.num_record_batches - 1
        self._count = last * _BATCH + file.get_batch(last).num_rows

    @classmethod
    def open(cls, path: Path) -> Listing:
        """DataError when there is no listing at `path`."""
        try:
            file = pa.ipc.open_file(pa.memory_map(str(path)))
        except (OSError, pa.ArrowInvalid) as e:
            raise DataError(f"{path}: no listing can be read there ({e}); write it again") from e
        if file.schema != _SCHEMA or not file.num_record_batches:
            raise DataError(f"{path}: not a listing; its columns are {file.schema.names}, expected {_SCHEMA.names}")
        return cls(file)

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        if not 0 <= index < self._count:
            raise IndexError(f"there is no image {index} in a listing of {self._count}")
        return self._file.get_batch(index // _BATCH).column(0)[index % _BATCH].as_py()

    def names(self, start: int, stop: int) -> list[str]:
        """Names of images start .. stop-1, fewer where the listing ends."""
        return self._column(0, start, stop)

    def sources(self, start: int, stop: int) -> list[int]:
        """Source numbers of images start .. stop-1, as `ListingReport.sources` counts them."""
        return self._column(1, start, stop)

    def _column(self, column: int, start: int, stop: int) -> list:
        values, stop = [], min(stop, self._count)
        while start < stop:
            batch, first = divmod(start, _BATCH)
            part = self._file.get_batch(batch).column(column).slice(first, stop - start)
            values += part.to_pylist()
            start += len(part)
        return values

    def digest(self) -> str:
        """BLAKE2b (16 bytes, hex) over the names, each ended by a newline: of a text file with a name a line."""
        digest = hashlib.blake2b(digest_size=16)
        for start in range(0, self._count, _BATCH):
            digest.update("".join(name + "\n" for name in self.names(start, start + _BATCH)).encode())
        return digest.hexdigest()
