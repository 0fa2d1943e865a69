"""The lists that the tables read, made of what their users have."""

import io
import tarfile

import cv2
import numpy as np
import pytest

from benchmarks import cifar10_files, folder_list
from ppcls_ssld.config.schema import SourceConfig
from ppcls_ssld.data.lists import read_folder, read_list
from ppcls_ssld.errors import DataError


def test_a_folders_list_says_what_the_folder_says(tmp_path):
    folder, classes = tmp_path / "train", 3
    for i, name in enumerate(("n02/b.png", "n01/ä.jpeg", "n01/c d.PNG", "n10/.hidden.png", "n10/e/f.png", "n10/g.txt", "n02/g.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i]))
    folder_list.main([str(folder), "--classes", str(classes), "--output", str(tmp_path / "lists" / "train_list.txt")])
    direct = read_folder(SourceConfig("a", folder=str(folder)), classes)
    listed = read_list(SourceConfig("b", list=str(tmp_path / "lists" / "train_list.txt"), root=str(tmp_path / "lists")), classes)
    assert listed.labels.tolist() == direct.labels.tolist() == [0, 0, 1, 1, 2]
    for i in range(len(direct)):
        assert open(listed.path(i), "rb").read() == open(direct.path(i), "rb").read()


def test_a_folder_with_another_number_of_classes_is_refused(tmp_path, capsys):
    (tmp_path / "one").mkdir()
    with pytest.raises(SystemExit) as ended:
        folder_list.main([str(tmp_path), "--output", str(tmp_path / "list.txt")])
    assert ended.value.code and "found 1 class folders, expected 1000" in capsys.readouterr().err
    assert not (tmp_path / "list.txt").exists()


def archive_of(members, path):
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_the_files_are_the_archives_images(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_files, "IMAGES_OF_A_PART", 7)
    records = np.random.default_rng(0).integers(0, 256, (6, 7, cifar10_files.RECORD), np.uint8)
    records[..., 0] %= 10
    names = [f"class{i}" for i in range(10)]
    members = {"batches.meta.txt": "\n".join(names).encode() + b"\n\n", "test_batch.bin": records[5].tobytes(),
               **{f"data_batch_{i + 1}.bin": records[i].tobytes() for i in range(5)}}
    archive = archive_of(members, tmp_path / "cifar-10-binary.tar.gz")
    assert cifar10_files.write_files(archive, tmp_path / "files") == {"train": 35, "test": 7}
    images = read_list(SourceConfig("train", list=str(tmp_path / "files" / "train_list.txt"), root=str(tmp_path / "files")), 10)
    found = {int(images.path(i)[-9:-4]): (images.path(i), label) for i, label in enumerate(images.labels)}
    for i, record in enumerate(records[:5].reshape(35, -1)):
        path, label = found[i]
        assert label == record[0] and f"class{label}" in path
        np.testing.assert_array_equal(cv2.imread(path)[:, :, ::-1].transpose(2, 0, 1).ravel(), record[1:])
    before = (tmp_path / "files" / "train_list.txt").read_text()
    cifar10_files.write_files(archive, tmp_path / "files")
    assert (tmp_path / "files" / "train_list.txt").read_text() == before != "".join(sorted(before.splitlines(True)))

    members["test_batch.bin"] = members["test_batch.bin"][:-1]
    with pytest.raises(DataError, match="test files are not 7 records"):
        cifar10_files.write_files(archive_of(members, archive), tmp_path / "files")
    del members["test_batch.bin"]
    with pytest.raises(DataError, match="has no test_batch.bin; expected the binary version"):
        cifar10_files.write_files(archive_of(members, archive), tmp_path / "files")
    archive.write_bytes(b"not an archive")
    with pytest.raises(DataError, match="cannot be read as a tar archive"):
        cifar10_files.write_files(archive, tmp_path / "files")
