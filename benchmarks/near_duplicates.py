"""How many edits does `mine dedup` find, how many innocent images does it accuse, and what do keypoints cost?

    python benchmarks/near_duplicates.py --photos FOLDER [FOLDER...]

The miner itself runs, on files (JPEG, quality 95). The photographs (one in each file, all different) are split in
three. `recall`: the first third is protected and its edits are the pool; then the other way round, photographs are the
pool and one edit of each is protected. `innocent` asks for images whose original is not protected: the second third,
whole, in tiles, and edited like the protected ones (same crop, same caption); tiles of the last third whose neighbours
are protected; drawn flags, gradients, text pages, grids. `cost` gives milliseconds on one core for each stage of the
keypoints, and memory and search time for up to 50,000 protected images, made up from real descriptors.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks.drawn import DRAWN  # noqa: E402
from benchmarks.edits import EDITS  # noqa: E402
from benchmarks.environment import environment, result_path  # noqa: E402
from ppcls_ssld.config.mine import load_mine  # noqa: E402
from ppcls_ssld.data import pixels  # noqa: E402
from ppcls_ssld.mining import overlay  # noqa: E402
from ppcls_ssld.mining.calibrate import bounds  # noqa: E402
from ppcls_ssld.mining.geometry import verify  # noqa: E402
from ppcls_ssld.mining.keypoint_index import IndexConfig, KeypointIndex, KeypointStore  # noqa: E402
from ppcls_ssld.mining.keypoints import KeypointConfig, extract, working_image  # noqa: E402
from ppcls_ssld.mining.run import mine  # noqa: E402
from ppcls_ssld.mining.store import parts, read_part  # noqa: E402
from ppcls_ssld.mining.types import Keypoints  # noqa: E402

TOP = 5
HARD = ["crop_25", "crop_25_mirror"]  # misses are to be expected here, so more photographs are tried
QUALITY = [cv2.IMWRITE_JPEG_QUALITY, 95]
COLUMNS = ("name", "status", "stage", "protected", "score")


def edited(name: str, image: np.ndarray, number: int) -> np.ndarray:
    """The edit called `name`; the same number gives the same crop, caption and colours."""
    return EDITS[name](image, np.random.default_rng([number, zlib.crc32(name.encode())]))


def tiles(image: np.ndarray, count: int = 3) -> list[np.ndarray]:
    """count x count tiles that do not overlap, row by row."""
    height, width = image.shape[0] // count, image.shape[1] // count
    return [np.ascontiguousarray(image[y * height:(y + 1) * height, x * width:(x + 1) * width])
            for y in range(count) for x in range(count)]


def dedup(folder: Path, pool: dict[str, Callable[[], np.ndarray]], protected: dict[str, Callable[[], np.ndarray]],
          workers: int) -> dict[str, dict]:
    """Rows of the miner's dedup by pool name; both sides are written as JPEG first. Written and done only once."""
    for side, images in (("pool", pool), ("protected", protected)):
        target = folder / side
        if not target.exists():
            (part := folder / f"{side}.part").mkdir(parents=True, exist_ok=True)
            for name, make in images.items():
                cv2.imwrite(str(part / f"{name}.jpg"), cv2.cvtColor(make(), cv2.COLOR_RGB2BGR), QUALITY)
            part.rename(target)
    config = load_mine(None, (), {"Mine": {"pool": [str(folder / "pool")], "protect": [str(folder / "protected")],
                                           "output_dir": str(folder / "mined"), "num_workers": workers}})
    mine(config, ["dedup"])
    rows = (dict(zip(part, values)) for block in parts(folder / "mined" / "dedup")
            for part in [read_part(folder / "mined" / "dedup", block, "dedup", columns=COLUMNS)]
            for values in zip(*part.values()))
    return {Path(row["name"]).stem: {**row, "protected": Path(row["protected"]).stem} for row in rows}


def recall(photos: list[np.ndarray], kept: int, per_edit: int, folder: Path, workers: int) -> dict[str, dict]:
    """Share of edits removed for the right photograph, by edit, when the first `kept` photographs are protected; and of
    photographs whose edit is protected, one edit of each, small crops more often than others."""
    pool = {f"{i:04d}-{name}": partial(edited, name, photos[i], i)
            for name in EDITS for i in range(kept if name in HARD else per_edit)}
    whole = {f"{i:04d}": partial(np.asarray, photo) for i, photo in enumerate(photos)}
    forward = dedup(folder / "forward", pool, dict(list(whole.items())[:kept]), workers)
    names = [*EDITS, *HARD * 4]
    one_each = {f"{i:04d}-{names[i % len(names)]}": partial(edited, names[i % len(names)], photo, i)
                for i, photo in enumerate(photos)}
    backward = dedup(folder / "backward", whole, one_each, workers)
    found: dict[str, dict[str, list[tuple[bool, str]]]] = {name: {"pool": [], "protected": []} for name in EDITS}
    for stem, row in forward.items():
        number, name = stem.split("-")
        found[name]["pool"].append((row["status"] == "removed" and row["protected"] == number, row["stage"]))
    for stem, row in backward.items():
        right = row["status"] == "removed" and row["protected"].split("-")[0] == stem
        found[names[int(stem) % len(names)]]["protected"].append((right, row["stage"]))
    rows = {}
    for name, sides in found.items():
        rows[name] = {f"{side}_edited": {
            "images": len(hits), "found": sum(hit for hit, _ in hits),
            "recall": float(np.mean([hit for hit, _ in hits])),
            "by_stage": dict(Counter(stage for hit, stage in hits if hit))} for side, hits in sides.items()}
        print(name, rows[name], flush=True)
    return rows


