"""The terms YAML names: PaddleClas's values and part names, who is trained, what is refused."""

import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppcls_ssld.errors import ConfigError
from ppcls_ssld.loss import LOSSES, Labels, functional

PAIRS = {"model_name_pairs": [["Student", "Teacher"]]}
GOLDEN = json.loads((Path(__file__).parent / "golden_paddleclas.json").read_text())
GOLDEN_TERMS = {
    "DistillationDMLLoss": ("DistillationDMLLoss", PAIRS),
    "DistillationDMLLoss_none": ("DistillationDMLLoss", {**PAIRS, "act": None}),
    "DistillationCELoss": ("DistillationCELoss", PAIRS),
    "DistillationGTCELoss": ("DistillationGTCELoss", {"model_names": ["Student"]}),
    "DistillationGTCELoss_eps0.1": ("DistillationGTCELoss", {"model_names": ["Student"], "epsilon": 0.1}),
    "DistillationKLDivLoss": ("DistillationKLDivLoss", PAIRS),
    "l1": ("DistillationDistanceLoss", {**PAIRS, "mode": "l1"}),
    "l2": ("DistillationDistanceLoss", PAIRS),
    "smooth_l1": ("DistillationDistanceLoss", {**PAIRS, "mode": "smooth_l1"}),
    "l2_softmax": ("DistillationDistanceLoss", {**PAIRS, "act": "softmax"}),
    "l2_sigmoid": ("DistillationDistanceLoss", {**PAIRS, "act": "sigmoid"}),
    "CELoss": ("CELoss", {}),
}


def build(name, **arguments):
    return LOSSES.build(name, arguments, "Loss.Train.0")


def draw(seed, *shape, trained=True):
    values = np.random.default_rng(seed).standard_normal(shape).astype("f4")
    return paddle.to_tensor(values, stop_gradient=not trained)


def plain_labels(labels):
    labels = paddle.to_tensor(labels, dtype="int64")
    return Labels(labels, labels, paddle.ones(labels.shape))


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: f"std {case['logits']['std']}")
@pytest.mark.parametrize("entry", GOLDEN_TERMS)
def test_paddleclas_names_give_paddleclas_values_gradients_and_part_names(entry, case):
    seed, n, c, std = (case["logits"][key] for key in ("seed", "n", "c", "std"))
    generator = np.random.default_rng(seed)
    student, teacher = ((std * generator.standard_normal((n, c))).astype("float32") for _ in range(2))
    student, teacher = paddle.to_tensor(student, stop_gradient=False), paddle.to_tensor(teacher)
    outputs = {"Student": student, "Teacher": teacher}
    if entry.endswith("_none"):
        outputs = {role: paddle.nn.functional.softmax(x) for role, x in outputs.items()}
    name, arguments = GOLDEN_TERMS[entry]
    expected = case["losses"][entry]
    parts = build(name, **arguments)(outputs, plain_labels(np.arange(n) % c))
    assert list(parts) == [expected["part"]]
    value = parts[expected["part"]].mean()
    value.backward()
    # PaddleClas works in float32: near agreement its own rounding shows, as 6e-4 of the KL divergence at std 0.05.
    assert value.item() == pytest.approx(expected["value"], rel=1e-3 if std < 1 else 5e-6)
    assert np.linalg.norm(student.grad.numpy().astype("f8")) == pytest.approx(expected["grad_norm"], rel=1e-5)


@pytest.mark.parametrize("name, function", [("SymmetricKL", functional.symmetric_kl),
                                            ("JSDivergence", functional.js_divergence),
                                            ("KLDivergence", functional.kl_divergence),
                                            ("SoftCrossEntropy", functional.soft_cross_entropy)])
def test_our_own_names_are_the_functional_losses_and_t2_is_asked_for(name, function):
    outputs = {"S": draw(0, 4, 10), "T": draw(1, 4, 10, trained=False)}
    term = build(name, student="S", teacher="T", temperature=2.0)
    assert term.roles == ("S", "T") and not term.needs_labels and term.weight == 1.0
    expected = function(outputs["S"], outputs["T"], 2.0).numpy()
    np.testing.assert_array_equal(term(outputs)[name].numpy(), expected)
    scaled = build(name, student="S", teacher="T", temperature=2.0, scale_by_t2=True)
    np.testing.assert_array_equal(scaled(outputs)[name].numpy(), 4 * expected)


@pytest.mark.parametrize("name, arguments", [
    ("SymmetricKL", {}), ("JSDivergence", {}), ("DistillationDMLLoss", PAIRS),
    ("DistillationDMLLoss", {**PAIRS, "act": "sigmoid"}), ("DistillationDistanceLoss", {**PAIRS, "mode": "l1"}),
    ("DistillationDistanceLoss", {**PAIRS, "mode": "smooth_l1"})])
