"""Accuracy of several yes/no labels an image, as exact counts that ranks can add up."""

from __future__ import annotations

import numpy as np

from ..errors import DataError


class AttributeAccuracy:
    """PaddleClas's ATTRMetric (ppcls/metric/metrics.py, AttrMeter in ppcls/utils/misc.py, d178931), counted exactly.

    An attribute is predicted where its probability is above 0.5; PaddleClas compares logits with 0.5, which is a
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
        # images; per attribute: known no, known yes, of which right; per image with a yes: by size of the set, images
        # and sum of what is in both sets (of the predicted set, the true set, their union)
        self._parts = ((1,), (2, class_num), (2, class_num), (3, class_num + 1), (3, class_num + 1))
        self._counts = [np.zeros(shape, np.int64) for shape in self._parts]

    @classmethod
    def from_counts(cls, class_num: int, counts: np.ndarray) -> AttributeAccuracy:
        """The accuracy whose `counts()` (or sum of counts over ranks) are given."""
        accuracy = cls(class_num)
        accuracy.merge(counts)
        return accuracy

    @property
    def images(self) -> int:
        return int(self._counts[0][0])

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Count logits [N, C] against labels int [N, C]: 1 yes, 0 no, negative not known."""
        if logits.shape != labels.shape or logits.shape[1:] != (self.class_num,):
            raise ValueError(f"expected logits and labels [N, {self.class_num}], found {logits.shape} and "
                             f"{labels.shape}")
        images, known, right, sizes, both = self._counts
        truth = np.stack([labels == 0, labels == 1])
        answer = np.stack([logits <= 0, logits > 0])
        images += truth.any((0, 2)).sum()
        known += truth.sum(1)
        right += (truth & answer).sum(1)
        yes = truth[1]
        predicted = np.where(yes, answer[1], truth[0] & ~answer[0])
        common = (yes & predicted).sum(1)
        some = (yes | predicted).any(1)
        for row, chosen in enumerate((predicted, yes, yes | predicted)):
            size = chosen.sum(1)[some]
            np.add.at(sizes[row], size, 1)
            np.add.at(both[row], size, common[some])

    def counts(self) -> np.ndarray:
        """int64, one row. Counts of different images may be added."""
        return np.concatenate([part.ravel() for part in self._counts])

    def merge(self, counts: np.ndarray) -> None:
        """Add the counts of other images."""
        ends = np.cumsum([part.size for part in self._counts])[:-1]
        for part, other in zip(self._counts, np.split(np.asarray(counts, np.int64), ends)):
            part += other.reshape(part.shape)

    def result(self) -> dict[str, float]:
        """{"ma": in [0, 1], ...}, `ma` first: it chooses the model. DataError when no attribute can be counted."""
        _, known, right, sizes, both = self._counts
        complete = (known > 0).all(0)
        if not complete.any():
            raise DataError("no attribute is known to be yes in one image and no in another, so there is nothing to "
                            "count; evaluate on a list with labels, and on enough images of it")
        known, right = known[:, complete], right[:, complete]
        negative, positive = right / known
        wrong = known - right
        f1 = 2 * right[1] / (2 * right[1] + wrong[0] + wrong[1])
        images = max(int(sizes[0].sum()), 1)
        precision, recall, accuracy = (both[:, 1:] / np.arange(1, self.class_num + 1)).sum(1) / images
        instance_f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        found = {"ma": (positive.mean() + negative.mean()) / 2, "label_f1": f1.mean(),
                 "label_pos_recall": positive.mean(), "label_neg_recall": negative.mean(), "instance_f1": instance_f1,
                 "instance_acc": accuracy, "instance_precision": precision, "instance_recall": recall}
        return {name: float(value) for name, value in found.items()}
