"""Which protected images may an image be an edit of? An inverted index over their descriptors; no trained network.

Strong keypoints from all over the image, and those of its mirror image, vote for the owners of the descriptors nearest
to them. A vote carries a turn and a change of size; only votes that agree in both are counted together. Images
without an edit among the protected ones hardly ever reach the minimum, and so cost no verification.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import faiss
import numpy as np

from ..errors import DataError
from .keypoints import DESCRIPTOR_SCALE, mirrored, pack, unpack
from .types import Keypoints

VERSION = 2


@dataclass(frozen=True)
class IndexConfig:
    """How candidates are found.

    voters: keypoints of the image that vote, from all over it. neighbours: descriptors each votes for.
    similarity: smallest cosine of a vote. probes: inverted lists looked into per descriptor.
    min_votes: fewest agreeing votes that make a candidate. seed: of the clustering.
    """

    voters: int = 128
    neighbours: int = 4
    similarity: float = 0.92
    probes: int = 1
    min_votes: int = 3
    seed: int = 0


class Candidate(NamedTuple):
    """A protected image worth verifying: its number, the agreeing votes, whether the mirror image got them."""

    reference: int
    votes: int
    mirrored: bool


class KeypointStore(Sequence):
    """Keypoints of many images on disk, memory-mapped: 136 bytes a keypoint, nothing lost of what `extract` gave."""

    def __init__(self, folder: Path, ends: np.ndarray, sizes: np.ndarray, geometry: np.ndarray,
                 descriptors: np.ndarray):
        self.folder, self.ends, self.sizes = folder, ends, sizes
        self.geometry, self.descriptors = geometry, descriptors

    @staticmethod
    def write(folder: str | Path, keypoints: Iterable[Keypoints]) -> KeypointStore:
        """Write a new folder, one image after the other; it appears under its name when it is whole."""
        folder = Path(folder)
        building = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        count, sizes, total = [], [], 0
        with open(building / "geometry.u16", "wb") as geometry, open(building / "descriptors.u8", "wb") as descriptors:
            for image in keypoints:
                geometry.write(pack(image).tobytes())
                descriptors.write(np.ascontiguousarray(image.descriptors).tobytes())
                total += len(image)
                count.append(total)
                sizes.append((image.width, image.height))
        np.save(building / "ends.npy", np.array(count, np.int64))
        np.save(building / "sizes.npy", np.array(sizes, np.uint16).reshape(-1, 2))
        _move(building, folder)
        return KeypointStore.open(folder)

    @staticmethod
    def open(folder: str | Path) -> KeypointStore:
        """DataError when the folder is no store or its files are not as long as they should be."""
        folder = Path(folder)
        try:
            ends, sizes = np.load(folder / "ends.npy"), np.load(folder / "sizes.npy")
            total = int(ends[-1]) if len(ends) else 0
            geometry = _mapped(folder / "geometry.u16", np.uint16, (total, 4))
            descriptors = _mapped(folder / "descriptors.u8", np.uint8, (total, 128))
        except (OSError, ValueError) as e:
            raise DataError(f"{folder}: not a whole keypoint store ({e}); remove it and build it again") from e
        return KeypointStore(folder, ends, sizes, geometry, descriptors)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> Keypoints:
        if not 0 <= i < len(self):
            raise IndexError(f"image {i} of {len(self)}")
        start, end = int(self.ends[i - 1]) if i else 0, int(self.ends[i])
        return unpack(self.geometry[start:end], np.asarray(self.descriptors[start:end]), *self.sizes[i])

    def __iter__(self) -> Iterator[Keypoints]:
        return (self[i] for i in range(len(self)))


class KeypointIndex:
    """Candidates among protected images. Built once; opened by any number of processes, which share its pages."""

    def __init__(self, index: faiss.Index | None, owners: np.ndarray, turns: np.ndarray, scales: np.ndarray,
                 config: IndexConfig):
        self.index, self.owners, self.turns, self.scales, self.config = index, owners, turns, scales, config

    @staticmethod
    def build(images: Sequence[Keypoints], config: IndexConfig = IndexConfig()) -> KeypointIndex:
        """Index of a KeypointStore or a list. The same images give the same index."""
        faiss.omp_set_num_threads(1)
        counts = np.array([len(image) for image in images], np.int64)
        owners = np.repeat(np.arange(len(images), dtype=np.int32), counts)
        turns = np.concatenate([_turns(image.angles) for image in images] or [np.zeros(0, np.uint8)])
        scales = np.concatenate([_scales(image.sizes) for image in images] or [np.zeros(0, np.uint8)])
        if not len(owners):
            return KeypointIndex(None, owners, turns, scales, config)
        sample = _training_sample(images, counts, min(len(owners), 1_000_000), config.seed)
        index = _new_index(len(owners), sample, config)
        for start in range(0, len(images), 1024):
            block = [images[i].descriptors for i in range(start, min(start + 1024, len(images)))]
            index.add(np.concatenate(block).astype(np.float32))
        index.nprobe = config.probes
        return KeypointIndex(index, owners, turns, scales, config)

    def write(self, folder: str | Path) -> None:
        """Write a new folder; it appears under its name when it is whole."""
        folder = Path(folder)
        building = folder.with_name(folder.name + ".tmp")
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        if self.index is not None:
            faiss.write_index(self.index, str(building / "lists.faiss"))
        for name in ("owners", "turns", "scales"):
            np.save(building / f"{name}.npy", getattr(self, name))
        (building / "index.json").write_text(json.dumps({"version": VERSION, **asdict(self.config)}))
        _move(building, folder)

    @staticmethod
    def open(folder: str | Path, config: IndexConfig | None = None) -> KeypointIndex:
        """Memory-mapped. config: other search settings than those it was built with. DataError when it is not whole."""
        folder = Path(folder)
        try:
            settings = json.loads((folder / "index.json").read_text())
            version = settings.pop("version")
            if version != VERSION:
                raise DataError(f"{folder}: written as version {version} of the index, this is {VERSION}; "
                                "remove it and build it again")
            config = config or IndexConfig(**settings)
            arrays = [np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("owners", "turns", "scales")]
            index = None
            if len(arrays[0]):
                index = faiss.read_index(str(folder / "lists.faiss"), faiss.IO_FLAG_MMAP)
                index.nprobe = config.probes
                # Else FAISS starts 32 threads a search, to read ahead what is in memory already.
                faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as e:
            raise DataError(f"{folder}: not a whole keypoint index ({e}); remove it and build it again") from e
        faiss.omp_set_num_threads(1)
        return KeypointIndex(index, *arrays, config)

    def search(self, query: Keypoints, top: int = 5) -> list[Candidate]:
        """At most `top` candidates, most votes first; none below `min_votes`."""
        if self.index is None or len(query) < self.config.min_votes:
            return []
        voters = _first(query, self.config.voters)
        both = voters, mirrored(voters)
        descriptors = np.concatenate([image.descriptors for image in both]).astype(np.float32)
        distances, found = self.index.search(descriptors, self.config.neighbours)
        found[distances > 2 * (1 - self.config.similarity) * DESCRIPTOR_SCALE**2] = -1
        found = found.reshape(2, len(voters), -1)
        candidates = []
        for flipped, image in enumerate(both):
            votes = _count(found[flipped], _turns(image.angles), _scales(image.sizes), self.owners, self.turns,
                           self.scales, self.config.min_votes)
            candidates += [Candidate(reference, count, bool(flipped)) for reference, count in votes]
        candidates.sort(key=lambda c: (-c.votes, c.reference, c.mirrored))
        return candidates[:top]


def _count(found: np.ndarray, turns: np.ndarray, scales: np.ndarray, owners: np.ndarray, owner_turns: np.ndarray,
           owner_scales: np.ndarray, least: int) -> list[tuple[int, int]]:
    """(image, agreeing votes) of every image with `least` or more.

    A bin is 1/8 turn by a factor of 2; each vote falls into four, shifted by half a bin, and an image has the votes of
    its best bin: the keypoints that voted, or the descriptors voted for, whichever are fewer.
    """
    voter, _ = np.nonzero(found >= 0)
    hit = found[found >= 0]
    owner = owners[hit]
    # Nearly all votes are for images with a handful; they go first, whatever their bins.
    keep = (np.bincount(owner) >= least)[owner]
    if not keep.any():
        return []
    hit, voter, owner = hit[keep], voter[keep], owner[keep].astype(np.int64)
    turn = owner_turns[hit].astype(np.int64) - turns[voter] & 255
    scale = owner_scales[hit].astype(np.int64) - scales[voter] + 256
    best: dict[int, int] = {}
    for half_turn in (0, 16):
        for half_scale in (0, 8):
            bins = (owner * 8 + (turn + half_turn & 255) // 32) * 64 + (scale + half_scale) // 16
            by_voter = _distinct(bins, voter)
            by_hit = _distinct(bins, hit)
            votes = np.minimum(by_voter[1], by_hit[1])
            for image, number in zip(by_voter[0][votes >= least] // 512, votes[votes >= least]):
                best[int(image)] = max(best.get(int(image), 0), int(number))
    return sorted(best.items())


def _distinct(bins: np.ndarray, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(bins in order, number of distinct members of each)."""
    order = np.lexsort((members, bins))
    bins, members = bins[order], members[order]
    first = np.ones(len(bins), bool)
    first[1:] = (bins[1:] != bins[:-1]) | (members[1:] != members[:-1])
    return np.unique(bins[first], return_counts=True)


