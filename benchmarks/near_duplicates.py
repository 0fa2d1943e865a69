"""How many edits do keypoints find, how many innocent images do they accuse, and what does it cost?

    python benchmarks/near_duplicates.py --photos FOLDER [FOLDER...]

The photographs (one in each file, all different) are split in three; the first third is protected.
`recall` takes edits of its photographs to be the pool, and the other way round: photographs are the pool and their
edits are protected, each edit in an index of its own among the unedited rest. `innocent` asks for images whose original
is not protected: the second third, edited like the protected ones (same crop, same caption); tiles of the last third
whose neighbours are protected; drawn flags, gradients, text pages, grids. `cost` gives milliseconds on one core for
each stage, and memory and search time for up to 50,000 protected images, made up from real descriptors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.drawn import DRAWN  # noqa: E402
from benchmarks.edits import EDITS  # noqa: E402
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.data import pixels  # noqa: E402
from ppcls_ssld.mining import overlay  # noqa: E402
from ppcls_ssld.mining.geometry import GeometryConfig, verify  # noqa: E402
from ppcls_ssld.mining.keypoint_index import IndexConfig, KeypointIndex, KeypointStore  # noqa: E402
from ppcls_ssld.mining.keypoints import KeypointConfig, extract, working_image  # noqa: E402
from ppcls_ssld.mining.types import Keypoints  # noqa: E402

LOOSE = 5  # cells from which scores are looked at, below the threshold
TOP = 5


class Found(NamedTuple):
    """Best score by keypoints, best score that the pixels confirm and its reference, candidates, best agreement."""

    by_keypoints: float
    by_pixels: float
    reference: int
    candidates: int
    agreement: float


def edited(name: str, image: np.ndarray, number: int) -> np.ndarray:
    """The edit called `name`; the same number gives the same crop, caption and colours."""
    return EDITS[name](image, np.random.default_rng([number, zlib.crc32(name.encode())]))


def tiles(image: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """count x count tiles that do not overlap, row by row."""
    height, width = image.shape[0] // count, image.shape[1] // count
    return [np.ascontiguousarray(image[y * height:(y + 1) * height, x * width:(x + 1) * width])
            for y in range(count) for x in range(count)]


def best_match(query: Keypoints, picture: np.ndarray, index: KeypointIndex, references: list[Keypoints],
               pictures: list[np.ndarray], config: GeometryConfig) -> Found:
    """What the candidates come to, by keypoints alone and after the pixels were asked."""
    candidates = index.search(query, TOP)
    by_keypoints, by_pixels, reference, highest = 0.0, 0.0, -1, 0.0
    for candidate in candidates:
        match = verify(query, references[candidate.reference], config, mirror=candidate.mirrored)
        if match is None:
            continue
        by_keypoints = max(by_keypoints, match.score)
        agreed = overlay.agreement(picture, pictures[candidate.reference], match)
        highest = max(highest, agreed)
        if agreed >= overlay.LEAST and match.score > by_pixels:
            by_pixels, reference = match.score, candidate.reference
    return Found(by_keypoints, by_pixels, reference, len(candidates), highest)


def recall(photos: list[np.ndarray], per_edit: int) -> dict[str, dict]:
    """Share of edits found, by edit: of protected photographs in the pool, and of pool photographs protected."""
    config = GeometryConfig()
    whole = [extract(photo) for photo in photos]
    index = KeypointIndex.build(whole)
    rows = {}
    for name in EDITS:
        images = [edited(name, photos[i], i) for i in range(per_edit)]
        edits = [extract(image) for image in images]
        forward = [best_match(edit, image, index, whole, photos, config) for edit, image in zip(edits, images)]
        swapped, pictures = edits + whole[per_edit:], images + photos[per_edit:]
        backward_index = KeypointIndex.build(swapped)
        backward = [best_match(whole[i], photos[i], backward_index, swapped, pictures, config)
                    for i in range(per_edit)]
        row = {"images": per_edit}
        for side, found in (("pool_edited", forward), ("protected_edited", backward)):
            right = [f.by_pixels if f.reference == i else 0.0 for i, f in enumerate(found)]
            row[side] = {"recall": float(np.mean([score > 0 for score in right])),
                         "recall_before_pixels": float(np.mean([f.by_keypoints > 0 for f in found])),
                         "score_percentiles_1_5_50": np.percentile(right, [1, 5, 50]).round(1).tolist(),
                         "lowest_agreement": min(f.agreement for f in found if f.by_keypoints),
                         "missed": [{"size": list(photos[i].shape[:2]), "keypoints": len(whole[i]),
                                     "keypoints_of_edit": len(edits[i]), "candidates": found[i].candidates}
                                    for i, score in enumerate(right) if score == 0]}
        rows[name] = row
        print(f"{name:22s} pool edited {row['pool_edited']['recall']:.3f}, "
              f"protected edited {row['protected_edited']['recall']:.3f}", flush=True)
    return rows


def innocents(others: list[np.ndarray], neighbours: list[np.ndarray],
              drawn: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(kind, image maker) of images that have no original among the protected ones."""
    for i, photo in enumerate(others):
        yield "photograph", lambda: photo
        for name in EDITS:
            yield f"edited:{name}", lambda: edited(name, photo, i)
    for photo in neighbours:
        for tile in tiles(photo)[1::2]:
            yield "neighbouring tile", lambda: tile
    for name, draw in DRAWN.items():
        for i in range(drawn):
            yield f"drawn:{name}", lambda: draw(np.random.default_rng([i, 1]))


