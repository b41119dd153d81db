"""Prediction of published operators that took no part in a fit, from what is measured of their downsampling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from invariscope.analysis.designs.assigned import (
    AUGMENTATION,
    DRAWN,
    HELD_OUT,
    LOGIT,
    POPULATION,
    ROTATED,
    Settings,
    cells_of,
    require_one_plan,
)
from invariscope.analysis.stats.resampling import NOMINAL, Array, bootstrap_counts
from invariscope.base.errors import TableError

MODELS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "MSB": ("msb_corrected",),
        "see": ("see",),
        "MSB and see": ("msb_corrected", "see"),
        "MSB, see and selectivity": ("msb_corrected", "see", "selectivity"),
    }
)
"""What predicts, beside padding and augmentation; MSB enters with its square."""

LEAST_HELD_OUT = 5
"""Operators, below which there is no share of variance."""

_SQUARED = "msb_corrected"
_BY_CONSTRUCTION = re.compile(r"(aps|lps)\b|tips\((?=.*pool=phase)(?=.*hard=true)")


@dataclass(frozen=True)
class Prediction:
    """``networks``: a row per held-out operator, condition and model with ``observed`` and ``predicted`` consistency,
    their logits, and ``by_construction``. ``summary``: a row per model with R² on logits and in consistency and the
    mean absolute error in points, each with a bootstrap's interval over the operators. ``cells``: the same in each
    cell.
    """

    networks: pd.DataFrame
    summary: pd.DataFrame
    cells: Mapping[str, pd.DataFrame]


def predict_held_out(rows: pd.DataFrame, settings: Settings | None = None) -> Prediction:
    """Statement 5: least squares of the logit over P and R in each cell, and what it predicts of H.

    Several runs of one operator and condition are averaged. ``R² = 1 - sum (y - yhat)² / sum (y - mean of the cell)²``,
    below 0 where the mean predicts better. Operators that are consistent by construction (``aps``, ``lps`` and hard
    phase ``tips`` in circular networks, under circular shifts) are predicted and take no part in the summary. A model
    whose readings are not measured is left out.

    Args:
        rows: of one kind of shift, as :func:`invariscope.analysis.designs.assigned.admitted` gives them.

    Raises:
        TableError: for rows of several plans, no held-out operators, or no model that can be fitted.
    """
    settings = settings or Settings()
    require_one_plan(rows)
    kinds = rows[POPULATION].astype(str)
    held = rows[kinds == HELD_OUT]
    if held.empty:
        raise TableError("nothing is held out: no checkpoint has the factor `population` H")
    parts = []
    for name, readings in MODELS.items():
        if all(reading in rows.columns for reading in readings):
            for cell, members in cells_of(rows):
                parts += _predicted(name, readings, cell, members)
    if not parts:
        raise TableError("held-out operators: no reading was measured of both them and the drawn ones")
    networks = pd.concat(parts, ignore_index=True)
    networks = networks.assign(by_construction=constructed(networks, str(rows["shift_kind"].iloc[0])))
    counted = networks[~networks["by_construction"]]
    cells = {str(cell): summarised(members, settings) for cell, members in counted.groupby("cell")}
    return Prediction(networks, summarised(counted, settings), cells)


EXACT = 0.999
"""Consistency from which on a network is as consistent as it was built to be: ties of phases are the only way not to
be."""


def constructed(networks: pd.DataFrame, kind: str) -> pd.Series:
    """Whether each network is consistent by construction under a kind of shift, by its ``operator`` (a specification)
    and ``padding_mode``; ties of phases aside, as those of an ``lps`` whose scoring network is dead.
    """
    circular = (networks["padding_mode"] == "circular") & (kind == "circular")
    named = networks["operator"].map(lambda text: _BY_CONSTRUCTION.match(str(text)) is not None)
    return circular & named.astype(bool)


def _predicted(name: str, readings: Sequence[str], cell: str, members: pd.DataFrame) -> list[pd.DataFrame]:
    known = members.loc[np.isfinite(members[list(readings)].to_numpy(dtype=float)).all(axis=1)]
    kinds = known[POPULATION].astype(str)
    fitted, held = known.loc[kinds.isin([DRAWN, ROTATED])], known.loc[kinds == HELD_OUT]
    if held.empty or len(fitted) < 10 * (len(readings) + 3):
        return []
    design, new = _design(fitted, readings), _design(held, readings)
    params = np.linalg.lstsq(design, fitted[LOGIT].to_numpy(dtype=float), rcond=None)[0]
    made = pd.DataFrame(
        {
            "model": name,
            "cell": cell,
            "operator": held["operator_spec"].astype(str),
            "padding_mode": held["padding_mode"].astype(str),
            "observed_logit": held[LOGIT].astype(float),
            "predicted_logit": new @ params,
        }
    )
    by = ["model", "cell", "operator", "padding_mode"]
    made = made.groupby(by, as_index=False)[["observed_logit", "predicted_logit"]].mean()
    observed, predicted = (special.expit(made[f"{which}_logit"]) for which in ("observed", "predicted"))
    return [made.assign(observed=observed, predicted=predicted)]


def _design(rows: pd.DataFrame, readings: Sequence[str]) -> Array:
    columns = [np.ones(len(rows)), (rows["padding_mode"] != "circular").to_numpy(dtype=float)]
    if AUGMENTATION in rows.columns:
        none = rows[AUGMENTATION].isna() | (rows[AUGMENTATION].astype(str) == "none")
        columns.append((~none).to_numpy(dtype=float))
    for reading in readings:
        values = rows[reading].to_numpy(dtype=float)
        columns += [values, values**2] if reading == _SQUARED else [values]
    return np.column_stack(columns)


def summarised(networks: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """R² and errors of some of the ``networks`` of a :class:`Prediction`, with a bootstrap's intervals."""
    records: list[dict[str, Any]] = []
    errors = {}
    for name, members in networks.groupby("model", sort=False):
        units, operators = pd.factorize(members["operator"])
        counts = np.vstack(
            [np.ones(len(operators)), bootstrap_counts(len(operators), settings.resamples, settings.seed)]
        )
        weights = counts[:, units]
        absolute = 100 * (members["observed"] - members["predicted"]).abs().to_numpy()
        errors[name] = (members[["cell", "operator", "padding_mode"]], absolute, weights)
        measures = {"mean absolute error in points": (weights @ absolute) / weights.sum(axis=1)}
        if len(operators) >= LEAST_HELD_OUT:
            measures |= {
                "R² on logits": _explained(members, "observed_logit", "predicted_logit", weights),
                "R² in consistency": _explained(members, "observed", "predicted", weights),
            }
        shared = {"model": name, "n": len(members), "n_units": len(operators)}
        records += [{**shared, "measure": measure, **_interval(values)} for measure, values in measures.items()]
    if {"MSB", "see"} <= errors.keys() and errors["MSB"][0].reset_index(drop=True).equals(
        errors["see"][0].reset_index(drop=True)
    ):
        (_, one, weights), (about, other, _) = errors["MSB"], errors["see"]
        gain = (weights @ (other - one)) / weights.sum(axis=1)
        measure = "mean absolute error in points, less that of MSB"
        shared = {"model": "see", "n": len(about), "n_units": about["operator"].nunique()}
        records.append({**shared, "measure": measure, **_interval(gain)})
    return pd.DataFrame(records)


def _explained(members: pd.DataFrame, observed: str, predicted: str, weights: Array) -> Array:
    """``(1 + resamples,)`` R², with each cell's own mean."""
    y, fitted = (members[name].to_numpy(dtype=float) for name in (observed, predicted))
    cells = pd.factorize(members["cell"])[0]
    left = weights @ (y - fitted) ** 2
    total = np.zeros(len(weights))
    for cell in np.unique(cells):
        mine = weights[:, cells == cell]
        part = y[cells == cell]
        total += mine @ part**2 - (mine @ part) ** 2 / np.maximum(mine.sum(axis=1), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(total > 1e-12, 1 - left / total, np.nan)
    return found


def _interval(values: Array) -> dict[str, float]:
    """The first value with the percentiles of the others; no interval where none of them is a number."""
    if np.isnan(values[1:]).all():
        return {"estimate": float(values[0]), "low": np.nan, "high": np.nan}
    low, high = np.nanpercentile(values[1:], [100 * (1 - NOMINAL) / 2, 100 * (1 + NOMINAL) / 2])
    return {"estimate": float(values[0]), "low": float(low), "high": float(high)}
