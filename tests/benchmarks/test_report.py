"""The report shows what was measured, says "not run" where nothing was, and names what it leaves out."""

import json
import re

import pytest
import yaml

from benchmarks.curves import Curve, curve_chart
from benchmarks.measured import read
from benchmarks.report import NOT_RUN, main, render
from benchmarks.table import TABLES, Row
from ppcls_ssld.errors import ConfigError

CONFIG = "configs/cifar10/ladder/supervised.yaml"
TABLE = {
    "title": "The ladder", "what": "Rungs.", "source": "a paper", "seeds": [0, 1, 2],
    "rows": [{"row": "plain", "what": "labels | <b>only</b>", "config": CONFIG, "expected": {"top1": 0.7512, "source": "table 3"}},
             {"row": "distilled", "what": "no labels", "config": CONFIG},
             {"row": "later", "what": "", "config": CONFIG, "expected": {"top1": 0.79}}],
    "compare": [{"of": "distilled", "against": "plain", "expected": 3.8, "what": "distillation"},
                {"of": "later", "against": "distilled", "expected": 0.41}],
}
CURVE = [{"views": 100, "loss": 2.0}, {"views": 200, "loss": 1.0}, {"views": 100, "top1": 0.3}, {"views": 200, "top1": 0.4}]


def result(row, seed, top1, **more):
    return {"table": "small", "row": row, "seed": seed, "top1": top1, "images": 1000, "views": 6400, "seconds": 12.0,
            "processes": 1, "curve": CURVE, **Row("", "", CONFIG).identity(), "command": "python it.py", "environment": {"commit": "abc1234"}, **more}


