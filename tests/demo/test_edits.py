"""Edits and strangers: pictures of the right form, the same for the same seed."""

import cv2
import numpy as np
import pytest

from ppcls_ssld.demo.edits import OF_DRAWINGS, OF_PHOTOGRAPHS, noise, patch

EDITS = {**OF_DRAWINGS, **OF_PHOTOGRAPHS}


@pytest.fixture(params=[(32, 32), (9, 40), (90, 61)])
def picture(request):
    return np.random.default_rng(1).integers(0, 256, [*request.param, 3], np.uint8)


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_gives_a_picture_by_its_seed_and_leaves_the_original_alone(name, picture):
    before, (edit, form) = picture.copy(), EDITS[name]
    one, two = (edit(picture, np.random.default_rng(5)) for _ in range(2))
    assert one.dtype == np.uint8 and one.ndim == 3 and one.shape[2] == 3 and min(one.shape[:2]) >= 6
    assert (one == two).all() and (picture == before).all() and form in ("png", "jpg")


@pytest.mark.parametrize("name", set(EDITS) - {"stored anew", "as JPEG"})
def test_an_edit_changes_the_picture(name, picture):
    edited = EDITS[name][0](picture, np.random.default_rng(0))
    assert edited.shape != picture.shape or (edited != picture).any()


def test_a_framed_picture_lies_inside_its_frame(picture):
    framed = OF_DRAWINGS["framed"][0](picture, np.random.default_rng(0))
    (height, width), (y, x) = picture.shape[:2], ((a - b) // 2 for a, b in zip(framed.shape, picture.shape[:2]))
    assert (framed[y:y + height, x:x + width] == picture).all()


def test_only_photographs_are_mirrored():
    assert "mirrored" in OF_PHOTOGRAPHS and "mirrored" not in OF_DRAWINGS


def test_noise_has_the_size_asked_for_and_some_contrast():
    rng = np.random.default_rng(0)
    for height, width in [(32, 32), (17, 41)] * 8:
        assert (made := noise(height, width, rng)).shape == (height, width, 3) and made.std() > 10


def test_a_patch_is_part_of_the_photograph():
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None, None], (200, 300, 3)).copy()
    made = patch([ramp], 32, np.random.default_rng(0))
    assert made.shape == (32, 32, 3)
    assert (np.diff(made[:, 0, 0].astype(int)) > 0).all() and cv2.absdiff(made[:, :1], made[:, -1:]).max() == 0
