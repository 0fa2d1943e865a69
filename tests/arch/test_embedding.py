"""Features of a backbone, and the number of classes that weights were trained for."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import build_embedder, build_network, known_class_num
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import WeightsError


def saved(tmp_path, name, classes):
    paddle.seed(0)
    network = build_network(NetworkConfig("Teacher", name), classes)
    paddle.save(network.state_dict(), str(tmp_path / "w.pdparams"))
    return network, NetworkConfig("Teacher", name, pretrained=str(tmp_path / "w.pdparams"), frozen=True, bn_mode="eval")


@pytest.mark.parametrize("name", ["MobileNetV3_small_x0_35", "ResNet18_vd", "PPLCNet_x0_25"])
def test_the_number_of_classes_is_read_off_the_weights(tmp_path, name):
    _, config = saved(tmp_path, name, 7)
    assert known_class_num(config) == 7
    assert known_class_num(NetworkConfig("Teacher", name, pretrained=True)) == 1000


def test_weights_without_the_classifier_tell_no_number(tmp_path):
    network, config = saved(tmp_path, "ResNet18_vd", 7)
    paddle.save({k: v for k, v in network.state_dict().items() if not k.startswith("fc")}, str(tmp_path / "w.pdparams"))
    with pytest.raises(WeightsError, match="say it with class_num"):
        known_class_num(config)


def test_an_embedding_is_what_the_classifier_is_given(tmp_path):
    network, config = saved(tmp_path, "ResNet18_vd", 7)
    images = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    features = build_embedder(config, (3, 32, 32), "cpu", threads=1)(images)
    assert features.shape == (3, 512)
    network.eval()
    logits = features @ network.fc.weight.numpy() + network.fc.bias.numpy()
    np.testing.assert_allclose(logits, network(paddle.to_tensor(images)).numpy(), atol=1e-4)
