import json

import numpy as np
import pytest

from ppcls_ssld.data import pixels
from ppcls_ssld.data.transforms import TRANSFORMS, Pipeline, TransformError, build_transforms, check_transforms
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.rng import Stream, generator
from ppcls_ssld.structs import Drawn, Normalization

NORMALIZE = {"NormalizeImage": {"order": ""}}
RANDOM = [
    ("RandCropImage", {"size": 12}),
    ("RandCropImage", {"size": [10, 14], "scale": [0.5, 1.0], "interpolation": "random", "backend": "pil",
                       "use_log_aspect": True}),
    ("PadRandCrop", {"size": 9, "padding": 4, "fill": 7}),
    ("RandFlipImage", {"flip_code": -1}),
    ("RandAugment", {"num_layers": 3, "magnitude": 9}),
    ("AutoAugment", {}),
    ("TimmAutoAugment", {"config_str": "rand-m9-mstd0.5-inc1", "interpolation": "random", "img_size": 12}),
    ("TimmAutoAugment", {"config_str": "rand-m7-n4-w0", "prob": 0.8}),
    ("ColorJitter", {"brightness": 0.4, "contrast": 0.4, "saturation": [0.1, 2.0], "hue": 0.3}),
    ("RandomErasing", {"EPSILON": 0.9, "sh": "1.0/3.0", "attempt": 10, "use_log_aspect": True, "mode": "pixel"}),
    ("RandomErasing", {"EPSILON": 0.9, "mode": "rand"}),
]


def build(name, arguments):
    return TRANSFORMS.build(name, arguments, "transform_ops")


def rng(i):
    return generator(1, 2, i, Stream.AUGMENT)


@pytest.mark.parametrize("name, arguments", RANDOM)
def test_what_was_drawn_can_be_stored_and_done_again(name, arguments, image):
    transform, changed = build(name, arguments), 0
    for i, picture in enumerate([image, image[:1, :1], image[:7, :30], image[:33, :2]] * 5):
        before = picture.copy()
        drawn = transform.draw(rng(i), *picture.shape[:2])
        done = transform.apply(picture, drawn)
        again = build(name, arguments).apply(picture, json.loads(json.dumps(drawn)))  # another object, another process
        assert np.array_equal(done, again) and drawn == transform.draw(rng(i), *picture.shape[:2])
        assert np.array_equal(picture, before), "the input was written to"
        changed += done.shape != picture.shape or not np.array_equal(done, picture)
    assert changed > 3


def test_a_pipeline_replays_what_it_recorded(image):
    pipeline = build_transforms([{"DecodeImage": {}}, *({name: arguments} for name, arguments in RANDOM[:9]), NORMALIZE,
                                 {RANDOM[9][0]: RANDOM[9][1]}], "ops")
    for i in range(8):
        made, drawn = pipeline.record(image, rng(i))
        assert np.array_equal(made, pipeline(image, rng(i)))
        assert np.array_equal(made, pipeline.replay(image, json.loads(json.dumps(drawn))))
    assert not np.array_equal(made, pipeline(image, rng(99)))


def test_the_result_is_chw_whether_or_not_tochwimage_is_listed(image):
    plain, listed = (build_transforms([{"CropImage": {"size": [20, 10]}}, NORMALIZE, *end], "ops")(image, rng(0))
                     for end in ([], [{"ToCHWImage": {}}]))
    assert plain.shape == (3, 10, 20) and plain.dtype == np.float32 and np.array_equal(plain, listed)


def test_random_crops_of_paddleclas_from_the_same_random_numbers(image):
    """RandCropImage(size=12) of PaddleClas develop d178931 with `random` replaced by numpy's default_rng(5) and (6)."""
    crop = build("RandCropImage", {"size": 12})
    golden = {5: (55288, [170, 220, 14], [6, 56, 106]), 6: (52932, [101, 151, 201], [62, 112, 162])}
    for seed, expected in golden.items():
        made = crop.apply(image, crop.draw(np.random.default_rng(seed), *image.shape[:2]))
        assert (int(made.sum()), made[3, 5].tolist(), made[-2, -3].tolist()) == expected


