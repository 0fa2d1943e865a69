"""Losses as pure functions: logits [N, C] in, one float32 number per sample out, nothing averaged.

Natural logarithm, sum over classes. The gradient goes to the student alone, in closed form; the other argument is a
constant. Logits are divided by `temperature`; the usual factor T^2, which keeps gradients of one size over
temperatures, is the caller's (`scale_by_t2` in terms.py).

Inside, a few [N, C] arrays live in float64 for a moment, whatever AMP does outside: next to a network that costs
little, and the formulas stay exact to float32 rounding for logits that are nearly equal and for logits of +-1e4.
Paddle's own softmax and log_softmax cannot be used: on CPU they clip at 64 below the maximum.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

# The largest float32 that is not above ln 2; float32(ln 2) itself is.
_LN2_FLOAT32 = float(np.nextafter(np.float32(math.log(2)), np.float32(0)))


def symmetric_kl(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, temperature: float = 1.0
                 ) -> paddle.Tensor:
    """Half the Jeffreys divergence, 1/2 [KL(t||s) + KL(s||t)]: the loss of SSLD (arXiv 2103.05959), there called JS.

    What PaddleClas computes as DMLLoss (ppcls/loss/dmlloss.py, d178931), without its eps, which caps each log ratio at
    27.6. Logits [N, C] of any float type -> float32 [N], >= 0, unbounded, exactly 0 for equal logits.
    """

    def formula(log_s, log_t):
        s, _, ratio, gap = _compare(log_s, log_t)
        reverse_kl = (gap - s * ratio).sum(-1, keepdim=True)
        return 0.5 * (gap * ratio).sum(-1), -0.5 * (gap + s * (ratio + reverse_kl))

    return _from_logits(formula, student_logits, teacher_logits, temperature)


def js_divergence(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, temperature: float = 1.0
                  ) -> paddle.Tensor:
    """Jensen-Shannon divergence, 1/2 [KL(t||m) + KL(s||m)] with m = (s+t)/2 (Lin, 1991).

    About a quarter of `symmetric_kl` near agreement, and so is its gradient. Logits [N, C] of any float type ->
    float32 [N] in [0, ln 2], exactly 0 for equal logits.
    """

    def formula(log_s, log_t):
        s, t, ratio, gap = _compare(log_s, log_t)
        value = 0.5 * (0.5 * gap * ratio - (s + t) * _log_cosh(0.5 * ratio)).sum(-1)
        # log(m/s) = softplus(ratio) - ln 2, seen from the student's best class: a sure student's mean of it is almost
        # that class's own value, and its gradient lives in the difference.
        best = paddle.take_along_axis(ratio, s.argmax(-1, keepdim=True), -1)
        m_over_s = _softplus_difference(ratio, best)
        slope = 0.5 * s * ((s * m_over_s).sum(-1, keepdim=True) - m_over_s)
        return value.clip(0.0, _LN2_FLOAT32), slope

    return _from_logits(formula, student_logits, teacher_logits, temperature)


def kl_divergence(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, temperature: float = 1.0
                  ) -> paddle.Tensor:
    """KL(teacher || student) (Hinton et al., 2015, arXiv 1503.02531).

    Logits [N, C] of any float type -> float32 [N], >= 0, unbounded, exactly 0 for equal logits.
    """

    def formula(log_s, log_t):
        _, t, ratio, gap = _compare(log_s, log_t)
        return (t * ratio - gap).sum(-1).clip(min=0.0), -gap

    return _from_logits(formula, student_logits, teacher_logits, temperature)


def soft_cross_entropy(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, temperature: float = 1.0
                       ) -> paddle.Tensor:
    """Cross entropy of the student under the teacher's distribution: KL(t||s) + H(t), with the gradient of KL(t||s).

    Logits [N, C] of any float type -> float32 [N], >= 0; at equality it is the teacher's entropy, not 0.
    """

    def formula(log_s, log_t):
        _, t, _, gap = _compare(log_s, log_t)
        return -(t * log_s).sum(-1), -gap

    return _from_logits(formula, student_logits, teacher_logits, temperature)


def hard_cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, label_smoothing: float = 0.0) -> paddle.Tensor:
    """Cross entropy with class ids; smoothing mixes the one-hot target with the uniform one.

    logits: [N, C] of any float type. labels: int64 [N]; a negative label means unlabelled, and such a sample gives
    exactly 0, value and gradient. Returns float32 [N], NaN where a label is C or more.
    Raises ValueError for shapes that do not fit or smoothing outside [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: expected 0 or more and less than 1, found {label_smoothing}")
    if len(logits.shape) != 2 or list(labels.shape) != [logits.shape[0]]:
        raise ValueError(f"expected logits [N, C] and labels [N], found {list(logits.shape)} and {list(labels.shape)}")
    classes = logits.shape[1]

    def formula(scores):
        log_s = _log_softmax(scores)
        column = labels.unsqueeze(-1)
        # Compared, never indexed with: no label can read another class's score.
        one_hot = (paddle.arange(classes, dtype=labels.dtype) == column).astype("float64")
        target = (1.0 - label_smoothing) * one_hot + label_smoothing / classes
        known = (column >= 0).astype("float64")
        wrong = paddle.where(labels < classes, paddle.zeros_like(log_s[:, 0]), paddle.full_like(log_s[:, 0], math.nan))
        off_target = paddle.where(one_hot > 0, paddle.expm1(log_s), paddle.exp(log_s))  # s - one_hot, exact near 0
        slope = off_target + label_smoothing * (one_hot - 1.0 / classes)
        return -(known * target * log_s).sum(-1) + wrong, known * slope

    return _differentiable(formula, logits)


def label_weights(labels: paddle.Tensor, yes_share: paddle.Tensor | None = None) -> paddle.Tensor:
    """What each of several labels of an image counts: float64 [N, C], 0 where the label is not known.

    labels: [N, C], 1 yes, 0 no, negative not known. yes_share: float [C] r in [0, 1], how often each label is yes. With
    it a yes counts exp(1 - r) and a no exp(r), PaddleClas's `weight_ratio` (ppcls/loss/multilabelloss.py, d178931);
    without it every known label counts 1.
    """
    labels = labels.astype("float64")
    weights = (labels >= 0).astype("float64")
    if yes_share is not None:
        share = yes_share.astype("float64")
        weights = weights * paddle.exp(paddle.where(labels > 0, 1.0 - share, share + paddle.zeros_like(labels)))
    return weights


def binary_cross_entropy(logits: paddle.Tensor, labels: paddle.Tensor, weights: paddle.Tensor | None = None,
                         label_smoothing: float = 0.0) -> paddle.Tensor:
    """Cross entropy of C yes/no predictions (sigmoid) with their labels, summed over classes.

    logits: [N, C] of any float type. labels: [N, C], 1 yes, 0 no; a negative label is not known and gives exactly 0,
    value and gradient. weights: float [N, C], factors of the C terms. Smoothing mixes each label with 1/2.
    Returns float32 [N], >= 0. Raises ValueError for shapes that do not fit or smoothing outside [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"label_smoothing: expected 0 or more and less than 1, found {label_smoothing}")
    if len(logits.shape) != 2 or list(labels.shape) != list(logits.shape):
        raise ValueError(f"expected logits and labels [N, C], found {list(logits.shape)} and {list(labels.shape)}")

    def formula(scores):
        truth = labels.astype("float64")
        factor = label_weights(labels) if weights is None else label_weights(labels) * weights.astype("float64")
        yes = (1.0 - label_smoothing) * truth + 0.5 * label_smoothing
        no = 1.0 - yes  # each side apart: a sure and right answer keeps its small loss
        value = yes * _softplus(-scores) + no * _softplus(scores)
        return (factor * value).sum(-1), factor * (no * F.sigmoid(scores) - yes * F.sigmoid(-scores))

    return _differentiable(formula, logits)


def weighted_symmetric_kl(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, weights: paddle.Tensor
                          ) -> paddle.Tensor:
    """`symmetric_kl` whose C terms 1/2 (t - s) (log t - log s), none of them negative, have factors of their own.

    What PaddleClas's DMLLoss computes with labels (ppcls/loss/dmlloss.py, d178931), without its eps. Logits [N, C] of
    any float type, weights float [N, C] -> float32 [N], >= 0, exactly 0 for equal logits.
    """

    def formula(log_s, log_t):
        s, _, ratio, gap = _compare(log_s, log_t)
        pull = factor * (s * ratio + gap)
        return 0.5 * (factor * gap * ratio).sum(-1), 0.5 * (s * pull.sum(-1, keepdim=True) - pull)

    factor = weights.astype("float64")
    return _from_logits(formula, student_logits, teacher_logits, 1.0)


def binary_symmetric_kl(student_logits: paddle.Tensor, teacher_logits: paddle.Tensor,
                        weights: paddle.Tensor | None = None) -> paddle.Tensor:
    """Symmetric KL of C independent yes/no predictions (sigmoid), summed over classes.

    Both halves of each Bernoulli count: 1/2 (p - q)(logit p - logit q), where PaddleClas's DMLLoss with
    `act: sigmoid` (ppcls/loss/dmlloss.py, d178931) compares p with q alone. weights: float [N, C], factors of the
    terms. Logits [N, C] of any float type -> float32 [N], >= 0, exactly 0 for equal logits.
    """

    def formula(a, b):
        ratio = b - a
        high, low = paddle.maximum(a, b), paddle.minimum(a, b)
        gap = F.sigmoid(high) * F.sigmoid(-low) * -paddle.expm1(-ratio.abs()) * paddle.sign(ratio)
        value, slope = 0.5 * gap * ratio, -0.5 * (gap + F.sigmoid(a) * F.sigmoid(-a) * ratio)
        return _weighted(value, weights).sum(-1), _weighted(slope, weights)

    _check_pair(student_logits, teacher_logits)
    return _differentiable(formula, student_logits, teacher_logits)


def symmetric_kl_of_probs(student_probs: paddle.Tensor, teacher_probs: paddle.Tensor,
                          weights: paddle.Tensor | None = None, eps: float = 1e-12) -> paddle.Tensor:
    """Symmetric KL of distributions that are given as probabilities; the gradient is with respect to them.

    eps is added inside the logarithms, as PaddleClas does (ppcls/loss/dmlloss.py, d178931), so a probability of 0 is
    allowed. weights: float [N, C], factors of the terms. Probabilities [N, C] -> float32 [N]. Where you have logits,
    `symmetric_kl` is exact.
    """

    def formula(s, t):
        ratio, gap = paddle.log(t + eps) - paddle.log(s + eps), t - s
        value, slope = 0.5 * gap * ratio, -0.5 * (ratio + gap / (s + eps))
        return _weighted(value, weights).sum(-1), _weighted(slope, weights)

    _check_pair(student_probs, teacher_probs)
    return _differentiable(formula, student_probs, teacher_probs)


class _Attach(PyLayer):
    """A value per sample whose gradient with respect to `scores` is known already."""

    @staticmethod
    def forward(ctx, scores, value, slope):
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        slope, = ctx.saved_tensor()
        with paddle.amp.auto_cast(enable=False):
            return upstream.unsqueeze(-1) * slope, None, None


def _differentiable(formula: Callable, scores: paddle.Tensor, *constants: paddle.Tensor) -> paddle.Tensor:
    """formula(float64 arrays [N, C]) -> (value [N], slope [N, C] = d value / d scores), as a float32 tensor [N]."""
    with paddle.no_grad(), paddle.amp.auto_cast(enable=False):
        value, slope = formula(*(x.detach().astype("float64") for x in (scores, *constants)))
        value, slope = value.astype("float32"), slope.astype("float32")
    return _Attach.apply(scores.astype("float32"), value, slope)


def _from_logits(formula: Callable, student_logits: paddle.Tensor, teacher_logits: paddle.Tensor, temperature: float
                 ) -> paddle.Tensor:
    """`_differentiable` for a formula of (log s, log t) whose slope is taken with respect to student logits / T."""
    _check_pair(student_logits, teacher_logits)
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise ValueError(f"temperature: expected a positive number, found {temperature}")

    def tempered(student, teacher):
        value, slope = formula(_log_softmax(student / temperature), _log_softmax(teacher / temperature))
        return value, slope / temperature

    return _differentiable(tempered, student_logits, teacher_logits)


def _check_pair(student: paddle.Tensor, teacher: paddle.Tensor) -> None:
    if len(student.shape) != 2 or list(student.shape) != list(teacher.shape):
        raise ValueError(f"expected student and teacher of one shape [N, C], found {list(student.shape)} and "
                         f"{list(teacher.shape)}; both networks need the same class_num")


def _weighted(terms: paddle.Tensor, weights: paddle.Tensor | None) -> paddle.Tensor:
    return terms if weights is None else terms * weights.astype(terms.dtype)


def _softplus(x: paddle.Tensor) -> paddle.Tensor:
    """log(1 + e^x); Paddle's own is x from 20 on."""
    return x.clip(min=0.0) + paddle.log1p(paddle.exp(-x.abs()))


def _log_softmax(scores: paddle.Tensor) -> paddle.Tensor:
    shifted = scores - scores.max(-1, keepdim=True)
    is_max = shifted == 0.0
    ties = is_max.astype(shifted.dtype).sum(-1, keepdim=True)
    below = paddle.where(is_max, paddle.zeros_like(shifted), paddle.exp(shifted)).sum(-1, keepdim=True)
    # The maxima are counted apart, so that log s keeps its precision where a sure network leaves almost nothing below.
    return shifted - paddle.log(ties) - paddle.log1p(below / ties)


def _compare(log_s: paddle.Tensor, log_t: paddle.Tensor) -> tuple[paddle.Tensor, ...]:
    """(s, t, log(t/s), t - s); the difference keeps its relative precision where s and t nearly agree."""
    ratio = log_t - log_s
    s, t = paddle.exp(log_s), paddle.exp(log_t)
    gap = paddle.where(ratio.abs() < 1.0, s * paddle.expm1(ratio.clip(-1.0, 1.0)), t - s)
    return s, t, ratio, gap


def _log_cosh(x: paddle.Tensor) -> paddle.Tensor:
    size = x.abs()
    near = paddle.log1p(2.0 * paddle.sinh(0.5 * size.clip(max=1.0)) ** 2)
    far = size + paddle.log1p(paddle.exp(-2.0 * size)) - math.log(2.0)
    return paddle.where(size < 1.0, near, far)


def _softplus_difference(x: paddle.Tensor, y: paddle.Tensor) -> paddle.Tensor:
    """log(1 + e^x) - log(1 + e^y), precise also where x and y are close or both far below 0."""
    near = paddle.log1p(F.sigmoid(y) * paddle.expm1((x - y).clip(max=1.0)))
    return paddle.where(x - y < 1.0, near, _softplus(x) - _softplus(y))
