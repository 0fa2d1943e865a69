"""The lists of the two small transfer tasks."""

from collections import Counter

import cv2
import pytest

from benchmarks.transfer_lists import KINDS, SIDE_PX, kind_of, write_digits, write_photographs


def lines(path):
    return [line.rsplit(" ", 1) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name, kind", [
    ("n01440764_tench.JPEG", 0), ("n02077923_sea_lion.JPEG", 0),  # ImageNet's first class, and the last before the dogs
    ("n02085620_Chihuahua.JPEG", 1), ("n02113978_Mexican_hairless.JPEG", 1),  # the first and the last of its dogs
    ("n02114367_timber_wolf.JPEG", 2), ("n02515713.JPEG", 2),
    ("n02666196_abacus.JPEG", 3), ("n15075141_toilet_tissue.JPEG", 3)])
def test_a_kind_is_told_from_the_wordnet_id(name, kind):
    assert kind_of(name) == kind


def test_kinds_are_in_the_order_of_the_ids():
    assert sorted(KINDS) == list(KINDS)


def test_ten_of_each_digit_are_for_training_and_no_image_is_in_both_lists(tmp_path):
    pytest.importorskip("sklearn")
    write_digits(tmp_path)
    train, test = lines(tmp_path / "digits_train.txt"), lines(tmp_path / "digits_test.txt")
    assert (len(train), len(test)) == (100, 1_697)
    assert Counter(label for _, label in train) == {str(digit): 10 for digit in range(10)}
    assert len({path for path, _ in train + test}) == 1_797
    assert cv2.imread(test[-1][0]).shape == (32, 32, 3)


def test_every_second_photograph_is_for_training_at_32_pixels(tmp_path):
    sklearn = pytest.importorskip("sklearn.datasets")
    (tmp_path / "photos").mkdir()
    for i, name in enumerate(("n01440764_tench", "n02085620_a", "n02099601_b", "n02666196_abacus", "n09999999_c")):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), sklearn.load_sample_images().images[i % 2][:100, :150])
    write_photographs(tmp_path / "photos", tmp_path)
    train, test = lines(tmp_path / "photographs_train.txt"), lines(tmp_path / "photographs_test.txt")
    assert [label for _, label in train] == ["0", "1", "3"] and [label for _, label in test] == ["1", "3"]
    assert all(cv2.imread(path).shape == (SIDE_PX, SIDE_PX, 3) for path, _ in train + test)
    (tmp_path / "photos" / "holiday.png").touch()
    with pytest.raises(SystemExit, match="expected photographs named as ImageNet's"):
        write_photographs(tmp_path / "photos", tmp_path)
