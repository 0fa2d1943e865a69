"""A NetworkConfig -> a Paddle layer, without weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping

import paddle

from ..config import plain
from ..config.schema import NetworkConfig
from ..errors import ConfigError
from ..registry import nearest
from . import paddleclas
from .strides import set_output_stride

Outputs = Mapping[str, paddle.Tensor]  # "logits" [N, C] and the taps asked for
_SEVERAL_OUTPUTS = ("answers with several outputs, as for auxiliary classifiers; these would neither be trained nor teach. "
                    "Choose a network with one")


def check_name(config: NetworkConfig) -> None:
    """ConfigError with the nearest name when PaddleClas has no backbone `config.name`, or none of a member's name; also
    for one that cannot be used here."""
    for network in config.members or (config,):
        paddleclas.factory(network.name, f"Arch.{network.role}.name")
        if network.name == "GoogLeNet":
            raise ConfigError(f"Arch.{network.role}.name: GoogLeNet {_SEVERAL_OUTPUTS}")


def build_network(config: NetworkConfig, class_num: int, taps: Iterable[str] = ()) -> paddle.nn.Layer:
    """Network `config.name` of PaddleClas for `class_num` classes; taps: sub-layers whose outputs it also returns.

    Built under its own name scope: Paddle keys optimiser state by auto-numbered parameter names, so without a scope
    a run with another teacher could not resume a student. Misspelt arguments are refused, although many backbones
    would swallow them. With taps (or PaddleClas's return_patterns) it returns a dict with "logits", else a tensor.
    """
    where = f"Arch.{config.role}"
    make = paddleclas.factory(config.name, f"{where}.name")
    arguments = plain(config.arguments)
    if taps:  # PaddleClas sets return_patterns again at the first batch, without these
        taps = sorted({*taps, *(arguments.pop("return_patterns", None) or ())})
    with paddle.utils.unique_name.guard(f"{config.role}_"):
        try:
            network = make(class_num=class_num, **arguments)
        except TypeError as e:
            raise ConfigError(f"{where}: {config.name} cannot be built with {arguments}: {e}") from e
    known = {*inspect.signature(make).parameters, *inspect.signature(type(network).__init__).parameters}
    if isinstance(network, paddleclas.theseus_layer()):
        known |= {"return_patterns", "return_stages", "freeze_befor", "stop_after"}  # of the base class
    known -= {"self", "args", "kwargs", "pretrained", "use_ssld"}
    for key in arguments:
        if key not in known:
            raise ConfigError(f"{where}: {config.name} has no argument '{key}'{nearest(key, known)}")
    if config.output_stride:
        set_output_stride(network, config.output_stride, f"{where}.output_stride")
    if taps:
        _add_taps(network, taps, where)
    return network


def logits_of(output: paddle.Tensor | Outputs) -> paddle.Tensor:
    """Logits [N, C] of a network that returns a tensor, or a dict because of taps. ConfigError for a list."""
    if isinstance(output, (list, tuple)):
        raise ConfigError(f"Arch: this network {_SEVERAL_OUTPUTS}")
    return output["logits"] if isinstance(output, Mapping) else output


def _add_taps(network: paddle.nn.Layer, taps: list[str], where: str) -> None:
    if not isinstance(network, paddleclas.theseus_layer()):
        raise ConfigError(f"{where}: {type(network).__name__} offers no feature taps, but a loss asks for {taps}")
    sublayers = dict(network.named_sublayers())
    lists = {name for name, layer in sublayers.items() if isinstance(layer, paddle.nn.LayerList)}  # give no output
    for tap in taps:
        if tap in lists or not _hits(network, tap):
            near = nearest(tap, sublayers.keys() - lists)
            raise ConfigError(f"{where}: no sub-layer '{tap}' to take features from{near}")
    network.update_res(taps)


def _hits(network: paddle.nn.Layer, tap: str) -> bool:
    try:
        return bool(network.update_res([tap]))
    except (AttributeError, TypeError, ValueError):  # an attribute that is no layer; an index that is no number
        return False
