"""Names that are not known, and the nearest ones that are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SHOWN = 60
"""Known names in one line; further ones are counted."""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The line for a name that is not known: the nearest one first, then the known ones."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"unknown {kind} {name!r}: {hint}known are {', '.join(names[:SHOWN])}{more}"
