"""Selection: exact against plain references, whatever the order, the blocks and the ties."""

import numpy as np
import pytest

from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.mining.select import RandomControl, Selection, Selector, budget, not_listed, scores_of, weights


def world(rng, n, class_num, q, levels=6):
    """n images with q classes each; few score levels, and ids of few bytes, make ties common."""
    classes = np.array([rng.permutation(class_num)[:q] for _ in range(n)], np.int32).reshape(n, q)
    scores = -np.sort(-rng.integers(0, levels, (n, q)) / 4, axis=1)
    ids = np.zeros((n, 16), np.uint8)
    ids[:, 0], ids[:, 15] = rng.integers(0, 3, (2, n))
    ids = ids.view("V16")[:, 0]
    return classes, scores, ids, rng.permutation(10 * n)[:n].astype(np.int64)


def add_in_blocks(selector, columns, rng, blocks):
    order = rng.permutation(len(columns[0]))
    for rows in np.array_split(order, blocks):
        selector.add(*(column[rows] for column in columns))
    return selector.result()


def rows_of(selection):
    assert selection.ids.dtype == "V16" and selection.index.dtype == np.int64 and selection.scores.dtype == np.float64
    return list(zip(selection.classes.tolist(), selection.ranks.tolist(), selection.index.tolist(),
                    selection.scores.tolist(), [i.tobytes() for i in selection.ids]))


def reference(columns, class_num, top_k, p, once, min_score):
    """Textbook version: one proposal after another, the worst of a full class let go."""
    classes, scores, ids, index = columns
    held = {c: [] for c in range(class_num)}
    free = [(i, 0) for i in range(len(index))] if once else [(i, j) for i in range(len(index)) for j in range(p)]
    wishes = [sorted(range(p), key=lambda j: (-scores[i, j], j)) for i in range(len(index))]
    while free:
        i, turn = free.pop()
        if turn == p:
            continue
        j = wishes[i][turn] if once else turn
        if min_score is not None and scores[i, j] < min_score:
            if once:
                free.append((i, turn + 1))
            continue
        mine = held[int(classes[i, j])]
        mine.append((-scores[i, j], ids[i].tobytes(), int(index[i]), i, turn))
        mine.sort()
        if len(mine) > top_k:
            *_, i, turn = mine.pop()
            if once:
                free.append((i, turn + 1))
    return [(c, rank, index, -score, id_) for c in held for rank, (score, id_, index, *_) in enumerate(held[c])]


@pytest.mark.parametrize("once", [True, False])
@pytest.mark.parametrize("seed", range(60))
def test_selection_equals_the_reference_for_any_k_p_blocks_order_and_ties(once, seed, monkeypatch):
    rng = np.random.default_rng(seed)
    monkeypatch.setattr("ppcls_ssld.mining.select._SMALLEST_BUFFER", int(rng.integers(1, 60)))
    n, class_num, top_k = int(rng.integers(0, 200)), int(rng.integers(1, 12)), int(rng.integers(1, 25))
    q = int(rng.integers(1, min(class_num, 5) + 1))
    p = int(rng.integers(1, q + 1))
    min_score = None if rng.random() < 0.5 else 0.5
    columns = world(rng, n, class_num, q)
    expected = reference(columns, class_num, top_k, p, once, min_score)
    for blocks in (1, int(rng.integers(2, 40))):
        got = add_in_blocks(Selector(class_num, top_k, p, once, min_score), columns, rng, blocks)
        assert rows_of(got) == expected


def test_the_stable_assignment_has_no_pair_that_would_both_rather():
    rng = np.random.default_rng(1)
    columns = world(rng, 300, 8, 4, levels=1000)
    chosen = add_in_blocks(Selector(8, 10, 4), columns, rng, 7)
    assert len(np.unique(chosen.index)) == len(chosen) == 80
    score_of = dict(zip(chosen.index.tolist(), chosen.scores.tolist()))
    worst = {c: chosen.scores[chosen.classes == c].min() for c in range(8)}
    for classes, scores, _, index in zip(*columns):
        for c, s in zip(classes.tolist(), scores.tolist()):
            assert not (s > score_of.get(int(index), -1) and s > worst[c])


