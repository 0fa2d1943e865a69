import json

import faiss
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from benchmarks.edits import EDITS
from ppcls_ssld.errors import DataError
from ppcls_ssld.mining.keypoint_index import IndexConfig, KeypointIndex, KeypointStore
from ppcls_ssld.mining.keypoints import empty, extract
from ppcls_ssld.mining.types import Keypoints

PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]


def tiles(image, side=200):
    return [np.ascontiguousarray(image[y:y + side, x:x + side])
            for y in range(0, image.shape[0] - side + 1, side) for x in range(0, image.shape[1] - side + 1, side)]


TILES = [tile for image in PHOTOGRAPHS for tile in tiles(image)]
KEYPOINTS = [extract(tile) for tile in TILES] + [empty(30, 30)] + [extract(image) for image in PHOTOGRAPHS]
WHOLE = len(TILES) + 1  # number of the first whole photograph


@pytest.fixture(scope="module")
def index():
    return KeypointIndex.build(KEYPOINTS)


def test_a_store_gives_back_what_was_written(tmp_path):
    store = KeypointStore.write(tmp_path / "store", iter(KEYPOINTS))
    assert len(store) == len(KEYPOINTS)
    for written, found in zip(KEYPOINTS, store, strict=True):
        for name in ("points", "sizes", "angles", "descriptors"):
            assert np.array_equal(getattr(written, name), getattr(found, name))
        assert (written.width, written.height) == (found.width, found.height)
    assert not (tmp_path / "store.tmp").exists()


def test_a_store_of_nothing_is_a_store(tmp_path):
    assert len(KeypointStore.write(tmp_path / "none", [])) == 0
    only_flat = KeypointStore.write(tmp_path / "flat", [empty(9, 7)])
    assert len(only_flat) == 1 and len(only_flat[0]) == 0 and only_flat[0].width == 9


def test_a_store_takes_at_most_136_bytes_a_keypoint_and_a_little(tmp_path):
    store = KeypointStore.write(tmp_path / "store", KEYPOINTS)
    size = sum(file.stat().st_size for file in store.folder.iterdir())
    assert size <= 136 * sum(map(len, KEYPOINTS)) + 12 * len(KEYPOINTS) + 512


def test_a_damaged_store_is_refused_with_a_word(tmp_path):
    folder = KeypointStore.write(tmp_path / "store", KEYPOINTS).folder
    whole = (folder / "descriptors.u8").read_bytes()
    (folder / "descriptors.u8").write_bytes(whole[:-1])
    with pytest.raises(DataError, match="not a whole keypoint store.*descriptors.u8.*build it again"):
        KeypointStore.open(folder)
    with pytest.raises(DataError, match="not a whole keypoint store"):
        KeypointStore.open(tmp_path / "nowhere")


def test_an_image_outside_the_store_is_an_index_error(tmp_path):
    store = KeypointStore.write(tmp_path / "store", KEYPOINTS[:2])
    for i in (-1, 2):
        with pytest.raises(IndexError):
            store[i]


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("photograph", [0, 1])
def test_the_original_of_an_edit_is_the_first_or_among_the_first_candidates(index, name, photograph):
    query = extract(EDITS[name](PHOTOGRAPHS[photograph], np.random.default_rng(3)))
    candidates = index.search(query, top=5)
    right = [c for c in candidates if c.reference == WHOLE + photograph]
    assert right and right[0].mirrored == name.endswith("mirror")


