from itertools import permutations

import numpy as np
import pytest

from ppcls_ssld.data.augment import AutoAugment, ColorJitter, RandAugment, RandomErasing, TimmAutoAugment, run_steps

FILL = (124, 116, 104)
# Sum of all pixels of `image` after each operation of rand-m7-inc1 with positive sign: PaddleClas develop d178931,
# ppcls/data/preprocess/ops/timm_autoaugment.py, NAME_TO_OP[...](image, *LEVEL_TO_ARG[...](7), bicubic), Pillow 13.0.
TIMM_LEVEL_7 = {
    "autocontrast": (0, 856240), "equalize": (0, 929930), "invert": (0, 857360), "rotate": (21.0, 843486),
    "posterize": (2, 644928), "solarize": (77, 495374), "solarize_add": (77, 1114575), "color": (1.63, 864304),
    "contrast": (1.63, 855711), "brightness": (1.63, 1183908), "sharpness": (1.63, 854443), "shear_x": (0.21, 851224),
    "shear_y": (0.21, 839534), "translate_x": (0.315, 824403), "translate_y": (0.315, 821848),
}


@pytest.mark.parametrize("name", TIMM_LEVEL_7)
def test_golden_sums_of_paddleclas(name, image):
    value, total = TIMM_LEVEL_7[name]
    assert int(run_steps(image, [(name, value, "bicubic")], FILL).sum()) == total


def drawn(policy, n=3000):
    rng = np.random.default_rng(1)
    return [step for _ in range(n) for step in policy.draw(rng, 40, 56)]


def test_timm_strengths_are_those_of_paddleclas_with_both_signs():
    found = {name: set() for name in TIMM_LEVEL_7}
    for name, value, resample in drawn(TimmAutoAugment(config_str="rand-m7-inc1")):
        found[name].add(round(value, 9))
        assert resample == "bicubic"
    for name, (value, _) in TIMM_LEVEL_7.items():
        mirrored = {"color", "contrast", "brightness", "sharpness"}
        signed = {"rotate", "shear_x", "shear_y", "translate_x", "translate_y"}
        both = {value, round(2 - value, 9)} if name in mirrored else {value, -value} if name in signed else {value}
        assert found[name] == both


def test_timm_options_mean_what_they_say():
    assert 0.9 < len(drawn(TimmAutoAugment(config_str="rand-m7"))) / 3000 < 1.1  # 2 drawn, half of them applied
    assert 1.8 < len(drawn(TimmAutoAugment(config_str="rand-m7-n4"))) / 3000 < 2.2
    assert 0.4 < len(drawn(TimmAutoAugment(config_str="rand-m7", prob=0.5))) / 3000 < 0.6
    assert drawn(TimmAutoAugment(prob=0.0)) == []
    varied = drawn(TimmAutoAugment(config_str="rand-m5-mstd1.0"))
    degrees = {abs(value) for name, value, _ in varied if name == "rotate"}
    assert len(degrees) > 30 and 12 < np.mean(list(degrees)) < 18 and max(degrees) <= 30
    weighted = [name for name, *_ in drawn(TimmAutoAugment(config_str="rand-m7-w0"))]
    assert "invert" not in weighted and weighted.count("rotate") > weighted.count("color")
    factor = {value for name, value, _ in drawn(TimmAutoAugment(config_str="rand-m5-inc0")) if name == "contrast"}
    assert factor == {1.0}
    assert {r for *_, r in drawn(TimmAutoAugment(interpolation="random"))} == {"bilinear", "bicubic"}


def test_the_strongest_posterize_gives_black_and_no_error(image):
    policy = TimmAutoAugment(config_str="rand-m10-inc1")
    steps = [step for step in drawn(policy) if step[0] == "posterize"]
    assert steps[0][1] == 0 and not policy.apply(image, steps[:1]).any()
    assert np.array_equal(policy.apply(image, [("posterize", 8, "nearest")]), image)


def test_randaugment_draws_its_fourteen_operations_at_one_strength():
    steps = drawn(RandAugment(num_layers=3, magnitude=5))
    assert len(steps) == 9000 and len({name for name, *_ in steps}) == 14
    names = ("shear_x", "color", "rotate", "posterize")
    values = {name: {round(v, 6) for n, v, _ in steps if n == name} for name in names}
    assert values == {"shear_x": {0.15, -0.15}, "color": {1.45, 0.55}, "rotate": {15.0}, "posterize": {2.0}}


def test_autoaugment_draws_the_published_pairs_with_their_probabilities():
    rng, policy = np.random.default_rng(0), AutoAugment()
    draws = [policy.draw(rng, 8, 8) for _ in range(4000)]
    assert max(map(len, draws)) == 2
    expected = np.mean([sum(op[0] for op in pair) for pair in AutoAugment.PAIRS])
    assert abs(np.mean(list(map(len, draws))) - expected) < 0.05
    assert {round(v, 4) for steps in draws for n, v, _ in steps if n == "solarize"} == {
        round(256 - 256 / 9 * level, 4) for level in (3, 4, 5, 7, 8)}
    assert {v for steps in draws for n, v, _ in steps if n == "posterize"} == {4.0, 5.0, 6.0} | {
        float(round(8 - 4 / 9 * level)) for level in (5, 6, 7, 8)}


def test_colour_jitter_stays_in_its_ranges_and_shuffles(image):
    jitter, rng = ColorJitter(brightness=0.4, contrast=2, hue=0.1), np.random.default_rng(0)
    draws = [dict(jitter.draw(rng, 8, 8)) for _ in range(200)]
    ranges = {"brightness": (0.6, 1.4), "contrast": (0, 3), "hue": (-0.1, 0.1)}
    assert {tuple(d) for d in draws} == {p for p in permutations(ranges)}
    assert all(ranges[n][0] <= v <= ranges[n][1] for d in draws for n, v in d.items())
    assert ColorJitter(prob=0, brightness=1).draw(rng, 8, 8) == () and ColorJitter().draw(rng, 8, 8) == ()
    assert np.array_equal(jitter.apply(image, (("brightness", 1.0),)), image)
    assert np.array_equal(jitter.apply(image, (("brightness", 0.0),)), np.zeros_like(image))


def test_erasing_touches_one_rectangle_of_the_right_size(image):
    picture = image.astype(np.float32) + 10
    for mode in ("const", "rand", "pixel"):
        erase, areas = RandomErasing(EPSILON=1, sl=0.1, sh=0.2, r1=0.5, mode=mode, mean=[1, 2, 3]), []
        for seed in range(50):
            left, top, width, height, noise = erase.draw(np.random.default_rng(seed), 40, 56)
            made = erase.apply(picture, (left, top, width, height, noise))
            box = made[top:top + height, left:left + width].copy()
            made[top:top + height, left:left + width] = picture[top:top + height, left:left + width]
            assert np.array_equal(made, picture) and box.shape == (height, width, 3)
            areas.append(width * height / (40 * 56))
            assert len(np.unique(box.reshape(-1, 3), axis=0)) == (width * height if mode == "pixel" else 1)
        assert 0.09 < min(areas) < 0.12 and 0.18 < max(areas) < 0.21
    assert box.mean() < 1
    assert RandomErasing(EPSILON=0).draw(np.random.default_rng(0), 40, 56) is None
    one = RandomErasing(EPSILON=1)
    assert np.array_equal(one.apply(picture[:1, :1], one.draw(np.random.default_rng(0), 1, 1)), picture[:1, :1])
