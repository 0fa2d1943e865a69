"""Networks made for 224-pixel images on small ones: give up their last reductions instead of seeing 1x1 maps."""

from __future__ import annotations

import paddle

from ..errors import ConfigError

_PROBE = 64  # pixels: a multiple of every output stride up to 64
_REDUCING = (paddle.nn.Conv2D, paddle.nn.AvgPool2D, paddle.nn.MaxPool2D)


def set_output_stride(network: paddle.nn.Layer, output_stride: int, where: str) -> None:
    """Layers that would make maps smaller than 1/output_stride of the image keep their size, in place.

    Output stride as DeepLab has it (arXiv 1606.00915), without its dilation: at 32 pixels there is no context to keep.
    Parameters and their names stay, so that weights trained at another output stride load. ConfigError when nothing
    changes, or when a layer cannot keep its size at stride 1.
    """
    reducing = {name: layer for name, layer in network.named_sublayers()
                if isinstance(layer, _REDUCING) and _first(_stride(layer)) == 2}
    heights = _input_heights(network, reducing, where)
    late = {name: reducing[name] for name, height in heights.items() if height * output_stride <= _PROBE}
    if not late:
        raise ConfigError(f"{where}: no map of {type(network).__name__} is smaller than 1/{output_stride} of the image; "
                          "leave it out")
    for name, layer in late.items():
        _keep_size(layer, f"{where}: {name}")


def _keep_size(layer: paddle.nn.Layer, where: str) -> None:
    if isinstance(layer, paddle.nn.Conv2D):
        if any(2 * p != k - 1 for p, k in zip(layer._updated_padding, layer._kernel_size)):
            raise ConfigError(f"{where} is a convolution of {layer._kernel_size} with padding {layer._updated_padding}: "
                              "at stride 1 it changes the map's size; use a larger output_stride")
        layer._stride = [1, 1]
    else:
        layer.stride = 1
        if 2 * _first(layer.padding) != _first(layer.ksize) - 1:
            layer.ksize, layer.padding = 1, 0  # a shortcut's 2x2 pool: without its stride it has nothing to do


def _input_heights(network: paddle.nn.Layer, layers: dict[str, paddle.nn.Layer], where: str) -> dict[str, int]:
    """Height of the map that each layer is given for an image of _PROBE pixels."""
    heights: dict[str, int] = {}
    hooks = [layer.register_forward_pre_hook(lambda _, inputs, name=name: heights.update({name: inputs[0].shape[2]}))
             for name, layer in layers.items()]
    training = network.training
    network.eval()
    try:
        with paddle.no_grad():
            network(paddle.zeros([1, 3, _PROBE, _PROBE]))
    except (ValueError, RuntimeError) as e:
        raise ConfigError(f"{where}: {type(network).__name__} takes no {_PROBE}-pixel images: {e}") from e
    finally:
        for hook in hooks:
            hook.remove()
        if training:
            network.train()
    return heights


def _stride(layer: paddle.nn.Layer):
    return layer._stride if isinstance(layer, paddle.nn.Conv2D) else layer.stride


def _first(value) -> int:
    return value[0] if isinstance(value, (list, tuple)) else value
