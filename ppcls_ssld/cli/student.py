"""The trained student of a config and its class names, for the verbs that put it to use."""

from __future__ import annotations

import sys
from pathlib import Path

import paddle

from .. import parallel
from ..arch import build_network, load_weights
from ..config import RunConfig
from ..engine.evaluate import nothing_to
from ..errors import WeightsError
from ..inference import read_labels


def load_student(config: RunConfig, to_do: str) -> paddle.nn.Layer:
    """Arch's infer_model_name with all of its weights from Global.pretrained_model, in evaluation mode."""
    student = config.Arch.network(config.Arch.infer_model_name)
    if not config.Global.pretrained_model:
        raise nothing_to(to_do)
    parallel.init(config.Global.device)
    network = build_network(student, config.Arch.class_num)
    report = load_weights(network, config.Global.pretrained_model, role=student.role)
    print(f"{student.name}: {report.summary()}", file=sys.stderr, flush=True)
    if not report.complete:
        raise WeightsError(f"{report.path}: not all of {student.name} with {config.Arch.class_num} classes is in this "
                           f"file, so there is nothing to {to_do}; check Arch.{student.role}.name and Arch.class_num "
                           f"against the run that wrote it")
    network.eval()
    return network


def class_names(config: RunConfig) -> tuple[str, ...]:
    """Names of Infer.PostProcess.class_id_map_file; none, with a warning, when that file is not there.

    Of attributes that PaddleClas names (attributes.py), none either: their section says which they are.
    """
    path = config.Infer.class_id_map_file
    if path and not Path(path).is_file():  # PaddleClas's configs name a file of its own repository
        print(f"warning: Infer.PostProcess.class_id_map_file: no file {path}; going on without class names",
              file=sys.stderr, flush=True)
        return ()
    return read_labels(path, config.Arch.class_num) if path else ()
