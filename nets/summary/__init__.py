"""The layers of a net, as a table and as a drawing: python -m nets.summary NAME."""

from nets.summary.anatomy import Summary, summarize
from nets.summary.text import table

__all__ = ["Summary", "summarize", "table"]
