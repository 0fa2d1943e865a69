"""Exact accuracy counts, and running means for the log."""

from .meter import Mean
from .topk import Agreement, TopkAccuracy

__all__ = ["Agreement", "Mean", "TopkAccuracy"]
