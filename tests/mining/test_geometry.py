import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from benchmarks.edits import EDITS
from ppcls_ssld.mining.geometry import GeometryConfig, paper_match_count, tentative, verify
from ppcls_ssld.mining.keypoints import empty, extract
from ppcls_ssld.mining.types import Keypoints

PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]
KEYPOINTS = [extract(image) for image in PHOTOGRAPHS]


def tiles(image, rows=3, columns=3):
    height, width = image.shape[0] // rows, image.shape[1] // columns
    return [np.ascontiguousarray(image[y * height:(y + 1) * height, x * width:(x + 1) * width])
            for y in range(rows) for x in range(columns)]


def checks(side, size=240):
    y, x = np.mgrid[:size, :size]
    return np.repeat((((x // side + y // side) % 2) * 200 + 20).astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("photograph", [0, 1])
def test_every_edit_is_found_whichever_side_was_edited(name, photograph):
    edited = extract(EDITS[name](PHOTOGRAPHS[photograph], np.random.default_rng(5)))
    for query, reference in ((edited, KEYPOINTS[photograph]), (KEYPOINTS[photograph], edited)):
        match = verify(query, reference)
        assert match is not None and match.score >= GeometryConfig().cells
        assert match.mirrored == name.endswith("mirror")


def test_different_photographs_do_not_match():
    assert verify(*KEYPOINTS) is None


@pytest.mark.parametrize("photograph", [0, 1])
def test_tiles_of_one_photograph_that_do_not_overlap_do_not_match(photograph):
    parts = [extract(tile) for tile in tiles(PHOTOGRAPHS[photograph])]
    assert not [(i, j) for i in range(9) for j in range(i) if verify(parts[i], parts[j])]


def test_regular_patterns_of_different_pitch_do_not_match():
    patterns = [extract(checks(side)) for side in (12, 17, 30)]
    assert not [(i, j) for i in range(3) for j in range(i) if verify(patterns[i], patterns[j])]


def test_the_transform_takes_the_pool_image_to_the_protected_one():
    image = PHOTOGRAPHS[0]
    height, width = image.shape[:2]
    part = np.ascontiguousarray(image[100:340, 200:520])
    match = verify(extract(part), KEYPOINTS[0])
    expected = np.array([[320 / width, 0, 200 / width], [0, 240 / height, 100 / height]])
    assert np.abs(match.transform - expected).max() < 0.01
    assert match.transform.shape == (2, 3) and match.transform.dtype == np.float32


def test_the_transform_of_a_mirror_image_contains_the_mirror():
    match = verify(extract(np.ascontiguousarray(PHOTOGRAPHS[0][:, ::-1])), KEYPOINTS[0])
    assert match.mirrored
    assert np.abs(match.transform - [[-1, 0, 1], [0, 1, 0]]).max() < 0.01


@pytest.mark.parametrize("name", ["crop_50", "crop_50_mirror", "rotate_10_mirror"])
def test_the_pairs_obey_the_transform(name):
    edited = extract(EDITS[name](PHOTOGRAPHS[1], np.random.default_rng(1)))
    match = verify(edited, KEYPOINTS[1])
    moved = match.pairs[:, :2] @ match.transform[:, :2].T + match.transform[:, 2]
    assert len(match.pairs) >= match.score
    assert np.abs(moved - match.pairs[:, 2:]).max() < 0.05


def test_the_same_pair_gives_the_same_match_whatever_was_computed_before():
    edited = extract(EDITS["rotate_10"](PHOTOGRAPHS[1], np.random.default_rng(1)))
    first = verify(edited, KEYPOINTS[1])
    verify(*KEYPOINTS)
    again = verify(edited, KEYPOINTS[1])
    assert first.score == again.score and np.array_equal(first.transform, again.transform)
    assert np.array_equal(first.pairs, again.pairs)


def test_swapping_the_images_gives_about_the_inverse():
    edited = extract(EDITS["crop_50"](PHOTOGRAPHS[0], np.random.default_rng(2)))
    there, back = verify(edited, KEYPOINTS[0]), verify(KEYPOINTS[0], edited)
    whole = np.vstack([there.transform, [0, 0, 1]]) @ np.vstack([back.transform, [0, 0, 1]])
    assert np.abs(whole - np.eye(3)).max() < 0.02


def test_fewer_keypoints_than_cells_never_match():
    few = Keypoints(*(values[:GeometryConfig().cells - 1] for values in (
        KEYPOINTS[0].points, KEYPOINTS[0].sizes, KEYPOINTS[0].angles, KEYPOINTS[0].descriptors)), 256, 171)
    assert verify(few, few) is None
    assert verify(empty(256, 171), KEYPOINTS[0]) is None and verify(KEYPOINTS[0], empty(1, 1)) is None


def test_keypoints_on_one_line_are_no_evidence():
    chosen = KEYPOINTS[0]
    on_a_line = np.stack([np.linspace(10, 240, len(chosen)), np.full(len(chosen), 80.0)], axis=1).astype(np.float32)
    line = Keypoints(on_a_line, np.full_like(chosen.sizes, 4), np.zeros_like(chosen.angles), chosen.descriptors, 256,
                     171)
    assert verify(line, line) is None


def test_changes_of_size_beyond_reason_do_not_match():
    image, config = KEYPOINTS[0], GeometryConfig()
    shrunk = Keypoints(image.points / 10, image.sizes / 10, image.angles, image.descriptors, 26, 18)
    assert verify(shrunk, image, config) is None
    assert verify(shrunk, image, GeometryConfig(scale=20, cell=0.5, spread=0.5)) is not None


def test_tentative_pairs_are_mutual_and_unambiguous():
    a, b = KEYPOINTS[0].descriptors[:60], KEYPOINTS[0].descriptors[30:90]
    rows, columns = tentative(a, b, ratio=0.9, similarity=0.7)
    assert len(rows) >= 25 and np.array_equal(rows[rows >= 30], columns[rows >= 30] + 30)
    assert len(set(columns)) == len(columns)
    twice = np.concatenate([b, b])
    assert len(tentative(a, twice, ratio=0.9, similarity=0.7)[0]) == 0  # two equally near: no pair


def test_the_paper_preset_counts_matches_without_geometry():
    shuffled = Keypoints(KEYPOINTS[0].points[::-1], KEYPOINTS[0].sizes, KEYPOINTS[0].angles,
                         KEYPOINTS[0].descriptors, KEYPOINTS[0].width, KEYPOINTS[0].height)
    assert paper_match_count(shuffled, KEYPOINTS[0]) > 200
    assert verify(shuffled, KEYPOINTS[0]) is None
    assert paper_match_count(KEYPOINTS[0], KEYPOINTS[1]) < 40
    assert paper_match_count(empty(5, 5), KEYPOINTS[1]) == 0 == paper_match_count(KEYPOINTS[1], empty(5, 5))
