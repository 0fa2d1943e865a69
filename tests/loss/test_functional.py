"""The per-sample losses: exactness against 60-digit arithmetic, bounds, extremes, and who gets a gradient."""

import math
from decimal import Decimal, localcontext

import numpy as np
import paddle
import pytest

from ppcls_ssld.loss import functional

DIVERGENCES = ("symmetric_kl", "js_divergence", "kl_divergence")
SOFT_LOSSES = (*DIVERGENCES, "soft_cross_entropy")


def evaluate(name, student, teacher, dtype="float32", **arguments):
    """(values [N], gradients [N, C]) as float64 arrays."""
    logits = paddle.to_tensor(student).astype(dtype)
    logits.stop_gradient = False
    values = getattr(functional, name)(logits, paddle.to_tensor(teacher).astype(dtype), **arguments)
    assert values.dtype == paddle.float32 and list(values.shape) == [len(student)]
    values.sum().backward()
    assert logits.grad.dtype == logits.dtype
    return values.numpy().astype("f8"), logits.grad.astype("float32").numpy().astype("f8")


def normal(seed, rows, classes, std):
    return (std * np.random.default_rng(seed).standard_normal((rows, classes))).astype("f4")


def log_softmax(row):
    top = max(row)
    log_sum = sum((x - top).exp() for x in row).ln()
    return [x - top - log_sum for x in row]


