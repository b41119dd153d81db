"""The findings of both designs in words: every sentence is made from the numbers of :func:`design_table`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from invariscope.analysis.designs.common import CELL
from invariscope.analysis.designs.swaps import EVERY, POOLING, SINGLE
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

_DOSED = (PRIMARY_READING, PRIMARY_SCORE, "accuracy")

LEVEL = 0.9
"""Share of the change from end to end from which on a curve is said to have levelled off."""

_CANNOT = (
    "What a swap cannot show: the network was not trained with the replacement, so that its later layers see maps "
    "that they do not know, and accuracy changes as well. A swap tells what this network does without its operator, "
    "not what the operator does in a network of its own."
)


def design_sections(designs: pd.DataFrame) -> list[str]:
    """Markdown paragraphs on the designs; none where the table is empty."""
    lines = [line for design, tell in (("dose", _dose), ("swap", _swap)) for line in _lines(designs, design, tell)]
    if not lines:
        return []
    return ["## Designs beyond correlation", "\n".join(f"* {line}" for line in lines)]


def _lines(designs: pd.DataFrame, design: str, tell: Callable[[str, pd.DataFrame], Iterator[str]]) -> Iterator[str]:
    rows = designs[designs["design"] == design]
    for labels, of_cell in rows.groupby(CELL, sort=True):
        where = dict(zip(CELL, labels, strict=True))
        yield from tell(f"{where['shift_kind']} shifts up to {where['max_shift']} px on {where['data']}", of_cell)
    if design == "swap" and len(rows):
        yield _CANNOT


def _only(rows: pd.DataFrame, **where: str) -> pd.Series:
    """The row with these labels; one without a number where there is none."""
    keep = np.ones(len(rows), dtype=bool)
    for name, value in where.items():
        keep &= (rows[name] == value).to_numpy()
    if not keep.any():
        return pd.Series({**dict.fromkeys(rows.columns, np.nan), "reason": "not computed"})
    return rows[keep].iloc[0]


def _dose(where: str, rows: pd.DataFrame) -> Iterator[str]:
    for operator, found in rows.groupby("operator", sort=True):
        msb, end, accuracy = (_only(found, statistic="end to end", y=y) for y in _DOSED)
        trend = _only(found, statistic="trend", y=PRIMARY_SCORE)
        if not np.isfinite(end["estimate"]):
            yield f"**Dose, `{operator}`** ({where}): no number ({end['reason']})."
            continue
        text = (
            f"**Dose, `{operator}`** ({where}; {int(end['n_clusters'])} families of runs that differ in strength "
            f"alone, {int(end['n'])} networks): from the lowest to the highest strength MSB changes by {_number(msb)}, "
            f"consistency by {_number(end)} and accuracy by {_number(accuracy)}; inside the families Spearman's "
            f"correlation of strength and consistency is {_number(trend)} on average{_page(trend)}."
        )
        yield text + _levels_off(found) + _given_accuracy(found) + _few(end["n_clusters"], "families")


def _page(trend: pd.Series) -> str:
    if not np.isfinite(trend["p"]) or trend["n_clusters"] < MIN_CLUSTERS:
        return ""
    return f" (Page's trend test, p = {trend['p']:.2g})"


def _levels_off(rows: pd.DataFrame) -> str:
    """From which strength on the mean has made nine tenths of its way."""
    texts = []
    for y, name in ((PRIMARY_READING, "of the change of MSB"), (PRIMARY_SCORE, "of that of consistency")):
        shares = rows[(rows["statistic"] == "share reached") & (rows["y"] == y) & np.isfinite(rows["estimate"])]
        if shares.empty:
            continue
        shares = shares.sort_values("strength")
        short = shares.loc[shares["estimate"] < LEVEL, "strength"]
        after = shares[shares["strength"] > (short.max() if len(short) else -np.inf)]
        if after.empty:
            texts.append(f"{100 * LEVEL:.0f} % {name} only at the highest strength")
        else:
            first = after.iloc[0]
            texts.append(
                f"{100 * LEVEL:.0f} % {name} at strength {first['strength']:g} (share reached {_number(first)})"
            )
    return f" Reached are {' and '.join(texts)}." if texts else ""


def _given_accuracy(rows: pd.DataFrame) -> str:
    plain, given = (_only(rows, statistic="slope", y=PRIMARY_SCORE, given=name) for name in ("", "accuracy"))
    if not np.isfinite([plain["estimate"], given["estimate"]]).all():
        return ""
    return f" Consistency changes by {_number(plain)} per unit of MSB, given accuracy by {_number(given)}."


def _swap(where: str, rows: pd.DataFrame) -> Iterator[str]:
    for sites in (SINGLE, POOLING, EVERY):
        found = rows[(rows["sites"] == sites) & (rows["y"] == PRIMARY_SCORE) & (rows["replacement"] == "")]
        rank, partial = (_only(found, statistic=name) for name in ("spearman", "partial_spearman"))
        signs = _only(found, statistic="opposite signs")
        if not np.isfinite(rank["estimate"]):
            if len(found):
                yield f"**Swaps, {sites}** ({where}): no number ({rank['reason']})."
            continue
        yield (
            f"**Swaps, {sites}** ({where}; {int(rank['n'])} swaps in {int(rank['n_clusters'])} networks, weights "
            f"kept): the changes of MSB and of consistency have a Spearman correlation of {_number(rank)}"
            f"{_coverage(rank)}, given the change of accuracy {_number(partial)}{_coverage(partial)}; their signs are "
            f"opposite, as the claim would have it, in a share of {_number(signs)}, where ½ is chance."
            f"{_verdict(rank, partial)}{_few(rank['n_clusters'], 'networks')}"
        )
    yield from _by_replacement(where, rows[rows["sites"] == SINGLE])


def _by_replacement(where: str, rows: pd.DataFrame) -> Iterator[str]:
    told = []
    for name in sorted(set(rows["replacement"]) - {""}):
        found = rows[(rows["replacement"] == name) & (rows["statistic"] == "mean change")]
        msb, score, accuracy = (_only(found, y=y) for y in (f"{PRIMARY_READING}_site", PRIMARY_SCORE, "accuracy"))
        if np.isfinite(score["estimate"]):
            told.append(
                f"`{name}` MSB {_number(msb)}, consistency {_number(score)}, accuracy {_number(accuracy)}, "
                f"{int(score['n'])} swaps"
            )
    if told:
        yield f"Mean changes at the changed site by what takes its place ({where}): {'; '.join(told)}."


def _verdict(rank: pd.Series, partial: pd.Series) -> str:
    if rank["n_clusters"] < MIN_CLUSTERS or not np.isfinite([rank["low"], partial["low"]]).all():
        return ""
    clear = [found["low"] * found["high"] > 0 for found in (rank, partial)]
    if not any(clear):
        return " Neither interval excludes zero: that the two change together is not established."
    if all(clear) and rank["estimate"] * partial["estimate"] > 0:
        way = "less" if rank["estimate"] < 0 else "more"
        return f" Both intervals exclude zero: a rise of MSB goes with {way} consistency."
    return " Whether they go together depends on whether the change of accuracy is taken into account."


def _few(n_clusters: float, what: str) -> str:
    few = n_clusters < MIN_CLUSTERS
    return f" Fewer than {MIN_CLUSTERS} {what}: estimates, no statement of significance." if few else ""


def _coverage(row: pd.Series) -> str:
    return f" (coverage {row['coverage']:.2f})" if np.isfinite(row["coverage"]) else ""


def _number(row: pd.Series) -> str:
    """``-0.11 (-0.13 to -0.08)``, or why there is no such thing."""
    if not np.isfinite(row["estimate"]):
        return f"no number ({row['reason']})"
    if not np.isfinite(row["low"]):
        return f"{row['estimate']:.2f} ({row['reason']})"
    return f"{row['estimate']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
