"""Headings from names: of figures, tables, frames of results."""

from __future__ import annotations

import re

from invariscope.analysis.tables.checkpoints import METRIC


def title_of(name: str) -> str:
    """``msb_by_operator`` as a heading: MSB by operator; ``table_cost``: Cost."""
    words = name.removeprefix("table_").removeprefix(METRIC).replace("_", " ")
    return re.sub(r"\bmsb\b", "MSB", words[:1].upper() + words[1:], flags=re.IGNORECASE)
