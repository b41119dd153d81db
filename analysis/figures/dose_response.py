"""One knob, nothing else changed: MSB, consistency and accuracy as the strength of `soft` and `lp` pooling rises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from invariscope.analysis.designs.dose import ALIKE, families
from invariscope.analysis.figures import fits, style
from invariscope.analysis.figures.selection import FigureRows, once_per_checkpoint, plan_sentence, select
from invariscope.analysis.say.numbers import bracketed
from invariscope.analysis.tables.plans import kind_look
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

KNOBS = {
    "soft": "β of soft pooling",
    "lp": "p of Lp pooling",
    "blur": "filter size m of blur",
    "maxblur": "filter size m of max-blur",
}


def dose_response(
    frame: pd.DataFrame,
    *,
    operators: Sequence[str] = ("soft", "lp"),
    reading: str = PRIMARY_READING,
    score: str = PRIMARY_SCORE,
    data: str | None = None,
    width: style.Width = "double",
) -> style.CaptionedFigure:
    """Per operator: ``reading``, and the change of ``score`` (each shift kind) and accuracy from the lowest strength.

    A thin line joins the last snapshots of the runs that differ in strength only (same architecture, padding, training
    data, seed and further factors: :func:`families`): a *family*. Thick lines are means over families with 95 % t
    intervals, of changes within families, in percentage points; the caption has the levels at the lowest strength with
    intervals on the logit scale. Families without the lowest strength have no change and are counted in the caption.
    The strength axis is logarithmic; 0 stands one octave below the smallest positive strength, infinity one above the
    largest finite one. ``frame`` is :func:`join`'s. Raises :class:`TableError` when no operator has two strengths.
    """
    selection = select(_doses(frame, operators), "dose_response", [reading, score, "accuracy"], data)
    present = set(selection.rows["operator"])
    families = [name for name in operators if name in present]
    columns = [reading, score, "accuracy"]
    with style.theme(width):
        shape = (len(families), 3) if width == "double" else (3, len(families))
        figure = style.new_figure(width, 0.55 + shape[0] * (1.9 if width == "double" else 1.5))
        axes = figure.subplots(*shape, squeeze=False)
        axes = axes if width == "double" else axes.T
        sentences = []
        for line, family in zip(axes, families, strict=True):
            sentences += _family(line, selection, family, columns)
        _share_limits(axes)
        if width == "single":
            _label_outside(axes)
        style.legend_below(figure, _handles(selection.kinds), width, columns=5 if width == "double" else 2)
    images = f", {selection.rows['n_images'].max():.0f} images" if "n_images" in selection.rows else ""
    figure.caption = "\n".join(
        [
            f"{style.label(reading)}, and the changes of {score} and of accuracy from the lowest strength in "
            f"percentage points, against the strength of {' and '.join(families)}: the last snapshots of "
            f"{counted(selection.rows['cluster'].nunique(), 'run')}{images}. Thin lines join runs that differ in "
            "strength only (a family), others are left out; thick lines are means over families with 95 % t intervals "
            "of the changes within families. The strength axis is logarithmic, with 0 one octave below the smallest "
            "positive strength.",
            plan_sentence(selection),
            *sentences,
            *selection.notes,
        ]
    )
    return figure


def dose_positions(
    strengths: Sequence[float] | NDArray[np.float64] | pd.Series, known: Sequence[float]
) -> NDArray[np.float64]:
    """Where strengths stand on the axis: ``log2``; 0 and infinity one octave outside the others of ``known``."""
    values = np.asarray(strengths, dtype=float)
    finite = [value for value in known if 0 < value < np.inf] or [1.0]
    inside = np.clip(values, min(finite) / 2, max(finite) * 2)
    return np.log2(inside)


def _doses(frame: pd.DataFrame, operators: Sequence[str]) -> pd.DataFrame:
    missing = [name for name in ("strength", *ALIKE) if name not in frame.columns]
    if missing:
        raise TableError(
            f"dose_response needs the columns {', '.join(missing)}: give it the frame of invariscope.analysis.join"
        )
    rows = frame[frame["operator"].isin(operators) & frame["strength"].notna()]
    # A run of another design than all other strengths would move the mean at its own strength only.
    rows = rows.assign(family=families(rows))
    levels = rows.groupby(["operator", "family"])["strength"].transform("nunique")
    rows = rows[levels >= 2]
    if rows.empty:
        raise TableError(
            f"dose_response needs checkpoints of {' or '.join(operators)} at two strengths or more: train some, "
            "for example soft(beta=0), soft(beta=2), soft(beta=8)"
        )
    if (rows["strength"] < 0).any():
        raise TableError(
            "dose_response: a strength below 0 has no place on its axis; leave such checkpoints out of the tables"
        )
    return rows


def _family(axes: Sequence[Axes], selection: FigureRows, family: str, columns: list[str]) -> list[str]:
    rows = selection.rows[selection.rows["operator"] == family]
    known = sorted(rows["strength"].unique())
    plain = once_per_checkpoint(rows)
    color, marker = style.marks([family])[family]
    sentences = [
        f"{family}: strengths {', '.join(_text(value) for value in known)}; n = {counted(len(plain), 'checkpoint')} in "
        f"{counted(plain['cluster'].nunique(), 'run')}, {counted(plain['family'].nunique(), 'line')}."
    ]
    reading, score, accuracy = columns
    look = (color, "-", marker)
    sentences.append(_line(axes[0], plain, reading, known, look, family, change=False))
    for place, kind in enumerate(selection.kinds):
        of_kind, beside = rows[rows["shift_kind"] == kind], place - (len(selection.kinds) - 1) / 2
        name = f"{family}, {kind}"
        sentences.append(_line(axes[1], of_kind, score, known, kind_look(kind), name, change=True, beside=beside))
    sentences.append(_line(axes[2], plain, accuracy, known, (style.INK, "-", marker), family, change=True))
    for ax, column in zip(axes, columns, strict=True):
        _strength_axis(ax, known, family)
        if column == reading:
            ax.set_ylabel(style.label(column, lines=2))
        else:
            ax.axhline(0, color=style.GUIDE, linewidth=0.6, zorder=1, label="_zero")
            ax.set_ylabel(f"change of {column}\n(percentage points)")
    axes[0].set_title(f"{family}: n = {len(plain)}", loc="left")
    return sentences


def _line(
    ax: Axes, rows: pd.DataFrame, column: str, known: list[float], look: tuple[str, Any, str], name: str, *,
    change: bool, beside: float = 0.0,
) -> str:  # fmt: skip
    """One quantity along the strengths: the families, and their mean, ``beside`` others; with ``change`` from the
    lowest strength.
    """
    color, dashes, marker = look
    wide = rows.pivot_table(index="family", columns="strength", values=column, aggfunc="mean")
    runs = rows.pivot_table(index="family", columns="strength", values="cluster", aggfunc="first")
    doses = [float(dose) for dose in wide.columns]
    first = doses[0]
    told = ""
    if change:
        lowest = rows[rows["strength"] == first]
        level = fits.mean_interval(lowest[column], lowest["cluster"], column)
        told = f" {bracketed(*level)} at {_text(first)}; change in points:"
        lost = wide[first].isna()
        if lost.any():
            told = f" without {counted(int(lost.sum()), 'family')} lacking {_text(first)};{told}"
        wide, runs = wide[~lost], runs[~lost]
        wide = 100 * wide.sub(wide[first], axis=0)
    x = dose_positions(wide.columns.to_numpy(float), known)
    for values in wide.to_numpy(float):
        there = np.isfinite(values)
        ax.plot(
            x[there], values[there], color=color, linestyle=dashes, linewidth=0.5, alpha=0.4, zorder=2, label="_run"
        )
    found = np.array([_mean(wide[dose], runs[dose], "" if change else column) for dose in wide.columns])
    mean, low, high = found.T
    errors = np.nan_to_num(np.stack([mean - low, high - mean])).clip(min=0)
    apart = 0.02 * beside * max(float(np.ptp(x)), 1.0)
    ax.errorbar(
        x + apart, mean, yerr=errors, color=color, linestyle=dashes, marker=marker, markersize=3.8, linewidth=1.3,
        elinewidth=0.9, markeredgecolor="white", markeredgewidth=0.4, zorder=3, label=name,
    )  # fmt: skip
    digits = 1 if change else 2
    numbers = zip(doses, mean, low, high, strict=True)
    means = [f"{_text(dose)}: {bracketed(middle, start, end, digits)}" for dose, middle, start, end in numbers]
    return f"{name}, {column}:{told} {', '.join(means[1:] if change else means)}."


def _mean(values: pd.Series, runs: pd.Series, column: str) -> tuple[float, float, float]:
    """Over families; a family is a unit of its own."""
    there = values.notna()
    return fits.mean_interval(values[there], runs.index.to_series()[there], column)


def _strength_axis(ax: Axes, known: list[float], family: str, gap: float = 0.11) -> None:
    positions = dose_positions(known, known)
    span = max(float(np.ptp(positions)), 1.0)
    kept = [0]
    for index in range(1, len(known)):
        if positions[index] - positions[kept[-1]] >= gap * span:
            kept.append(index)
    ax.set_xticks(positions[kept], [_text(known[index]) for index in kept])
    ax.set_xticks(positions, minor=True)
    ax.set_xlim(positions[0] - 0.06 * span, positions[-1] + 0.06 * span)
    ax.set_xlabel(KNOBS.get(family, f"strength of {family}"))


def _share_limits(axes: NDArray[np.object_]) -> None:
    """Each quantity on one scale over the operators; accuracy on its own, however little it moves."""
    for group in axes.T:
        low = min(ax.get_ylim()[0] for ax in group)
        high = max(ax.get_ylim()[1] for ax in group)
        for ax in group:
            ax.set_ylim(low, high)


def _label_outside(axes: NDArray[np.object_]) -> None:
    """With families side by side (``axes[family, quantity]``) only the outer axes are named."""
    for (family, quantity), ax in np.ndenumerate(axes):
        if family > 0:
            ax.set_ylabel("")
            ax.tick_params(labelleft=False)
        if quantity < axes.shape[1] - 1:
            ax.set_xlabel("")


def _text(strength: float) -> str:
    return "∞" if np.isinf(strength) else f"{strength:g}"


def _handles(kinds: Sequence[str]) -> list[Artist]:
    handles: list[Artist] = [
        Line2D([], [], color=color, linestyle=dashes, marker=marker, markersize=3.8, label=f"{kind} shift")
        for kind, (color, dashes, marker) in ((kind, kind_look(kind)) for kind in kinds)
    ]
    handles.append(Line2D([], [], color=style.GUIDE, linewidth=0.6, label="one family"))
    handles.append(
        Line2D([], [], color=style.GUIDE, linewidth=1.3, marker="|", markersize=7, label="mean, 95 % interval")
    )
    return handles
