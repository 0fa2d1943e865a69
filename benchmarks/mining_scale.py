"""What mining costs and how the cost grows: images/s and memory by stage, to 50,000 protected images and 10^6 scores.

    python benchmarks/mining_scale.py --photos FOLDER [--protected 50000] [--only dedup score listing select within]

dedup     whole: read, decode, compare. The pool: half of the photographs; the protected set: crops of the other half.
score     images/s of the stage against the teacher's engine alone on prepared batches, in turns.
memory    resident memory of dedup with the pool four times as large (links to the same photographs).
listing, select, within   their pure parts on synthetic names, scores and hashes, 10^3 to 10^6.
Seconds are processor seconds of the work, so that a second program shows less; ratios are of runs in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import environment, result_path  # noqa: E402

SIZES = (1_000, 10_000, 100_000, 1_000_000)
PARTS = ("listing", "select", "within", "score", "dedup", "memory")


class Meter:
    """Processor and wall seconds of its block, children included."""

    def __enter__(self) -> Meter:
        self._cpu, self._wall = _cpu(), time.perf_counter()
        return self

    def __exit__(self, *_) -> None:
        self.cpu, self.wall = _cpu() - self._cpu, time.perf_counter() - self._wall


def _cpu() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def photographs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpeg", ".jpg"))


def make_protected(photos: list[Path], count: int, folder: Path) -> None:
    """`count` crops of the photographs, 40 to 100 % of each side, as JPEG."""
    if len(list(folder.glob("*.jpg"))) == count:
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    each = -(-count // len(photos))
    for i in range(count):
        if i % each == 0:
            image = cv2.imread(str(photos[i // each]))
            scale = min(1.0, 500 / max(image.shape[:2]))
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        h, w = (int(n * rng.uniform(0.4, 1)) for n in image.shape[:2])
        y, x = (int(rng.integers(0, n - m + 1)) for n, m in zip(image.shape[:2], (h, w)))
        cv2.imwrite(str(folder / f"{i:06d}.jpg"), image[y:y + h, x:x + w])


def mine(*arguments: str) -> float:
    """Run the miner in a process of its own; its peak resident memory in MiB."""
    code = ("import resource, sys; from ppcls_ssld.cli.main import main; code = main(sys.argv[1:]); "
            "print('PEAK', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", code, "mine", *arguments], text=True, stdout=subprocess.PIPE,
                          check=True, cwd=Path(__file__).resolve().parent.parent,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    return int(done.stdout.split("PEAK ")[1]) / 1024


def measure_dedup(photos: list[Path], count: int, output: Path) -> dict:
    half = len(photos) // 2
    protected = output / f"protected_{count}"
    make_protected(photos[half:], count, protected)
    pool = output / "pool.txt"
    pool.write_text("".join(f"{path.absolute()}\n" for path in photos[:half]))
    folder = output / f"dedup_{count}"
    common = ("dedup", "--protect", str(protected), "--output", str(folder), "--workers", "0")
    few = output / "few.txt"
    few.write_text(f"{photos[0].absolute()}\n")
    if not (folder / "protected" / "protected.json").exists():
        with Meter() as making:
            mine(*common, "--pool", str(few))
    rounds = []
    for _ in range(3):  # one image first: what starting and opening the indexes costs is no part of the rate
        with Meter() as small:
            fresh(folder)
            mine(*common, "--pool", str(few))
        with Meter() as large:
            fresh(folder)
            peak = mine(*common, "--pool", str(pool))
        rounds.append((half - 1) / (large.cpu - small.cpu))
    size = sum(f.stat().st_size for f in (folder / "protected").rglob("*") if f.is_file() and "parts-" not in str(f))
    return {"protected": count, "pool": half, "images_per_cpu_second": statistics.median(rounds), "rounds": rounds,
            "protecting_images_per_cpu_second": count / making.cpu if "making" in locals() else None,
            "peak_mib": peak, "protected_files_mib": size / 2**20}


def fresh(folder: Path) -> None:
    """Forget what was done to the pool, keep the protected set."""
    shutil.rmtree(folder / "dedup", ignore_errors=True)
    for name in ("pool.arrow", "pool.json"):
        (folder / "listing" / name).unlink(missing_ok=True)


def measure_memory(photos: list[Path], count: int, output: Path) -> list[dict]:
    """Peak memory of dedup by the pool's size."""
    half, rows = len(photos) // 2, []
    for times in (1, 4):
        pool = output / f"links_{times}"
        for k in range(times):
            (pool / str(k)).mkdir(parents=True, exist_ok=True)
            for path in photos[:half]:
                link = pool / str(k) / path.name
                if not link.exists():
                    os.symlink(path.absolute(), link)
        folder = output / f"dedup_{count}"
        fresh(folder)
        peak = mine("dedup", "--protect", str(output / f"protected_{count}"), "--output", str(folder), "--workers", "0",
                    "--pool", str(pool))
        rows.append({"pool": times * half, "peak_mib": peak})
    fresh(folder)
    return rows


