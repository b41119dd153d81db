"""The tables of the paper: a row per operator specification, a column per quantity, means with intervals over runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd

from invariscope.analysis.figures.condition_rows import ConditionRows, conditions
from invariscope.analysis.figures.cost import QUANTITIES
from invariscope.analysis.figures.selection import (
    FigureRows,
    Snapshots,
    counts,
    once_per_checkpoint,
    plan_sentence,
    select,
    select_unshifted,
)
from invariscope.analysis.publication.paper import (
    OPERATOR,
    STRENGTH,
    Column,
    PaperTable,
    by_key,
    in_order,
    summarise,
)
from invariscope.analysis.say.conditions import conditions_said
from invariscope.analysis.stats.corruption_error import corruption_errors
from invariscope.analysis.tables.robust import measured_once
from invariscope.base.errors import TableError
from invariscope.collectors.schema import PRIMARY_READING

BY = ("architecture", "padding_mode", "operator_spec")
"""What tells rows apart, where it varies."""

SETTINGS = ("factor_losses", "factor_alpha", "factor_failure_weight", "factor_wake_up")
"""Factors of a manifest that an ablation tells apart: how a network was trained."""

ARGUMENTS = ("factor_pool", "factor_hard", "factor_failure")
"""Factors that may be arguments of the operator too, and have a column where its specification leaves them out."""

_INTERVAL = "Mean ± half-width of the 95 % t interval, training runs as clusters; n checkpoints."
_BOLD = "Bold: the best mean of a group."


def table_classification(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = BY,
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
) -> PaperTable:
    """Accuracy, MSB, and consistency and fidelity per shift kind; ``frame`` is :func:`join`'s.

    ``by``: any factors of the manifest, the last of which are the comparable rows.

    Raises:
        TableError: there is nothing to tell, or no such factor.
    """
    selection = select(frame, "table_classification", ["accuracy"], data, snapshots)
    return _of_scores("table_classification", selection, by, reading, "Classification", [])


def table_ablation(
    frame: pd.DataFrame,
    *,
    operator: str = "tips",
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
) -> PaperTable:
    """The settings of one operator: its arguments, and the factors of the manifest that differ.

    Those are :data:`SETTINGS`, and of :data:`ARGUMENTS` what its specification does not say. Columns as in
    :func:`table_classification`; ``frame`` is :func:`invariscope.analysis.tables.joined.join`'s.

    Raises:
        TableError: fewer than two settings of the operator.
    """
    selection = select(frame, "table_ablation", ["accuracy"], data, snapshots)
    rows = selection.rows[selection.rows["operator"] == operator]
    factors = [name for name in SETTINGS if name in rows and rows[name].nunique(dropna=False) > 1]
    factors += [name for name in ARGUMENTS if name in rows and not _said_by_operator(rows, name)]
    if rows.groupby(["operator_spec", *factors], dropna=False).ngroups < 2:
        known = ", ".join(name.removeprefix("factor_") for name in (*SETTINGS, *ARGUMENTS))
        raise TableError(
            f"table_ablation needs two settings of {operator} or more: train some, such as {operator} and "
            f"{operator}(pool=phase), and name what differs in training among the factors ({known})"
        )
    chosen = FigureRows(rows.reset_index(drop=True), selection.kinds, selection.data, selection.notes)
    keys = ("architecture", "padding_mode", *factors, "operator_spec")
    return _of_scores("table_ablation", chosen, keys, reading, f"Settings of {operator}", factors)


def _said_by_operator(rows: pd.DataFrame, factor: str) -> bool:
    """Whether each operator specification has one value of a factor."""
    return bool((rows[factor].map(str).groupby(rows["operator_spec"]).nunique() == 1).all())


def table_segmentation(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = BY,
    reading: str = PRIMARY_READING,
    data: str | None = None,
    snapshots: Snapshots = "final",
) -> PaperTable:
    """mIoU, pixel accuracy, MSB, and per-pixel consistency per shift kind.

    ``frame`` is :func:`invariscope.analysis.tables.frames.segmentation_frame`'s.

    Raises:
        TableError: there is nothing to tell.
    """
    if frame.empty:
        raise TableError("table `segmentation` holds no rows: collect `segmentation` first")
    selection = select(frame, "table_segmentation", ["miou"], data, snapshots)
    plain = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy"}
    columns = [Column(name, text, best="max") for name, text in plain.items()] + [Column(reading, "MSB")]
    rows, of_kinds = _wide(selection, ("consistency_pixel",))
    return _means("table_segmentation", "Segmentation", rows, by, [*columns, *of_kinds], selection)


def table_robustness(
    frame: pd.DataFrame,
    *,
    by: Sequence[str] = BY,
    data: str | None = None,
    snapshots: Snapshots = "final",
    reference: str | None = None,
) -> PaperTable:
    """Accuracy: clean, per attack and budget, over the corruptions (the mean over all severities), per other data set;
    and the mean corruption error relative to a ``reference`` checkpoint (``corruption_error``).

    ``frame`` is :func:`invariscope.analysis.tables.frames.robustness_frame`'s.

    Raises:
        TableError: there is nothing to tell.
    """
    selection = select_unshifted(frame, "table_robustness", "robustness", ["accuracy"], data, snapshots)
    rows, notes = measured_once(selection.rows)
    found, more = conditions(rows)
    made = once_per_checkpoint(rows).drop(columns="accuracy")
    clean = rows[rows["condition_kind"] == "clean"]
    parts = [(Column("clean", "clean", best="max"), clean)] if len(clean) else []
    parts += [part for condition in found for part in _columns_of(condition)]
    for column, part in parts:
        values = part.groupby(["checkpoint", "model"])["accuracy"].mean().rename(column.key).reset_index()
        made = made.merge(values, on=["checkpoint", "model"], how="left")
    columns = [column for column, _ in parts]
    made, of_errors, told = _with_mce(made, rows, reference)
    columns += of_errors
    chosen = FigureRows(made, (), selection.data, (*conditions_said(rows), *told, *notes, *more, *selection.notes))
    return _means("table_robustness", "Accuracy under attacks, corruptions and other data", made, by, columns, chosen)


def _with_mce(
    made: pd.DataFrame, rows: pd.DataFrame, reference: str | None
) -> tuple[pd.DataFrame, list[Column], list[str]]:
    """``made`` with each checkpoint's ``mce``, its column, and what to say of it; none without corruptions."""
    if not (rows["condition_kind"] == "corruption").any():
        return made, [], []
    try:
        errors = corruption_errors(rows, reference)
    except TableError as error:
        if reference is not None:
            raise
        return made, [], [f"{error}."]
    merged = made.merge(errors.rows[["checkpoint", "model", "mce"]], on=["checkpoint", "model"], how="left")
    said = f"mCE: errors summed over severities as a share of those of {errors.reference}, mean over corruptions."
    return merged, [Column("mce", "mCE", best="min")], [said, *errors.notes]