def innocents(others: list[np.ndarray], neighbours: list[np.ndarray],
              drawn: int) -> Iterator[tuple[str, Callable[[], np.ndarray]]]:
    """(kind, image maker) of images that have no original among the protected ones."""
    for i, photo in enumerate(others):
        yield "photograph", partial(np.asarray, photo)
        for name in EDITS:
            yield f"edited:{name}", partial(edited, name, photo, i)
        for tile in tiles(photo):
            yield "tile", partial(np.asarray, tile)
    for photo in neighbours:
        for tile in tiles(photo)[1::2]:
            yield "neighbouring tile", partial(np.asarray, tile)
    for name, draw in DRAWN.items():
        for i in range(drawn):
            yield f"drawn:{name}", partial(draw, np.random.default_rng([i, 1]))


def protected(photos: list[np.ndarray], neighbours: list[np.ndarray],
              drawn: int) -> Iterator[Callable[[], np.ndarray]]:
    """Makers of photographs, their edits and tiles, every second tile of `neighbours`, and drawings."""
    for i, photo in enumerate(photos):
        yield partial(np.asarray, photo)
        for name in ("crop_25", "crop_50_mirror", "border_10", "text_overlay", "rotate_10"):
            yield partial(edited, name, photo, i)
        yield from (partial(np.asarray, tile) for tile in tiles(photo))
    for photo in neighbours:
        yield from (partial(np.asarray, tile) for tile in tiles(photo)[::2])
    for draw in DRAWN.values():
        for i in range(drawn):
            yield partial(draw, np.random.default_rng([i, 0]))


def false_alarms(photos: list[np.ndarray], others: list[np.ndarray], neighbours: list[np.ndarray], drawn: int,
                 folder: Path, workers: int) -> dict:
    """How many innocent images are removed, by kind, with the exact 95 % interval of the rate."""
    pool = {f"{number:05d}-{kind.replace(' ', '_').replace(':', '-')}": make
            for number, (kind, make) in enumerate(innocents(others, neighbours, drawn))}
    known = {f"{i:05d}": make for i, make in enumerate(protected(photos, neighbours, drawn))}
    rows = dedup(folder / "innocent", pool, known, workers)
    kinds: dict[str, list[bool]] = {}
    for stem, row in rows.items():
        kinds.setdefault(stem.split("-", 1)[1], []).append(row["status"] == "removed")
    count = len(list((folder / "innocent" / "protected").iterdir()))
    result = {
        "protected": count, "innocent": len(rows), "pairs": count * len(rows),
        "photographic": alarms([hit for kind, hits in kinds.items() if not kind.startswith("drawn") for hit in hits]),
        "drawn": alarms([hit for kind, hits in kinds.items() if kind.startswith("drawn") for hit in hits]),
        "kinds": {kind: alarms(hits) for kind, hits in kinds.items()},
        "worst": sorted(([row["stage"], round(float(row["score"]), 3), row["status"], stem, row["protected"]]
                         for stem, row in rows.items() if row["stage"]),
                        key=lambda row: (row[2] != "removed", -row[1]))[:40]}
    print({key: result[key] for key in ("protected", "innocent", "photographic", "drawn")}, flush=True)
    return result


def alarms(hits: list[bool]) -> dict:
    """Count of false alarms, and the Clopper-Pearson 95 % interval of their rate."""
    low, high = bounds(sum(hits), len(hits))
    return {"images": len(hits), "alarms": sum(hits), "rate": sum(hits) / len(hits), "low": low, "high": high}


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
    parser.add_argument("--per-edit", type=int, default=120,
                        help="photographs for each edit; crops of 25 %% take all of the first third")
    parser.add_argument("--drawn", type=int, default=30, help="drawings of each kind, protected and innocent")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 10_000, 50_000], help="protected images (cost)")
    parser.add_argument("--parts", nargs="+", default=["recall", "innocent", "cost"],
                        choices=["recall", "innocent", "cost"])
    parser.add_argument("--workers", type=int, default=0, help="processes of the miner beside this one")
    parser.add_argument("--work", type=Path, default=Path("output/near_duplicates"),
                        help="images and results of the miner")
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
    protected_photos, others, neighbours = photos[:third], photos[third:2 * third], photos[2 * third:]
    result = {"environment": environment(), "photographs": len(photos)}
    if "recall" in args.parts:
        result["recall"] = recall(photos, third, min(args.per_edit, third), args.work, args.workers)
    if "innocent" in args.parts:
        result["false_alarms"] = false_alarms(protected_photos, others, neighbours, args.drawn, args.work,
                                              args.workers)
    if "cost" in args.parts:
        result["cost"] = cost(protected_photos, others[:100], args.sizes)
    target = args.output or result_path("near_duplicates")
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(target)


if __name__ == "__main__":
    main()