def measure_score(photos: list[Path], output: Path, teacher: str, pairs: int) -> dict:
    """The stage's images/s over those of the engine alone, in turns. One thread for the engine, one process that reads."""
    import paddle

    from ppcls_ssld.arch import build_network
    from ppcls_ssld.config.mine import PoolSource, load_mine
    from ppcls_ssld.config.schema import NetworkConfig
    from ppcls_ssld.mining.listing import Listing, write_listing
    from ppcls_ssld.mining.score import load_teacher, score_blocks, score_settings

    weights = output / f"{teacher}.pdparams"
    paddle.seed(0)
    paddle.save(build_network(NetworkConfig("Teacher", teacher), 1000).state_dict(), str(weights))
    config = load_mine(None, (), {"Mine": {"output_dir": str(output), "pool": ["x"]},
                                  "Teacher": {"name": teacher, "pretrained": str(weights), "class_num": 1000}})
    network = load_teacher(config, 1000)
    write_listing([PoolSource(str(p.absolute())) for p in photos[:256]], output / "score.arrow")
    listing = Listing.open(output / "score.arrow")
    batch = np.random.default_rng(0).standard_normal((64, 3, 224, 224)).astype(np.float32)
    positions = np.arange(len(listing))
    settings = score_settings(config)
    ids = np.zeros(len(positions), "V16")
    rows = []
    for _ in range(pairs + 1):
        began = time.perf_counter()
        for _ in range(len(positions) // 64):
            network(batch, None).numpy()
        alone = len(positions) / (time.perf_counter() - began)
        began = time.perf_counter()
        score_blocks(config, listing, {0: (positions, ids)}, network, output / "scores", settings, 1,
                     lambda block: None)
        rows.append((len(positions) / (time.perf_counter() - began), alone))
    rows = rows[1:]  # the first pair warms up
    ratios = [stage / alone for stage, alone in rows]
    return {"teacher": teacher, "size": 224, "images": len(positions), "stage_images_per_s": [r[0] for r in rows],
            "engine_images_per_s": [r[1] for r in rows], "ratio_median": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}


def measure_listing() -> list[dict]:
    from ppcls_ssld.config.mine import PoolSource
    from ppcls_ssld.mining.listing import write_listing

    rows = []
    for n in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            names = Path(folder) / "names.txt"
            order = np.random.default_rng(0).permutation(n)
            names.write_text("".join(f"n{i % 1000:08d}/image_{i:09d}.jpg\n" for i in order.tolist()))
            with Meter() as meter:
                write_listing([PoolSource(str(names))], Path(folder) / "pool.arrow")
            rows.append({"names": n, "cpu_s": meter.cpu,
                         "file_mib": (Path(folder) / "pool.arrow").stat().st_size / 2**20})
    return rows


def measure_select() -> list[dict]:
    """Top 100 of 1,000 classes, one class an image, blocks of 1,024."""
    from ppcls_ssld.mining.select import Selector

    rng, rows = np.random.default_rng(0), []
    for n in SIZES:
        selector = Selector(1000, 100)
        blocks = [(rng.integers(0, 1000, (1024, 1), dtype=np.int32), rng.random((1024, 1)), rng.bytes(16 * 1024))
                  for _ in range(min(64, -(-n // 1024)))]
        with Meter() as meter:
            for i in range(-(-n // 1024)):
                classes, scores, ids = blocks[i % len(blocks)]
                selector.add(classes, scores, np.frombuffer(ids, "V16"), np.arange(i * 1024, (i + 1) * 1024))
            selector.result()
        rows.append({"scores": n, "cpu_s": meter.cpu, "per_s": n / meter.cpu})
    return rows


def measure_within() -> list[dict]:
    """Pairs of near hashes inside a pool of random ones, every hundredth a near-copy."""
    from ppcls_ssld.mining.fingerprint import HashIndex

    rng, rows = np.random.default_rng(0), []
    for n in SIZES:
        hashes = rng.integers(1, 2**63, n, dtype=np.uint64)
        hashes[::100] = hashes[1::100][:len(hashes[::100])] ^ np.uint64(5)
        with Meter() as meter:
            index, pairs = HashIndex(hashes, 6), 0
            for start in range(0, n, 1 << 14):
                pairs += int((index.within(hashes[start:start + (1 << 14)])[2] > 0).sum())
        rows.append({"hashes": n, "cpu_s": meter.cpu, "pairs_found": pairs // 2})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--protected", type=int, nargs="+", default=[1_000, 10_000, 50_000])
    parser.add_argument("--teacher", default="ResNet50_vd")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path("output/mining_scale"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    args.output.mkdir(parents=True, exist_ok=True)
    args.output = args.output.resolve()
    photos = photographs(args.photos)
    found: dict[str, object] = {}
    if "listing" in args.only:
        found["listing"] = measure_listing()
    if "select" in args.only:
        found["select"] = measure_select()
    if "within" in args.only:
        found["within"] = measure_within()
    if "score" in args.only:
        found["score"] = measure_score(photos, args.output, args.teacher, args.pairs)
    if "dedup" in args.only:
        found["dedup"] = [measure_dedup(photos, count, args.output) for count in args.protected]
    if "memory" in args.only:
        found["memory"] = measure_memory(photos, min(args.protected), args.output)
    report = {"what": "cost of mining by stage and size", "photos": len(photos), **found, "environment": environment()}
    print(json.dumps(report, indent=1))
    path = result_path("mining_scale")
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")


if __name__ == "__main__":
    main()