def test_results_may_be_taken_in_between_and_the_stream_goes_on():
    rng = np.random.default_rng(2)
    columns = world(rng, 200, 5, 3)
    selector = Selector(5, 8, 2)
    for rows in np.array_split(np.arange(200), 9):
        selector.add(*(c[rows] for c in columns))
        so_far = rows_of(selector.result())
    assert so_far == reference(columns, 5, 8, 2, True, None)


def test_an_unsorted_preference_is_followed_by_score_and_equal_ones_by_the_order_given():
    selector = Selector(3, 1, 2)
    ids = np.zeros(2, "V16")
    selector.add(np.array([[0, 1], [2, 1]]), np.array([[0.2, 0.9], [0.5, 0.5]]), ids, np.array([7, 8]))
    assert rows_of(selector.result()) == [(1, 0, 7, 0.9, bytes(16)), (2, 0, 8, 0.5, bytes(16))]


def test_what_is_held_does_not_grow_with_the_stream(monkeypatch):
    monkeypatch.setattr("ppcls_ssld.mining.select._SMALLEST_BUFFER", 64)
    rng, most = np.random.default_rng(3), 0
    selector = Selector(10, 20, 3)
    for block in range(100):
        classes, scores, ids, index = world(rng, 100, 10, 3, levels=10**6)
        selector.add(classes, scores, ids, index + 1000 * block)
        most = max(most, len(selector._held) + selector._waiting_count)
    assert most <= 2 * 10 * 20 + 100


@pytest.mark.parametrize("arguments, message", [((10, 0), "1 or more"), ((0, 5), "1 or more"),
                                                ((3, 5, 4), "at most the")])
def test_a_selection_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Selector(*arguments)


@pytest.mark.parametrize("change, error, message", [
    (dict(classes=[[5]]), DataError, "in \\[0, 5\\), found 5"), (dict(classes=[[-1]]), DataError, "found -1"),
    (dict(scores=[[np.nan]]), DataError, "row 3 of the listing"), (dict(scores=[[1.0, 2.0]]), DataError, "one shape"),
    (dict(classes=np.zeros((1, 0)), scores=np.zeros((1, 0))), ConfigError, "0 are stored")])
def test_scores_that_make_no_sense_are_refused(change, error, message):
    block = dict(classes=[[0]], scores=[[1.0]], ids=np.zeros(1, "V16"), index=[3]) | change
    with pytest.raises(error, match=message):
        Selector(5, 2).add(**block)


def stored(logits, p):
    logits = np.asarray(logits, np.float64)
    total = np.log(np.exp(logits).sum(axis=1))
    log_probs = -np.sort(-(logits - total[:, None]), axis=1)
    entropy = -(np.exp(log_probs) * log_probs).sum(axis=1)
    return log_probs[:, :p].astype(np.float16), total.astype(np.float32), entropy.astype(np.float32)


def test_scores_are_what_their_names_say():
    logits = np.random.default_rng(4).normal(0, 3, (50, 10))
    three = stored(logits, 3)
    ordered = -np.sort(-logits, axis=1)
    probs = np.exp(ordered) / np.exp(ordered).sum(axis=1, keepdims=True)
    close = dict(rtol=0, atol=4e-3)
    np.testing.assert_allclose(scores_of(*three, "probability"), probs[:, :3], **close)
    np.testing.assert_allclose(scores_of(*three, "logit"), ordered[:, :3], **close)
    margin = np.stack([probs[:, 0] - probs[:, 1], probs[:, 1] - probs[:, 0], probs[:, 2] - probs[:, 0]], axis=1)
    np.testing.assert_allclose(scores_of(*three, "margin"), margin, **close)
    entropy = -(probs * np.log(probs)).sum(axis=1)
    np.testing.assert_allclose(scores_of(*three, "entropy"), -entropy[:, None].repeat(3, 1), **close)
    assert all(scores_of(*three, kind).dtype == np.float64 for kind in ("probability", "logit", "margin", "entropy"))
    with pytest.raises(ConfigError, match="two classes"):
        scores_of(*stored(logits, 1), "margin")
    with pytest.raises(ConfigError, match="'confidence'"):
        scores_of(*three, "confidence")


def test_sure_images_are_still_told_apart_in_half_precision():
    sure = scores_of(*stored([[12.0, 0, 0], [13.0, 0, 0], [14.0, 0, 0]], 2), "probability")[:, 0]
    assert (np.diff(sure) > 0).all() and len(set(sure.astype(np.float16))) == 1


