"""Curves as SVG: well-formed, inside their frame, legible labels."""

from xml.etree import ElementTree

import pytest

from ppcls_ssld.demo.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, line_chart, spread_labels, ticks

LINES = [Line("a & b", "baseline", [(100, 0.1), (1000, 0.9)]), Line("c", "ssld", [(100, 0.2), (1000, 0.91)])]


@pytest.mark.parametrize("top, expected", [(1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (11500, [0, 5000, 10000]),
                                           (4.7, [0, 1, 2, 3, 4]), (0.03, [0, 0.01, 0.02, 0.03])])
def test_ticks_are_round_and_reach_no_higher_than_the_top(top, expected):
    assert ticks(top) == pytest.approx(expected)


def test_a_chart_is_well_formed_and_stays_inside_its_frame():
    root = ElementTree.fromstring(line_chart(LINES, 1.0, True, "label", ("level", "teacher", 0.95)))
    for circle in root.iter("circle"):
        assert LEFT <= float(circle.get("cx")) <= WIDTH - RIGHT and TOP <= float(circle.get("cy")) <= HEIGHT - BOTTOM
    names = [text.text for text in root.iter("text") if text.get("class").startswith("name")]
    assert sorted(names) == ["a & b", "c", "level"]


def test_a_higher_value_is_drawn_higher():
    root = ElementTree.fromstring(line_chart(LINES, 1.0, True, "label"))
    first, second = (float(circle.get("cy")) for circle in root.iter("circle"))
    assert second < first


def test_labels_that_would_lie_on_each_other_are_moved_apart_in_order():
    placed = spread_labels([(259, "low", ""), (20, "x", ""), (22, "y", ""), (258, "less low", "")])
    assert [name for _, name, _ in placed] == ["x", "y", "less low", "low"]
    heights = [y for y, _, _ in placed]
    assert min(b - a for a, b in zip(heights, heights[1:])) >= 17 and heights[-1] <= HEIGHT - BOTTOM
