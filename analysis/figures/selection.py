"""From a frame to the rows of one figure: one data set, one shift plan per kind, nothing dropped unsaid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from invariscope.analysis.say.plan_words import panel_title, plan_in_caption
from invariscope.analysis.stats.cells import PLAIN_SUBSAMPLING
from invariscope.analysis.stats.primary import PRIMARY_FILL, PRIMARY_SHIFTS
from invariscope.analysis.tables.checkpoints import COPIES, is_elsewhere, no_functions, operators_named
from invariscope.analysis.tables.plans import PLAN, filled, kind_order, shifted
from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.base.words import counted
from invariscope.collectors.schema import MSB_READINGS

Snapshots = Literal["final", "all"]


@dataclass(frozen=True)
class FigureRows:
    """The rows of a figure, and in words what they are and what was left out.

    ``elsewhere`` are rows of networks from elsewhere, which take part in no statistic and are drawn hollow.
    """

    rows: pd.DataFrame
    kinds: tuple[str, ...]
    data: str
    notes: tuple[str, ...]
    elsewhere: pd.DataFrame = field(default_factory=pd.DataFrame)

    def kind(self, kind: str) -> pd.DataFrame:
        """The rows of one shift kind."""
        return self.rows[self.rows["shift_kind"] == kind]

    @property
    def operators(self) -> list[str]:
        """The operators of all that is drawn, for the legend."""
        drawn = [self.rows, self.elsewhere] if len(self.elsewhere) else [self.rows]
        return [name for rows in drawn for name in rows["operator"].unique()]

    def apart(self, kind: str) -> pd.DataFrame:
        """The rows of one shift kind that are of networks from elsewhere; none where the figure does not draw them."""
        return self.elsewhere[self.elsewhere["shift_kind"] == kind] if len(self.elsewhere) else self.elsewhere

    def title(self, kind: str) -> str:
        """The heading of a panel: the shift kind with the largest displacement, and the fill if not the background."""
        return panel_title(self.kind(kind).iloc[0])


def need(frame: pd.DataFrame, columns: Iterable[str], figure: str) -> None:
    """Raise :class:`TableError` unless ``frame`` has every column that ``figure`` draws."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise TableError(
            f"{figure} needs the columns {', '.join(missing)}, which the tables do not give: "
            "collect `layers` and `invariance` (or `surface`) and join them with `invariscope.analysis.join`"
        )


def select(
    frame: pd.DataFrame,
    figure: str,
    columns: Iterable[str],
    data: str | None = None,
    snapshots: Snapshots = "final",
    *,
    elsewhere: bool = False,
) -> FigureRows:
    """The rows to draw: of one data set (``data``, else the one with most rows) and, per shift kind, of one plan.

    The plan of a kind is the one measured on most checkpoints; among equals the one with nine shifts per image, as the
    primary analysis fixes in advance, then the smallest shift. ``snapshots``: the last ones of each training run, as in
    the primary statements, or ``all``. Rows with a missing or infinite value in ``columns`` cannot be drawn; their
    number goes into the notes. MSB readings are rounded to 9 decimals, as in the statistics. Networks
    from elsewhere are kept apart, for a figure that draws them (``elsewhere``), or left out. Raises
    :class:`TableError` when nothing is left.
    """
    columns = list(columns)
    need(frame, ["checkpoint", "model", "operator", "cluster", "final", "data", *PLAN, *columns], figure)
    rows = shifted(frame)
    if rows.empty:
        raise TableError(f"{figure} has no rows to draw: collect `invariance` with at least one shift kind first")
    notes = copies_told(frame)
    rows, data = _of_one_data_set(rows, figure, data, notes)
    rows = _choose_plans(_snapshots(rows, snapshots, notes), notes)
    rows = _complete(rows, columns, notes)
    rows, others = _apart(rows, elsewhere, notes)
    if rows.empty:
        raise TableError(
            f"{figure} has no row with all of {', '.join(columns)}: collect `layers` and `invariance` first"
        )
    return FigureRows(rows.reset_index(drop=True), kind_order(rows["shift_kind"]), data, tuple(notes), others)


