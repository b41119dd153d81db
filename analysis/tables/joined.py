"""One tidy frame of everything: a row per checkpoint, data set and shift plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from invariscope.analysis.tables.checkpoints import FACTORS, NETWORK, with_checkpoints
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.plans import filled, keeps_size, shifted
from invariscope.analysis.tables.sites import network_readings, own_sites
from invariscope.base.errors import TableError
from invariscope.collectors.schema import PLAN_COLUMNS, PRIMARY_READING, SCORES

PIXEL_SCORES = ("consistency_pixel", "consistency_pixel_corrected", "fidelity_pixel")
"""Scores of pixels that have the place of those of images in :func:`join_pixels`; mIoU has accuracy's."""

_DATA = ["data", "data_fingerprint"]


def join(tables: Tables) -> pd.DataFrame:
    """One row per checkpoint × data set × shift plan.

    Columns: ``checkpoint``, ``sha256``, ``model``; the factors (``architecture``, ``operator``, ``operator_spec``,
    ``strength``, ``padding_mode``, ``training_data``, ``seed``, ``run``, ``epoch``, ``n_params``) and the manifest's
    further ones as ``factor_<name>``; ``data``, ``data_fingerprint``; the plan (``shift_kind``, ``fill``,
    ``max_shift``, ``n_shifts``, ``plan``, ``plan_hash``); every score with its standard error (``consistency``,
    ``consistency_se``), ``accuracy`` from the unshifted images, ``n_images``, ``n_pairs``; every MSB reading and
    ``flat_fraction`` as the unweighted mean over the measured sites, with ``_se`` = the mean of the sites' standard
    errors (the sites see the same images, so their errors are correlated by an unknown amount: this is the largest that
    the error of the mean can be), missing where a shrink of the network is not explained; ``n_sites``,
    ``n_sites_unmeasured``, ``n_sites_unexplained``, side branches not counted; ``cluster`` and ``final``;
    ``operator_equivariance_error`` of the operator alone; ``deterministic``, false for what is no function of the
    image. What a checkpoint is, and which of its names counts, is said in module
    :mod:`invariscope.analysis.tables.checkpoints`.

    MSB and accuracy are taken from the same images where both were measured on them, else from the data set of the
    same name. The views of a kind that does not keep the size (``crop``) are of another scale, and their accuracy is
    their own, that of the view at the centre; it is missing where it was not measured.

    Raises:
        TableError: no checkpoint described, no shift measured, a measured checkpoint that is not described, a name
            that is described twice, or two measurements of the same thing.
    """
    return _joined(tables, "invariance", SCORES, "accuracy")


def join_pixels(tables: Tables) -> pd.DataFrame:
    """As :func:`join`, of table ``segmentation``: :data:`PIXEL_SCORES` under every shift plan, ``miou`` from the
    unshifted images.

    Raises:
        TableError: as :func:`join`.
    """
    return _joined(tables, "segmentation", PIXEL_SCORES, "miou")


def _joined(tables: Tables, table: str, scores: Sequence[str], unshifted: str) -> pd.DataFrame:
    """The ``scores`` of ``table`` under its shifts, and ``unshifted``, the one of its rows without a shift."""
    measured: pd.DataFrame = getattr(tables, table)
    moved = shifted(measured)
    moved = moved[moved["score"].isin([*scores, unshifted])]
    if moved.empty:
        raise TableError(f"table {table} holds no shifts; collect `{table}` with at least one shift kind first")
    still = measured[(measured["shift_kind"] == "none") & (measured["score"] == unshifted)]
    rows = _scores(moved[moved["score"] != unshifted], table, [name for name in scores if name != unshifted])
    rows = _attach(rows, _unshifted(still, table, unshifted))
    rows = with_own_scores(rows, moved, [unshifted], [*NETWORK, *_DATA, *PLAN_COLUMNS])
    rows = _attach(rows, _readings(tables.layers))
    rows = with_checkpoints(rows, tables, table)
    first = ["checkpoint", *NETWORK, *FACTORS, "cluster", "final", *_DATA, *PLAN_COLUMNS]
    order = [*first, *(column for column in rows.columns if column not in first)]
    made = rows[order].sort_values(["data", "shift_kind", "max_shift", "checkpoint"], ignore_index=True)
    made.attrs = dict(rows.attrs)
    return made