def protected(photos: list[np.ndarray], neighbours: list[np.ndarray], drawn: int) -> Iterator[np.ndarray]:
    """Photographs, their edits and tiles, every second tile of `neighbours`, and drawings."""
    for i, photo in enumerate(photos):
        yield photo
        for name in ("crop_25", "crop_50_mirror", "border_10", "text_overlay", "rotate_10"):
            yield edited(name, photo, i)
        yield from tiles(photo)
    for photo in neighbours:
        yield from tiles(photo)[::2]
    for draw in DRAWN.values():
        for i in range(drawn):
            yield draw(np.random.default_rng([i, 0]))


def false_alarms(photos: list[np.ndarray], others: list[np.ndarray], neighbours: list[np.ndarray], drawn: int) -> dict:
    """How many innocent images have a match, by kind, with the exact 95 % interval of the rate."""
    pictures = list(protected(photos, neighbours, drawn))
    references = [extract(image) for image in pictures]
    index, config = KeypointIndex.build(references), GeometryConfig()
    loose = GeometryConfig(cells=LOOSE)
    by_keypoints: dict[str, list[float]] = {}
    by_pixels: dict[str, list[float]] = {}
    verified, worst = 0, []
    for number, (kind, make) in enumerate(innocents(others, neighbours, drawn)):
        image = make()
        found = best_match(extract(image), image, index, references, pictures, loose)
        by_keypoints.setdefault(kind, []).append(found.by_keypoints)
        by_pixels.setdefault(kind, []).append(found.by_pixels)
        verified += found.candidates
        if found.by_keypoints:
            worst.append((found.by_pixels, found.by_keypoints, round(found.agreement, 3), kind, number))
    count = sum(map(len, by_keypoints.values()))
    result = {"protected": len(references), "innocent": count, "pairs": count * len(references),
              "verified_per_image": verified / count, "threshold": config.cells,
              "worst": sorted(worst, reverse=True)[:30]}
    for name, scores in (("by_keypoints", by_keypoints), ("by_pixels", by_pixels)):
        everything = np.concatenate([np.array(values) for values in scores.values()])
        photographic = np.concatenate([np.array(v) for kind, v in scores.items() if not kind.startswith("drawn")])
        result[name] = {
            "histogram": {int(s): int(n) for s, n in zip(*np.unique(everything, return_counts=True))},
            "all": alarms(everything, config.cells), "photographic": alarms(photographic, config.cells),
            "kinds": {kind: alarms(np.array(values), config.cells) for kind, values in scores.items()}}
        print(f"{name}: {result[name]['all']} against {len(references)}; photographic {result[name]['photographic']}")
        for kind, row in result[name]["kinds"].items():
            if row["highest"]:
                print(f"  {kind:30s} {row['alarms']:4d} of {row['images']:5d}, highest {row['highest']:.0f}")
    return result


def alarms(scores: np.ndarray, threshold: float) -> dict:
    """Count of scores at or above the threshold, and the Clopper-Pearson 95 % interval of their rate."""
    from scipy.stats import beta

    count, alarms = len(scores), int((scores >= threshold).sum())
    low = beta.ppf(0.025, alarms, count - alarms + 1) if alarms else 0.0
    high = beta.ppf(0.975, alarms + 1, count - alarms) if alarms < count else 1.0
    return {"images": count, "alarms": alarms, "rate": alarms / count, "low": float(low), "high": float(high),
            "highest": float(scores.max())}


def milliseconds(work: Callable, items: list) -> float:
    """Mean processor time of one item."""
    work(items[0])
    started = time.process_time()
    for item in items:
        work(item)
    return 1e3 * (time.process_time() - started) / len(items)


