"""The chain from operator to prediction, link by link: operator -> MSB, selectivity, equivariance error -> drift at the
last map -> drift of the logits -> consistency.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import BLOCK, DRAW
from invariscope.analysis.stats.importance import lmg_shares, r_squared, vif
from invariscope.analysis.stats.regression.estimate import logits
from invariscope.analysis.stats.regression.sandwich import bias_reduced
from invariscope.analysis.stats.resampling import NOMINAL, Array, cluster_codes
from invariscope.analysis.tables.checkpoints import NETWORK, own
from invariscope.analysis.tables.plans import DATA_AND_PLAN, filled
from invariscope.base.errors import TableError
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_SCORE

RIVALS = ("msb_corrected", "selectivity", "see")
"""What the operator gives the network; see METRICS of the documentation."""

LAST, LOGITS, SCORE = "drift_last", "drift_logits", "logit_score"
"""Logarithms of the drift at the last map and of the logits; the score on the logit scale."""

EXACT = 1e-9
"""Drift of the logits, or an equivariance error's square, that is rounding: such a network moves exactly along with its
image, by construction. Its logarithm would outweigh all others."""

CONDITION = ["architecture", "padding_mode"]
OPERATOR_LINK = "operator -> reading"
LEAST_CLUSTERS = 8
"""Operators below which a link has no fit: three rivals and an error take so many."""

_NAMED = ["checkpoint", "operator"]

COLUMNS = [
    *(*DATA_AND_PLAN, "link", "outcome", "predictor", "path", "se", "low", "high", "p", "df"),
    *("vif", "share", "r_squared", "n", "n_clusters", "note"),
]


def chain(joined: pd.DataFrame, drift: pd.DataFrame | None = None, *, score: str = PRIMARY_SCORE) -> pd.DataFrame:
    """Standardised path coefficients of every link, a row per data set, shift plan, link and predictor.

    Variables are deviations from the means of architecture and padding, divided by their standard deviation: a ``path``
    is the change of the outcome in standard deviations per one of the predictor, the others of the link held equal.
    Links: drift at the last map (log) on the rivals; drift of the logits (log) on that and the rivals; the score
    (logit) on the drift of the logits and the rivals. What is left to a rival beside a drift is its direct path.
    Networks that move exactly along with their images, by construction, are left out and counted in the note.
    The link from the operator to a reading is the share of the reading's variance between operators, adjusted for their
    number. Least squares; CR2 errors with Satterthwaite's degrees of freedom, clusters are drawn operators (the
    rotations of one are one), or specifications where none were drawn. ``vif = 1 / (1 - R²)`` of a predictor on the
    others; ``share``: LMG, the mean gain in R² over all orders, of ``r_squared``. Association, not cause: none but the
    operator was assigned.

    Args:
        joined: :func:`invariscope.analysis.join`'s frame.
        drift: frame ``drift`` of :class:`Frames`; without it the score is regressed on the rivals alone, and a note
            says so.

    Raises:
        TableError: a missing column, or no plan with enough operators.
    """
    parts = [_of_plan(keys, rows) for keys, rows in plans(joined, drift, score=score)]
    return pd.DataFrame([record for part in parts for record in part], columns=COLUMNS)


def plans(
    joined: pd.DataFrame, drift: pd.DataFrame | None = None, *, score: str = PRIMARY_SCORE
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The standardised variables of every data set and plan, with ``unit`` (operator) and ``cluster``; drifts where
    they were measured."""
    wanted = [*CONDITION, *_NAMED, "operator_spec", score, "n_images", *RIVALS]
    missing = [name for name in wanted if name not in joined.columns]
    if missing:
        raise TableError(f"chain needs the columns {', '.join(missing)}: give the frame of analysis.join")
    rows = own(joined)
    rows = filled(rows[rows["final"].astype(bool)] if "final" in rows else rows)
    if drift is not None and len(drift):
        rows = rows.merge(_drifts(drift), on=[*NETWORK, *DATA_AND_PLAN], how="left")
    count = 0
    for keys, members in rows.groupby(DATA_AND_PLAN, sort=False, dropna=False):
        made = _standardised(members, score)
        if made["cluster"].nunique() >= LEAST_CLUSTERS:
            count += 1
            yield dict(zip(DATA_AND_PLAN, keys, strict=True)), made
    if not count:
        raise TableError(
            f"chain: no plan has {LEAST_CLUSTERS} operators whose {', '.join(RIVALS)} and {score} are known and vary"
        )


def _drifts(drift: pd.DataFrame) -> pd.DataFrame:
    head = filled(drift[drift["site"].isna()])
    head = head.rename(columns={"drift_in": LAST, "drift_out": LOGITS})
    return head[[*NETWORK, *DATA_AND_PLAN, LAST, LOGITS]].drop_duplicates([*NETWORK, *DATA_AND_PLAN])


