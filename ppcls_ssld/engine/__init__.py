"""The order of events: step, loop, evaluation, checkpoints, resume, logbook, stop."""

from .evaluate import EvalResult, evaluate
from .logbook import read_metrics
from .train import TrainResult, train

__all__ = ["EvalResult", "TrainResult", "evaluate", "read_metrics", "train"]