def exact(student, teacher):
    """name -> (value, gradient) of one row of logits, by the textbook formulas in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        log_s, log_t = (log_softmax([Decimal(float(x)) for x in row]) for row in (student, teacher))
        s, t = ([x.exp() for x in row] for row in (log_s, log_t))
        log_m = [((a + b) / 2).ln() for a, b in zip(s, t)]
        s_over_t = [a - b for a, b in zip(log_s, log_t)]
        s_over_m = [a - b for a, b in zip(log_s, log_m)]
        reverse_kl = sum(p * x for p, x in zip(s, s_over_t))
        s_to_m = sum(p * x for p, x in zip(s, s_over_m))
        kl = -sum(p * x for p, x in zip(t, s_over_t))
        minus = [p - q for p, q in zip(s, t)]
        result = {
            "symmetric_kl": ((kl + reverse_kl) / 2,
                             [(g + p * (x - reverse_kl)) / 2 for g, p, x in zip(minus, s, s_over_t)]),
            "js_divergence": ((sum(q * (b - m) for q, b, m in zip(t, log_t, log_m)) + s_to_m) / 2,
                              [p * (x - s_to_m) / 2 for p, x in zip(s, s_over_m)]),
            "kl_divergence": (kl, minus),
            "soft_cross_entropy": (-sum(q * a for q, a in zip(t, log_s)), minus),
            "hard_cross_entropy": (-log_s[0], [p - (i == 0) for i, p in enumerate(s)]),
        }
    return {name: (float(value), np.array(gradient, "f8")) for name, (value, gradient) in result.items()}


def _regimes():
    noise = normal(1, 1, 1000, 1.0)
    calm, sharp = normal(2, 1, 1000, 3.0), normal(3, 1, 1000, 50.0)
    return {
        "ordinary": (calm, normal(4, 1, 1000, 3.0)),
        "std 50": (sharp, normal(5, 1, 1000, 50.0)),
        "std 1e4": (normal(6, 1, 1000, 1e4), normal(7, 1, 1000, 1e4)),
        "apart by 1e-3": (calm, calm + np.float32(1e-3) * noise),
        "apart by 1e-6": (calm, calm + np.float32(1e-6) * noise),
        "sharp and close": (sharp, sharp + np.float32(1e-2) * noise),
        "close but for a shift": (calm, calm + np.float32(7) + np.float32(1e-4) * noise),
        "sure, and the teacher almost as sure": (np.eye(1, 1000, dtype="f4") * 40, np.eye(1, 1000, dtype="f4") * 45),
    }


REGIMES = _regimes()


@pytest.mark.parametrize("regime", REGIMES)
def test_values_and_gradients_equal_exact_arithmetic_at_1000_classes(regime):
    student, teacher = REGIMES[regime]
    for name, (value, gradient) in exact(student[0], teacher[0]).items():
        if name == "hard_cross_entropy":
            logits = paddle.to_tensor(student, stop_gradient=False)
            values = functional.hard_cross_entropy(logits, paddle.zeros([1], "int64"))
            values.sum().backward()
            values, gradients = values.numpy(), logits.grad.numpy().astype("f8")
        else:
            values, gradients = evaluate(name, student, teacher)
        # 1e-37: below float32's smallest normal number nothing can be said.
        assert abs(values[0] - value) <= 1e-6 * value + 1e-37, name
        assert np.linalg.norm(gradients[0] - gradient) <= 1e-6 * np.linalg.norm(gradient) + 1e-37, name


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_logits_of_1e4_give_finite_values_and_gradients(name, dtype):
    signs = np.array([[1, -1, 1, -1], [-1, 1, 1, 1], [1, 1, 1, 1], [-1, -1, -1, 1]], "f4")
    values, gradients = evaluate(name, 1e4 * signs, -1e4 * signs, dtype)
    assert np.isfinite(values).all() and np.isfinite(gradients).all()
    assert values.max() > (0.69 if name == "js_divergence" else 5e3)  # not clipped at 64, as Paddle's softmax would be


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_equal_logits_give_exactly_zero_value_and_gradient(name, dtype):
    for std in (0.01, 3.0, 1e4):
        logits = normal(8, 3, 1000, std)
        values, gradients = evaluate(name, logits, logits, dtype)
        assert not values.any() and not gradients.any()


@pytest.mark.parametrize("name", DIVERGENCES)
def test_divergences_are_never_negative(name):
    for seed, gap in enumerate([0.0, 1e-7, 1e-5, 1e-2, 1.0, 100.0]):
        student = normal(seed, 32, 10, 3.0)
        values, _ = evaluate(name, student, student + np.float32(gap) * normal(seed + 10, 32, 10, 1.0))
        assert (values >= 0).all()


def test_js_divergence_never_exceeds_ln_2_even_in_total_disagreement():
    for scale in (1.0, 20.0, 1e4):
        values, _ = evaluate("js_divergence", scale * np.eye(8, dtype="f4"), scale * np.eye(8, dtype="f4")[::-1].copy())
        assert (values <= math.log(2)).all()
    assert values.min() > 0.693147


@pytest.mark.parametrize("name", ["symmetric_kl", "js_divergence"])
def test_symmetric_losses_do_not_care_who_is_the_teacher(name):
    a, b = normal(9, 16, 100, 3.0), normal(10, 16, 100, 3.0)
    np.testing.assert_allclose(evaluate(name, a, b)[0], evaluate(name, b, a)[0], rtol=1e-6)


def test_kl_divergence_is_from_teacher_to_student():
    sure, unsure = np.array([[4.0, 0.0]], "f4"), np.array([[0.0, 0.0]], "f4")
    t = 1 / (1 + math.exp(-4))
    expected = t * math.log(t) + (1 - t) * math.log(1 - t) + math.log(2)
    assert evaluate("kl_divergence", unsure, sure)[0][0] == pytest.approx(expected, rel=1e-6)
    assert evaluate("kl_divergence", sure, unsure)[0][0] > 1.5 * expected


def test_near_agreement_symmetric_kl_is_four_times_js():
    student = normal(11, 8, 1000, 3.0)
    teacher = student + np.float32(1e-3) * normal(12, 8, 1000, 1.0)
    ratio = evaluate("symmetric_kl", student, teacher)[0] / evaluate("js_divergence", student, teacher)[0]
    np.testing.assert_allclose(ratio, 4.0, rtol=1e-3)


def test_soft_cross_entropy_is_kl_plus_the_teachers_entropy_with_the_gradient_of_kl():
    student, teacher = normal(13, 8, 50, 2.0), normal(14, 8, 50, 2.0)
    value, gradient = evaluate("soft_cross_entropy", student, teacher)
    kl, kl_gradient = evaluate("kl_divergence", student, teacher)
    entropy, _ = evaluate("soft_cross_entropy", teacher, teacher)
    np.testing.assert_allclose(value, kl + entropy, rtol=1e-6)
    np.testing.assert_array_equal(gradient, kl_gradient)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_the_gradient_goes_to_the_student_alone(name):
    student = paddle.to_tensor(normal(15, 4, 10, 1.0), stop_gradient=False)
    teacher = paddle.to_tensor(normal(16, 4, 10, 1.0), stop_gradient=False)
    getattr(functional, name)(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_the_gradient_of_each_sample_is_scaled_by_what_comes_from_above(name):
    student, teacher = normal(17, 4, 10, 1.0), normal(18, 4, 10, 1.0)
    _, plain = evaluate(name, student, teacher)
    logits = paddle.to_tensor(student, stop_gradient=False)
    scale = np.array([0.0, 1.0, -2.0, 0.5], "f4")
    values = getattr(functional, name)(logits * 1.0, paddle.to_tensor(teacher))
    (values * paddle.to_tensor(scale)).sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), plain * scale[:, None], rtol=1e-6)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_temperature_divides_logits_and_adds_no_factor(name):
    student, teacher = normal(19, 8, 20, 4.0), normal(20, 8, 20, 4.0)
    values, gradients = evaluate(name, student, teacher, temperature=4.0)
    cooled, cooled_gradients = evaluate(name, student / 4, teacher / 4)
    np.testing.assert_allclose(values, cooled, rtol=1e-6)
    np.testing.assert_allclose(gradients, cooled_gradients / 4, rtol=1e-6)


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_a_sample_does_not_see_its_batch(name):
    student, teacher = normal(21, 6, 30, 3.0), normal(22, 6, 30, 3.0)
    values, gradients = evaluate(name, student, teacher)
    for i in range(6):
        value, gradient = evaluate(name, student[i:i + 1], teacher[i:i + 1])
        assert value[0] == values[i] and (gradient[0] == gradients[i]).all()


@pytest.mark.parametrize("name", SOFT_LOSSES)
def test_classes_may_be_renumbered_and_logits_shifted(name):
    student, teacher = normal(23, 4, 30, 3.0), normal(24, 4, 30, 3.0)
    order = np.random.default_rng(0).permutation(30)
    values, gradients = evaluate(name, student, teacher)
    renumbered, renumbered_gradients = evaluate(name, student[:, order] + np.float32(8),
                                                teacher[:, order] - np.float32(4))
    np.testing.assert_allclose(renumbered, values, rtol=1e-5)
    np.testing.assert_allclose(renumbered_gradients, gradients[:, order], atol=1e-6)


def test_nothing_is_recorded_where_no_gradient_is_wanted():
    logits = paddle.to_tensor(normal(25, 2, 5, 1.0))
    assert functional.symmetric_kl(logits, logits).stop_gradient


def test_hard_cross_entropy_is_minus_the_log_probability_of_the_label():
    logits, labels = normal(26, 8, 10, 2.0), np.arange(8) % 10
    probs = np.exp(logits.astype("f8")) / np.exp(logits.astype("f8")).sum(1, keepdims=True)
    values = functional.hard_cross_entropy(paddle.to_tensor(logits), paddle.to_tensor(labels))
    np.testing.assert_allclose(values.numpy(), -np.log(probs[np.arange(8), labels]), rtol=1e-6)


def test_label_smoothing_mixes_in_the_uniform_distribution():
    tensor = paddle.to_tensor(normal(27, 8, 10, 2.0), stop_gradient=False)
    labels = paddle.arange(8, dtype="int64")
    smoothed = functional.hard_cross_entropy(tensor, labels, label_smoothing=0.3)
    hard = functional.hard_cross_entropy(tensor, labels)
    uniform = functional.soft_cross_entropy(tensor, paddle.zeros([8, 10]))
    np.testing.assert_allclose(smoothed.numpy(), (0.7 * hard + 0.3 * uniform).numpy(), rtol=1e-6)
    expected, = paddle.grad((0.7 * hard + 0.3 * uniform).sum(), tensor)
    found, = paddle.grad(smoothed.sum(), tensor)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), atol=1e-7)


def test_unlabelled_samples_give_exactly_zero_in_hard_cross_entropy():
    tensor = paddle.to_tensor(1e4 * normal(28, 4, 10, 1.0), stop_gradient=False)
    values = functional.hard_cross_entropy(tensor, paddle.to_tensor([3, -1, -7, 9]), label_smoothing=0.1)
    values.sum().backward()
    assert (values.numpy() == 0).tolist() == [False, True, True, False]
    assert (tensor.grad.numpy() == 0).all(1).tolist() == [False, True, True, False]


def test_a_label_beyond_the_classes_is_loud():
    values = functional.hard_cross_entropy(paddle.zeros([2, 10]), paddle.to_tensor([10, 9])).numpy()
    assert np.isnan(values[0]) and np.isfinite(values[1])


def test_binary_symmetric_kl_counts_both_halves_of_each_bernoulli():
    a, b = normal(29, 6, 5, 2.0), normal(30, 6, 5, 2.0)
    p, q = (1 / (1 + np.exp(-x.astype("f8"))) for x in (a, b))
    two_way = [p * np.log(p / q) + q * np.log(q / p) + (1 - p) * np.log((1 - p) / (1 - q))
               + (1 - q) * np.log((1 - q) / (1 - p))]
    logits = paddle.to_tensor(a, stop_gradient=False)
    values = functional.binary_symmetric_kl(logits, paddle.to_tensor(b))
    values.sum().backward()
    np.testing.assert_allclose(values.numpy(), 0.5 * two_way[0].sum(1), rtol=1e-5)
    np.testing.assert_allclose(logits.grad.numpy(), 0.5 * (p - q + p * (1 - p) * (a - b)), rtol=1e-5, atol=1e-7)
    assert not functional.binary_symmetric_kl(logits, logits.detach()).numpy().any()
    extreme = functional.binary_symmetric_kl(paddle.to_tensor([[1e4, -1e4]]), paddle.to_tensor([[-1e4, 1e4]]))
    assert extreme.item() == pytest.approx(2e4)


def test_symmetric_kl_of_probabilities_is_symmetric_kl_of_their_logits():
    a, b = normal(31, 6, 5, 2.0), normal(32, 6, 5, 2.0)
    expected, _ = evaluate("symmetric_kl", a, b)
    s, t = (paddle.nn.functional.softmax(paddle.to_tensor(x)) for x in (a, b))
    np.testing.assert_allclose(functional.symmetric_kl_of_probs(s, t).numpy(), expected, rtol=1e-5)
    s = paddle.to_tensor([[1.0, 0.0]], stop_gradient=False)
    value = functional.symmetric_kl_of_probs(s, paddle.to_tensor([[0.0, 1.0]]))
    value.sum().backward()
    assert value.item() == pytest.approx(-math.log(1e-12), rel=1e-6) and np.isfinite(s.grad.numpy()).all()


def test_shapes_temperature_and_smoothing_that_make_no_sense_are_refused():
    a, b = paddle.zeros([4, 10]), paddle.zeros([4, 11])
    with pytest.raises(ValueError, match=r"found \[4, 10\] and \[4, 11\].*class_num"):
        functional.symmetric_kl(a, b)
    with pytest.raises(ValueError, match="temperature: expected a positive number, found 0"):
        functional.kl_divergence(a, a, temperature=0.0)
    with pytest.raises(ValueError, match="label_smoothing"):
        functional.hard_cross_entropy(a, paddle.zeros([4], "int64"), label_smoothing=1.0)
    with pytest.raises(ValueError, match=r"labels \[N\], found \[4, 10\] and \[4, 1\]"):
        functional.hard_cross_entropy(a, paddle.zeros([4, 1], "int64"))
