"""A shift kind: outside of the image stands the image turned by half a turn."""

from __future__ import annotations

from typing import Any

from invariscope.collectors.shift_kinds import ShiftKind


def opposite(position: Any, size: int) -> Any:
    """Pixel ``i`` of the image in the middle, ``size - 1 - i`` of those beside it."""
    inside = (position >= 0) & (position < size)
    return position % size * inside + (size - 1 - position % size) * ~inside


ANTIPODAL = ShiftKind(opposite, "antipodal shifts", "#56B4E9", ":", "P")
