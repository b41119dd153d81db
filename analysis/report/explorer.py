"""What the explorer draws: every checkpoint with its factors, readings and scores, as columns for the page's script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.figures import style
from invariscope.analysis.report.colours import light_dark, outline
from invariscope.analysis.report.packed import column, number
from invariscope.analysis.say.plan_words import plan_in_menu
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.tables.checkpoints import NETWORK, is_elsewhere, metrics_of, operators_named
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.plans import PLAN, filled
from invariscope.base.errors import TableError
from invariscope.collectors.schema import (
    MSB_READINGS,
    OPERATOR_ERROR,
    OTHER_READINGS,
    PLAN_COLUMNS,
    PRIMARY_READING,
    SCORES,
)

MAX_NETWORKS = 3000
"""Of more networks the page holds a random sample, and says so: all of them would make it slow to open."""

FEW = 12
"""Numbers of at most so many values are also levels that colour and shape can tell."""

DRIFTS = {"drift_last_map": "drift at the last map", "drift_logits": "drift of the logits"}
"""Of table ``drift``, what comes to the head and what leaves it."""

_FACTORS = {
    "operator": "operator",
    "operator_spec": "setting of the operator",
    "architecture": "architecture",
    "padding_mode": "padding",
    "training_data": "trained on",
    "run": "run",
}
_NUMBERS = {"strength": "strength", "seed": "seed", "epoch": "epochs", "n_params": "parameters"}
_UNIT = [*NETWORK, "data", "data_fingerprint"]
_T_UP_TO = 60


def explorer(frames: Frames, vocabulary: Vocabulary = IMAGES) -> dict[str, Any]:
    """Everything that the explorer's script needs, JSON-ready and the same for equal frames.

    ``units`` are networks on a data set, ``rows`` those under a shift plan. A column is of one or the other
    (``of``), so that nothing is repeated; ``role`` says whether it is a measure (an axis, and a colour from little to
    much) or a factor (a colour or a shape per level). A measure has ``low`` and ``high``, the ends of its 95 %
    interval: a score's as measured, a reading's as the largest that its standard error can be.
    """
    rows = operators_named(with_drift(frames, vocabulary))
    total = len(rows[NETWORK].drop_duplicates())
    rows = sample(rows)
    unit = rows.groupby(_UNIT, sort=False, dropna=False).ngroup().to_numpy()
    first = np.unique(unit, return_index=True)[1]
    plans = plan_labels(rows)
    known = list(dict.fromkeys(plans))
    columns = [
        *(_factor(name, title, rows[name], unit, first) for name, title in _factors(rows)),
        *_measures(rows, frames, vocabulary, unit, first),
    ]
    made = [found for found in columns if found is not None]
    names = {found["name"] for found in made if found["role"] == "measure"}
    return {
        "names": [str(name) for name in rows["checkpoint"].to_numpy()[first]],
        "final": [int(last) for last in rows["final"].to_numpy()[first]],
        "elsewhere": [int(other) for other in is_elsewhere(rows).to_numpy()[first]],
        "unit": unit.tolist(),
        "plan": [known.index(plan) for plan in plans],
        "plans": known,
        "columns": made,
        "marks": {name: [light_dark(mark.color), outline(mark.marker)] for name, mark in _marks(rows).items()},
        "palette": [light_dark(mark.color) for mark in style.MARKS.values()],
        "shapes": [outline(mark.marker) for mark in style.MARKS.values()],
        "ramp": [light_dark(color) for color in style.RAMP],
        "t": [round(float(value), 3) for value in stats.t.ppf(0.975, range(1, _T_UP_TO + 1))],
        "start": {
            "x": PRIMARY_READING if PRIMARY_READING in names else next(iter(names), ""),
            "y": vocabulary.score if vocabulary.score in names else next(iter(names), ""),
            "plan": known.index(plans[int((rows["data"] == rows["data"].mode().iloc[0]).to_numpy().argmax())]),
        },
        "sampled": [len(rows[NETWORK].drop_duplicates()), total],
    }


def with_drift(frames: Frames, vocabulary: Vocabulary) -> pd.DataFrame:
    """The frame of a vocabulary with :data:`DRIFTS` of each network and plan where they were measured."""
    rows = frames[vocabulary.frame]
    try:
        drift = frames["drift"]
    except TableError:
        return rows
    keys = [*_UNIT, *PLAN]
    head = filled(drift[drift["site"].isna()]).drop_duplicates(keys)
    if head.empty or set(DRIFTS) & set(rows.columns):
        return rows
    found = head.rename(columns=dict(zip(("drift_in", "drift_out"), DRIFTS, strict=True)))
    found = found.rename(columns={"drift_in_se": "drift_last_map_se", "drift_out_se": "drift_logits_se"})
    wanted = [*DRIFTS, "drift_last_map_se", "drift_logits_se"]
    values = found.set_index(keys)[wanted].reindex(pd.MultiIndex.from_frame(filled(rows)[keys]))
    return pd.concat([rows.reset_index(drop=True), values.reset_index(drop=True)], axis=1)


def sample(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of at most :data:`MAX_NETWORKS` networks, drawn by chance with a fixed seed, in their order."""
    networks = rows.groupby(NETWORK, sort=False).ngroup().to_numpy()
    count = int(networks.max(initial=-1)) + 1
    if count <= MAX_NETWORKS:
        return rows
    kept = np.random.default_rng(0).choice(count, MAX_NETWORKS, replace=False)
    return rows[np.isin(networks, kept)]


