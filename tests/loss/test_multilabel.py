"""Several yes/no labels a sample: PaddleClas's values, exactness, and that what is not known has no part in it."""

import json
import math
from decimal import Decimal, localcontext
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_ssld.errors import ConfigError
from ppcls_ssld.loss import LOSSES, CombinedLoss, Labels, functional, labelled_mask

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
GOLDEN = json.loads((Path(__file__).parent / "golden_multilabel.json").read_text())
SHARE = np.array(GOLDEN["yes_share"], "f4")
TERMS = {
    "ratio_sum": ("DistillationMultiLabelLoss", {"model_names": ["Student"], "weight_ratio": True, "size_sum": True}),
    "ratio_mean": ("DistillationMultiLabelLoss", {"model_names": ["Student"], "weight_ratio": True}),
    "sum": ("DistillationMultiLabelLoss", {"model_names": ["Student"], "size_sum": True}),
    "mean": ("MultiLabelLoss", {}),
    "MultiLabelLoss": ("MultiLabelLoss", {"weight_ratio": True, "size_sum": True}),
    "dml_softmax": ("DistillationDMLLoss", {**PAIRS, "weight_ratio": True}),
}
EXPECTED = [(case, entry) for case in GOLDEN["cases"] for entry in case["losses"] if entry in TERMS]


def drawn(seed=7, rows=8, classes=5, std=2.0):
    generator = np.random.default_rng(seed)
    return [(std * generator.standard_normal((rows, classes))).astype("f4") for _ in range(2)]


def labels_of(labels, share=SHARE):
    labels = paddle.to_tensor(np.array(labels, np.int8))
    return Labels(labels, labels, paddle.ones([labels.shape[0]]), None if share is None else paddle.to_tensor(share))


def build(name, **arguments):
    return LOSSES.build(name, arguments, "Loss.Train.0")


def computed(term, student, teacher, labels):
    """(the part's name, its values [N], the gradient of their sum)."""
    logits = paddle.to_tensor(student, stop_gradient=False)
    (part, value), = term({"Student": logits, "Teacher": paddle.to_tensor(teacher)}, labels).items()
    value.sum().backward()
    return part, value.numpy().astype("f8"), logits.grad.numpy().astype("f8")


@pytest.mark.parametrize("case, entry", EXPECTED, ids=lambda x: x if isinstance(x, str) else x["case"])
def test_paddleclas_names_give_paddleclas_values_gradients_and_part_names(case, entry):
    expected = case["losses"][entry]
    name, arguments = TERMS[entry]
    part, values, gradients = computed(build(name, **arguments), *drawn(), labels_of(case["labels"]))
    assert part == expected["part"]
    assert values.mean() == pytest.approx(expected["value"], rel=1e-6)
    assert np.linalg.norm(gradients / len(values)) == pytest.approx(expected["grad_norm"], rel=1e-6)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["case"])
def test_with_a_sigmoid_paddleclas_compares_the_yes_and_here_the_no_counts_as_well(case):
    """PaddleClas's half and the other one, which is the same of negated logits."""
    student, teacher = drawn()
    term = build("DistillationDMLLoss", **PAIRS, weight_ratio=True, act="sigmoid")
    _, values, _ = computed(term, student, teacher, labels_of(case["labels"]))

    def half(s, t):
        s, t = (1 / (1 + np.exp(-x.astype("f8"))) for x in (s, t))
        labels = np.array(case["labels"])
        weights = np.where(labels > 0, np.exp(1 - SHARE), np.exp(SHARE)) * (labels >= 0)
        return (weights * (t - s) * (np.log(t) - np.log(s)) / 2).sum(1)

    assert half(student, teacher).mean() == pytest.approx(case["losses"]["dml_sigmoid"]["value"], rel=1e-5)
    assert values == pytest.approx(half(student, teacher) + half(-student, -teacher), rel=1e-5)


def test_the_weight_of_a_yes_falls_with_the_share_of_yes_and_that_of_a_no_rises():
    labels = paddle.to_tensor(np.array([[1] * 5, [0] * 5, [-1] * 5], np.int8))
    weights = functional.label_weights(labels, paddle.to_tensor(SHARE)).numpy()
    np.testing.assert_allclose(weights, [np.exp(1 - SHARE), np.exp(SHARE), np.zeros(5)], rtol=1e-6)
    assert functional.label_weights(labels).numpy().tolist() == [[1.0] * 5, [1.0] * 5, [0.0] * 5]


