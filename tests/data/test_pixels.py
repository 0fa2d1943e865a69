import io
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from ppcls_ssld.data import pixels
from ppcls_ssld.errors import ConfigError, DataError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.mark.parametrize("value, expected", [
    ("1.0/255.0", 1.0 / 255.0), (0.00392157, 0.00392157), ("1e-3", 0.001), (" 1 / 4 ", 0.25), ("-.5", -0.5), (3, 3.0)])
def test_numbers_of_yaml_are_read_with_fractions(value, expected):
    assert pixels.number(value) == expected


@pytest.mark.parametrize("value", ["__import__('os')", "1/2/3", "1/0", "nan", "1_0", "", "2**8", True, None, [1]])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="number|zero"):
        pixels.number(value)


@pytest.mark.parametrize("kind", ["grey", "grey_png", "exif", "alpha", "cmyk", "palette", "deep", "pixel"])
def test_unusual_images_become_rgb_like_opencv_sees_them(ugly, kind):
    data = getattr(ugly, kind)
    image = pixels.decode(data, kind)
    seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert image.dtype == np.uint8 and image.flags.c_contiguous and np.array_equal(image, seen)


def test_unusual_images_show_what_they_show(ugly, image):
    grey = pixels.decode(ugly.grey_png, "")
    assert all(np.array_equal(grey[..., c], image[..., 0]) for c in range(3))
    assert np.array_equal(pixels.decode(ugly.alpha, ""), image)
    assert np.array_equal(pixels.decode(ugly.deep, ""), image)
    assert np.array_equal(pixels.decode(ugly.pixel, ""), image[:1, :1])
    assert pixels.decode(ugly.exif, "").shape == (56, 40, 3)  # stored 56 wide, shown 40 wide
    cmyk = np.asarray(Image.open(io.BytesIO(ugly.cmyk)).convert("RGB")).astype(int)
    assert abs(pixels.decode(ugly.cmyk, "") - cmyk).mean() < 3


@pytest.mark.parametrize("kind", ["truncated", "endless", "empty", "garbage", "corrupt"])
def test_broken_images_raise_an_error_that_names_them(ugly, kind):
    with pytest.raises(DataError, match="photos/a.jpg"):
        pixels.decode(getattr(ugly, kind), "photos/a.jpg")


@pytest.mark.parametrize("kind, options", [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}),
                                           ("BMP", {}), ("TIFF", {})])
