"""Averaging: weights, counts over ranks, and labels that a label-free loss never sees."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.errors import ConfigError
from ppcls_ssld.loss import CombinedLoss, Labels, functional, labelled_mask

ROLES = ["Student", "Teacher"]


def combined(*entries, roles=ROLES, default_role="Student"):
    return CombinedLoss(entries, "Loss.Train", roles, default_role)


def outputs(seed=0, n=6, c=10):
    generator = np.random.default_rng(seed)
    student, teacher = (generator.standard_normal((n, c)).astype("f4") for _ in range(2))
    return {"Student": paddle.to_tensor(student, stop_gradient=False), "Teacher": paddle.to_tensor(teacher)}


def labels_of(*ids):
    ids = paddle.to_tensor(ids, dtype="int64")
    return Labels(ids, ids, paddle.ones(ids.shape))


def test_a_lone_loss_uses_its_weight():
    given = outputs()
    for weight in (0.5, 1.0, 100.0):
        losses = combined({"SymmetricKL": {"weight": weight}})(given, None, 6.0, 0.0)
        expected = weight * functional.symmetric_kl(given["Student"], given["Teacher"]).numpy().mean()
        assert losses["loss"].item() == pytest.approx(expected, rel=1e-6)


def test_the_total_is_the_sum_of_the_weighted_parts_and_has_one_number():
    loss = combined({"SymmetricKL": {"weight": 2.0}}, {"CELoss": {"weight": 0.5}})
    given = outputs()
    losses = loss(given, labels_of(1, 2, 3, -1, -1, -1), 6.0, 3.0)
    assert list(losses) == ["loss", *loss.names] == ["loss", "SymmetricKL", "CELoss"]
    assert all(value.dtype == paddle.float32 and value.shape == [] for value in losses.values())
    hard = functional.hard_cross_entropy(given["Student"], paddle.to_tensor([1, 2, 3, -1, -1, -1])).numpy()
    assert losses["CELoss"].item() == pytest.approx(0.5 * hard[:3].mean(), rel=1e-6)
    assert losses["loss"].item() == pytest.approx(losses["SymmetricKL"].item() + losses["CELoss"].item(), rel=1e-6)


def test_a_label_free_loss_is_not_shown_labels():
    loss = combined({"SymmetricKL": {}})
    assert not loss.needs_labels
    with pytest.raises(ValueError, match="uses none"):
        loss(outputs(), labels_of(0, 1, 2, 3, 4, 5), 6.0, 6.0)


def test_beside_a_loss_with_labels_the_label_free_part_stays_the_same_for_any_labels():
    loss = combined({"SymmetricKL": {}}, {"CELoss": {}})
    given, generator = outputs(), np.random.default_rng(0)
    found = {loss(given, labels_of(*generator.integers(10, size=6)), 6.0, 6.0)["SymmetricKL"].item() for _ in range(5)}
    assert len(found) == 1


def test_a_loss_that_needs_labels_says_so_when_there_are_none():
    with pytest.raises(ValueError, match="CELoss needs labels"):
        combined({"SymmetricKL": {}}, {"CELoss": {}})(outputs(), None, 6.0, 0.0)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_without_a_labelled_sample_the_label_part_and_its_gradient_are_zero(as_tensor):
    given = outputs()
    zero, six = (paddle.to_tensor([0.0]), paddle.to_tensor([6.0])) if as_tensor else (0.0, 6.0)
    losses = combined({"CELoss": {}})(given, labels_of(*[-1] * 6), six, zero)
    losses["loss"].backward()
    assert losses["loss"].item() == 0.0 and not given["Student"].grad.numpy().any()


@pytest.mark.parametrize("as_tensor", [False, True])
def test_the_average_over_ranks_is_the_exact_global_mean_however_labels_are_spread(as_tensor):
    loss = combined({"SymmetricKL": {}}, {"CELoss": {"weight": 3.0}})
    ids = [1, 2, 3, 4, 5, -1, -1, -1]  # 5 labelled of 8: rank 0 of two holds four of them, rank 1 one

    def run(rows, n_all, n_labelled):
        given = outputs(seed=3, n=8)
        student = given["Student"]
        if as_tensor:
            n_all, n_labelled = paddle.to_tensor(n_all), paddle.to_tensor(n_labelled)
        part = {role: x[rows] for role, x in given.items()}
        losses = loss(part, labels_of(*ids[rows]), n_all, n_labelled)
        losses["loss"].backward()
        return {k: v.item() for k, v in losses.items()}, student.grad.numpy()

    whole, whole_gradient = run(slice(0, 8), 8.0, 5.0)
    ranks = [run(rows, 8.0 / 2, 5.0 / 2) for rows in (slice(0, 4), slice(4, 8))]
    for name in whole:
        assert whole[name] == pytest.approx(sum(values[name] for values, _ in ranks) / 2, rel=1e-6)
    np.testing.assert_allclose(whole_gradient, sum(gradient for _, gradient in ranks) / 2, rtol=1e-5, atol=1e-8)


def test_a_sample_is_labelled_when_either_of_its_labels_is_known():
    labels, partners = np.array([3, -1, -1, 0]), np.array([3, -1, 2, -1])
    assert labelled_mask(labels, partners).tolist() == [True, False, True, True]
    found = labelled_mask(paddle.to_tensor(labels), paddle.to_tensor(partners))
    assert found.numpy().tolist() == [True, False, True, True]


def test_parts_of_one_name_are_kept_apart_and_all_count():
    entry = {"DistillationDistanceLoss": {"model_name_pairs": [["Student", "Teacher"]], "mode": "l2"}}
    loss = combined(entry, entry)
    assert loss.names == ["loss_l2_loss_l2_0", "loss_l2_loss_l2_0#2"]
    given = outputs()
    losses = loss(given, None, 6.0, 0.0)
    assert losses["loss"].item() == pytest.approx(2 * combined(entry)(given, None, 6.0, 0.0)["loss"].item(), rel=1e-6)


def test_terms_read_the_default_role_as_student_unless_told_otherwise():
    loss = combined({"CELoss": {}}, {"SymmetricKL": {"student": "B", "teacher": "A"}}, roles=["A", "B"],
                    default_role="A")
    assert loss.terms[0].roles == ("A",) and loss.terms[1].roles == ("B", "A") and loss.roles == {"A", "B"}


def test_taps_of_all_terms_are_collected_by_network():
    pair = [["Student", "Teacher"]]
    loss = combined({"DistillationDistanceLoss": {"model_name_pairs": pair, "key": "blocks5"}},
                    {"DistillationDistanceLoss": {"model_name_pairs": pair, "key": "blocks4"}}, {"SymmetricKL": {}})
    assert loss.feature_keys == {"Student": ("blocks4", "blocks5"), "Teacher": ("blocks4", "blocks5")}


def test_the_callers_config_is_left_as_it_was():
    entries = ({"CELoss": {"weight": 2.0}},)
    combined(*entries)
    assert entries == ({"CELoss": {"weight": 2.0}},)


@pytest.mark.parametrize("entries, message", [
    ([], "^Loss.Train: no loss given"),
    ([{"SymmetricKL": {}}, {"DistillationDMLLoss": {"model_name_pairs": [["Student", "Techer"]]}}],
     r"^Loss.Train.1.DistillationDMLLoss: no network 'Techer' here; did you mean 'Teacher'\?"),
    ([{"DistilationDMLLoss": {}}], r"^Loss.Train.0: no loss 'DistilationDMLLoss'; did you mean 'DistillationDMLLoss'"),
    ([{"CELoss": {}, "SymmetricKL": {}}], "^Loss.Train.0: expected one"),
    ([{"CELoss": {"wieght": 1}}], "^Loss.Train.0.CELoss: no argument 'wieght'; did you mean 'weight'"),
])
def test_a_list_that_cannot_be_meant_is_refused_with_its_key_path(entries, message):
    with pytest.raises(ConfigError, match=message):
        combined(*entries)
