"""Backbones by name: nearest names, refused arguments, own name scope, taps."""

import re

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_network, check_name, logits_of
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import ConfigError


def network(name="MobileNetV3_small_x0_35", role="Student", **arguments):
    return NetworkConfig(role=role, name=name, arguments=arguments)


def test_a_misspelt_backbone_names_the_nearest():
    with pytest.raises(ConfigError, match=r"Arch\.Student\.name.*did you mean 'MobileNetV3_small_x0_35'"):
        build_network(network("MobilNetV3_small_x0_35"), 10)


def test_a_backbone_with_auxiliary_classifiers_is_refused():
    """GoogLeNet is the one; its classifiers need 7 x 7 features, so images of 224 pixels."""
    with pytest.raises(ConfigError, match="Arch.Student.name: GoogLeNet answers with several outputs"):
        check_name(network("GoogLeNet"))
    with pytest.raises(ConfigError, match="several outputs.*Choose a network with one"):
        logits_of([paddle.zeros([2, 10])] * 3)
    check_name(network())


def test_an_argument_that_paddleclas_would_swallow_is_refused():
    with pytest.raises(ConfigError, match="no argument 'dropuot_prob'; did you mean 'dropout_prob'"):
        build_network(network(dropuot_prob=0.0), 10)


def test_the_number_of_classes_reaches_the_classifier():
    assert build_network(network(), 7)(paddle.zeros([2, 3, 32, 32])).shape == [2, 7]


def test_parameter_names_do_not_depend_on_what_was_built_before():
    first = [p.name for p in build_network(network(), 10).parameters()]
    build_network(network("ResNet18_vd", role="Teacher"), 10)
    assert [p.name for p in build_network(network(), 10).parameters()] == first
    assert all(name.startswith("Student_") for name in first)


def test_taps_come_beside_the_logits():
    out = build_network(network("PPLCNet_x0_25"), 10, taps=["blocks5"])(paddle.zeros([2, 3, 32, 32]))
    assert set(out) == {"logits", "blocks5"} and out["blocks5"].shape[0] == 2


def test_arguments_of_paddleclass_base_class_are_known():
    assert "blocks5" in build_network(network("PPLCNet_x0_25", return_patterns=["blocks5"]), 10)(
        paddle.zeros([2, 3, 32, 32]))


@pytest.mark.parametrize("name, tap, near", [
    ("PPLCNet_x0_25", "blokcs6", "blocks6"), ("PPLCNet_x0_25", "blocks", "blocks6"),
    ("PPLCNet_x0_25", "blocks5[9]", "blocks5"), ("PPLCNet_x0_25", "blocks5[x]", "blocks5"),
    ("PPLCNet_x0_25", "last_conv.weight", "last_conv"), ("PPHGNet_tiny", "stages", "stages.3")])
def test_a_tap_that_gives_nothing_is_refused_with_the_nearest(name, tap, near):
    message = re.escape(f"Arch.Student: no sub-layer '{tap}'") + f".*did you mean '{near}'"
    with pytest.raises(ConfigError, match=message):
        build_network(network(name), 10, taps=[tap])


def test_taps_come_beside_the_patterns_that_the_config_asks_for():
    net = build_network(network("PPLCNet_x0_25", return_patterns=["blocks5"]), 10, taps=["blocks3[0]"])
    assert set(net(paddle.zeros([2, 3, 32, 32]))) == {"logits", "blocks5", "blocks3[0]"}


def test_the_same_seed_gives_the_same_weights():
    def weights():
        paddle.seed(3)
        return np.concatenate([p.numpy().ravel() for p in build_network(network(), 10).parameters()])
    np.testing.assert_array_equal(weights(), weights())
