"""Students and teachers: PaddleClas backbones by name, their weights, modes, engines and averages."""

from .build import build_network, check_name, logits_of
from .cpu import fast_on_cpu, prepare_process
from .ema import Ema
from .embedding import build_embedder, known_class_num
from .ensemble import Ensemble, build_frozen
from .images import on_device
from .modes import batch_norms, freeze, train_mode
from .paddleclas import backbone_names
from .teacher import Teacher, build_teacher
from .weights import LoadReport, assign, head_keys, initialise, load_weights, read_arrays, read_named_arrays

__all__ = ["Ema", "Ensemble", "LoadReport", "Teacher", "assign", "backbone_names", "batch_norms", "build_embedder",
           "build_frozen", "build_network", "build_teacher", "check_name", "fast_on_cpu", "freeze",
           "head_keys", "initialise", "known_class_num",
           "load_weights", "logits_of", "on_device", "prepare_process", "read_arrays", "read_named_arrays", "train_mode"]
