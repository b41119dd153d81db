"""Pairs of operators that differ in one thing: networks of one cell and training seed, compared one to one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from invariscope.analysis.designs.assigned import AUGMENTATION, CELL, LOGIT, Settings, require_one_plan
from invariscope.analysis.stats.permutation import holm
from invariscope.analysis.stats.resampling import NOMINAL, Array

LEAST_PAIRS = 6
"""With fewer pairs no p of signs can be below 0.05, and none is given."""

_MOST_EXACT = 16
_ARGUMENT = re.compile(r"(?:(\w+)=)?([^,()=]+)")


@dataclass(frozen=True)
class Comparison:
    """``first`` less ``second``: functions that give a network's dose where it is one of theirs, else None."""

    first: Callable[[str], str | None]
    second: Callable[[str], str | None]


def _of(name: str, knob: str, value: str | None = None) -> Callable[[str], str | None]:
    """Specifications ``name(knob=…)`` or ``name(…)`` with one argument at most, at ``value`` where one is given."""

    def dose(specification: str) -> str | None:
        found, _, rest = specification.replace(" ", "").partition("(")
        arguments = _ARGUMENT.findall(rest.rstrip(")"))
        if found != name or len(arguments) > 1:
            return None
        if not arguments:
            return "" if value == "" else None
        key, given = arguments[0]
        if value == "" or key not in ("", knob):
            return None
        return given if value is None else "" if given == value else None

    return dose


COMPARISONS: Mapping[str, Comparison] = MappingProxyType(
    {
        "minimum less max": Comparison(_of("quantile", "j", "4"), _of("max", "", "")),
        "second largest less max": Comparison(_of("quantile", "j", "2"), _of("max", "", "")),
        "lme less soft": Comparison(_of("lme", "beta"), _of("soft", "beta")),
        "aps of the smallest norm less aps": Comparison(_of("aps", "rank", "4"), _of("aps", "", "")),
    }
)
"""By name. The last is a check and no test under circular shifts: both are 1 there."""


def paired_differences(rows: pd.DataFrame, settings: Settings | None = None) -> pd.DataFrame:
    """Statement 6: mean differences in logit consistency between partners, a row per comparison that has a pair.

    Partners have one cell, padding, augmentation, training seed and dose; doses are averaged first. ``p`` of sign flips
    (all of them up to 16 pairs) from six pairs on; t interval.

    Args:
        rows: of one kind of shift, as :func:`invariscope.analysis.designs.assigned.admitted` gives them.
    """
    settings = settings or Settings()
    require_one_plan(rows)
    keys = [*CELL, "padding_mode", "seed", *([AUGMENTATION] if AUGMENTATION in rows.columns else [])]
    plain = rows.assign(**{AUGMENTATION: rows[AUGMENTATION].fillna("none")}) if AUGMENTATION in keys else rows
    kind = rows["shift_kind"].iloc[0] if len(rows) else ""
    records: list[dict[str, Any]] = []
    for name, comparison in COMPARISONS.items():
        sides = [_side(plain, keys, dose) for dose in (comparison.first, comparison.second)]
        pairs = sides[0].merge(sides[1], on=[*keys, "dose"], suffixes=("_first", "_second"))
        if pairs.empty:
            continue
        pairs = pairs.assign(difference=pairs["value_first"] - pairs["value_second"])
        differences = pairs.groupby(keys, dropna=False)["difference"].mean().to_numpy(dtype=float)
        check = name.startswith("aps") and kind == "circular"
        note = "a check: both are consistent by construction" if check else ""
        found = _mean(differences, tested=not check, settings=settings)
        records.append({"comparison": name, **found, "note": note})
    columns = ["comparison", "estimate", "se", "low", "high", "p", "n", "note"]
    return pd.DataFrame(records, columns=columns)


def with_holm(table: pd.DataFrame) -> pd.DataFrame:
    """The rows with ``p_holm`` over all of them that have a p."""
    return table.assign(p_holm=holm(table["p"].astype(float)))


def _side(rows: pd.DataFrame, keys: list[str], dose: Callable[[str], str | None]) -> pd.DataFrame:
    doses = rows["operator_spec"].map(lambda text: dose(str(text)))
    mine = rows.assign(dose=doses)[doses.notna()]
    means = mine.groupby([*keys, "dose"], dropna=False)[LOGIT].mean()
    return means.rename("value").reset_index()


def _mean(differences: Array, *, tested: bool, settings: Settings) -> dict[str, Any]:
    n = len(differences)
    mean = float(differences.mean())
    se = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    half = float(stats.t.ppf((1 + NOMINAL) / 2, n - 1)) * se if n > 1 else float("nan")
    p = sign_flip_p(differences, settings) if tested and n >= LEAST_PAIRS else float("nan")
    return {"estimate": mean, "se": se, "low": mean - half, "high": mean + half, "p": p, "n": n}


def sign_flip_p(differences: Array, settings: Settings) -> float:
    """Two-sided p of a mean when every difference may as well have had the other sign: of all signs up to 16
    differences, else ``(1 + #{|mean*| >= |mean|}) / (1 + draws)``.
    """
    n = len(differences)
    if n <= _MOST_EXACT:
        signs = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        signs = np.random.default_rng(settings.seed).choice([-1, 1], size=(settings.draws, n))
    sums = np.abs(signs @ differences)
    reached = int((sums >= abs(differences.sum()) - 1e-10 * max(float(np.abs(differences).sum()), 1e-300)).sum())
    return reached / 2**n if n <= _MOST_EXACT else (1 + reached) / (1 + settings.draws)
