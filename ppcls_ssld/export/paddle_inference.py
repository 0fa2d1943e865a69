"""A live network -> the files of Paddle Inference: `inference.json`, `inference.pdmodel`, `inference.pdiparams`."""

from __future__ import annotations

import copy
import filecmp
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import paddle

from ..arch.program import can_write_pir, save_program
from ..errors import CheckpointError, ConfigError, WeightsError
from ..inference import check_params_file
from .inference_yml import DESCRIPTION
from .legacy_ops import legacy_ops

FORMATS = ("json", "pdmodel")
HEADS = {"softmax": paddle.nn.Softmax, "sigmoid": paddle.nn.Sigmoid}
PARAMS = ".pdiparams"
PROOF = "parity.json"


@dataclass(frozen=True)
class ExportedFiles:
    """programs: one file per format, best first; they share the parameters in `params`.

    left_out: formats that "auto" could not write, each with Paddle's reason.
    """

    folder: Path
    programs: tuple[Path, ...]
    params: Path
    left_out: tuple[str, ...] = ()


def writable_formats() -> tuple[str, ...]:
    """What the installed Paddle can write, its own format first: ("json", "pdmodel") for 3.x, ("pdmodel",) for 2.6."""
    return FORMATS if can_write_pir() else FORMATS[1:]


def export_network(network: paddle.nn.Layer, folder: str | os.PathLike, image_shape: Sequence[int],
                   formats: str | Iterable[str] = "auto", name: str = "inference",
                   head: str | None = "softmax", description: str | None = None) -> ExportedFiles:
    """Write `network` in evaluation mode for input float32 [N, *image_shape]; output [N, C].

    formats: "json", "pdmodel", several of them, or "auto" = every one that this Paddle can write
        (a network that it cannot write as .pdmodel then goes without, and left_out says why).
    head: what stands behind the logits: "softmax", or "sigmoid" for several labels an image, which is what PaddleClas
        exports and its predictor expects (ppcls/engine/engine.py, ExportModel, 2.6.0); None for the logits
        themselves. Feature taps are left out.
    description: text of `inference.yml` (export/inference_yml.py). An earlier one goes before the first file is
        replaced and this one comes last, so that a folder which has one is whole; None leaves the file as it is.
    The network itself is not touched: same mode, same parameters, still eager; random and name generators stay put.
    Everything is written and checked in a folder of its own before the first old file is replaced.
    Errors: ConfigError for a format that Paddle cannot write, CheckpointError for a disk.
    """
    kinds = _checked(formats)
    folder = Path(folder)
    ready = _re_parameterised(network)
    left_out: list[str] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as staging:
            written: dict[str, Path] = {}
            for kind in kinds:
                prefix = Path(staging, kind, name)
                prefix.parent.mkdir()
                try:
                    _write(ready, prefix, image_shape, kind, head)
                except ConfigError as e:
                    if formats != "auto" or kind == kinds[0]:
                        raise
                    left_out.append(str(e))
                    continue
                first = next(iter(written.values()), prefix)
                if not filecmp.cmp(f"{prefix}{PARAMS}", f"{first}{PARAMS}", shallow=False):
                    raise CheckpointError(f"{folder}: Paddle orders the parameters of {name}.{kind} in its own way, so "
                                          f"formats cannot share them; export each into a folder of its own")
                written[kind] = prefix
            if description is not None:
                Path(staging, DESCRIPTION).write_text(description, encoding="utf-8")
            return replace(_move_in(folder, name, written, Path(staging, DESCRIPTION)), left_out=tuple(left_out))
    except (OSError, WeightsError) as e:
        raise CheckpointError(f"{folder}: the exported network could not be written ({e}); is the disk full, or the "
                              f"folder read-only? An earlier export is as it was while its {DESCRIPTION} is there") from e


def _write(network: paddle.nn.Layer, prefix: Path, image_shape: Sequence[int], kind: str, head: str | None) -> None:
    translated = kind == "pdmodel" and can_write_pir()
    # The copy's parameters get names of their own, which must not renumber those of the next network.
    with paddle.utils.unique_name.guard(), legacy_ops() if translated else nullcontext():
        try:
            save_program(network, str(prefix), image_shape, kind == "pdmodel", HEADS[head]() if head else None)
        except (TypeError, ValueError) as e:
            reason = next((line.strip() for line in str(e).splitlines() if "must be Value, but got" in line), None)
            if not translated or reason is None:
                raise
            raise ConfigError(f"Paddle {paddle.__version__} cannot write this network as .pdmodel ({reason}); use the "
                              f"json format, or export with Paddle 2.6") from e
    check_params_file(f"{prefix}{PARAMS}")  # Paddle says nothing when the disk is full


def _move_in(folder: Path, name: str, written: Mapping[str, Path], description: Path) -> ExportedFiles:
    """Replace an earlier export, parameters first; its proof and programs of other formats would not fit and go."""
    (folder / PROOF).unlink(missing_ok=True)
    if description.exists():
        (folder / DESCRIPTION).unlink(missing_ok=True)
    files = {f.name: f for prefix in written.values() for f in prefix.parent.iterdir()}
    for file in sorted(files, key=lambda f: not f.endswith(PARAMS)):
        os.replace(files[file], folder / file)
    for suffix in (*(f".{kind}" for kind in FORMATS), f"{PARAMS}.info"):
        if name + suffix not in files:
            (folder / (name + suffix)).unlink(missing_ok=True)
    if description.exists():
        os.replace(description, folder / DESCRIPTION)
    return ExportedFiles(folder, tuple(folder / f"{name}.{kind}" for kind in written), folder / (name + PARAMS))


def _checked(formats: str | Iterable[str]) -> tuple[str, ...]:
    if formats == "auto":
        return writable_formats()
    asked = {formats} if isinstance(formats, str) else set(formats)
    unknown = asked - set(writable_formats())
    if unknown or not asked:
        raise ConfigError(f"export format {', '.join(map(repr, sorted(unknown))) or '(none)'}: Paddle "
                          f"{paddle.__version__} writes {', '.join(writable_formats())}")
    return tuple(kind for kind in FORMATS if kind in asked)


def _re_parameterised(network: paddle.nn.Layer) -> paddle.nn.Layer:
    """The network, or a copy whose training branches are folded into single convolutions (RepVGG, PP-LCNetV2)."""
    if not any(hasattr(layer, "re_parameterize") for layer in network.sublayers()):
        return network
    folded = copy.deepcopy(network)
    folded.eval()
    for layer in folded.sublayers():
        if hasattr(layer, "re_parameterize") and not getattr(layer, "is_repped", False):
            layer.re_parameterize()
    return folded
