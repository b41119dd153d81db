"""Counts in words."""

from __future__ import annotations


def counted(number: float, noun: str) -> str:
    """``1 pair``, ``3 pairs``, ``2 families``."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number:.0f} {noun if number == 1 else plural}"


def are(number: float) -> str:
    """The verb after :func:`counted`."""
    return "is" if number == 1 else "are"
