"""The error of tables that cannot be analysed: one line, which names the thing and what to do."""

from __future__ import annotations


class TableError(ValueError):
    """Tables that are missing, incomplete or contradictory; the message is one line and ends in the remedy."""
