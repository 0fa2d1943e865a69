"""What the networks of a demo say about its images, and how they are shipped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from deploy.predictor import Predictor

from ..arch import build_network, load_weights, logits_of
from ..config.schema import RunConfig
from ..data.pixels import pipeline, read
from ..errors import WeightsError
from ..export import ParityReport, export_network, inference_yml, parity_report, preprocessing_of, write_parity
from ..inference import InferenceEngine, read_labels

BATCH = 128


class Trained:
    """The network that `config` trains, with weights. parameters: how many numbers it learned."""

    def __init__(self, config: RunConfig, weights: str):
        self.config = config
        student = config.Arch.network(config.Arch.infer_model_name)
        self.name = student.name
        self.network = build_network(student, config.Arch.class_num)
        report = load_weights(self.network, weights, role=student.role)
        if not report.complete:
            raise WeightsError(f"{weights}: not all of {student.name} is in this file; run the demo again")
        self.network.eval()
        self.parameters = sum(int(p.size) for p in self.network.parameters())

    @paddle.no_grad()
    def probabilities(self, paths: Sequence[str]) -> np.ndarray:
        """float32 [N, C] of N image files, rows sum to 1."""
        rows = [paddle.nn.functional.softmax(logits_of(self.network(paddle.to_tensor(images)))).numpy()
                for images in _batches(self.config, paths)]
        return np.concatenate(rows)


@dataclass(frozen=True)
class Exported:
    """files: names in the folder. megabytes: of the program and parameters that a predictor loads.

    parity: of each program, by file name. probabilities: float32 [N, C] by the exported network.
    """

    folder: Path
    files: tuple[str, ...]
    megabytes: float
    parity: dict[str, ParityReport]
    probabilities: np.ndarray


def export(trained: Trained, folder: Path, paths: Sequence[str]) -> Exported:
    """Write Paddle Inference files, compare them with the live network on `paths`, and predict those with them."""
    config = trained.config
    labels = read_labels(config.Infer.class_id_map_file, config.Arch.class_num)
    files = export_network(trained.network, folder, config.Global.image_shape, description=inference_yml(
        trained.name, preprocessing_of(config), config.Infer.topk, labels))
    parity = {program.name: parity_report(trained.network, InferenceEngine(program), _batches(config, paths),
                                          source="test images") for program in files.programs}
    write_parity(folder, parity)
    predictions = Predictor(folder, topk=len(labels)).predict(paths, BATCH)
    probabilities = np.zeros([len(paths), len(labels)], np.float32)
    for row, prediction in zip(probabilities, predictions):
        row[list(prediction.class_ids)] = prediction.scores
    loaded = (files.programs[0], files.params)
    return Exported(folder, tuple(sorted(p.name for p in folder.iterdir())),
                    sum(p.stat().st_size for p in loaded) / 1e6, parity, probabilities)


def _batches(config: RunConfig, paths: Sequence[str]):
    """float32 [N, 3, H, W], preprocessed as for a test."""
    preprocess = pipeline(preprocessing_of(config))
    for first in range(0, len(paths), BATCH):
        yield np.stack([preprocess(read(path)) for path in paths[first:first + BATCH]])
