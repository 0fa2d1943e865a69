"""Pictures for the report: sizes, where lines and frames lie, and images nobody would expect."""

import base64

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.mining.sheets import (LINES_DRAWN, PAIR_GAP, PAIR_HEIGHT, PAIR_WIDTH, covered, missing_tile, pair_sheet,
                                      thumbnail)

MIRROR = np.array([[-1.0, 0, 1], [0, 1, 0]])
QUARTER = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25]])  # the middle of the protected image


@pytest.fixture(scope="module")
def photos():
    return load_sample_images().images


def decoded(uri):
    kind, data = uri.split(",", 1)
    assert kind == "data:image/jpeg;base64"
    return cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def grey(height, width, level=100):
    return np.full((height, width, 3), level, np.uint8)


def marked(sheet, plain):
    """bool [H, W]: where something was drawn."""
    return (sheet.astype(int) - plain).any(axis=2)


def yellow(part):
    """bool [H, W]: where a frame was drawn."""
    return (part[..., 0] > 200) & (part[..., 1] > 160) & (part[..., 2] < 120)


def test_a_thumbnail_is_the_whole_image_with_its_longer_side_as_asked(photos):
    small = decoded(thumbnail(photos[0], 96))
    assert small.shape == (64, 96, 3)
    expected = cv2.resize(photos[0], (96, 64), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).mean() < 6


@pytest.mark.parametrize("shape", [(1, 1), (32, 32), (96, 20)])
def test_a_thumbnail_enlarges_nothing(shape):
    assert decoded(thumbnail(grey(*shape))).shape[:2] == shape


@pytest.mark.parametrize(("shape", "expected"), [((4000, 1), (96, 1)), ((1, 4000), (1, 96)), ((100, 3000), (3, 96))])
def test_a_thumbnail_of_a_thread_keeps_at_least_a_pixel(shape, expected):
    assert decoded(thumbnail(grey(*shape))).shape[:2] == expected


def test_both_images_of_a_pair_stand_at_one_height(photos):
    portrait = np.ascontiguousarray(photos[1].transpose(1, 0, 2))
    sheet = pair_sheet(portrait, photos[0])
    height = sheet.shape[0]
    assert height == PAIR_HEIGHT
    left, right = round(height * 427 / 640), round(height * 640 / 427)
    assert sheet.shape[1] == left + PAIR_GAP + right
    assert (sheet[:, :left] == cv2.resize(portrait, (left, height), interpolation=cv2.INTER_AREA)).all()
    assert (sheet[:, left + PAIR_GAP:] == cv2.resize(photos[0], (right, height), interpolation=cv2.INTER_AREA)).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (32, 32), (300, 2000)])
def test_no_shape_breaks_a_sheet_or_makes_it_wide(shape, photos):
    for sheet in (pair_sheet(grey(*shape), photos[0], np.full((3, 4), 0.5), MIRROR),
                  pair_sheet(photos[0], grey(*shape), np.full((3, 4), 0.5), MIRROR)):
        assert sheet.dtype == np.uint8 and 1 <= sheet.shape[0] <= PAIR_HEIGHT
        assert sheet.shape[1] <= 2 * PAIR_WIDTH + PAIR_GAP


def test_enlarged_pixels_stay_squares():
    checks = np.kron([[0, 255], [255, 0]], np.ones((1, 1)))[..., None].repeat(3, 2).astype(np.uint8)
    sheet = pair_sheet(checks, checks)
    assert set(np.unique(sheet[:, :PAIR_HEIGHT])) == {0, 255}


def test_a_line_runs_from_its_point_in_one_image_to_its_point_in_the_other():
    image = grey(150, 150)
    plain, sheet = pair_sheet(image, image), pair_sheet(image, image, np.array([[0.2, 0.5, 0.8, 0.5]]))
    rows, columns = np.nonzero(marked(sheet, plain))
    assert abs(columns.min() - 0.2 * 149) <= 4 and abs(columns.max() - (150 + PAIR_GAP + 0.8 * 149)) <= 4
    assert set(range(columns.min(), columns.max() + 1)) == set(columns)
    assert np.abs(rows - 0.5 * 149).max() <= 5


def test_of_many_pairs_no_more_lines_are_drawn_than_the_images_bear():
    image, heights = grey(150, 150), np.linspace(0.02, 0.98, 50)[:, None]
    sheet = pair_sheet(image, image, np.hstack([heights * 0, heights, heights * 0 + 1, heights]))
    gap = marked(sheet, pair_sheet(image, image))[:, 150 + PAIR_GAP // 2]
    lines = np.count_nonzero(np.diff(gap.astype(int)) == 1) + gap[0]
    assert LINES_DRAWN // 2 < lines <= LINES_DRAWN


def test_the_order_of_the_pairs_changes_nothing(photos):
    pairs = np.random.default_rng(0).random([50, 4])
    assert (pair_sheet(*photos, pairs) == pair_sheet(*photos, pairs[::-1])).all()


def test_the_frame_lies_where_the_transform_takes_the_pool_image():
    image = grey(150, 150)
    right = pair_sheet(image, image, transform=QUARTER)[:, 150 + PAIR_GAP:]
    rows, columns = np.nonzero(yellow(right))
    for place in (rows, columns):
        assert abs(place.min() - 0.25 * 149) <= 2 and abs(place.max() - 0.75 * 149) <= 2


def test_a_protected_crop_is_framed_in_the_pool_image():
    image = grey(150, 150)
    inverse = np.linalg.inv(np.vstack([QUARTER, (0, 0, 1)]))[:2]
    left = pair_sheet(image, image, transform=inverse)[:, :150]
    rows, columns = np.nonzero(yellow(left))
    for place in (rows, columns):
        assert abs(place.min() - 0.25 * 149) <= 2 and abs(place.max() - 0.75 * 149) <= 2


@pytest.mark.parametrize("transform", [None, np.full((2, 3), np.nan), np.full((2, 3), np.inf)])
def test_without_a_transform_no_frame_is_drawn(transform, photos):
    assert (pair_sheet(*photos, transform=transform) == pair_sheet(*photos)).all()
    assert covered(transform) is None


@pytest.mark.parametrize("transform", [np.zeros((2, 3)), np.eye(2, 3) * 1e9, np.eye(2, 3) * 1e-9])
def test_a_wild_transform_does_no_harm(transform, photos):
    assert pair_sheet(*photos, transform=transform).shape == pair_sheet(*photos).shape


def test_pairs_that_are_no_numbers_are_left_out(photos):
    good = np.array([[0.1, 0.2, 0.3, 0.4]])
    bad = np.array([[np.nan, 0.2, 0.3, 0.4]])
    assert (pair_sheet(*photos, np.vstack([good, bad])) == pair_sheet(*photos, good)).all()


def test_drawing_leaves_the_images_alone():
    image = grey(PAIR_HEIGHT, PAIR_HEIGHT)  # no resize is needed, so a view could be drawn on
    pair_sheet(image, image, np.full((1, 4), 0.5), QUARTER)
    assert (image == 100).all()


def test_the_covered_area_is_that_of_the_cut_and_a_mirror_covers_all():
    assert covered(QUARTER) == pytest.approx(0.25)
    assert covered(MIRROR) == pytest.approx(1)
    assert covered(np.zeros((2, 3))) is None


def test_a_missing_image_is_a_grey_tile_with_a_word():
    tile = missing_tile("missing")
    assert tile.shape == (96, 96, 3) and (tile == tile[..., :1]).all()
    assert 0.01 < (tile < 90).mean() < 0.3
