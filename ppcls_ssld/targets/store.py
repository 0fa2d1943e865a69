"""A folder of stored targets, open for reading: (sample id, view) -> record -> answer and draws. No Paddle."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import numpy as np

from ..errors import ConfigError, DataError
from ..structs import Drawn, SparseTargets
from .header import identity, open_layout, read_header, rows_of
from .parts import TRAILER_BYTES, map_part, part_path, part_sizes, readable


class TargetStore:
    """Stored views of a list. Memory maps, opened when first read, so that a fork shares them and costs nothing.

    partial: take whatever there is.
    header: as in header.json. views, k, class_num, temperature, tail: of it. samples: sample ids are 0 .. samples-1.
    record_bytes: per view. parts: number of part files. missing: those that are not there. digest: text that stands for
    the header.
    ConfigError: no store, or parts missing. DataError: a part of another size.
    """

    def __init__(self, folder: Path | str, partial: bool = False):
        self.folder = Path(folder)
        self.header = header = read_header(self.folder)
        self.views: int = header["views"]
        self.class_num: int = header["class_num"]
        self.temperature: float = header["temperature"]
        self.tail: str = header["tail"]
        self.answers, self.layout = open_layout(header)
        if json.loads(json.dumps(self.layout.dtype.descr)) != header["record"].get("descr"):
            raise ConfigError(f"{self.folder}: record is laid out otherwise than this version does it; use the version "
                              "of ppcls_ssld that wrote it, or write the targets again")
        self.k: int = self.answers.k
        self.rows = rows_of(header)
        self.samples, self.parts = self.rows.samples, self.rows.parts
        self.record_bytes = self.layout.dtype.itemsize
        self.identity = identity(header)
        self.digest = self.identity.hex()
        sizes = part_sizes(self.folder)
        self.missing = [part for part in range(self.parts) if part not in sizes]
        for part, size in sizes.items():
            if part < self.parts and size != self.part_bytes(part):
                raise DataError(f"{part_path(self.folder, part)}: has {size:,} bytes, expected "
                                f"{self.part_bytes(part):,}; delete it and run `targets write` again")
        if self.missing and not partial:
            raise ConfigError(f"{folder}: {len(self.missing):,} of {self.parts:,} parts are missing; run `ppcls-ssld "
                              "targets write` with the same --output again, it makes them")
        self._maps: list[mmap.mmap | None] = [None] * self.parts

    def describe(self) -> str:
        """One line for the log."""
        names = " + ".join(network["name"] for network in self.header["teacher"])
        return (f"answers of {names} from {self.folder}: {self.samples:,} images in {self.views} views, {self.k} of "
                f"{self.class_num:,} classes, tail {self.tail}, temperature {self.temperature:g}, {self.record_bytes} "
                f"bytes a view, {readable(self.bytes())}")

    def part_bytes(self, part: int) -> int:
        rows = len(self.rows.part_rows(part))
        return rows * (self.views * self.record_bytes + 4) + TRAILER_BYTES

    def bytes(self) -> int:
        """Of all parts together."""
        return sum(map(self.part_bytes, range(self.parts)))

    def read(self, sample_ids: np.ndarray, views: np.ndarray) -> np.ndarray:
        """Records [N] of int64 sample ids and views [N]. DataError: no such view, or a record that is damaged."""
        ids, views = np.asarray(sample_ids, np.int64), np.asarray(views, np.int64)
        if len(ids) and not (0 <= ids.min() and ids.max() < self.samples
                             and 0 <= views.min() and views.max() < self.views):
            raise DataError(f"{self.folder}: asked for sample {ids.min():,} to {ids.max():,} in view {views.min()} to "
                            f"{views.max()}; it holds {self.samples:,} samples in {self.views} views")
        rows = self.rows.of(ids)
        parts = np.minimum(rows // self.rows.block, self.parts - 1)
        addresses = rows * self.views + views
        size = self.record_bytes
        offsets = (addresses - parts * (self.rows.block * self.views)) * size
        maps = self._maps
        content = b"".join([(maps[part] or self._open(part))[offset:offset + size]
                            for part, offset in zip(parts.tolist(), offsets.tolist())])
        records = np.frombuffer(content, self.layout.dtype)
        wrong = np.flatnonzero(records["check"] != self.layout.checks(records, addresses))
        if len(wrong):
            i = wrong[0]
            raise DataError(f"{part_path(self.folder, int(parts[i]))}: the record of sample {ids[i]}, view {views[i]} "
                            "is damaged; `ppcls-ssld targets verify` finds all damaged parts. Delete them and run "
                            "`targets write` again, which makes them anew")
        return records

    def targets(self, records: np.ndarray) -> SparseTargets:
        """The teacher's answers. Without meaning where `drawn` is None."""
        return self.layout.targets(records)

    def drawn(self, record: np.void) -> Drawn | None:
        """What chance decided about one view; None for an image that could not be read when it was written."""
        return self.layout.drawn(record)

    def image_checksum(self, sample_id: int) -> int:
        """CRC-32 of an image's encoded bytes when it was written; 0 where it could not be read."""
        row = int(self.rows.of(np.array([sample_id], np.int64))[0])
        part = min(row // self.rows.block, self.parts - 1)
        return int(self.image_checksums(part)[row - self.rows.part_rows(part).start])

    def image_checksums(self, part: int) -> np.ndarray:
        """uint32 CRC-32 of the encoded bytes of each image of a part, in rows; 0 where it could not be read."""
        start = len(self.rows.part_rows(part)) * self.views * self.record_bytes
        return np.frombuffer((self._maps[part] or self._open(part))[start:-TRAILER_BYTES], "<u4")

    def part(self, part: int) -> mmap.mmap:
        """The whole file as it is. DataError when it is missing, or not this part of this store."""
        return self._maps[part] or self._open(part)

    def _open(self, part: int) -> mmap.mmap:
        self._maps[part] = map_part(self.folder, part, self.part_bytes(part), self.identity)
        return self._maps[part]
