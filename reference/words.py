"""Numbers and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import ranged

MISSING = "-"


def ranged_row(row: pd.Series | None, name: str = "estimate") -> str:
    """``-0.10 (-0.53 to 0.36)``; a dash where there is no number, the number alone where there is no interval."""
    if row is None or not np.isfinite(row[name]):
        return MISSING
    return ranged(row[name], row["low"], row["high"])


def markdown(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