def table_cost(
    frame: pd.DataFrame, *, by: Sequence[str] = BY, snapshots: Snapshots = "final", data: str | None = None
) -> PaperTable:
    """Parameters, and every quantity as a multiple of the reference operator's.

    A ratio is the median over networks, brackets are the medians of their quartiles over pairs of passes (timings
    only). ``frame`` is :func:`cost_frame`'s; costs depend on no data set, ``data`` is ignored.

    Raises:
        TableError: there is nothing to tell.
    """
    selection = select_unshifted(frame, "table_cost", "cost", ["value"], data, snapshots)
    rows, keys, constant = by_key(selection.rows, by)
    quantities = [name for name in QUANTITIES if (rows["quantity"] == name).any()]
    records = []
    for group, part in rows.groupby(list(keys), sort=False):
        record: dict[str, object] = dict(zip(keys, group, strict=True))
        counted = part[part["quantity"] == "parameters"]
        record |= {"parameters": counted["value"].median(), "parameters_low": None, "parameters_high": None}
        for name in quantities:
            ratios = part.loc[part["quantity"] == name, [*_ends("relative")]].astype(float)
            record |= dict(zip(_ends(f"{name}_ratio"), ratios.median(), strict=True))
        record |= {"n": part["checkpoint"].nunique(), "runs": part["cluster"].nunique()}
        first = part.iloc[0]
        records.append({**record, OPERATOR: first["operator"], STRENGTH: first["strength"]})
    references = ", ".join(sorted(rows["reference"].dropna().astype(str).unique())) or "reference"
    columns = [Column("parameters", "parameters", digits=0)]
    columns += [Column(f"{name}_ratio", QUANTITIES[name], f"× {references}", "", 2, "[]") for name in quantities]
    made = in_order(pd.DataFrame(records), keys)
    ends = [end for column in columns for end in _ends(column.key)]
    lines = [
        f"Cost ({counts(rows)}), relative to {references}, all else equal. {constant}".strip(),
        "Ratios: medians over n networks; brackets: medians of their quartiles over pairs of passes measured in turn "
        "(spread, no confidence interval).",
        *selection.notes,
    ]
    return PaperTable("table_cost", made.astype(dict.fromkeys(ends, float)), keys, tuple(columns), "\n".join(lines))


