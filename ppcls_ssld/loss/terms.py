"""What `Loss.Train` and `Loss.Eval` can name: a functional loss, its arguments and the networks it reads.

Four names of ours, and those of PaddleClas (ppcls/loss/, d178931) with PaddleClas's values and part names. Where
PaddleClas is wrong the docstring says what is done instead; for all of them: an entry's `weight` always counts, also
when the entry is alone, every pair is trained, not the first alone, and label-free terms are never shown a label.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import paddle
import paddle.nn.functional as F

from ..registry import Registry
from . import functional
from .labels import Labels
from .sparse import SoftTargets

LOSSES = Registry("loss")

Outputs = Mapping[str, Any]  # role -> logits, or {"logits": ..., tap: ...}


class Term:
    """One entry of the loss list; calling it gives {part: float32 [N]}, not weighted and not averaged.

    name: of the entry. weight: factor of all its parts. parts: their names. roles: networks it reads; trained: those of
    them that get a gradient, unless they are frozen.
    feature_keys: role -> the feature taps it reads besides logits. needs_labels: whether it is shown labels;
    multilabel: whether these are several a sample, see Labels.
    soft_target_temperature: where all it takes from a teacher is the softmax of logits / temperature, that temperature;
    else None.
    """

    needs_labels = False
    multilabel = False
    soft_target_temperature: float | None = None

    def __init__(self, weight: float, parts: Sequence[str], roles: Sequence[str], key: str | None):
        self.name = type(self).__name__
        self.weight = _number("weight", weight)
        self.parts = tuple(parts)
        self.roles = self.trained = tuple(dict.fromkeys(roles))
        self.key = key or "logits"
        self.feature_keys = {role: (self.key,) for role in self.roles} if self.key != "logits" else {}

    def __call__(self, outputs: Outputs, labels: Labels | None = None) -> dict[str, paddle.Tensor]:
        raise NotImplementedError

    def read(self, outputs: Outputs, role: str) -> paddle.Tensor:
        """This term's input from one network. Raises ValueError when the network gave no such tap."""
        output = outputs[role]
        if not isinstance(output, Mapping):
            output = {"logits": output}
        if self.key not in output:
            raise ValueError(f"{self.name}: {role} gave no '{self.key}', only {', '.join(map(str, output))}; "
                             "set `key` to one of them")
        return output[self.key]


class PairTerm(Term):
    """A distance from each first network of `pairs` to the second, which is a constant for it.

    A symmetric distance trains the second network as well if that one is trained (mutual learning, arXiv 1706.00384):
    the value counts once and either network gets its own gradient, as in PaddleClas. A frozen network's output has
    stop_gradient set, which decides it.
    """

    symmetric = False

    def __init__(self, weight: float, parts: Sequence[str], pairs: Sequence[tuple[str, str]], key: str | None):
        super().__init__(weight, parts, [role for pair in pairs for role in pair], key)
        self.pairs = tuple(pairs)
        if not self.symmetric:
            self.trained = tuple(dict.fromkeys(first for first, _ in self.pairs))

    def distance(self, student: paddle.Tensor, teacher: paddle.Tensor) -> paddle.Tensor:
        """float32 [N], with gradient to the first argument."""
        raise NotImplementedError

    def distance_of(self, labels: Labels | None) -> Callable:
        """`distance`, or one that depends on the labels for a term that needs them."""
        return self.distance

    def __call__(self, outputs: Outputs, labels: Labels | None = None) -> dict[str, paddle.Tensor]:
        distance = self.distance_of(labels)
        parts = {}
        for part, (first, second) in zip(self.parts, self.pairs):
            student, teacher = self.read(outputs, first), self.read(outputs, second)
            if isinstance(teacher, SoftTargets):
                teacher = teacher.logits_for(student)
            value = distance(student, teacher.detach())
            if self.symmetric and not teacher.stop_gradient:
                other_side = distance(teacher, student.detach())
                value = value + (other_side - other_side.detach())  # its gradient without its value
            parts[part] = value
        return parts


class _Divergence(PairTerm):
    """Arguments of our own names. temperature: logits are divided by it. scale_by_t2: multiply by T^2, which keeps
    gradients of one size over temperatures (arXiv 1503.02531)."""

    function: Callable

    def __init__(self, weight: float = 1.0, temperature: float = 1.0, student: str = "Student",
                 teacher: str = "Teacher", key: str | None = None, scale_by_t2: bool = False):
        super().__init__(weight, [type(self).__name__], _pairs([[student, teacher]]), key)
        self.temperature = self.soft_target_temperature = _number("temperature", temperature, above=0.0)
        self.scale = self.temperature**2 if scale_by_t2 else 1.0

    def distance(self, student, teacher):
        return self.scale * type(self).function(student, teacher, self.temperature)


@LOSSES.register()
class SymmetricKL(_Divergence):
    """The loss of SSLD: `functional.symmetric_kl`, class sum."""

    function = staticmethod(functional.symmetric_kl)
    symmetric = True