@pytest.fixture
def world(tmp_path):
    """(folder of tables, folder of results, how to add a result): `plain` with three seeds, `distilled` with two."""
    tables, results = tmp_path / "tables", tmp_path / "rows"
    tables.mkdir()
    (tables / "small.yaml").write_text(yaml.safe_dump(TABLE))

    def add(row, seed, top1, file=None, **more):
        path = results / (file or f"small/{row}_seed{seed}.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result(row, seed, top1, **more)))

    for seed, top1 in enumerate((0.61, 0.62, 0.63)):
        add("plain", seed, top1)
    add("distilled", 0, 0.64)
    add("distilled", 2, 0.68)
    return tables, results, add


def cells(markdown, first):
    line = next(line for line in markdown.splitlines() if line.startswith(f"| `{first}"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_row_shows_its_mean_deviation_seeds_and_difference(world):
    markdown, html = render(*world[:2])
    assert cells(markdown, "plain` |")[2:] == ["75.12 [1]", "62.00 ± 1.00", "3", "-13.12", "1,000", "6,400"]
    assert cells(markdown, "distilled` |")[1:5] == ["no labels", "–", "66.00 ± 2.83", "2"]
    assert "[1] table 3" in markdown and "62.00 ± 1.00" in html


def test_a_row_without_a_result_says_not_run_and_nothing_else(world):
    markdown, html = render(*world[:2])
    assert cells(markdown, "later` |")[2:] == ["79.00", NOT_RUN, "0", "–", "–", "–"]
    assert cells(markdown, "later` - ")[3:] == [NOT_RUN, "–", "0", "–"]
    part = html[html.index("<b>later</b>"):]
    line = part[:part.index('<div class="line')] if '<div class="line' in part else part[:part.index('class="legend"')]
    assert NOT_RUN in line and 'class="want"' in line
    assert not any(f'class="{mark}"' in line for mark in ("mean", "seed", "range"))


def test_differences_are_paired_by_seed_with_student_s_interval(world):
    """Seeds 0 and 2: +3 and +5 points; t of one degree of freedom is 12.706."""
    found = cells(render(*world[:2])[0], "distilled` - ")
    half = 12.706 * 2**0.5 / 2**0.5
    assert found[2:] == ["+3.80", "+4.00 ± 1.41", f"[{4 - half:+.2f}, {4 + half:+.2f}]", "2", "+3.00, +5.00"]


def test_what_makes_numbers_less_comparable_is_said(world):
    tables, results, add = world
    add("later", 0, 0.7, views=12800, environment={"commit": "abc1234-dirty"})
    add("later", 7, 0.7, views=12800, steps=5)
    add("later", 1, 0.7, views=12801)
    notes = "\n".join(read(tables, results)[0][0].notes)
    for said in ("distilled: seed 1 not run yet", "later: seed 7 counts too", "distilled - plain: seed 1 left out",
                 "later: its seeds differ in training views (12,800, 12,801)",
                 "later - distilled: not at equal training views (12,800, 12,801 against 6,400)",
                 "no commit holds: abc1234-dirty", "2 commits"):
        assert said in notes, notes
    assert not any(note.startswith("plain: ") for note in notes.splitlines())
    assert all(f"- {note}" in render(tables, results)[0] for note in notes.splitlines())


def test_results_that_no_table_shows_are_named(world):
    tables, results, add = world
    add("gone", 0, 0.9)
    add("plain", 5, 0.9, file="small/plain_seed4.json")
    add("plain", 3, float("nan"))
    add("row", 0, 0.9, table="elsewhere", file="elsewhere/row_seed0.json")
    (results / "small" / "broken_seed0.json").write_text("{")
    (results / "small" / "half_seed0.json").write_text('{"table": "small"}')
    markdown, html = render(tables, results)
    shown, left_out = markdown.split("## Not shown")
    for said in ("row 'gone'", "plain_seed4.json is left out: it says that it is table small, row plain, seed 5",
                 "plain_seed3.json is left out: its top1 is nan", "table 'elsewhere' (row)", "broken_seed0.json is left out",
                 "half_seed0.json is left out"):
        assert said in left_out and said.replace("'", "&#39;") in html
    assert "90.00" not in shown and cells(shown, "plain` |")[4] == "3"


def test_text_of_tables_is_no_html_and_breaks_no_table(world):
    markdown, html = render(*world[:2])
    assert "<b>only</b>" not in html and "&lt;b&gt;only" in html
    assert len(cells(markdown, "plain` |")) == len(cells(markdown, "later` |")) == 8


def test_the_page_needs_nothing_else(world):
    _, html = render(*world[:2])
    assert not re.search(r"<(script|link rel=.stylesheet|img)|url\(|@import|src=", html)
    assert html.count('<svg class="chart"') == 2  # accuracy and loss


def test_a_table_that_cannot_be_read_is_named(world):
    tables, results, _ = world
    for change, said in ({"compare": [{"of": "distilled", "against": "nobody"}]}, "nobody"), \
            ({"rows": [{**TABLE["rows"][0], "expected": {"top1": 75.12}}], "compare": []}, "75.12"), ({"rows": None}, "rows"):
        (tables / "small.yaml").write_text(yaml.safe_dump({**TABLE, **change}))
        with pytest.raises(ConfigError, match=rf"small.yaml: .*{said}"):
            read(tables, results)


def test_the_tables_of_the_repository_have_no_numbers_but_expected_ones_without_results(tmp_path):
    markdown, _ = render(TABLES, tmp_path)
    tables, problems = read(TABLES, tmp_path)
    assert len(tables) >= 3 and not problems
    assert sum(line.count(f"| {NOT_RUN} |") for line in markdown.splitlines()) == \
        sum(len(table.rows) + len(table.compare) for table in tables)


def test_both_files_are_written_where_asked(world, tmp_path):
    main(["--tables", str(world[0]), "--results", str(world[1]), "--html", str(tmp_path / "page.html")])
    written = (tmp_path / "REPRODUCTION.md").read_text(), (tmp_path / "page.html").read_text()
    assert written == render(*world[:2])


def test_the_mean_curve_takes_the_views_that_all_seeds_have():
    curve = Curve("row", "c0", [[(1, 2.0), (2, 4.0), (3, 9.0)], [(1, 4.0), (3, 5.0)]])
    assert curve.mean == [(1, 3.0), (3, 7.0)]
    svg = curve_chart([curve], False, "a label")
    assert svg.count('<path class="seed c0"') == 2 and svg.count('<path class="curve c0"') == 1
    assert curve_chart([Curve("row", "c0", [])], True, "nothing") == ""


def test_a_result_of_other_settings_is_named_and_not_shown(world):
    tables, results, add = world
    add("plain", 1, 0.99, resolved="another config")
    markdown, _ = render(tables, results)
    assert cells(markdown, "plain` |")[3:5] == ["62.00 ± 1.41", "2"] and "99" not in cells(markdown, "plain` |")
    assert "small/plain_seed1.json is left out: it is of other resolved than the table asks for now" in markdown


def test_runs_that_were_evaluated_once_have_no_chart_of_top1(world):
    tables, results, add = world
    assert "Top-1 in % over training views" in render(tables, results)[1]
    for path in results.glob("small/*.json"):
        row, seed = path.stem.split("_seed")
        add(row, int(seed), 0.6, curve=[point for point in CURVE if point != {"views": 100, "top1": 0.3}])
    html = render(tables, results)[1]
    assert "Top-1 in % over training views" not in html and "Training loss over training views" in html
