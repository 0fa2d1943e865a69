"""Weight files: read without running a stranger's code, matched key by key, reported.

A `.pdparams` is a pickle. Only the few names that NumPy arrays are made of are unpickled here; anything else in the
file is refused.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from ..config.schema import NetworkConfig
from ..errors import WeightsError
from . import paddleclas

_ARRAY_NAMES = {
    ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
}


_NAMES = "StructuredToParameterName@@"  # Paddle's own entry in a state dict's file: key -> tensor name


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str):
        if (module, name) not in _ARRAY_NAMES:
            raise WeightsError(f"it asks for {module}.{name}, which weights never need; refused")
        # numpy 2 renamed numpy.core; files of either kind open with either numpy
        if module.startswith("numpy.") and not hasattr(np, "_core"):
            module = module.replace("numpy._core", "numpy.core")
        elif module.startswith("numpy.core"):
            module = module.replace("numpy.core", "numpy._core")
        return super().find_class(module, name)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a `.pdparams` or `.pdopt` file by key. Errors as of `read_named_arrays`."""
    return {key: array for key, (_, array) in read_named_arrays(path).items()}


def read_named_arrays(path: str | os.PathLike) -> dict[str, tuple[str | None, np.ndarray]]:
    """(tensor name, array) by key of a `.pdparams` or `.pdopt` file; the name is None where the file has none.

    Optimisers need the names: under AMP O2 their accumulators are keyed by those of the master weights. Raises
    WeightsError when the file is missing, truncated, or holds anything but arrays.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as e:
        raise WeightsError(f"{path}: cannot be read ({e.strerror}); expected a .pdparams file") from e
    try:
        tree = _ArraysOnly(io.BytesIO(data)).load()
    except WeightsError as e:
        raise WeightsError(f"{path}: {e}") from e
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise WeightsError(f"{path}: not a readable weights file ({type(e).__name__}: {e}); is it complete?") from e
    if not isinstance(tree, Mapping):
        raise WeightsError(f"{path}: holds a {type(tree).__name__}, expected names and arrays")
    arrays = {}
    names = tree.get(_NAMES)
    for key, value in tree.items():
        if key == _NAMES:
            continue
        name = names.get(key) if isinstance(names, Mapping) else None
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            name, value = value  # how Paddle writes tensors outside a network's state dict
        if not isinstance(value, (np.ndarray, np.generic)):
            raise WeightsError(f"{path}: '{key}' is a {type(value).__name__}, expected an array")
        arrays[str(key)] = (name, np.asarray(value))
    return arrays


@dataclass(frozen=True)
class LoadReport:
    """What a weights file gave a network, in the network's own keys."""

    path: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]  # in the network, not in the file
    reshaped: tuple[str, ...]  # in both, with another shape; left as initialised
    unused: tuple[str, ...]  # in the file only
    head: frozenset[str]  # the classifier's keys

    @property
    def backbone_complete(self) -> bool:
        return not ({*self.missing, *self.reshaped} - self.head)

    @property
    def complete(self) -> bool:
        return not self.missing and not self.reshaped

    def summary(self) -> str:
        text = f"{self.path}: {len(self.matched)} parameters matched"
        for word, keys in (("missing", self.missing), ("of another shape", self.reshaped),
                           ("in the file only", self.unused)):
            if keys:
                text += f", {len(keys)} {word} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        return text


def load_weights(network: paddle.nn.Layer, path: str, role: str | None = None) -> LoadReport:
    """Copy a file's arrays into a network; `.pdparams` may be left out of `path`.

    A file of several networks (PaddleClas's own checkpoints: `Student.…`, `Teacher.…`) gives the part of `role`.
    Raises WeightsError when nothing at all matches.
    """
    file = _weights_file(path)
    arrays = _part_of(read_arrays(file), role)
    state = network.state_dict()
    matched = [k for k in state if k in arrays and tuple(arrays[k].shape) == tuple(state[k].shape)]
    report = LoadReport(
        path=file,
        matched=tuple(matched),
        missing=tuple(k for k in state if k not in arrays),
        reshaped=tuple(k for k in state if k in arrays and k not in set(matched)),
        unused=tuple(k for k in arrays if k not in state),
        head=frozenset(head_keys(network)),
    )
    if not matched:
        raise WeightsError(f"{file}: none of its {len(arrays)} keys fits the network (file: "
                           f"{', '.join(list(arrays)[:3])}; network: {', '.join(list(state)[:3])}); "
                           "is it the right architecture?")
    assign(network, {key: arrays[key] for key in matched})
    return report


