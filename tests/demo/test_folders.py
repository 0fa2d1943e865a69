"""A user's folders: with and without a split of their own, too large, too small."""

import pytest

from ppcls_ssld.demo.folders import folder_images
from ppcls_ssld.demo.images import by_class
from ppcls_ssld.errors import DataError


def test_class_folders_are_split_and_nothing_is_copied(class_folders, tmp_path):
    root = class_folders(tmp_path / "pets", {"dog": 20, "cat": 20})
    images = folder_images(root, seed=0)
    assert (images.title, images.classes, images.photographs) == ("pets", ("cat", "dog"), True)
    assert (len(images.labelled), len(images.unlabelled), len(images.test)) == (10, 22, 8)
    assert {item.path for item in (*images.train, *images.test)} == {str(p) for p in root.glob("*/*.png")}
    assert all(f"/{images.classes[item.label]}/" in item.path for item in (*images.train, *images.test))


def test_a_given_test_folder_is_the_test(class_folders, tmp_path):
    class_folders(tmp_path / "train", {"a": 10, "b": 10})
    class_folders(tmp_path / "test", {"a": 3, "b": 2})
    images = folder_images(tmp_path, seed=0)
    assert len(images.train) == 20
    assert sorted(item.path for item in images.test) == sorted(str(p) for p in (tmp_path / "test").glob("*/*.png"))


def test_a_large_folder_is_capped_per_class_and_the_cap_is_told(class_folders, tmp_path):
    root = class_folders(tmp_path / "many", {"a": 40, "b": 30})
    images = folder_images(root, seed=0, train_cap=30, test_cap=6)
    assert {label: len(group) for label, group in by_class(images.train).items()} == {0: 15, 1: 15}
    assert len(images.test) == 6
    assert any("30 of 56 training and 6 of 14 test images" in note for note in images.notes)


def test_other_files_and_hidden_names_are_left_out(class_folders, tmp_path):
    root = class_folders(tmp_path / "pets", {"dog": 20, "cat": 20, ".thumbnails": 3})
    (root / "dog" / "notes.txt").write_text("not an image")
    (root / "dog" / "._000.png").write_text("what macOS writes beside an image")
    images = folder_images(root, seed=0)
    assert images.classes == ("cat", "dog") and len(images.train) + len(images.test) == 40


@pytest.mark.parametrize("counts, message", [
    ({"a": 20}, "1 class folders found"),
    ({"a": 20, "b": 7}, "b: 7 images"),
    ({f"class{i:03d}": 0 for i in range(101)}, "101 class folders found"),
])
def test_folders_that_cannot_make_a_demo_say_why(class_folders, tmp_path, counts, message):
    for name in counts:
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=message):
        folder_images(class_folders(tmp_path, counts), seed=0)


def test_a_missing_folder_and_a_class_without_test_images_are_named(class_folders, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        folder_images(tmp_path / "nowhere", seed=0)
    class_folders(tmp_path / "train", {"a": 10, "b": 10})
    class_folders(tmp_path / "test", {"a": 3})
    with pytest.raises(DataError, match="test/b: 0 images"):
        folder_images(tmp_path, seed=0)
