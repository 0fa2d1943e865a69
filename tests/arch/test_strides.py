"""Networks on small images: the last reductions are given up, and nothing else changes."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch.build import build_network, logits_of
from ppcls_ssld.arch.strides import set_output_stride
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import ConfigError


def smallest_map(network, pixels: int) -> int:
    """Height of the smallest map that a 3x3 or larger convolution gives."""
    heights = []
    hooks = [layer.register_forward_post_hook(lambda _, inputs, output: heights.append(output.shape[2]))
             for layer in network.sublayers() if isinstance(layer, paddle.nn.Conv2D) and layer._kernel_size[0] > 1]
    with paddle.no_grad():
        network(paddle.zeros([2, 3, pixels, pixels]))
    for hook in hooks:
        hook.remove()
    return min(heights)


@pytest.mark.parametrize("name", ["MobileNetV3_small_x0_35", "ResNet18_vd", "PPLCNet_x0_25"])
@pytest.mark.parametrize("output_stride", [16, 8])
def test_the_smallest_map_is_the_images_share_and_parameters_stay(name, output_stride):
    plain = build_network(NetworkConfig("Student", name), 7)
    fewer = build_network(NetworkConfig("Student", name, output_stride=output_stride), 7)
    assert smallest_map(plain, 64) == 2 and smallest_map(fewer, 64) == 64 // output_stride
    assert [(k, v.shape) for k, v in plain.state_dict().items()] == [(k, v.shape) for k, v in fewer.state_dict().items()]


def test_a_shortcut_that_pools_keeps_every_pixel_at_stride_1():
    network = build_network(NetworkConfig("Student", "ResNet18_vd", output_stride=8), 4)
    network.eval()
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 36, 36)).astype(np.float32))
    assert logits_of(network(images)).shape == [2, 4]  # sizes that are no multiple of the stride fit, too


def test_a_stride_that_no_map_goes_below_is_refused():
    with pytest.raises(ConfigError, match=r"Arch.Student.output_stride: no map of MobileNetV3 is smaller than 1/32"):
        build_network(NetworkConfig("Student", "MobileNetV3_small_x0_35", output_stride=32), 4)


def test_a_convolution_that_would_change_the_size_is_refused_by_name():
    network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 2, stride=2), paddle.nn.Conv2D(4, 4, 2, stride=2))
    with pytest.raises(ConfigError, match="1 is a convolution of .* larger output_stride"):
        set_output_stride(network, 2, "here")
