"""What the report shows of many pairs and of a selection, and its numbers in words."""

import numpy as np
import pytest

from ppcls_ssld.mining.report import (Pair, chosen_shown, duration_text, percent_text, scores_at_ranks, score_text,
                                      shortlist)
from ppcls_ssld.mining.report_classes import classes_shown
from ppcls_ssld.mining.report_pairs import DOUBTFUL_SHOWN, KEPT_SHOWN, STRONGEST_SHOWN, parts_of
from ppcls_ssld.mining.select import Selection


def many_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    stages = rng.choice(["keypoints", "hash", "bytes"], count)
    pairs = []
    for i, stage in enumerate(stages):
        score = float(rng.integers(1, 60))
        pairs.append(Pair(f"{i}.jpg", "p.jpg", stage) if stage == "bytes" else
                     Pair(f"{i}.jpg", "p.jpg", stage, score, 12.0, status="removed" if score >= 12 else "kept"))
    return pairs


@pytest.mark.parametrize("order", [1, -1])
def test_a_shortlist_shows_what_all_pairs_would_in_any_order(order):
    pairs = many_pairs(2000)
    short = shortlist(iter(pairs[::order]))
    assert len(short) <= 5 * (STRONGEST_SHOWN + max(DOUBTFUL_SHOWN, KEPT_SHOWN))
    for stage in ("keypoints", "hash", "bytes"):
        assert (parts_of([pair for pair in short if pair.stage == stage])
                == parts_of([pair for pair in pairs if pair.stage == stage]))


def test_of_a_few_pairs_none_is_shown_twice():
    pairs = [Pair(f"{i}.jpg", "p.jpg", "keypoints", 12.0 + i, 12.0) for i in range(STRONGEST_SHOWN + 2)]
    assert parts_of(pairs) == [("removed, most doubtful first", pairs)]


def test_the_surest_come_first_then_the_most_doubtful_then_the_nearly_removed():
    pairs = [pair for pair in many_pairs(400) if pair.stage == "keypoints"]
    surest, doubtful, kept = (shown for _, shown in parts_of(pairs))
    removed = sorted(pair.score for pair in pairs if pair.status == "removed")
    assert [pair.score for pair in surest] == removed[::-1][:STRONGEST_SHOWN]
    assert [pair.score for pair in doubtful] == removed[:DOUBTFUL_SHOWN]
    below = sorted(pair.score for pair in pairs if pair.status == "kept")
    assert [pair.score for pair in kept] == below[::-1][:KEPT_SHOWN]


def selection_of(counts):
    classes = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    ranks = np.concatenate([np.arange(n) for n in counts])
    return Selection(np.arange(len(ranks)), np.zeros(len(ranks), "V16"), classes, 1 - ranks / 100, ranks)


@pytest.mark.parametrize(("top_k", "ranks"), [(1, [1, 1, 1]), (2, [1, 1, 2]), (7, [1, 4, 7]), (8, [1, 4, 8])])
def test_scores_at_ranks_are_those_of_the_first_middle_and_kth_image(top_k, ranks):
    table = scores_at_ranks(selection_of([top_k, 0, 1]), 3, top_k)
    assert table[0] == pytest.approx([1 - (rank - 1) / 100 for rank in ranks])
    assert np.isnan(table[1]).all()
    assert np.isnan(table[2]).tolist() == [rank > 1 for rank in ranks]


def test_the_first_and_the_last_of_each_class_are_picked_and_no_image_twice():
    chosen = chosen_shown(selection_of([30, 0, 3, 8]), 4, lambda index: f"{index}.jpg")
    assert [image.name for image in chosen] == [
        f"{index}.jpg" for index in (*range(6), *range(24, 30), *range(30, 33), *range(33, 41))]
    assert [image.rank for image in chosen if image.class_id == 0] == [*range(1, 7), *range(25, 31)]


@pytest.mark.parametrize(("class_num", "count"), [(1, 1), (20, 20), (21, 20), (1000, 20)])
def test_the_classes_shown_run_from_the_first_to_the_last(class_num, count):
    ids = classes_shown(class_num)
    assert len(ids) == count and ids[0] == 0 and ids[-1] == class_num - 1 and ids == sorted(set(ids))


@pytest.mark.parametrize(("score", "text"), [(12, "12"), (1234.0, "1,234"), (0.9, "0.900"), (1.0, "1.000"),
                                             (0, "0.000"), (-0.25, "-0.250"), (13.456, "13.5"), (float("nan"), "–")])
def test_scores_in_words(score, text):
    assert score_text(score) == text


@pytest.mark.parametrize(("share", "text"), [(0, "0%"), (1, "100%"), (1e-6, "<0.01%"), (0.0123, "1.23%"),
                                             (0.5, "50.0%")])
def test_shares_in_words(share, text):
    assert percent_text(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (99, "99.0 s"), (100, "2 min"), (6000, "1 h 40 min"),
                                               (86400, "24 h 00 min")])
def test_durations_in_words(seconds, text):
    assert duration_text(seconds) == text