def _standardised(rows: pd.DataFrame, score: str) -> pd.DataFrame:
    """The variables that are known and vary, with what tells rows apart; no row without a score or a rival."""
    values = rows[list(RIVALS)].astype(float)
    for name in (LAST, LOGITS):
        if name in rows:
            drift = rows[name].astype(float)
            values[name] = np.log(drift.where(drift > 0))
    values[SCORE] = logits(rows[score].to_numpy(dtype=float), rows["n_images"].to_numpy(dtype=float))
    drifts = rows[LOGITS].astype(float) if LOGITS in values else rows["see"].astype(float) ** 2
    exact = (drifts.fillna(1.0) <= EXACT).to_numpy() & (rows[score].astype(float) >= 1).to_numpy()
    names = [str(name) for name in values if np.isfinite(values[name]).any()]
    values = values[names]
    known = np.isfinite(values.to_numpy(dtype=float)).all(axis=1) & ~exact
    kept = rows[known]
    if kept.empty:
        return pd.DataFrame(columns=["unit", "cluster", *_NAMED, "n_left_out", "n_exact"])
    conditions = [kept[name].astype(object).where(kept[name].notna(), "not given") for name in CONDITION]
    centred = values[known] - values[known].groupby(conditions).transform("mean")
    spread = centred.std(ddof=1)
    varied = [name for name in names if float(spread[name]) > 1e-12]
    specs = kept["operator_spec"].where(kept["operator_spec"].notna(), "not given")
    unit = kept[DRAW].where(kept[DRAW].notna(), specs) if DRAW in kept else specs
    cluster = kept[BLOCK].where(kept[BLOCK].notna(), unit) if BLOCK in kept else unit
    made = centred[varied] / spread[varied]
    about = {"unit": unit.astype(str), "cluster": cluster.astype(str), **{name: kept[name] for name in _NAMED}}
    made = made.assign(**about, n_left_out=int((~known & ~exact).sum()), n_exact=int(exact.sum()))
    return made if SCORE in varied and {*RIVALS}.intersection(varied) else made.iloc[:0]


def _of_plan(keys: dict[str, Any], rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    present = [name for name in (LAST, LOGITS) if name in rows]
    notes = [] if len(present) == 2 else ["drift was not measured: collect `drift` for the links between"]
    if rows["n_left_out"].iloc[0]:
        notes.append(f"{counted(rows['n_left_out'].iloc[0], 'network')} without a number")
    if rows["n_exact"].iloc[0]:
        notes.append(f"without {counted(rows['n_exact'].iloc[0], 'network')} consistent by construction")
    note = "; ".join(notes)
    for reading in RIVALS:
        yield {**keys, **_between(rows, reading)}
    rivals = [name for name in RIVALS if name in rows]
    before: list[str] = []
    for outcome in [*present, SCORE]:
        for record in _link(rows, outcome, [*rivals, *before]):
            yield {**keys, **record, "note": "; ".join(filter(None, (record.get("note"), note)))}
        before = [outcome]


def _between(rows: pd.DataFrame, reading: str) -> dict[str, Any]:
    """The share of a reading's variance between operators: ``1 - MS within / MS total``."""
    about = {"link": OPERATOR_LINK, "outcome": reading, "predictor": "operator", "n": len(rows)}
    groups = rows["unit"].nunique()
    about |= {"n_clusters": groups}
    if reading not in rows:
        return {**about, "note": "not measured, or the same for all"}
    if groups == len(rows):
        return {**about, "note": "every operator has one network: nothing is within operators"}
    within = rows[reading] - rows.groupby("unit")[reading].transform("mean")
    total = float(rows[reading].var(ddof=1))
    share = 1 - float((within**2).sum()) / (len(rows) - groups) / total
    return {**about, "share": max(share, 0.0), "r_squared": max(share, 0.0), "note": "between operators, adjusted"}


def _link(rows: pd.DataFrame, outcome: str, predictors: Sequence[str]) -> Iterator[dict[str, Any]]:
    x = rows[list(predictors)].to_numpy(dtype=float)
    y = rows[outcome].to_numpy(dtype=float)
    design = np.column_stack([np.ones(len(y)), x])
    codes, groups = cluster_codes(rows["cluster"])
    about = {"link": f"{', '.join(predictors)} -> {outcome}", "outcome": outcome, "n": len(y),
             "n_clusters": groups}  # fmt: skip
    if np.linalg.matrix_rank(design) < design.shape[1]:
        yield {**about, "predictor": ", ".join(predictors), "note": "the predictors are collinear: no fit"}
        return
    params: Array = np.linalg.lstsq(design, y, rcond=None)[0]
    sandwich = bias_reduced(design, codes)
    errors = sandwich.errors(y - design @ params)
    shares = lmg_shares(rows, outcome, {name: [name] for name in predictors})
    inflation = vif(x)
    for place, name in enumerate(predictors, start=1):
        se, df = float(errors[place]), float(sandwich.df[place])
        half = float(stats.t.ppf((1 + NOMINAL) / 2, df)) * se if df >= 1 else np.nan
        value = float(params[place])
        yield {
            **about, "predictor": name, "path": value, "se": se, "low": value - half, "high": value + half, "df": df,
            "p": float(2 * stats.t.sf(abs(value / se), df)) if se > 0 and df >= 1 else np.nan,
            "vif": float(inflation[place - 1]), "share": float(shares[name]), "r_squared": r_squared(x, y),
        }  # fmt: skip
