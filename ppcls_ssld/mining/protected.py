"""The protected set: everything that a pool image is compared with, made once, read by all processes from one place.

Features are made block by block (resumable, over all processes), then joined into files and an index over the
keypoints, memory-mapped where they are large; hashes and thumbnails are indexed when they are opened.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import replacing
from ..data.files import Archives
from ..errors import CheckpointError, ConfigError
from .fingerprint import HashIndex, mirrored
from .images import Unreadable, look
from .keypoint_index import KeypointIndex, KeypointStore
from .keypoints import KeypointConfig, pack, unpack
from .listing import Listing
from .thumbnails import ThumbnailIndex

HASH_BITS = 10  # of 64: hashes so near are compared in detail


@dataclass(frozen=True)
class Task:
    """Images of the protected listing, by position."""

    first: int
    names: tuple[str, ...]


class Features:
    """Work of one process on the protected images: names -> arrays."""

    def __init__(self, keypoints: KeypointConfig, max_pixels: int, min_side: int):
        self._keypoints, self._max_pixels, self._min_side = keypoints, max_pixels, min_side
        self._archives = Archives()

    def __call__(self, task: Task) -> dict[str, Any]:
        """Arrays over the task's images, unreadable ones as zeros and without keypoints; their names and reasons."""
        seen = [look(name, self._archives, self._max_pixels, self._min_side, self._keypoints) for name in task.names]
        points = [None if isinstance(s, Unreadable) else s.keypoints for s in seen]
        unreadable = [(s.name, s.reason) for s in seen if isinstance(s, Unreadable)]
        blank = np.zeros((32, 32, 3), np.uint8)
        return {
            "id": np.array([s.id for s in seen], "V16"),
            "digest": np.array([bytes(16) if isinstance(s, Unreadable) else s.digest for s in seen], "V16"),
            "hash": np.array([0 if isinstance(s, Unreadable) or s.hash is None else s.hash for s in seen], np.uint64),
            "thumbnail": np.stack([blank if isinstance(s, Unreadable) else s.thumbnail for s in seen]),
            "count": np.array([0 if p is None else len(p) for p in points], np.int64),
            "size": np.array([(1, 1) if p is None else (p.width, p.height) for p in points], np.int32),
            "packed": np.concatenate([np.zeros((0, 4), np.uint16), *(pack(p) for p in points if p is not None)]),
            "descriptors": np.concatenate([np.zeros((0, 128), np.uint8),
                                           *(p.descriptors for p in points if p is not None)]),
            "unreadable": np.array([list(pair) for pair in unreadable], np.str_).reshape(-1, 2),
        }


def write_features(folder: Path, block: int, arrays: dict[str, np.ndarray]) -> None:
    """Arrays of one block, whole or not there. CheckpointError (disk)."""
    with replacing(folder / f"{block:05d}.npz") as file:
        np.savez(file, **arrays)


def joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The arrays of several tasks as those of one block."""
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def finished(folder: Path, count: int) -> set[int]:
    """Blocks of 0 .. count-1 that have their features."""
    return {block for block in range(count) if (folder / f"{block:05d}.npz").is_file()}


def join(folder: Path, parts: Path, count: int, say: Callable[[str], None]) -> list[tuple[str, str]]:
    """Join the features of all blocks into the files that `Protected` opens; returns the unreadable: (name, reason).

    Memory: one block, thumbnails and hashes of all (3 KB an image), and what FAISS needs to build its index.
    """
    def blocks() -> Iterator[dict[str, np.ndarray]]:
        for block in range(count):
            with np.load(parts / f"{block:05d}.npz", allow_pickle=False) as arrays:
                yield dict(arrays)

    whole: dict[str, list[np.ndarray]] = {key: [] for key in ("id", "digest", "hash", "thumbnail", "unreadable")}
    for arrays in blocks():
        for key, values in whole.items():
            values.append(arrays[key])

    def keypoints():
        for arrays in blocks():
            ends = np.cumsum(arrays["count"])
            for start, end, size in zip(ends - arrays["count"], ends, arrays["size"]):
                yield unpack(arrays["packed"][start:end], arrays["descriptors"][start:end], *size.tolist())

    try:
        for key in ("id", "digest", "hash", "thumbnail"):
            np.save(folder / f"{key}.npy", np.concatenate(whole[key]))
        store = KeypointStore.write(folder / "keypoints", keypoints())
        say(f"protected images: index over the keypoints of {len(store):,} images")
        KeypointIndex.build(store).write(folder / "index")
    except OSError as e:
        raise CheckpointError(f"{folder}: the index of the protected images cannot be written ({e.strerror or e}); "
                              "free some space, then start the same command again") from e
    return [(name, reason) for name, reason in np.concatenate(whole["unreadable"]).tolist()]


class Protected:
    """The protected images as indexes, ready before any fork. An empty set protects nothing and finds nothing.

    groups: positions by class, see `group_of`.
    """

    def __init__(self, listing: Listing | None, folder: Path | None):
        self.listing = listing
        self.count = len(listing) if listing else 0
        if not self.count:
            return
        ids, digests = np.load(folder / "id.npy"), np.load(folder / "digest.npy")
        none = bytes(16)
        # The first of equal ones, so that the same image is named whatever process asks.
        readable = [(i, bytes(ids[i]), bytes(digests[i])) for i in range(self.count) if bytes(digests[i]) != none]
        self._by_id = {key: i for i, key, _ in reversed(readable)}
        self._by_digest = {key: i for i, _, key in reversed(readable)}
        self.hashes = np.load(folder / "hash.npy")
        self._hashed = np.flatnonzero(self.hashes)
        self._hash_index = HashIndex(self.hashes[self._hashed], HASH_BITS)
        self.thumbnails = np.load(folder / "thumbnail.npy", mmap_mode="r")
        self._thumbnail_index = ThumbnailIndex(self.thumbnails)
        self.keypoints = KeypointStore.open(folder / "keypoints")
        self.keypoint_index = KeypointIndex.open(folder / "index")
        self._names = {name: i for i, name in enumerate(listing.names(0, self.count))}
        self.groups: dict[str, list[int]] = {}
        for name, i in self._names.items():
            self.groups.setdefault(group_of(name), []).append(i)

    def position(self, name: str) -> int | None:
        """Of a protected image of this very name."""
        return self._names.get(name)

    def same_bytes(self, content_id: bytes) -> int | None:
        return self._by_id.get(content_id)

    def same_pixels(self, digest: bytes) -> int | None:
        return self._by_digest.get(digest)

    def near_hashes(self, value: np.uint64, top: int) -> list[int]:
        """Protected images whose hash is near this one or its mirror, nearest first."""
        queries = np.array([value, mirrored(value)], np.uint64)
        _, found, bits = self._hash_index.within(queries)
        order = np.lexsort((found, bits))
        return list(dict.fromkeys(self._hashed[found[order]].tolist()))[:top]

    def near_thumbnails(self, thumbnails: np.ndarray, top: int) -> list[list[int]]:
        """thumbnails: uint8 [n, 32, 32, 3]. For each, the protected images most like it, best first."""
        found, _ = self._thumbnail_index.search(thumbnails, top)
        return [[i for i in row if i >= 0] for row in found.tolist()]


def group_of(name: str) -> str:
    """Name of the folder, or of the archive without its suffix, that an image lies in: of its class, in sets that are
    sorted that way."""
    archive, hash_sign, member = name.rpartition("#")
    if hash_sign and "/" not in member:
        return os.path.basename(archive).removesuffix(".tar")
    return os.path.basename(os.path.dirname(member if hash_sign else name))


def check_groups(protected: Protected, pool: Listing) -> None:
    """ConfigError when method paper finds no class of the protected set in the pool's first million images."""
    sample = pool.names(0, len(pool)) if len(pool) < 1_000_000 else pool.names(0, 1_000_000)
    if protected.count and not protected.groups.keys() & {group_of(name) for name in sample}:
        example = group_of(protected.listing.name(0)), group_of(pool.name(0))
        raise ConfigError("method paper compares images of one class only, by the name of the folder or archive they "
                          f"lie in, and no such name is on both sides (protected: '{example[0]}', pool: "
                          f"'{example[1]}'); sort both into folders by class, or use --method cascade")