def _apart(rows: pd.DataFrame, drawn: bool, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the zoo's own networks and those of networks from elsewhere."""
    marked = is_elsewhere(rows)
    others = rows[marked]
    if len(others):
        names = sorted(others["checkpoint"].unique())
        how = "Drawn hollow, and in no fit or number: networks" if drawn else "Not shown: networks"
        notes.append(f"{how} from elsewhere ({', '.join(names)}).")
    shown = rows if drawn else rows[~marked]
    if random := sorted(shown.loc[no_functions(shown), "checkpoint"].unique()):
        notes.append(
            f"Taken in as asked, though other logits on a second pass or in other batches: {', '.join(random)}."
        )
    return rows[~marked], others.reset_index(drop=True) if drawn else others.iloc[:0]


def select_unshifted(
    frame: pd.DataFrame,
    figure: str,
    table: str,
    columns: Iterable[str],
    data: str | None = None,
    snapshots: Snapshots = "final",
) -> FigureRows:
    """As :func:`select`, of a frame without shift plans (sites, conditions, costs), made from the table ``table``."""
    columns = list(columns)
    need(frame, ["checkpoint", "model", "operator", "cluster", "final", *columns], figure)
    if frame.empty:
        raise TableError(f"table `{table}` holds no rows: collect `{table}` first")
    notes = copies_told(frame)
    rows, data = _of_one_data_set(frame, figure, data, notes) if "data" in frame else (frame, "")
    rows = _complete(_snapshots(rows, snapshots, notes), columns, notes)
    rows, _ = _apart(rows, False, notes)
    if rows.empty:
        raise TableError(f"{figure} has no row with all of {', '.join(columns)}: collect `{table}` again")
    return FigureRows(rows.reset_index(drop=True), (), data, tuple(notes))


def copies_told(frame: pd.DataFrame) -> list[str]:
    """The sentence on networks of several names; none where there are none."""
    names = frame.attrs.get(COPIES, [])
    return (
        [f"Copies of another checkpoint (the same weights and function), not counted: {', '.join(names)}."]
        if names
        else []
    )


def _of_one_data_set(rows: pd.DataFrame, figure: str, data: str | None, notes: list[str]) -> tuple[pd.DataFrame, str]:
    data = _choose_data(rows, figure, data, notes)
    return rows[rows["data"] == data], data


def _snapshots(rows: pd.DataFrame, snapshots: Snapshots, notes: list[str]) -> pd.DataFrame:
    if snapshots not in ("final", "all"):
        raise TableError(unknown("choice of snapshots", snapshots, ("final", "all")))
    if snapshots == "all" or rows["final"].all():
        return rows
    earlier = rows.loc[~rows["final"], "checkpoint"].nunique()
    notes.append(f"Earlier snapshots of the training runs, not shown here: {counted(earlier, 'checkpoint')}.")
    return rows[rows["final"]]


def _complete(rows: pd.DataFrame, columns: list[str], notes: list[str]) -> pd.DataFrame:
    """The rows with a finite value in every column, readings rounded, operators named."""
    finite = pd.Series(np.isfinite(rows[columns].to_numpy(float)).all(axis=1), index=rows.index)
    if not finite.all():
        lost = rows.loc[~finite, "checkpoint"].nunique()
        of_rows = f"{counted(lost, 'checkpoint')} ({counted((~finite).sum(), 'row')})"
        notes.append(f"Not shown, for want of {' or '.join(columns)}: {of_rows}.")
    rows = rows[finite]
    rows = rows.assign(**{name: rows[name].astype(float).round(9) for name in columns if name in MSB_READINGS})
    return operators_named(rows)


def _choose_data(rows: pd.DataFrame, figure: str, data: str | None, notes: list[str]) -> str:
    counts = rows.groupby("data")["checkpoint"].nunique().sort_index()
    if data is None:
        data = str(counts.idxmax())
    elif data not in counts.index:
        raise TableError(f"{figure}: no rows measured on {data!r}; the tables hold {', '.join(counts.index)}")
    others = [name for name in counts.index if name != data]
    if others:
        notes.append(f"Also in the tables, not shown here: {', '.join(others)}.")
    return data


def _choose_plans(rows: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    rows = filled(rows)
    kept: list[pd.DataFrame] = []
    left_out: list[str] = []
    for kind, of_kind in rows.groupby("shift_kind", sort=True):
        plans = of_kind.groupby(PLAN)["checkpoint"].nunique().rename("n").reset_index()
        plans = plans.assign(
            unsampled=plans["plan"] != "sampled",
            unusual=plans["n_shifts"] != PRIMARY_SHIFTS,
            filled=~plans["fill"].isin(("", PRIMARY_FILL)),
        )
        order = ["n", "unsampled", "unusual", "max_shift", "filled", "fill", "plan", "n_shifts"]
        plans = plans.sort_values(order, ascending=[False, True, True, True, True, False, True, True])
        kept.append(of_kind.merge(plans[PLAN].iloc[:1], on=PLAN))
        left_out += [
            f"{kind} ≤ {row.max_shift} px × {row.n_shifts} ({row.plan})" for row in plans.iloc[1:].itertuples()
        ]
    if left_out:
        notes.append(f"Other shift plans in the tables, not shown here: {', '.join(left_out)}.")
    chosen = pd.concat(kept, ignore_index=True)
    if "n_images" in chosen:
        chosen = chosen.sort_values("n_images", ascending=False, kind="stable")
    finer = (axis for axis in ("dy", "dx", "depth", "replacement") if axis in chosen)
    key = ["checkpoint", "model", "shift_kind", *finer]
    once = chosen.drop_duplicates(key)
    if len(once) < len(chosen):
        notes.append(f"Measured on fewer images as well, not shown here: {counted(len(chosen) - len(once), 'row')}.")
    return once.sort_index()


def once_per_checkpoint(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per checkpoint, for what does not depend on the shift kind."""
    return rows.drop_duplicates(["checkpoint", "model"])


def without(rows: pd.DataFrame) -> pd.DataFrame | None:
    """The rows without plain subsampling; None where there is none, or nothing else."""
    rest = rows[~rows["operator"].isin(PLAIN_SUBSAMPLING)]
    return rest if 0 < len(rest) < len(rows) else None


def counts(rows: pd.DataFrame) -> str:
    """``264 checkpoints, 11 operators, 132 operator × run clusters``."""
    return (
        f"{counted(rows['checkpoint'].nunique(), 'checkpoint')}, {counted(rows['operator'].nunique(), 'operator')}, "
        f"{counted(rows['cluster'].nunique(), 'operator × run cluster')}"
    )


def plan_sentence(selection: FigureRows) -> str:
    """Data set and shift plans in one sentence, for the caption."""
    plans = [plan_in_caption(selection.kind(kind).iloc[0]) for kind in selection.kinds]
    return f"Measured on {selection.data}; shifts: {', '.join(plans)}."
