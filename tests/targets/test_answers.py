"""A teacher's answer in few bits."""

import numpy as np
import pytest

from ppcls_ssld.errors import ConfigError, WeightsError
from ppcls_ssld.targets.answers import FLOOR, AnswerCodec, largest_step, log_softmax, pack_bits, unpack_bits

CASES = [(1000, 10, 12), (1000, 1, 8), (10, 9, 16), (10, 10, 12), (2, 1, 8), (2, 2, 16), (21841, 50, 12), (70000, 5, 8)]


def logits_of(classes, n=16, seed=0):
    """From nearly uniform to sure, in one array."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, classes)) * np.linspace(0.01, 6, n)[:, None]).astype(np.float32)


@pytest.mark.parametrize("width", [1, 7, 8, 10, 12, 16, 17, 24])
def test_numbers_of_any_width_come_back(width):
    values = np.random.default_rng(width).integers(0, 1 << width, (9, 11))
    values[0], values[1] = 0, (1 << width) - 1
    packed = pack_bits(values, width)
    assert packed.shape == (9, -(-11 * width // 8)) and np.array_equal(unpack_bits(packed, 11, width), values)


@pytest.mark.parametrize("classes,k,bits", CASES)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_likeliest_classes_come_back_in_order_with_all_mass_accounted_for(classes, k, bits, temperature):
    codec, logits = AnswerCodec(classes, k, bits), logits_of(classes)
    answer = codec.decode(codec.encode(logits, temperature))
    log_probs = log_softmax(logits, temperature)
    assert np.array_equal(answer.classes, np.argsort(-log_probs, axis=1, kind="stable")[:, :k])
    assert (np.diff(answer.log_probs, axis=1) <= 0).all()
    total = np.exp(answer.log_probs.astype(np.float64)).sum(1) + np.exp(answer.log_rest.astype(np.float64))
    assert np.allclose(total, 1, atol=3e-6)
    assert np.isneginf(answer.log_rest).all() == (k == classes)
    assert answer.classes.dtype == np.int32 and answer.log_probs.dtype == answer.log_rest.dtype == np.float32


@pytest.mark.parametrize("classes,k,bits", CASES)
def test_errors_stay_within_the_stated_step(classes, k, bits):
    codec, logits = AnswerCodec(classes, k, bits), logits_of(classes)
    answer, true = codec.decode(codec.encode(logits)), log_softmax(logits)
    wanted = np.take_along_axis(true, answer.classes.astype(int), 1)
    true_odds, odds = wanted - wanted[:, :1], answer.log_probs.astype(np.float64) - answer.log_probs[:, :1]
    allowed = np.vectorize(lambda depth: largest_step(bits, depth))(-true_odds)
    assert (np.abs(odds - true_odds) <= allowed + 4e-6).all()
    left_out = true.copy()
    np.put_along_axis(left_out, answer.classes.astype(int), -np.inf, 1)
    if k < classes:
        rest = np.exp(left_out).sum(1)
        assert np.abs(np.expm1(answer.log_rest - np.log(rest))).max() < 2 * np.expm1(largest_step(bits, FLOOR)) + 1e-5


def test_more_bits_are_nearer():
    logits, found = logits_of(1000), []
    for bits in (8, 12, 16):
        codec = AnswerCodec(1000, 10, bits)
        answer = codec.decode(codec.encode(logits))
        wanted = np.take_along_axis(log_softmax(logits), answer.classes.astype(int), 1)
        found.append(np.abs(answer.log_probs - wanted).max())
    assert found[0] > 8 * found[1] > 64 * found[2] > 0


def test_a_teacher_that_is_surer_than_the_floor_is_raised_to_it():
    codec = AnswerCodec(5, 2, 12)
    answer = codec.decode(codec.encode(np.array([[0.0, -1e4, -2e4, -2e4, -2e4]])))
    assert answer.log_probs[0].tolist() == [0.0, -FLOOR] and answer.log_rest[0] == pytest.approx(np.log(3) - FLOOR)


def test_equal_classes_are_kept_by_lower_id():
    codec = AnswerCodec(300, 4, 8)
    assert codec.decode(codec.encode(np.zeros((1, 300)))).classes.tolist() == [[0, 1, 2, 3]]


def test_ten_of_a_thousand_classes_in_twelve_bits_take_28_bytes():
    assert AnswerCodec(1000, 10, 12).dtype.itemsize == 13 + 15


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(WeightsError, match="not finite"):
        AnswerCodec(3, 1, 8).encode(np.array([[0.0, np.nan, 1.0]]))


@pytest.mark.parametrize("classes,k,bits", [(10, 11, 8), (10, 0, 8), (10, 3, 9), (1, 1, 8), (1 << 25, 5, 8)])
def test_what_cannot_be_stored_is_refused(classes, k, bits):
    with pytest.raises(ConfigError):
        AnswerCodec(classes, k, bits)
