import math

import numpy as np
import pytest

from ppcls_ssld.data.sampler import ImageStream, TrainSampler, eval_indices, source_pattern
from ppcls_ssld.errors import ConfigError


def epoch_of_keys(sampler, batches):
    return np.concatenate([sampler.batch(m) for m in range(batches)])


def test_a_stream_shows_every_image_once_a_pass_in_a_new_order():
    indices, passes = ImageStream(13, 7, 0, True).take(np.arange(5 * 13))
    orders = indices.reshape(5, 13)
    assert np.array_equal(passes.reshape(5, 13), np.arange(5)[:, None].repeat(13, 1))
    assert np.array_equal(np.sort(orders), np.arange(13)[None].repeat(5, 0)) and len(np.unique(orders, axis=0)) == 5


def test_a_stream_is_the_same_from_wherever_it_is_entered():
    whole = ImageStream(13, 7, 0, True).take(np.arange(100))
    stream = ImageStream(13, 7, 0, True)
    for start in (90, 3, 40, 0, 65):
        part = stream.take(np.arange(start, start + 10))
        assert all(np.array_equal(p, w[start:start + 10]) for p, w in zip(part, whole))
    assert not np.array_equal(whole, ImageStream(13, 8, 0, True).take(np.arange(100)))
    assert not np.array_equal(whole, ImageStream(13, 7, 1, True).take(np.arange(100)))
    assert np.array_equal(ImageStream(3, 7, 0, False).take(np.arange(7))[0], [0, 1, 2, 0, 1, 2, 0])


