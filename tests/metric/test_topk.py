"""Accuracy: exact counts, ties, unlabelled images, adding up over ranks."""

import numpy as np
import pytest

from ppcls_ssld.data.sampler import eval_indices
from ppcls_ssld.errors import DataError
from ppcls_ssld.metric import TopkAccuracy


def reference_hits(logits, labels, k):
    """The rule spelt out: sort by score, the smaller class id first among equals."""
    ranked = [sorted(range(len(row)), key=lambda c: (-row[c], c)) for row in logits]
    return sum(label in order[:k] for label, order in zip(labels, ranked) if label >= 0)


@pytest.mark.parametrize("levels", [3, 1000])
def test_hits_equal_a_full_sort_with_and_without_ties(levels):
    generator = np.random.default_rng(0)
    logits = generator.integers(levels, size=(500, 20)).astype("f4")
    labels = generator.integers(-1, 20, size=500)
    accuracy = TopkAccuracy((1, 3, 5))
    accuracy.update(logits, labels)
    expected = [(labels >= 0).sum(), *(reference_hits(logits, labels, k) for k in (1, 3, 5))]
    assert accuracy.counts().tolist() == expected
    assert accuracy.result() == {f"top{k}": hits / expected[0] for k, hits in zip((1, 3, 5), expected[1:])}


def test_a_network_that_answers_the_same_for_all_classes_is_at_chance():
    accuracy = TopkAccuracy((1, 5))
    accuracy.update(np.zeros((100, 100), "f4"), np.arange(100))
    assert accuracy.result() == {"top1": 0.01, "top5": 0.05}


def test_a_score_that_is_not_a_number_never_wins():
    accuracy = TopkAccuracy((1,))
    accuracy.update(np.full((4, 10), np.nan, "f4"), np.arange(4))
    accuracy.update(np.array([[1.0, np.nan, 0.0]], "f4"), np.array([0]))
    assert accuracy.counts().tolist() == [5, 0]


def test_batches_and_ranks_add_up_to_one_count():
    generator = np.random.default_rng(1)
    logits, labels = generator.standard_normal((60, 10)).astype("f4"), generator.integers(-1, 10, size=60)
    whole = TopkAccuracy((1, 5))
    whole.update(logits, labels)
    parts = []
    for rows in (slice(0, 7), slice(7, 40), slice(40, 60)):
        part = TopkAccuracy((1, 5))
        part.update(logits[rows], labels[rows])
        parts.append(part.counts())
    assert all(counts.dtype == np.int64 for counts in parts)
    summed = TopkAccuracy.from_counts((1, 5), sum(parts))
    assert summed.result() == whole.result() and summed.images == whole.images == (labels >= 0).sum()


def test_unlabelled_images_are_passed_over():
    accuracy = TopkAccuracy((1,))
    accuracy.update(np.eye(3, dtype="f4"), np.array([0, -1, 0]))
    assert accuracy.counts().tolist() == [2, 1]
    accuracy.update(np.eye(3, dtype="f4"), np.array([-1, -1, -1]))
    assert accuracy.images == 2


def test_a_k_beyond_the_classes_counts_every_image():
    accuracy = TopkAccuracy((1, 5))
    accuracy.update(np.eye(3, dtype="f4"), np.array([1, 1, 1]))
    assert accuracy.result() == {"top1": 1 / 3, "top5": 1.0}


def test_what_cannot_be_scored_is_said():
    accuracy = TopkAccuracy((1,))
    with pytest.raises(DataError, match="no labelled image"):
        accuracy.result()
    with pytest.raises(DataError, match=r"label 10 found, but the network has 10 classes \(0 to 9\)"):
        accuracy.update(np.zeros((2, 10), "f4"), np.array([3, 10]))
    with pytest.raises(ValueError, match="topk"):
        TopkAccuracy((0, 5))


@pytest.mark.parametrize("world", [1, 3])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_ranks_that_read_unequal_shares_in_uneven_batches_count_what_numpy_counts_at_once(world, dtype):
    """53 images on 3 ranks in batches of 7: every image once, no partial batch lost, ties by class id."""
    generator = np.random.default_rng(2)
    logits = generator.normal(size=(53, 12)).round(1).astype(dtype)  # coarse: some ties in every tenth image
    labels = generator.integers(12, size=53)
    order = np.argsort(-logits, axis=1, kind="stable")  # equal scores stay in the order of class ids
    expected = [53, *((order[:, :k] == labels[:, None]).any(1).sum() for k in (1, 5))]
    counts = np.zeros(3, np.int64)
    for rank in range(world):
        accuracy, own = TopkAccuracy((1, 5)), eval_indices(53, rank, world)
        for first in range(0, len(own), 7):
            rows = own[first:first + 7]
            accuracy.update(logits[rows], labels[rows])
        counts += accuracy.counts()
    assert counts.tolist() == expected
    assert len(np.unique(logits)) < logits.size // 5, "the example has no ties"
