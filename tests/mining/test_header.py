import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import ugly

from ppcls_ssld.data import pixels
from ppcls_ssld.errors import DataError
from ppcls_ssld.mining import header

FORMATS = {"jpeg": "JPEG", "progressive": "JPEG", "png": "PNG", "webp": "WEBP", "bmp": "BMP", "tiff": "TIFF",
           "ppm": "PPM", "gif": "GIF"}


@pytest.mark.parametrize("name", FORMATS)
def test_an_ordinary_image_has_a_format_and_a_size_and_nothing_odd(name):
    found = header.inspect(ugly.plain()[name])
    assert (found.format, found.width, found.height) == (FORMATS[name], 56, 40)
    assert found.kinds == (("palette",) if name == "gif" else ())


@pytest.mark.parametrize("name", ugly.odd())
def test_what_is_odd_about_an_image_is_told_in_a_fixed_order(name):
    data, kinds = ugly.odd()[name]
    assert header.inspect(data).kinds == kinds
    assert list(kinds) == sorted(kinds, key=header.KINDS.index)


def test_the_size_is_the_one_that_is_shown():
    for kind in ("JPEG", "PNG", "TIFF"):
        data = ugly.encode(ugly.picture(), kind, exif=ugly.turned())
        found = header.inspect(data)
        assert (found.height, found.width) == pixels.decode(data, "").shape[:2] == (56, 40)
    assert header.inspect(ugly.odd()["turned.webp"][0]).height == 56


def test_a_photograph_is_nothing_special():
    for path in sklearn.datasets.load_sample_images().filenames:
        encoded = Path(sklearn.datasets.__file__).with_name("images").joinpath(Path(path).name).read_bytes()
        assert header.inspect(encoded) == header.Header("JPEG", 640, 427, ())


def test_limits_are_exact_and_their_words_tell_the_size():
    data = ugly.encode(ugly.picture(), "PNG")
    assert header.inspect(data, max_pixels=56 * 40, min_side=40).width == 56
    with pytest.raises(DataError, match="too large: 56 x 40 = 2240 pixels, at most 2239"):
        header.inspect(data, max_pixels=56 * 40 - 1)
    with pytest.raises(DataError, match="too small: 56 x 40 pixels, the shorter side needs 41"):
        header.inspect(data, min_side=41)


def test_large_images_bring_no_warning_and_no_limit_but_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert header.inspect(ugly.huge(15000, 11000)).height == 11000  # beyond what Pillow warns of
        assert header.inspect(ugly.huge(20000, 20000), max_pixels=400_000_000).width == 20000  # beyond what it opens


def test_damaged_exif_is_no_reason_to_lose_an_image():
    data = ugly.encode(ugly.picture(), exif=ugly.turned())
    at = data.index(b"Exif\0\0") + 6
    for damage in (b"\0" * 8, b"\xff" * 20, b"MM\0*\0\0\xff\xff"):
        found = header.inspect(data[:at] + damage + data[at + len(damage):])
        assert found.kinds == () and (found.width, found.height) == (56, 40)


def test_a_suffix_says_nothing_and_the_bytes_do():
    with pytest.raises(DataError, match="AVIF or HEIC"):
        header.inspect(b"\0\0\0\x1cftypavif" + bytes(100))
    with pytest.raises(DataError, match="JPEG 2000"):
        header.inspect(ugly.encode(ugly.picture(), "JPEG2000"))
    with pytest.raises(DataError, match=r"read \(JPEG, PNG, .*7 bytes, first b'%PDF-1.'"):
        header.inspect(b"%PDF-1.")


def test_no_damage_of_a_header_is_more_than_a_data_error():
    rng = np.random.default_rng(0)
    survived = 0
    for data in [*ugly.plain().values(), *(data for data, _ in ugly.odd().values())]:
        for _ in range(12):
            damaged = np.frombuffer(data, np.uint8).copy()
            places = rng.integers(0, min(len(data), 200), 3)
            damaged[places] = rng.integers(0, 256, 3)
            try:
                header.inspect(damaged[:rng.integers(8, len(data) + 1)].tobytes())
                survived += 1
            except DataError as e:
                assert str(e)
    assert survived  # so not every damage is refused at once
