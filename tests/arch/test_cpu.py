"""Convolutions as matrix products: the same numbers, parameters and files as plain ones."""

import ctypes

import numpy as np
import paddle
import pytest
from paddle.nn import functional as F

from ppcls_ssld.arch import build_frozen, build_network, cpu
from ppcls_ssld.arch.program import save_program
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.inference import InferenceEngine

AMD = "vendor_id : AuthenticAMD\nflags : fpu sse2 avx avx2 fma\n"


def array(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def values_and_gradients(convolve, x, weight):
    """Output, gradient of x, gradient of weight, for a fixed gradient of the output."""
    x, weight = paddle.to_tensor(x, stop_gradient=False), paddle.to_tensor(weight, stop_gradient=False)
    y = convolve(x, weight)
    y.backward(paddle.to_tensor(array(*y.shape, seed=9)).astype(y.dtype))
    return y.numpy(), x.grad.numpy(), weight.grad.numpy()


def assert_equal_within_rounding(found, expected):
    for a, b in zip(found, expected):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), rtol=0)


# height, width, kernel h w, stride h w, padding h w
GEOMETRIES = [(1, 1, 3, 3, 1, 1, 1, 1), (2, 2, 3, 3, 2, 2, 1, 1), (2, 1, 5, 5, 2, 2, 2, 2), (7, 7, 7, 7, 1, 1, 0, 0),
              (2, 2, 1, 1, 1, 1, 0, 0), (3, 3, 1, 1, 2, 2, 0, 0), (4, 4, 3, 3, 1, 1, 1, 1), (5, 4, 3, 5, 2, 1, 1, 2),
              (8, 6, 5, 3, 1, 2, 0, 1), (3, 3, 1, 1, 1, 1, 1, 1), (3, 3, 1, 1, 2, 2, 1, 1)]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_each_formulation_gives_the_values_and_gradients_of_plain_convolution(geometry):
    x = array(5, 6, *geometry[:2])
    for groups, compute in ((1, cpu.one_pixel), (1, cpu.gathered), (6, cpu.depthwise)):
        if compute is cpu.one_pixel and cpu._out_shape(geometry) != (1, 1):
            continue
        weight = array(6, 6 // groups, *geometry[2:4], seed=1)
        assert_equal_within_rounding(
            values_and_gradients(lambda a, w: compute(a, w, geometry), x, weight),
            values_and_gradients(lambda a, w: F.conv2d(a.astype("float64"), w.astype("float64"), stride=geometry[4:6],
                                                       padding=geometry[6:], groups=groups), x, weight))


@pytest.mark.parametrize("n,shape,groups,geometry,expected", [
    (64, [512, 512, 3, 3], 1, (1, 1, 3, 3, 1, 1, 1, 1), "one_pixel"),
    (64, [1024, 256, 1, 1], 1, (2, 2, 1, 1, 1, 1, 0, 0), "gathered"),
    (64, [960, 1, 5, 5], 960, (1, 1, 5, 5, 1, 1, 2, 2), "depthwise"),
    (64, [960, 1, 5, 5], 960, (7, 7, 5, 5, 1, 1, 2, 2), "depthwise"),
    (64, [64, 64, 3, 3], 1, (56, 56, 3, 3, 1, 1, 1, 1), None),
    (64, [64, 1, 3, 3], 64, (56, 56, 3, 3, 1, 1, 1, 1), None),
    (64, [128, 4, 3, 3], 32, (2, 2, 3, 3, 1, 1, 1, 1), None),
    (64, [64, 1, 3, 3], 32, (2, 2, 3, 3, 1, 1, 1, 1), None),
])
def test_small_maps_become_products_and_large_ones_and_grouped_ones_stay(n, shape, groups, geometry, expected):
    chosen = cpu._choose(n, shape, groups, geometry)
    assert chosen is (getattr(cpu, expected) if expected else None)


def network(name="MobileNetV3_small_x0_35", fast=False):
    paddle.seed(4)
    net = build_network(NetworkConfig(role="Student", name=name, arguments={}), 10)
    net.train()
    return cpu.fast_on_cpu(net) if fast else net


def trained_a_step(net):
    """(loss, gradients, state) after forward and backward in training mode, without dropout."""
    net.eval()
    for layer in net.sublayers():
        layer.training = "BatchNorm" in type(layer).__name__
    logits = net(paddle.to_tensor(array(16, 3, 64, 64)))
    loss = (logits * paddle.to_tensor(array(16, 10, seed=2))).sum()
    loss.backward()
    gradients = {k: p.grad.numpy() for k, p in net.named_parameters() if p.grad is not None}
    return float(loss), gradients, {k: v.numpy() for k, v in net.state_dict().items()}


def distance(found, expected):
    """Of all arrays together, relative to their size."""
    assert found.keys() == expected.keys()
    difference = sum(np.sum((found[k] - v) ** 2.0) for k, v in expected.items())
    return np.sqrt(difference / sum(np.sum(v ** 2.0) for v in expected.values()))


@pytest.mark.parametrize("name", ["MobileNetV3_small_x0_35", "PPLCNet_x0_25", "ResNet18_vd"])
def test_a_network_gives_the_loss_gradients_and_running_statistics_of_the_plain_one(name):
    plain_loss, plain_gradients, plain_state = trained_a_step(network(name))
    loss, gradients, state = trained_a_step(network(name, fast=True))
    assert loss == pytest.approx(plain_loss, rel=1e-4)
    assert len(gradients) > 20
    assert distance(gradients, plain_gradients) < 1e-4  # 2e-6 measured; a ReLU may fall on the other side of zero
    assert distance(state, plain_state) < 1e-5
    assert any("_mean" in key and value.any() for key, value in state.items())


def test_keys_names_and_files_are_those_of_the_plain_network():
    plain, fast = network(), network(fast=True)
    assert any(isinstance(layer, cpu.MatmulConv2D) for layer in fast.sublayers())
    assert list(plain.state_dict()) == list(fast.state_dict())
    assert [p.name for p in plain.parameters()] == [p.name for p in fast.parameters()]
    plain.eval(), fast.eval()
    other = {k: v * 1.5 for k, v in plain.state_dict().items()}
    for net in (plain, fast):
        net.set_state_dict(other)
    x = paddle.to_tensor(array(4, 3, 32, 32))
    np.testing.assert_allclose(fast(x).numpy(), plain(x).numpy(), atol=1e-5 * np.abs(plain(x).numpy()).max())


def test_an_exported_program_holds_plain_convolutions(tmp_path):
    plain, fast = network("PPLCNet_x0_25"), network("PPLCNet_x0_25", fast=True)
    plain.eval(), fast.eval()
    save_program(fast, str(tmp_path / "inference"), (3, 32, 32))
    x = array(5, 3, 32, 32)
    found = InferenceEngine(str(tmp_path / "inference"), device="cpu")(x)
    np.testing.assert_allclose(found, plain(paddle.to_tensor(x)).numpy(), atol=1e-5)
    spec = [paddle.static.InputSpec([None, 3, 32, 32], "float32")]
    operators = str(paddle.jit.to_static(fast, input_spec=spec, full_graph=True).forward.main_program)
    assert "depthwise_conv2d" in operators and "index_select" not in operators


def test_forward_hooks_and_bias_are_kept():
    layer = paddle.nn.Sequential(paddle.nn.Conv2D(4, 3, 1))
    x = paddle.to_tensor(array(2, 4, 2, 2))
    expected = layer(x).numpy()
    seen = []
    layer[0].register_forward_post_hook(lambda _, __, out: seen.append(out.numpy()))
    cpu.fast_on_cpu(layer)
    assert type(layer[0]) is cpu.MatmulConv2D
    np.testing.assert_allclose(layer(x).numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(seen[0], expected, atol=1e-6)
    assert layer[0].bias.shape == [3] and np.abs(expected).max() > 0


class OwnConv(paddle.nn.Conv2D):
    pass


@pytest.mark.parametrize("layer", [
    lambda: paddle.nn.Conv2D(4, 4, 3, dilation=2), lambda: paddle.nn.Conv2D(4, 4, 3, padding="SAME"),
    lambda: paddle.nn.Conv2D(4, 4, 3, padding=[1, 0, 1, 1]), lambda: OwnConv(4, 4, 1),
    lambda: paddle.nn.Conv2D(4, 4, 3, padding=1, padding_mode="reflect"),
    lambda: paddle.nn.Conv2D(4, 4, 1, stride=3, padding=1), lambda: paddle.nn.Conv2D(4, 4, 1, data_format="NHWC")])
def test_what_the_products_do_not_cover_stays_as_it_is(layer):
    layer = layer()
    before = type(layer)
    assert type(cpu.fast_on_cpu(layer)) is before


def test_float64_is_computed_plainly():
    layer = cpu.fast_on_cpu(paddle.nn.Conv2D(4, 3, 1).to(dtype="float64"))
    assert layer(paddle.ones([2, 4, 2, 2], "float64")).dtype == paddle.float64


@pytest.fixture
def no_malloc_change(monkeypatch):
    calls = []

    class Libc:
        def mallopt(self, parameter, value):
            calls.append((parameter, value))
            return 1

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Libc())
    monkeypatch.setattr(cpu.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "")  # so that what a test sets is undone
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    return calls


def test_an_amd_processor_is_told_to_use_avx2_and_memory_is_kept(monkeypatch, no_malloc_change):
    assert len(cpu.prepare_process(AMD)) == 2
    assert cpu.os.environ["MKL_DEBUG_CPU_TYPE"] == "5"
    assert (-4, 0) in no_malloc_change


@pytest.mark.parametrize("cpuinfo", [AMD.replace("AuthenticAMD", "GenuineIntel"), AMD.replace("avx2", ""), ""])
def test_other_processors_are_left_alone(cpuinfo, no_malloc_change):
    assert len(cpu.prepare_process(cpuinfo)) == 1
    assert "MKL_DEBUG_CPU_TYPE" not in cpu.os.environ


def test_what_the_user_set_is_respected(monkeypatch, no_malloc_change):
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "4")
    cpu.prepare_process(AMD)
    assert cpu.os.environ["MKL_DEBUG_CPU_TYPE"] == "4"
    monkeypatch.setattr(cpu.platform, "libc_ver", lambda: ("", ""))
    assert cpu.prepare_process(AMD) == []


@pytest.mark.parametrize("engine, fast", [("eager", True), ("inference", False)])
def test_a_frozen_network_that_only_describes_a_program_stays_as_it_is(engine, fast):
    config = NetworkConfig("Teacher", "PPLCNet_x0_25", frozen=True, bn_mode="eval", engine=engine, allow_partial=True)
    teacher, _ = build_frozen(config, 4, (3, 32, 32), "cpu", fast_cpu=True)
    assert any(isinstance(layer, cpu.MatmulConv2D) for layer in teacher.network.sublayers()) is fast
