"""What a demo plants: known to the demo, told to nobody."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ppcls_ssld.data.pixels import read
from ppcls_ssld.demo.pool import BROKEN, COPY, SAME_FILE, STRANGER, make_pool
from ppcls_ssld.errors import CheckpointError, DataError


def of_kind(pool, kind):
    return [planted for planted in pool.planted if planted.kind == kind]


def test_every_planted_file_is_accounted_for_and_its_name_is_a_number(pool):
    files = sorted(str(path) for path in pool.folder.iterdir())
    assert files == sorted(planted.path for planted in pool.planted)
    assert sorted(Path(file).stem for file in files) == [f"{i:05d}" for i in range(len(files))]


def test_the_order_of_names_does_not_follow_the_kinds(pool):
    kinds = [planted.kind for planted in sorted(pool.planted, key=lambda planted: planted.path)]
    assert Counter(kinds) == {COPY: 8, STRANGER: 4, BROKEN: 6}
    assert sum(a != b for a, b in zip(kinds, kinds[1:])) > 2


def test_copies_are_of_different_test_images_and_all_edits_occur(pool, images):
    copies = of_kind(pool, COPY)
    sources = [planted.source for planted in copies]
    assert len(set(sources)) == len(sources) and set(sources) <= {item.path for item in images.test}
    assert len({planted.what for planted in copies}) == 8
    same, = (planted for planted in copies if planted.what == SAME_FILE)
    assert Path(same.path).read_bytes() == Path(same.source).read_bytes()
    anew, = (planted for planted in copies if planted.what == "stored anew")
    assert Path(anew.path).read_bytes() != Path(anew.source).read_bytes()
    assert (read(anew.path) == read(anew.source)).all()


def test_strangers_can_be_read_and_broken_files_cannot(pool):
    for planted in of_kind(pool, STRANGER):
        assert read(planted.path).shape == (32, 32, 3)
    for planted in of_kind(pool, BROKEN):
        with pytest.raises(DataError):
            read(planted.path)


def test_a_seed_fixes_what_is_planted(images, tmp_path):
    def content(folder, seed):
        return [(p.kind, p.what, p.source, Path(p.path).read_bytes()) for p in make_pool(images, folder, seed).planted]

    assert content(tmp_path / "a", 1) == content(tmp_path / "b", 1) != content(tmp_path / "c", 2)


def test_the_miner_is_given_paths_alone(pool, images):
    assert pool.protected.read_text().splitlines() == [item.path for item in images.test]
    assert pool.innocents is None  # 36 images are too few
    assert pool.top_k == 6  # of each class 6 training images


def test_enough_labelled_and_test_images_are_innocents(images, tmp_path):
    more = replace(images, test=images.test * 2)
    known = make_pool(more, tmp_path / "more", 0).innocents.read_text().splitlines()
    assert known == [item.path for item in (*more.labelled, *more.test)]


def test_drawings_get_no_mirrored_copy_and_parts_of_photographs_as_strangers(images, tmp_path):
    pytest.importorskip("sklearn")
    pool = make_pool(replace(images, photographs=False), tmp_path / "drawings", 0)
    assert "mirrored" not in {planted.what for planted in of_kind(pool, COPY)}
    assert {planted.what for planted in of_kind(pool, STRANGER)} == {"noise", "part of a photograph"}


def test_a_folder_that_cannot_be_written_is_named(images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="choose another --output"):
        make_pool(images, tmp_path / "file", 0)