def test_parts_are_found_by_the_whole(index):
    for photograph in (0, 1):
        found = {c.reference for c in index.search(KEYPOINTS[WHOLE + photograph], top=20)}
        parts = range(len(TILES) // 2 * photograph, len(TILES) // 2 * (photograph + 1))
        rich = [i for i in parts if len(KEYPOINTS[i]) >= 100]
        assert len(rich) >= 2 and all(i in found for i in rich)


def test_candidates_come_most_votes_first_and_no_more_than_asked_for(index):
    candidates = index.search(KEYPOINTS[WHOLE], top=3)
    assert len(candidates) == 3 and candidates[0].reference == WHOLE and not candidates[0].mirrored
    assert sorted((c.votes for c in candidates), reverse=True) == [c.votes for c in candidates]


def test_votes_of_an_image_without_an_original_are_far_below_those_of_an_edit(index):
    others = KeypointIndex.build([extract(tile) for tile in tiles(PHOTOGRAPHS[0])])
    innocent = others.search(extract(PHOTOGRAPHS[1]))
    edit = index.search(extract(EDITS["crop_50"](PHOTOGRAPHS[1], np.random.default_rng(0))))
    assert not innocent or 3 * innocent[0].votes < edit[0].votes


def test_descriptors_too_far_away_do_not_vote():
    stranger = KeypointIndex.build(KEYPOINTS[:9], IndexConfig(similarity=0.99999))
    assert stranger.search(KEYPOINTS[WHOLE + 1]) == []
    assert stranger.search(KEYPOINTS[3])[0].reference == 3


def test_images_without_keypoints_have_no_candidates_and_are_nobodys(index):
    assert index.search(empty(30, 30)) == []
    nothing = KeypointIndex.build([empty(30, 30)])
    assert nothing.search(KEYPOINTS[WHOLE]) == []
    assert KeypointIndex.build([]).search(KEYPOINTS[WHOLE]) == []


def test_an_opened_index_answers_as_the_one_that_was_written(index, tmp_path):
    index.write(tmp_path / "index")
    opened = KeypointIndex.open(tmp_path / "index")
    assert opened.config == index.config
    for query in KEYPOINTS[::4]:
        assert opened.search(query) == index.search(query)
    fewer = KeypointIndex.open(tmp_path / "index", IndexConfig(min_votes=1000))
    assert fewer.search(KEYPOINTS[WHOLE]) == []


def test_a_set_so_large_that_its_centroids_are_looked_up_in_lists_finds_the_same(tmp_path):
    rng = np.random.default_rng(0)

    def stranger():
        descriptors = rng.gamma(0.5, 1, (300, 128))
        descriptors *= 512 / np.linalg.norm(descriptors, axis=1, keepdims=True)
        return Keypoints(rng.uniform(0, 200, (300, 2)).astype(np.float32), np.full(300, 4, np.float32),
                         np.zeros(300, np.float32), np.minimum(descriptors, 255).astype(np.uint8), 224, 224)

    strangers = [stranger() for _ in range(230)]
    built = KeypointIndex.build([*KEYPOINTS, *strangers])
    assert built.index.nlist > 256
    built.write(tmp_path / "index")
    opened = KeypointIndex.open(tmp_path / "index")
    for photograph in (0, 1):
        for name in ("crop_50", "rotate_10_mirror", "border_10"):
            found = opened.search(extract(EDITS[name](PHOTOGRAPHS[photograph], np.random.default_rng(3))))
            assert WHOLE + photograph in [c.reference for c in found]
    assert opened.search(strangers[7])[0].reference == len(KEYPOINTS) + 7
    assert all(opened.search(query) == built.search(query) for query in KEYPOINTS[::3])
    assert faiss.downcast_InvertedLists(opened.index.invlists).prefetch_nthread == 0  # else every search starts threads


def test_an_index_of_another_version_is_refused_with_a_word(index, tmp_path):
    index.write(tmp_path / "index")
    about = tmp_path / "index" / "index.json"
    about.write_text(json.dumps({**json.loads(about.read_text()), "version": 1}))
    with pytest.raises(DataError, match="version 1 of the index, this is 2; remove it and build it again"):
        KeypointIndex.open(tmp_path / "index")


def test_an_index_of_nothing_can_be_written_and_opened(tmp_path):
    KeypointIndex.build([]).write(tmp_path / "index")
    assert KeypointIndex.open(tmp_path / "index").search(KEYPOINTS[WHOLE]) == []


def test_the_same_images_give_the_same_index_from_memory_and_from_disk(index, tmp_path):
    index.write(tmp_path / "first")
    KeypointIndex.build(KeypointStore.write(tmp_path / "store", KEYPOINTS)).write(tmp_path / "second")
    for file in sorted((tmp_path / "first").iterdir()):
        assert file.read_bytes() == (tmp_path / "second" / file.name).read_bytes(), file.name


def test_a_damaged_index_is_refused_with_a_word(index, tmp_path):
    index.write(tmp_path / "index")
    (tmp_path / "index" / "owners.npy").unlink()
    with pytest.raises(DataError, match="not a whole keypoint index.*build it again"):
        KeypointIndex.open(tmp_path / "index")
    with pytest.raises(DataError, match="not a whole keypoint index"):
        KeypointIndex.open(tmp_path)
