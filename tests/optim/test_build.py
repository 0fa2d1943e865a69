"""Optimisers: multipliers and decay arrive in the update itself."""

import numpy as np
import paddle
import pytest
from paddle.regularizer import L2Decay

from ppcls_ssld.config.schema import OptimizerConfig
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.optim import build_optimizer, describe_rates, learning_rates

OPTIMIZERS = ("Momentum", "SGD", "Adam", "AdamW")


class Toy(paddle.nn.Layer):
    """Parameters stem.weight, stem.bias, blocks.0..10.weight/bias, fc.weight, fc.bias, every value the same."""

    def __init__(self, value=0.0):
        super().__init__()
        attr = paddle.nn.initializer.Constant(value)

        def linear():
            return paddle.nn.Linear(2, 2, weight_attr=paddle.ParamAttr(initializer=attr),
                                    bias_attr=paddle.ParamAttr(initializer=attr))

        self.stem = linear()
        self.blocks = paddle.nn.LayerList([linear() for _ in range(11)])
        self.fc = linear()

    def step(self, optimizer, lr=0.5, gradient=1.0, times=1):
        """Updates with one constant gradient for every parameter: name -> how far it moved."""
        before = {name: p.numpy() for name, p in self.named_parameters()}
        for _ in range(times):
            sum((p * gradient).sum() for p in self.parameters() if not p.stop_gradient).backward()
            optimizer.set_lr(lr)
            optimizer.step()
            optimizer.clear_grad()
        return {name: p.numpy() - before[name] for name, p in self.named_parameters()}


def build(toy, **fields):
    config, named = OptimizerConfig(**fields), list(toy.named_parameters())
    return build_optimizer(config, named, learning_rates(config, named, "Optimizer"), "Optimizer")