@pytest.mark.parametrize("ratios", [None, (0.3, 0.7)])
@pytest.mark.parametrize("world", [2, 3, 6])
def test_the_ranks_together_hold_the_batch_of_a_single_process(ratios, world):
    alone = TrainSampler([10, 25], ratios, 12, seed=3)
    ranks = [TrainSampler([10, 25], ratios, 12 // world, 3, rank, world) for rank in range(world)]
    for m in (0, 1, 5, 2, 1000):
        together = np.concatenate([r.batch(m) for r in ranks])
        assert np.array_equal(np.unique(together, axis=0), np.unique(alone.batch(m), axis=0)) and len(together) == 12
    assert {r.batches_per_epoch for r in ranks} == {alone.batches_per_epoch}


def test_batch_size_decides_where_the_stream_is_cut_and_nothing_else():
    for ratios in (None, (0.25, 0.75)):
        cuts = [epoch_of_keys(TrainSampler([10, 25], ratios, size, 3), 60 // size) for size in (1, 4, 12, 60)]
        ordered = [sorted(map(tuple, keys.tolist())) for keys in cuts]
        assert all(keys == ordered[0] for keys in ordered)


def test_without_ratios_no_image_is_dropped_or_doubled_in_a_pass():
    sampler = TrainSampler([10, 1, 26], None, 8, 0)
    keys = epoch_of_keys(sampler, 37)  # 8 passes over 37 images
    for p in range(8):
        mine = keys[keys[:, 2] == p, :2]
        assert np.array_equal(np.unique(mine, axis=0), [(s, i) for s, n in enumerate((10, 1, 26)) for i in range(n)])
        assert len(mine) == 37
    ordered = TrainSampler([3, 2], None, 4, 0, shuffle=False)
    assert ordered.batch(0).tolist() == [[0, 0, 0], [0, 1, 0], [0, 2, 0], [1, 0, 0]]
    assert ordered.batch(1).tolist() == [[1, 1, 0], [0, 0, 1], [0, 1, 1], [0, 2, 1]]


def test_with_ratios_every_source_keeps_its_own_passes():
    keys = epoch_of_keys(TrainSampler([7, 11], (0.2, 0.8), 5, 0), 77)
    for source, n, seen in ((0, 7, 77), (1, 11, 308)):
        mine = keys[keys[:, 0] == source]
        assert len(mine) == seen
        for p in range(seen // n):
            assert np.array_equal(np.sort(mine[mine[:, 2] == p, 1]), np.arange(n))


@pytest.mark.parametrize("ratios", [(1.0,), (0.5, 0.5), (1 / 3, 2 / 3), (0.2, 0.8), (0.49, 0.49, 0.02), (0.123, 0.877),
                                    (0.1, 0.2, 0.3, 0.4), (0.001, 0.333, 0.666)])
@pytest.mark.parametrize("size", [1, 7, 64])
def test_counts_follow_the_ratios_exactly_over_many_batches(ratios, size):
    sampler = TrainSampler([50] * len(ratios), ratios, size, 0)
    total = np.zeros(len(ratios))
    for m in range(400):
        counts = sampler.counts(m)
        assert counts.sum() == size
        total += counts
        assert np.abs(total - (m + 1) * size * np.array(ratios)).max() < 1
        if all((r * size) % 1 == 0 for r in ratios):
            assert counts.tolist() == [r * size for r in ratios]
    assert np.bincount(sampler.batch(3)[:, 0], minlength=len(ratios)).tolist() == sampler.counts(3).tolist()


def test_crooked_ratios_are_kept_to_a_ten_thousandth():
    ratios = np.array([1.23456e-5, 0.1 * 2**0.5, 1 - 0.1 * 2**0.5 - 1.23456e-5])
    pattern = source_pattern(ratios)
    shares = np.bincount(pattern) / len(pattern)
    assert len(pattern) <= 10_001 and np.abs(shares - ratios).max() <= 1e-4 and shares.min() > 0


def test_no_source_is_ever_a_whole_image_behind_or_ahead():
    rng = np.random.default_rng(0)
    for _ in range(60):
        counts = rng.integers(1, 30, rng.integers(1, 7))
        period = int(counts.sum())
        pattern = source_pattern(counts / period)
        assert period % len(pattern) == 0
        so_far = np.cumsum(np.resize(pattern, period)[:, None] == np.arange(len(counts)), axis=0)
        share = np.arange(1, period + 1)[:, None] * counts / period
        assert np.abs(so_far - share).max() < 1 and so_far[-1].tolist() == counts.tolist()


@pytest.mark.parametrize("world", [2, 4, 8])
def test_every_rank_gets_its_share_of_every_source(world):
    for rank in range(world):
        sampler = TrainSampler([100, 100, 100], (0.5, 0.25, 0.25), 16, 0, rank, world)
        for m in range(20):
            assert np.bincount(sampler.batch(m)[:, 0], minlength=3).tolist() == [8, 4, 4]


@pytest.mark.parametrize("sizes, ratios, size, epoch_of, up, down", [
    ([10, 25], None, 8, None, 5, 4), ([10, 25], None, 7, 0, 5, 5), ([10, 25], (0.5, 0.5), 8, 0, 3, 2),
    ([10, 25], (0.5, 0.5), 8, 1, 7, 6), ([10, 25], (0.5, 0.5), 8, None, 5, 4), ([3], None, 8, None, 1, 1),
    ([30, 70], (0.3, 0.7), 10, 0, 10, 10), ([10, 20], (1 / 3, 2 / 3), 15, 0, 2, 2),
    ([1281167, 3718833], (0.2, 0.8), 256 * 32, 0, 782, 781)])
def test_an_epoch_is_one_pass_over_the_source_that_defines_it(sizes, ratios, size, epoch_of, up, down):
    for drop_last, expected in ((False, up), (True, down)):
        sampler = TrainSampler(sizes, ratios, size, 0, shuffle=False, epoch_of=epoch_of, drop_last=drop_last)
        assert sampler.batches_per_epoch == expected


@pytest.mark.parametrize("ratios", [(0.5, 0.4), (1.5, -0.5), (0.0, 1.0)])
def test_ratios_that_are_no_shares_are_refused(ratios):
    with pytest.raises(ConfigError, match="sum to 1"):
        TrainSampler([5, 5], ratios, 4, 0)


@pytest.mark.parametrize("n, world", [(10, 1), (10, 3), (2, 5), (0, 2)])
def test_evaluation_sees_every_image_exactly_once(n, world):
    parts = [eval_indices(n, rank, world) for rank in range(world)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(n))
    assert max(map(len, parts)) == math.ceil(n / world)


WEIGHTS = [np.array([1.0, 1, 1, 1]), np.array([0.0, 2.5, 1, 0.25, 3.75]), np.array([0.3] * 7), np.array([0.9] * 9),
           np.array([4.0, 0, 0.2]), np.random.default_rng(0).random(200) * 3]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_weighted_pass_visits_each_image_as_often_as_its_weight_rounded_down_or_up(weights, shuffle):
    n, length = len(weights), round(weights.sum())
    stream = ImageStream(n, 7, 0, shuffle, weights)
    assert stream.length == length
    passes = stream.take(np.arange(50 * length))[0].reshape(50, length)
    for images in passes:
        visits = np.bincount(images, minlength=n)
        assert (np.floor(weights) <= visits).all() and (visits <= np.ceil(weights)).all()
        assert shuffle or np.array_equal(images, np.sort(images))
    assert not shuffle or length < 7 or len(np.unique(passes, axis=0)) == 50


@pytest.mark.parametrize("weights", [w for w in WEIGHTS if abs(w.sum() - round(w.sum())) < 0.01 or len(w) > 100])
def test_on_average_an_image_comes_as_often_as_its_weight(weights):
    n, passes = len(weights), 3000
    stream = ImageStream(n, 3, 1, False, weights)
    images = [stream.take(np.arange(p * stream.length, (p + 1) * stream.length))[0] for p in range(passes)]
    mean = np.bincount(np.concatenate(images), minlength=n) / passes
    # a visit more or less has a variance of at most 1/4; 0.5 / n: what rounding the length moves a weight by, at most
    np.testing.assert_allclose(mean, weights, rtol=0, atol=4.5 * 0.5 / passes**0.5 + 0.5 / n)


def test_weights_of_one_visit_every_image_once_a_pass_as_without_weights():
    for shuffle in (True, False):
        indices, turns = ImageStream(13, 7, 0, shuffle, np.ones(13)).take(np.arange(65))
        plain, passes = ImageStream(13, 7, 0, shuffle).take(np.arange(65))
        assert np.array_equal(turns, passes) and np.array_equal(indices, plain)


def test_no_image_has_the_same_turn_twice():
    weights = np.array([0.0, 2.5, 1, 0.25, 3.75, 1.5])
    indices, turns = ImageStream(6, 7, 0, True, weights).take(np.arange(300 * 9))
    assert len(np.unique(np.stack([indices, turns]), axis=1).T) == len(indices)


def test_a_weighted_stream_is_the_same_from_wherever_it_is_entered():
    weights = np.array([0.0, 2.5, 1, 0.25, 3.75])
    whole = np.stack(ImageStream(5, 7, 0, True, weights).take(np.arange(100)))
    stream = ImageStream(5, 7, 0, True, weights)
    for start in (90, 3, 40, 0, 65):
        assert np.array_equal(np.stack(stream.take(np.arange(start, start + 10))), whole[:, start:start + 10])
    assert not np.array_equal(whole, ImageStream(5, 8, 0, True, weights).take(np.arange(100)))


@pytest.mark.parametrize("weights", [[0.0, 0.2], [1.0, -0.5], [1.0, np.inf], [np.nan, 1.0]])
def test_weights_that_visit_nothing_or_make_no_sense_are_refused(weights):
    with pytest.raises(ConfigError, match="weights of 0 or more that sum to 1 or more"):
        ImageStream(2, 0, 0, True, np.array(weights))


@pytest.mark.parametrize("ratios", [None, (0.5, 0.5)])
def test_an_epoch_counts_visits_and_ranks_share_them(ratios):
    weights = [None, np.array([2.0, 0, 0.5, 0.5, 3])]
    alone = TrainSampler([4, 5], ratios, 10, 3, epoch_of=1, weights=weights)
    assert alone.batches_per_epoch == (1 if ratios is None else 2)  # 4 + 6 visits; 6 of one source in batches with 5
    ranks = [TrainSampler([4, 5], ratios, 5, 3, rank, 2, epoch_of=1, weights=weights) for rank in range(2)]
    for m in (0, 1, 17):
        together = np.concatenate([r.batch(m) for r in ranks])
        assert np.array_equal(np.unique(together, axis=0), np.unique(alone.batch(m), axis=0)) and len(together) == 10
    keys = epoch_of_keys(alone, 60)
    counts = np.bincount(keys[keys[:, 0] == 1, 1], minlength=5)
    np.testing.assert_allclose(counts / counts.sum(), weights[1] / 6, atol=0.02)
    assert (keys[:, 0] == 0).sum() == (240 if ratios is None else 300)


def test_orders_without_weights_are_those_from_before_there_were_weights():
    # what commit c7207c6 gave: runs go on where they stopped
    mixed, plain = TrainSampler([10, 25], (0.25, 0.75), 8, seed=3), TrainSampler([10, 25], None, 6, seed=3)
    assert mixed.batch(5).tolist() == [[0, 4, 1], [0, 1, 1], [1, 2, 1], [1, 17, 1], [1, 11, 1], [1, 13, 1], [1, 12, 1],
                                       [1, 0, 1]]
    assert plain.batch(6).tolist() == [[1, 1, 1], [0, 5, 1], [1, 3, 1], [0, 8, 1], [0, 2, 1], [1, 0, 1]]


def test_with_weights_every_turn_of_an_image_comes_at_most_once_and_all_views_have_theirs():
    """So that views stored for an image, used in turn, are all used, whatever the heaviest image's weight is."""
    weights = np.array([1, 1, 5, 2.5, 0.5, 4.2])
    stream = ImageStream(6, 3, 0, True, weights)
    images, turns = stream.take(np.arange(200 * stream.length))
    for i in range(6):
        own = turns[images == i]
        assert len(set(own.tolist())) == len(own)
        for views in (2, 5, 7):
            counts = np.bincount(own % views, minlength=views)
            assert counts.min() > 0 and (weights[i] % 1 or np.ptp(counts) <= 1)
