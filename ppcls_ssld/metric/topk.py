"""Accuracy as exact counts, so that ranks can be added up and no image is counted twice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError


class TopkAccuracy:
    """Share of labelled images whose class is among the k best answers, for each k of `topk`.

    Equal scores are ranked by class id, the smaller first. A k of the number of classes or more counts every image.
    A score that is not a number beats the true class. images: how many labelled images were counted.
    """

    def __init__(self, topk: Sequence[int] = (1, 5)):
        if not topk or any(k < 1 for k in topk):
            raise ValueError(f"topk: expected a list of positive integers, found {topk!r}")
        self.topk = tuple(topk)
        self._counts = np.zeros(1 + len(self.topk), np.int64)  # images, then hits per k

    @classmethod
    def from_counts(cls, topk: Sequence[int], counts: np.ndarray) -> TopkAccuracy:
        """The accuracy whose `counts()` (or sum of counts over ranks) are given."""
        accuracy = cls(topk)
        accuracy.merge(counts)
        return accuracy

    @property
    def images(self) -> int:
        return int(self._counts[0])

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count logits [N, C] against labels int [N]; unlabelled images (negative label) are passed over.

        Raises DataError for a label that is no class of the network.
        """
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ValueError(f"expected logits [N, C] and labels [N], found {logits.shape} and {labels.shape}")
        logits, labels = logits[labels >= 0], labels[labels >= 0]
        classes = logits.shape[1]
        if labels.size and labels.max() >= classes:
            raise DataError(f"label {labels.max()} found, but the network has {classes} classes (0 to {classes - 1}); "
                            "check the list, or Arch.class_num")
        own = np.take_along_axis(logits, labels[:, None], 1)
        smaller_id = np.arange(classes) < labels[:, None]
        # Written as "not below", so that a comparison with NaN puts the other class ahead.
        ahead = np.where(smaller_id, ~(logits < own), ~(logits <= own))
        ahead[np.arange(len(labels)), labels] = False
        rank = ahead.sum(1)
        self._counts += [len(labels), *((rank < k).sum() for k in self.topk)]

    def counts(self) -> np.ndarray:
        """int64 [1 + len(topk)]: images, then hits for each k. Counts of different images may be added."""
        return self._counts.copy()

    def merge(self, counts: np.ndarray) -> None:
        """Add the counts of other images."""
        self._counts += np.asarray(counts, np.int64)

    def result(self) -> dict[str, float]:
        """{"top1": share in [0, 1], ...}. Raises DataError when no labelled image was counted."""
        if not self.images:
            raise DataError("no labelled image was scored; accuracy needs a list with labels")
        return {f"top{k}": int(hits) / self.images for k, hits in zip(self.topk, self._counts[1:])}
