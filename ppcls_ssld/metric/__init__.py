"""Exact accuracy counts."""

from .attributes import NOTHING_TO_COUNT, AttributeAccuracy, countable
from .topk import TopkAccuracy

__all__ = ["AttributeAccuracy", "NOTHING_TO_COUNT", "TopkAccuracy", "countable"]