ALL_TERMS = [*TERMS.values(), ("DistillationDMLLoss", {**PAIRS, "weight_ratio": True, "act": "sigmoid"}),
             ("MultiLabelLoss", {"epsilon": 0.1})]


@pytest.mark.parametrize("name, arguments", ALL_TERMS)
def test_what_is_not_known_is_exactly_nothing_in_value_and_gradient(name, arguments):
    """The logit of a label that is not known may be anything; a sample without a known one teaches nothing."""
    labels = np.array([[1, 0, -1, 1, -1], [-1] * 5], np.int8)
    student, teacher = drawn(3, rows=2)
    term = build(name, **arguments)
    _, values, gradients = computed(term, student, teacher, labels_of(labels))
    assert values[1] == 0 and not gradients[1].any() and values[0] > 0
    if name == "DistillationDMLLoss" and "act" not in arguments:
        return  # classes of one softmax know of each other
    assert not gradients[0, labels[0] < 0].any()
    student[:, 2] = 1e4
    assert computed(term, student, teacher, labels_of(labels))[1].tolist() == values.tolist()


@pytest.mark.parametrize("name, arguments", ALL_TERMS)
def test_gradients_are_the_slopes_of_the_values(name, arguments):
    """Against differences of float64 formulas' float32 values: coarse, but blind to how the slope was derived."""
    student, teacher = drawn(5, rows=1, std=1.0)
    labels = labels_of([[1, 0, -1, 1, 0]])
    term = build(name, **arguments)
    _, _, gradient = computed(term, student, teacher, labels)
    for j in range(5):
        step = np.eye(1, 5, j, dtype="f4") * 2**-7
        up, down = (computed(term, student + way * step, teacher, labels)[1][0] for way in (1, -1))
        assert gradient[0, j] == pytest.approx((up - down) / 2**-6, rel=2e-3, abs=2e-3)


def test_binary_cross_entropy_equals_exact_arithmetic_also_for_sure_answers():
    logits = np.array([[-1e4, -40, -20, -1e-3, 0, 1e-3, 3, 20, 40, 1e4]], "f4")
    for label in (0, 1):
        scores = paddle.to_tensor(logits, stop_gradient=False)
        for j, z in enumerate(logits[0].tolist()):
            only = np.full(logits.shape, -1, np.int8)
            only[0, j] = label
            value = functional.binary_cross_entropy(scores, paddle.to_tensor(only))
            value.sum().backward()
            with localcontext() as context:
                context.prec = 60
                away = Decimal(-z if label else z)  # how far on the wrong side
                expected = float((1 + away.exp()).ln()), float(1 / (1 + (-away).exp()))
            assert abs(value.item() - expected[0]) <= 1e-6 * expected[0] + 1e-37
            slope = scores.grad.numpy()[0, j]
            assert abs(abs(slope) - expected[1]) <= 1e-6 * expected[1] + 1e-37 and (slope == 0 or (slope < 0) == label)
            scores.clear_gradient()


def test_weights_of_labels_that_are_not_known_have_no_part():
    labels = paddle.to_tensor(np.array([[1, -1, 0]], np.int8))
    logits = paddle.to_tensor(np.array([[0.0, 3.0, 0.0]], "f4"), stop_gradient=False)
    value = functional.binary_cross_entropy(logits, labels, paddle.to_tensor([[2.0, 5.0, 3.0]]))
    value.backward()
    assert value.item() == pytest.approx(5 * math.log(2)) and logits.grad.numpy().tolist() == [[-1.0, 0.0, 1.5]]


def test_smoothing_mixes_each_label_with_a_half_whatever_their_number():
    logits, _ = drawn(2, rows=3)
    labels = np.random.default_rng(1).integers(0, 2, (3, 5))
    found = functional.binary_cross_entropy(paddle.to_tensor(logits), paddle.to_tensor(labels), label_smoothing=0.2)
    p, y = 1 / (1 + np.exp(-logits.astype("f8"))), 0.8 * labels + 0.1
    np.testing.assert_allclose(found.numpy(), -(y * np.log(p) + (1 - y) * np.log1p(-p)).sum(1), rtol=1e-6)


