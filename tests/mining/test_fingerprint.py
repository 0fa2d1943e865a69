import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from ppcls_ssld.mining import fingerprint


@pytest.fixture(scope="module")
def tiles():
    """The tiles with some contrast among 100 tiles of two photographs, 100 x 80 pixels each."""
    found = [np.ascontiguousarray(photo[y:y + 80, x:x + 100])
             for photo in load_sample_images().images for y in range(0, 341, 75) for x in range(0, 540, 60)]
    return [tile for tile in found if tile.std(axis=(0, 1)).mean() > 20]


def bits(one, two):
    return int(one ^ two).bit_count()


def jpeg(image, quality=40):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_ids_are_16_bytes_of_the_content_alone():
    assert len(fingerprint.image_id(b"")) == 16
    assert fingerprint.image_id(b"abc") == fingerprint.image_id(bytearray(b"abc")) != fingerprint.image_id(b"abd")
    # BLAKE2b of RFC 7693 with a digest of 16 bytes, as `b2sum -l 128` prints it
    assert fingerprint.image_id(b"abc").hex() == "cf4ab791c62b8d2b2109c90275287816"


def test_pixel_digests_tell_shape_and_every_pixel_and_ignore_memory_layout(tiles):
    image = tiles[0]
    digest = fingerprint.pixel_digest(image)
    assert len(digest) == 16 and digest == fingerprint.pixel_digest(image.copy(order="F"))
    changed = image.copy()
    changed[-1, -1, -1] ^= 1
    assert fingerprint.pixel_digest(changed) != digest
    assert fingerprint.pixel_digest(image.reshape(100, 80, 3)) != digest


def test_a_mirrors_hash_is_derived_from_the_hash(tiles):
    for tile in tiles:
        derived = fingerprint.mirrored(fingerprint.perceptual_hash(tile))
        assert bits(derived, fingerprint.perceptual_hash(np.ascontiguousarray(tile[:, ::-1]))) <= 1
        assert fingerprint.mirrored(derived) == fingerprint.perceptual_hash(tile)


@pytest.mark.parametrize("edit", [
    jpeg, lambda i: cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), lambda i: i // 2 + 30,
    lambda i: cv2.resize(i, (64, 64), interpolation=cv2.INTER_AREA),
    lambda i: cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)],
    ids=["jpeg", "half", "contrast", "aspect", "grey"])
def test_hashes_survive_re_encoding(tiles, edit):
    distances = [bits(fingerprint.perceptual_hash(t), fingerprint.perceptual_hash(edit(t))) for t in tiles]
    assert np.mean(np.array(distances) <= 6) > 0.95


def test_hashes_of_different_pictures_are_far_apart(tiles):
    hashes = [fingerprint.perceptual_hash(t) for t in tiles[::3]]
    distances = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.mean(np.array(distances) <= 6) < 0.005 and 20 < np.mean(distances) < 40


def test_a_wave_along_x_sets_its_own_bit_and_mirroring_an_odd_one_clears_it():
    x = (np.arange(32) + 0.5) / 32
    for frequency, after in ((3, False), (4, True)):
        wave = (128 + 60 * np.cos(np.pi * frequency * x)).round().astype(np.uint8)
        found = fingerprint.perceptual_hash(np.broadcast_to(wave[None, :, None], (32, 32, 3)))
        assert int(found) >> frequency & 1
        assert bool(int(fingerprint.mirrored(found)) >> frequency & 1) is after


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 400, 3), (400, 1, 3), (40, 50, 3), (20, 500, 3)])
def test_images_without_contrast_have_no_hash_whatever_their_size(shape):
    assert fingerprint.perceptual_hash(np.full(shape, 77, np.uint8)) is None
    noise = np.random.default_rng(0).integers(76, 79, shape).astype(np.uint8)
    assert fingerprint.perceptual_hash(noise) is None


def test_squares_are_averages_when_they_shrink_and_themselves_at_their_size(tiles):
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    board = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    assert abs(fingerprint.square(board, 32).astype(int) - 127).max() <= 1
    assert fingerprint.square(board, 64) is board
    assert fingerprint.square(tiles[0][:10, :90], 32).shape == (32, 32, 3)


@pytest.mark.parametrize("count, distance", [(2_000, 0), (2_000, 6), (2_000, 10), (200_500, 0), (200_500, 7),
                                             (200_500, 9)])
def test_an_index_finds_exactly_the_hashes_within_the_distance(count, distance):
    rng = np.random.default_rng(count + distance)
    hashes = rng.integers(0, 2**64, count, dtype=np.uint64)
    queries = np.concatenate([hashes[:60], hashes[:5]])
    for i in range(60):
        for bit in rng.permutation(64)[:i % 14]:
            queries[i] ^= np.uint64(1) << np.uint64(bit)
    apart = np.array([[int(q ^ h).bit_count() for h in hashes[:500]] for q in queries])
    found = fingerprint.HashIndex(hashes, distance).within(queries)
    near = found[1] < 500
    query, reference = np.nonzero(apart <= distance)
    assert sorted(zip(found[0][near], found[1][near])) == sorted(zip(query, reference))
    assert np.array_equal(found[2][near], apart[found[0][near], found[1][near]])
    order = list(zip(found[0], found[2], found[1]))
    assert order == sorted(order) and len(set(order)) == len(order)


def test_an_empty_index_and_an_empty_question_find_nothing():
    hashes = np.arange(3, dtype=np.uint64)
    for known, asked in ((hashes[:0], hashes), (hashes, hashes[:0])):
        assert [len(part) for part in fingerprint.HashIndex(known, 6).within(asked)] == [0, 0, 0]