@LOSSES.register()
class JSDivergence(_Divergence):
    """True Jensen-Shannon: `functional.js_divergence`. Near agreement four times smaller than SymmetricKL."""

    function = staticmethod(functional.js_divergence)
    symmetric = True


@LOSSES.register()
class KLDivergence(_Divergence):
    """KL(teacher || student): `functional.kl_divergence`."""

    function = staticmethod(functional.kl_divergence)


@LOSSES.register()
class SoftCrossEntropy(_Divergence):
    """Cross entropy with the teacher's distribution: `functional.soft_cross_entropy`."""

    function = staticmethod(functional.soft_cross_entropy)


@LOSSES.register()
class DistillationDMLLoss(PairTerm):
    """PaddleClas's mutual-learning loss, with which SSLD is trained: 1/2 [KL(t||s) + KL(s||t)], class sum.

    act: softmax (exact, without the eps that caps PaddleClas's log ratios at 27.6), sigmoid (both halves of each
    Bernoulli, of which PaddleClas compares one), or null: the outputs are probabilities already.
    sum_across_class_dim: accepted without effect; PaddleClas then multiplies by C once more than the sum it names.
    weight_ratio: several labels a sample (Global.use_multilabel) weigh the classes: 0 where a label is not known, else
    as in `functional.label_weights`; a sample without any known label then teaches nothing.
    """

    symmetric = True

    def __init__(self, *, model_name_pairs: Sequence[Sequence[str]], act: str | None = "softmax",
                 weight_ratio: bool = False, sum_across_class_dim: bool = False, key: str | None = None,
                 name: str | None = None, weight: float = 1.0):
        pairs = _pairs(model_name_pairs)
        super().__init__(weight, [f"{name or 'DMLLoss'}_{s}_{t}_{i}" for i, (s, t) in enumerate(pairs)], pairs, key)
        self.soft_target_temperature = 1.0 if act == "softmax" else None
        self.needs_labels = self.multilabel = weight_ratio
        softmax = functional.weighted_symmetric_kl if weight_ratio else functional.symmetric_kl
        self.distance = _choice("act", act, {"softmax": softmax, "sigmoid": functional.binary_symmetric_kl,
                                             None: functional.symmetric_kl_of_probs})

    def distance_of(self, labels):
        if not self.needs_labels:
            return self.distance
        return partial(self.distance, weights=functional.label_weights(labels.labels, labels.yes_share))


@LOSSES.register()
class DistillationCELoss(PairTerm):
    """PaddleClas's cross entropy with the second network's softmax as soft label.

    epsilon mixes that softmax with the uniform distribution; PaddleClas smooths the raw logits instead.
    """

    soft_target_temperature = 1.0

    def __init__(self, *, model_name_pairs: Sequence[Sequence[str]], epsilon: float | None = None,
                 key: str | None = None, name: str | None = None, weight: float = 1.0):
        pairs = _pairs(model_name_pairs)
        super().__init__(weight, [f"{name or 'CELoss'}_{s}_{t}" for s, t in pairs], pairs, key)
        self.epsilon = smoothing(epsilon)

    def distance(self, student, teacher):
        value = functional.soft_cross_entropy(student, teacher)
        if self.epsilon:
            uniform = functional.soft_cross_entropy(student, paddle.zeros_like(teacher))
            value = (1.0 - self.epsilon) * value + self.epsilon * uniform
        return value


@LOSSES.register()
class DistillationKLDivLoss(PairTerm):
    """PaddleClas's KD loss, T^2 KL(t||s) with both softmaxes at temperature T (default 4), class sum."""

    def __init__(self, *, model_name_pairs: Sequence[Sequence[str]], temperature: float = 4.0, key: str | None = None,
                 name: str | None = None, weight: float = 1.0):
        pairs = _pairs(model_name_pairs)
        super().__init__(weight, [f"{name or 'loss_kldiv'}_{s}_{t}" for s, t in pairs], pairs, key)
        self.temperature = self.soft_target_temperature = _number("temperature", temperature, above=0.0)

    def distance(self, student, teacher):
        return self.temperature**2 * functional.kl_divergence(student, teacher, self.temperature)


