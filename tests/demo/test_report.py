"""The report: one file, nothing from elsewhere, every number and no stranger's markup."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

pytest.importorskip("jinja2")

from ppcls_ssld.demo.report import interval, write_report  # noqa: E402
from ppcls_ssld.demo.table import text_table  # noqa: E402

VOID = {"meta", "link", "img", "br", "input", "circle", "line", "path"}


class Page(HTMLParser):
    """Collects text, attributes that fetch something, and tags that were never closed."""

    def __init__(self, html: str):
        super().__init__()
        self.text, self.fetched, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes <{self.open[-1:]}>"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def html(story, tmp_path):
    return write_report(tmp_path / "report.html", story, seconds=60.0).read_text(encoding="utf-8")


def test_the_page_fetches_nothing_and_links_to_the_miners_report_alone(html):
    page = Page(html)
    assert [value for value in page.fetched if not value.startswith("data:")] == ["mining/report.html"]
    assert not re.search(r"url\(|@import|<script|https?://", html)


def test_every_tag_is_closed(html):
    assert not Page(html).open


def test_every_row_and_its_accuracy_is_on_the_page(html, story):
    text = " ".join(Page(html).text)
    for row in story.rows:
        assert row.name in text and row.trained_on in text and f"{row.top1:.1%}" in text and row.command in text


def test_the_page_says_that_the_teacher_read_all_labels_and_the_student_none(html):
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    assert "never read a label. The teacher had read all 18." in text


def test_the_page_says_where_the_pool_ended(html, story):
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    assert "on those 6 and on 12 more that mining chose" in text
    assert "hides 18 files among its 12: 8 copies of test images" in text and "4 strangers (noise)" in text
    assert "7 of 8 planted copies were found, and 1 real image was taken for a copy" in text
    assert "10 of 12 real images were chosen, and 1 of 4 strangers" in text
    assert "Copies that were missed: 1" in text and "Real images taken for copies: 1" in text and "9 places" in text


def test_images_trained_on_are_counted_with_what_was_mined(html, story):
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    views = story.views["ssld"]
    assert f"SSLD looks at 18 images {views / 18:.0f} times" in text


def test_class_names_are_shown_as_text_not_as_markup(html):
    assert "&lt;bee&gt;" in html and "<bee>" not in html


def test_mistakes_put_right_and_new_ones_are_counted(html, story):
    truth = np.array([item.label for item in story.images.test])
    before, after = (story.probabilities[name].argmax(1) == truth for name in ("baseline", "ssld"))
    text = re.sub(r"\s+", " ", " ".join(Page(html).text))
    assert f"SSLD put right {(~before & after).sum()} of the baseline's {(~before).sum()} mistakes" in text
    assert len(re.findall(r'class="tile fixed"', html)) == (~before & after).sum()


def test_a_student_that_gained_nothing_is_not_praised(story, tmp_path):
    story.probabilities["ssld"] = story.probabilities["baseline"]
    story.rows[2] = story.rows[2].__class__(**{**vars(story.rows[2]), "top1": story.rows[1].top1})
    html = write_report(tmp_path / "report.html", story, 60.0).read_text(encoding="utf-8")
    assert "No gain this time" in html and "Put right by SSLD" not in html


def test_many_classes_leave_out_the_tables_by_class(story, tmp_path):
    names = tuple(f"class {i}" for i in range(30))
    story.images = story.images.__class__(**{**vars(story.images), "classes": names})
    wide = np.pad(story.probabilities["ssld"], [(0, 0), (0, 27)])
    story.probabilities = dict.fromkeys(story.probabilities, wide)
    html = write_report(tmp_path / "report.html", story, 60.0).read_text(encoding="utf-8")
    assert "Class by class" not in html and "The test images" in html


@pytest.mark.parametrize("share, count, low, high", [
    # by hand, z = 1.96: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n); at p = 1 it begins at n / (n + z^2)
    (0.9, 100, 0.8256, 0.9448), (1.0, 50, 50 / 53.8416, 1.0), (0.0, 50, 0.0, 3.8416 / 53.8416),
])
def test_the_interval_is_wilsons(share, count, low, high):
    assert interval(share, count) == pytest.approx((low, high), abs=1e-4)


def test_the_table_lists_all_rows_and_states_the_gain(story):
    text = text_table(story, 60.0)
    gain = (story.rows[2].top1 - story.rows[1].top1) * 100
    assert [line.split()[0] for line in text.splitlines()[2:7]] == [row.name for row in story.rows]
    assert f"{gain:+.1f} points" in text and "labels of all training images" in text
    assert "7 of 8 copies of test images found, 1 of 12 real images taken for copies" in text