@pytest.mark.parametrize("height, width", [(1, 1), (1, 500), (500, 1), (3, 4), (333, 500)])
def test_a_random_crop_lies_inside_the_image_and_keeps_its_law(height, width):
    crop = build("RandCropImage", {"size": 8, "scale": [0.2, 0.9], "ratio": [0.8, 1.5]})
    generator_ = np.random.default_rng(0)
    for _ in range(300):
        left, top, w, h, _ = crop.draw(generator_, height, width)
        assert 0 <= left <= left + w <= width and 0 <= top <= top + h <= height and w >= 1 and h >= 1
        if min(height, width) > 300:
            assert 0.19 < w * h / (width * height) < 0.9 and 0.78 < w / h < 1.53


def test_a_crop_without_resize_takes_the_pixels_as_they_are(image):
    for name in ("RandCropImageV2", "RandomCropImage"):
        crop = build(name, {"size": [20, 30]})
        seen = set()
        for i in range(60):
            left, top = crop.draw(rng(i), 40, 56)
            assert np.array_equal(crop.apply(image, (left, top)), image[top:top + 30, left:left + 20])
            seen.add((left, top))
        assert max(left for left, _ in seen) > 30 and max(top for _, top in seen) > 7
        assert crop.draw(rng(0), 30, 20) == (0, 0)
        with pytest.raises(DataError, match="20x30.*19x40"):
            crop.draw(rng(0), 40, 19)


def test_padding_and_cropping_a_small_image_shows_its_border(image):
    small = image[:8, :8]
    crop = build("PadRandCrop", {"size": 8, "padding": 2, "fill": 9})
    assert np.array_equal(crop.apply(small, (2, 2)), small)
    corner = crop.apply(small, (0, 4))
    assert (corner[:, :2] == 9).all() and (corner[6:] == 9).all() and np.array_equal(corner[:6, 2:], small[2:, :6])


def test_padding_to_a_size_puts_the_image_where_the_mode_says(image):
    small = image[:4, :6]
    for mode, left, top in ((0, 0, 0), (1, 1, 2), (2, 3, 5)):
        padded = build("Padv2", {"size": [9, 9], "pad_mode": mode, "fill_value": 3}).apply(small)
        assert padded.dtype == np.uint8 and padded.shape == (9, 9, 3)
        assert np.array_equal(padded[top:top + 4, left:left + 6], small) and padded.sum() == small.sum() + (81 - 24) * 9
    assert build("Padv2", {"size": 9}).apply(small)[8, 8].tolist() == [127.5] * 3
    offset = build("Padv2", {"size": 9, "pad_mode": -1, "offsets": [2, 1]}).apply(small)
    assert offset[1, 2].tolist() == small[0, 0].tolist()
    with pytest.raises(DataError, match="5x5"):
        build("Padv2", {"size": 5}).apply(small)


def test_flips_happen_as_often_as_asked_and_both_ways(image):
    for code, expected in ((1, image[:, ::-1]), (0, image[::-1]), (-1, image[::-1, ::-1])):
        assert np.array_equal(build("RandFlipImage", {"flip_code": code}).apply(image, True), expected)
    for prob in (0, 0.5, 1):
        flip = build("RandFlipImage", {"prob": prob})
        assert abs(np.mean([flip.draw(rng(i), 4, 4) for i in range(400)]) - prob) < 0.08


@pytest.mark.parametrize("entry, message", [
    ({"RandCropImag": {"size": 8}}, "ops.0: no transform 'RandCropImag'; did you mean 'RandCropImage'"),
    ({"RandCropImage": {"sise": 8}}, "ops.0.RandCropImage: no argument 'sise'; did you mean 'size'"),
    ({"RandCropImage": {}}, "missing argument.*size"),
    ({"RandCropImage": {"size": 8, "scale": 0.5}}, "scale.*0.5"),
    ({"RandCropImage": {"size": 8, "ratio": [2, 1]}}, "low, high"),
    ({"RandFlipImage": {"flip_code": 2}}, "flip_code"),
    ({"TimmAutoAugment": {"config_str": "rand-m7-mst0.5"}}, "mst0.5"),
    ({"TimmAutoAugment": {"config_str": "v0"}}, "AutoAugment is its own"),
    ({"TimmAutoAugment": {"interpolation": "lanczos"}}, "interpolation"),
    ({"ColorJitter": {"hue": 0.6}}, "hue"),
    ({"RandomErasing": {"mode": "noise"}}, "mode"),
    ({"RandomErasing": {"sl": 0.5, "sh": 0.4}}, "sl=0.5"),
    ({"NormalizeImage": {}}, "set order: ''"),
    ({"A": {}, "B": {}}, "one `Name"),
    ("RandFlipImage", "one `Name")])
