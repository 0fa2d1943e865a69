"""What chance decided comes back from a record and makes the same pixels, for every transform a config can name."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ppcls_ssld.data import BATCH_TRANSFORMS, TRANSFORMS, build_mix, build_transforms
from ppcls_ssld.data.transforms import RandFlipImage
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.rng import Stream, generator
from ppcls_ssld.structs import Drawn
from ppcls_ssld.targets.drawn import DrawnCodec

NORMALIZE = {"NormalizeImage": {"order": ""}}
# One list or more for each name; images are 40 to 90 pixels high and wide.
LISTS = {
    "DecodeImage": [[{"DecodeImage": {"to_rgb": False}}]],
    "ResizeImage": [[{"ResizeImage": {"resize_short": 36}}], [{"ResizeImage": {"size": [24, 20], "backend": "pil"}}]],
    "CropImage": [[{"CropImage": {"size": 32}}]],
    "NormalizeImage": [[NORMALIZE]],
    "ToCHWImage": [[{"ToCHWImage": None}]],
    "RandCropImage": [[{"RandCropImage": {"size": 24}}],
                      [{"RandCropImage": {"size": 24, "interpolation": "random", "use_log_aspect": True}}]],
    "RandCropImageV2": [[{"RandCropImageV2": {"size": 32}}]],
    "RandomCropImage": [[{"RandomCropImage": {"size": [30, 20]}}]],
    "PadRandCrop": [[{"PadRandCrop": {"size": 32, "padding": 4}}]],
    "Padv2": [[{"Padv2": {"size": 100}}], [{"Padv2": {"size": 100, "pad_mode": 1, "fill_value": 3}}]],
    "RandFlipImage": [[{"RandFlipImage": {"flip_code": code}}] for code in (1, 0, -1)],
    "RandAugment": [[{"RandAugment": {}}], [{"RandAugment": {"num_layers": 3, "magnitude": 7.3}}],
                    [{"RandAugment": {"magnitude": 0}}]],
    "AutoAugment": [[{"AutoAugment": {}}]],
    "TimmAutoAugment": [[{"TimmAutoAugment": {"config_str": text, "interpolation": "random"}}]
                        for text in ("rand-m9-mstd0.5-inc1", "rand-m7-n3-w0")],
    "ColorJitter": [[{"ColorJitter": {"prob": 0.7, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.2}}],
                    [{"ColorJitter": {}}], [{"ColorJitter": {"hue": [-0.1, 0.3]}}]],
    "RandomErasing": [[NORMALIZE, {"RandomErasing": {"mode": mode, "attempt": 3}}]
                      for mode in ("const", "rand", "pixel")],
}
MIXES = {
    "Mixup": [{"Mixup": {"alpha": 0.2}}], "MixupOperator": [{"MixupOperator": {}}],
    "Cutmix": [{"Cutmix": {"alpha": 1.0}}], "CutmixOperator": [{"CutmixOperator": {}}],
    "OpSampler": [{"OpSampler": {"CutmixOperator": {"prob": 0.3}, "MixupOperator": {"alpha": 0.4, "prob": 0.4}}}],
}
EVERYTHING = [{"DecodeImage": None}, {"RandCropImage": {"size": 32, "interpolation": "random"}},
              {"RandFlipImage": {"flip_code": 1}}, {"TimmAutoAugment": {}}, {"ColorJitter": {"hue": 0.1}}, NORMALIZE,
              {"RandomErasing": {"mode": "pixel"}}, {"ToCHWImage": None}]


def images(count):
    for seed in range(count):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(40, 90, 2)
        ramp = np.linspace(0, 200, width)[None, :, None]
        yield seed, (ramp + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def stored(codec, drawn):
    """Through bytes and back."""
    content = np.array([codec.encode(drawn)], codec.dtype).tobytes()
    return codec.decode(np.frombuffer(content, codec.dtype)[0].item())


def test_every_transform_and_every_mix_is_tried_below():
    assert set(LISTS) == set(TRANSFORMS.names()) and set(MIXES) == set(BATCH_TRANSFORMS.names())


@pytest.mark.parametrize("ops", [pytest.param(ops, id=f"{name}-{i}") for name, lists
                                 in {**LISTS, "all": [EVERYTHING]}.items() for i, ops in enumerate(lists)])
def test_a_stored_view_shows_the_same_pixels(ops):
    pipeline, codec, seen = build_transforms(ops, "ops"), DrawnCodec(ops), set()
    for seed, image in images(60):
        shown, transforms = pipeline.record(image, generator(seed, 0, 0, Stream.AUGMENT))
        back = stored(codec, Drawn(transforms, image.shape[:2]))
        again = pipeline.replay(image, back.transforms)
        assert again.dtype == shown.dtype and np.array_equal(again, shown)
        assert back.size == image.shape[:2] and back.partner == -1
        seen.add(repr(back.transforms))
    random = any(hasattr(t, "draw") for t in pipeline.transforms) and ops != [{"ColorJitter": {}}]
    assert len(seen) > 1 if random else len(seen) == 1


@pytest.mark.parametrize("name", MIXES)
@pytest.mark.parametrize("ops", [[{"RandCropImage": {"size": 32}}, {"RandFlipImage": {}}, NORMALIZE], EVERYTHING])
def test_a_stored_mix_shows_the_same_pixels_of_both_images(ops, name):
    pipeline, mix, codec = build_transforms(ops, "ops"), build_mix(MIXES[name], "mix"), DrawnCodec(ops, MIXES[name])
    kinds = set()
    pool = [image for _, image in images(9)]
    for seed in range(60):
        rng = generator(seed, 0, 0, Stream.PARTNER)
        partner, image = int(rng.integers(9)), pool[seed % 9]
        shown, transforms = pipeline.record(image, rng)
        other, theirs = pipeline.record(pool[partner], rng)
        drawn, what = Drawn(transforms, image.shape[:2]), mix.draw(rng, 32, 32)
        if what is not None:
            shown, share = mix.blend(shown[None], other[None], what)
            drawn = replace(drawn, partner=partner, partner_transforms=theirs, mix=what,
                            partner_size=pool[partner].shape[:2])
        back = stored(codec, drawn)
        kinds.add(back.partner >= 0)
        again = pipeline.replay(image, back.transforms)
        if what is None:
            assert back.mix is None and np.array_equal(again, shown)
            continue
        assert (back.partner, back.partner_size, back.mix) == (partner, pool[partner].shape[:2], what)
        other = pipeline.replay(pool[partner], back.partner_transforms)
        again, again_share = mix.blend(again[None], other[None], back.mix)
        assert np.array_equal(again, shown) and again_share == share
    assert kinds == ({True, False} if name == "OpSampler" else {True})


def test_floats_come_back_bit_for_bit():
    codec = DrawnCodec([{"ColorJitter": {"brightness": 0.4}}], [{"Mixup": None}])
    value, share = 1 + 2**-52, 1 / 3
    back = stored(codec, Drawn(((("brightness", value),),), (5, 4), 7, ((),), (6, 3), share))
    assert back.transforms == ((("brightness", value),),) and back.partner_transforms == ((),) and back.mix == share


def test_what_follows_from_a_table_takes_one_byte():
    sizes = [DrawnCodec([{name: None}]).dtype.itemsize - 4 for name in ("RandAugment", "AutoAugment", "RandFlipImage")]
    assert sizes == [2, 2, 1]


def test_an_unreadable_image_has_no_draws():
    codec = DrawnCodec(EVERYTHING)
    assert codec.decode(np.zeros(1, codec.dtype)[0].item()) is None


def test_the_largest_sides_fit_and_larger_ones_are_refused():
    codec = DrawnCodec([{"RandCropImage": {"size": 8}}])
    drawn = Drawn(((65535, 1, 2, 3, "bilinear"),), (1, 65535))
    assert stored(codec, drawn) == drawn
    for wrong in (Drawn(((65536, 1, 2, 3, "bilinear"),), (1, 9)), Drawn(((0, 1, 2, 3, "bilinear"),), (65536, 1))):
        with pytest.raises(DataError, match=r"65536, but a stored view has room for 0 to 65,535"):
            codec.encode(wrong)


def test_a_transform_that_is_not_in_the_table_is_refused_by_name(monkeypatch):
    class Mystery(RandFlipImage):
        """Draws more than a RandFlipImage."""

    monkeypatch.setitem(TRANSFORMS._table, "Mystery", Mystery)
    with pytest.raises(ConfigError, match=r"DataLoader.Train.transform_ops.1: what Mystery draws cannot be recorded"):
        DrawnCodec([{"DecodeImage": None}, {"Mystery": None}])


@pytest.mark.parametrize("reduced", [False, True])
def test_a_stored_view_of_a_jpeg_file_shows_the_same_pixels(reduced):
    ops = [{"DecodeImage": {"reduced": reduced}}, {"RandCropImage": {"size": 16}}, {"RandFlipImage": {}}, NORMALIZE]
    pipeline, codec, rng = build_transforms(ops, "ops"), DrawnCodec(ops), np.random.default_rng(0)
    for seed in range(20):
        image = cv2.GaussianBlur(rng.integers(0, 256, (200, 260, 3), dtype=np.uint8), (9, 9), 3)
        encoded = cv2.imencode(".jpg", image)[1].tobytes()
        shown, drawn = pipeline.from_bytes(encoded, "a.jpg", generator(seed, 0, 0, Stream.AUGMENT), raw=True)
        back = stored(codec, drawn)
        assert back == drawn and back.size == (200, 260)
        assert np.array_equal(pipeline.replay_bytes(encoded, "a.jpg", back, raw=True), shown)
