"""The interactive scatter: every checkpoint, any MSB reading or score against any other, as Vega-Lite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from matplotlib.markers import MarkerStyle

from invariscope.analysis.figures import style
from invariscope.analysis.say.numbers import ranged
from invariscope.analysis.say.plan_words import plan_in_menu
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.tables.checkpoints import ELSEWHERE, NETWORK, is_elsewhere, metrics_of, operators_named
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import filled
from invariscope.collectors.schema import MSB_READINGS, PLAN_COLUMNS, PRIMARY_READING, SCORES

POINTS = "points"
"""Name of the data set of the specification, a record per checkpoint and shift plan."""

SHOWN = "shown"
"""Name of the view whose marks are the points that pass every choice."""

_ABOUT = {
    "setting": "operator",
    "architecture": "architecture",
    "padding": "padding",
    "run": "run",
    "seed": "seed",
    "epoch": "epochs",
    "shifts": "shifts",
    "origin": "origin",
}
_SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down"}
_DESCRIPTION = "Scatter plot of the checkpoints; the page's table of checkpoints holds the same numbers."
_MANY_POINTS = 2000
"""From here on points are pixels of one canvas, no elements of the page."""

_TEXT = {"labelColor": style.INK, "titleColor": style.INK}
_LOOK = {
    "background": "white",
    "font": "system-ui, sans-serif",
    "axis": {"gridColor": "#e6e6e6", "domainColor": style.INK, "tickColor": style.INK, "labelFontSize": 11, **_TEXT},
    "legend": {"labelFontSize": 12, "offset": 44, **_TEXT},
    "view": {"stroke": None},
}


def scatter_spec(frame: pd.DataFrame, tables: Tables, vocabulary: Vocabulary = IMAGES) -> dict[str, Any]:
    """Vega-Lite of the scatter over the ``frame`` of a vocabulary, JSON-ready, the same for equal frames.

    Menus choose the horizontal and the vertical axis among the MSB readings, accuracy and the scores, and the shift
    plan; a box adds the earlier snapshots; a click on the legend shows one operator alone, shift-click adds others;
    hovering names the checkpoint with its factors, MSB and scores with their 95 % intervals. Networks from elsewhere
    are hollow.
    """
    records = point_records(frame, tables, vocabulary)
    measures = [name for name in _measures(frame, vocabulary) if frame[name].notna().any()]
    plans = list(dict.fromkeys(record["shifts"] for record in records))
    params = _params(measures, plans, vocabulary.score, several=not frame["final"].all())
    legend = alt.selection_point(name="legend", fields=["operator"], bind="legend", toggle="event.shiftKey")
    base = alt.Chart().encode(
        x=alt.X("x:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=14)),
        y=alt.Y("y:Q", title=None, scale=alt.Scale(zero=False, nice=False, padding=14)),
    )
    # What the legend leaves out stays as a shadow, so that the axes keep their place.
    shadow = base.mark_circle(size=22, color=style.GUIDE, opacity=0.25, tooltip=None).properties(name="all")
    shown = base.transform_filter(legend).mark_point(filled=True, size=55, stroke="white", strokeWidth=0.4)
    shown = shown.encode(
        **_operator_channels(frame),
        opacity=alt.condition(legend, alt.value(0.85), alt.value(0.15)),
        description="checkpoint:N",
        tooltip=_tooltip(records, measures),
    )
    layers = [shadow, shown.properties(name=SHOWN).add_params(legend), *_axis_titles(measures)]
    chart = (
        alt.layer(*layers, data=alt.NamedData(POINTS), width="container", height=440, description=_DESCRIPTION)
        .transform_filter("datum.shifts === shifts && (earlier || datum.final)")
        .transform_calculate(x="datum[x_axis]", y="datum[y_axis]")
        .transform_filter("isValid(datum.x) && isValid(datum.y)")
        .add_params(*params)
    )
    spec: dict[str, Any] = chart.to_dict()
    spec["config"] = _LOOK
    spec.setdefault("datasets", {})[POINTS] = records
    spec["usermeta"] = {"embedOptions": {"renderer": "svg" if len(records) <= _MANY_POINTS else "canvas"}}
    return spec


def _measures(frame: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    of_images = SCORES if vocabulary is IMAGES else (vocabulary.accuracy, *vocabulary.scores)
    return [name for name in (*MSB_READINGS, *of_images, *metrics_of(frame)) if name in frame.columns]


def point_records(frame: pd.DataFrame, tables: Tables, vocabulary: Vocabulary = IMAGES) -> list[dict[str, Any]]:
    """A record per row of ``frame``: factors, every measure to six digits, ``<measure>_text`` with its 95 % interval
    (of an MSB reading, the largest that its standard error can be).
    """
    rows = operators_named(frame)
    measures = _measures(rows, vocabulary)
    texts = _texts(rows, measures, getattr(tables, vocabulary.table), vocabulary)
    labels = plan_labels(rows)
    records = []
    for position, row in enumerate(rows.to_dict("records")):
        record: dict[str, Any] = {
            "checkpoint": str(row["checkpoint"]),
            "operator": str(row["operator"]),
            "setting": _plain(row["operator_spec"]) or str(row["operator"]),
            "architecture": _plain(row["architecture"]),
            "padding": _plain(row["padding_mode"]),
            **{name: _plain(row[name]) for name in ("run", "seed", "epoch")},
            "shifts": labels[position],
            "origin": _plain(row.get("factor_origin")),
            "final": bool(row["final"]),
        }
        for name in measures:
            known = bool(np.isfinite(row[name]))
            record[name] = float(f"{row[name]:.6g}") if known else None
            record[f"{name}_text"] = texts[name][position]
        records.append(record)
    return records


def plan_labels(rows: pd.DataFrame) -> list[str]:
    """The shift plan of each row in words, with the data set where there are several."""
    several = rows["data"].nunique() > 1
    return [f"{plan_in_menu(row)} ({row['data']})" if several else plan_in_menu(row) for row in rows.to_dict("records")]


def _texts(
    rows: pd.DataFrame, measures: Sequence[str], scores: pd.DataFrame, vocabulary: Vocabulary
) -> dict[str, list[str]]:
    clean = [*NETWORK, "data", "data_fingerprint"]
    keys = [*clean, *PLAN_COLUMNS, "score"]
    known = filled(scores.drop_duplicates(keys))
    found = known.set_index(keys)[["low", "high"]]
    of_unshifted = (known["shift_kind"] == "none") & (known["score"] == vocabulary.accuracy)
    accuracy = known[of_unshifted].drop_duplicates(clean)
    texts = {}
    for name in measures:
        if name == vocabulary.accuracy:
            ends = accuracy.set_index(clean)[["low", "high"]].reindex(pd.MultiIndex.from_frame(rows[clean]))
        else:
            wanted = filled(rows[keys[:-1]]).assign(score=name)
            ends = found.reindex(pd.MultiIndex.from_frame(wanted[keys]))
        error = 1.96 * rows[f"{name}_se"] if f"{name}_se" in rows else pd.Series(np.nan, index=rows.index)
        low = ends["low"].fillna(pd.Series((rows[name] - error).to_numpy(), index=ends.index))
        high = ends["high"].fillna(pd.Series((rows[name] + error).to_numpy(), index=ends.index))
        texts[name] = [_interval(*values) for values in zip(rows[name], low, high, strict=True)]
    return texts


def _interval(value: float, low: float, high: float) -> str:
    return ranged(value, low, high, 3) if np.isfinite(value) else "no number"


def _plain(value: Any) -> str:
    """A factor as text; nothing where it is not given, whole numbers without a decimal point."""
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _params(measures: Sequence[str], plans: Sequence[str], score: str, *, several: bool) -> list[alt.Parameter]:
    def menu(name: str, title: str, options: Sequence[str], labels: Sequence[str], value: str) -> alt.Parameter:
        first = value if value in options else options[0]
        bind = alt.binding_select(options=list(options), labels=list(labels), name=title)
        return alt.param(name=name, value=first, bind=bind)

    labels = [style.label(name) for name in measures]
    earlier = alt.binding_checkbox(name="earlier snapshots") if several else alt.Undefined
    return [
        menu("x_axis", "x axis", measures, labels, PRIMARY_READING),
        menu("y_axis", "y axis", measures, labels, score),
        menu("shifts", "shifts", plans, plans, plans[0]),
        alt.param(name="earlier", value=False, bind=earlier),
    ]


def _operator_channels(frame: pd.DataFrame) -> dict[str, Any]:
    marks = style.marks(operators_named(frame)["operator"])
    names = list(marks)
    legend = alt.Legend(orient="bottom", columns=alt.ExprRef("width < 420 ? 3 : width < 700 ? 6 : 12"), symbolSize=70)
    colors = [mark.color for mark in marks.values()]
    shapes = [symbol(mark.marker) for mark in marks.values()]
    scale = alt.Scale(domain=names, range=colors)
    hollow: dict[str, Any] = {}
    if is_elsewhere(frame).any():
        apart = f"datum.origin === '{ELSEWHERE}'"
        outline = alt.Stroke("operator:N", scale=scale, legend=None)
        hollow["stroke"] = alt.condition(apart, outline, alt.value("white"))
        hollow["strokeWidth"] = alt.condition(apart, alt.value(1.6), alt.value(0.4))
        hollow["fillOpacity"] = alt.condition(apart, alt.value(0), alt.value(1))
    return {
        **hollow,
        "color": alt.Color("operator:N", title="operator", scale=scale, legend=legend),
        "shape": alt.Shape("operator:N", title="operator", scale=alt.Scale(domain=names, range=shapes), legend=legend),
    }


def symbol(marker: str) -> str:
    """The Vega symbol of a matplotlib marker: its name, or its outline as an SVG path within ±1."""
    if marker in _SYMBOLS:
        return _SYMBOLS[marker]
    style_ = MarkerStyle(marker)
    outline = style_.get_path().transformed(style_.get_transform()).to_polygons(closed_only=False)[0]
    points = outline / np.abs(outline).max()
    # Vega's y axis points down.
    return "M" + "L".join(f"{x:.3f},{-y:.3f}" for x, y in points) + "Z"


def _tooltip(records: list[dict[str, Any]], measures: Sequence[str]) -> list[alt.Tooltip]:
    told = [name for name in _ABOUT if any(record[name] for record in records)]
    # The viewer sets a field called `title` as the heading of its box.
    return [
        alt.Tooltip("checkpoint:N", title="title"),
        *(alt.Tooltip(f"{name}:N", title=_ABOUT[name]) for name in told),
        *(alt.Tooltip(f"{name}_text:N", title=style.label(name, short=True).partition(" (")[0]) for name in measures),
    ]


def _axis_titles(measures: Sequence[str]) -> list[alt.Chart]:
    """The titles of the axes as text marks: Vega-Lite's own cannot change with a choice."""
    names = ", ".join(f"'{name}': '{style.label(name)}'" for name in measures)
    one = alt.Chart(alt.InlineData(values=[{}]))
    across = one.mark_text(fontSize=12, baseline="top", color=style.INK, text=alt.ExprRef(f"({{{names}}})[x_axis]"))
    up = one.mark_text(fontSize=12, align="left", color=style.INK, text=alt.ExprRef(f"({{{names}}})[y_axis]"))
    return [
        across.encode(x=alt.value(alt.ExprRef("width / 2")), y=alt.value(alt.ExprRef("height + 28"))),
        up.encode(x=alt.value(0), y=alt.value(-12)),
    ]
