"""Which regressions the analysis makes of one cell's rows: the statements fixed in advance, and what checks them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from invariscope.analysis.stats.regression.comparison import compare
from invariscope.analysis.stats.regression.influence import leave_one_out
from invariscope.analysis.stats.regression.mixed import MixedEffects, fit_mixed
from invariscope.analysis.stats.regression.model import FractionalLogit, LogitOLS
from invariscope.analysis.stats.regression.sites import SITE_COLUMNS, site_slopes
from invariscope.analysis.stats.regression.slopes import fit, group_slopes, within_between
from invariscope.collectors.schema import MSB_READINGS, PRIMARY_READING, PRIMARY_SCORE

SPLIT_SCORES = ("consistency", "fidelity")
"""The scores whose slopes are also split into between and within operators."""

SITE = re.compile(r"site_(\d+)")
"""The columns of :func:`invariscope.analysis.tables.joined.with_sites`."""

_X, _Y = PRIMARY_READING, PRIMARY_SCORE
_NUMERIC, _FACTORS = (_X, "accuracy"), ("architecture", "data")
PLAIN = ", plain t"
LEAST_SQUARES = "OLS on logits"


def main(rows: pd.DataFrame, scores: list[str]) -> pd.DataFrame:
    """Slopes of every reading and score, and of the primary ones by other clusters, curved, and inside each group."""
    return pd.concat(list(_main(rows, scores)), ignore_index=True)


def _main(rows: pd.DataFrame, scores: list[str]) -> Iterator[pd.DataFrame]:
    for x in MSB_READINGS:
        for y in scores:
            yield _named(x, fit(rows, FractionalLogit("fractional logit", y, (x, "accuracy"), _FACTORS)))
        for y in (name for name in scores if name in SPLIT_SCORES):
            yield _named(x, within_between(rows, FractionalLogit("within-between", y, (x, "accuracy"), _FACTORS)))
    if _Y not in scores:
        return
    for cluster in ("operator_spec", "cluster"):
        yield _named(_X, fit(rows, FractionalLogit("fractional logit", _Y, _NUMERIC, _FACTORS, cluster)))
        yield _named(_X, within_between(rows, FractionalLogit("within-between", _Y, _NUMERIC, _FACTORS, cluster)))
    if rows["padding_mode"].nunique() > 1:
        model = FractionalLogit("fractional logit with padding", _Y, _NUMERIC, (*_FACTORS, "padding_mode"))
        yield _named(_X, fit(rows, model))
    square = f"{_X}_squared"
    curved = rows.assign(**{square: (rows[_X] - rows[_X].mean()) ** 2})
    yield _named(_X, fit(curved, FractionalLogit("curved fractional logit", _Y, (square, *_NUMERIC), _FACTORS)))
    for group in ("operator", "operator_spec"):
        model = FractionalLogit(f"slope within each {group}", _Y, (_X,), _FACTORS, "cluster")
        yield _named(_X, group_slopes(rows, model, group))


def checks(rows: pd.DataFrame) -> pd.DataFrame:
    """The primary slopes by the plain t, by least squares on logits with three intervals, and with mixed effects."""
    tables = [
        fit(rows, FractionalLogit(f"fractional logit{PLAIN}", _Y, _NUMERIC, _FACTORS, interval="t")),
        within_between(rows, FractionalLogit(f"within-between{PLAIN}", _Y, _NUMERIC, _FACTORS, interval="t")),
    ]
    for interval in ("CR2", "t", "wild bootstrap-t"):
        tables.append(fit(rows, LogitOLS(LEAST_SQUARES, _Y, _NUMERIC, _FACTORS, interval=interval)))
        model = LogitOLS(f"within-between {LEAST_SQUARES}", _Y, _NUMERIC, _FACTORS, interval=interval)
        tables.append(within_between(rows, model))
    for group in ("operator", *_FACTORS):
        tables.append(fit_mixed(rows, MixedEffects(f"mixed effects per {group}", _Y, _NUMERIC, _FACTORS, group)))
    return _named(_X, pd.concat(tables, ignore_index=True))


def influence(rows: pd.DataFrame) -> pd.DataFrame:
    """The primary slopes, over all rows and inside operators, with one operator, data set or architecture left out."""
    tables = [
        leave_one_out(rows, FractionalLogit("fractional logit", _Y, _NUMERIC, _FACTORS)),
        leave_one_out(rows, FractionalLogit("within-between", _Y, _NUMERIC, _FACTORS), within="operator"),
    ]
    return _named(_X, pd.concat(tables, ignore_index=True))


def comparisons(rows: pd.DataFrame) -> pd.DataFrame:
    """What MSB adds to accuracy, architecture and data set, by the fractional logit and by least squares on logits."""
    tables = [
        compare(rows, FractionalLogit("fractional logit", _Y, _NUMERIC, _FACTORS)),
        compare(rows, LogitOLS(LEAST_SQUARES, _Y, _NUMERIC, _FACTORS), hold_out=()),
    ]
    return _named(_X, pd.concat(tables, ignore_index=True))


def sites(rows: pd.DataFrame) -> pd.DataFrame:
    """The slopes of early and late sites, per architecture; no rows where the frame has no sites."""
    found = {int(match[1]): name for name in map(str, rows.columns) if (match := SITE.fullmatch(name))}
    if not found:
        return _named(_X, pd.DataFrame(columns=SITE_COLUMNS))
    model = FractionalLogit("fractional logit per architecture", _Y, ("accuracy",), ("data",))
    return _named(_X, site_slopes(rows, model, [found[depth] for depth in sorted(found)]))


def _named(x: str, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "x", x)
    return table
