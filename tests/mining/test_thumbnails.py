import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.mining.thumbnails import (Describer, ThumbnailConfig, ThumbnailIndex, WHOLE, mirrored, thumbnail,
                                          windows)


@pytest.fixture(scope="module")
def thumbnails():
    """uint8 [n, 32, 32, 3]: places and scales of two photographs with some contrast, none of them twice."""
    found = []
    for photo in load_sample_images().images:
        for side, step in ((64, 66), (128, 130), (200, 210)):
            found += [photo[y:y + side, x:x + side]
                      for y in range(0, 427 - side, step) for x in range(0, 640 - side, step)]
    found = np.stack([thumbnail(image) for image in found])
    return found[found.std(axis=(1, 2)).mean(axis=1) > 20]


@pytest.fixture(scope="module")
def index(thumbnails):
    return ThumbnailIndex(thumbnails)


def cut(image, left, top, side):
    return thumbnail(np.ascontiguousarray(image[top:top + side, left:left + side]))


EDITS = {
    "nothing": lambda i: i,
    "mirror": lambda i: i[:, ::-1],
    "dark": lambda i: i // 2,
    "grey": lambda i: cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB),
    "shift": lambda i: np.roll(i, (2, -2), axis=(0, 1)),
    "crop of a corner": lambda i: cut(i, 0, 0, 29),
    "crop of the right": lambda i: cut(i, 4, 2, 28),
    "mirrored crop": lambda i: cut(i, 0, 4, 28)[:, ::-1],
    "border": lambda i: thumbnail(cv2.copyMakeBorder(i, 3, 3, 3, 3, cv2.BORDER_CONSTANT, value=(255, 255, 255))),
    "jpeg": lambda i: cv2.imdecode(cv2.imencode(".jpg", i, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR),
}


@pytest.mark.parametrize("edit", EDITS)
def test_edits_of_a_reference_propose_it(thumbnails, index, edit):
    edited = np.stack([EDITS[edit](i) for i in thumbnails])
    ids, similarities = index.search(edited, 6)
    assert (ids == np.arange(len(ids))[:, None]).any(axis=1).mean() >= 0.98


@pytest.mark.parametrize("edit", ["crop of a corner", "mirrored crop", "border"])
def test_the_original_of_an_edited_reference_proposes_it(thumbnails, edit):
    ids, similarities = ThumbnailIndex(np.stack([EDITS[edit](i) for i in thumbnails])).search(thumbnails, 6)
    assert (ids == np.arange(len(ids))[:, None]).any(axis=1).mean() >= 0.95


def test_an_image_finds_itself_and_its_mirror_with_similarity_one(thumbnails, index):
    for images in (thumbnails, thumbnails[:, :, ::-1]):
        ids, similarities = index.search(images, 1)
        assert np.allclose(similarities, 1, atol=2e-4)
        assert np.array_equal(ids[:, 0], np.arange(len(images)))


def test_results_are_distinct_and_padded_and_do_not_depend_on_the_batch(thumbnails, index):
    ids, similarities = index.search(thumbnails, 7)
    for start in (0, 5, 50):
        one, value = index.search(thumbnails[start:start + 3], 7)
        assert np.array_equal(one, ids[start:start + 3])
        assert np.allclose(value, similarities[start:start + 3], atol=2e-4)
    for row, values in zip(ids, similarities):
        assert len(set(row[row >= 0])) == (row >= 0).sum()
        assert (values[row >= 0] >= index.config.min_similarity).all() and (values[row < 0] == 0).all()
    few = ThumbnailIndex(thumbnails[:2]).search(thumbnails[:2], 5)
    assert few[0].shape == (2, 5) and (few[0][:, 2:] == -1).all()


def test_flat_images_have_no_candidates_and_are_no_candidates(thumbnails):
    flat = np.full((3, 32, 32, 3), 90, np.uint8)
    flat[1:] += np.random.default_rng(0).integers(0, 3, (2, 32, 32, 3)).astype(np.uint8)
    ids, similarities = ThumbnailIndex(np.concatenate([flat, thumbnails])).search(flat, 4)
    assert (ids == -1).all() and (similarities == 0).all()
    assert (ThumbnailIndex(flat).search(thumbnails, 4)[0] == -1).all()


def test_an_empty_index_and_an_empty_question_find_nothing(thumbnails, index):
    assert (ThumbnailIndex(thumbnails[:0]).search(thumbnails[:2], 3)[0] == -1).all()
    assert index.search(thumbnails[:0], 3)[0].shape == (0, 3)


def test_descriptors_of_mirrored_images_are_the_mirrored_descriptors(thumbnails):
    describe = Describer(ThumbnailConfig().query_windows)
    assert np.allclose(describe(thumbnails[:, :, ::-1]), mirrored(describe(thumbnails)), atol=2e-3)


def test_a_window_is_described_like_the_image_cut_out_there():
    x, y = np.meshgrid(np.arange(64), np.arange(64))
    smooth = 128 + 50 * np.sin(x / 9) * np.cos(y / 7) + 40 * np.sin((x + 2 * y) / 15)
    image = np.repeat(smooth[..., None], 3, axis=2).round().astype(np.uint8)
    window = Describer(((0.25, 0.5, 0.5, 0.5),), 64)(image[None])[0, 0]
    alone = Describer((WHOLE,), 32)(image[None, 32:, 16:48])[0, 0]
    assert window @ alone > 0.995


def test_windows_reach_every_edge_and_keep_inside():
    found = np.array(windows(0.84, 3))
    assert len(found) == 9 and found[:, :2].min() == 0 and np.isclose((found[:, :2] + found[:, 2:]).max(), 1)
    assert np.allclose(windows(0.5, 1), [(0.25, 0.25, 0.5, 0.5)])
