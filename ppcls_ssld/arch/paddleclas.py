"""PaddleClas's backbones by name: the only importer of PaddleClas.

The wheel (2.6.0) holds the backbones inside its package `paddleclas`; a source checkout on PYTHONPATH holds them as
`ppcls`. Either serves. Its logger must be initialised before the first warning, or that warning crashes.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
from functools import lru_cache
from types import ModuleType
from typing import Callable

from ..errors import ConfigError, WeightsError
from ..registry import nearest


# PaddleClas 2.6.0 asks for ..._32x16_wsl..., a file that its documents do not know (its issue 1128). Not fetched here.
_CORRECTED_URLS = {"ResNeXt101_32x16d_wsl": "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/"
                                            "ResNeXt101_32x16d_wsl_pretrained.pdparams"}


@lru_cache(maxsize=1)
def _backbones() -> ModuleType:
    """The module that holds every backbone factory."""
    if importlib.util.find_spec("ppcls") is None:
        wheel = importlib.util.find_spec("paddleclas")
        if wheel is None or not wheel.submodule_search_locations:
            raise ConfigError("PaddleClas is not installed: pip install --no-deps paddleclas==2.6.0")
        # Its modules import each other as `ppcls...`; importing `paddleclas` itself would pull in its whole CLI.
        sys.path.append(list(wheel.submodule_search_locations)[0])
    with contextlib.redirect_stdout(io.StringIO()):
        logger = importlib.import_module("ppcls.utils.logger")
        logger.init_logger(log_level=logging.ERROR)
        return importlib.import_module("ppcls.arch.backbone")


@lru_cache(maxsize=1)
def backbone_names() -> tuple[str, ...]:
    """Names that a config may use, sorted."""
    module = _backbones()
    return tuple(sorted(n for n, f in vars(module).items()
                        if n[0].isupper() and callable(f) and getattr(f, "__module__", "").startswith("ppcls.")))


def factory(name: str, where: str) -> Callable:
    """PaddleClas's constructor of backbone `name`; ConfigError with the nearest name otherwise."""
    if name not in backbone_names():
        close = nearest(name, backbone_names())
        raise ConfigError(f"{where}: PaddleClas has no backbone '{name}'"
                          + (close if "did you mean" in close else f" ({len(backbone_names())} exist)"))
    return getattr(_backbones(), name)


def theseus_layer() -> type:
    """PaddleClas's base class of networks with feature taps (ppcls/arch/backbone/base/theseus_layer.py)."""
    _backbones()  # makes `ppcls` importable
    return importlib.import_module("ppcls.arch.backbone.base.theseus_layer").TheseusLayer


def weights_url(name: str, use_ssld: bool, where: str) -> str:
    """Download address of PaddleClas's released weights of `name`.

    use_ssld follows PaddleClas's rule (ppcls/utils/save_load.py, 2.6.0): `_pretrained` -> `_ssld_pretrained`. That
    such a file exists on the server is not known here: a missing one is reported by the download.
    """
    module = inspect.getmodule(factory(name, where))
    url = _CORRECTED_URLS.get(name) or getattr(module, "MODEL_URLS", {}).get(name)
    if not url:
        raise WeightsError(f"{where}: PaddleClas has no released weights for '{name}'; give a path or null")
    if use_ssld and "ssld" not in url:
        url = url.replace("_pretrained", "_ssld_pretrained")
    return url
