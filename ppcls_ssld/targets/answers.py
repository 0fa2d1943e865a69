"""A teacher's answer in few bits: the k likeliest classes, their log-probabilities, and the mass of all others.

Stored are the class ids, ceil(log2 C) bits each, and k depths of `bits` bits each: how far below the likeliest class
the others of the k lie in log-probability, and how far below it the mean probability of the C - k classes that are left
out (nothing where none is). The k + 1 masses sum to 1, which gives the likeliest class back, without bits of its own.

A depth d in [0, FLOOR] is stored as round(sqrt(d / FLOOR) * (2^bits - 1)): finer where probabilities are large. A
class's log-odds against the likeliest are wrong by at most `largest_step(bits, d)`, its log-probability by that and
the mean of such errors over classes. What is more than FLOOR below the likeliest, less than 4e-18 of it, is raised to
that.

What is lost with the C - k others. t: the teacher; r: its mass there; s: the student, m: its mass there; t', s', u: t,
s and the uniform distribution among the others alone; v: what a tail rule puts in the place of t', s' or u. Symmetric
KL, 1/2 [KL(t||s) + KL(s||t)], of the true teacher is that of the completed one plus exactly

    1/2 { r [KL(t'||s') - KL(v||s')] + m [KL(s'||t') - KL(s'||v)] }.

tail student (v = s'): that is 1/2 [r KL(t'||s') + m KL(s'||t')], never negative. The loss is that of k + 1 outcomes, a
lower bound (data-processing inequality; it holds for every f-divergence), and so is its gradient, if v is a constant.
tail uniform (v = u): that is of either sign.
The gradient with respect to the student's logits (temperature 1) is wrong by at most
    r TV(t', v) + m E_s' |log t' - log v|  in L1 norm, TV <= 1;
the first summand is half of what KL(t||s) alone has, whose gradient s - t is wrong by 2 r TV(t', v), at most 2 r, and
exact on the k classes. E_s' is the mean over the others as the student sees them.
"""

from __future__ import annotations

import math

import numpy as np

from ..errors import ConfigError, WeightsError
from ..structs import SparseTargets

FLOOR = 40.0  # nats below the likeliest class
BITS = (8, 12, 16)
TAILS = ("student", "uniform")
_MOST_CLASSES = 1 << 24


def largest_step(bits: int, depth: float) -> float:
    """Largest error of a stored log-probability that lies `depth` nats below the likeliest (0 <= depth <= FLOOR)."""
    half = 0.5 / ((1 << bits) - 1)
    return FLOOR * half * (2 * math.sqrt(min(depth, FLOOR) / FLOOR) + half)


class AnswerCodec:
    """Answers of a teacher with `class_num` classes <-> bytes; k: classes kept, at most all of them."""

    def __init__(self, class_num: int, k: int, bits: int):
        if not 2 <= class_num <= _MOST_CLASSES:
            raise ConfigError(f"Arch.class_num is {class_num:,}; targets can be stored for 2 to {_MOST_CLASSES:,}")
        if not 1 <= k <= class_num or bits not in BITS:
            raise ConfigError(f"expected 1 to {class_num:,} classes kept (--top-k) and 8, 12 or 16 bits (--bits), "
                              f"found {k} and {bits}")
        self.class_num, self.k, self.bits = class_num, k, bits
        self.id_bits = max(1, (class_num - 1).bit_length())
        self._depths = min(k, class_num - 1)  # k - 1 classes and, unless it is nothing, the rest
        self.dtype = np.dtype([("classes", "u1", (_bytes(k * self.id_bits),)),
                               ("depths", "u1", (_bytes(self._depths * bits),))])

    def encode(self, logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
        """Records [N] of `dtype` from logits [N, C]. Equal classes are kept by lower id. WeightsError: not finite."""
        log_probs = log_softmax(logits, temperature)
        best = np.argsort(-log_probs, axis=1, kind="stable")[:, :self.k]
        top = np.take_along_axis(log_probs, best, 1)
        depths = top[:, :1] - top[:, 1:]
        if self.k < self.class_num:
            np.put_along_axis(log_probs, best, -np.inf, 1)
            highest = log_probs.max(1, keepdims=True)
            rest = highest + np.log(np.exp(log_probs - highest).sum(1, keepdims=True))
            depths = np.concatenate([depths, top[:, :1] - rest + math.log(self.class_num - self.k)], axis=1)
        codes = np.rint(np.sqrt(np.clip(depths / FLOOR, 0.0, 1.0)) * ((1 << self.bits) - 1))
        records = np.zeros(len(logits), self.dtype)
        records["classes"] = pack_bits(best, self.id_bits)
        records["depths"] = pack_bits(codes.astype(np.int64), self.bits)
        return records

    def decode(self, records: np.ndarray) -> SparseTargets:
        """What `encode` was given, as far as it was kept; records: any array [N] with the fields of `dtype`."""
        classes = unpack_bits(records["classes"], self.k, self.id_bits).astype(np.int32)
        codes = unpack_bits(records["depths"], self._depths, self.bits) / float((1 << self.bits) - 1)
        parts = np.zeros((len(records), self._depths + 1))  # log of the mass of each of the k, and of the rest
        parts[:, 1:] = -FLOOR * codes * codes
        if self.k < self.class_num:
            parts[:, -1] += math.log(self.class_num - self.k)
        parts -= np.log(np.exp(parts).sum(1, keepdims=True))
        log_rest = parts[:, -1] if self.k < self.class_num else np.full(len(records), -np.inf)
        return SparseTargets(classes, parts[:, :self.k].astype(np.float32), log_rest.astype(np.float32))


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """float64 [N, C] of logits [N, C] / temperature. WeightsError when they are not finite."""
    if not np.isfinite(logits).all():
        raise WeightsError("the teacher's logits are not finite; are its weights and the input's normalisation right?")
    scores = logits.astype(np.float64) / temperature
    scores -= scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def pack_bits(values: np.ndarray, width: int) -> np.ndarray:
    """uint8 [N, bytes] of whole numbers [N, m] below 2^width: least significant bit first, one after the other."""
    bits = values[..., None] >> np.arange(width) & 1
    return np.packbits(bits.reshape(len(values), -1).astype(np.uint8), axis=1, bitorder="little")


def unpack_bits(packed: np.ndarray, count: int, width: int) -> np.ndarray:
    """uint32 [N, count] of what `pack_bits` made; width at most 24."""
    starts = np.arange(count) * width
    padded = np.zeros((len(packed), packed.shape[1] + 4), np.uint8)
    padded[:, :packed.shape[1]] = packed
    words = np.zeros((len(packed), count), np.uint32)
    for i in range((width + 14) // 8):  # bytes that a number of this width can touch
        words |= padded[:, starts // 8 + i].astype(np.uint32) << np.uint32(8 * i)
    return words >> (starts % 8).astype(np.uint32) & np.uint32((1 << width) - 1)


def _bytes(bits: int) -> int:
    return -(-bits // 8)