def test_a_wrong_entry_is_an_error_that_says_where(entry, message):
    with pytest.raises(ConfigError, match=message):
        check_transforms([entry], "ops")


def test_colour_augmentation_after_normalising_is_an_error_that_says_so(image):
    for name in ("AutoAugment", "ColorJitter"):
        pipeline = build_transforms([NORMALIZE, {name: {"brightness": 0.5} if name == "ColorJitter" else {}}], "ops")
        with pytest.raises(DataError, match="before NormalizeImage"):
            for i in range(20):
                pipeline(image, rng(i))


def test_an_empty_list_gives_the_pixels_as_float32(image):
    made = Pipeline(()).record(image, rng(0))
    assert made[1] == () and made[0].dtype == np.float32 and np.array_equal(made[0], image.transpose(2, 0, 1))


CROP, FLIP = {"RandCropImage": {"size": 12}}, {"RandFlipImage": {}}
WHOLE = {"RandCropImage": {"size": [56, 40]}}  # the size of `image`
SCALED = {"NormalizeImage": {"scale": 0.5, "mean": [1, 2, 3], "std": [4, 5, 6], "order": ""}}
IDENTITY = Normalization(1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("entries, left", [
    ([CROP, FLIP, SCALED], Normalization(0.5, (1, 2, 3), (4, 5, 6))),
    ([CROP, SCALED, {"ToCHWImage": {}}], Normalization(0.5, (1, 2, 3), (4, 5, 6))),
    ([CROP, {"ToCHWImage": {}}, {"NormalizeImage": SCALED["NormalizeImage"] | {"order": "chw"}}],
     Normalization(0.5, (1, 2, 3), (4, 5, 6))),
    ([CROP, {"RandomErasing": {}}, SCALED], Normalization(0.5, (1, 2, 3), (4, 5, 6))),
    ([CROP, {"Padv2": {"size": 16, "fill_value": 7}}, SCALED], Normalization(0.5, (1, 2, 3), (4, 5, 6))),
    ([CROP, {"ToCHWImage": {}}], IDENTITY), ([CROP, FLIP], IDENTITY), ([], IDENTITY),
    ([CROP, SCALED, {"RandomErasing": {}}], None), ([CROP, SCALED, SCALED], None),
    ([CROP, {"Padv2": {"size": 16}}, SCALED], None)])
def test_what_is_left_after_the_uint8_image_makes_the_same_bits(entries, left, image, encode):
    pipeline, data = build_transforms(entries, "ops"), encode(image)
    assert pipeline.raw == left
    if left is None:
        with pytest.raises(ValueError, match="uint8"):
            pipeline.from_bytes(data, "", rng(0), raw=True)
        return
    for i in range(4):
        done, drawn = pipeline.from_bytes(data, "", rng(i))
        raw, same = pipeline.from_bytes(data, "", rng(i), raw=True)
        assert raw.dtype == np.uint8 and raw.shape == (*done.shape[1:], 3) and drawn == same
        normal = pixels.normalize(raw, left.scale, left.mean, left.std, "")
        assert np.array_equal(pixels.to_chw(normal), done)
        assert np.array_equal(raw, pipeline.replay_bytes(data, "", drawn, raw=True))


@pytest.mark.parametrize("entries, lies_there", [
    ([CROP, FLIP, SCALED], True), ([CROP, {"RandFlipImage": {"flip_code": -1}}, {"RandFlipImage": {"prob": 1}}], True),
    ([CROP, CROP, FLIP], True), ([WHOLE, FLIP, WHOLE], True),
    ([FLIP, {"RandFlipImage": {"flip_code": 0}}], None), ([CROP, {"ColorJitter": {"hue": 0.3}}, FLIP], None),
    ([CROP, FLIP, {"PadRandCrop": {"size": 12}}], None),
    ([{"RandCropImage": {"size": 12, "backend": "pil"}}, FLIP], None),
    ([{"DecodeImage": {"reduced": True}}, CROP, FLIP], None), ([CROP, FLIP, {"ResizeImage": {"size": 20}}], False)])
def test_an_image_made_in_memory_that_is_there_has_the_same_bits(entries, lies_there, image, encode):
    pipeline, fresh, data = build_transforms(entries, "ops"), build_transforms(entries, "ops"), encode(image)
    for i in range(24):
        expected, drawn = fresh.from_bytes(data, "", rng(i), raw=True)
        for shape in (expected.shape, (9, 10, 3)):
            batch = np.full((3, *shape), 77, np.uint8)
            made, same = pipeline.from_bytes(data, "", rng(i), raw=True, out=batch[1])
            assert np.array_equal(made, expected) and same == drawn
            assert (batch[[0, 2]] == 77).all()
            if lies_there is not None:
                assert np.shares_memory(made, batch) == (lies_there and shape == expected.shape)
            replayed = pipeline.replay_bytes(data, "", drawn, raw=True, out=batch[1])
            assert np.array_equal(replayed, expected)


@pytest.mark.parametrize("code, sides", [(1, np.s_[:, ::-1]), (0, np.s_[::-1]), (-1, np.s_[::-1, ::-1])])
def test_a_flip_may_write_where_it_reads(code, sides):
    flip = build("RandFlipImage", {"flip_code": code})
    for height, width in [*np.ndindex(20, 20), (223, 224), (224, 223), (64, 65)]:
        image = generator(0, height, width, Stream.SUBSET).integers(0, 256, (height + 1, width + 1, 3), np.uint8)
        expected = image[sides].copy()
        assert flip.apply(image, True, image) is image and np.array_equal(image, expected)


def test_every_transform_before_the_tail_keeps_uint8(image, encode):
    """What Pipeline.raw relies on."""
    given = {"ResizeImage": {"size": 30}, "CropImage": {"size": 8}, "Padv2": {"size": 60, "fill_value": 3}}
    data = encode(image)
    for name in TRANSFORMS.names():
        if name in ("NormalizeImage", "ToCHWImage"):
            continue
        arguments = given.get(name, {"size": 12} if "Crop" in name else {})
        pipeline = build_transforms([{name: arguments}, NORMALIZE], "ops")
        for i in range(12):
            assert pipeline.from_bytes(data, "", rng(i), raw=True)[0].dtype == np.uint8, name


def test_bytes_go_the_same_way_as_pixels(image, encode):
    pipeline = build_transforms([{"DecodeImage": {}}, *({name: arguments} for name, arguments in RANDOM[:9]), NORMALIZE,
                                 {RANDOM[9][0]: RANDOM[9][1]}], "ops")
    for data in (encode(image), encode(image, "PNG"), encode(image[..., 0])):
        for i in range(4):
            expected, parameters = pipeline.record(pixels.decode(data, ""), rng(i))
            made, drawn = pipeline.from_bytes(data, "a.jpg", rng(i))
            assert np.array_equal(made, expected) and drawn == Drawn(parameters, (40, 56))
            stored = json.loads(json.dumps(drawn.transforms))
            assert np.array_equal(made, pipeline.replay_bytes(data, "a.jpg", Drawn(tuple(stored), (40, 56))))


def test_bytes_that_are_no_image_and_images_that_do_not_fit_are_different_errors(image, encode):
    pipeline = build_transforms([{"CropImage": {"size": 50}}], "DataLoader.Train.transform_ops")
    with pytest.raises(DataError, match="^a.jpg: corrupt") as error:
        pipeline.from_bytes(b"no image", "a.jpg", rng(0))
    assert not isinstance(error.value, TransformError)
    with pytest.raises(TransformError, match=r"^a.jpg: cannot crop 50x50.*\(DataLoader.Train.transform_ops\)"):
        pipeline.from_bytes(encode(image), "a.jpg", rng(0))
    with pytest.raises(TransformError, match="a.jpg: has 56x40 pixels.*recorded on 50x40"):
        pipeline.replay_bytes(encode(image), "a.jpg", Drawn((None,), (40, 50)))
    with pytest.raises(DataError, match="2 drawn parameters, expected one for each of 1"):
        pipeline.replay_bytes(encode(image), "a.jpg", Drawn((None, None), (40, 56)))


def test_a_uniform_number_has_the_bits_of_numpys(image):
    from ppcls_ssld.data.transforms import _uniform

    one, two = rng(3), rng(3)
    for low, high in ((0.08, 1.0), (3 / 4, 4 / 3), (-0.3, 0.1), (0.2, 0.2)) * 500:
        assert _uniform(one, low, high) == two.uniform(low, high)
