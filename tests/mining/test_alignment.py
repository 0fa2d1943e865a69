import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.mining import alignment
from ppcls_ssld.mining.alignment import AlignmentConfig, best, best_each, verify
from ppcls_ssld.mining.thumbnails import thumbnail


@pytest.fixture(scope="module")
def images():
    """uint8 RGB [n, 128, 128, 3]: places of two photographs that do not overlap and have structure all over."""
    photos = load_sample_images().images
    found = [photo[y:y + 128, x:x + 128] for photo in photos for y in range(0, 257, 128) for x in range(0, 513, 128)]
    busy = [i for i in found if min(cv2.Laplacian(i[y:y + 64, x:x + 64], cv2.CV_32F).std()
                                    for y in (0, 64) for x in (0, 64)) > 6]
    assert len(busy) >= 6
    return np.stack(busy)


def jpeg(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR)


def crop(image, left, top, side):
    return np.ascontiguousarray(image[top:top + side, left:left + side])


EDITS = {  # on 128 pixels, made 32 afterwards, and where (x, y) of the edit lies in the original
    "nothing": (lambda i: i, [[1, 0, 0], [0, 1, 0]]),
    "mirror": (lambda i: np.ascontiguousarray(i[:, ::-1]), [[-1, 0, 1], [0, 1, 0]]),
    "brightness": (lambda i: (i * 0.6 + 20).astype(np.uint8), [[1, 0, 0], [0, 1, 0]]),
    "grey": (lambda i: cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB), [[1, 0, 0], [0, 1, 0]]),
    "jpeg": (jpeg, [[1, 0, 0], [0, 1, 0]]),
    "crop": (lambda i: crop(i, 0, 12, 112), [[0.875, 0, 0], [0, 0.875, 0.09375]]),
    "mirrored crop": (lambda i: np.ascontiguousarray(crop(i, 0, 12, 112)[:, ::-1]),
                      [[-0.875, 0, 0.875], [0, 0.875, 0.09375]]),
    "shift": (lambda i: np.roll(i, 8, axis=1), [[1, 0, -0.0625], [0, 1, 0]]),
    "border": (lambda i: cv2.copyMakeBorder(i, 13, 13, 13, 13, cv2.BORDER_CONSTANT, value=(255, 255, 255)),
               [[1.203, 0, -0.1016], [0, 1.203, -0.1016]]),
    "aspect": (lambda i: cv2.resize(i, (128, 60), interpolation=cv2.INTER_AREA), [[1, 0, 0], [0, 1, 0]]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("side", [32, 64])
def test_an_edit_is_verified_and_its_transform_found(images, edit, side):
    apply, transform = EDITS[edit]
    for image in images:
        match = verify(thumbnail(apply(image), side), thumbnail(image, side))
        assert match is not None and match.score >= AlignmentConfig().min_score
        assert match.mirrored == (transform[0][0] < 0) and match.transform.dtype == np.float32
        assert abs(match.transform - np.array(transform)).max() < (0.08 if edit == "border" else 0.03)
        assert match.pairs.shape == (0, 4)


@pytest.mark.parametrize("edit", ["crop", "mirrored crop", "border", "jpeg"])
def test_an_original_is_verified_against_its_edit_by_the_inverse_transform(images, edit):
    apply, transform = EDITS[edit]
    there = np.vstack([transform, [0, 0, 1]])
    matches = [verify(thumbnail(image), thumbnail(apply(image))) for image in images]
    found = [match for match in matches if match is not None]
    assert len(found) >= len(images) - 1  # a repeating texture can be aligned one period off
    assert all(abs(match.transform - np.linalg.inv(there)[:2]).max() < 0.04 for match in found)


def test_a_shear_counts_against_a_match(images):
    turn = cv2.getAffineTransform(np.float32([[0, 0], [127, 0], [0, 127]]), np.float32([[0, 0], [127, 0], [10, 127]]))
    for image in images:
        sheared = cv2.warpAffine(image, turn, (128, 128), borderMode=cv2.BORDER_REPLICATE)
        match = best(thumbnail(sheared), thumbnail(image))
        assert match is None or match.score < best(thumbnail(image), thumbnail(image)).score - 0.05


@pytest.mark.parametrize("side", [32, 64])
def test_different_pictures_are_not_verified(images, side):
    small = np.stack([thumbnail(i, side) for i in images])
    for i, image in enumerate(small):
        for j, match in enumerate(best_each(image, small)):
            assert (match is not None and match.score > 0.9) if i == j else (match is None or match.score < 0.45)


def test_two_silhouettes_on_plain_ground_are_not_verified():
    def plane(outline, ground, noise):
        image = np.full((128, 128), ground, np.uint8)
        cv2.fillPoly(image, [np.array(outline)], 40)
        drawn = image[..., None] + np.random.default_rng(noise).normal(0, 3, (128, 128, 3))
        return thumbnail(drawn.clip(0, 255).astype(np.uint8))

    one = plane([[20, 64], [64, 34], [108, 60], [70, 70]], 200, 0)
    two = plane([[20, 66], [54, 40], [108, 56], [76, 62], [60, 84]], 180, 1)
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] > 0.75 and verify(one, two) is None


