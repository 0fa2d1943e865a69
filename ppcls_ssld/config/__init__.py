"""File + flags -> one frozen, validated RunConfig, or an error that names the key path and the line."""

from .load import differences, dump, load_config, resolve
from .readonly import plain
from .schema import RunConfig
from .text import write

__all__ = ["RunConfig", "differences", "dump", "load_config", "plain", "resolve", "write"]
