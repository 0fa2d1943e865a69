"""Stage 2: what the teacher says of every image that is left, stored sparsely, asked once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..arch import Teacher, build_network, build_teacher, check_name, initialise, known_class_num
from ..config import plain
from ..config.mine import MineConfig
from ..config.schema import Entry
from ..data import build_transforms
from ..errors import ConfigError, DataError, WeightsError
from .forward import run_network
from .listing import Listing
from .store import write_part

IMAGENET = {"scale": "1.0/255.0", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": ""}


def transforms_of(config: MineConfig) -> tuple[Entry, ...]:
    """Evaluation of the teacher: short side, centre crop, ImageNet's mean and std; or what the config says."""
    score = config.Score
    if score.transform_ops:
        return score.transform_ops
    short = score.resize_short or round(score.image_size * 8 / 7)
    return ({"ResizeImage": {"resize_short": short}}, {"CropImage": {"size": score.image_size}},
            {"NormalizeImage": IMAGENET}, {"ToCHWImage": None})


def score_settings(config: MineConfig) -> dict[str, Any]:
    """What the scores of given images depend on, as JSON."""
    teacher = _teacher_of(config)
    weights = teacher.pretrained
    return {"teacher": teacher.name, "arguments": plain(teacher.arguments), "engine": teacher.engine,
            "weights": file_digest(weights) if isinstance(weights, str) and "://" not in weights else str(weights),
            "class_num": config.class_num or known_class_num(teacher), "device": config.device.partition(":")[0],
            "transform_ops": plain(transforms_of(config)), "batch_size": config.Score.batch_size,
            "threads": config.threads, "classes_stored": config.Score.classes_stored,
            "paddle": paddle.__version__,
            **({"output_stride": teacher.output_stride} if teacher.output_stride else {})}


def check_teacher(config: MineConfig) -> None:
    """ConfigError or WeightsError when the teacher cannot be built, or its weights file is missing or does not fit."""
    network = _teacher_of(config)
    with _key_paths_of_mining():
        check_name(network)
        if isinstance(network.pretrained, str) and "://" not in network.pretrained:
            file_digest(network.pretrained)
            initialise(build_network(network, config.class_num or known_class_num(network)), network)


def check_transforms(config: MineConfig) -> None:
    """ConfigError when the transforms cannot be built, or give images that the teacher's program does not take."""
    size, pipeline = config.Score.image_size, build_transforms(transforms_of(config), "Score.transform_ops")
    engine = _teacher_of(config).engine
    if engine == "eager" or engine == "auto" and not config.device.startswith("cpu"):
        return  # takes images of any size
    try:
        shape = pipeline(np.zeros((size, size, 3), np.uint8), np.random.default_rng(0)).shape
        found = f"give {shape[2]}x{shape[1]} pixels"
    except DataError as e:
        shape, found = None, f"do not work on an image of {size}x{size}: {e}"
    if shape != (3, size, size):
        raise ConfigError(f"Score.image_size is {size}, but the transforms (Score.transform_ops, or Score.resize_short "
                          f"and the crop) {found}; make them agree, or set Teacher.engine: eager")


def load_teacher(config: MineConfig, class_num: int) -> Teacher:
    """The frozen teacher. WeightsError when its weights do not fit."""
    size = config.Score.image_size
    with _key_paths_of_mining():
        return build_teacher(_teacher_of(config), class_num, (3, size, size), config.device, threads=config.threads)[0]


def score_blocks(config: MineConfig, listing: Listing, blocks: Mapping[int, tuple[np.ndarray, np.ndarray]],
                 teacher: Teacher, folder: Path, settings: Mapping[str, Any], workers: int,
                 progress: Callable[[int], None]) -> None:
    """Score blocks and write their parts. An image that cannot be read any more has no row.

    blocks: number -> (int64 positions of the images left in it, their ids as V16), in the order of the listing.
    progress: called with each finished block.
    """
    answers = run_network(lambda images: _logits(teacher, images), listing, [p for p, _ in blocks.values()],
                          transforms_of(config), config.Score.batch_size, workers)
    for (block, (positions, ids)), answer in zip(blocks.items(), answers):
        row = np.searchsorted(positions, answer.index)
        logits = answer.outputs if len(row) else np.zeros((0, settings["class_num"]), np.float32)
        write_part(folder, block, {"index": answer.index, "name": [listing.name(i) for i in answer.index.tolist()],
                                   "id": ids[row], **sparse(logits, config.Score.classes_stored)},
                   "score", settings)
        progress(block)


def sparse(logits: np.ndarray, classes_stored: int) -> dict[str, np.ndarray]:
    """Columns of a score part from logits float32 [n, C].

    classes int32 [n, P] and log_probs float16 [n, P]: the P = min(classes_stored, C) best classes, best first, equal
    ones by class id; logsumexp and entropy (nats) float32 [n], over all C classes.
    """
    n, class_num = logits.shape
    stored = min(classes_stored, class_num)
    logits = logits.astype(np.float64)
    largest = logits.max(axis=1, keepdims=True, initial=-np.inf)
    if not np.isfinite(logits).all():
        raise ConfigError("the teacher's logits are not finite; are its weights and the input's normalisation right?")
    logsumexp = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    log_probs = logits - logsumexp
    best = np.argsort(-log_probs, axis=1, kind="stable")[:, :stored]
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=1)
    return {"classes": best.astype(np.int32), "log_probs": np.take_along_axis(log_probs, best, 1).astype(np.float16),
            "logsumexp": logsumexp[:, 0].astype(np.float32), "entropy": entropy.astype(np.float32)}


def file_digest(path: str) -> str:
    """SHA-256 of a file, with or without `.pdparams` in its name; ConfigError when it cannot be read."""
    file = path if Path(path).is_file() else f"{path}.pdparams"
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as content:
            while chunk := content.read(1 << 20):
                digest.update(chunk)
    except OSError as e:
        raise ConfigError(f"{path}: the teacher's weights cannot be read ({e.strerror}); expected the path of a "
                          ".pdparams file (--teacher-weights)") from e
    return digest.hexdigest()


@contextmanager
def _key_paths_of_mining() -> Iterator[None]:
    """Errors of arch say `Arch.Teacher`, where a training config has what is the section Teacher here."""
    try:
        yield
    except (ConfigError, WeightsError) as e:
        raise type(e)(str(e).replace("Arch.Teacher", "Teacher")) from e


def _teacher_of(config: MineConfig):
    if config.Teacher is None:
        raise ConfigError("no teacher: give --teacher ARCH and --teacher-weights FILE, or a section Teacher with name "
                          "and pretrained")
    return config.Teacher


def _logits(teacher: Teacher, images: np.ndarray) -> np.ndarray:
    return teacher(images).numpy()
