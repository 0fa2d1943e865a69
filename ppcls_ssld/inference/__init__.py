"""Exported networks at work: the engine that runs them, the names of their classes. No training stack."""

from .engine import InferenceEngine, find_model
from .labels import read_labels
from .params_file import check_params_file

__all__ = ["InferenceEngine", "check_params_file", "find_model", "read_labels"]