def rates_of(toy, **fields):
    return {r.name: r for r in learning_rates(OptimizerConfig(**fields), list(toy.named_parameters()), "Optimizer")}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_one_step_moves_parameters_in_the_exact_ratio_of_their_multipliers(name):
    toy = Toy()
    arguments = {"weight_decay": 0.0} if name == "AdamW" else {}
    optimizer = build(toy, name=name, arguments=arguments, layer_lr={"stem": 0.25, "blocks": 0.5, "blocks.3": 0.0})
    moved = toy.step(optimizer)
    unit = moved["fc.weight"]
    assert (unit < 0).all()
    np.testing.assert_array_equal(moved["stem.weight"], 0.25 * unit)
    np.testing.assert_array_equal(moved["blocks.10.weight"], 0.5 * unit)
    np.testing.assert_array_equal(moved["blocks.3.weight"], 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_multipliers_stay_in_force_over_many_steps(name):
    toy = Toy()
    arguments = {"weight_decay": 0.0} if name == "AdamW" else {}
    moved = toy.step(build(toy, name=name, arguments=arguments, layer_lr={"stem": 0.1}), times=5)
    np.testing.assert_allclose(moved["stem.weight"], 0.1 * moved["fc.weight"], rtol=1e-5)


def test_without_set_lr_nothing_moves():
    toy = Toy(1.0)
    assert not any(delta.any() for delta in toy.step(build(toy, l2=0.1), lr=0.0).values())


def test_a_frozen_layer_keeps_its_values_gets_no_gradient_and_no_optimiser_state():
    toy = Toy(1.0)
    optimizer = build(toy, layer_lr={"blocks": 0.0}, l2=0.1)
    moved = toy.step(optimizer)
    assert not moved["blocks.0.weight"].any() and moved["fc.weight"].all()
    assert toy.blocks[0].weight.stop_gradient and toy.blocks[0].weight.grad is None
    assert len([k for k in optimizer.state_dict() if "velocity" in k]) == 4


@pytest.mark.parametrize("name", ["Momentum", "SGD"])
def test_l2_is_added_to_the_gradient_of_all_but_the_excepted(name):
    toy = Toy(2.0)
    moved = toy.step(build(toy, name=name, l2=0.25, no_decay=("fc",), no_decay_1d=True), lr=0.5, gradient=1.0)
    np.testing.assert_array_equal(moved["stem.weight"], -0.5 * (1.0 + 0.25 * 2.0))
    for name_without in ("stem.bias", "fc.weight", "fc.bias"):
        np.testing.assert_array_equal(moved[name_without], -0.5)


def test_adam_takes_l2_into_its_gradient_and_adamw_decays_the_weights_themselves():
    toy = Toy(2.0)
    rule = {"arguments": {"weight_decay": 0.25}, "no_decay": ("fc",), "layer_lr": {"stem": 0.5}}
    moved = toy.step(build(toy, name="AdamW", **rule), lr=0.125)
    step = moved["fc.weight"]  # about -lr, no decay
    np.testing.assert_allclose(moved["blocks.0.weight"], step - 0.125 * 0.25 * 2.0, rtol=1e-5)
    np.testing.assert_allclose(moved["stem.weight"], 0.5 * (step - 0.125 * 0.25 * 2.0), rtol=1e-5)
    toy = Toy(2.0)
    moved = toy.step(build(toy, name="Adam", l2=1.0, no_decay=("fc",)), lr=0.125, gradient=-1.0)
    assert (moved["fc.weight"] > 0).all() and (moved["stem.weight"] < 0).all()  # -1 + 1.0 * 2.0 points the other way


def test_a_regulariser_and_a_multiplier_that_the_network_brought_along_are_kept():
    toy = Toy(2.0)
    toy.stem.weight.regularizer = L2Decay(0.0)
    toy.stem.bias.optimize_attr = {"learning_rate": 0.5}
    rates = rates_of(toy, l2=0.25)
    assert (rates["stem.weight"].decay, rates["stem.bias"].multiplier, rates["fc.weight"].decay) == (0.0, 0.5, 0.25)
    moved = toy.step(build(toy, l2=0.25), lr=0.5)
    np.testing.assert_array_equal(moved["stem.weight"], -0.5)
    np.testing.assert_array_equal(moved["stem.bias"], 0.5 * moved["fc.bias"])


def test_clipping_takes_one_norm_over_all_gradients_whatever_their_multipliers():
    toy = Toy()
    count = sum(p.size for p in toy.parameters())
    moved = toy.step(build(toy, name="SGD", clip_norm=0.5, layer_lr={"stem": 0.5}, no_decay_1d=True, l2=1e-9), lr=1.0)
    np.testing.assert_allclose(moved["fc.weight"], -0.5 / count**0.5, rtol=1e-5)
    np.testing.assert_allclose(moved["stem.weight"], -0.25 / count**0.5, rtol=1e-5)


def test_nesterov_and_momentum_arguments_reach_the_optimiser():
    plain, nesterov = Toy(), Toy()
    plain_moved = plain.step(build(plain, arguments={"momentum": 0.5}), lr=1.0, times=2)["fc.weight"]
    nesterov_moved = nesterov.step(build(nesterov, arguments={"momentum": 0.5, "use_nesterov": True}), lr=1.0)
    np.testing.assert_array_equal(plain_moved, -2.5)  # 1, then 1 + 0.5
    np.testing.assert_array_equal(nesterov_moved["fc.weight"], -1.5)  # 1 + 0.5 * 1


def test_the_longest_prefix_wins_and_no_prefix_ends_inside_a_number():
    rates = rates_of(Toy(), layer_lr={"blocks": 0.5, "blocks.1": 0.25, "blocks.1.bias": 0.125})
    found = {name: rates[name].multiplier for name in ("blocks.0.bias", "blocks.1.weight", "blocks.1.bias",
                                                       "blocks.10.weight", "fc.weight")}
    assert list(found.values()) == [0.5, 0.25, 0.125, 0.5, 1.0]


def test_the_report_names_every_parameter_and_sums_up():
    toy = Toy()
    config = OptimizerConfig(layer_lr={"stem": 0.0, "blocks": 0.5}, l2=1e-4, no_decay_1d=True)
    rates = learning_rates(config, list(toy.named_parameters()), "Optimizer")
    assert [rate.name for rate in rates] == [name for name, _ in toy.named_parameters()]
    assert describe_rates(rates).splitlines() == [
        "1 parameter: learning rate x 1, weight decay 0.0001", "1 parameter: learning rate x 1, weight decay 0",
        "11 parameters: learning rate x 0.5, weight decay 0.0001", "11 parameters: learning rate x 0.5, weight decay 0",
        "2 parameters: frozen"]


@pytest.mark.parametrize("fields, message", [
    ({"name": "Momentun"}, "no optimizer 'Momentun'; did you mean 'Momentum'"),
    ({"arguments": {"momentun": 0.9}}, "no argument 'momentun'; did you mean 'momentum'"),
    ({"arguments": {"momentum": "0.9"}}, "Optimizer.momentum: expected a number or a boolean, found '0.9'"),
    ({"layer_lr": {"block": 0.5, "blokcs.3": 0.1}}, "name begins with 'blokcs.3'; did you mean 'blocks.3'"),
    ({"no_decay": ("baias",)}, "name contains 'baias'; did you mean 'bias'"),
    ({"layer_lr": {"": 0.0}}, "every parameter is frozen"),
    ({"name": "AdamW", "l2": 1e-4}, "weight_decay"),
])
def test_an_optimizer_that_cannot_be_meant_is_refused_before_anything_changes(fields, message):
    toy = Toy()
    with pytest.raises(ConfigError, match=message):
        build(toy, **fields)
    assert not any(p.stop_gradient or p.optimize_attr["learning_rate"] != 1.0 for p in toy.parameters())
