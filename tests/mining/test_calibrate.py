"""Thresholds from innocents: exact where there are enough, told apart from guesses where there are not."""

import numpy as np
import pytest

from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.mining.calibrate import bounds, estimate, threshold_for


@pytest.mark.parametrize("alarms, count, low, high", [
    # scipy 1.17.1, stats.binomtest(alarms, count).proportion_ci(), which searches for the roots of the tails
    (0, 10, 0.0, 0.3084971), (10, 10, 0.6915029, 1.0), (1, 1000, 2.531746e-05, 0.005558924),
    (5, 50, 0.03327509, 0.2181354)])
def test_bounds_are_those_of_an_exact_binomial_test(alarms, count, low, high):
    np.testing.assert_allclose(bounds(alarms, count), (low, high), rtol=1e-4)


def test_the_bounds_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for rate in (0.003, 0.05, 0.4):
        inside = [low <= rate <= high for low, high in (bounds(int(a), 400) for a in rng.binomial(400, rate, 2000))]
        assert np.mean(inside) >= 0.945


def test_an_estimate_counts_at_and_above_the_threshold():
    cells = np.array([0, 0, 3, 5, 5, 9])
    assert (estimate(cells, 5).alarms, estimate(cells, 6).alarms, estimate(cells, 5).count) == (3, 1, 6)
    assert estimate(cells, 5).rate == 0.5
    assert not estimate(cells, 5).extrapolated and estimate(cells, 5).low < 0.5 < estimate(cells, 5).high


@pytest.mark.parametrize("whole", [True, False])
def test_with_many_innocents_the_threshold_is_the_smallest_that_keeps_the_target(whole):
    rng = np.random.default_rng(1)
    scores = rng.geometric(0.4, 20_000) - 1 if whole else rng.normal(0, 0.1, 20_000).astype(np.float32)
    threshold, found = threshold_for(scores, 1e-3)
    assert found == estimate(scores, threshold) and found.alarms <= 20 and not found.extrapolated
    assert estimate(scores, threshold - (1 if whole else 1e-5)).alarms > 20
    assert np.count_nonzero(scores >= threshold) == found.alarms  # in their own dtype


def test_equal_scores_are_alarms_together_or_not_at_all():
    scores = np.array([0] * 9_900 + [4] * 100)
    assert threshold_for(scores, 0.005)[0] == 5 and threshold_for(scores, 0.01)[0] == 1


@pytest.mark.parametrize("name, draw", [
    ("exponential", lambda rng, n: rng.exponential(0.1, n)), ("normal", lambda rng, n: rng.normal(0, 0.1, n)),
    ("Pareto", lambda rng, n: rng.pareto(5, n)), ("cells", lambda rng, n: rng.geometric(0.5, n) - 1),
    ("mostly no evidence", lambda rng, n: np.where(rng.random(n) < 0.95, 0, rng.geometric(0.4, n)))])
def test_with_few_innocents_the_tail_is_extrapolated_and_says_so(name, draw):
    rng = np.random.default_rng(2)
    truth, rates = draw(rng, 2_000_000), []
    for _ in range(60):
        threshold, found = threshold_for(draw(rng, 1000), 1e-3)
        assert found.extrapolated and found.rate <= 1e-3 * (1 + 1e-9) and found.high >= 3.6e-3
        rates.append(np.mean(truth >= threshold))
    assert np.median(rates) <= 1.3e-3 and np.median(rates) > 5e-5, np.median(rates)


def test_without_any_spread_the_bounds_alone_speak():
    threshold, found = threshold_for(np.zeros(200, int), 1e-3)
    assert threshold == 1 and found == estimate(np.zeros(200, int), 1) and not found.extrapolated and found.high > 0.018


@pytest.mark.parametrize("scores, target, error, message", [
    ([1.0] * 10, 0.1, DataError, "found 10 scores"), ([], 0.1, DataError, "a list of scores"),
    ([1.0] * 60 + [np.nan], 0.1, DataError, "1 of 61"), ([1.0] * 60, 0.0, ConfigError, "between 0 and 1"),
    ([1.0] * 60, 1.0, ConfigError, "between 0 and 1")])
def test_what_cannot_be_calibrated_is_refused(scores, target, error, message):
    with pytest.raises(error, match=message):
        threshold_for(np.array(scores), target)
