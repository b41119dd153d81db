"""Training runs with their scores, as experiment trackers keep them: a run, and a step per snapshot."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from invariscope.analysis.exports.wide import Wide
from invariscope.base.errors import TableError
from invariscope.base.flushing import make_folder


@dataclass(frozen=True)
class TrackedRun:
    """A training run on one data set.

    Attributes:
        name: that of the run where the manifest gives one, else the checkpoint's; with the data set behind it where
            the checkpoints were measured on several.
        settings: the factors and metrics that all its snapshots share, and ``data``.
        steps: of each snapshot its epoch (0 where it has none) and its scores by the names of :func:`wide_table`, in
            the order of the epochs.
    """

    name: str
    settings: dict[str, Any]
    steps: list[tuple[int, dict[str, float]]] = field(default_factory=list)


def tracked_runs(wide: Wide) -> list[TrackedRun]:
    """The training runs of a wide table, by name.

    Raises:
        TableError: no checkpoint has a score.
    """
    rows = wide.rows
    rows = rows[rows[wide.scores].notna().any(axis=1)]
    if rows.empty or "data" not in rows.columns:
        raise TableError("no checkpoint has a score on data: collect invariance first")
    run = (
        rows["checkpoint"] if "run" not in rows.columns else rows["run"].where(rows["run"].notna(), rows["checkpoint"])
    )
    data = rows["data"].fillna("")
    keys = [run, data] if data.nunique() > 1 else [run]
    kept = [one.name for one in wide.fields if one.role in ("factor", "metric") and one.name != "epoch"]
    errors = [one.name for one in wide.fields if one.role in ("score", "error")]
    made = []
    for names, some in rows.groupby(keys, sort=True):
        some = some.assign(step=_steps(some)).sort_values(["step", "checkpoint"])
        settings = {name: _plain(some[name].iloc[0]) for name in kept if some[name].nunique(dropna=False) == 1}
        settings = {name: value for name, value in settings.items() if value is not None} | {
            "data": data[some.index[0]]
        }
        steps = [(int(row["step"]), _numbers(row, errors)) for _, row in some.iterrows()]
        made.append(TrackedRun(" ".join(filter(None, map(str, names))), settings, steps))
    return made


def _steps(rows: pd.DataFrame) -> pd.Series:
    """The epochs, which trackers want whole; the snapshots' order where two of them would share one."""
    epochs = rows["epoch"] if "epoch" in rows.columns else pd.Series(float("nan"), index=rows.index)
    whole = epochs.fillna(0).astype(float).round().astype(int)
    return whole if whole.is_unique else epochs.fillna(0).rank(method="first").astype(int)


def _numbers(row: pd.Series, names: list[str]) -> dict[str, float]:
    found = {name: float(row[name]) for name in names if pd.notna(row[name])}
    if "epoch" in row.index and pd.notna(row["epoch"]):
        found["epoch"] = float(row["epoch"])
    return found


def _plain(value: Any) -> Any:
    """A value of Python and not of numpy; None where there is none."""
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value


def folder_for(out: Path) -> Path:
    """The folder, made where it is missing.

    Raises:
        TableError: it cannot be made.
    """
    try:
        make_folder(out)
    except OSError as error:
        raise TableError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from error
    return out.resolve()