@LOSSES.register()
class DistillationDistanceLoss(PairTerm):
    """PaddleClas's l1, l2 or smooth_l1 distance of logits or features (`key`), mean over all but the samples.

    act: sigmoid or softmax (over the last axis) is applied to both sides first. delta: of smooth_l1.
    """

    symmetric = True

    def __init__(self, *, model_name_pairs: Sequence[Sequence[str]], mode: str = "l2", act: str | None = None,
                 key: str | None = None, name: str | None = None, delta: float = 1.0, reduction: str = "mean",
                 weight: float = 1.0):
        pairs = _pairs(model_name_pairs)
        self.delta = _number("delta", delta, above=0.0)
        self.elementwise = _choice("mode", mode, {"l1": paddle.abs, "l2": paddle.square, "smooth_l1": self._smooth_l1})
        self.act = _choice("act", act, {"sigmoid": F.sigmoid, "softmax": F.softmax, None: lambda x: x})
        _only_mean(reduction)
        part = f"{name or 'loss_'}{mode}_loss_{mode}"
        super().__init__(weight, [f"{part}_{i}" for i in range(len(pairs))], pairs, key)

    def distance(self, student, teacher):
        if list(student.shape) != list(teacher.shape):
            raise ValueError(f"{self.name}: '{self.key}' is {list(student.shape)} in one network and "
                             f"{list(teacher.shape)} in the other; choose taps of one shape")
        with paddle.amp.auto_cast(enable=False):
            difference = self.act(student.astype("float32")) - self.act(teacher.astype("float32"))
            return self.elementwise(difference).flatten(1).mean(-1)

    def _smooth_l1(self, difference):
        size = difference.abs()
        return paddle.where(size < self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta))


class LabelTerm(Term):
    """Cross entropy of each network with the labels, of labelled samples alone; mixed images get both labels' share.

    PaddleClas guesses soft labels from their shape and takes their softmax, which flattens one-hot and mixed ones;
    here labels are class ids (`Labels`), never guessed.
    """

    needs_labels = True

    def __init__(self, weight: float, parts: Sequence[str], roles: Sequence[str], key: str | None,
                 epsilon: float | None):
        super().__init__(weight, parts, roles, key)
        self.epsilon = smoothing(epsilon)

    def __call__(self, outputs, labels=None):
        parts = {}
        for part, role in zip(self.parts, self.roles):
            logits = self.read(outputs, role)
            own = functional.hard_cross_entropy(logits, labels.labels, self.epsilon)
            partner = functional.hard_cross_entropy(logits, labels.partner_labels, self.epsilon)
            parts[part] = labels.share * own + (1.0 - labels.share) * partner
        return parts


@LOSSES.register()
class DistillationGTCELoss(LabelTerm):
    """PaddleClas's cross entropy of each network of `model_names` with the labels; epsilon is label smoothing."""

    def __init__(self, *, model_names: Sequence[str], epsilon: float | None = None, key: str | None = None,
                 name: str | None = None, weight: float = 1.0):
        roles = distinct(model_names)
        super().__init__(weight, [f"{name or 'CELoss'}_{role}" for role in roles], roles, key, epsilon)


@LOSSES.register()
class CELoss(LabelTerm):
    """PaddleClas's plain cross entropy with the labels, of the network `student` (default: the one that is evaluated
    and exported); epsilon is label smoothing."""

    def __init__(self, *, weight: float = 1.0, epsilon: float | None = None, reduction: str = "mean",
                 student: str = "Student", key: str | None = None):
        _only_mean(reduction)
        super().__init__(weight, ["CELoss"], [student], key, epsilon)


def distinct(value: Any) -> Sequence[str]:
    """Names of networks, as they are. Raises ValueError unless they are a list without a repetition."""
    if isinstance(value, str) or not value or len(set(value)) < len(value):
        raise ValueError(f"model_names: expected a list of different networks such as [Student], found {value!r}")
    return value


def _pairs(value: Any) -> list[tuple[str, str]]:
    listed = isinstance(value, (list, tuple)) and len(value) > 0
    if not listed or not all(isinstance(p, (list, tuple)) and len(p) == 2 and all(isinstance(r, str) for r in p)
                             for p in value):
        raise ValueError(f"expected pairs of networks such as [[Student, Teacher]], found {value!r}")
    pairs = [(p[0], p[1]) for p in value]
    for pair in pairs:
        if pair[0] == pair[1]:
            raise ValueError(f"{pair[0]} is compared with itself")
        if pairs.count(pair) > 1:
            raise ValueError(f"pair {list(pair)} is listed twice; raise its weight instead")
    return pairs


def _number(name: str, value: Any, above: float = -math.inf) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= above:
        wanted = "a number" if above == -math.inf else f"a number above {above:g}"
        raise ValueError(f"{name}: expected {wanted}, found {value!r}")
    return float(value)


def smoothing(epsilon: Any) -> float:
    value = 0.0 if epsilon is None else _number("epsilon", epsilon)
    if not 0.0 <= value < 1.0:
        raise ValueError(f"epsilon: expected label smoothing of 0 or more and less than 1, found {epsilon!r}")
    return value


def _choice(name: str, value: Any, table: Mapping[Any, Callable]) -> Callable:
    if value not in table:
        raise ValueError(f"{name}: expected one of {', '.join(str(k) for k in table)}, found {value!r}")
    return table[value]


def _only_mean(reduction: str) -> None:
    if reduction != "mean":
        raise ValueError(f"reduction: found {reduction!r}; every loss here is the mean over its samples. "
                         "Remove it and scale with weight")
