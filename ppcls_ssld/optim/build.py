"""Optimisers in which every parameter has its own share of the learning rate and of the weight decay.

Parameters go in as one flat list and carry what is special about them (`optimize_attr`, `regularizer`): Paddle clips
each parameter group by itself, so with groups a global norm would not be global.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import paddle
from paddle.regularizer import L2Decay

from ..config.schema import OptimizerConfig
from ..errors import ConfigError
from ..registry import Registry, nearest

OPTIMIZERS = Registry("optimizer")

ADAMW_DECAY = 0.01  # unless told otherwise; Paddle's own default

NamedParameters = Sequence[tuple[str, paddle.Tensor]]


@dataclass(frozen=True)
class ParameterRate:
    """What one parameter gets. multiplier: of the learning rate, 0 = frozen. decay: coefficient; 0 when frozen."""

    name: str
    multiplier: float
    decay: float


def learning_rates(config: OptimizerConfig, named_parameters: NamedParameters, where: str) -> list[ParameterRate]:
    """Multiplier and decay of every parameter, in order; changes nothing.

    `layer_lr` names prefixes of parameter names; the longest that fits wins, and none ends inside a number, so that
    `blocks.1` is not `blocks.10`. A parameter without one keeps the multiplier it was built with (lr_mult_list of
    PaddleClas's backbones), and a regulariser it was built with, such as MobileNetV3's L2Decay(0) on batch norm, goes
    before `l2`. AdamW's decay is `weight_decay` among its arguments.
    Raises ConfigError, with the nearest names, for a prefix or a `no_decay` word that fits no parameter, and for
    AdamW with an L2 regulariser.
    """
    if config.name == "AdamW" and config.l2:
        raise ConfigError(f"{where}: an L2 regularizer ({config.l2:g}) and AdamW exclude each other; "
                          "give AdamW `weight_decay` instead")
    names = [name for name, _ in named_parameters]
    for prefix in config.layer_lr:
        if not any(_fits(prefix, name) for name in names):
            depth = prefix.count(".") + 1
            known = {".".join(name.split(".")[:depth]) for name in names}
            raise ConfigError(f"{where}.layer_lr: no parameter's name begins with '{prefix}'{nearest(prefix, known)}")
    for word in config.no_decay:
        if not any(word in name for name in names):
            known = {piece for name in names for piece in name.split(".")}
            raise ConfigError(f"{where}.no_decay: no parameter's name contains '{word}'{nearest(word, known)}")
    rates = []
    for name, parameter in named_parameters:
        multiplier = _multiplier(config, name, parameter)
        rates.append(ParameterRate(name, multiplier, _decay(config, name, parameter) if multiplier else 0.0))
    return rates


def describe_rates(rates: Sequence[ParameterRate]) -> str:
    """One line per kind of parameter, for the log."""
    counts = Counter((rate.multiplier, rate.decay) for rate in rates)
    return "\n".join(f"{count} parameter{'s' if count > 1 else ''}: "
                     + (f"learning rate x {multiplier:g}, weight decay {decay:g}" if multiplier else "frozen")
                     for (multiplier, decay), count in sorted(counts.items(), reverse=True))


def build_optimizer(config: OptimizerConfig, named_parameters: NamedParameters, rates: Sequence[ParameterRate],
                    where: str) -> paddle.optimizer.Optimizer:
    """Optimiser `config.name` over the parameters; call `set_lr(rate)` before each step, until then its rate is 0.

    rates: `learning_rates` of the same parameters.
    Sets multipliers and decays on the parameters and stops the gradient of frozen ones, so call it before they are
    wrapped for several ranks. clip_norm is one norm over all gradients (PaddleClas clips each by its own norm).
    Raises ConfigError for an unknown name or argument, or when nothing is left to train.
    """
    OPTIMIZERS.check(config.name, config.arguments, where)
    for key, value in config.arguments.items():
        if not isinstance(value, (int, float)):
            raise ConfigError(f"{where}.{key}: expected a number or a boolean, found {value!r}")
    if not any(rate.multiplier for rate in rates):
        raise ConfigError(f"{where}: every parameter is frozen, nothing is left to train")
    trained, decayed = [], set()
    for (_, parameter), rate in zip(named_parameters, rates):
        if rate.multiplier == 0.0:
            parameter.stop_gradient = True
            continue
        parameter.optimize_attr = {**parameter.optimize_attr, "learning_rate": rate.multiplier}
        if config.name != "AdamW" and rate.decay != _own_l2(config, parameter):
            parameter.regularizer = L2Decay(rate.decay)  # goes before the optimiser's own
        if rate.decay:
            decayed.add(parameter.name)
        trained.append(parameter)
    clip = paddle.nn.ClipGradByGlobalNorm(config.clip_norm) if config.clip_norm else None
    common = {"learning_rate": 0.0, "parameters": trained, "grad_clip": clip}
    l2 = L2Decay(config.l2) if config.l2 else None
    return OPTIMIZERS.build(config.name, config.arguments, where)(common, l2, decayed)


@OPTIMIZERS.register("Momentum")
def momentum(momentum: float = 0.9, use_nesterov: bool = False, multi_precision: bool = True):
    """SGD with momentum. multi_precision: float32 master copies of half-precision parameters."""
    return lambda common, l2, decayed: paddle.optimizer.Momentum(
        momentum=momentum, use_nesterov=use_nesterov, multi_precision=multi_precision, weight_decay=l2, **common)


@OPTIMIZERS.register("SGD")
def sgd(multi_precision: bool = True):
    """Plain stochastic gradient descent."""
    return lambda common, l2, decayed: paddle.optimizer.SGD(multi_precision=multi_precision, weight_decay=l2, **common)


@OPTIMIZERS.register("Adam")
def adam(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, multi_precision: bool = True):
    """Adam; L2, if any, is added to the gradient."""
    return lambda common, l2, decayed: paddle.optimizer.Adam(
        beta1=beta1, beta2=beta2, epsilon=epsilon, multi_precision=multi_precision, weight_decay=l2, **common)


@OPTIMIZERS.register("AdamW")
def adamw(beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8, weight_decay: float = ADAMW_DECAY,
          multi_precision: bool = True):
    """Adam with decay of the weights themselves (arXiv 1711.05101), scaled by the parameter's learning rate."""
    return lambda common, l2, decayed: paddle.optimizer.AdamW(
        beta1=beta1, beta2=beta2, epsilon=epsilon, weight_decay=weight_decay, multi_precision=multi_precision,
        apply_decay_param_fun=decayed.__contains__, **common)


def _fits(prefix: str, name: str) -> bool:
    inside_number = prefix[-1:].isdigit() and name[len(prefix):len(prefix) + 1].isdigit()
    return name.startswith(prefix) and not inside_number


def _multiplier(config: OptimizerConfig, name: str, parameter: paddle.Tensor) -> float:
    if parameter.stop_gradient:
        return 0.0
    fitting = [prefix for prefix in config.layer_lr if _fits(prefix, name)]
    if fitting:
        return float(config.layer_lr[max(fitting, key=len)])
    return float(parameter.optimize_attr.get("learning_rate", 1.0))


def _decay(config: OptimizerConfig, name: str, parameter: paddle.Tensor) -> float:
    if any(word in name for word in config.no_decay) or (config.no_decay_1d and len(parameter.shape) == 1):
        return 0.0
    if config.name == "AdamW":
        return float(config.arguments.get("weight_decay", ADAMW_DECAY))
    return _own_l2(config, parameter)


def _own_l2(config: OptimizerConfig, parameter: paddle.Tensor) -> float:
    own = getattr(parameter, "regularizer", None)
    return own._coeff if isinstance(own, L2Decay) else config.l2
