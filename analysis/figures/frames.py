"""From the joined tables to the rows of one figure: one data set, one shift plan per kind, nothing dropped unsaid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from invariscope.analysis.study import PLAIN_SUBSAMPLING
from invariscope.analysis.tables.joined import NOT_GIVEN, Tables, is_elsewhere, origins, with_runs
from invariscope.base.errors import TableError
from invariscope.collectors.schema import MSB_READINGS, SHIFT_KINDS

Snapshots = Literal["final", "all"]
PLAN = ["shift_kind", "plan", "fill", "max_shift", "n_shifts"]


@dataclass(frozen=True)
class Selection:
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
        """The heading of a panel: the shift kind with the largest displacement, and the fill where it is black."""
        first = self.kind(kind).iloc[0]
        black = ", black" if first["fill"] == "black" else ""
        return f"{kind} shift, ≤ {int(first['max_shift'])} px{black}"


def need(frame: pd.DataFrame, columns: Iterable[str], figure: str) -> None:
    """Raise :class:`TableError` unless ``frame`` has every column that ``figure`` draws."""
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise TableError(
            f"{figure} needs the columns {', '.join(missing)}, which the tables do not give: "
            "collect `layers` and `invariance` (or `surface`) and join them with `invariscope.analysis.tables.joined`"
        )


def select(
    frame: pd.DataFrame,
    figure: str,
    columns: Iterable[str],
    data: str | None = None,
    snapshots: Snapshots = "final",
    *,
    elsewhere: bool = False,
) -> Selection:
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
    rows = frame[frame["shift_kind"].isin(SHIFT_KINDS)]
    if rows.empty:
        raise TableError(f"{figure} has no rows to draw: collect `invariance` with at least one shift kind first")
    notes: list[str] = []
    rows, data = _of_one_data_set(rows, figure, data, notes)
    rows = _choose_plans(_snapshots(rows, snapshots, notes), notes)
    rows = _complete(rows, columns, notes)
    rows, others = _apart(rows, elsewhere, notes)
    if rows.empty:
        raise TableError(
            f"{figure} has no row with all of {', '.join(columns)}: collect `layers` and `invariance` first"
        )
    present = set(rows["shift_kind"])
    kinds = tuple(kind for kind in SHIFT_KINDS if kind in present)
    return Selection(rows.reset_index(drop=True), kinds, data, tuple(notes), others)


def _apart(rows: pd.DataFrame, drawn: bool, notes: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of the zoo's own networks and those of networks from elsewhere."""
    marked = is_elsewhere(rows)
    others = rows[marked]
    if len(others):
        names = sorted(others["checkpoint"].unique())
        how = "Drawn hollow, and in no fit or number: networks" if drawn else "Not shown: networks"
        notes.append(f"{how} from elsewhere ({', '.join(names)}).")
    return rows[~marked], others.reset_index(drop=True) if drawn else others.iloc[:0]


def select_unshifted(
    frame: pd.DataFrame,
    figure: str,
    table: str,
    columns: Iterable[str],
    data: str | None = None,
    snapshots: Snapshots = "final",
) -> Selection:
    """As :func:`select`, of a frame without shift plans (sites, conditions, costs), made from the table ``table``."""
    columns = list(columns)
    need(frame, ["checkpoint", "model", "operator", "cluster", "final", *columns], figure)
    if frame.empty:
        raise TableError(f"table `{table}` holds no rows: collect `{table}` first")
    notes: list[str] = []
    rows, data = _of_one_data_set(frame, figure, data, notes) if "data" in frame else (frame, "")
    rows = _complete(_snapshots(rows, snapshots, notes), columns, notes)
    rows, _ = _apart(rows, False, notes)
    if rows.empty:
        raise TableError(f"{figure} has no row with all of {', '.join(columns)}: collect `{table}` again")
    return Selection(rows.reset_index(drop=True), (), data, tuple(notes))


def _of_one_data_set(rows: pd.DataFrame, figure: str, data: str | None, notes: list[str]) -> tuple[pd.DataFrame, str]:
    data = _choose_data(rows, figure, data, notes)
    return rows[rows["data"] == data], data


def _snapshots(rows: pd.DataFrame, snapshots: Snapshots, notes: list[str]) -> pd.DataFrame:
    if snapshots not in ("final", "all"):
        raise TableError(f"unknown choice of snapshots {snapshots!r}: choose final or all")
    if snapshots == "all" or rows["final"].all():
        return rows
    earlier = rows.loc[~rows["final"], "checkpoint"].nunique()
    notes.append(f"Earlier snapshots of the training runs, not shown here: {earlier} checkpoints.")
    return rows[rows["final"]]


