"""A frozen network is frozen; an average is an average."""

import numpy as np
import paddle
import pytest

from ppcls_ssld.arch import Ema, freeze, train_mode


def toy():
    paddle.seed(0)
    return paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Dropout(0.5),
                                paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(), paddle.nn.Linear(4, 3))


def arrays(network):
    return {k: v.numpy().copy() for k, v in network.state_dict().items()}


def images(seed=0, n=6):
    return paddle.to_tensor(np.random.default_rng(seed).normal(1, 3, (n, 3, 8, 8)).astype("float32"))


@pytest.mark.parametrize("bn_mode", ["batch_stats", "eval"])
def test_a_frozen_network_stays_bit_identical_has_no_gradient_and_no_dropout(bn_mode):
    net = toy()
    before = arrays(net)
    freeze(net, bn_mode)
    first, second = net(images()), net(images())
    np.testing.assert_array_equal(first.numpy(), second.numpy())
    assert first.stop_gradient
    for key, value in arrays(net).items():
        np.testing.assert_array_equal(value, before[key])


def test_batch_stats_depend_on_the_other_images_of_the_batch_and_eval_does_not():
    x = images()
    for bn_mode, same in (("batch_stats", False), ("eval", True)):
        net = toy()
        freeze(net, bn_mode)
        assert np.allclose(net(x).numpy()[:3], net(x[:3]).numpy(), atol=1e-6) is same


def test_batch_stats_normalise_as_training_does():
    net = toy()
    net[2] = paddle.nn.Identity()
    net.train()
    expected = net(images()).numpy()
    net = toy()
    freeze(net, "batch_stats")
    np.testing.assert_allclose(net(images()).numpy(), expected, rtol=1e-6)


def test_a_student_with_bn_mode_eval_keeps_its_running_statistics():
    net = toy()
    before = arrays(net)
    train_mode(net, "eval")
    net(images())
    np.testing.assert_array_equal(net[1]._mean.numpy(), before["1._mean"])
    train_mode(net, "batch_stats")
    net(images())
    assert not np.array_equal(net[1]._mean.numpy(), before["1._mean"])


def test_the_average_follows_its_formula_and_lends_its_weights_only_for_a_while():
    net = toy()
    start = net[5].weight.numpy().copy()
    ema = Ema(net, decay=0.9)
    net[5].weight.set_value(start + 1)
    net[1]._mean.set_value(net[1]._mean + 7)
    ema.update(step=1)
    np.testing.assert_array_equal(ema.shadow["1._mean"].numpy(), net[1]._mean.numpy())  # taken over, not averaged
    decay = min(0.9, 2 / 11)
    np.testing.assert_allclose(ema.shadow["5.weight"].numpy(), start * decay + (start + 1) * (1 - decay), rtol=1e-6)
    with ema.applied():
        np.testing.assert_array_equal(net[5].weight.numpy(), ema.shadow["5.weight"].numpy())
    np.testing.assert_array_equal(net[5].weight.numpy(), start + 1)
