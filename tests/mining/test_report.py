"""The mining report: one file, nothing from elsewhere, every number, no stranger's markup, and small enough to send."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from mined_example import TRANSFORMS, example

from ppcls_ssld.errors import CheckpointError
from ppcls_ssld.mining.report import Chosen, MiningResult, Pair, score_text, write_report
from ppcls_ssld.mining.report_pairs import STRONGEST_SHOWN

pytest.importorskip("jinja2")

VOID = {"meta", "link", "img", "br", "input", "path"}


class Page(HTMLParser):
    """Collects text, attributes that fetch something, pictures, headings, and tags that were never closed."""

    def __init__(self, html):
        super().__init__()
        self.words, self.fetched, self.open, self.pictures = [], [], [], []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        if tag == "img":
            self.pictures.append(dict(attributes))
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
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def written(folder, result, read, read_protected=None):
    return write_report(result, folder / "report.html", read, read_protected).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def ten():
    return example(10, 500)


@pytest.fixture(scope="module")
def thousand():
    return example(1000, 40)


@pytest.fixture(scope="module")
def html(ten, tmp_path_factory):
    album, result = ten
    return written(tmp_path_factory.mktemp("ten"), result, album.read)


@pytest.fixture(scope="module")
def html_of_thousand(thousand, tmp_path_factory):
    album, result = thousand
    return written(tmp_path_factory.mktemp("thousand"), result, album.read)


def nothing(name):
    raise OSError(name)


def bare(**values):
    """A result of the first stage alone."""
    return MiningResult("ppcls-ssld mine dedup", {}, {"listed": 100, "removed_keypoints": 1, "kept": 99}, **values)


# the page


@pytest.mark.parametrize("page", ["html", "html_of_thousand"])
def test_the_page_fetches_nothing_and_closes_every_tag(page, request):
    text = request.getfixturevalue(page)
    found = Page(text)
    assert found.fetched and all(value.startswith("data:") for value in found.fetched)
    assert not re.search(r"url\(|@import|<script|https?://", text)
    assert not found.open


def test_every_picture_has_a_text_in_its_place(html):
    pictures = Page(html).pictures
    assert len(pictures) > 100 and all(picture["alt"] for picture in pictures)


def test_the_same_result_gives_the_same_bytes(ten, html, tmp_path):
    album, result = ten
    assert written(tmp_path, result, album.read) == html


def test_words_and_grounds_differ_enough_to_be_read_in_light_and_dark(html):
    themes = re.findall(r":root \{([^}]*)\}", html)
    assert len(themes) == 3  # light, dark, print
    for theme in themes:
        colours = dict(re.findall(r"--(\w+): #(\w+);", theme))
        for ground in ("paper", "card"):
            for ink in ("ink", "soft", "pool", "control", "kept", "removed"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)


def contrast(*colours):
    """Of two sRGB colours, as WCAG 2.2 defines it."""
    lights = []
    for colour in colours:
        colour = colour if len(colour) == 6 else "".join(2 * digit for digit in colour)
        levels = np.array([int(colour[i:i + 2], 16) for i in (0, 2, 4)]) / 255
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        lights.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


# what it says


def test_the_headline_says_what_was_chosen_and_what_went(ten, html):
    _, result = ten
    text = Page(html).text
    counts = result.counts
    assert f"Of {counts['listed']:,} images, {counts['chosen']:,} chosen for 10 classes." in text.replace(" .", ".")
    removed = sum(n for key, n in counts.items() if key.startswith("removed_"))
    assert f"{removed:,} near-copies of protected images were removed" in text
    assert "55 files could not be read" in text


def test_every_count_threshold_setting_and_second_is_on_the_page(ten, html):
    _, result = ten
    text = Page(html).text
    for count in result.counts.values():
        assert f"{count:,}" in text
    for row in result.thresholds:
        assert score_text(row.value) in text and row.source in text
    for word in ("dedup.keypoints.min_cells", "dedup.within_pool", "sources.1.path", "0.0002", "5e-06 – 0.0011",
                 "from the fitted tail", "not measured in this run", "CMYK", "1,204", "70 min", result.command,
                 *result.notes, result.versions):
        assert word in text, word


def test_a_loss_is_drawn_at_the_end_of_what_was_left_before_it(tmp_path):
    counts = {"listed": 200, "unreadable": 20, "removed_hash": 30, "scored": 150, "excluded": 50, "chosen": 40}
    html = written(tmp_path, replace(bare(), counts=counts), nothing)
    bars = re.findall(r'class="fill some" style="left:([\d.]+)%;width:([\d.]+)%"', html)
    assert [tuple(map(float, bar)) for bar in bars] == [(0, 100), (90, 10), (75, 15), (0, 75), (50, 25), (0, 20)]


def test_every_class_has_its_numbers_for_few_and_for_many_classes(ten, html, thousand, html_of_thousand):
    for (_, result), page in ((ten, html), (thousand, html_of_thousand)):
        rows = re.findall(r'<td class="num">(\d+)</td><td>([^<]*)</td><td class="num">([\d,]+)</td>'
                          r'<td class="num">([\d,]+)</td>', page)
        assert [(int(c), name, *(int(n.replace(",", "")) for n in numbers)) for c, name, *numbers in rows] == [
            (c, name, *map(int, (result.before[c], result.after[c]))) for c, name in enumerate(result.class_names)]


def test_many_classes_are_drawn_by_id_and_by_size(thousand, html_of_thousand):
    _, result = thousand
    outlines = re.findall(r'<svg class="bars (before|after)".*?<path d="([^"]*)"', html_of_thousand)
    assert [style for style, _ in outlines[:4]] == ["before", "after"] * 2
    by_id, by_size = ([float(top) for top in re.findall(r"V([\d.]+)H", path)] for _, path in (outlines[0], outlines[2]))
    assert by_size == sorted(by_size) and by_id != by_size and sorted(by_id) == by_size
    assert len(by_id) == np.count_nonzero(result.before)


def test_classes_with_fewer_than_k_are_named_shortest_first():
    after = np.array([500, 3, 500, 0])
    result = replace(bare(), class_names=["a", "b", "c", "d"], before=after + 1, after=after, top_k=500)
    assert re.search(r"2 of 4 classes have fewer *, 1 of them none", text_of(result))
    assert re.search(r"Short of 500 d 0 b 3", text_of(result))
    assert "Every class is full" in text_of(replace(result, after=np.full(4, 500)))


def test_more_classes_than_a_drawing_bears_are_grouped_and_the_page_says_so(tmp_path):
    count = 5001
    html = written(tmp_path, replace(bare(), class_names=[f"c{i}" for i in range(count)], before=np.arange(count),
                                     after=np.arange(count), top_k=9), nothing)
    assert "Each bar is the mean of 3 neighbouring classes." in html
    assert "The numbers of the first 2,000 classes" in html
    assert len(html) < 1_000_000


def test_what_a_run_has_not_done_yet_is_not_on_the_page():
    text = text_of(bare())
    assert "Of 100 images, 1 is a near-copy of protected ones" in text and "Every file could be read." in text
    for heading in ("Class by class", "Scores from", "Best and last", "Thresholds", "Odd images", "side by side"):
        assert heading not in text


def text_of(result):
    with TemporaryDirectory() as folder:
        return Page(written(Path(folder), result, nothing)).text


def test_an_empty_pool_makes_a_page():
    none = np.zeros(1, int)
    text = text_of(MiningResult("x", {}, {"listed": 0, "kept": 0, "chosen": 0}, class_names=["a"], before=none,
                                after=none, top_k=3, rank_scores=np.full([1, 3], np.nan)))
    assert "Of 0 images, 0 chosen for 1 class" in text and "1 of 1 class has fewer" in text


def test_a_spread_of_the_classes_is_shown_and_the_page_says_so(html, html_of_thousand):
    assert html.count('class="sheet"') == 10 and "Every class:" in html
    assert html_of_thousand.count('class="sheet"') == 20 and "20 of 1,000 classes, spread evenly" in html_of_thousand


def test_of_the_unreadable_fifty_are_listed_and_the_page_says_where_the_others_are(html):
    assert len(re.findall(r"pool/broken \d+\.jpg", html)) == 50
    assert "the first 50 of 55" in Page(html).text and "quarantine.csv" in html


# strangers


HOSTILE = ['<script>alert("1")</script>.jpg', '"><img src=x onerror=alert(1)>.jpg', "line\nbreak &amp; tab\t.jpg",
           "{{ 7 * 7 }}.jpg", "日本語 имя.jpg"]


def test_no_name_becomes_markup(tmp_path):
    album, result = example(3, 5)
    result = replace(
        result, class_names=HOSTILE[:3], notes=HOSTILE, command=HOSTILE[0], settings={HOSTILE[1]: HOSTILE},
        kinds={HOSTILE[0]: 1}, unreadable=[(name, name) for name in HOSTILE], versions=HOSTILE[1],
        seconds={HOSTILE[0]: 1.0}, counts={**result.counts, HOSTILE[0]: 1, "removed_" + HOSTILE[1]: 1},
        pairs=[Pair(name, name, HOSTILE[0], 1.0, 0.5) for name in HOSTILE],
        chosen=[replace(image, name=HOSTILE[0]) for image in result.chosen])
    html = written(tmp_path, result, album.read)
    page = Page(html)
    assert "<script" not in html and "<img src=x" not in html
    assert all(picture["src"].startswith("data:") for picture in page.pictures) and not page.open
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text


def test_a_name_that_is_no_unicode_is_written_all_the_same(tmp_path):
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    assert r"caf\udce9.jpg" in written(tmp_path, replace(bare(), unreadable=[(name, "why")]), nothing)


def test_a_picture_that_is_gone_is_a_grey_tile_and_the_page_says_so(tmp_path):
    album, _ = example(3, 5)
    page = Page(written(tmp_path, replace(bare(), pairs=[Pair("pool/gone.jpg", "val/photo 1.JPEG", "hash", 0.9, 0.8)]),
                        album.read))
    assert len(page.pictures) == 1 and "cannot be read any more" in page.text
    assert "1 picture could not be read again for this page" in page.text


def test_any_other_fault_of_a_reader_is_not_hidden(tmp_path):
    def faulty(name):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        written(tmp_path, replace(bare(), pairs=[Pair("a", "b", "hash", 0.9, 0.8)]), faulty)


def test_pool_and_protected_images_may_have_readers_of_their_own(tmp_path):
    asked = {"pool": [], "protected": []}

    def reader(kind):
        return lambda name: asked[kind].append(name) or np.zeros((8, 8, 3), np.uint8)

    result = replace(bare(), pairs=[Pair("a.jpg", "a.jpg", "hash", 0.9, 0.8)])
    written(tmp_path, result, reader("pool"), reader("protected"))
    assert asked == {"pool": ["a.jpg"], "protected": ["a.jpg"]}


def test_a_page_that_cannot_be_written_is_said_and_leaves_nothing(tmp_path):
    (tmp_path / "report.html").mkdir()
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_report(bare(), tmp_path / "report.html", nothing)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# pairs and contact sheets


def test_identical_images_have_no_doubt_about_them(html):
    section = html.split("The same bytes")[1].split("<h3>")[0]
    assert section.count("<b>identical</b>") == STRONGEST_SHOWN == section.count("<img") and "doubtful" not in section


def test_the_words_of_a_pair_say_what_its_transform_says(html):
    for kind, words in {"quarter": "shows 25% of the protected image", "mirror": "mirrored, the whole image",
                        "border": "the protected image fills 64% of it",
                        "half, mirrored": "mirrored, shows 49% of the protected image"}.items():
        assert kind in TRANSFORMS
        assert re.search(rf"; {words}\s*<code>pool/{kind} \d", html), kind


def test_the_first_and_the_last_of_a_class_are_shown_and_no_image_twice(tmp_path):
    counts = {"a": 30, "b": 0, "c": 3, "d": 8}
    chosen = [Chosen(c, rank, f"{name}{rank}", 0.5) for c, (name, count) in enumerate(counts.items())
              for rank in range(count, 0, -1)]
    result = replace(bare(), class_names=list(counts), after=np.array(list(counts.values())), chosen=chosen)
    page = Page(written(tmp_path, result, lambda name: np.zeros((8, 8, 3), np.uint8)))
    ranks = {"a": [*range(1, 7), *range(25, 31)], "c": range(1, 4), "d": range(1, 9)}
    assert [picture["alt"] for picture in page.pictures] == [f"{c}{rank}" for c in ranks for rank in ranks[c]]
    assert "ranks 25 to 30" in page.text and "ranks 7 to 8" in page.text


# size


def test_a_thousand_classes_and_all_the_pictures_there_can_be_fit_into_5_megabytes(thousand, tmp_path):
    album, result = thousand
    busy = np.ascontiguousarray(album.photos[0][150:400, 0:375])  # roofs and bushes: hard to compress
    rng = np.random.default_rng(0)
    pairs = [Pair(f"pool/{stage} {i}.jpg", f"val/{i}.jpg", stage, 0.9 + i / 1000 if i < 20 else 0.89 - i / 1000, 0.9,
                  transform=np.eye(2, 3), pairs=rng.random([50, 4]), status="removed" if i < 20 else "kept")
             for stage in ("hash", "thumbnail", "embedding", "keypoints") for i in range(40)]
    exact = [Pair(f"pool/{i}.jpg", f"val/{i}.jpg", stage) for stage in ("path", "bytes", "pixels") for i in range(20)]
    html = written(tmp_path, replace(result, pairs=[*exact, *pairs]), lambda name: busy)
    assert html.count("<img") == 3 * 4 + 4 * 20 + len(result.chosen)
    assert len(html) <= 5_000_000
