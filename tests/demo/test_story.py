"""The output folder: a demo replaces a demo and nothing else."""

import pytest

from ppcls_ssld.demo.story import MARKER, prepare
from ppcls_ssld.errors import CheckpointError, ConfigError


def test_a_new_folder_and_an_empty_one_are_taken(tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "new" / "deep"):
        prepare(folder)
        assert [p.name for p in folder.iterdir()] == [MARKER]


def test_an_earlier_demo_is_replaced_whole(tmp_path):
    prepare(tmp_path / "demo")
    (tmp_path / "demo" / "teacher").mkdir()
    (tmp_path / "demo" / "teacher" / "config.yaml").write_text("old")
    prepare(tmp_path / "demo")
    assert [p.name for p in (tmp_path / "demo").iterdir()] == [MARKER]


def test_a_folder_with_other_files_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="no demo wrote"):
        prepare(tmp_path)
    assert (tmp_path / "data" / "thesis.txt").read_text() == "years of work"


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "demo").write_text("")
    with pytest.raises(CheckpointError, match="choose a folder"):
        prepare(tmp_path / "demo")
