"""What a checkpoint is, for every frame alike: its factors, its cluster, whether it is final, its origin, its copies.

A *network* is a weights file and a model string (:data:`NETWORK`); a *checkpoint* is a name that a manifest gives it.

* **factors**: the columns :data:`FACTORS` of table ``checkpoints``, and the manifest's further ones as
  ``factor_<name>``; an operator that the manifest does not name is missing, and is called :data:`NOT_GIVEN` where it
  is drawn or told;
* **metrics**: numbers of the manifest that others measured, as ``metric_<name>``;
* **copies**: a network under several names counts once, under the first of them in the order of the alphabet, whatever
  name it was measured under, and so do networks of equal weights that compute the same (``avg``, ``lp(p=1)`` and
  ``soft(beta=0)`` of one seed): told by the hash of the weights and by what they say of two images of noise.
  ``attrs["copies"]`` of a frame holds the others;
* **cluster**: ``operator|run``, the checkpoint's name where no run is given;
* **final**: the last snapshot of its run among the networks of the frame, so that a run counts with its last snapshot
  that could be measured;
* **deterministic**: false where a row of any table marks the network as no function of the image, true where one says
  that it is, missing where none was asked (older tables); such networks are there only where ``load`` was told so;
* **origin**: networks whose further factor ``origin`` is :data:`ELSEWHERE` were trained by recipes of their own and
  take part in no statistic (:func:`own`).

A measured network that table ``checkpoints`` does not describe is refused: left out, it would be missing without a
word; kept, it would stand for an operator of its own.
"""

from __future__ import annotations

import json
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError
from invariscope.base.terminal import plain
from invariscope.collectors.schema import OPERATOR_ERROR

NOT_GIVEN = "not given"
"""Stands for an operator that the manifest does not name."""

ELSEWHERE = "elsewhere"
"""Value of the manifest's factor ``origin`` that marks a network trained elsewhere, by a recipe of its own."""

NETWORK = ["sha256", "model"]
"""The columns that tell networks apart."""

FACTORS = [
    "architecture",
    "operator",
    "operator_spec",
    "strength",
    "padding_mode",
    "training_data",
    "seed",
    "run",
    "epoch",
    "n_params",
]
"""The factors of every checkpoint, in the order of the columns."""

COPIES = "copies"
"""Key of a frame's ``attrs``: names of networks that have another name as well, under which they count."""

SAME = "same_as"
"""Column of :func:`describe`: the first name of the networks of equal weights that compute the same as this one."""

METRIC = "metric_"
"""What the column of a metric begins with: a number of the manifest that somebody else measured."""

DETERMINISTIC = "deterministic"
"""Column of every table measured on data, and of every frame: whether a network is a function of the image."""

CLOSE = 1e-4
"""Largest difference of what two networks say, relative to the largest number, up to which it is the same."""


def describe(tables: Tables) -> pd.DataFrame:
    """One row per network, by name: ``checkpoint``, :data:`NETWORK`, :data:`FACTORS`, ``factor_<name>``,
    ``metric_<name>``, ``operator_equivariance_error`` (missing in tables older than it), :data:`SAME`.

    Raises:
        TableError: no checkpoint described, a name described twice, or factors that are not JSON.
    """
    rows = describe_names(tables)
    is_copy = rows.duplicated(NETWORK)
    copies, rows = rows.loc[is_copy, "checkpoint"].tolist(), rows[~is_copy]
    rows.attrs[COPIES] = copies
    return rows


def describe_names(tables: Tables) -> pd.DataFrame:
    """As :func:`describe`, a row per name, also of networks that have several.

    Raises:
        TableError: as :func:`describe`.
    """
    rows = tables.checkpoints
    if rows.empty:
        raise TableError("table checkpoints is empty; collect `checkpoints` first")
    twice = rows.loc[rows.duplicated("checkpoint"), "checkpoint"]
    if len(twice):
        raise TableError(
            f"table checkpoints describes {twice.iloc[0]!r} twice; collect zoos that share names into several folders"
        )
    rows = rows.sort_values("checkpoint")
    named = rows[["checkpoint", "factors", "metrics"]].itertuples(index=False)
    further = pd.DataFrame([{**_further_factors(row), **_metrics(row)} for row in named])
    further.index = rows.index
    described = pd.concat([rows[["checkpoint", *NETWORK, *FACTORS]], further], axis=1)
    return described.assign(**{OPERATOR_ERROR: rows[OPERATOR_ERROR].astype(float), SAME: _same(rows)})


def with_checkpoints(rows: pd.DataFrame, tables: Tables, table: str) -> pd.DataFrame:
    """``rows`` of the table ``table`` with everything that this module says of their networks.

    A column ``checkpoint`` of ``rows`` gives way to the name of :func:`describe`.

    Raises:
        TableError: as :func:`describe`; a network that is not described.
    """
    described = describe(tables)
    found = rows.drop(columns=["checkpoint", DETERMINISTIC], errors="ignore").merge(
        described, on=NETWORK, how="left", validate="many_to_one"
    )
    marks = function_marks(tables)
    found[DETERMINISTIC] = pd.Series(
        [marks.get(network) for network in zip(*(found[name] for name in NETWORK), strict=True)],
        index=found.index,
        dtype=object,
    )
    lost = found["checkpoint"].isna()
    if lost.any():
        count = found.loc[lost, NETWORK].drop_duplicates().shape[0]
        raise TableError(
            f"{count} of the networks in table {table} {'is' if count == 1 else 'are'} not in table checkpoints (the "
            f"first has the model string {found.loc[lost, 'model'].iloc[0]!r}); collect `checkpoints` for the same "
            "zoo, or remove such rows with `invariscope prune`"
        )
    once = [SAME, "data"] if "data" in found.columns else [SAME]
    is_first = found["checkpoint"] == found.groupby(once)["checkpoint"].transform("min")
    copies = sorted({*described.attrs[COPIES], *found.loc[~is_first, "checkpoint"]})
    found = _with_runs(found[is_first].drop(columns=SAME).reset_index(drop=True))
    found.attrs[COPIES] = copies
    return found


