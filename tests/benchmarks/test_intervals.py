"""Intervals say what they promise: they cover the truth in 95 of 100 cases."""

import numpy as np
import pytest

from benchmarks.intervals import estimate, paired, share_interval


def test_three_and_five_seeds_use_the_table_of_student():
    found = estimate([1.0, 2.0, 3.0])
    assert (found.n, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.half_width == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert estimate([0.0, 0.0, 0.0, 0.0, 5.0**0.5]).half_width == pytest.approx(2.776 / 5**0.5, abs=1e-3)


def test_the_interval_of_three_values_covers_their_true_mean_in_95_of_100_cases():
    draws = np.random.default_rng(0).normal(7.0, 2.0, size=(4000, 3))
    covered = [abs(found.mean - 7.0) <= found.half_width for found in map(estimate, draws.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


def test_one_value_has_no_spread_and_none_is_refused():
    assert (estimate([0.5]).deviation, estimate([0.5]).half_width) == (None, None)
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_pairs_are_the_seeds_that_both_sides_have():
    assert paired({2: 0.75, 0: 0.5, 1: 0.5}, {0: 0.25, 2: 0.5, 7: 0.0}) == {0: 0.25, 2: 0.25}
    assert paired({0: 1.0}, {1: 1.0}) == {}


@pytest.mark.parametrize("truth, count", [(0.79, 500), (0.97, 100), (0.1, 400)])
def test_the_interval_of_a_share_covers_the_truth_in_95_of_100_cases(truth, count):
    hits = np.random.default_rng(1).binomial(count, truth, size=4000)
    bounds = {n: share_interval(n / count, count) for n in set(hits.tolist())}
    assert np.mean([bounds[n][0] <= truth <= bounds[n][1] for n in hits.tolist()]) == pytest.approx(0.95, abs=0.02)
    assert all(0 <= low <= n / count <= high <= 1 for n, (low, high) in bounds.items())
