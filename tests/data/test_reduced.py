"""JPEGs decoded at a fraction of their size: the same crops, nearly the same pixels."""

import json

import cv2
import numpy as np
import pytest
import ugly as strange
from PIL import Image

from ppcls_ssld.data import pixels, reduced
from ppcls_ssld.data.pixels import pipeline
from ppcls_ssld.data.transforms import build_transforms
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.rng import Stream, generator

CROP = {"size": [20, 16], "scale": [0.3, 1.0]}


def slope(height, width):
    """uint8 [H, W, 3] that rises evenly: a shift by part of a pixel shows in it, what is between pixels does not."""
    y, x = np.mgrid[:height, :width]
    levels = [x * 240 / width, y * 240 / height, (x + y) * 240 / (height + width)]
    return np.stack(levels, axis=2).round().astype(np.uint8)


def jpeg(image, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return strange.encode(image, quality=100, subsampling=0, exif=exif, **options)


def lists(crop=CROP):
    return [build_transforms([{"DecodeImage": {"reduced": way}}, {"RandCropImage": crop}, {"RandFlipImage": {}}], "ops")
            for way in (False, True)]


def rng(i):
    return generator(1, 0, i, Stream.AUGMENT)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xc0 not the size"}])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_header_tells_the_size_that_decoding_shows(orientation, options):
    data = jpeg(slope(24, 40), orientation, **options)
    header = reduced.jpeg_header(data)
    assert (header.height, header.width) == pixels.decode(data, "").shape[:2]
    assert header.upright == (orientation == 1)


def test_a_header_of_anything_is_none_or_true():
    found = 0
    for data in [*strange.plain().values(), *(data for data, _ in strange.odd().values())]:
        if header := reduced.jpeg_header(data):
            found += 1
            assert (header.height, header.width) == pixels.decode(data, "").shape[:2]
    assert found >= 5
    data = jpeg(slope(24, 40), 6)
    for end in range(len(data)):
        assert reduced.jpeg_header(data[:end]) in (None, reduced.Header(40, 24, False))
    for at in range(2, 200):
        reduced.jpeg_header(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1:])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_a_reduced_view_shows_what_the_whole_one_shows_in_the_same_place(orientation, backend):
    plain, reducing = lists(CROP | {"backend": backend, "interpolation": "bilinear"})
    data = jpeg(slope(200, 320), orientation)
    header, factors = reduced.jpeg_header(data), set()
    for i in range(20):
        whole, drawn = plain.from_bytes(data, "", rng(i), raw=True)
        fewer, same = reducing.from_bytes(data, "", rng(i), raw=True)
        assert drawn == same and fewer.shape == whole.shape and fewer.dtype == np.uint8
        factors.add(reduced.factor_for(header, drawn.transforms[1][2:4], (20, 16), "bilinear"))
        difference = fewer.astype(int) - whole
        # At the border of the image there is nothing to interpolate with: up to half a reduced pixel.
        assert abs(difference).max() <= 5 and abs(difference.mean(axis=(0, 1))).max() < 0.6, drawn
    assert factors >= {4, 8}


def test_sides_that_do_not_divide_keep_their_place_too():
    plain, reducing = lists()
    for height, width in ((161, 243), (163, 241), (167, 246)):
        for orientation in (1, 3, 6):
            data = jpeg(slope(height, width), orientation)
            for i in range(8):
                whole, fewer = (p.from_bytes(data, "", rng(i), raw=True)[0].astype(int) for p in (plain, reducing))
                # Fewer than `factor` pixels are left for the last one: a little away from an even slope.
                assert abs(whole - fewer).max() <= 8 and abs(whole - fewer).mean() < 0.8


def test_what_was_recorded_is_done_again_bit_by_bit():
    for data in (jpeg(slope(160, 240)), jpeg(slope(48, 40)), strange.encode(slope(160, 240), "PNG")):
        reducing = lists()[1]
        for i in range(5):
            made, drawn = reducing.from_bytes(data, "a.jpg", rng(i))
            again = json.loads(json.dumps([drawn.transforms, drawn.size]))
            replayed = lists()[1].replay_bytes(data, "a.jpg", type(drawn)(tuple(again[0]), tuple(again[1])))
            assert made.dtype == np.float32 and np.array_equal(made, replayed)


def test_what_needs_all_pixels_gets_them_all():
    plain, reducing = lists({"size": 96})
    for data in (jpeg(slope(160, 180)), strange.encode(slope(300, 300), "PNG")):
        for i in range(5):
            assert np.array_equal(plain.from_bytes(data, "", rng(i))[0], reducing.from_bytes(data, "", rng(i))[0])


@pytest.mark.parametrize("part", [(40, 32), (39, 99), (160, 128), (79, 64), (20, 16), (5, 5), (500, 500)])
def test_a_part_never_has_fewer_pixels_than_its_target(part):
    factor = reduced.factor_for(reduced.Header(512, 512, True), part, (20, 16), "bilinear")
    assert factor == 1 or part[0] / factor >= 20 and part[1] / factor >= 16
    assert factor == 8 or part[0] / (2 * factor) < 20 or part[1] / (2 * factor) < 16, "it could have been smaller"
    assert reduced.factor_for(reduced.Header(512, 512, True), part, (20, 16), "lanczos") == 1


def test_a_header_that_lies_about_the_size_is_an_error(monkeypatch):
    data = jpeg(slope(160, 240))
    monkeypatch.setattr(reduced, "jpeg_header", lambda encoded: reduced.Header(240, 160, True))
    with pytest.raises(DataError, match="a.jpg: its header promises 160x240"):
        lists()[1].from_bytes(data, "a.jpg", rng(0))


def test_damaged_bytes_are_an_error_that_names_the_file():
    data = jpeg(slope(160, 240))
    for broken in (data[:len(data) // 2], data[:-2]):
        with pytest.raises(DataError, match="^a.jpg: the JPEG is truncated"):
            lists()[1].from_bytes(broken, "a.jpg", rng(0))


@pytest.mark.parametrize("entries", [
    [{"DecodeImage": {"reduced": True}}], [{"DecodeImage": {"reduced": True}}, {"ResizeImage": {"size": 8}}],
    [{"RandFlipImage": {}}, {"DecodeImage": {"reduced": True}}, {"RandCropImage": {"size": 8}}]])
def test_reducing_without_a_random_crop_behind_it_is_refused(entries):
    with pytest.raises(ConfigError, match="ops.DecodeImage: reduced.*put RandCropImage right after it"):
        build_transforms(entries, "ops")
    if "RandFlipImage" not in entries[0]:
        with pytest.raises(ConfigError, match="put RandCropImage right after it"):
            pipeline(entries, "ops")


def test_bgr_is_honoured_here_too():
    data = jpeg(slope(160, 240))
    rgb, bgr = (build_transforms([{"DecodeImage": {"reduced": True, "to_rgb": way}}, {"RandCropImage": CROP}], "ops")
                .from_bytes(data, "", rng(3), raw=True)[0] for way in (True, False))
    assert np.array_equal(rgb[..., ::-1], bgr) and not np.array_equal(rgb, bgr)


def test_a_reduced_decode_really_decodes_less(monkeypatch):
    asked, true = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: asked.append(flags) or true(data, flags))
    lists()[1].from_bytes(jpeg(slope(160, 240)), "", rng(0))
    assert asked and asked[0] in (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_8)
