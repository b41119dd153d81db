"""Numbers and tables as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import ranged

MISSING = "-"

BAR = "†"
"""Marks numbers under zero shifts of images whose border is plain and is not the mean that they were filled with."""
PLAIN_BORDER = ("mnist",)
BAR_SAID = (
    f"{BAR} The study's zero shifts are filled with the mean of the images (0 after normalisation). The border of "
    "MNIST is black, so that this draws a grey bar along an edge and is no shift: these numbers say how much a bar "
    "disturbs, not how far a network is shift invariant, and no claim is judged by them. The weights are gone and "
    "cannot be measured with the background instead; on CIFAR-10, which has no plain border, the fill is the mean too. "
    "Both are secondary to the plan, whose zero shifts are filled with the background (docs/analysis-plan.md, errata)."
)


def is_bar(data: str, kind: str) -> bool:
    """Whether the study's shifts of a kind are none on a data set."""
    return kind == "zero" and data.partition("/")[0] in PLAIN_BORDER


def kind_on(data: str | Iterable[str], kind: str) -> str:
    """A shift kind in the head of a row or column on these data sets, marked where it is no shift on one of them."""
    names = [data] if isinstance(data, str) else data
    return f"{kind} {BAR}" if any(is_bar(name, kind) for name in names) else kind


def ranged_row(row: pd.Series | None, name: str = "estimate") -> str:
    """``-0.10 (-0.53 to 0.36)``; a dash where there is no number, the number alone where there is no interval."""
    if row is None or not np.isfinite(row[name]):
        return MISSING
    return ranged(row[name], row["low"], row["high"])


def markdown(head: Sequence[str], body: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