def _of_scores(
    name: str, selection: FigureRows, by: Sequence[str], reading: str, title: str, factors: Sequence[str]
) -> PaperTable:
    rows, of_kinds = _wide(selection, ("consistency", "fidelity"))
    columns = [Column("accuracy", "accuracy", best="max"), Column(reading, "MSB"), *of_kinds]
    return _means(name, title, rows, by, columns, selection)


def _wide(selection: FigureRows, scores: Sequence[str]) -> tuple[pd.DataFrame, list[Column]]:
    """One row per checkpoint, ``SCORE_KIND`` as columns; and those columns."""
    rows, columns = once_per_checkpoint(selection.rows), []
    for kind in selection.kinds:
        of_kind = selection.kind(kind)
        for score in scores:
            if score not in of_kind or of_kind[score].notna().sum() == 0:
                continue
            values = of_kind[["checkpoint", "model", score]].rename(columns={score: f"{score}_{kind}"})
            rows = rows.merge(values, on=["checkpoint", "model"], how="left")
            header = "consistency" if score == "consistency_pixel" else score
            columns.append(Column(f"{score}_{kind}", header, selection.title(kind), "max"))
    return rows, columns


def _means(
    name: str, title: str, rows: pd.DataFrame, by: Sequence[str], columns: Sequence[Column], selection: FigureRows
) -> PaperTable:
    present = [column for column in columns if column.key in rows and rows[column.key].notna().any()]
    rows, keys, constant = by_key(rows, by)
    made = summarise(rows, keys, [column.key for column in present])
    lines = [
        f"{title} ({counts(rows)}). {constant}".strip(),
        plan_sentence(selection) if selection.kinds else f"Measured on {selection.data}.",
        f"{_INTERVAL} {_BOLD}",
        *selection.notes,
    ]
    return PaperTable(name, made, keys, tuple(present), "\n".join(lines))


def _columns_of(condition: ConditionRows) -> list[tuple[Column, pd.DataFrame]]:
    slug = re.sub(r"\W+", "_", condition.name.replace("∞", "inf")).lower()
    strengths = condition.strengths
    if condition.axis in ("", "severity"):
        return [(Column(slug, condition.name, best="max"), condition.rows)]
    return [
        (
            Column(f"{slug}_{strength:g}", f"{condition.axis} {strength:g}", condition.name, "max"),
            condition.rows[condition.rows["strength"] == strength],
        )
        for strength in strengths
    ]


def _ends(key: str) -> tuple[str, str, str]:
    return key, f"{key}_low", f"{key}_high"
