"""The columns of a shift plan, which rows have a shift at all, and the order, look and names of the shift kinds.

Everything that the analysis knows of shift kinds is here. A kind that is not known, such as one that somebody else's
installation added, is analysed and drawn as any other, after those that are known, in grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from invariscope.collectors.schema import PLAN_CONDITIONS, SHIFT_KINDS, UNSHIFTED

PLAN = list(PLAN_CONDITIONS)
"""What tells shift plans apart: kind, fill, largest shift, shifts per image, how they are chosen."""

DATA_AND_PLAN = ["data", *PLAN]
"""What is analysed together: one data set under one shift plan."""


class KindLook(NamedTuple):
    """How a shift kind is drawn where kinds share one panel."""

    color: str
    line: Any
    marker: str


_NEUTRAL = KindLook("#8a8a8a", (0, (1, 1)), "x")


def kind_look(kind: str) -> KindLook:
    """Colour, line and marker of a shift kind; of one that is not registered here, grey, dotted and a cross."""
    if kind not in SHIFT_KINDS:
        return _NEUTRAL
    found = SHIFT_KINDS[kind]
    return KindLook(found.color, found.dashes, found.marker)


def pixel_consistency_name(kind: str) -> str | None:
    """What the literature calls the mean per-pixel consistency under a shift kind; None where it has no name."""
    return SHIFT_KINDS[kind].pixel_consistency if kind in SHIFT_KINDS else None


def kind_order(kinds: Iterable[str]) -> tuple[str, ...]:
    """The distinct kinds in the order of legends: those that this installation knows first, then the others by name."""
    present = set(kinds)
    return (*(kind for kind in SHIFT_KINDS if kind in present), *sorted(present - set(SHIFT_KINDS)))


def keeps_size(kind: str) -> bool:
    """Whether the views of a shift kind are of the images' size and scale; of one that is not registered here, yes."""
    return kind not in SHIFT_KINDS or SHIFT_KINDS[kind].keeps_size


def shifted(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows measured under a shift, of whatever kind."""
    return rows[rows["shift_kind"] != UNSHIFTED]


def filled(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with an empty text in place of a missing fill, which would drop out of a pivot and of groups."""
    return rows.assign(fill=rows["fill"].astype(object).where(rows["fill"].notna(), ""))
