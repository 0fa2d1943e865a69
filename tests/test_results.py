"""The page of results shows what is there."""

import gzip
import json

from benchmarks.report import render as render_report
from benchmarks.table import RESULTS as ROWS
from benchmarks.table import TABLES
from benchmarks.summary import RESULTS, render


def test_the_page_of_results_is_up_to_date():
    assert (RESULTS / "README.md").read_text() == render(), "run python benchmarks/summary.py"


def test_no_result_is_of_files_that_nobody_has():
    assert not [path.name for path in RESULTS.glob("*dirty*")]


def test_the_page_of_expected_and_measured_is_up_to_date():
    markdown, _ = render_report(TABLES, ROWS)
    assert (RESULTS / "REPRODUCTION.md").read_text() == markdown, "run python benchmarks/reproduce.py --report"


def test_every_row_says_which_commits_it_was_trained_at():
    for path in ROWS.rglob("*.json"):
        commits = json.loads(path.read_text())["commits"]
        assert commits and not [commit for commit in commits if "dirty" in commit or commit == "unknown"], path


def test_every_row_has_its_log_beside_it():
    for path in ROWS.rglob("*.json"):
        result = json.loads(path.read_text())
        if result["table"] == "released":
            continue  # nothing was trained
        rows = [json.loads(line) for line in gzip.decompress(path.with_suffix(".jsonl.gz").read_bytes()).splitlines()]
        evaluations = {row["images_seen"]: row["top1"] for row in rows if row["kind"] == "eval"}
        assert evaluations == {point["views"]: point["top1"] for point in result["curve"] if "top1" in point}, path
        assert evaluations[result["views"]] == result["top1"], path