def cost(photos: list[np.ndarray], others: list[np.ndarray], sizes: list[int]) -> dict:
    """Milliseconds by stage for innocent photographs, and search against ever more protected images."""
    queries = [extract(photo) for photo in others]
    real = [extract(photo) for photo in photos]
    numbers = list(range(min(len(queries), len(real))))
    side, index = KeypointConfig().side, KeypointIndex.build(real)
    stages = {
        "working_image": milliseconds(lambda photo: working_image(photo, side), others),
        "extract": milliseconds(extract, others),
        "search": milliseconds(lambda query: index.search(query, TOP), queries),
        "search_and_verify": milliseconds(
            lambda i: best_match(queries[i], others[i], index, real, photos, GeometryConfig()), numbers),
        "verify_one_candidate": milliseconds(lambda i: verify(queries[i], real[i % len(real)], mirror=False), numbers),
        "verify_a_copy": milliseconds(lambda i: verify(real[i], real[i], mirror=False), numbers),
        "agreement_of_a_copy": milliseconds(
            lambda i: overlay.agreement(photos[i], photos[i], verify(real[i], real[i], mirror=False)), numbers[:30]),
    }
    print({name: round(value, 2) for name, value in stages.items()}, flush=True)
    curve = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            store = KeypointStore.write(Path(folder) / "store", noisy(real, size))
            started = time.process_time()
            KeypointIndex.build(store).write(Path(folder) / "index")
            built = time.process_time() - started
            index = KeypointIndex.open(Path(folder) / "index", IndexConfig())
            found = [index.search(query, TOP) for query in queries]
            bytes_of = {name: sum(f.stat().st_size for f in (Path(folder) / name).iterdir()) for name in
                        ("store", "index")}
            curve.append({
                "protected": size, "descriptors": int(len(index.owners)), "build_s": built,
                "search_ms": milliseconds(lambda query: index.search(query, TOP), queries),
                "candidates_per_image": float(np.mean([len(f) for f in found])),
                **{f"{name}_kib_per_image": value / size / 1024 for name, value in bytes_of.items()}})
            print(curve[-1], flush=True)
    return {"stages_ms": stages, "scaling": curve}


def noisy(real: list[Keypoints], count: int) -> Iterator[Keypoints]:
    """`count` made-up images: each keypoint is a mean of two real ones of different images, with noise."""
    rng = np.random.default_rng(0)
    pool = np.concatenate([image.descriptors for image in real])
    for i in range(count):
        image = real[i % len(real)]
        partner = pool[rng.integers(0, len(pool), len(image))].astype(np.float32)
        share = rng.uniform(0.1, 0.5, (len(image), 1)).astype(np.float32)
        mixed = np.sqrt((1 - share) * image.descriptors.astype(np.float32)**2 + share * partner**2)
        mixed += rng.normal(0, 4, mixed.shape)
        yield Keypoints(image.points, image.sizes, image.angles, np.clip(mixed, 0, 255).astype(np.uint8), image.width,
                        image.height)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, nargs="+", required=True, help="folders of photographs, all different")
    parser.add_argument("--limit", type=int, help="photographs used (all)")
    parser.add_argument("--per-edit", type=int, default=120, help="photographs for each edit")
    parser.add_argument("--drawn", type=int, default=30, help="drawings of each kind, protected and innocent")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 50_000], help="protected images (cost)")
    parser.add_argument("--parts", nargs="+", default=["recall", "innocent", "cost"],
                        choices=["recall", "innocent", "cost"])
    parser.add_argument("--output", type=Path, help="JSON; benchmarks/results by default")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    files = sorted(f for folder in args.photos for f in folder.rglob("*")
                   if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    order = np.random.default_rng(0).permutation(len(files))[:args.limit]
    photos = [pixels.read(str(files[i])) for i in order]
    third = len(photos) // 3
    if third < 1:
        parser.error(f"--photos: expected at least 3 photographs, found {len(photos)}")
    mine, others, neighbours = photos[:third], photos[third:2 * third], photos[2 * third:]
    result = {"environment": environment(), "photographs": len(photos)}
    if "recall" in args.parts:
        result["recall"] = recall(mine, min(args.per_edit, third))
    if "innocent" in args.parts:
        result["false_alarms"] = false_alarms(mine, others, neighbours, args.drawn)
    if "cost" in args.parts:
        result["cost"] = cost(mine, others[:100], args.sizes)
    target = args.output or result_path("near_duplicates")
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
