"""Accuracy of several yes/no labels an image, as exact counts that ranks can add up."""

from __future__ import annotations

import numpy as np

from ..errors import DataError

NOTHING_TO_COUNT = ("no attribute is known to be yes in one image and no in another, so there is nothing to count; "
                    "evaluate on a list with labels, and on enough images of it")


def countable(known: np.ndarray) -> np.ndarray:
    """bool [C]: attributes that are known to be yes in one image and no in another. known: int [2, C], images whose
    label is known to be no, and yes."""
    return (known > 0).all(0)


class _Counts:
    """int64 arrays that ranks can add up; per attribute, row 0 is of no and row 1 of yes.

    images: [1], with a known label. known: [2, C], images whose label is known. right: [2, C], of these answered so.
    sizes, common: [3, C + 1], of images with a yes, by how many yes are in the predicted set, the true one, their union:
    how many images, and sum of how many yes are in both sets.
    """

    def __init__(self, class_num: int):
        self.images = np.zeros(1, np.int64)
        self.known, self.right = np.zeros((2, 2, class_num), np.int64)
        self.sizes, self.common = np.zeros((2, 3, class_num + 1), np.int64)

    def arrays(self) -> list[np.ndarray]:
        return [self.images, self.known, self.right, self.sizes, self.common]


class AttributeAccuracy:
    """PaddleClas's ATTRMetric (ppcls/metric/metrics.py, AttrMeter in ppcls/utils/misc.py, d178931), counted exactly.

    An attribute is predicted where its probability is 0.5 or more; PaddleClas compares logits with 0.5, which is a
    probability of 0.62. A score that is not a number is wrong. Labels that are not known count nowhere.

    Per attribute, then the mean over attributes: `ma`, the mean of `label_pos_recall` (share of the images with it in
    which it is predicted) and `label_neg_recall` (share of those without it in which it is not); `label_f1`. Attributes
    of which no image is known to be with, or none to be without, are left out of all four; PaddleClas counts such a
    recall as 0. Its label_f1 takes each attribute's precision with the mean of all recalls, here it is the mean of the
    attributes' own F1.
    Per image, then the mean over images: `instance_acc` (predicted and true / predicted or true), `instance_precision`,
    `instance_recall`, and `instance_f1` of the last two. Images without any yes, known or predicted, are left out;
    PaddleClas counts them as 0.

    images: with at least one known label.
    """

    def __init__(self, class_num: int):
        self.class_num = class_num
        self._counts = _Counts(class_num)

    @classmethod
    def from_counts(cls, class_num: int, counts: np.ndarray) -> AttributeAccuracy:
        """The accuracy whose `counts()` (or sum of counts over ranks) are given."""
        accuracy = cls(class_num)
        accuracy.merge(counts)
        return accuracy

    @property
    def images(self) -> int:
        return int(self._counts.images[0])

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count logits [N, C] against labels int [N, C]: 1 yes, 0 no, negative not known."""
        if logits.shape != labels.shape or logits.shape[1:] != (self.class_num,):
            raise ValueError(f"expected logits and labels [N, {self.class_num}], found {logits.shape} and "
                             f"{labels.shape}")
        counts = self._counts
        truth = np.stack([labels == 0, labels == 1])
        answer = np.stack([logits < 0, logits >= 0])
        counts.images += truth.any((0, 2)).sum()
        counts.known += truth.sum(1)
        counts.right += (truth & answer).sum(1)
        yes = truth[1]
        predicted = np.where(yes, answer[1], truth[0] & ~answer[0])
        common = (yes & predicted).sum(1)
        some = (yes | predicted).any(1)
        for row, chosen in enumerate((predicted, yes, yes | predicted)):
            size = chosen.sum(1)[some]
            np.add.at(counts.sizes[row], size, 1)
            np.add.at(counts.common[row], size, common[some])

    def counts(self) -> np.ndarray:
        """int64, one row. Counts of different images may be added."""
        return np.concatenate([part.ravel() for part in self._counts.arrays()])

    def merge(self, counts: np.ndarray) -> None:
        """Add the counts of other images."""
        parts = self._counts.arrays()
        ends = np.cumsum([part.size for part in parts])[:-1]
        for part, other in zip(parts, np.split(np.asarray(counts, np.int64), ends)):
            part += other.reshape(part.shape)

    def result(self) -> dict[str, float]:
        """{"ma": in [0, 1], ...}, `ma` first: it chooses the model. DataError when no attribute can be counted."""
        counts = self._counts
        counted = countable(counts.known)
        if not counted.any():
            raise DataError(NOTHING_TO_COUNT)
        known, right = counts.known[:, counted], counts.right[:, counted]
        negative, positive = right / known
        wrong = known - right
        f1 = 2 * right[1] / (2 * right[1] + wrong[0] + wrong[1])
        images = max(int(counts.sizes[0].sum()), 1)
        precision, recall, accuracy = (counts.common[:, 1:] / np.arange(1, self.class_num + 1)).sum(1) / images
        instance_f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        found = {"ma": (positive.mean() + negative.mean()) / 2, "label_f1": f1.mean(),
                 "label_pos_recall": positive.mean(), "label_neg_recall": negative.mean(), "instance_f1": instance_f1,
                 "instance_acc": accuracy, "instance_precision": precision, "instance_recall": recall}
        return {name: float(value) for name, value in found.items()}
