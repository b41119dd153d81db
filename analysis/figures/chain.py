"""The chain from operator to prediction: every link, drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs.chain import LAST, LOGITS, RIVALS, SCORE, plans
from invariscope.analysis.designs.chain import chain as paths
from invariscope.analysis.figures import style
from invariscope.analysis.figures.selection import copies_told
from invariscope.analysis.say.numbers import bracketed, number
from invariscope.analysis.say.plan_words import plan_in_caption
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE, SHIFT_KINDS

NAMES = {
    "msb_corrected": "MSB",
    "selectivity": "selectivity",
    "see": "equivariance error",
    LAST: "log drift, last map",
    LOGITS: "log drift, logits",
    SCORE: "score (logit)",
}


def chain(
    joined: pd.DataFrame,
    drift: pd.DataFrame,
    *,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Every link of :func:`invariscope.analysis.designs.chain.chain` as a scatter of standardised variables.

    A row per data set and plan. The line is the simple regression in the panel; the path with its interval, at equal
    other predictors of the link, stands over it. Without measured drift the rivals are drawn against the score.
    """
    chosen = joined if data is None else joined[joined["data"] == data]
    table = paths(chosen, drift, score=score)
    found = list(plans(chosen, drift, score=score))
    if not found:
        raise TableError("chain: there is nothing to draw")
    has_drift = all(name in rows for _, rows in found for name in (LAST, LOGITS))
    first = LAST if has_drift else SCORE
    links = [(rival, first) for rival in RIVALS]
    links += [(LAST, LOGITS), (LOGITS, SCORE)] if has_drift else []
    wide = width == "double"
    columns = len(links) if wide else 2
    deep = -(-len(links) // columns)
    with style.theme(width):
        figure = style.new_figure(width, 0.3 + (1.75 if wide else 1.5) * deep * len(found))
        axes = figure.subplots(deep * len(found), columns, squeeze=False)
        for place, (keys, rows) in enumerate(found):
            mine = axes[place * deep : (place + 1) * deep].ravel()
            kind = SHIFT_KINDS[str(keys["shift_kind"])]
            of_plan = table[np.logical_and.reduce([table[name] == value for name, value in keys.items()])]
            for ax, (x, y) in zip(mine, links, strict=False):
                path = of_plan[(of_plan["outcome"] == y) & (of_plan["predictor"] == x)]
                known = x in rows
                if known:
                    ax.scatter(rows[x], rows[y], s=5, color=kind.color, alpha=0.6, linewidths=0, label=x)
                    across, up = (rows[name].to_numpy(dtype=float) for name in (x, y))
                    slope = float(across @ up) / float(across @ across)
                    ends = np.array([across.min(), across.max()])
                    ax.plot(ends, slope * ends, color=style.INK, linewidth=1.0, label="least squares")
                told = path.iloc[0] if len(path) else None
                text = "no fit"
                if told is not None and np.isfinite(told["path"]):
                    path_text = bracketed(told["path"], told["low"], told["high"])
                    text = f"path {path_text}".replace(" [", "\n[")
                ax.set_title(text, loc="left", fontsize=style.SMALLEST_FONT)
                ax.set_xlabel(NAMES[x])
                ax.set_ylabel(NAMES[y])
            for ax in mine[len(links) :]:
                ax.set_axis_off()
            mine[0].set_ylabel(f"{keys['data']}, {keys['shift_kind']}\n{NAMES[first]}")
    figure.caption = "\n".join([*_caption(table, found, score), *copies_told(joined)])
    return figure


def _caption(table: pd.DataFrame, found: list[tuple[dict[str, Any], pd.DataFrame]], score: str) -> list[str]:
    lines = [
        f"The chain from operator to {score}, link by link; a point per network, deviations from the means of "
        "architecture and padding in standard deviations. Lines: simple regression; over each panel the standardised "
        "path at equal other predictors of the link, with CR2 95 % intervals. Association, not cause."
    ]
    for keys, rows in found:
        counts = f"{rows['checkpoint'].nunique()} checkpoints, {counted(rows['operator'].nunique(), 'operator')}"
        lines.append(
            f"{str(keys['data']).replace('/', ' ')}, {plan_in_caption(keys)}: {counts}, "
            f"{counted(rows['cluster'].nunique(), 'cluster')} (drawn operators or specifications)."
        )
        part = table[np.logical_and.reduce([table[name] == value for name, value in keys.items()])]
        part = part[part["path"].notna()]
        for outcome, link in part.groupby("outcome", sort=False):
            told = ", ".join(
                f"{NAMES[row['predictor']]} {number(row['path'])} "
                f"(VIF {number(row['vif'], 1)}, share {number(row['share'])})"
                for row in link.to_dict("records")
            )
            lines.append(f"{NAMES[str(outcome)]}: {told}; R² {number(link['r_squared'].iloc[0])}.")
        lines += [f"{note[:1].upper()}{note[1:]}." for note in dict.fromkeys(part["note"]) if note]
    return lines
