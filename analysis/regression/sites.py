"""Does early or late MSB matter: the slopes of a network's sites, together, one at a time, and as mean and contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.regression.design import assemble, columns_of
from analysis.regression.model import COLUMNS, Model, need
from analysis.regression.slopes import fit

COLLINEAR = 10.0
"""A variance inflation factor above this says that the sites cannot be told apart (Belsley, Kuh & Welsch 1980)."""

MEAN, CONTRAST = "mean over sites", "late minus early"
SITE_COLUMNS = ["architecture", "n_sites", "parametrisation", *COLUMNS, "vif", "condition_number", "note"]


def site_slopes(
    frame: pd.DataFrame, model: Model, sites: Sequence[str], architecture: str = "architecture"
) -> pd.DataFrame:
    """The model with the MSB of every site in front of ``model.numeric`` (its covariates), per architecture.

    ``sites`` names the columns of the sites' MSB from the first to the last in the network. Of each architecture the
    checkpoints with its commonest number of sites take part; the others count as missing. Rows, by
    ``parametrisation``:

    * ``joint``: every site's slope given the others, with ``vif`` = ``1 / (1 - R²)`` of its column on all others and
      the ``condition_number`` of the design with columns scaled to unit length; ``note`` where :data:`COLLINEAR`;
    * ``one at a time``: each site's slope without the others;
    * ``mean and contrast``: the slope of the mean over the sites, and that of the mean of the later half minus the mean
      of the earlier half (the middle one in neither) at equal mean.

    Raises:
        TableError: the frame lacks a column.
    """
    need(frame, [architecture, *sites])
    tables = []
    for value, rows in frame.groupby(architecture, sort=True):
        found = _of_architecture(rows, model, list(sites))
        tables.append(found.assign(architecture=value))
    made = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=SITE_COLUMNS)
    return made.reindex(columns=SITE_COLUMNS)


def _of_architecture(rows: pd.DataFrame, model: Model, sites: list[str]) -> pd.DataFrame:
    measured = np.isfinite(rows[sites].to_numpy(dtype=float))
    count = int(pd.Series(measured.sum(axis=1)).mode().iloc[-1])
    present = sites[:count]
    kept = rows[(measured.sum(axis=1) == count) & measured[:, :count].all(axis=1)]
    if count < 2 or kept.empty:
        reason = "one site only: there is no early and late" if count == 1 else "no site has an MSB"
        empty = fit(rows.iloc[:0].assign(**{MEAN: np.nan}), replace(model, numeric=(MEAN, *model.numeric)))
        return empty.iloc[:1].assign(parametrisation="joint", n_sites=count, reason=reason, note="")
    half = count // 2
    early, late = (kept[part].mean(axis=1) for part in (present[:half], present[-half:]))
    kept = kept.assign(**{MEAN: kept[present].mean(axis=1), CONTRAST: late - early})
    tables = [_joint(kept, replace(model, numeric=(*present, *model.numeric)), present)]
    tables += [_terms(kept, model, [name], "one at a time") for name in present]
    tables.append(_terms(kept, model, [MEAN, CONTRAST], "mean and contrast"))
    found = pd.concat(tables, ignore_index=True)
    return found.assign(n_sites=count, n_missing=found["n_missing"] + len(rows) - len(kept))


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