def function_marks(tables: Tables) -> dict[tuple[str, str], bool]:
    """Whether each network is a function of the image, by what all tables say of it; those that none speaks of left
    out.
    """
    told: dict[tuple[str, str], bool] = {}
    for field in fields(tables):
        rows = getattr(tables, field.name)
        if DETERMINISTIC not in rows.columns:
            continue
        known = rows.loc[rows[DETERMINISTIC].notna(), [*NETWORK, DETERMINISTIC]].drop_duplicates()
        for sha256, model, good in known.itertuples(index=False, name=None):
            told[sha256, model] = told.get((sha256, model), True) and bool(good)
    return told


def no_functions(rows: pd.DataFrame) -> pd.Series:
    """Whether each row of a frame is of a network that is marked as no function of the image."""
    if DETERMINISTIC not in rows.columns:
        return pd.Series(False, index=rows.index)
    return rows[DETERMINISTIC].astype(object).eq(False)


def _same(rows: pd.DataFrame) -> pd.Series:
    """The name that stands for each network, of rows ordered by name: its own, or that of the first that it equals."""
    names = rows["checkpoint"].copy()
    known = rows[rows["tensors_sha256"].notna() & rows["probe"].notna()]
    for _, group in known[known.duplicated("tensors_sha256", keep=False)].groupby("tensors_sha256"):
        firsts: list[tuple[str, np.ndarray]] = []
        for index, name, probe in zip(group.index, group["checkpoint"], group["probe"], strict=True):
            said = np.asarray(probe, dtype=float)
            equal = next((first for first, other in firsts if _is_close(said, other)), None)
            if equal is None:
                firsts.append((name, said))
            else:
                names[index] = equal
    return names


def _is_close(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and bool((np.abs(one - other) <= CLOSE * np.abs(other).max(initial=0)).all())


def operators_named(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with :data:`NOT_GIVEN` in place of an operator that the manifest does not give."""
    return rows.assign(operator=rows["operator"].astype(object).where(rows["operator"].notna(), NOT_GIVEN))


def own(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without networks from elsewhere, whose recipes differ from each other: they take part in no statistic.

    ``attrs["elsewhere"]`` holds their names. Raises :class:`TableError` where there are no others.
    """
    marked = is_elsewhere(rows)
    if not marked.any():
        return rows
    if marked.all():
        raise TableError(
            f"all networks have the origin {ELSEWHERE!r}, which takes part in no statistic: leave that factor out of "
            "the manifest to analyse them"
        )
    kept = rows[~marked]
    kept.attrs = {**rows.attrs, ELSEWHERE: sorted(rows.loc[marked, "checkpoint"].unique())}
    return kept


def is_elsewhere(rows: pd.DataFrame) -> pd.Series:
    """Whether each row is of a network that its manifest marks with ``origin: elsewhere``."""
    if "factor_origin" not in rows.columns:
        return pd.Series(False, index=rows.index)
    return rows["factor_origin"].eq(ELSEWHERE).fillna(False).astype(bool)


def _with_runs(rows: pd.DataFrame) -> pd.DataFrame:
    operator = operators_named(rows)["operator"]
    run = rows["run"].astype(object).where(rows["run"].notna(), rows["checkpoint"])
    last = rows.groupby("run")["epoch"].transform("max")
    final = rows["run"].isna() | rows["epoch"].isna() | (rows["epoch"] == last)
    return rows.assign(cluster=operator.astype(str) + "|" + run.astype(str), final=final)


def _further_factors(row: Any) -> dict[str, Any]:
    try:
        factors = json.loads(row.factors)
    except (ValueError, RecursionError) as error:
        raise TableError(
            f"checkpoint {row.checkpoint!r}: its factors are not JSON; collect `checkpoints` again"
        ) from error
    if not isinstance(factors, dict) or any(isinstance(value, dict | list) for value in factors.values()):
        raise TableError(
            f"checkpoint {row.checkpoint!r}: its factors are no mapping of names to texts and numbers; collect "
            "`checkpoints` again"
        )
    shown = {plain(name): plain(value) if isinstance(value, str) else value for name, value in factors.items()}
    return {f"factor_{name}": value for name, value in shown.items() if name not in FACTORS}


def _metrics(row: Any) -> dict[str, float]:
    """Missing in tables older than them."""
    if not isinstance(row.metrics, str):
        return {}
    try:
        metrics = json.loads(row.metrics)
    except ValueError as error:
        raise TableError(
            f"checkpoint {row.checkpoint!r}: its metrics are not JSON; collect `checkpoints` again"
        ) from error
    if not isinstance(metrics, dict) or any(isinstance(value, bool | str | dict | list) for value in metrics.values()):
        raise TableError(
            f"checkpoint {row.checkpoint!r}: its metrics are no mapping of names to numbers; collect `checkpoints` "
            "again"
        )
    return {f"{METRIC}{plain(name)}": float(value) for name, value in metrics.items()}


def metrics_of(rows: pd.DataFrame) -> list[str]:
    """The columns of a frame that hold metrics, in the order of their names."""
    return sorted(name for name in map(str, rows.columns) if name.startswith(METRIC))
