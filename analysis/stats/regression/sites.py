"""Does early or late MSB matter: the slopes of a network's sites, together, one at a time, and as mean and contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from invariscope.analysis.stats.regression.design import assemble, columns_of
from invariscope.analysis.stats.regression.model import COLUMNS, Model, need
from invariscope.analysis.stats.regression.slopes import fit

COLLINEAR = 10.0
"""A variance inflation factor above this says that the sites cannot be told apart (Belsley, Kuh & Welsch 1980)."""

MEAN, CONTRAST = "mean over sites", "late minus early"
SITE_COLUMNS = ["architecture", "n_sites", "parametrisation", *COLUMNS, "vif", "condition_number", "note"]


def site_slopes(
    frame: pd.DataFrame, model: Model, sites: Sequence[str], architecture: str = "architecture"
) -> pd.DataFrame:
    """The model with the MSB of every site in front of ``model.numeric`` (its covariates), per architecture.

    ``sites`` names the columns of the sites' MSB from the first to the last in the network. Of each architecture the
    checkpoints with its commonest set of measured sites take part (among equals the largest, then the earliest); the
    others count as missing. A site that the set lacks, before the last that any checkpoint of the architecture has, is
    named in ``note``, or in ``reason``. Rows, by ``parametrisation``:

    * ``joint``: every site's slope given the others, with ``vif`` = ``1 / (1 - R²)`` of its column on all others and
      the ``condition_number`` of the design with columns scaled to unit length; ``note`` where :data:`COLLINEAR`;
    * ``one at a time``: each site's slope without the others;
    * ``mean and contrast``: the slope of the mean over the sites, and that of the mean of the later half minus the mean
      of the earlier half (the middle one in neither) at equal mean.

    Raises:
        TableError: the frame lacks a column.
    """
    need(frame, [architecture, *sites])
    columns_of(frame, model)
    frame = frame.assign(**{name: pd.to_numeric(frame[name], errors="coerce") for name in sites})
    tables = []
    for value, rows in frame.groupby(architecture, sort=True):
        found = _of_architecture(rows, model, list(sites))
        tables.append(found.assign(architecture=value))
    if not tables:
        reason = f"no row has a value of {architecture}: there are no sites to compare"
        tables.append(_nothing(frame, model, 0, reason).assign(architecture=""))
    return pd.concat(tables, ignore_index=True).reindex(columns=SITE_COLUMNS)


def _nothing(rows: pd.DataFrame, model: Model, count: int, reason: str) -> pd.DataFrame:
    """The one row of an architecture whose sites cannot be compared."""
    empty = fit(rows.iloc[:0].assign(**{MEAN: np.nan}), replace(model, numeric=(MEAN, *model.numeric))).iloc[:1]
    return empty.assign(parametrisation="joint", n_sites=count, n_missing=len(rows), reason=reason, note="")


def _commonest(measured: np.ndarray) -> np.ndarray:
    """The commonest row of ``measured`` that has a site at all; among equals the largest, then the earliest sites."""
    some = measured[measured.any(axis=1)]
    if not len(some):
        return np.zeros(measured.shape[1], dtype=bool)
    patterns, counts = np.unique(some, axis=0, return_counts=True)
    ranked = [(count, row.sum(), tuple(row)) for row, count in zip(patterns, counts, strict=True)]
    return np.array(max(ranked)[2])


def _of_architecture(rows: pd.DataFrame, model: Model, sites: list[str]) -> pd.DataFrame:
    measured = np.isfinite(rows[sites].to_numpy(dtype=float))
    pattern = _commonest(measured)
    present, count = [name for name, here in zip(sites, pattern, strict=True) if here], int(pattern.sum())
    depth = 1 + max(np.flatnonzero(measured.any(axis=0)), default=-1)
    lacking = [name for name in sites[:depth] if name not in present]
    without = f"without {', '.join(lacking)}, which {'has' if len(lacking) == 1 else 'have'} no MSB" if lacking else ""
    if count < 2:
        only = f"one site only ({present[0]}, {without})" if without else "one site only"
        return _nothing(rows, model, count, f"{only}: there is no early and late" if count else "no site has an MSB")
    kept = rows[(measured == pattern).all(axis=1)]
    half = count // 2
    early, late = (kept[part].mean(axis=1) for part in (present[:half], present[-half:]))
    kept = kept.assign(**{MEAN: kept[present].mean(axis=1), CONTRAST: late - early})
    tables = [_joint(kept, replace(model, numeric=(*present, *model.numeric)), present)]
    tables += [_terms(kept, model, [name], "one at a time") for name in present]
    tables.append(_terms(kept, model, [MEAN, CONTRAST], "mean and contrast"))
    found = pd.concat(tables, ignore_index=True)
    note = ["; ".join(part for part in (text, without) if part) for text in found["note"]]
    return found.assign(n_sites=count, n_missing=found["n_missing"] + len(rows) - len(kept), note=note)


def _terms(rows: pd.DataFrame, model: Model, terms: list[str], parametrisation: str) -> pd.DataFrame:
    found = fit(rows, replace(model, numeric=(*terms, *model.numeric)))
    return found[found["term"].isin(terms)].assign(parametrisation=parametrisation, note="")


def _joint(rows: pd.DataFrame, model: Model, sites: list[str]) -> pd.DataFrame:
    from statsmodels.stats.outliers_influence import variance_inflation_factor

    found = fit(rows, model)
    found = found[found["term"].isin(sites)].assign(parametrisation="joint", note="")
    design = assemble(columns_of(rows, model), model)
    if design.reason:
        return found
    names, matrix = list(design.terms), design.matrix
    inflation = {name: float(variance_inflation_factor(matrix, names.index(name))) for name in sites if name in names}
    condition = float(np.linalg.cond(matrix / np.linalg.norm(matrix, axis=0)))
    notes = {
        name: f"collinear with the other columns (variance inflation {value:.0f}): read the mean and the contrast"
        for name, value in inflation.items()
        if value > COLLINEAR
    }
    note = [notes.get(name, "") for name in found["term"]]
    return found.assign(vif=found["term"].map(inflation), condition_number=condition, note=note)
