"""A file is whole or not there, whatever goes wrong and whenever."""

import errno
import os

import pytest

from ppcls_ssld.atomic import replacing, write_atomic
from ppcls_ssld.errors import CheckpointError


def test_pieces_follow_one_another_and_folders_are_made(tmp_path):
    path = write_atomic(tmp_path / "a" / "b" / "new.txt", "Größe ", b"\xff", "\n")
    assert path.read_bytes() == "Größe ".encode() + b"\xff\n"
    assert os.listdir(path.parent) == ["new.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_block_that_raises_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = write_atomic(tmp_path / "file", "old")
    with pytest.raises(error):
        with replacing(path) as file:
            file.write(b"half of the n")
            raise error
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_what_to_do(tmp_path, monkeypatch, step):
    path = write_atomic(tmp_path / "file", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, full)
    with pytest.raises(CheckpointError, match="file: cannot be written .No space left.* MiB free there.; buy a bigger one"):
        write_atomic(path, "new", advice="buy a bigger one")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_folder_in_the_file_s_place_stays(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(CheckpointError, match="file: cannot be written"):
        write_atomic(tmp_path / "file", "new")
    assert os.listdir(tmp_path) == ["file"]