def test_weighted_symmetric_kl_with_equal_weights_is_symmetric_kl_and_it_is_never_negative():
    student, teacher = (paddle.to_tensor(x, stop_gradient=False) for x in drawn(4, 6, 9))
    ones = functional.weighted_symmetric_kl(student, teacher, paddle.ones([6, 9]))
    plain = functional.symmetric_kl(student, teacher)
    np.testing.assert_allclose(ones.numpy(), plain.numpy(), rtol=1e-6)
    gradients = [paddle.grad(value.sum(), student)[0].numpy() for value in (ones, plain)]
    np.testing.assert_allclose(gradients[0], gradients[1], rtol=1e-5, atol=1e-7)
    weights = paddle.to_tensor(np.random.default_rng(0).random((6, 9)).astype("f4"))
    assert (functional.weighted_symmetric_kl(student, teacher, weights).numpy() > 0).all()
    same = functional.weighted_symmetric_kl(student, student.detach(), weights)
    assert not same.numpy().any() and not paddle.grad(same.sum(), student)[0].numpy().any()


def test_mutual_learning_with_weights_moves_both_networks():
    both = {role: paddle.to_tensor(x, stop_gradient=False) for role, x in zip(("Student", "Teacher"), drawn())}
    term = build("DistillationDMLLoss", **PAIRS, weight_ratio=True)
    value, = term(both, labels_of(GOLDEN["cases"][1]["labels"])).values()
    value.sum().backward()
    assert both["Student"].grad.numpy().any() and both["Teacher"].grad.numpy().any()


def test_a_sample_is_labelled_when_any_of_its_labels_is_known():
    labels = np.array([[-1, -1], [-1, 0], [1, -1], [0, 1]], np.int8)
    assert labelled_mask(labels, labels).tolist() == [False, True, True, True]
    assert labelled_mask(labels[:0], labels[:0]).shape == (0,)
    tensor = paddle.to_tensor(labels)
    assert labelled_mask(tensor, tensor).numpy().tolist() == [False, True, True, True]


def test_the_mean_is_over_samples_with_a_known_label():
    entry = {"MultiLabelLoss": {"size_sum": True, "weight": 0.5}}
    loss = CombinedLoss([entry], "Loss.Train", ["Student"], "Student", multilabel=True)
    logits = paddle.zeros([4, 2])
    labels = labels_of([[1, 0], [0, -1], [-1, -1], [-1, -1]], None)
    assert loss({"Student": logits}, labels, 4.0, 2.0)["MultiLabelLoss"].item() == pytest.approx(0.75 * math.log(2))


@pytest.mark.parametrize("entry, several, message", [
    ({"MultiLabelLoss": None}, False, r"Loss.Train.0.MultiLabelLoss: reads several labels.*use_multilabel is false"),
    ({"DistillationDMLLoss": {**PAIRS, "weight_ratio": True}}, False, "or weight_ratio to false"),
    ({"CELoss": None}, True, r"Loss.Train.0.CELoss: reads one class an image.*use MultiLabelLoss"),
    ({"DistillationGTCELoss": {"model_names": ["Teacher"]}}, True, "reads one class an image")])
def test_a_loss_that_reads_labels_of_the_other_kind_is_refused(entry, several, message):
    with pytest.raises(ConfigError, match=message):
        CombinedLoss([entry], "Loss.Train", ["Student", "Teacher"], "Student", several)


def test_a_loss_that_reads_no_labels_goes_with_both_kinds():
    for several in (False, True):
        assert not CombinedLoss([{"DistillationDMLLoss": PAIRS}], "Loss.Train", ["Student", "Teacher"], "Student",
                                several).needs_labels


def test_shapes_that_do_not_fit_are_refused():
    for labels in ([3], [3, 4], [3, 5, 1]):
        with pytest.raises(ValueError, match=r"\[N, C\]"):
            functional.binary_cross_entropy(paddle.zeros([3, 5]), paddle.zeros(labels, "int64"))
    with pytest.raises(ValueError, match="label_smoothing"):
        functional.binary_cross_entropy(paddle.zeros([3, 5]), paddle.zeros([3, 5]), label_smoothing=1.0)
