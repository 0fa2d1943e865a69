"""Evaluation: the student alone, every image once, exact counts over all ranks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np
import paddle

from .. import parallel
from ..arch import build_teacher, logits_of, on_device
from ..config.schema import RunConfig
from ..data import EvalReader
from ..errors import ConfigError, DataError
from ..loss import CombinedLoss, Labels, labelled_mask
from ..metric import NOTHING_TO_COUNT, AttributeAccuracy, TopkAccuracy, countable
from ..structs import Batch

SHOWN = {"top1": "top-1", "ma": "ma"}  # `main_metric` as a person reads it
Forward = Callable[[Batch], np.ndarray]  # batch of N images -> logits float32 [N, C]


@dataclass(frozen=True)
class EvalResult:
    """accuracy: {"top1": ..., "top5": ...} in [0, 1], or {"ma": ..., ...} of AttributeAccuracy. images: how many were
    scored, over all ranks.

    loss: mean of Loss.Eval, None when it names none. skipped: corrupt images left out, on any rank.
    """

    accuracy: dict[str, float]
    images: int
    loss: float | None = None
    skipped: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the number that stands for the whole and chooses the best model, see `main_metric`."""
        return "ma" if "ma" in self.accuracy else "top1"

    @property
    def main(self) -> float:
        """That number, in [0, 1]."""
        return self.accuracy[self.name]

    def __str__(self) -> str:
        return f"{SHOWN[self.name]} {self.main:.2%} on {self.images} images"


def main_metric(config: RunConfig) -> str:
    """Name of the accuracy that chooses the best model: ma of several labels an image, else top1. Both are counted
    whatever Metric.topk asks for."""
    return "ma" if config.Global.use_multilabel else "top1"


def score(forward: Forward, reader: EvalReader, config: RunConfig) -> EvalResult:
    """Accuracy (and the mean of Loss.Eval) of whatever answers `forward`, over the reader's images on all ranks.

    Raises DataError when none of them can be scored.
    """
    several = config.Global.use_multilabel
    metric = AttributeAccuracy(config.Arch.class_num) if several else TopkAccuracy(sorted({1, *config.Metric.topk}))
    role = config.Arch.infer_model_name
    criterion = CombinedLoss(config.Loss.Eval, "Loss.Eval", [role], role, several) if config.Loss.Eval else None
    loss_sum = np.zeros(2)  # sum of per-image losses, images
    for batch in reader.batches():
        if not len(batch):
            continue  # its images were all skipped
        logits = forward(batch)
        metric.update(logits, batch.labels)
        if criterion:
            n = int(labelled_mask(batch.labels, batch.labels).sum())
            loss_sum += (_mean_loss(criterion, role, logits, batch, reader.yes_share, n).item() * n, n)
    of = metric.class_num if several else metric.topk
    metric = metric.from_counts(of, parallel.sum_array(metric.counts()))
    loss_sum = parallel.sum_array(loss_sum)
    skipped = tuple(sorted(set().union(*parallel.gather(list(reader.skipped)))))
    if skipped and not metric.images:
        raise DataError("DataLoader.Eval: no image with a label could be read, among them "
                        f"{skipped[0]}; check the files and the root folder")
    return EvalResult(metric.result(), metric.images, loss_sum[0] / max(loss_sum[1], 1) if criterion else None, skipped)


def layer_forward(network: paddle.nn.Layer, context: Callable[[], AbstractContextManager] = nullcontext) -> Forward:
    """`forward` of a live network in evaluation mode, inside `context()`. Leaves it in that mode."""
    network.eval()

    @paddle.no_grad()
    def forward(batch: Batch) -> np.ndarray:
        with context():
            logits = logits_of(network(on_device(batch)))
        return logits.astype("float32").numpy()

    return forward


def evaluate(config: RunConfig) -> EvalResult:
    """Score the weights that `Global.pretrained_model` names on the Eval list, by the fastest engine that fits.

    The student's `engine` may ask for one. Without `Global.pretrained_model` the weights that training starts from are
    scored, and a note says so. Raises ConfigError without either, or without an Eval list.
    """
    student = config.Arch.network(config.Arch.infer_model_name)
    weights = config.Global.pretrained_model or student.pretrained
    if not weights:
        raise nothing_to("evaluate")
    parallel.init(config.Global.device)
    reader = eval_reader(config)
    notice = uncounted(reader)
    frozen = replace(student, pretrained=weights, frozen=True, bn_mode="eval")
    network, report = build_teacher(frozen, config.Arch.class_num, config.Global.image_shape, config.Global.device)
    if parallel.is_main():
        print(f"{student.name}: {report.summary()}\nengine: {network.engine} ({network.reason})", flush=True)
        if not config.Global.pretrained_model:
            print("note: Global.pretrained_model is not set, so these are the weights that training starts from "
                  f"({student.role}'s `pretrained`), not a trained student", flush=True)
        if notice:
            print(f"note: {notice}", flush=True)

    def forward(batch: Batch) -> np.ndarray:
        return logits_of(network(on_device(batch))).numpy()

    return score(forward, reader, config)


def nothing_to(do: str) -> ConfigError:
    """What a verb answers that needs a trained student's weights and is given none; do: "evaluate", "export", ..."""
    return ConfigError(f"Global.pretrained_model: nothing to {do}; give the path of the student's .pdparams, such as "
                       "-o Global.pretrained_model=output/best_model")


def eval_reader(config: RunConfig, limit: int | None = None) -> EvalReader:
    if config.DataLoader.Eval is None:
        raise ConfigError("DataLoader.Eval: missing; evaluation needs a labelled list")
    return EvalReader(config.DataLoader.Eval, config.Arch.class_num, parallel.rank(), parallel.world_size(), limit,
                      multilabel=config.Global.use_multilabel)


def uncounted(reader: EvalReader) -> str | None:
    """A sentence about the labels that the list says too little about; None without any, or with one label an image.

    Raises DataError when it says too little about all of them.
    """
    if reader.known is None or (counted := countable(reader.known)).all():
        return None
    if not counted.any():
        raise DataError(f"DataLoader.Eval: {NOTHING_TO_COUNT}")
    left = np.flatnonzero(~counted)
    return (f"DataLoader.Eval: {len(left)} of {len(counted)} attributes are not known to be yes in one image and no in "
            f"another, and count nowhere: number {', '.join(map(str, left))} (from 0)")


def _mean_loss(criterion: CombinedLoss, role: str, logits: np.ndarray, batch: Batch, yes_share: np.ndarray | None,
               labelled: int) -> paddle.Tensor:
    labels = paddle.to_tensor(batch.labels)
    share = None if yes_share is None else paddle.to_tensor(yes_share)
    known = Labels(labels, labels, paddle.ones([len(batch)]), share) if criterion.needs_labels else None
    return criterion({role: paddle.to_tensor(logits)}, known, float(len(batch)), float(labelled))["loss"]