def test_a_symmetric_loss_trains_both_networks_of_a_pair_and_counts_once(name, arguments):
    def gradients(student_trained, teacher_trained):
        student, teacher = draw(2, 4, 10, trained=student_trained), draw(3, 4, 10, trained=teacher_trained)
        (value,) = build(name, **arguments)({"Student": student, "Teacher": teacher}).values()
        value.sum().backward()
        return value.numpy(), student.grad, teacher.grad

    value, student_grad, teacher_grad = gradients(True, True)
    frozen_value, alone, none = gradients(True, False)
    assert none is None
    np.testing.assert_array_equal(value, frozen_value)
    np.testing.assert_allclose(student_grad.numpy(), alone.numpy(), rtol=1e-6)
    _, none, other_alone = gradients(False, True)
    assert none is None
    np.testing.assert_allclose(teacher_grad.numpy(), other_alone.numpy(), rtol=1e-6)
    assert np.abs(teacher_grad.numpy()).max() > 1e-3


def test_mutual_learning_moves_both_networks_along_the_true_gradient():
    s, t = draw(4, 2, 5), draw(5, 2, 5)
    (value,) = build("SymmetricKL")({"Student": s, "Teacher": t}).values()
    value.sum().backward()

    def loss(a, b):
        p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (a, b))
        return 0.5 * ((p - q) * (np.log(p) - np.log(q))).sum()

    a, b = s.numpy().astype("f8"), t.numpy().astype("f8")
    for mine, gradient, at in ((a, s.grad, lambda x: loss(x, b)), (b, t.grad, lambda x: loss(a, x))):
        for index in np.ndindex(mine.shape):
            step = np.zeros_like(mine)
            step[index] = 1e-5
            assert gradient.numpy()[index] == pytest.approx((at(mine + step) - at(mine - step)) / 2e-5, abs=1e-6)


@pytest.mark.parametrize("name", ["DistillationCELoss", "DistillationKLDivLoss"])
def test_a_soft_label_is_a_constant_for_its_network(name):
    student, teacher = draw(6, 4, 10), draw(7, 4, 10)
    (value,) = build(name, **PAIRS)({"Student": student, "Teacher": teacher}).values()
    value.sum().backward()
    assert teacher.grad is None and student.grad is not None


def test_every_pair_is_trained():
    outputs = {"Student": draw(8, 4, 10), "T1": draw(9, 4, 10, trained=False), "T2": draw(10, 4, 10, trained=False)}
    parts = build("DistillationDMLLoss", model_name_pairs=[["Student", "T1"], ["Student", "T2"]])(outputs)
    assert list(parts) == ["DMLLoss_Student_T1_0", "DMLLoss_Student_T2_1"]
    for (_, part), teacher in zip(parts.items(), ("T1", "T2")):
        expected = functional.symmetric_kl(outputs["Student"], outputs[teacher])
        np.testing.assert_array_equal(part.numpy(), expected.numpy())


def test_smoothing_a_soft_label_still_takes_the_teachers_softmax():
    s, t = draw(11, 4, 10, trained=False), draw(12, 4, 10, trained=False)
    (value,) = build("DistillationCELoss", **PAIRS, epsilon=0.2)({"Student": s, "Teacher": t}).values()
    log_s, probs = (paddle.nn.functional.log_softmax(s), paddle.nn.functional.softmax(t))
    np.testing.assert_allclose(value.numpy(), -((0.8 * probs + 0.02) * log_s).sum(-1).numpy(), rtol=1e-5)


def test_class_sum_is_never_multiplied_by_the_number_of_classes():
    outputs = {"Student": draw(13, 4, 10), "Teacher": draw(14, 4, 10, trained=False)}
    (plain,), (asked,) = (build("DistillationDMLLoss", **PAIRS, sum_across_class_dim=flag)(outputs).values()
                          for flag in (False, True))
    np.testing.assert_array_equal(plain.numpy(), asked.numpy())


def test_features_are_read_from_the_tap_that_key_names():
    term = build("DistillationDistanceLoss", **PAIRS, key="blocks5", mode="l2")
    assert term.feature_keys == {"Student": ("blocks5",), "Teacher": ("blocks5",)}
    s, t = draw(15, 2, 3, 4, 5), draw(16, 2, 3, 4, 5, trained=False)
    outputs = {"Student": {"logits": draw(17, 2, 10), "blocks5": s},
               "Teacher": {"logits": draw(18, 2, 10), "blocks5": t}}
    (value,) = term(outputs).values()
    np.testing.assert_allclose(value.numpy(), ((s - t).numpy() ** 2).mean((1, 2, 3)), rtol=1e-5)
    with pytest.raises(ValueError, match="Teacher gave no 'blocks5', only logits"):
        term({**outputs, "Teacher": t})


