"""The page of results shows what is there."""

from benchmarks.summary import RESULTS, render


def test_the_page_of_results_is_up_to_date():
    assert (RESULTS / "README.md").read_text() == render(), "run python benchmarks/summary.py"


def test_no_result_is_of_files_that_nobody_has():
    assert not [path.name for path in RESULTS.glob("*dirty*")]
