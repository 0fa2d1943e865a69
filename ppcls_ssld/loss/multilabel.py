"""The terms that read several yes/no labels a sample (Global.use_multilabel); names and arguments are PaddleClas's."""

from __future__ import annotations

from collections.abc import Sequence

from . import functional
from .terms import LOSSES, Term, distinct, smoothing


class MultiLabelTerm(Term):
    """Cross entropy of each network's yes/no answers with a sample's several labels (Global.use_multilabel).

    Labels that are not known count nowhere, with and without weight_ratio; PaddleClas leaves them out with it, and
    takes -1 as a label without it. A batch's mean is over the samples with a known label. size_sum: sum over the
    classes, else their mean, over all of them as in PaddleClas. weight_ratio: see `functional.label_weights`; the share
    of yes is that of the list, counted over what is known, where PaddleClas's mean takes a -1 as -1. epsilon: each
    label is mixed with 1/2; PaddleClas mixes with 1/C, as if there were one label, and then no longer recognises what
    is not known.
    """

    needs_labels = multilabel = True

    def __init__(self, weight: float, parts: Sequence[str], roles: Sequence[str], key: str | None,
                 epsilon: float | None, size_sum: bool, weight_ratio: bool):
        super().__init__(weight, parts, roles, key)
        self.epsilon, self.size_sum, self.weight_ratio = smoothing(epsilon), size_sum, weight_ratio

    def __call__(self, outputs, labels=None):
        weights = functional.label_weights(labels.labels, labels.yes_share if self.weight_ratio else None)
        parts = {}
        for part, role in zip(self.parts, self.roles):
            logits = self.read(outputs, role)
            value = functional.binary_cross_entropy(logits, labels.labels, weights, self.epsilon)
            parts[part] = value if self.size_sum else value / logits.shape[1]
        return parts


@LOSSES.register()
class DistillationMultiLabelLoss(MultiLabelTerm):
    """PaddleClas's loss of several labels a sample, of each network of `model_names`."""

    def __init__(self, *, model_names: Sequence[str], epsilon: float | None = None, size_sum: bool = False,
                 weight_ratio: bool = False, key: str | None = None, name: str | None = None, weight: float = 1.0):
        roles = distinct(model_names)
        parts = [f"{name or 'MultiLabelLoss'}_{role}" for role in roles]
        super().__init__(weight, parts, roles, key, epsilon, size_sum, weight_ratio)


@LOSSES.register()
class MultiLabelLoss(MultiLabelTerm):
    """PaddleClas's loss of several labels a sample, of the network `student` (default: the one that is evaluated and
    exported)."""

    def __init__(self, *, weight: float = 1.0, epsilon: float | None = None, size_sum: bool = False,
                 weight_ratio: bool = False, student: str = "Student", key: str | None = None):
        super().__init__(weight, ["MultiLabelLoss"], [student], key, epsilon, size_sum, weight_ratio)