def with_sites(rows: pd.DataFrame, tables: Tables, reading: str = PRIMARY_READING) -> pd.DataFrame:
    """Add ``site_<depth>``, the ``reading`` of each downsampling site from the first (0) to the last in the network.

    ``rows`` as :func:`join` gives them; a checkpoint with fewer sites than another, or with a site that has no number,
    has a missing value there. Taken from the same images as the mean over the sites.
    """
    measured = own_sites(tables.layers)
    measured = measured[measured["depth"].notna() & measured["site"].notna()]
    wide = measured.pivot(index=[*NETWORK, *_DATA], columns="depth", values=reading)
    wide.columns = pd.Index([f"site_{int(depth)}" for depth in wide.columns])
    joined = _attach(rows, wide.reset_index())
    joined.attrs = dict(rows.attrs)
    return joined


def _refuse_repeats(rows: pd.DataFrame, keys: list[str], table: str) -> None:
    repeated = rows[rows.duplicated(keys, keep=False)]
    if len(repeated):
        first = repeated.iloc[0]
        raise TableError(
            f"table {table} holds two measurements of checkpoint {first['checkpoint']!r} on {first['data']} that "
            f"differ in their settings only (task {first['task']} is one); "
            "collect each setting into a folder of its own"
        )


def _scores(moved: pd.DataFrame, table: str, scores: Sequence[str]) -> pd.DataFrame:
    keys = [*NETWORK, *_DATA, *PLAN_COLUMNS]
    _refuse_repeats(moved, [*keys, "score"], table)
    moved = filled(moved)
    wide = moved.pivot(index=keys, columns="score", values=["value", "se"])
    wide = pd.concat([wide["value"], wide["se"].add_suffix("_se")], axis=1)
    ordered = [name for score in scores for name in (score, f"{score}_se") if name in wide.columns]
    counts = moved.groupby(keys)[["n_images", "n_pairs"]].max()
    rows = wide[ordered].astype(float).join(counts).reset_index()
    rows["fill"] = rows["fill"].where(rows["fill"] != "", None)
    return rows


def with_own_scores(rows: pd.DataFrame, moved: pd.DataFrame, scores: Sequence[str], keys: list[str]) -> pd.DataFrame:
    """``rows`` whose ``scores`` of unshifted images are, where the views of a kind have their own, those.

    A kind that does not keep the size and has none (older tables) has no number there. ``moved``: the rows of a table
    under a shift.
    """
    rows, moved = filled(rows), filled(moved)
    wanted = pd.MultiIndex.from_frame(rows[keys])
    for score in scores:
        own = moved[moved["score"] == score].set_index(keys)
        has, other = wanted.isin(own.index), ~rows["shift_kind"].map(keeps_size).to_numpy(dtype=bool)
        for name, column in ((score, "value"), (f"{score}_se", "se")):
            views = own[column].reindex(wanted).to_numpy(dtype=float)
            rows[name] = np.where(has | other, views, rows[name].to_numpy(dtype=float))
    return rows.assign(fill=rows["fill"].where(rows["fill"] != "", None))


def _unshifted(still: pd.DataFrame, table: str, score: str) -> pd.DataFrame:
    _refuse_repeats(still, [*NETWORK, *_DATA], table)
    return still[[*NETWORK, *_DATA, "value", "se"]].rename(columns={"value": score, "se": f"{score}_se"})


def _readings(layers: pd.DataFrame) -> pd.DataFrame:
    _refuse_repeats(layers, [*NETWORK, *_DATA, "depth"], "layers")
    return network_readings(layers, [*NETWORK, *_DATA])


def _attach(rows: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Columns of ``other`` for each row: by fingerprint, else by the data set's name where that is unambiguous."""
    by_images = [*NETWORK, *_DATA]
    by_name = [*NETWORK, "data"]
    exact = other.set_index(by_images)
    named = other.drop_duplicates(by_name, keep=False).drop(columns="data_fingerprint").set_index(by_name)
    wanted = pd.MultiIndex.from_frame(rows[by_images])
    found = wanted.isin(exact.index)
    values = exact.reindex(wanted).reset_index(drop=True)
    fallback = named.reindex(pd.MultiIndex.from_frame(rows[by_name])).reset_index(drop=True)
    values = values.where(pd.Series(found), fallback).astype(float)
    return pd.concat([rows.reset_index(drop=True), values], axis=1)