def test_a_file_cut_anywhere_is_an_error_and_never_half_an_image(image, encode, kind, options):
    data = encode(image, kind, **options)
    pixels.decode(data, "whole")
    for end in range(0, len(data) - 1, max(1, len(data) // 23)):
        if kind == "PNG" and end >= len(data) - 12:
            continue  # the end chunk holds nothing
        with pytest.raises(DataError):
            pixels.decode(data[:end], "cut")


def test_the_end_of_a_jpeg_is_found_without_opencv(image, encode):
    thumbnail = encode(image[::4, ::4])
    app1 = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail  # holds an end marker of its own
    for data in (encode(image), encode(image, progressive=True)):
        data = data[:2] + app1 + data[2:]
        assert pixels._jpeg_ends(data)
        assert pixels._jpeg_ends(data + b"\0\0\n")
        assert pixels._jpeg_ends(data + b"appended video \xff\xda\xff\xe0")
        assert not any(pixels._jpeg_ends(data[:end]) for end in range(4 + len(app1), len(data) - 1))


def test_a_missing_file_and_a_folder_are_errors_that_name_the_path(tmp_path):
    for path in (tmp_path / "none.jpg", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            pixels.read(str(path))


def summary(image):
    return image.shape, int(image.sum(dtype=np.int64)), image[3, 5].tolist(), image[-2, -3].tolist()


def test_golden_pixels_of_paddleclas(image):
    """PaddleClas develop d178931, ppcls/data/preprocess/ops/operators.py, run on `image` (OpenCV 4.11 and 5.0)."""
    short = pixels.resize_short(image, 24)
    assert summary(short) == ((24, 34, 3), 311050, [163, 213, 82], [176, 226, 20])
    pillow = pixels.resize_short(image, 24, "bicubic", "pil")
    assert summary(pillow) == ((24, 34, 3), 311974, [162, 212, 90], [174, 232, 44])
    assert summary(pixels.resize(image, (20, 30))) == ((30, 20, 3), 228164, [249, 43, 93], [138, 188, 238])
    crop = pixels.center_crop(short, (16, 16))
    assert summary(crop) == ((16, 16, 3), 99400, [153, 203, 253], [192, 243, 36])
    normal = pixels.normalize(crop, 1.0 / 255.0, MEAN, STD, "")
    assert normal[3, 5].tolist() == [0.5021834373474121, 1.5182075500488281, 2.605142116546631]
    assert normal[-2, -3].tolist() == [1.1700490713119507, 2.218487501144409, -1.1769933700561523]


def test_normalising_by_table_gives_the_bits_of_the_formula(image):
    op = pixels.NormalizeImage(scale="1.0/255.0", mean=[0.1, 0.2, 0.7], std=[0.3, 0.2, "1/7"], order="")
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    for picture in (image, image[3:20, 5:9], levels):
        formula = pixels.normalize(picture, 1 / 255, [0.1, 0.2, 0.7], [0.3, 0.2, 1 / 7], "")
        assert op.apply(picture).dtype == np.float32 and np.array_equal(op.apply(picture), formula)


def test_the_inference_pipeline_is_its_operators_in_order(image):
    normalize = {"scale": "1.0/255.0", "mean": MEAN, "std": STD, "order": ""}
    ops = [{"DecodeImage": {"to_rgb": True, "channel_first": False}}, {"ResizeImage": {"resize_short": 24}},
           {"CropImage": {"size": 16}}, {"NormalizeImage": normalize}]
    expected = pixels.normalize(pixels.center_crop(pixels.resize_short(image, 24), (16, 16)), 1 / 255, MEAN, STD, "")
    for listed in (ops, ops + [{"ToCHWImage": None}]):
        made = pixels.pipeline(listed)(image)
        assert made.dtype == np.float32 and made.flags.c_contiguous
        assert np.array_equal(made, expected.transpose(2, 0, 1))
    early = pixels.pipeline(ops[:3] + [{"ToCHWImage": None}, {"NormalizeImage": normalize | {"order": "chw"}}])
    assert np.array_equal(early(image), expected.transpose(2, 0, 1))
    bgr = pixels.pipeline([{"DecodeImage": {"to_rgb": False}}])
    assert np.array_equal(bgr(image), image[..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize("ops, message", [
    ([{"RandFlipImage": {}}], "ops.0.*RandFlipImage.*inference"),
    ([{"CropImage": {"size": 8, "sise": 8}}], "ops.0.CropImage.*sise"),
    ([{"CropImage": {"size": "8"}}], "ops.0.CropImage.*size"),
    ([{"ResizeImage": {}}], "size or resize_short"),
    ([{"ResizeImage": {"size": 8, "backend": "gl"}}], "backend"),
    ([{"ResizeImage": {"size": 8, "interpolation": "box"}}], "interpolation"),
    ([{"NormalizeImage": {"scale": "exit()", "order": ""}}], "NormalizeImage.*number"),
    ([{"NormalizeImage": {"mean": [0.5], "order": ""}}], "mean"),
    ([{"NormalizeImage": {}}], "set order: ''"),
    ([{"ToCHWImage": {}}, {"NormalizeImage": {"order": ""}}], "set order: chw"),
    ([{"ToCHWImage": {}}, {"CropImage": {"size": 8}}], "move ToCHWImage"),
    (["CropImage"], "Name: {arguments}")])
def test_a_wrong_inference_list_is_an_error_that_says_where(ops, message):
    with pytest.raises(ConfigError, match=message):
        pixels.pipeline(ops, "ops")


def test_a_crop_larger_than_the_image_is_an_error(image):
    with pytest.raises(DataError, match="57x8.*56x40"):
        pixels.center_crop(image, (57, 8))


def test_pixels_come_without_paddle_pillow_and_the_training_stack():
    script = ("import sys, ppcls_ssld.data.pixels\n"
              "print([m for m in sys.modules if m.split('.')[0] in ('paddle', 'PIL', 'ppcls', 'multiprocessing') "
              "or m.startswith('ppcls_ssld.data.')])")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ppcls_ssld.data.pixels']"


def test_the_first_frame_of_a_gif_is_read_with_every_opencv(image, encode):
    colors = Image.fromarray(image).quantize(64)
    moving = encode(colors, "GIF", save_all=True, append_images=[Image.fromarray(255 - image)])
    for data in (encode(colors, "GIF"), moving):
        assert np.array_equal(pixels.decode(data, ""), np.asarray(colors.convert("RGB")))


def test_a_gif_without_pillow_is_an_error_that_names_it(image, encode, monkeypatch):
    data = encode(Image.fromarray(image).quantize(64), "GIF")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match="a.gif: a GIF is read with Pillow.*install pillow, or convert it"):
        pixels.decode(data, "a.gif")


@pytest.mark.parametrize("kind", ["GIF", "PNG"])
def test_a_gif_or_png_cut_anywhere_is_a_word_or_the_whole_image(image, encode, kind):
    data = encode(Image.fromarray(image).quantize(64), kind)
    whole, refused = pixels.decode(data, ""), 0
    for end in range(8, len(data), 97):
        try:
            assert np.array_equal(pixels.decode(data[:end], "cut"), whole)
        except DataError as e:
            refused += "cut: the" in str(e) or "cut: corrupt" in str(e)
    assert refused > 15


def test_a_png_cannot_ask_for_more_memory_than_it_has_bytes(image, encode, monkeypatch):
    data = encode(image, "PNG")
    at = data.index(b"IDAT") - 4
    monkeypatch.setattr("cv2.imdecode", lambda *_: pytest.fail("OpenCV must not see it"))
    for length in (b"\xff\xff\xff\xff", (len(data) - at).to_bytes(4, "big")):
        with pytest.raises(DataError, match="a.png: the PNG is truncated or corrupt"):
            pixels.decode(data[:at] + length + data[at + 4:], "a.png")


def test_a_damaged_animated_png_is_a_word_and_no_crash(image, encode):
    data = encode(image, "PNG", save_all=True, append_images=[Image.fromarray(255 - image)])
    assert np.array_equal(pixels.decode(data, ""), image)
    script = ("import sys\nfrom ppcls_ssld.data import pixels\nfrom ppcls_ssld.errors import DataError\n"
              "data = sys.stdin.buffer.read()\n"
              "for at in range(data.index(b'IDAT') + 4, len(data) - 12, 41):\n"
              "    try: pixels.decode(data[:at] + bytes([data[at] ^ 255]) + data[at + 1:], 'damaged')\n"
              "    except DataError as e: print(e)\n")
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True, check=True)
    assert done.stdout.count(b"damaged: corrupt") > 10


def test_jpegs_decoded_as_rgb_have_the_bits_of_bgr_turned_round(image, encode, ugly, monkeypatch):
    files = [encode(image, progressive=way, subsampling=kind) for way in (False, True) for kind in (0, 1, 2)]
    files += [ugly.grey, ugly.exif, ugly.cmyk]
    for way in (pixels._JPEG_AS_RGB, None):
        monkeypatch.setattr(pixels, "_JPEG_AS_RGB", way)
        for data in files:
            expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            made = pixels.decode(data, "")
            assert np.array_equal(made, expected) and made.flags.c_contiguous