def chosen_by(rng, once=False, n=200, class_num=6, top_k=30):
    return add_in_blocks(Selector(class_num, top_k, 3, once), world(rng, n, class_num, 4), rng, 5)


@pytest.mark.parametrize("once", [True, False])
def test_a_budget_keeps_the_best_of_every_class_and_no_image_too_many(once):
    whole = chosen_by(np.random.default_rng(5), once)
    pairs = sorted(rows_of(whole), key=lambda r: (r[1], -r[3], r[4], r[2]))
    for n in (0, 1, 7, 50, 120, 10_000):
        expected, images = [], set()
        for pair in pairs:
            if len(images | {pair[2]}) > n:
                break
            images.add(pair[2])
            expected.append(pair)
        part = budget(whole, n)
        assert rows_of(part) == sorted(expected) and len(part.images()) == min(n, len(whole.images()))
        for c in range(6):
            assert part.ranks[part.classes == c].tolist() == list(range(part.counts(6)[c]))
    assert np.ptp(budget(whole, 50).counts(6)) <= np.ptp(whole.counts(6)) + 1


def test_rare_classes_weigh_as_much_as_the_floor_up_to_the_cap():
    classes = np.repeat([0, 1, 2, 3], [8, 2, 1, 4])
    n = len(classes)
    selection = Selection(np.arange(n) * 3, np.zeros(n, "V16"), classes.astype(np.int32), np.ones(n), np.zeros(n, int))
    got = weights(selection, 6, floor=4, cap=3.0)
    assert got.tolist() == [1.0] * 8 + [2.0] * 2 + [3.0] + [1.0] * 4
    assert weights(selection, 6, 0, 1).tolist() == [1.0] * n
    with pytest.raises(ConfigError, match="cap of 1 or more"):
        weights(selection, 6, 4, 0.5)


def test_an_image_of_several_classes_takes_the_largest_weight():
    selection = Selection(np.array([9, 5, 4, 9]), np.zeros(4, "V16"), np.array([0, 0, 0, 1], np.int32), np.ones(4),
                          np.array([0, 1, 2, 0]))
    assert selection.images().tolist() == [4, 5, 9] and weights(selection, 2, 3, 100).tolist() == [1, 1, 3]


def random_ids(rng, n):
    return np.frombuffer(rng.bytes(16 * n), "V16")


def drawn_at_random(ids, index, n, seed):
    control = RandomControl(n, seed)
    control.add(ids, index)
    return control.result()


def test_a_random_control_does_not_depend_on_order_or_blocks(monkeypatch):
    monkeypatch.setattr("ppcls_ssld.mining.select._SMALLEST_BUFFER", 10)
    rng = np.random.default_rng(6)
    ids, index = random_ids(rng, 1000), np.arange(1000)
    whole = drawn_at_random(ids, index, 100, seed=1)
    control = RandomControl(100, 1)
    for rows in np.array_split(rng.permutation(1000), 17):
        control.add(ids[rows], index[rows])
    assert np.array_equal(control.result(), whole) and len(set(whole.tolist())) == 100
    assert len(np.intersect1d(whole, drawn_at_random(ids, index, 100, seed=2))) < 30
    assert np.array_equal(drawn_at_random(ids, index, 5000, 1), index) and len(drawn_at_random(ids, index, 0, 1)) == 0


def test_every_image_is_drawn_as_often_as_any_other():
    ids, index = random_ids(np.random.default_rng(7), 40), np.arange(40)
    ids = ids.copy()
    ids[:20] = np.frombuffer(b"".join(i.to_bytes(16, "big") for i in range(20)), "V16")  # ids without any randomness
    drawn = np.bincount(np.concatenate([drawn_at_random(ids, index, 10, seed) for seed in range(2000)]), minlength=40)
    spread = np.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(drawn - 500).max() < 4.5 * spread and 0.6 * spread < drawn.std() < 1.4 * spread


def test_exclusion_goes_by_name_or_by_id():
    ids = random_ids(np.random.default_rng(8), 3)
    assert not_listed(["a", "b", "c"], {"b", "x"}).tolist() == [True, False, True]
    assert not_listed(ids, {ids[2].tobytes()}).tolist() == [True, True, False]
