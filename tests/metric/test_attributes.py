"""Accuracy of several labels an image: PaddleClas's numbers, what is left out, adding up over ranks."""

import json
from pathlib import Path

import numpy as np
import pytest

from ppcls_ssld.errors import DataError
from ppcls_ssld.metric import AttributeAccuracy

GOLDEN = json.loads((Path(__file__).parent.parent / "loss" / "golden_multilabel.json").read_text())["cases"]


def counted(logits, labels):
    accuracy = AttributeAccuracy(np.shape(labels)[1])
    accuracy.update(np.array(logits, "f4"), np.array(labels, np.int8))
    return accuracy


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["case"])
def test_paddleclass_numbers_come_of_the_same_answers(case):
    logits = (2 * np.random.default_rng(7).standard_normal((8, 5))).astype("f4")
    found, theirs = counted(logits, case["labels"]).result(), dict(case["metric"])
    labels = np.array(case["labels"])
    yes, known = logits > 0, labels >= 0
    assert ((labels == 1) | (yes & known)).any(1).all()  # else images without any yes would make a difference
    assert list(found) == list(theirs)
    # Theirs: each attribute's precision with the mean of all recalls, and 0 for 0/0. Ours: of each attribute alone.
    hits = (yes & (labels == 1)).sum(0)
    theirs["label_f1"] = np.mean(2 * hits / ((yes & known).sum(0) + (labels == 1).sum(0)))
    assert found == pytest.approx(theirs)


def test_perfect_wrong_constant_and_undecided_answers():
    labels = np.random.default_rng(0).integers(-1, 2, (200, 7))
    right = np.where(labels == 1, 5.0, -5.0)
    assert set(counted(right, labels).result().values()) == {1.0}
    wrong = counted(-right, labels).result()
    assert wrong["ma"] == wrong["label_f1"] == wrong["instance_f1"] == 0
    for constant in (-1.0, 0.0, 1.0):  # a probability of exactly 0.5 is a yes, as in predictions
        found = counted(np.full(labels.shape, constant), labels).result()
        assert found["ma"] == 0.5 and found["label_pos_recall"] == (constant >= 0)


def test_a_score_that_is_not_a_number_is_wrong_whatever_the_label():
    found = counted(np.full((2, 3), np.nan), [[1, 1, 1], [0, 0, 0]]).result()
    assert found["ma"] == 0 and found["label_pos_recall"] == found["label_neg_recall"] == 0


def test_ma_is_the_mean_over_attributes_not_over_answers():
    # attribute 0: 1 of 1 yes, 1 of 3 no found; attribute 1: 1 of 2 yes, 2 of 2 no
    labels = [[1, 1], [0, 1], [0, 0], [0, 0]]
    logits = [[1, 1], [1, -1], [1, -1], [-1, -1]]
    found = counted(logits, labels).result()
    assert found["ma"] == pytest.approx(((1 + 1 / 3) / 2 + (1 / 2 + 1) / 2) / 2)
    assert found["label_f1"] == pytest.approx((2 * 1 / (3 + 1) + 2 * 1 / (1 + 2)) / 2)
    assert found["instance_precision"] == pytest.approx((1 + 0 + 0) / 3)  # the last image has no yes and no answer yes
    assert found["instance_recall"] == pytest.approx((1 + 0 + 0) / 3)


def test_labels_that_are_not_known_count_nowhere():
    generator = np.random.default_rng(1)
    labels = generator.integers(-1, 2, (50, 4))
    logits = generator.standard_normal((50, 4))
    other = np.where(labels < 0, -logits, logits)
    assert counted(logits, labels).counts().tolist() == counted(other, labels).counts().tolist()
    labels[:10] = -1
    assert counted(logits, labels).images == (labels >= 0).any(1).sum() == 40


def test_an_attribute_without_a_known_yes_or_no_is_left_out_and_without_any_nothing_is_counted():
    labels, logits = [[1, 0, 1, -1], [0, 0, 1, -1]], [[1, 1, -1, 1], [-1, 1, -1, 1]]
    assert counted(logits, labels).result()["ma"] == 1.0  # of the first attribute alone
    with pytest.raises(DataError, match="no attribute is known to be yes in one image and no in another"):
        counted(logits, [row[1:] + [-1] for row in labels]).result()
    with pytest.raises(DataError, match="nothing to count"):
        AttributeAccuracy(3).result()


def test_counts_of_parts_add_up_to_the_counts_of_all_in_any_order():
    generator = np.random.default_rng(2)
    logits, labels = generator.standard_normal((40, 6)), generator.integers(-1, 2, (40, 6))
    whole = counted(logits, labels)
    parts = [counted(logits[rank::3], labels[rank::3]).counts() for rank in range(3)]
    total = AttributeAccuracy.from_counts(6, parts[2] + parts[0] + parts[1])
    assert total.result() == whole.result() and total.images == whole.images == 40
    assert (parts[0].dtype, parts[0].ndim) == (np.int64, 1)


def test_shapes_that_do_not_fit_are_refused():
    for logits, labels in (((3, 2), (3, 1)), ((3, 4), (3, 4)), ((3,), (3,))):
        with pytest.raises(ValueError, match=r"expected logits and labels \[N, 2\]"):
            AttributeAccuracy(2).update(np.zeros(logits), np.zeros(labels, int))
