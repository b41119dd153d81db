"""Numbers, counts and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd


def ranged(row: pd.Series | None, name: str = "estimate") -> str:
    """``-0.10 (-0.53 to 0.36)``; a dash where there is no number, the number alone where there is no interval."""
    if row is None or not np.isfinite(row[name]):
        return "-"
    interval = f" ({row['low']:.2f} to {row['high']:.2f})" if np.isfinite(row["low"]) else ""
    return f"{row[name]:.2f}{interval}"


def counted(number: float, what: str) -> str:
    """``1 pair``, ``3 pairs``."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number:.0f} {what if number == 1 else plural}"


def markdown(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
