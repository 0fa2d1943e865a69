"""Stored answers: whole again for the losses, exactly under the tail rule, and never above the true divergence."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.errors import ConfigError
from ppcls_ssld.loss import CombinedLoss, SoftTargets
from ppcls_ssld.loss import functional as F
from ppcls_ssld.structs import SparseTargets

N, C = 6, 40


def log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def drawn(seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((2, N, C))).astype(np.float32)


def sparse(teacher, k, tail, temperature=1.0):
    log_t = log_softmax(teacher.astype(np.float64) / temperature)
    classes = np.argsort(-log_t, axis=1)[:, :k]
    known = np.take_along_axis(log_t, classes, 1)
    with np.errstate(divide="ignore"):
        rest = np.log(np.maximum(1 - np.exp(known).sum(1), 0)) if k < C else np.full(N, -np.inf)
    stored = SparseTargets(classes.astype(np.int32), known.astype(np.float32), rest.astype(np.float32))
    return SoftTargets.on_device(stored, tail, temperature)


def value_and_slope(function, student, teacher_logits, temperature=1.0):
    logits = paddle.to_tensor(student, stop_gradient=False)
    value = function(logits, teacher_logits, temperature)
    value.sum().backward()
    return value.numpy(), logits.grad.numpy()


@pytest.mark.parametrize("tail", ["student", "uniform"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_all_classes_stored_is_the_teacher_itself(tail, temperature):
    student, teacher = drawn()
    whole = sparse(teacher, C, tail, temperature).logits_for(paddle.to_tensor(student))
    for function in (F.symmetric_kl, F.js_divergence, F.kl_divergence):
        ours = value_and_slope(function, student, whole, temperature)
        true = value_and_slope(function, student, paddle.to_tensor(teacher), temperature)
        assert np.allclose(ours[0], true[0], rtol=1e-5, atol=1e-6) and np.allclose(ours[1], true[1], atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("k", [1, 5, C - 1])
def test_the_rest_is_spread_as_the_rule_says(k, temperature):
    student, teacher = drawn(1)
    log_t = log_softmax(teacher.astype(np.float64) / temperature)
    others = np.argsort(-log_t, axis=1)[:, k:]
    rest = np.take_along_axis(np.exp(log_t), others, 1).sum(1, keepdims=True)
    s = np.take_along_axis(np.exp(log_softmax(student.astype(np.float64) / temperature)), others, 1)
    shapes = {"uniform": np.full((N, C - k), 1 / (C - k)), "student": s / s.sum(1, keepdims=True)}
    for tail, shape in shapes.items():
        logits = sparse(teacher, k, tail, temperature).logits_for(paddle.to_tensor(student)).numpy()
        t = np.exp(log_softmax(logits.astype(np.float64) / temperature))
        assert np.allclose(np.take_along_axis(t, others, 1), rest * shape, rtol=1e-4)
        assert np.allclose(t.sum(1), 1) and logits.dtype == np.float32


def joined(function, student, teacher, k):
    """The divergence of k + 1 outcomes, the last being all other classes, as a function of student logits."""
    order = np.argsort(-teacher, axis=1)[:, :k]
    scores = paddle.to_tensor(student, dtype="float64", stop_gradient=False)

    def outcomes(logits):
        log_p = logits - paddle.logsumexp(logits, -1, keepdim=True)
        top = paddle.take_along_axis(log_p, paddle.to_tensor(order), 1)
        return paddle.concat([top, paddle.log(1 - paddle.exp(top).sum(-1, keepdim=True))], -1)

    log_s, log_t = outcomes(scores), outcomes(paddle.to_tensor(teacher, dtype="float64"))
    s, t = paddle.exp(log_s), paddle.exp(log_t)
    m = paddle.log((s + t) / 2)
    value = {"symmetric_kl": 0.5 * (t - s) * (log_t - log_s), "kl_divergence": t * (log_t - log_s),
             "js_divergence": 0.5 * (t * (log_t - m) + s * (log_s - m))}[function].sum(-1)
    value.sum().backward()
    return value.numpy(), scores.grad.numpy()


@pytest.mark.parametrize("function", ["symmetric_kl", "kl_divergence", "js_divergence"])
@pytest.mark.parametrize("k", [1, 3, 10])
def test_with_the_students_tail_a_loss_is_that_of_the_joined_outcomes_and_so_is_its_gradient(function, k):
    student, teacher = drawn(2, scale=2.0)
    completed = sparse(teacher, k, "student").logits_for(paddle.to_tensor(student))
    value, slope = value_and_slope(getattr(F, function), student, completed)
    expected_value, expected_slope = joined(function, student, teacher, k)
    assert np.allclose(value, expected_value, rtol=1e-4, atol=1e-6)
    assert np.allclose(slope, expected_slope, atol=2e-6)


@pytest.mark.parametrize("function", [F.symmetric_kl, F.kl_divergence, F.js_divergence])
def test_joining_outcomes_never_adds_divergence_and_more_classes_never_lose_any(function):
    for seed in range(20):
        student, teacher = drawn(seed, scale=4.0)
        true = function(paddle.to_tensor(student), paddle.to_tensor(teacher)).numpy()
        before = np.zeros(N)
        for k in (1, 2, 5, 20, C):
            ours = function(paddle.to_tensor(student),
                            sparse(teacher, k, "student").logits_for(paddle.to_tensor(student))).numpy()
            assert (ours <= true * (1 + 1e-4) + 1e-6).all() and (ours >= before - 1e-5 * (1 + before)).all()
            before = ours
    assert (before > 1e-3).any()


@pytest.mark.parametrize("tail", ["student", "uniform"])
def test_the_gradient_is_wrong_by_at_most_twice_the_rest(tail):
    for seed in range(10):
        student, teacher = drawn(seed)
        targets = sparse(teacher, 5, tail)
        _, ours = value_and_slope(F.kl_divergence, student, targets.logits_for(paddle.to_tensor(student)))
        _, true = value_and_slope(F.kl_divergence, student, paddle.to_tensor(teacher))
        wrong = np.abs(ours - true)
        assert (wrong.sum(1) <= 2 * np.exp(targets.log_rest.numpy()) + 1e-5).all()
        assert np.take_along_axis(wrong, targets.classes.numpy(), 1).max() < 1e-6


TAKES_IT = [{"SymmetricKL": None}, {"JSDivergence": {"temperature": 2.0}}, {"KLDivergence": None},
            {"SoftCrossEntropy": None}, {"DistillationDMLLoss": {"model_name_pairs": [["Student", "Teacher"]]}},
            {"DistillationCELoss": {"model_name_pairs": [["Student", "Teacher"]]}},
            {"DistillationKLDivLoss": {"model_name_pairs": [["Student", "Teacher"]], "temperature": 3.0}}]


@pytest.mark.parametrize("entry", TAKES_IT)
def test_every_loss_on_soft_answers_takes_stored_ones(entry):
    student, teacher = drawn(3)
    loss = CombinedLoss([entry], "Loss.Train", ["Student", "Teacher"], "Student")
    temperature = loss.soft_target_temperature("Teacher")
    logits = paddle.to_tensor(student, stop_gradient=False)
    stored = loss({"Student": logits, "Teacher": sparse(teacher, C, "student", temperature)}, None, N, N)["loss"]
    dense = loss({"Student": logits, "Teacher": paddle.to_tensor(teacher)}, None, N, N)["loss"]
    assert np.isclose(stored.item(), dense.item(), rtol=1e-5)


@pytest.mark.parametrize("entries, message", [
    ([{"DistillationDistanceLoss": {"model_name_pairs": [["Student", "Teacher"]]}}], "takes more from Teacher"),
    ([{"DistillationDMLLoss": {"model_name_pairs": [["Student", "Teacher"]], "act": "sigmoid"}}], "takes more"),
    ([{"SymmetricKL": {"key": "blocks"}}], "takes more"),
    ([{"SymmetricKL": None}, {"KLDivergence": {"temperature": 4.0}}], "one temperature.*SymmetricKL.*1.0.*4.0")])
def test_losses_that_stored_answers_cannot_serve_are_refused(entries, message):
    loss = CombinedLoss(entries, "Loss.Train", ["Student", "Teacher"], "Student")
    with pytest.raises(ConfigError, match=message):
        loss.soft_target_temperature("Teacher")


def test_a_label_loss_beside_stored_answers_has_no_say_in_their_temperature():
    loss = CombinedLoss([{"CELoss": None}, {"SymmetricKL": {"temperature": 2.0}}], "Loss.Train",
                        ["Student", "Teacher"], "Student")
    assert loss.soft_target_temperature("Teacher") == 2.0
