"""The lists of the two small transfer tasks."""

from collections import Counter

import cv2
import pytest

from benchmarks.transfer_lists import SIDE_PX, write_digits, write_photographs


def lines(path):
    return [line.rsplit(" ", 1) for line in path.read_text().splitlines()]


def test_ten_of_each_digit_are_for_training_and_no_image_is_in_both_lists(tmp_path):
    pytest.importorskip("sklearn")
    write_digits(tmp_path)
    train, test = lines(tmp_path / "digits_train.txt"), lines(tmp_path / "digits_test.txt")
    assert (len(train), len(test)) == (100, 1_697)
    assert Counter(label for _, label in train) == {str(digit): 10 for digit in range(10)}
    assert len({path for path, _ in train + test}) == 1_797
    assert cv2.imread(test[-1][0]).shape == (32, 32, 3)


def test_photographs_are_as_many_animals_as_others_and_every_second_is_for_training(tmp_path):
    sklearn = pytest.importorskip("sklearn.datasets")
    (tmp_path / "photos").mkdir()
    names = ["n01440764_tench", "n02515713_last_animal", "n02666196_abacus", "n03000000_a", "n04000000_b", "n15075141_toilet_tissue"]
    for i, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "photos" / f"{name}.png"), sklearn.load_sample_images().images[i % 2][:100, :150])
    write_photographs(tmp_path / "photos", tmp_path)
    train, test = lines(tmp_path / "photographs_train.txt"), lines(tmp_path / "photographs_test.txt")
    assert [label for _, label in train] == ["0", "1"] == [label for _, label in test]
    assert [path.rsplit("/")[-1][:9] for path, _ in train + test] == ["n01440764", "n02666196", "n02515713", "n04000000"]
    assert all(cv2.imread(path).shape == (SIDE_PX, SIDE_PX, 3) for path, _ in train + test)
    for name in names[:2]:
        (tmp_path / "photos" / f"{name}.png").unlink()
    with pytest.raises(SystemExit, match="0 animals and 4 others"):
        write_photographs(tmp_path / "photos", tmp_path)
    (tmp_path / "photos" / "holiday.png").touch()
    with pytest.raises(SystemExit, match="expected photographs named as ImageNet's"):
        write_photographs(tmp_path / "photos", tmp_path)
