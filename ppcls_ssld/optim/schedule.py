"""Learning rate = pure function of the optimiser step, so that nothing needs saving or restoring.

Names, arguments and values are PaddleClas's (ppcls/optimizer/learning_rate.py, d178931); the docstrings say where they
differ. `epochs` are scaled to steps, or left as they are with `by_epoch: true`, where the rate changes between epochs
only.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ConfigError
from ..registry import Registry

# (units after warm-up, units from there to the end, units per epoch) -> learning rate; a unit is a step or an epoch
Curve = Callable[[float, float, int], float]

SCHEDULES = Registry("learning-rate schedule")


def build_schedule(lr: Mapping[str, Any], epochs: int, steps_per_epoch: int, where: str) -> Callable[[int], float]:
    """The learning rate of optimiser step 0, 1, 2, ...

    lr: `{name: Cosine, learning_rate: 0.1, ...}`; without a name, Constant. where: its key path, for errors.
    All names take warmup_epoch (default 0) with warmup_start_lr (0.0), a straight line up to the curve's first value;
    by_epoch (False); and last_epoch (-1): the steps, or epochs, that count as done already, less one.
    A warm-up longer than the run is cut to the run, as in PaddleClas, with a warning.
    Raises ConfigError for an unknown name or argument, or values that do not fit.
    """
    arguments = dict(lr)
    name = arguments.pop("name", "Constant")
    warmup = _number(arguments.pop("warmup_epoch", 0), f"{where}.warmup_epoch")
    start_lr = _number(arguments.pop("warmup_start_lr", 0.0), f"{where}.warmup_start_lr")
    done = _number(arguments.pop("last_epoch", -1), f"{where}.last_epoch") + 1
    by_epoch = arguments.pop("by_epoch", False)
    if warmup > epochs:
        logging.getLogger(__name__).warning("%s.warmup_epoch: %g epochs of warm-up in a run of %d; cut to the run",
                                            where, warmup, epochs)
        warmup = epochs
    unit = 1 if by_epoch else steps_per_epoch
    warmup_length = warmup if by_epoch else round(warmup * steps_per_epoch)
    total = (epochs - warmup) * unit
    curve = SCHEDULES.build(name, arguments, where)
    peak = curve(0, total, unit)

    def rate(step: int) -> float:
        position = (step // steps_per_epoch if by_epoch else step) + done
        if position < warmup_length:
            return start_lr + (peak - start_lr) * position / warmup_length
        return curve(position - warmup_length, total, unit)

    return rate


@SCHEDULES.register("Constant", "Const", "ConstLR")
def constant(learning_rate: float) -> Curve:
    """One rate. Warm-up counts for `Constant` as well, which PaddleClas ignores there."""
    learning_rate = _positive("learning_rate", learning_rate)
    return lambda position, total, unit: learning_rate


@SCHEDULES.register("Cosine")
def cosine(learning_rate: float, eta_min: float = 0.0) -> Curve:
    """Half a cosine from learning_rate to eta_min."""
    learning_rate, eta_min = _positive("learning_rate", learning_rate), _value("eta_min", eta_min)

    def curve(position, total, unit):
        done = min(position / total, 1.0) if total > 0 else 0.0
        return eta_min + 0.5 * (learning_rate - eta_min) * (1.0 + math.cos(math.pi * done))

    return curve


@SCHEDULES.register("Linear")
def linear(learning_rate: float, end_lr: float = 0.0, power: float = 1.0, cycle: bool = False) -> Curve:
    """(1 - done)^power from learning_rate to end_lr. cycle: start again over a longer time when done.

    With by_epoch, PaddleClas counts warm-up in steps and the rest in epochs; here both are epochs.
    """
    learning_rate, end_lr = _positive("learning_rate", learning_rate), _value("end_lr", end_lr)
    power = _value("power", power)

    def curve(position, total, unit):
        length = total * max(1, math.ceil(position / total)) if cycle and total > 0 else total
        done = min(position / length, 1.0) if length > 0 else 0.0
        return end_lr + (learning_rate - end_lr) * (1.0 - done) ** power

    return curve


@SCHEDULES.register("Step")
def step_decay(learning_rate: float, step_size: float, gamma: float) -> Curve:
    """learning_rate * gamma^n, n rising by one every `step_size` epochs."""
    learning_rate, gamma = _positive("learning_rate", learning_rate), _value("gamma", gamma)
    step_size = _positive("step_size", step_size)
    return lambda position, total, unit: learning_rate * gamma ** int(position // max(1, int(step_size * unit)))


@SCHEDULES.register("MultiStepDecay")
def multi_step_decay(learning_rate: float, milestones: Sequence[float], gamma: float = 0.1) -> Curve:
    """learning_rate * gamma^n, n the number of `milestones` (epochs) passed."""
    learning_rate, gamma = _positive("learning_rate", learning_rate), _value("gamma", gamma)
    milestones = _rising("milestones", milestones)
    return lambda position, total, unit: learning_rate * gamma ** _passed(milestones, position, unit)


@SCHEDULES.register("Piecewise")
def piecewise(decay_epochs: Sequence[float] | None = None, values: Sequence[float] | None = None,
              learning_rate: float | None = None) -> Curve:
    """values[n], n the number of `decay_epochs` passed; one value more than there are epochs named.

    learning_rate alone: a tenth of it every 30 epochs. PaddleClas drops the two lists when it is given besides them;
    here lists count, and a learning_rate that is not their first value is refused.
    """
    if values is None and decay_epochs is None:
        if learning_rate is None:
            raise ValueError("expected decay_epochs and values, or learning_rate")
        first = _positive("learning_rate", learning_rate)
        return lambda position, total, unit: first * 0.1 ** int(position // (30 * unit))
    if not values or decay_epochs is None or len(values) != len(decay_epochs) + 1:
        raise ValueError(f"expected one value more than decay_epochs, found values {values} and decay_epochs "
                         f"{decay_epochs}")
    if learning_rate is not None and learning_rate != values[0]:
        raise ValueError(f"learning_rate {learning_rate} contradicts values {list(values)}; remove one of them "
                         "(with learning_rate alone, the rate falls to a tenth every 30 epochs)")
    rates = [_value("values", v) for v in values]
    decay_epochs = _rising("decay_epochs", decay_epochs)
    return lambda position, total, unit: rates[_passed(decay_epochs, position, unit)]


def _passed(epochs: Sequence[float], position: float, unit: int) -> int:
    return sum(position >= epoch * unit for epoch in epochs)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ConfigError(f"{where}: expected a number, found {value!r}")
    return value


def _value(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}: expected a number of 0 or more, found {value!r}")
    return value


def _positive(name: str, value: Any) -> float:
    if _value(name, value) == 0:
        raise ValueError(f"{name}: expected a number above 0, found {value!r}")
    return value


def _rising(name: str, values: Any) -> list[float]:
    values = [_value(name, v) for v in values]
    if any(a >= b for a, b in zip(values, values[1:])):
        raise ValueError(f"{name}: expected rising epochs, found {values}")
    return values