def _complete(rows: pd.DataFrame, columns: list[str], notes: list[str]) -> pd.DataFrame:
    """The rows with a finite value in every column, readings rounded, operators named."""
    finite = pd.Series(np.isfinite(rows[columns].to_numpy(float)).all(axis=1), index=rows.index)
    if not finite.all():
        lost = rows.loc[~finite, "checkpoint"].nunique()
        notes.append(f"Not shown, for want of {' or '.join(columns)}: {lost} checkpoints ({(~finite).sum()} rows).")
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
    rows = rows.assign(fill=rows["fill"].astype(object).where(rows["fill"].notna(), ""))
    kept: list[pd.DataFrame] = []
    left_out: list[str] = []
    for kind, of_kind in rows.groupby("shift_kind", sort=True):
        plans = of_kind.groupby(PLAN)["checkpoint"].nunique().rename("n").reset_index()
        plans = plans.assign(unsampled=plans["plan"] != "sampled", unusual=plans["n_shifts"] != 9)
        order = ["n", "unsampled", "unusual", "max_shift", "fill"]
        plans = plans.sort_values(order, ascending=[False, True, True, True, False])
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
        notes.append(f"Measured on fewer images as well, not shown here: {len(chosen) - len(once)} rows.")
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
        f"{rows['checkpoint'].nunique()} checkpoints, {rows['operator'].nunique()} operators, "
        f"{rows['cluster'].nunique()} operator × run clusters"
    )


def operators_named(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with a name in place of an operator that the manifest does not give."""
    return rows.assign(operator=rows["operator"].astype(object).where(rows["operator"].notna(), NOT_GIVEN))


def plan_sentence(selection: Selection) -> str:
    """Data set and shift plans in one sentence, for the caption."""
    plans = []
    for kind in selection.kinds:
        first = selection.kind(kind).iloc[0]
        fill = f", fill {first['fill']}" if first["fill"] else ""
        plans.append(
            f"{kind} (≤ {int(first['max_shift'])} px, {int(first['n_shifts'])} per image, {first['plan']}{fill})"
        )
    return f"Measured on {selection.data}; shifts: {', '.join(plans)}."


_FACTORS = ["operator", "operator_spec", "strength", "architecture", "padding_mode", "seed", "run", "epoch"]


def surface_frame(tables: Tables) -> pd.DataFrame:
    """Table ``surface`` with the factors of each checkpoint: a row per checkpoint, plan and shift."""
    return _with_factors(tables.surface, tables)


def site_frame(tables: Tables) -> pd.DataFrame:
    """The sites of table ``layers`` with the factors of each checkpoint: a row per checkpoint, data set and site."""
    return _with_factors(tables.layers[tables.layers["site"].notna()], tables)


def robustness_frame(tables: Tables) -> pd.DataFrame:
    """Table ``robustness`` with the factors of each checkpoint: a row per checkpoint, data set and condition.

    ``seed`` is that of the training run; the condition's own is ``condition_seed``.
    """
    return _with_factors(tables.robustness.rename(columns={"seed": "condition_seed"}), tables)


def cost_frame(tables: Tables) -> pd.DataFrame:
    """Table ``cost`` with the factors of each checkpoint: a row per checkpoint and quantity."""
    return _with_factors(tables.cost, tables)


def segmentation_frame(tables: Tables) -> pd.DataFrame:
    """Table ``segmentation``, scores as columns, with the factors of each checkpoint and its MSB readings.

    A row per checkpoint, data set and shift plan. Scores that are taken without a shift (``miou``, ``pixel_accuracy``)
    stand in every row of the checkpoint; a reading is the mean over the checkpoint's sites on the same data set.
    """
    keys = ["checkpoint", "sha256", "model", "data"]
    rows = tables.segmentation
    plain, shifted = rows[rows["shift_kind"] == "none"], rows[rows["shift_kind"] != "none"]
    shifted = shifted.assign(fill=shifted["fill"].astype(object).where(shifted["fill"].notna(), ""))
    wide = _wide(shifted, [*keys, *PLAN])
    images = shifted.groupby([*keys, *PLAN], as_index=False)["n_images"].max()
    wide = wide.merge(images, on=[*keys, *PLAN])
    readings = tables.layers.groupby(keys, as_index=False)[list(MSB_READINGS)].mean()
    for other in (_wide(plain, keys), readings):
        wide = wide.merge(other, on=keys, how="left")
    return _with_factors(wide, tables)


def _wide(rows: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    once = rows.drop_duplicates([*keys, "score"])
    values, errors = (once.pivot(index=keys, columns="score", values=name) for name in ("value", "se"))
    return pd.concat([values, errors.add_suffix("_se")], axis=1).reset_index()


def _with_factors(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    keys = ["sha256", "model"]
    known = tables.checkpoints.drop_duplicates(keys)
    factors = known[[*keys, *_FACTORS]].assign(factor_origin=origins(known))
    return with_runs(operators_named(rows.merge(factors, on=keys, how="left")))