def plan_labels(rows: pd.DataFrame) -> list[str]:
    """The shift plan of each row in words, with the data set where there are several."""
    several = rows["data"].nunique() > 1
    plans = rows[[*PLAN, "data"]].astype(object)
    found: dict[tuple[Any, ...], str] = {}
    labels = []
    for values in plans.itertuples(index=False, name=None):
        key = tuple(str(value) for value in values)
        if key not in found:
            plan = dict(zip(plans.columns, values, strict=True))
            found[key] = f"{plan['data']}: {plan_in_menu(plan)}" if several else plan_in_menu(plan)
        labels.append(found[key])
    return labels


def title_of(name: str) -> str:
    """A column in a menu and on an axis."""
    known = {**_FACTORS, **_NUMBERS, **DRIFTS, OPERATOR_ERROR: "equivariance error of the operator, on noise"}
    return known.get(name) or style.label(name.removeprefix("factor_"))


def _further(rows: pd.DataFrame) -> list[str]:
    return [str(name) for name in rows.columns if str(name).startswith("factor_")]


def _own_numbers(rows: pd.DataFrame) -> list[str]:
    """The manifest's factors that are numbers, whatever their type."""
    found = []
    for name in _further(rows):
        values = pd.to_numeric(rows[name], errors="coerce")
        is_truth = rows[name].map(lambda value: isinstance(value, bool)).any()
        if values.notna().any() and values.notna().sum() == rows[name].notna().sum() and not is_truth:
            found.append(name)
    return found


def _factors(rows: pd.DataFrame) -> list[tuple[str, str]]:
    numbers = [*_NUMBERS, *_own_numbers(rows)]
    names = [*_FACTORS, *(name for name in _further(rows) if name not in numbers)]
    names += [name for name in numbers if name in rows.columns and rows[name].nunique() <= FEW]
    return [(name, title_of(name)) for name in names if name in rows.columns]


def _factor(name: str, title: str, values: pd.Series, unit: np.ndarray, first: np.ndarray) -> dict[str, Any] | None:
    texts = pd.Series([_plain(value) for value in values], dtype=object)
    if not texts.astype(bool).any():
        return None
    of, values = _spread(texts, unit, first)
    return {"name": name, "title": title, "role": "factor", "of": of, **column(values)}


def _plain(value: Any) -> str:
    """A factor as text; nothing where it is not given, whole numbers without a decimal point."""
    if value is None or value is pd.NA or value != value:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spread(values: pd.Series, unit: np.ndarray, first: np.ndarray) -> tuple[str, pd.Series]:
    """Whether a column says the same in all rows of each unit, and then its values once per unit."""
    codes = pd.factorize(values)[0]
    if (codes == codes[first][unit]).all():
        return "unit", values.iloc[first]
    return "row", values


def _measures(
    rows: pd.DataFrame, frames: Frames, vocabulary: Vocabulary, unit: np.ndarray, first: np.ndarray
) -> Iterable[dict[str, Any] | None]:
    of_images: Sequence[str] = SCORES if vocabulary is IMAGES else (vocabulary.accuracy, *vocabulary.scores)
    scored = [name for name in of_images if name in rows.columns]
    ends = _score_ends(rows, scored, getattr(frames.tables, vocabulary.table), vocabulary)
    readings = [*MSB_READINGS, *OTHER_READINGS, OPERATOR_ERROR, *DRIFTS]
    for name in [*readings, *scored, *_NUMBERS, *metrics_of(rows), *_own_numbers(rows)]:
        if name not in rows.columns:
            continue
        values = pd.to_numeric(rows[name], errors="coerce").astype(float).reset_index(drop=True)
        if not np.isfinite(values).any():
            yield None
            continue
        low, high = ends.get(name) or (values * np.nan, values * np.nan)
        if f"{name}_se" in rows:
            error = 1.96 * rows[f"{name}_se"].astype(float).reset_index(drop=True)
            low, high = low.fillna(values - error), high.fillna(values + error)
        of, _ = _spread(values, unit, first)
        places = first if of == "unit" else slice(None)
        made: dict[str, Any] = {"name": name, "title": title_of(name), "role": "measure", "of": of}
        made["short"] = style.label(name, short=True).partition(" (")[0] if name in style_named() else title_of(name)
        made["share"] = "share of" in made["title"]
        made["numbers"] = [number(value) for value in values.iloc[places]]
        if np.isfinite(low).any():
            made["low"] = [number(value, 3) for value in low.iloc[places]]
            made["high"] = [number(value, 3) for value in high.iloc[places]]
        yield made


def style_named() -> set[str]:
    """The columns for which the figures have a short name."""
    return {*MSB_READINGS, *OTHER_READINGS, *SCORES, *IMAGES.scores}


def _score_ends(
    rows: pd.DataFrame, names: Sequence[str], scores: pd.DataFrame, vocabulary: Vocabulary
) -> dict[str, tuple[pd.Series, pd.Series]]:
    """The ends of the intervals of scores, as table ``scores`` holds them; accuracy's are of the unshifted images."""
    keys = [*_UNIT, *PLAN_COLUMNS, "score"]
    known = filled(scores.drop_duplicates(keys))
    by_plan = known.set_index(keys)[["low", "high"]]
    still = known[(known["shift_kind"] == "none") & (known["score"] == vocabulary.accuracy)]
    by_unit = still.drop_duplicates(_UNIT).set_index(_UNIT)[["low", "high"]]
    wanted = filled(rows[keys[:-1]])
    found = {}
    for name in names:
        if name == vocabulary.accuracy:
            ends = by_unit.reindex(pd.MultiIndex.from_frame(rows[_UNIT]))
        else:
            ends = by_plan.reindex(pd.MultiIndex.from_frame(wanted.assign(score=name)[keys]))
        found[name] = (ends["low"].reset_index(drop=True), ends["high"].reset_index(drop=True))
    return found


def _marks(rows: pd.DataFrame) -> dict[str, style.Mark]:
    return style.marks(rows["operator"])
