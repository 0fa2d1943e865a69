"""Losses: pure per-sample functions, the terms that YAML names, and the one place that averages them."""

from . import functional, multilabel
from .combine import CombinedLoss
from .labels import Labels, labelled_mask
from .sparse import SoftTargets
from .terms import LOSSES, Term

__all__ = ["CombinedLoss", "LOSSES", "Labels", "SoftTargets", "Term", "functional", "labelled_mask"]
