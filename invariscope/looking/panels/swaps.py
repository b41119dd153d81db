"""Panel (c): what changes when a site's operator is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D

from invariscope.analysis.figures import style

if TYPE_CHECKING:
    from invariscope.looking.found import Look

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
ALL = "all sites"


def swap_rows(look: Look) -> list[str]:
    """The names of the lines: sites in forward order, then all of them at once."""
    if look.swaps.empty:
        return []
    changed = look.swaps[look.swaps["change"].notna()]
    single = changed[changed["depth"].notna()].sort_values("depth")
    names = list(dict.fromkeys(single["site"]))
    return [*names, *([ALL] if changed["depth"].isna().any() else [])]


def draw_swaps(figure: SubFigure, look: Look) -> None:
    """The change of consistency, and hollow the change of fidelity, with their paired intervals."""
    ax = figure.subplots()
    rows = swap_rows(look)
    title = "(c) change where a site is replaced"
    if not rows:
        ax.set_axis_off()
        ax.set_title(f"{title}\nnothing was swapped", loc="left")
        return
    changed = look.swaps[look.swaps["change"].notna()]
    replacements = list(dict.fromkeys(changed["replacement"]))
    step = 0.7 / (2 * len(replacements))
    for number, replacement in enumerate(replacements):
        color = COLORS[number % len(COLORS)]
        for hollow, measure in enumerate(("consistency", "fidelity")):
            mine = changed[(changed["replacement"] == replacement) & (changed["measure"] == measure)]
            at = pd.Series([ALL if pd.isna(d) else s for d, s in zip(mine["depth"], mine["site"], strict=True)])
            y = at.map(rows.index).to_numpy(dtype=float) + (2 * number + hollow + 0.5) * step - 0.35
            low, high = (np.abs(mine[end] - mine["change"]).to_numpy() for end in ("low", "high"))
            ax.errorbar(
                mine["change"], y, xerr=np.nan_to_num(np.stack([low, high])), fmt="o", color=color, markersize=3.6,
                markerfacecolor="white" if hollow else color, elinewidth=0.8, label=f"{replacement} {measure}",
            )  # fmt: skip
    ax.axvline(0, color=style.GUIDE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_title(title, loc="left")
    ax.set_xlabel("change (● consistency, ○ fidelity)")
    handles = [
        Line2D([], [], marker="o", linestyle="", markersize=4, color=COLORS[n % len(COLORS)], label=name)
        for n, name in enumerate(replacements)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3), handlelength=1.0)
