"""Bars and scales of the mining report."""

import re

import numpy as np
import pytest

from ppcls_ssld.mining.charts import HEIGHT, WIDTH, bars, decades, histogram, logarithmic, quantiles

BAR = re.compile(r"M([\d.]+) 100V([\d.]+)H([\d.]+)V100z")


def drawn(svg):
    """(left, height, right) of every bar."""
    return [(float(left), HEIGHT - float(top), float(right)) for left, top, right in BAR.findall(svg)]


def test_every_bar_stands_in_its_place_with_its_height():
    found = drawn(bars(np.array([0.25, 0.0, 1.0, 0.5]), "after", "x"))
    assert [height for _, height, _ in found] == [25, 100, 50]
    for (left, _, right), place in zip(found, (0, 2, 3)):
        assert place * WIDTH / 4 <= left < right <= (place + 1) * WIDTH / 4


def test_a_share_that_is_next_to_nothing_is_still_seen_and_nothing_is_not():
    assert [height for _, height, _ in drawn(bars(np.array([1e-6, 0.0]), "after", "x"))] == [1]


def test_no_bar_leaves_the_drawing():
    assert [height for _, height, _ in drawn(bars(np.array([7.0]), "after", "x"))] == [HEIGHT]


def test_a_thousand_bars_touch_each_other():
    found = drawn(bars(np.ones(1000), "after", "x"))
    assert len(found) == 1000
    assert all(right == pytest.approx(left) for (_, _, right), (left, _, _) in zip(found, found[1:]))


def test_a_label_cannot_become_markup():
    assert '"><b>' not in bars(np.ones(2), "after", '"><b>')


def test_the_logarithmic_scale_keeps_none_at_0_the_largest_at_1_and_the_order_between():
    heights = logarithmic(np.array([0, 1, 10, 1000, 5000]), 5000)
    assert heights[0] == 0 and heights[-1] == pytest.approx(1) and (np.diff(heights) > 0).all()


def test_decades_lie_on_the_scale_and_leave_the_upper_edge_alone():
    assert [count for count, _ in decades(28_550)] == [10, 100, 1000]
    assert all(height == pytest.approx(float(logarithmic(count, 28_550))) for count, height in decades(28_550))
    assert decades(0) == [] and decades(7) == []


def test_a_histogram_counts_every_finite_value_once():
    values = np.array([0.0, 0.1, 0.5, 1.0, np.nan])
    assert histogram(values, 0, 1, bins=4).tolist() == [2, 0, 1, 1]
    assert histogram(np.full(3, 0.5), 0.5, 0.5).sum() == 3


def test_quantiles_leave_out_what_is_not_there():
    assert quantiles(np.array([np.nan, 1.0, 3.0]), (0.0, 0.5, 1.0)) == [1, 2, 3]
    assert quantiles(np.array([np.nan])) == []