def _turns(angles: np.ndarray) -> np.ndarray:
    """uint8: 1/256 turns."""
    return (np.rint(angles * (256 / 360)).astype(np.int64) & 255).astype(np.uint8)


def _scales(sizes: np.ndarray) -> np.ndarray:
    """uint8: 16 times the binary logarithm."""
    return np.clip(np.rint(16 * np.log2(np.maximum(sizes, 1))), 0, 255).astype(np.uint8)


def _first(keypoints: Keypoints, count: int) -> Keypoints:
    return Keypoints(keypoints.points[:count], keypoints.sizes[:count], keypoints.angles[:count],
                     keypoints.descriptors[:count], keypoints.width, keypoints.height)


def _new_index(total: int, sample: np.ndarray, config: IndexConfig) -> faiss.Index:
    """Inverted lists of about 250 descriptors, uncompressed: FAISS maps such lists from disk and scans them fastest."""
    lists = int(np.clip(total // 250, 1, 65_536))
    if lists <= 256:
        quantizer: faiss.Index = faiss.IndexFlatL2(128)
        quantizer.add(_centroids(sample, lists, config.seed))
    else:  # the centroids, rounded to bytes as the descriptors are, have inverted lists of their own
        centroids = np.rint(_centroids(sample, lists, config.seed))
        quantizer = _byte_lists(faiss.IndexFlatL2(128), round(lists**0.5))
        quantizer.cp.seed, quantizer.cp.min_points_per_centroid = config.seed, 1
        quantizer.train(centroids)
        quantizer.add(centroids)
        quantizer.nprobe = 3
    index = _byte_lists(quantizer, lists)
    index.train(sample)
    return index


def _byte_lists(quantizer: faiss.Index, count: int) -> faiss.Index:
    """Inverted lists of vectors of 128 bytes each; FAISS compares them in whole numbers."""
    return faiss.IndexIVFScalarQuantizer(quantizer, 128, count, faiss.ScalarQuantizer.QT_8bit_direct, faiss.METRIC_L2,
                                         False)


def _centroids(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    """float32 [count, 128]. k-means in two levels: as good for looking up, and the time grows as count^1.5."""
    if count <= 256:
        return _kmeans(sample, count, seed)
    tops = _kmeans(sample, round(count**0.5), seed)
    top = faiss.IndexFlatL2(128)
    top.add(tops)
    members = top.search(sample, 1)[1].ravel()
    order, sizes = np.argsort(members, kind="stable"), np.bincount(members, minlength=len(tops))
    # Centroids are shared out by size, each cluster has one at least and no more than it has members.
    shares = np.clip(np.floor(sizes * (count / len(sample))).astype(np.int64), 1, np.maximum(sizes, 1))
    for cluster in np.argsort(shares - sizes, kind="stable")[:max(0, count - shares.sum())]:
        shares[cluster] += 1
    parts = np.split(sample[order], np.cumsum(sizes)[:-1])
    found = [_kmeans(part, share, seed) if len(part) else tops[i:i + 1]
             for i, (part, share) in enumerate(zip(parts, shares.tolist()))]
    return np.concatenate(found)[:count]


def _kmeans(sample: np.ndarray, count: int, seed: int) -> np.ndarray:
    if len(sample) <= count:
        return np.resize(sample, (count, 128))
    kmeans = faiss.Kmeans(128, count, niter=6, seed=seed + 1, min_points_per_centroid=1, max_points_per_centroid=256)
    kmeans.train(sample)
    return kmeans.centroids


def _training_sample(images: Sequence[Keypoints], counts: np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """float32 [m, 128]: descriptors of whole images drawn until there are about `wanted`."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(images))
    needed = int(np.searchsorted(np.cumsum(counts[order]), wanted)) + 1
    return np.concatenate([images[int(i)].descriptors for i in np.sort(order[:needed])]).astype(np.float32)


def _mapped(path: Path, dtype: type, shape: tuple[int, int]) -> np.ndarray:
    expected = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, expected {expected}")
    return np.memmap(path, dtype, "r", shape=shape) if shape[0] else np.zeros(shape, dtype)


def _move(building: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(building, folder)
