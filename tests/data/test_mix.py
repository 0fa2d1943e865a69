import json
from dataclasses import replace

import numpy as np
import pytest

from ppcls_ssld.data.mix import build_mix, check_mix, mix_batch
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.structs import UNLABELLED, Batch


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1, UNLABELLED, 3, UNLABELLED, 5], np.int64)
    return Batch(rng.normal(size=(6, 3, 10, 14)).astype(np.float32), labels, np.arange(6), np.zeros(6, np.int64),
                 labels.copy(), np.ones(6, np.float32))


def mixed(batch, entry, seed):
    """(what mix_batch makes, partners, what the mix drew)."""
    rng = np.random.default_rng(seed)
    partner = rng.permutation(6)
    mix = build_mix([entry], "ops")
    return mix_batch(mix, batch, np.random.default_rng(seed)), partner, mix.draw(rng, 10, 14)


MIXES = [{"Mixup": {"alpha": 0.2}}, {"MixupOperator": None}, {"Cutmix": {"alpha": 1.0}}, {"CutmixOperator": {}},
         {"OpSampler": {"MixupOperator": {"alpha": 0.8, "prob": 0.4}, "CutmixOperator": {"alpha": 1.0, "prob": 0.4}}}]


@pytest.mark.parametrize("entry", MIXES)
def test_what_was_drawn_can_be_stored_and_done_again(batch, entry):
    for seed in range(20):
        before = batch.images.copy()
        made, partner, drawn = mixed(batch, entry, seed)
        if drawn is None:
            assert made is batch
            continue
        drawn = json.loads(json.dumps(drawn))
        again, share = build_mix([entry], "ops").blend(batch.images, batch.images[partner], drawn)
        assert np.array_equal(made.images, again) and (made.share == share).all()
        for i in range(6):  # and for one pair at a time
            alone, _ = build_mix([entry], "ops").blend(batch.images[i:i + 1], batch.images[partner[i]][None], drawn)
            assert np.array_equal(made.images[i], alone[0])
        assert np.array_equal(batch.images, before), "the input was written to"


@pytest.mark.parametrize("entry", MIXES[:4])
def test_a_mix_is_its_share_of_the_image_and_the_rest_of_the_partner(batch, entry):
    for seed in range(40):
        made, partner, how = mixed(batch, entry, seed)
        share = made.share[0]
        if "Mixup" in next(iter(entry)):
            expected = share * batch.images + (1 - share) * batch.images[partner]
            assert np.allclose(made.images, expected, atol=1e-6) and share == np.float32(how)
        else:
            own = (made.images == batch.images).all(axis=1)
            theirs = (made.images == batch.images[partner]).all(axis=1)
            assert (own | theirs).all()
            moved = [i for i in range(6) if partner[i] != i]
            assert all(own[i].mean() == pytest.approx(share, abs=1e-6) for i in moved)
        assert made.share.dtype == np.float32 and (made.share == share).all() and 0 <= share <= 1
        assert sorted(partner) == list(range(6)) and np.array_equal(made.labels, batch.labels)
        assert np.array_equal(made.partner_labels, batch.labels[partner])
        assert (made.partner_labels == UNLABELLED).sum() == 2


def test_the_share_follows_beta(batch):
    shares = np.array([mixed(batch, {"Mixup": {"alpha": 0.2}}, seed)[0].share[0] for seed in range(600)])
    assert abs(shares.mean() - 0.5) < 0.06 and abs(shares.var() - 0.25 / 1.4) < 0.02  # of Beta(0.2, 0.2)


def test_opsampler_chooses_as_often_as_asked(batch):
    ops = {"MixupOperator": {"alpha": 0.8, "prob": 0.5}, "CutmixOperator": {"alpha": 1.0, "prob": "1/4"}}
    drawn = [mixed(batch, {"OpSampler": ops}, seed)[2] for seed in range(800)]
    chosen = [None if what is None else what[0] for what in drawn]
    assert np.allclose([chosen.count(i) / 800 for i in (0, 1, None)], [0.5, 0.25, 0.25], atol=0.05)
    assert mixed(batch, {"OpSampler": ops}, chosen.index(None))[0] is batch


def test_cutmix_of_bytes_is_cutmix_of_numbers(batch):
    images = np.random.default_rng(1).integers(0, 256, (6, 10, 14, 3), np.uint8)
    mix = build_mix([{"Cutmix": {"alpha": 1.0}}], "ops")
    for seed in range(20):
        of_bytes = mix_batch(mix, replace(batch, images=images), np.random.default_rng(seed))
        numbers = replace(batch, images=images.transpose(0, 3, 1, 2).astype(np.float32))
        of_numbers = mix_batch(mix, numbers, np.random.default_rng(seed))
        assert of_bytes.images.dtype == np.uint8 and (of_bytes.share == of_numbers.share).all()
        assert np.array_equal(of_bytes.images.transpose(0, 3, 1, 2), of_numbers.images)


@pytest.mark.parametrize("entries, message", [
    ([{"Mixup": {"alpha": 0}}], "ops.0.Mixup: alpha.*0"), ([{"Mixop": {}}], "did you mean 'Mixup'"),
    ([{"Mixup": {"alfa": 1}}], "did you mean 'alpha'"), ([{"Mixup": {}}, {"Cutmix": {}}], "OpSampler"),
    ([{"OpSampler": {"Mixup": {}}}], "with its prob"), ([{"OpSampler": {}}], "sum to 1 or less"),
    ([{"OpSampler": {"Mixup": {"prob": 0.7}, "Cutmix": {"prob": 0.7}}}], "sum to 1 or less"),
    ([{"OpSampler": {"Fmix": {"prob": 0.7}}}], "no batch transform 'Fmix'")])
def test_a_wrong_entry_is_an_error(entries, message):
    with pytest.raises(ConfigError, match=message):
        check_mix(entries, "ops")


def test_no_entries_mean_no_mix():
    assert build_mix((), "ops") is None
