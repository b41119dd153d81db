"""What a figure shows, read off its axes and its caption, and the same numbers by another way."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from invariscope.analysis.stats.correlation import correlate


def points(ax: Axes) -> dict[str, np.ndarray]:
    """The offsets of each labelled scatter, rows sorted."""
    found = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections if isinstance(c, PathCollection)}
    return {name: in_order(values) for name, values in found.items() if not name.startswith("_")}


def in_order(values: np.ndarray) -> np.ndarray:
    return values[np.lexsort(values.T[::-1])]


def expected(rows: pd.DataFrame, x: str, y: str) -> dict[str, np.ndarray]:
    return {name: in_order(part[[x, y]].to_numpy()) for name, part in rows.groupby("operator")}


def assert_same_points(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-9)


def line(ax: Axes, label: str) -> np.ndarray:
    (found,) = [drawn for drawn in ax.lines if drawn.get_label() == label]
    return np.asarray(found.get_xydata())


def heading(ax: Axes) -> str:
    return ax.get_title(loc="left").replace("−", "-")


def numbers_after(text: str, symbol: str) -> list[float]:
    """``r = -0.45 [-0.70, -0.20]`` -> [-0.45, -0.70, -0.20]."""
    found = re.search(rf"{re.escape(symbol)} =? ?(-?[\d.]+) \[(-?[\d.]+), (-?[\d.]+)\]", text)
    assert found, (symbol, text)
    return [float(number) for number in found.groups()]


def bootstrap(
    rows: pd.DataFrame, x: str, y: str, method: str = "pearson", cluster: str | None = "operator", **options
) -> list[float]:
    row = correlate(rows, [x], [y], methods=(method,), clusters={"b": cluster}, **options).iloc[0]
    return [round(row[name], 2) for name in ("r", "low", "high")]
