"""Names that are not known, and the nearest ones that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 60
"""Known names in one line; further ones are counted."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that is not known: the nearest one first, then the known ones."""
    names = sorted(known)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"unknown {kind} {name!r}: {nearest(name, names)}known are {', '.join(names[:SHOWN])}{more}"


def nearest(name: str, known: Iterable[str], count: int = 1) -> str:
    """``did you mean 'max'? `` with the nearest names, at most so many of them; empty where none is near."""
    near = difflib.get_close_matches(name, sorted(known), n=count)
    return f"did you mean {', '.join(map(repr, near))}? " if near else ""
