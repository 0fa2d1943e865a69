import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from benchmarks.drawn import text_page
from benchmarks.edits import EDITS
from ppcls_ssld.mining.geometry import verify
from ppcls_ssld.mining.keypoints import extract
from ppcls_ssld.mining.overlay import LEAST, agreement
from ppcls_ssld.mining.types import Match

PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]
SAME = Match(99.0, np.eye(2, 3, dtype=np.float32), False)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("photograph", [0, 1])
def test_edits_agree_whichever_side_was_edited(name, photograph):
    image = PHOTOGRAPHS[photograph]
    edited = EDITS[name](image, np.random.default_rng(7))
    for query, reference in ((edited, image), (image, edited)):
        assert agreement(query, reference, verify(extract(query), extract(reference))) >= LEAST


@pytest.mark.parametrize("photograph", [0, 1])
def test_a_transform_that_is_off_by_some_pixels_is_improved_before_a_copy_is_refused(photograph):
    image = PHOTOGRAPHS[photograph]
    off = Match(6.0, np.array([[0.525, 0.01, 0.235], [0, 0.48, 0.265]], np.float32), False)
    height, width = image.shape[:2]
    part = np.ascontiguousarray(image[height // 4:-(height // 4), width // 4:-(width // 4)])
    assert agreement(part, image, off) > 0.8
    assert agreement(np.ascontiguousarray(part[::-1]), image, off) < 0.3


def test_an_image_agrees_with_itself_and_not_with_its_negative():
    image = PHOTOGRAPHS[0]
    assert 0.9 < agreement(image, image, SAME) <= 1  # less than 1: faint texture counts as noise
    assert agreement(image, 255 - image, SAME) < -0.8


def test_different_photographs_do_not_agree():
    assert abs(agreement(*PHOTOGRAPHS, SAME)) < 0.2


def test_one_caption_on_two_photographs_is_no_agreement():
    first, second = (EDITS["text_overlay"](image, np.random.default_rng(0)) for image in PHOTOGRAPHS)
    assert agreement(first, second, SAME) < LEAST


def test_pages_of_different_text_in_one_layout_do_not_agree():
    pages = [text_page(np.random.default_rng(seed)) for seed in range(6)]
    wrong = []
    for i in range(6):
        for j in range(i):
            match = verify(extract(pages[i]), extract(pages[j])) or SAME
            wrong += [(i, j)] if agreement(pages[i], pages[j], match) >= LEAST else []
    assert not wrong
    assert agreement(pages[0], EDITS["jpeg_q40"](pages[0], np.random.default_rng(0)), SAME) > 0.8


def test_the_mirror_is_part_of_the_transform():
    image = PHOTOGRAPHS[1]
    turned = Match(99.0, np.array([[-1, 0, 1], [0, 1, 0]], np.float32), True)
    mirror = np.ascontiguousarray(image[:, ::-1])
    assert agreement(mirror, image, turned) == pytest.approx(agreement(image, image, SAME), abs=0.01)
    assert agreement(mirror, image, SAME) < 0.3


def test_images_that_do_not_overlap_or_are_flat_do_not_agree():
    image = PHOTOGRAPHS[0]
    away = Match(9.0, np.array([[1, 0, 3], [0, 1, 0]], np.float32), False)
    assert agreement(image, image, away) == 0
    flat = np.full_like(image, 90)
    assert abs(agreement(flat, flat, SAME)) < 1e-6 and abs(agreement(flat, image, SAME)) < 0.1
    assert agreement(np.zeros((1, 1, 3), np.uint8), image, SAME) < LEAST
