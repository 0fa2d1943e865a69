import json

import numpy as np
import pytest
from ppcls_ssld.errors import DataError
from ppcls_ssld.export import export_network, parity_report, write_parity
from ppcls_ssld.inference import InferenceEngine


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("probabilities", (True, False))
def test_an_honest_export_passes(probabilities, make_toy, images, tmp_path):
    network = make_toy()
    export_network(network, tmp_path, (3, 16, 16), probabilities=probabilities)
    report = parity_report(network, InferenceEngine(tmp_path), [images[:4], images[4:]], probabilities, "noise")
    assert report.images == 6 and report.top1_flips == 0 and report.max_rel_diff < 1e-5
    assert report.passed() and "parity on 6 images (noise)" in report.summary()
    saved = json.loads(write_parity(tmp_path, {"inference.json": report}).read_text())["inference.json"]
    assert saved["passed"] is True and saved["images"] == 6 and saved["max_abs_diff"] == report.max_abs_diff


def test_the_difference_is_that_of_the_logits_also_through_a_softmax(make_toy, eager, images):
    network = make_toy()
    logits = eager(network, images)
    changed = logits.copy()
    changed[2, 3] -= 0.01  # shifts every log probability of image 2 by less, and its own by less than 0.01
    by_logits = parity_report(network, lambda x: changed, [images], probabilities=False)
    by_probabilities = parity_report(network, lambda x: softmax(changed.astype(np.float64)), [images])
    assert by_logits.max_abs_diff == pytest.approx(0.01, rel=1e-3)
    assert by_logits.max_rel_diff == pytest.approx(0.01 / np.abs(logits).max(), rel=1e-3)
    assert 0.003 < by_probabilities.max_abs_diff <= 0.0101
    assert not by_logits.passed() and not by_probabilities.passed()


def test_swapped_classes_are_counted_as_flips_and_fail(make_toy, eager, images):
    network = make_toy()
    report = parity_report(network, lambda x: eager(network, x)[:, ::-1], [images], probabilities=False)
    assert report.top1_flips == (eager(network, images).argmax(axis=1) != 3).sum() > 0  # class 3 of 7 maps to itself
    assert not report.passed(max_rel_diff=np.inf)


def test_nan_never_passes(make_toy, eager, images):
    network = make_toy()
    broken = eager(network, images)
    broken[0, 0] = np.nan
    report = parity_report(network, lambda x: broken if x is images else eager(network, x), [images, images.copy()],
                           probabilities=False)
    assert np.isnan(report.max_abs_diff) and not report.passed(max_flips=len(images))


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
    report = parity_report(network, lambda x: noise, [images], probabilities=False)
    assert report.top1_flips == 0 and report.passed()
