"""A picture of a table, with results and without."""

import cv2
import pytest

from benchmarks.measured import Row, Table
from benchmarks.pictures import draw


def result(top1, *curve):
    return {"top1": top1, "curve": [{"views": views, "top1": value} for views, value in curve]}


def table(*rows):
    return Table("some", "A title", "", "", rows, (), ())


@pytest.mark.parametrize("rows", [
    (Row("one", "", None, None, (0,)), Row("two", '"+ 4 M"', 0.79, "a book", (0,))),
    (Row("one", "", 0.7, "a book", (0, 1), {0: result(0.6, (10, 0.5), (20, 0.6)), 1: result(0.7, (10, 0.6))}),),
    (Row("evaluated only", "", 0.7, "a book", (0,), {0: result(0.6)}),
     Row("trained", "", None, None, (0,), {0: result(0.6, (1, 0.5))})),
], ids=["not run", "two seeds", "a result without a curve"])
def test_a_table_is_drawn_with_and_without_results(tmp_path, rows):
    pytest.importorskip("matplotlib")
    draw(table(*rows), tmp_path / "new" / "some.png")
    height, width, _ = cv2.imread(str(tmp_path / "new" / "some.png")).shape
    assert 1000 < width < 1500 and 80 < height < 600


def test_a_row_without_words_is_shown_by_its_name_and_only_curves_are_in_the_legend(tmp_path, monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    rows = (Row("one", "", None, None, (0,), {0: result(0.6, (2, 0.6))}),  # a point is no curve
            Row("two", "words", None, None, (0,), {0: result(0.6, (1, 0.5), (2, 0.6))}))
    draw(table(*rows), tmp_path / "some.png")
    left, right = pyplot.gcf().axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["one", "words"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["two"]
    monkeypatch.undo()
    pyplot.close("all")