@pytest.mark.parametrize("deviation", [0, 1, 2])
def test_flat_images_prove_nothing_even_against_themselves(deviation):
    noise = np.random.default_rng(0).normal(0, deviation, (32, 32, 3))
    flat = (120 + noise).round().astype(np.uint8)
    assert best(flat, flat) is None


def test_a_gradient_proves_nothing():
    ramp = np.broadcast_to(np.linspace(0, 255, 32)[None, :, None], (32, 32, 3)).astype(np.uint8)
    assert verify(ramp, ramp) is None and verify(ramp, np.ascontiguousarray(ramp[:, ::-1])) is None


@pytest.mark.parametrize("limit", [{"min_overlap": 0.99}, {"max_stretch": 1.01}, {"max_shear": 0.01}])
def test_implausible_alignments_are_refused(images, limit):
    deform = cv2.getAffineTransform(np.float32([[0, 0], [127, 0], [0, 127]]), np.float32([[8, 0], [124, 0], [14, 127]]))
    for image in images:
        deformed = thumbnail(cv2.warpAffine(image, deform, (128, 128), borderMode=cv2.BORDER_REPLICATE))
        assert best(deformed, thumbnail(image)) is not None
        assert best(deformed, thumbnail(image), AlignmentConfig(**limit)) is None


def test_too_small_an_overlap_is_none(images):
    image = images[0]
    match = best(thumbnail(crop(image, 0, 0, 80)), thumbnail(crop(image, 48, 48, 80)))
    assert match is None or match.score < 0.5


def test_each_of_many_is_as_one_by_one_and_scores_repeat(images):
    small = np.stack([thumbnail(i) for i in images])
    query = thumbnail(EDITS["crop"][0](images[2]))
    for _ in range(2):
        for one, of_many in zip([best(query, reference) for reference in small], best_each(query, small)):
            assert (one is None) == (of_many is None)
            if one is not None:
                assert one.score == of_many.score and np.array_equal(one.transform, of_many.transform)
    assert best_each(query, small[:0]) == []


def test_scores_are_correlations_and_verify_draws_the_line(images):
    query, reference = thumbnail(jpeg(images[1])), thumbnail(images[1])
    score = best(query, reference).score
    assert 0 < score < 1 and isinstance(score, float)
    assert verify(query, reference, AlignmentConfig(min_score=score)) is not None
    assert verify(query, reference, AlignmentConfig(min_score=score + 1e-6)) is None


def test_pixels_and_relative_coordinates_convert_both_ways():
    relative = np.array([[0.9, 0.05, 0.1], [-0.04, 1.1, -0.2]])
    warp = alignment._in_pixels(relative, 32)
    assert np.allclose(alignment._relative(warp, 32, False), relative, atol=1e-6)
    x, y = 0.3, 0.8
    flipped = alignment._relative(warp, 32, True)
    assert np.allclose(flipped @ [x, y, 1], relative @ [1 - x, y, 1], atol=1e-6)
