"""From a folder of parquet tables to one tidy frame: a row per checkpoint, data set and shift plan."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from invariscope.base.errors import TableError
from invariscope.base.names import unknown
from invariscope.collectors.schema import MSB_READINGS, PLAN_COLUMNS, PRIMARY_READING, SCORES, TABLES
from invariscope.collectors.store.reader import RowFilter, TableReader

NOT_GIVEN = "not given"
"""Stands in `cluster` for an operator that the manifest does not name."""

ELSEWHERE = "elsewhere"
"""Value of the manifest's factor `origin` that marks a network trained elsewhere, by a recipe of its own."""

_KEY = ["sha256", "model"]
_DATA = ["data", "data_fingerprint"]
_FACTORS = [
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


@dataclass(frozen=True)
class Tables:
    """The tables that the analysis reads, each with the columns of :data:`TABLES`; empty where not collected.

    :func:`load_table` reads any other one.
    """

    checkpoints: pd.DataFrame
    layers: pd.DataFrame
    invariance: pd.DataFrame
    surface: pd.DataFrame
    swaps: pd.DataFrame = field(default_factory=lambda: _empty("swaps"))
    robustness: pd.DataFrame = field(default_factory=lambda: _empty("robustness"))
    segmentation: pd.DataFrame = field(default_factory=lambda: _empty("segmentation"))
    cost: pd.DataFrame = field(default_factory=lambda: _empty("cost"))
    failures: pd.DataFrame = field(default_factory=lambda: _empty("failures"))


def load(
    folder: Path | str, *, checkpoints: Collection[str] | None = None, where: Mapping[str, Any] | None = None
) -> Tables:
    """Read ``folder/<table>/*.parquet``, all parts of each table together, each task once.

    Columns beyond the schema are left out. A table without parts is an empty frame. ``folder`` is a path, or the URI
    of a file system that pyarrow or fsspec knows (``s3://...``).

    Args:
        checkpoints: names; only the networks of these names are read.
        where: column -> value, or a list of them: only such rows are read, of every table that has the column, as in
            ``{"data": "digits/test", "shift_kind": ["none", "circular"]}``. Row groups without such rows are skipped.

    Raises:
        TableError: no such folder, no parts at all, a part that cannot be read, that lacks a column, whose column has
            another type, or that was written under another schema version; a checkpoint or a column that is not there.
    """
    reader = TableReader(folder)
    names = [table.name for table in fields(Tables)]
    if not any(reader.parts(name) for name in names):
        raise TableError(f"{folder}: holds no table parts; fill it with `invariscope collect ZOO --out {folder}`")
    wanted = RowFilter.checked(where, names)
    if checkpoints is not None:
        wanted = replace(wanted, networks=reader.networks(checkpoints))
    return Tables(**{name: reader.read(name, wanted).to_pandas() for name in names})


def load_table(folder: Path | str, table: str, *, where: Mapping[str, Any] | None = None) -> pd.DataFrame:
    """One table as a frame, whoever's collector filled it; empty where not collected. Arguments as for :func:`scan`."""
    _check_table(table)
    frame: pd.DataFrame = TableReader(folder).read(table, RowFilter.checked(where, [table])).to_pandas()
    return frame


def scan(
    folder: Path | str,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    batch_rows: int = 1 << 17,
) -> Iterator[pd.DataFrame]:
    """The rows of one table, in frames of at most ``batch_rows``: for tables that do not fit into memory.

    Args:
        table: a name of :data:`TABLES`, ``predictions``, ``failures`` and ``timings`` among them.
        columns: columns to read; all by default.
        where: as for :func:`load`.

    Raises:
        TableError: as :func:`load`; an unknown table.
    """
    _check_table(table)
    missing = [column for column in columns or () if column not in TABLES[table].names]
    if missing:
        raise TableError(f"table {table} has no column {missing[0]!r}; it has {', '.join(TABLES[table].names)}")
    batches = TableReader(folder).stream(table, RowFilter.checked(where, [table]), columns, batch_rows)
    return (batch.to_pandas() for batch in batches)


def _check_table(name: str) -> None:
    if name not in TABLES:
        raise TableError(unknown("table", name, TABLES))


def _empty(name: str) -> pd.DataFrame:
    frame: pd.DataFrame = TABLES[name].empty_table().to_pandas()
    return frame


def join(tables: Tables) -> pd.DataFrame:
    """One row per checkpoint × data set × shift plan.

    Columns: ``checkpoint``, ``sha256``, ``model``; the factors (``architecture``, ``operator``, ``operator_spec``,
    ``strength``, ``padding_mode``, ``training_data``, ``seed``, ``run``, ``epoch``, ``n_params``) and the manifest's
    further ones as ``factor_<name>``; ``data``, ``data_fingerprint``; the plan (``shift_kind``, ``fill``,
    ``max_shift``, ``n_shifts``, ``plan``, ``plan_hash``); every score with its standard error (``consistency``,
    ``consistency_se``), ``accuracy`` from the unshifted images, ``n_images``, ``n_pairs``; every MSB reading and
    ``flat_fraction`` as the unweighted mean over the measured sites, with ``_se`` = the mean of the sites' standard
    errors (the sites see the same images, so their errors are correlated by an unknown amount: this is the largest that
    the error of the mean can be); ``n_sites``, ``n_sites_unmeasured``; ``cluster`` = ``operator|run`` (the checkpoint's
    name where no run is given); ``final`` = the last snapshot of its run.
    A network whose further factor ``origin`` is ``elsewhere`` is among the rows; :func:`own` leaves it out.

    MSB and accuracy are taken from the same images where both were measured on them, else (crop shifts are measured on
    larger images) from the data set of the same name.

    A network listed under several names counts once, under the first of them; ``attrs["copies"]`` holds the others.

    Raises:
        TableError: no checkpoint described, no shift measured, a measured checkpoint that is not described, a name
            that is described twice, or two measurements of the same thing.
    """
    checkpoints = _described(tables)
    shifted = tables.invariance[tables.invariance["shift_kind"] != "none"]
    if shifted.empty:
        raise TableError("table invariance holds no shifts; collect `invariance` with at least one shift kind first")
    rows = _scores(shifted)
    clean = tables.invariance[tables.invariance["shift_kind"] == "none"]
    rows = _attach(rows, _accuracy(clean))
    rows = _attach(rows, _readings(tables.layers))
    rows = rows.merge(checkpoints, on=_KEY, how="left", validate="many_to_one")
    lost = rows["checkpoint"].isna()
    if lost.any():
        raise TableError(
            f"{rows.loc[lost, _KEY].drop_duplicates().shape[0]} measured checkpoints are not in table checkpoints "
            f"(the first has the model string {rows.loc[lost, 'model'].iloc[0]!r}); "
            "collect `checkpoints` for the same zoo"
        )
    rows = with_runs(rows)
    first = ["checkpoint", *_KEY, *_FACTORS, "cluster", "final", *_DATA, *PLAN_COLUMNS]
    order = [*first, *(column for column in rows.columns if column not in first)]
    rows = rows[order].sort_values(["data", "shift_kind", "max_shift", "checkpoint"], ignore_index=True)
    rows.attrs["copies"] = checkpoints.attrs["copies"]
    return rows


def with_sites(rows: pd.DataFrame, tables: Tables, reading: str = PRIMARY_READING) -> pd.DataFrame:
    """Add ``site_<depth>``, the ``reading`` of each downsampling site from the first (0) to the last in the network.

    ``rows`` as :func:`join` gives them; a checkpoint with fewer sites than another, or with a site that has no number,
    has a missing value there. Taken from the same images as the mean over the sites.
    """
    measured = tables.layers[tables.layers["depth"].notna() & tables.layers["site"].notna()]
    wide = measured.pivot(index=[*_KEY, *_DATA], columns="depth", values=reading)
    wide.columns = pd.Index([f"site_{int(depth)}" for depth in wide.columns])
    joined = _attach(rows, wide.reset_index())
    joined.attrs = dict(rows.attrs)
    return joined


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


def origins(checkpoints: pd.DataFrame) -> pd.Series:
    """The factor ``origin`` of each row of table ``checkpoints``; None where its manifest gives none.

    Raises:
        TableError: factors that are not JSON.
    """
    found = [_further_factors(row).get("factor_origin") for row in checkpoints[["checkpoint", "factors"]].itertuples()]
    return pd.Series(found, index=checkpoints.index, dtype=object)


def with_runs(rows: pd.DataFrame) -> pd.DataFrame:
    """Add ``cluster`` (``operator|run``, else the checkpoint's name for the run) and ``final`` (last of its run)."""
    operator = rows["operator"].astype(object).where(rows["operator"].notna(), NOT_GIVEN)
    run = rows["run"].astype(object).where(rows["run"].notna(), rows["checkpoint"])
    last = rows.groupby("run")["epoch"].transform("max")
    final = rows["run"].isna() | rows["epoch"].isna() | (rows["epoch"] == last)
    return rows.assign(cluster=operator.astype(str) + "|" + run.astype(str), final=final)


def _described(tables: Tables) -> pd.DataFrame:
    rows = tables.checkpoints
    if rows.empty:
        raise TableError("table checkpoints is empty; collect `checkpoints` first")
    twice = rows.loc[rows.duplicated("checkpoint"), "checkpoint"]
    if len(twice):
        raise TableError(
            f"table checkpoints describes {twice.iloc[0]!r} twice; collect zoos that share names into several folders"
        )
    rows = rows.sort_values("checkpoint")
    is_copy = rows.duplicated(_KEY)
    copies, rows = rows.loc[is_copy, "checkpoint"].tolist(), rows[~is_copy]
    further = pd.DataFrame([_further_factors(row) for row in rows[["checkpoint", "factors"]].itertuples(index=False)])
    further.index = rows.index
    described = pd.concat([rows[["checkpoint", *_KEY, *_FACTORS]], further], axis=1)
    described.attrs["copies"] = copies
    return described


def _further_factors(row: Any) -> dict[str, Any]:
    try:
        factors = json.loads(row.factors)
    except ValueError as error:
        raise TableError(
            f"checkpoint {row.checkpoint!r}: its factors are not JSON; collect `checkpoints` again"
        ) from error
    return {f"factor_{name}": value for name, value in factors.items() if name not in _FACTORS}


def _refuse_repeats(rows: pd.DataFrame, keys: list[str], table: str) -> None:
    repeated = rows[rows.duplicated(keys, keep=False)]
    if len(repeated):
        first = repeated.iloc[0]
        raise TableError(
            f"table {table} holds two measurements of checkpoint {first['checkpoint']!r} on {first['data']} that "
            f"differ in their settings only (task {first['task']} is one); "
            "collect each setting into a folder of its own"
        )


def _scores(shifted: pd.DataFrame) -> pd.DataFrame:
    keys = [*_KEY, *_DATA, *PLAN_COLUMNS]
    _refuse_repeats(shifted, [*keys, "score"], "invariance")
    # A missing fill would drop out of a pivot's index.
    shifted = shifted.assign(fill=shifted["fill"].astype(object).where(shifted["fill"].notna(), ""))
    wide = shifted.pivot(index=keys, columns="score", values=["value", "se"])
    wide = pd.concat([wide["value"], wide["se"].add_suffix("_se")], axis=1)
    ordered = [name for score in SCORES for name in (score, f"{score}_se") if name in wide.columns]
    counts = shifted.groupby(keys)[["n_images", "n_pairs"]].max()
    rows = wide[ordered].astype(float).join(counts).reset_index()
    rows["fill"] = rows["fill"].where(rows["fill"] != "", None)
    return rows.drop(columns=[name for name in ("accuracy", "accuracy_se") if name in rows])


def _accuracy(clean: pd.DataFrame) -> pd.DataFrame:
    rows = clean[clean["score"] == "accuracy"]
    _refuse_repeats(rows, [*_KEY, *_DATA], "invariance")
    return rows[[*_KEY, *_DATA, "value", "se"]].rename(columns={"value": "accuracy", "se": "accuracy_se"})


def _readings(layers: pd.DataFrame) -> pd.DataFrame:
    _refuse_repeats(layers, [*_KEY, *_DATA, "depth"], "layers")
    names = [*MSB_READINGS, "flat_fraction"]
    values = [column for name in names for column in (name, f"{name}_se")]
    sites = layers.groupby([*_KEY, *_DATA], as_index=False)
    means = sites[values].mean()
    counts = sites.agg(n_sites=("n_sites", "max"), measured=("msb_weight", "count"))
    rows = means.merge(counts, on=[*_KEY, *_DATA])
    rows["n_sites_unmeasured"] = rows["n_sites"] - rows.pop("measured")
    return rows


def _attach(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Columns of ``other`` for each row: by fingerprint, else by the data set's name where that is unambiguous."""
    by_images = [*_KEY, *_DATA]
    by_name = [*_KEY, "data"]
    exact = other.set_index(by_images)
    named = other.drop_duplicates(by_name, keep=False).drop(columns="data_fingerprint").set_index(by_name)
    wanted = pd.MultiIndex.from_frame(rows[by_images])
    found = wanted.isin(exact.index)
    values = exact.reindex(wanted).reset_index(drop=True)
    fallback = named.reindex(pd.MultiIndex.from_frame(rows[by_name])).reset_index(drop=True)
    values = values.where(pd.Series(found), fallback).astype(float)
    return pd.concat([rows.reset_index(drop=True), values], axis=1)
