"""Panel (d): MSB, selectivity, equivariance error and added drift of every site."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure

from invariscope.analysis.figures import style
from invariscope.collectors.measure.blame import NOTHING, Blame
from invariscope.collectors.shift_kinds import SHIFT_KINDS

if TYPE_CHECKING:
    from invariscope.looking.found import Look

PLAIN = {
    "msb_corrected": "MSB,\nchance-corrected",
    "selectivity": "selectivity",
    "see": "equivariance\nerror",
}
OTHERS = {"before": "before the first site", "head": "head", "border": "border"}
SHOWN = {"msb_corrected": (0.0, 1.0), "selectivity": (0.0, 1.0), "see": (0.0, 0.2)}
"""What the axes show at least."""

LETTERS = 26
"""Of a site's name that are drawn; of a longer one the end, which tells it apart."""


def parts_of(look: Look) -> pd.DataFrame:
    """The lines: parts of the network in forward order, with ``key``."""
    frame = look.frame()
    keys = frame["site"].where(frame["site"].notna(), frame["cause"])
    parts = frame.assign(key=keys).drop_duplicates("key")
    order = {"before": 0, "site": 1, "head": 2, "border": 3}
    return parts.assign(rank=parts["cause"].map(order)).sort_values(["rank", "depth"], kind="stable")


def draw_blame(figure: SubFigure, look: Look) -> None:
    """A dot per part in each column; added drift with its interval, a column per shift kind on a scale of its own."""
    parts, frame = parts_of(look), look.frame()
    frame = frame.assign(key=frame["site"].where(frame["site"].notna(), frame["cause"]))
    count = len(look.blames)
    axes = figure.subplots(1, 3 + count, sharey=True, width_ratios=[1, 1, 1, *[1.35] * count])
    keys = list(parts["key"])
    for ax, (reading, title) in zip(axes, PLAIN.items(), strict=False):
        values, errors = parts[reading].to_numpy(dtype=float), parts[f"{reading}_se"].to_numpy(dtype=float)
        known = np.isfinite(values)
        ax.errorbar(
            values[known], np.flatnonzero(known), xerr=1.96 * np.nan_to_num(errors[known]), fmt="o", color=style.INK,
            markersize=3.6, elinewidth=0.8, label=reading,
        )  # fmt: skip
        for row in np.flatnonzero(~known):
            if parts["cause"].iloc[row] == "site":
                ax.text(0.5, row, "not known", transform=ax.get_yaxis_transform(), ha="center", va="center",
                        fontsize=style.SMALLEST_FONT, color=style.GUIDE)  # fmt: skip
        _range(ax, values[known], SHOWN[reading])
        ax.set_xlabel(title)
    for ax, blame in zip(axes[3:], look.blames, strict=True):
        _added(ax, blame, frame, keys)
    axes[0].set_yticks(range(len(keys)), [_named(row) for _, row in parts.iterrows()])
    axes[0].set_ylim(len(keys) - 0.4, -0.6)
    axes[0].set_title("(d) which part is to blame", loc="left")


def _range(ax: Axes, values: np.ndarray, shown: tuple[float, float]) -> None:
    """Axis limits that hold the values and what is always shown."""
    every = np.concatenate([values, shown])
    low, high = float(every.min()), float(every.max())
    room = 0.08 * (high - low)
    ax.set_xlim(low - room, high + room)
    ax.locator_params(axis="x", nbins=4)


def _added(ax: Axes, blame: Blame, frame: pd.DataFrame, keys: list[str]) -> None:
    kind = SHIFT_KINDS[blame.plan.kind]
    mine = frame[(frame["shift_kind"] == blame.plan.kind) & frame["added"].notna()]
    y = mine["key"].map(keys.index).to_numpy(dtype=float)
    added = mine["added"].to_numpy(dtype=float)
    reach = np.nan_to_num(np.abs(mine[["low", "high"]].to_numpy(dtype=float) - added[:, None]))
    ax.errorbar(
        added, y, xerr=reach.T, fmt=kind.marker, color=kind.color, markersize=3.6, elinewidth=0.8, label=kind.words
    )
    if len(culprits := blame.culprits):
        first = culprits.iloc[0]
        worst = mine["key"].to_numpy() == (first["site"] if isinstance(first["site"], str) else first["cause"])
        ax.plot(added[worst], y[worst], "o", markersize=8, markerfacecolor="none", markeredgecolor=kind.color,
                markeredgewidth=1.0, label="greatest")  # fmt: skip
    elif blame.total <= NOTHING:
        ax.set_xlim(-1, 1)  # rounding is no drift
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, zorder=0)
    ax.locator_params(axis="x", nbins=4)
    ax.set_xlabel(f"added drift\n({kind.words})")


def _named(row: pd.Series) -> str:
    if row["cause"] != "site":
        return OTHERS[str(row["cause"])]
    name = str(row["site"])
    cut = name if len(name) <= LETTERS else f"…{name[-LETTERS + 1 :]}"
    return f"{cut} ({row['site_kind']})"
