"""The digits as files: all of them, recognisable, split by seed."""

import cv2
import numpy as np
import pytest

from ppcls_ssld.demo.digits import digit_images, enlarge

datasets = pytest.importorskip("sklearn.datasets")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, digit_images(folder, seed=0)


def test_all_1797_digits_are_there_with_five_labels_of_each_and_a_fifth_for_the_test(written):
    folder, images = written
    assert len(images.train) + len(images.test) == len(list(folder.iterdir())) == 1797
    assert sorted(item.label for item in images.labelled) == sorted([*range(10)] * 5)
    assert len(images.test) / 1797 == pytest.approx(0.2, abs=0.002)


def test_a_file_shows_its_digit_at_32_pixels(written):
    folder, _ = written
    original = datasets.load_digits().images[1000]
    image = cv2.imread(str(folder / "1000.png"))
    assert image.shape == (32, 32, 3)
    shrunk = cv2.resize(image[..., 0], (8, 8), interpolation=cv2.INTER_AREA)
    assert np.corrcoef(shrunk.ravel(), original.ravel())[0, 1] > 0.97


def test_paths_of_unlabelled_digits_do_not_tell_their_class(written):
    folder, images = written
    assert {item.path.rpartition("/")[0] for item in images.unlabelled} == {str(folder)}


def test_labels_belong_to_their_files(written):
    target = datasets.load_digits().target
    _, images = written
    for item in (*images.labelled, *images.test):
        assert item.label == target[int(item.path[-8:-4])]


def test_enlarging_keeps_black_black_and_full_ink_white():
    assert enlarge(np.zeros([8, 8])).max() == 0
    assert enlarge(np.full([8, 8], 16)).min() == 255
