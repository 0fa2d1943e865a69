"""Colours of matched pictures."""

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.mining.colour import LEAST, likeness
from ppcls_ssld.mining.thumbnails import thumbnail
from ppcls_ssld.mining.types import Match

WHOLE = Match(1.0, np.eye(2, 3, dtype=np.float32), False)
PHOTOS = [np.ascontiguousarray(photo) for photo in load_sample_images().images]


def flag(*colours):
    return np.repeat(np.array(colours, np.uint8), 12, axis=0)[:, None].repeat(36, axis=1)[:32, :32]


@pytest.mark.parametrize("photo", PHOTOS, ids=["china", "flower"])
@pytest.mark.parametrize("edit", [
    lambda image: image, lambda image: (image * 0.6).astype(np.uint8),
    lambda image: cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 20])[1], cv2.IMREAD_COLOR),
    lambda image: np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)],
    ids=["same", "darker", "jpeg", "grey"])
def test_an_edit_that_keeps_the_hues_is_alike(photo, edit):
    assert likeness(thumbnail(edit(photo)), thumbnail(photo), WHOLE) > 0.8


def test_flags_of_other_colours_are_not_alike_and_a_flag_is_like_itself():
    red, blue = flag((220, 30, 30), (200, 160, 20), (230, 20, 60)), flag((20, 60, 220), (20, 160, 200), (60, 20, 230))
    assert likeness(red, red, WHOLE) == pytest.approx(1) and likeness(red, blue, WHOLE) < LEAST


def test_only_the_overlap_counts():
    left_half = Match(1.0, np.array([[0.5, 0, 0], [0, 1, 0]], np.float32), False)
    photo = thumbnail(PHOTOS[1])
    half = thumbnail(PHOTOS[1][:, :PHOTOS[1].shape[1] // 2])
    changed = photo.copy()
    changed[:, 18:] = changed[:, 18:, ::-1]
    assert likeness(half, changed, left_half) > 0.9
    assert likeness(photo, changed, WHOLE) < likeness(half, changed, left_half)


def test_a_mirror_is_undone_by_the_transform():
    mirror = Match(1.0, np.array([[-1, 0, 1], [0, 1, 0]], np.float32), True)
    photo = thumbnail(PHOTOS[0])
    assert likeness(np.ascontiguousarray(photo[:, ::-1]), photo, mirror) > 0.98


def test_an_overlap_of_nothing_tells_nothing():
    outside = Match(1.0, np.array([[1, 0, 5], [0, 1, 5]], np.float32), False)
    assert likeness(thumbnail(PHOTOS[0]), thumbnail(PHOTOS[1]), outside) == 1.0
