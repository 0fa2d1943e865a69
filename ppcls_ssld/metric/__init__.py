"""Exact accuracy counts."""

from .attributes import AttributeAccuracy
from .topk import TopkAccuracy

__all__ = ["AttributeAccuracy", "TopkAccuracy"]
