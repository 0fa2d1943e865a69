"""Candidates by a trained backbone: protected images whose features are nearest, as they are or mirrored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import faiss
import numpy as np
import paddle

from ..arch import build_embedder
from ..atomic import replacing
from ..config import plain
from ..config.schema import NetworkConfig
from ..errors import ConfigError
from .blocks import Blocks
from .forward import run_network
from .listing import Listing
from .score import file_digest, transforms_of
from .workspace import Workspace, digest_of


def embedding_settings(ws: Workspace) -> dict[str, Any]:
    """What the features depend on, as JSON."""
    config = ws.config
    weights = config.Dedup.embedding_weights
    return {"embedding": config.Dedup.embedding, "embedding_transforms": plain(transforms_of(config)),
            "embedding_weights": file_digest(weights) if isinstance(weights, str) else str(weights),
            "embedding_batch_size": config.Score.batch_size, "embedding_device": config.device.partition(":")[0],
            "paddle": paddle.__version__}


class Embedding:
    """The features of the protected images, made once, and the backbone that asks them.

    The mirror is indexed with the protected images, so that a pool image passes the backbone once. Memory: 4 bytes per
    feature and protected image (two half-precision vectors each).
    """

    def __init__(self, ws: Workspace):
        config = ws.config
        if not config.Dedup.embedding_weights:
            raise ConfigError(f"Dedup.embedding: {config.Dedup.embedding} without weights proposes at random; give "
                              "--embedding-weights FILE, or leave --embedding out")
        network = NetworkConfig(role="Embedding", name=config.Dedup.embedding, frozen=True, bn_mode="eval",
                                pretrained=config.Dedup.embedding_weights)
        size = config.Score.image_size
        self._network = build_embedder(network, (3, size, size), config.device, config.threads)
        self._config, self._workers = config, ws.workers
        self._top = config.Dedup.candidates
        key = digest_of({"listing": ws.about["protected"]["digest"], **embedding_settings(ws)})
        file = ws.folder / "protected" / f"features-{key}.npz"
        if ws.rank == 0 and not file.is_file():
            self._write(ws.protected, file)
        ws.wait(file.is_file)
        with np.load(file, allow_pickle=False) as arrays:
            self._position, features = arrays["position"], arrays["features"]
        self._index = faiss.IndexScalarQuantizer(features.shape[1], faiss.ScalarQuantizer.QT_fp16,
                                                 faiss.METRIC_INNER_PRODUCT)
        self._index.add(features.astype(np.float32))

    def propose(self, pool: Listing, ranges: Sequence[range]) -> Iterator[list[tuple[int, ...]]]:
        """Per range of positions, per image, the protected images that are nearest; () for one that cannot be read."""
        faiss.omp_set_num_threads(1)
        for positions, answers in zip(ranges, self._features(pool, ranges)):
            near: list[tuple[int, ...]] = [()] * len(positions)
            if len(answers.index):
                _, found = self._index.search(_unit(answers.outputs), min(2 * self._top, self._index.ntotal))
                for position, row in zip(answers.index.tolist(), self._position[found].tolist()):
                    near[position - positions.start] = tuple(dict.fromkeys(row))[:self._top]
            yield near

    def _features(self, listing: Listing, ranges: Sequence[range]):
        return run_network(self._network, listing, [np.array(r) for r in ranges], transforms_of(self._config),
                           self._config.Score.batch_size, self._workers)

    def _write(self, listing: Listing, file) -> None:
        blocks = Blocks(len(listing))
        ranges = [blocks.range(block) for block in range(len(blocks))]
        network, position, features = self._network, [], []
        for turned in (False, True):
            self._network = (lambda images: network(np.ascontiguousarray(images[..., ::-1]))) if turned else network
            for answers in self._features(listing, ranges):
                position.append(answers.index)
                if len(answers.index):
                    features.append(_unit(answers.outputs).astype(np.float16))
        self._network = network
        if not features:
            raise ConfigError("none of the protected images can be read")
        with replacing(file) as new:
            np.savez(new, position=np.concatenate(position), features=np.concatenate(features))


def _unit(features: np.ndarray) -> np.ndarray:
    """Vectors of length 1."""
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
