"""Near-duplicates between CIFAR-10's train and test images, by the stages that work at 32x32 pixels.

    python benchmarks/cifar10_duplicates.py --data data/cifar10 [--limit 5000] [--edits 1000] [--sheets FOLDER]

The train images are the pool, the test images are protected. What is measured: how many pairs each stage finds and at
what score; the share of planted edits of test images that is found, edited image in the pool and edited image
protected; the share of handwritten digits, all of them distinct, that is taken for a copy; processor time per pool
image, also against 50,000 references. How many of the pairs found are copies (the same photograph, or one of the same
moment) was judged by eye: cifar10_judged.json holds each judged pair; --sheets draws random pairs of each band.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.environment import ROOT, environment, result_path  # noqa: E402
from ppcls_ssld.data import pixels  # noqa: E402
from ppcls_ssld.mining import alignment, fingerprint  # noqa: E402
from ppcls_ssld.mining.thumbnails import ThumbnailIndex, thumbnail  # noqa: E402

BANDS = (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
HASH_BITS, TOP, BLOCK = 6, 6, 1024
JUDGED = Path(__file__).with_name("cifar10_judged.json")
CONFIG = alignment.AlignmentConfig()


def resized(image: np.ndarray, side: int) -> np.ndarray:
    enlarge = cv2.INTER_CUBIC if len(image) < side else cv2.INTER_AREA
    return cv2.resize(image, (side, side), interpolation=enlarge)


def crop(area: float):
    def apply(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        large, side = resized(image, 256), round(256 * area ** 0.5)
        left, top = rng.integers(0, 257 - side, 2)
        return resized(np.ascontiguousarray(large[top:top + side, left:left + side]), 32)
    return apply


def border(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    colour = [int(v) for v in rng.integers(0, 256, 3)]
    return resized(cv2.copyMakeBorder(resized(image, 256), 26, 26, 26, 26, cv2.BORDER_CONSTANT, value=colour), 32)


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    right, down = rng.choice([[2, 0], [-2, 0], [0, 2], [0, -2], [2, 2], [-2, 2], [2, -2], [-2, -2]])
    return cv2.warpAffine(image, np.float32([[1, 0, right], [0, 1, down]]), (32, 32), borderMode=cv2.BORDER_REPLICATE)


def rotation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    turn = cv2.getRotationMatrix2D((15.5, 15.5), float(rng.choice([-10, 10])), 1)
    return cv2.warpAffine(image, turn, (32, 32), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def text(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return cv2.putText(image.copy(), "copy", (1, 30), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 255))


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1]
    return pixels.decode(encoded.tobytes(), "jpeg")


EDITS = {  # of 32x32 images; benchmarks/edits.py holds those of photographs
    "jpeg q40": jpeg,
    "half size": lambda i, rng: resized(resized(i, 16), 32),
    "brighter x1.3 + 20": lambda i, rng: np.clip(i * 1.3 + 20, 0, 255).astype(np.uint8),
    "darker x0.6": lambda i, rng: (i * 0.6).astype(np.uint8),
    "grey": lambda i, rng: cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "mirror": lambda i, rng: np.ascontiguousarray(i[:, ::-1]),
    "shift by 2 pixels": shift,
    "10 % border": border,
    "crop of 80 %": crop(0.8),
    "mirrored crop of 80 %": lambda i, rng: np.ascontiguousarray(crop(0.8)(i, rng)[:, ::-1]),
    "crop of 50 %": crop(0.5),
    "rotation by 10 degrees": rotation,
    "text over a third": text,
}


def read(data: Path, name: str, limit: int | None) -> tuple[list[str], np.ndarray]:
    names = [line.rpartition(" ")[0] for line in (data / f"{name}_list.txt").read_text().splitlines()][:limit]
    return names, np.stack([thumbnail(pixels.read(str(data / n))) for n in names])


class Protected:
    """The stages of the cascade that look at whole images, against one protected set."""

    def __init__(self, thumbnails: np.ndarray):
        self.thumbnails, self.index = thumbnails, ThumbnailIndex(thumbnails)
        hashes = [fingerprint.perceptual_hash(t) for t in thumbnails]
        self.hashed = np.array([i for i, h in enumerate(hashes) if h is not None])
        self.hash_index = fingerprint.HashIndex(np.array([h for h in hashes if h is not None]), HASH_BITS)
        self.digests = {fingerprint.pixel_digest(t) for t in thumbnails}
        self.seconds = {"pixels and hash": 0.0, "search": 0.0, "alignment": 0.0}
        self.aligned = 0

    def look(self, pool: np.ndarray, without: np.ndarray | None = None) -> list[dict]:
        """Per pool image: its best match's stage, reference, score (-1: none) and mirror; and all that it is a copy of.

        without: per pool image a reference that is not looked at.
        """
        found = []
        for start in range(0, len(pool), BLOCK):
            block, clock = pool[start:start + BLOCK], time.process_time()
            same = [fingerprint.pixel_digest(image) in self.digests for image in block]
            hashes = [fingerprint.perceptual_hash(image) for image in block]
            near = [self._near(h) for h in hashes]
            clock = _spent(clock, self.seconds, "pixels and hash")
            ids, _ = self.index.search(block, TOP)
            clock = _spent(clock, self.seconds, "search")
            for i, image in enumerate(block):
                wanted = list(dict.fromkeys([*near[i][:TOP], *ids[i][ids[i] >= 0].tolist()]))
                if without is not None:
                    wanted = [w for w in wanted if w != without[start + i]]
                matches = alignment.best_each(image, self.thumbnails[wanted], CONFIG)
                self.aligned += len(wanted)
                score, which = max(((m.score, w) for m, w in zip(matches, wanted) if m), default=(-1.0, -1))
                stage = "pixels" if same[i] else "hash" if which in near[i] else "thumbnail"
                mirrored = any(m is not None and m.mirrored for m, w in zip(matches, wanted) if w == which)
                found.append({"query": start + i, "reference": int(which), "score": score, "stage": stage,
                              "mirrored": mirrored,
                              "copies of": {w for m, w in zip(matches, wanted) if m and m.score >= CONFIG.min_score}})
            _spent(clock, self.seconds, "alignment")
        return found

    def _near(self, value: np.uint64 | None) -> list[int]:
        if value is None or not len(self.hashed):
            return []
        both = np.array([value, fingerprint.mirrored(value)], np.uint64)
        _, found, bits = self.hash_index.within(both)
        return self.hashed[found[np.argsort(bits, kind="stable")]].tolist()


def _spent(since: float, seconds: dict[str, float], stage: str) -> float:
    now = time.process_time()
    seconds[stage] += now - since
    return now


def recall(edited: np.ndarray, ids: np.ndarray, protected: Protected) -> float:
    """Share of edited images whose own original is found."""
    found = protected.look(edited)
    return float(np.mean([i in f["copies of"] for f, i in zip(found, ids)]))


def planted(test: np.ndarray, protected: Protected, count: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(0)
    ids = rng.permutation(len(test))[:count]
    result = {}
    for name, edit in EDITS.items():
        edited = np.stack([edit(test[i], rng) for i in ids])
        turned = test.copy()
        turned[ids] = edited
        result[name] = {"pool image edited": recall(edited, ids, protected),
                        "protected image edited": recall(test[ids], ids, Protected(turned))}
        print(f"{name:24s} {result[name]}", flush=True)
    return result


def digits() -> dict[str, object]:
    """Handwritten digits, no two the same: each against all others."""
    shapes = load_digits().images
    images = np.stack([cv2.cvtColor(resized((d * 15.9).astype(np.uint8), 32), cv2.COLOR_GRAY2RGB) for d in shapes])
    scores = np.array([f["score"] for f in Protected(images).look(images, without=np.arange(len(images)))])
    alarms = int((scores >= CONFIG.min_score).sum())
    return {"images": len(images), "taken for copies": alarms, "rate": alarms / len(images),
            "score that 1 in 1000 reaches": float(np.quantile(scores, 0.999))}


def search_cost(train: np.ndarray) -> dict[int, float]:
    """Processor milliseconds of `ThumbnailIndex.search` per pool image, by the number of references."""
    result = {}
    for count in (1_000, 10_000, 50_000):
        if count <= len(train):
            index, clock = ThumbnailIndex(train[:count]), time.process_time()
            index.search(train[:BLOCK], TOP)
            result[count] = (time.process_time() - clock) / BLOCK * 1000
    return result


def sheet(pairs: list[tuple[np.ndarray, np.ndarray, str]], columns: int = 10) -> np.ndarray:
    """uint8 BGR contact sheet of pool image, protected image and a caption."""
    tiles = []
    for one, two, caption in pairs:
        tile = np.full((78, 134, 3), 255, np.uint8)
        tile[:64, :128] = cv2.resize(np.hstack([one, two]), (128, 64), interpolation=cv2.INTER_CUBIC)
        cv2.putText(tile, caption, (2, 75), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (0, 0, 0), 1, cv2.LINE_AA)
        tiles.append(tile)
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[i:i + columns]) for i in range(0, len(tiles), columns)])[:, :, ::-1]


def sample(found: list[dict], low: float, high: float, count: int) -> list[dict]:
    """A random `count` of those in [low, high), best first; the same every time."""
    inside = [f for f in found if low <= f["score"] < high]
    order = np.random.default_rng(0).permutation(len(inside))[:count]
    return sorted((inside[i] for i in order), key=lambda f: -f["score"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train_list.txt and test_list.txt")
    parser.add_argument("--limit", type=int, help="only so many train images")
    parser.add_argument("--edits", type=int, default=1000, help="test images per planted edit (0: none)")
    parser.add_argument("--sheets", type=Path, help="folder for contact sheets of each band of scores")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "images" / "cifar10_duplicates.png")
    args = parser.parse_args()
    cv2.setNumThreads(1)

    (train_names, train), (test_names, test) = read(args.data, "train", args.limit), read(args.data, "test", None)
    protected = Protected(test)
    found = protected.look(train)
    seconds = dict(protected.seconds)
    flagged = [f for f in found if f["score"] >= CONFIG.min_score]
    judged = json.loads(JUDGED.read_text()) if JUDGED.exists() else {}
    bands = {}
    for low, high in zip(BANDS, BANDS[1:]):
        inside = [f for f in found if low <= f["score"] < high]
        seen = [judged[key] for f in inside
                if (key := f"{train_names[f['query']]} {test_names[f['reference']]}") in judged]
        bands[f"{low}-{high}"] = {"pairs": len(inside), "judged": len(seen), "copies": sum(seen)}
    result = {
        "environment": environment(), "pool": len(train), "protected": len(test), "threshold": CONFIG.min_score,
        "flagged": len(flagged), "protected images with a copy": len({f["reference"] for f in flagged}),
        "mirrored": sum(f["mirrored"] for f in flagged),
        "by stage": {stage: sum(f["stage"] == stage for f in flagged) for stage in ("pixels", "hash", "thumbnail")},
        "by score": bands, "alignments per pool image": protected.aligned / len(train),
        "processor ms per pool image": {k: v / len(train) * 1000 for k, v in seconds.items()},
        "search ms by references": search_cost(train), "handwritten digits": digits(),
    }
    print(json.dumps({k: v for k, v in result.items() if k != "environment"}, indent=1), flush=True)
    if args.edits:
        result["planted edits found"] = planted(test, protected, args.edits)
    path = result_path("cifar10_duplicates")
    path.write_text(json.dumps(result, indent=1) + "\n")

    def pictured(chosen: list[dict]) -> np.ndarray:
        return sheet([(train[f["query"]][:, ::-1] if f["mirrored"] else train[f["query"]], test[f["reference"]],
                       f"{f['score']:.2f}") for f in chosen])

    bounds = ((0.8, 1.01), (CONFIG.min_score, 0.8), (0.4, CONFIG.min_score))
    shown = [f for low, high in bounds for f in sample(found, low, high, 10)]
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(np.ascontiguousarray(pictured(shown)[:, :, ::-1])).quantize(192)  # a third of the size
    small.save(args.picture, optimize=True)
    if args.sheets:
        args.sheets.mkdir(parents=True, exist_ok=True)
        for low, high in zip(BANDS, BANDS[1:]):
            if chosen := sample(found, low, high, 120):
                cv2.imwrite(str(args.sheets / f"{low}-{high}.png"), pictured(chosen))
                (args.sheets / f"{low}-{high}.txt").write_text("".join(
                    f"{train_names[f['query']]} {test_names[f['reference']]}\n" for f in chosen))
    print(f"{path}\n{args.picture}")


if __name__ == "__main__":
    main()
