import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.errors import DataError
from ppcls_ssld.mining.keypoints import KeypointConfig, extract, mirrored, pack, unpack, working_image

PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]


def test_descriptors_have_length_one_in_units_of_512():
    for image in PHOTOGRAPHS:
        length = np.linalg.norm(extract(image).descriptors.astype(np.float64), axis=1)
        assert np.abs(length / 512 - 1).max() < 0.01


def test_no_more_keypoints_are_kept_than_asked_for_and_the_first_stay_the_first():
    many, few = extract(PHOTOGRAPHS[0]), extract(PHOTOGRAPHS[0], KeypointConfig(count=50))
    assert len(many) == KeypointConfig().count and len(few) == 50
    assert np.array_equal(few.points, many.points[:50]) and np.array_equal(few.descriptors, many.descriptors[:50])


def test_the_first_keypoints_come_from_all_over_the_image():
    image = (PHOTOGRAPHS[0] // 4 + 90).astype(np.uint8)
    image[:100, :150] = np.random.default_rng(0).integers(0, 256, (100, 150, 3))  # would take all of the strongest
    found = extract(image, KeypointConfig(found=1000))
    blocks = (found.points[:64] / (found.width, found.height) * 4).astype(int) @ (1, 4)
    assert len(set(blocks)) >= 12


def test_of_two_blobs_of_one_contrast_the_larger_comes_first():
    y, x = np.mgrid[:224, :224]
    image = np.full((224, 224), 128.0)
    for row, column, size in ((25, 25, 3), (35, 40, 7)):  # in one block of the 4 x 4
        image += 60 * np.exp(-((y - row)**2 + (x - column)**2) / (2 * size**2))
    found = extract(np.repeat(np.rint(image).astype(np.uint8)[..., None], 3, axis=2))
    small, large = (int(np.linalg.norm(found.points - at, axis=1).argmin()) for at in ((25, 25), (40, 35)))
    assert large < small and found.sizes[large] > 1.5 * found.sizes[small]


def test_keypoints_lie_inside_the_working_image():
    found = extract(PHOTOGRAPHS[1])
    assert max(found.width, found.height) == KeypointConfig().side
    assert (found.points >= 0).all() and (found.points <= (found.width - 1, found.height - 1)).all()


def test_small_images_stay_as_large_as_they_are():
    assert working_image(PHOTOGRAPHS[0][:40, :60], 256).shape == (40, 60)


def test_the_same_image_gives_the_same_keypoints():
    first, second = extract(PHOTOGRAPHS[0]), extract(PHOTOGRAPHS[0].copy())
    for name in ("points", "sizes", "angles", "descriptors"):
        assert np.array_equal(getattr(first, name), getattr(second, name))


@pytest.mark.parametrize("image", [
    np.full((80, 80, 3), 127, np.uint8), np.zeros((1, 1, 3), np.uint8), np.zeros((1, 300, 3), np.uint8)])
def test_an_image_without_texture_has_no_keypoints(image):
    found = extract(image)
    assert len(found) == 0 and found.descriptors.shape == (0, 128) and found.points.shape == (0, 2)
    assert len(mirrored(found)) == 0


def test_what_is_no_rgb_image_is_refused():
    with pytest.raises(DataError, match=r"uint8 image \[H, W, 3\], found uint8 \[5, 5\]"):
        extract(np.zeros((5, 5), np.uint8))


@pytest.mark.parametrize("arguments", [{"side": 8}, {"side": 2000}, {"count": 0},
                                       {"count": KeypointConfig().found + 1}])
def test_settings_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="expected"):
        KeypointConfig(**arguments)


@pytest.mark.parametrize("image", PHOTOGRAPHS)
def test_mirrored_keypoints_are_those_of_the_mirror_image(image):
    computed, extracted = mirrored(extract(image)), extract(np.ascontiguousarray(image[:, ::-1]))
    apart = np.abs(computed.points[:, None] - extracted.points[None]).max(axis=2)
    apart += 100 * (np.abs((computed.angles[:, None] - extracted.angles[None] + 180) % 360 - 180) > 2)
    partner = apart.argmin(axis=1)
    same = apart.min(axis=1) < 0.1
    assert same.mean() > 0.85  # resizing to working size is not quite symmetric, and faint keypoints come and go
    difference = computed.descriptors.astype(int) - extracted.descriptors[partner].astype(int)
    assert np.median(np.abs(difference[same]).sum(axis=1)) <= 64  # of 128 components with values of about 45
    cosine = computed.descriptors.astype(np.float64) @ extracted.descriptors.astype(np.float64).T
    assert (cosine.argmax(axis=1) == partner)[same].mean() > 0.95


def test_mirroring_twice_changes_nothing():
    found = extract(PHOTOGRAPHS[0])
    again = mirrored(mirrored(found))
    assert np.array_equal(again.points, found.points) and np.array_equal(again.descriptors, found.descriptors)
    assert np.array_equal(again.angles % 360, found.angles % 360)


def test_packing_loses_nothing():
    found = extract(PHOTOGRAPHS[0])
    again = unpack(pack(found), found.descriptors, found.width, found.height)
    for name in ("points", "sizes", "angles", "descriptors"):
        assert np.array_equal(getattr(again, name), getattr(found, name)), name
        assert getattr(again, name).dtype == getattr(found, name).dtype
    assert (again.width, again.height) == (found.width, found.height)
