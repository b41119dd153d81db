"""From the joined tables to the rows that one figure draws: one data set, one shift plan per kind, nothing dropped unsaid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.errors import TableError
from collectors.schema import SHIFT_KINDS

PLAN = ["shift_kind", "fill", "max_shift", "n_shifts"]
NO_OPERATOR = "not given"


@dataclass(frozen=True)
class Selection:
    """The rows of a figure, and in words what they are and what was left out."""

    rows: pd.DataFrame
    kinds: tuple[str, ...]
    data: str
    notes: tuple[str, ...]

    def kind(self, kind: str) -> pd.DataFrame:
        """The rows of one shift kind."""
        return self.rows[self.rows["shift_kind"] == kind]

    def title(self, kind: str, *, unit: str = "px") -> str:
        """The heading of a panel: the shift kind with the largest displacement, and the fill where it is not the usual one."""
        rows = self.kind(kind)
        fill = rows["fill"].iloc[0] if "fill" in rows and kind == "zero" else None
        black = ", black" if fill == "black" else ""
        return f"{kind} shift, ≤ {int(rows['max_shift'].iloc[0])} {unit}{black}"


def need(frame: pd.DataFrame, columns: Iterable[str], figure: str) -> None:
    """Raise :class:`TableError` unless ``frame`` has every column that ``figure`` draws."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise TableError(
            f"{figure} needs the columns {', '.join(missing)}, which the tables do not give: "
            "collect `layers` and `invariance` (or `surface`) and join them with `analysis.tables`"
        )


def select(frame: pd.DataFrame, figure: str, columns: Iterable[str], data: str | None = None) -> Selection:
    """The rows to draw: of one data set (``data``, else the one with most rows) and, per shift kind, of one plan.

    The plan of a kind is the one measured on most checkpoints; among equals the one with nine shifts per image, as the
    primary analysis fixes in advance, then the smallest shift. Rows with a missing or infinite value in ``columns``
    cannot be drawn; their number goes into the notes. Raises :class:`TableError` when nothing is left.
    """
    columns = list(columns)
    need(frame, ["checkpoint", "operator", "cluster", "data", *PLAN, *columns], figure)
    rows = frame[frame["shift_kind"].isin(SHIFT_KINDS)]
    if rows.empty:
        raise TableError(f"{figure} has no rows to draw: collect `invariance` with at least one shift kind first")
    notes: list[str] = []
    data = _choose_data(rows, figure, data, notes)
    rows = rows[rows["data"] == data]
    rows = _choose_plans(rows, notes)
    finite = np.isfinite(rows[columns].astype(float)).all(axis=1) if columns else pd.Series(True, index=rows.index)
    if not finite.all():
        lost = rows.loc[~finite, "checkpoint"].nunique()
        notes.append(f"Not drawn, for want of {' or '.join(columns)}: {lost} checkpoints ({(~finite).sum()} rows).")
    rows = rows[finite]
    if rows.empty:
        raise TableError(f"{figure} has no row with all of {', '.join(columns)}: collect `layers` and `invariance` first")
    rows = rows.assign(operator=rows["operator"].astype(object).where(rows["operator"].notna(), NO_OPERATOR))
    present = set(rows["shift_kind"])
    kinds = tuple(kind for kind in SHIFT_KINDS if kind in present)
    return Selection(rows.reset_index(drop=True), kinds, data, tuple(notes))


def _choose_data(rows: pd.DataFrame, figure: str, data: str | None, notes: list[str]) -> str:
    counts = rows.groupby("data")["checkpoint"].nunique().sort_index()
    if data is None:
        data = str(counts.idxmax())
    elif data not in counts.index:
        raise TableError(f"{figure}: no rows measured on {data!r}; the tables hold {', '.join(counts.index)}")
    others = [name for name in counts.index if name != data]
    if others:
        notes.append(f"Also in the tables, not drawn here: {', '.join(others)}.")
    return data


def _choose_plans(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    kept: list[pd.DataFrame] = []
    left_out: list[str] = []
    for kind, of_kind in rows.groupby("shift_kind", sort=True):
        plans = of_kind.groupby(PLAN, dropna=False)["checkpoint"].nunique().rename("n").reset_index()
        plans["other"] = plans["n_shifts"] != 9
        plans["fill"] = plans["fill"].astype(object).where(plans["fill"].notna(), "")
        plans = plans.sort_values(["n", "other", "max_shift", "fill"], ascending=[False, True, True, False])
        best = plans.iloc[0]
        fill = of_kind["fill"].astype(object).where(of_kind["fill"].notna(), "")
        same = (of_kind["max_shift"] == best["max_shift"]) & (of_kind["n_shifts"] == best["n_shifts"])
        kept.append(of_kind[same & (fill == best["fill"])])
        left_out += [f"{kind} ≤ {row.max_shift} px × {row.n_shifts}" for row in plans.iloc[1:].itertuples()]
    if left_out:
        notes.append(f"Other shift plans in the tables, not drawn here: {', '.join(left_out)}.")
    return pd.concat(kept).sort_index()


def last_snapshots(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of each training run's last epoch; rows without a run or an epoch stay."""
    if "epoch" not in rows or "run" not in rows:
        return rows
    last = rows.groupby("run")["epoch"].transform("max")
    return rows[rows["run"].isna() | rows["epoch"].isna() | (rows["epoch"] == last)]


def plan_sentence(selection: Selection) -> str:
    """Data set and shift plans in one sentence, for the caption."""
    plans = []
    for kind in selection.kinds:
        first = selection.kind(kind).iloc[0]
        fill = f", fill {first['fill']}" if isinstance(first["fill"], str) and first["fill"] else ""
        plans.append(f"{kind} (≤ {int(first['max_shift'])} px, {int(first['n_shifts'])} per image{fill})")
    return f"Measured on {selection.data}; shifts: {', '.join(plans)}."
