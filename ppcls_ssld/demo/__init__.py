"""The whole method on real images in a few minutes: data, recipe, story and report of `make demo`."""

from .report import write_report
from .story import Story, tell

__all__ = ["Story", "tell", "write_report"]