def assign(network: paddle.nn.Layer, arrays: Mapping[str, np.ndarray | paddle.Tensor]) -> None:
    """Set the parameters and statistics that `arrays` names, each cast to its own dtype. Unknown keys raise KeyError.

    Not `set_state_dict`: under AMP O2 the parameters are float16 while state dicts show float32 copies.
    """
    own = network.state_dict(use_hook=False)
    for key, value in arrays.items():
        own[key].set_value(paddle.to_tensor(value).astype(own[key].dtype))


def initialise(network: paddle.nn.Layer, config: NetworkConfig) -> LoadReport | None:
    """Load what `pretrained` asks for; None without it.

    Unless `allow_partial` is set, a frozen network must be matched whole, classifier included: a teacher that was never
    loaded is the commonest reason for a distillation that learns nothing. Of a trained one the classifier may be new.
    """
    where = f"Arch.{config.role}.pretrained"
    if not config.pretrained:
        if config.frozen and not config.allow_partial:
            raise WeightsError(f"{where}: a frozen {config.name} without weights teaches noise; give the path of its "
                               f".pdparams, or `true` for PaddleClas's, or set Arch.{config.role}.allow_partial: true")
        return None
    path = config.pretrained
    if path is True:
        url = paddleclas.weights_url(config.name, config.use_ssld, where)
        path = _download(url, where)
    elif str(path).startswith(("http://", "https://")):
        path = _download(str(path), where)
    report = load_weights(network, str(path), config.role)
    if config.allow_partial or (report.complete if config.frozen else report.backbone_complete):
        return report
    wanted, of_then = (("must be loaded whole", "`name` and `class_num`") if config.frozen else
                       ("must be loaded whole but for its classifier", "`name` and its arguments"))
    raise WeightsError(
        f"{where}: a {'frozen' if config.frozen else 'trained'} {config.name} {wanted}. {report.summary()}. Check that "
        f"{of_then} are those the file was trained with, or set Arch.{config.role}.allow_partial: true to go on")


def head_keys(network: paddle.nn.Layer) -> list[str]:
    """Keys of the classifier: the last layer that holds parameters."""
    last = None
    for name, layer in network.named_sublayers():
        if layer.parameters(include_sublayers=False):
            last = (name, layer)
    if last is None:
        return []
    return [f"{last[0]}.{key}" for key, _ in last[1].named_parameters()]


def class_num_of(network: paddle.nn.Layer, path: str, role: str | None = None) -> int:
    """Classes that a weights file was trained for, read off the shape of its classifier.

    network: of the same architecture, for any number of classes. WeightsError when the file has no such classifier.
    """
    arrays, state = _part_of(read_arrays(_weights_file(path)), role), network.state_dict()
    for key in head_keys(network):
        if key not in arrays:
            break
        shape = arrays[key].shape
        changed = [i for i, size in enumerate(state[key].shape) if i < len(shape) and shape[i] != size]
        if len(shape) == 1:
            return shape[0]
        if len(changed) == 1:
            return int(shape[changed[0]])
    raise WeightsError(f"{path}: its number of classes cannot be read off; say it with class_num")


def _weights_file(path: str) -> str:
    """The file that `path` names, with or without `.pdparams`. WeightsError when there is none."""
    file = path if os.path.exists(path) and not os.path.isdir(path) else f"{path}.pdparams"
    if not os.path.exists(file):
        raise WeightsError(f"{path}: no such weights file (nor {file}); expected the path of a .pdparams file, "
                           "`true` for PaddleClas's released weights, or null")
    return file


def _part_of(arrays: dict[str, np.ndarray], role: str | None) -> dict[str, np.ndarray]:
    if role is None:
        return arrays
    prefix = f"{role}."
    part = {k[len(prefix):]: v for k, v in arrays.items() if k.startswith(prefix)}
    return part or arrays


def _download(url: str, where: str) -> str:
    try:
        return paddle.utils.download.get_weights_path_from_url(url)
    except Exception as e:  # the downloader raises RuntimeError, requests' and OS errors alike
        raise WeightsError(f"{where}: cannot download {url} ({e}); download it by hand and give its path") from e
