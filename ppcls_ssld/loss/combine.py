"""The one place that averages: terms with weights -> named scalars."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import paddle

from ..errors import ConfigError
from ..registry import nearest, one_key
from .labels import Labels
from .terms import LOSSES, Outputs, Term


class CombinedLoss:
    """A weighted sum of terms, each averaged over the samples it concerns.

    entries: `[{Name: {arguments}}, ...]` as under Loss.Train. where: its key path, for errors. roles: networks there
    are. default_role: the network that a term reads as `student` unless told otherwise. multilabel: a sample has
    several labels (Global.use_multilabel), see Labels.
    names: the parts, in order. roles: networks read; trained: those that get a gradient. feature_keys: role -> taps
    read. needs_labels: of any term.
    Raises ConfigError, with the key path, for an empty list, an unknown name, argument or network, and a term that
    reads labels of the other kind.
    """

    def __init__(self, entries: Sequence[Mapping[str, Any]], where: str, roles: Sequence[str], default_role: str,
                 multilabel: bool = False):
        if not entries:
            raise ConfigError(f"{where}: no loss given; expected a list such as `- SymmetricKL: {{weight: 1.0}}`")
        self.terms = [_build(entry, f"{where}.{i}", roles, default_role, multilabel)
                      for i, entry in enumerate(entries)]
        self.needs_labels = any(term.needs_labels for term in self.terms)
        self.roles = {role for term in self.terms for role in term.roles}
        self.trained = {role for term in self.terms for role in term.trained}
        taps = {(role, tap) for term in self.terms for role, keys in term.feature_keys.items() for tap in keys}
        self.feature_keys = {role: tuple(sorted(tap for r, tap in taps if r == role)) for role, _ in sorted(taps)}
        self.names: list[str] = []
        self._part_names = []
        for term in self.terms:
            unique = {part: _unused(part, ["loss", *self.names]) for part in term.parts}
            self.names += unique.values()
            self._part_names.append(unique)

    def soft_target_temperature(self, role: str) -> float:
        """The temperature of the softmax of `role`'s logits, where that is all that the terms take from it.

        What a stored answer can stand for. ConfigError, naming the term, where one takes more or two differ.
        """
        temperatures = {}
        for term in self.terms:
            if role in term.roles:
                temperatures[term.name] = term.soft_target_temperature
                if term.soft_target_temperature is None or role in term.feature_keys or term.needs_labels:
                    raise ConfigError(f"{term.name} takes more from {role} than its soft answer, the softmax of its "
                                      "logits, and stored targets hold no more; use SymmetricKL, JSDivergence, "
                                      "KLDivergence, SoftCrossEntropy, or one of PaddleClas's names for them, without "
                                      "`act: sigmoid` and weight_ratio")
        if len(set(temperatures.values())) != 1:
            raise ConfigError(f"stored targets of {role} have one temperature, but its losses use {temperatures}; make "
                              "them agree")
        return next(iter(temperatures.values()))

    def __call__(self, outputs: Outputs, labels: Labels | None, n_all: float | paddle.Tensor,
                 n_labelled: float | paddle.Tensor) -> dict[str, paddle.Tensor]:
        """{"loss": total, part: weighted mean, ...}, float32 scalars.

        outputs: role -> logits [N, C] or {"logits": ..., tap: ...}. labels: None exactly when no term needs any, so
        a label-free loss cannot see one. n_all, n_labelled: what sums over samples are divided by, for label-free and
        label-using terms: the counts over all ranks (and micro-steps) divided by the number of ranks, so that the
        average of the ranks' gradients is the gradient of the mean over all samples, however labels are spread.
        Raises ValueError when labels are given and not needed, or the other way round.
        """
        if self.needs_labels and labels is None:
            raise ValueError(f"{', '.join(t.name for t in self.terms if t.needs_labels)} needs labels, found None")
        if not self.needs_labels and labels is not None:
            raise ValueError(f"labels were given to a loss that uses none ({', '.join(self.names)}); pass None")
        losses = {}
        for term, part_names in zip(self.terms, self._part_names):
            parts = term(outputs, labels) if term.needs_labels else term(outputs)
            for part, per_sample in parts.items():
                losses[part_names[part]] = term.weight * _mean(per_sample, n_labelled if term.needs_labels else n_all)
        return {"loss": sum(losses.values()), **losses}


def _build(entry: Any, where: str, roles: Sequence[str], default_role: str, multilabel: bool) -> Term:
    name, arguments = one_key(entry, where)
    if "student" in inspect.signature(LOSSES.get(name, where)).parameters:
        arguments.setdefault("student", default_role)
    term = LOSSES.build(name, arguments, where)
    for role in term.roles:
        if role not in roles:
            raise ConfigError(f"{where}.{name}: no network '{role}' here{nearest(role, roles)}")
    if term.needs_labels and term.multilabel and not multilabel:
        raise ConfigError(f"{where}.{name}: reads several labels an image, and Global.use_multilabel is false; set it "
                          "to true, or weight_ratio to false where it is that which reads them")
    if term.needs_labels and multilabel and not term.multilabel:
        raise ConfigError(f"{where}.{name}: reads one class an image, and Global.use_multilabel is true; use "
                          "MultiLabelLoss or DistillationMultiLabelLoss")
    return term


def _unused(name: str, taken: Sequence[str]) -> str:
    """`name`, or `name#2`, `name#3`... PaddleClas lets a second part of one name replace the first in the total."""
    candidate, count = name, 1
    while candidate in taken:
        count += 1
        candidate = f"{name}#{count}"
    return candidate


def _mean(per_sample: paddle.Tensor, n: float | paddle.Tensor) -> paddle.Tensor:
    """Sum / n. Where n is 0 there is no such sample on any rank, and the sum itself is 0."""
    total = per_sample.sum()
    if isinstance(n, paddle.Tensor):
        n = n.astype("float32").reshape([])
        return total / paddle.where(n > 0, n, paddle.ones_like(n))
    return total / (n if n > 0 else 1.0)
