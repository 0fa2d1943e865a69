"""A mining result as a run would leave it, made of two photographs and drawings: for the tests of the report."""

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from ppcls_ssld.errors import DataError
from ppcls_ssld.mining.calibrate import Estimate
from ppcls_ssld.mining.report import MiningResult, Pair, Threshold, chosen_shown, scores_at_ranks
from ppcls_ssld.mining.select import Selection

KINDS = {"grey": 812, "alpha": 40, "cmyk": 3, "palette": 17, "16-bit": 2, "animated": 5, "rotated": 1204}
SETTINGS = {"pool": ["/data/pool/n01440764.tar", "/data/more images"], "protect": ["/data/val_list.txt"], "seed": 0,
            "dedup": {"keypoints": {"min_cells": 12, "ratio": 0.8}, "within_pool": False},
            "select": {"min_score": None}, "sources": [{"path": "/data/a"}, {"path": "/data/b"}]}


class Album:
    """Images by name, made when asked for."""

    def __init__(self):
        self.photos = [np.ascontiguousarray(image) for image in load_sample_images().images]
        self.transforms = {}

    def read(self, name):
        if "gone" in name:
            raise DataError(f"{name}: cannot be read")
        digits = [character for character in name if character.isdigit()]  # a copy is called as its original
        photo = self.photos[int(digits[-1] if digits else 0) % 2]
        rng = np.random.default_rng(sum(map(ord, name)))
        if name.startswith("crop"):
            height, width = photo.shape[:2]
            side = int(rng.integers(90, 300))
            y, x = int(rng.integers(height - side)), int(rng.integers(width - side))
            return photo[y:y + side, x:x + side]
        if name.startswith("tiny"):
            return cv2.resize(photo, (32, 32), interpolation=cv2.INTER_AREA)
        if name in self.transforms:
            photo, transform = self.transforms[name]
            return warped(photo, transform)
        return photo


def warped(photo, transform):
    """The pool image whose relative coordinates `transform` takes to those of the photo; as many pixels wide."""
    height, width = photo.shape[:2]
    to_pixels = np.diag([width, height, 1.0])
    full = to_pixels @ np.vstack([transform, (0, 0, 1)]) @ np.linalg.inv(to_pixels)
    return cv2.warpAffine(photo, full[:2], (width, height), flags=cv2.INTER_AREA | cv2.WARP_INVERSE_MAP)


TRANSFORMS = {
    "quarter": np.array([[0.5, 0, 0.3], [0, 0.5, 0.2]]),
    "mirror": np.array([[-1.0, 0, 1], [0, 1, 0]]),
    "border": np.array([[1.25, 0, -0.125], [0, 1.25, -0.125]]),
    "turn": np.array([[0.98, -0.12, 0.06], [0.25, 0.98, -0.1]]),
    "half, mirrored": np.array([[-0.7, 0, 0.9], [0, 0.7, 0.1]]),
}


def example_pairs(album, per_stage=9, seed=0):
    """Of keypoints one for each transform and more; of other stages without; some kept."""
    rng = np.random.default_rng(seed)
    pairs = []
    for stage, top, threshold in (("bytes", None, None), ("hash", 1.0, 0.9), ("keypoints", 180, 12)):
        for i in range(per_stage):
            kind, transform = list(TRANSFORMS.items())[i % len(TRANSFORMS)]
            protected = f"val/photo {i}.JPEG"
            if stage != "keypoints":
                score = np.nan if top is None else threshold + (top - threshold) * (i + 0.5) / per_stage
                pairs.append(Pair(f"pool/copy of {i}.jpg", protected, stage, score, threshold or np.nan))
                continue
            name = f"pool/{kind} {i}.jpg"
            album.transforms[name] = album.read(protected), transform
            points = rng.random([200, 2])
            there = points @ transform[:, :2].T + transform[:, 2]
            inside = ((there > 0) & (there < 1)).all(axis=1)
            matches = np.hstack([points, there])[inside][:50]
            pairs.append(Pair(name, protected, stage, float(12 + i * 20), 12.0, "mirror" in kind, transform, matches))
    pairs += [Pair(f"crop/innocent {i}.jpg", f"val/photo {i}.JPEG", "keypoints", float(11 - i), 12.0, status="kept",
                   pairs=rng.random([8, 4])) for i in range(3)]
    pairs.append(Pair("tiny/frog.png", "tiny/other frog.png", "thumbnail", 0.97, 0.95, transform=np.eye(2, 3)))
    pairs.append(Pair("pool/gone.jpg", "val/photo 1.JPEG", "thumbnail", 0.96, 0.95))
    return pairs


def example(class_num=10, top_k=500, seed=0):
    """(album, result): `class_num` classes, of which the last tenth has fewer images than K."""
    album, rng = Album(), np.random.default_rng(seed)
    before = (rng.lognormal(7.5, 0.9, class_num)).astype(int)
    before[-max(class_num // 10, 1):] = rng.integers(0, top_k, max(class_num // 10, 1))
    after = np.minimum(before, top_k)
    classes = np.repeat(np.arange(class_num), after)
    ranks = np.concatenate([np.arange(n) for n in after])
    scores = np.clip(1 - ranks / top_k * rng.beta(2, 6, class_num)[classes] * 2, 0.01, 1)
    selection = Selection(np.arange(len(ranks)), np.zeros(len(ranks), "V16"), classes.astype(np.int32), scores, ranks)
    chosen = chosen_shown(selection, class_num, lambda i: f"{'crop' if i % 7 else 'tiny'}/image {i}.jpg")
    listed, gone = int(before.sum()) + 4200, {"name_duplicates": 90, "unreadable": 55, "removed_bytes": 610,
                                              "removed_hash": 1400, "removed_thumbnail": 2, "removed_keypoints": 2043}
    kept = listed - sum(gone.values())
    result = MiningResult(
        command="ppcls-ssld mine --pool /data/pool/*.tar --protect /data/val_list.txt --teacher ResNeXt101_32x16d_wsl "
                f"--teacher-weights wsl.pdparams --top-k {top_k} --output output/mined",
        settings=SETTINGS, counts={"listed": listed, **gone, "kept": kept, "scored": kept, "chosen": int(after.sum()),
                                   "random_control": int(after.sum())},
        pairs=example_pairs(album),
        thresholds=[Threshold("hash", 0.9, Estimate(5000, 1, 2e-4, 5e-6, 1.1e-3), "the other half of the pool"),
                    Threshold("keypoints", 12, Estimate(5000, 0, 3.1e-6, 0.0, 7.4e-4, True), "other photographs"),
                    Threshold("thumbnail", 0.95)],
        class_names=[f"class {c}" if c % 7 else f"a longer name, of class {c}" for c in range(class_num)],
        before=before, after=after, top_k=top_k,
        rank_scores=scores_at_ranks(selection, class_num, top_k), chosen=chosen, kinds=KINDS,
        unreadable=[(f"pool/broken {i}.jpg", "truncated JPEG" if i % 2 else "empty file") for i in range(55)],
        seconds={"listing": 1.2, "dedup": 4210.0, "score": 15012.0, "select": 8.5, "report": 31.0},
        notes=["The teacher knows 1,000 classes."], versions="Paddle 3.3.1, Python 3.11")
    return album, result
