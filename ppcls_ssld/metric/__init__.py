"""Exact accuracy counts."""

from .topk import TopkAccuracy

__all__ = ["TopkAccuracy"]
