import json

import numpy as np
import pytest
from ppcls_ssld.errors import DataError
from ppcls_ssld.export import export_network, parity_report, write_parity
from ppcls_ssld.inference import InferenceEngine


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("head", ("softmax", "sigmoid", None))
def test_an_honest_export_passes(head, make_toy, images, tmp_path):
    network = make_toy()
    export_network(network, tmp_path, (3, 16, 16), head=head)
    report = parity_report(network, InferenceEngine(tmp_path), [images[:4], images[4:]], head, "noise")
    assert report.images == 6 and report.flips == 0 and report.max_rel_diff < 1e-5
    assert report.passed() and "parity on 6 images (noise)" in report.summary()
    saved = json.loads(write_parity(tmp_path, {"inference.json": report}).read_text())["inference.json"]
    assert saved["passed"] is True and saved["images"] == 6 and saved["max_abs_diff"] == report.max_abs_diff


def test_the_difference_is_that_of_the_logits_also_through_a_softmax(make_toy, eager, images):
    network = make_toy()
    logits = eager(network, images)
    changed = logits.copy()
    changed[2, 3] -= 0.01  # shifts every log probability of image 2 by less, and its own by less than 0.01
    by_logits = parity_report(network, lambda x: changed, [images], head=None)
    by_probabilities = parity_report(network, lambda x: softmax(changed.astype(np.float64)), [images])
    assert by_logits.max_abs_diff == pytest.approx(0.01, rel=1e-3)
    assert by_logits.max_rel_diff == pytest.approx(0.01 / np.abs(logits).max(), rel=1e-3)
    assert 0.003 < by_probabilities.max_abs_diff <= 0.0101
    assert not by_logits.passed() and not by_probabilities.passed()


def test_swapped_classes_are_counted_as_flips_and_fail(make_toy, eager, images):
    network = make_toy()
    report = parity_report(network, lambda x: eager(network, x)[:, ::-1], [images], head=None)
    assert report.flips == (eager(network, images).argmax(axis=1) != 3).sum() > 0  # class 3 of 7 maps to itself
    assert not report.passed(max_rel_diff=np.inf)


@pytest.mark.parametrize("head, function", [("softmax", softmax), ("sigmoid", sigmoid), (None, np.array)])
def test_nan_never_passes(head, function, make_toy, eager, images):
    network = make_toy()
    broken = function(eager(network, images))
    broken[0, 0] = np.nan
    report = parity_report(network, lambda x: broken if x is images else function(eager(network, x)),
                           [images, images.copy()], head)
    assert np.isnan(report.max_abs_diff) and not report.passed(max_flips=len(images))


@pytest.mark.parametrize("size", (0.5, 3, 6.9, 7.1, 40))
def test_sigmoids_are_turned_back_into_logits_as_far_as_float32_tells_them_apart(size, make_toy, images):
    network = make_toy()
    network.head.weight.set_value(network.head.weight * 0)
    bias = np.array([-size, -1, -0.01, 0.01, 1, size / 2, size], np.float32)
    network.head.bias.set_value(bias)

    def report(logits):
        answers = np.tile(sigmoid(logits).astype(np.float32), (len(images), 1))
        return parity_report(network, lambda x: answers, [images], "sigmoid")

    assert report(bias).passed() and report(bias).max_rel_diff < 4e-5
    for i in range(7):
        wrong = bias.copy()
        wrong[i] += 0.01 * max(size, 1)
        assert report(wrong).passed() == (wrong[i] > 7)  # out of reach, and said so in parity.py


def test_attributes_that_turn_are_counted_each(make_toy, eager, images):
    network = make_toy()
    logits = eager(network, images)
    turned = logits.copy()
    turned[1, 2:5] *= -1
    report = parity_report(network, lambda x: sigmoid(turned), [images], "sigmoid")
    assert report.flips == 3 and not report.passed(max_rel_diff=np.inf)
    network.head.weight.set_value(network.head.weight * 0)
    for size, flips in ((5e-6, 0), (5e-5, len(images))):
        network.head.bias.set_value(np.full(7, size, np.float32))
        answers = np.full((len(images), 7), 0.5 + size / 4)
        answers[:, 3] = 0.5 - size / 4
        assert parity_report(network, lambda x: answers, [images], "sigmoid").flips == flips


def test_an_export_with_the_wrong_head_fails(make_toy, images, tmp_path):
    network = make_toy()
    export_network(network, tmp_path, (3, 16, 16))
    assert not parity_report(network, InferenceEngine(tmp_path), [images], "sigmoid").passed()


def test_the_networks_modes_come_back_even_after_an_error(make_toy, images):
    network = make_toy()
    network.norm.eval()
    with pytest.raises(ZeroDivisionError):
        parity_report(network, lambda x: 1 / 0, [images])
    assert network.training and network.drop.training and not network.norm.training


def test_no_images_is_an_error_and_not_a_pass(make_toy):
    with pytest.raises(DataError, match="no image"):
        parity_report(make_toy(), lambda x: x, [])


def test_classes_that_tie_are_no_flip(make_toy, images):
    network = make_toy()
    network.head.weight.set_value(network.head.weight * 0)  # every class the same for every image
    network.head.bias.set_value(np.arange(7, dtype=np.float32) * 1e-8)
    noise = np.random.default_rng(0).uniform(0, 1e-7, (6, 7))
    report = parity_report(network, lambda x: noise, [images], head=None)
    assert report.flips == 0 and report.passed()