@pytest.mark.parametrize("key", [None, "logits"])
def test_logits_are_found_in_a_tensor_and_in_a_dict(key):
    s, t = draw(19, 4, 10), draw(20, 4, 10, trained=False)
    term = build("DistillationDMLLoss", **PAIRS, key=key)
    assert term.feature_keys == {}
    (bare,), (taken,) = (term(o).values() for o in ({"Student": s, "Teacher": t},
                                                    {"Student": {"logits": s, "tap": t}, "Teacher": {"logits": t}}))
    np.testing.assert_array_equal(bare.numpy(), taken.numpy())


def test_mixed_samples_count_both_labels_by_their_share():
    logits = draw(21, 3, 10)
    labels = Labels(paddle.to_tensor([1, 2, 3]), paddle.to_tensor([4, 2, 5]), paddle.to_tensor([0.25, 1.0, 0.5]))
    (value,) = build("CELoss", epsilon=0.1)({"Student": logits}, labels).values()
    own = functional.hard_cross_entropy(logits, labels.labels, 0.1).numpy()
    partner = functional.hard_cross_entropy(logits, labels.partner_labels, 0.1).numpy()
    np.testing.assert_allclose(value.numpy(), [0.25 * own[0] + 0.75 * partner[0], own[1], 0.5 * (own[2] + partner[2])],
                               rtol=1e-6)


def test_unlabelled_halves_of_mixed_samples_contribute_nothing():
    logits = draw(22, 3, 10)
    labels = Labels(paddle.to_tensor([1, -1, -1]), paddle.to_tensor([-1, 2, -1]), paddle.to_tensor([0.25, 0.25, 0.25]))
    (value,) = build("DistillationGTCELoss", model_names=["Student"])({"Student": logits}, labels).values()
    value.sum().backward()
    own = functional.hard_cross_entropy(logits, paddle.to_tensor([1, 2, 0])).numpy()
    np.testing.assert_allclose(value.numpy(), [0.25 * own[0], 0.75 * own[1], 0.0], rtol=1e-6)
    assert not logits.grad.numpy()[2].any()


@pytest.mark.parametrize("name, arguments, message", [
    ("DistillationMultiLabelLoss", {"model_names": "Student"}, "expected a list"),
    ("MultiLabelLoss", {"epsilon": 1.0}, "epsilon"),
    ("DistillationDMLLoss", {**PAIRS, "act": "tanh"}, "act: expected one of softmax, sigmoid, None, found 'tanh'"),
    ("DistillationDMLLoss", {"model_name_pairs": []}, r"\[\[Student, Teacher\]\], found \[\]"),
    ("DistillationDMLLoss", {"model_name_pairs": ["Student", "Teacher"]}, r"\[\[Student, Teacher\]\], found"),
    ("DistillationDMLLoss", {"model_name_pairs": [["A", "B"], ["A", "B"]]}, "listed twice"),
    ("DistillationDMLLoss", {"model_name_pairs": [["A", "A"]]}, "compared with itself"),
    ("DistillationDMLLoss", {}, "missing argument.*model_name_pairs"),
    ("DistillationGTCELoss", {"model_names": "Student"}, "expected a list"),
    ("DistillationDistanceLoss", {**PAIRS, "mode": "l3"}, "mode: expected one of l1, l2, smooth_l1"),
    ("DistillationDistanceLoss", {**PAIRS, "reduction": "sum"}, "mean over its samples"),
    ("DistillationCELoss", {**PAIRS, "epsilon": 1.5}, "epsilon"),
    ("CELoss", {"reduction": "none"}, "mean over its samples"),
    ("CELoss", {"weight": "1e-3"}, "weight: expected a number, found '1e-3'"),
    ("SymmetricKL", {"temperature": 0}, "temperature: expected a number above 0"),
    ("SymmetricKL", {"temprature": 2}, "no argument 'temprature'; did you mean 'temperature'"),
    ("SymetricKL", {}, "no loss 'SymetricKL'; did you mean 'SymmetricKL'"),
])
def test_arguments_that_cannot_be_meant_are_refused_with_their_key_path(name, arguments, message):
    with pytest.raises(ConfigError, match=message) as error:
        build(name, **arguments)
    assert str(error.value).startswith("Loss.Train.0")


def test_feature_maps_of_different_shapes_are_refused():
    term = build("DistillationDistanceLoss", **PAIRS)
    with pytest.raises(ValueError, match=r"\[2, 3\] in one network and \[2, 4\] in the other"):
        term({"Student": draw(0, 2, 3), "Teacher": draw(0, 2, 4)})
