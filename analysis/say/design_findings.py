"""The findings of both designs in words: every sentence is made from the numbers of :func:`design_table`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from invariscope.analysis.designs.swaps import POOLING, SINGLE
from invariscope.analysis.say.numbers import coverage, with_interval
from invariscope.analysis.say.plan_words import plan_on_data
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.analysis.tables.plans import DATA_AND_PLAN
from invariscope.analysis.tables.swapped import EVERY
from invariscope.base.words import counted
from invariscope.collectors.schema import PRIMARY_READING

LEVEL = 0.9
"""Share of the change from end to end from which on a curve is said to have levelled off."""

_CANNOT = (
    "What a swap cannot show: the network was not trained with the replacement, so that its later layers see maps "
    "that they do not know, and accuracy changes as well. A swap tells what this network does without its operator, "
    "not what the operator does in a network of its own."
)


def design_sections(designs: pd.DataFrame, vocabulary: Vocabulary = IMAGES) -> list[str]:
    """Markdown paragraphs on the designs; none where the table is empty."""
    tellers = (("dose", _dose), ("swap", _swap))
    lines = [line for design, tell in tellers for line in _lines(designs, design, tell, vocabulary)]
    if not lines:
        return []
    return ["## Designs beyond correlation", "\n".join(f"* {line}" for line in lines)]


def _lines(
    designs: pd.DataFrame,
    design: str,
    tell: Callable[[str, pd.DataFrame, Vocabulary], Iterator[str]],
    vocabulary: Vocabulary,
) -> Iterator[str]:
    rows = designs[designs["design"] == design]
    for labels, of_cell in rows.groupby(DATA_AND_PLAN, sort=True):
        where = plan_on_data(dict(zip(DATA_AND_PLAN, labels, strict=True)))
        yield from tell(where, of_cell, vocabulary)
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


def _dose(where: str, rows: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[str]:
    dosed = (PRIMARY_READING, vocabulary.score, vocabulary.accuracy)
    for operator, found in rows.groupby("operator", sort=True):
        msb, end, accuracy = (_only(found, statistic="end to end", y=y) for y in dosed)
        trend = _only(found, statistic="trend", y=vocabulary.score)
        if not np.isfinite(end["estimate"]):
            yield f"**Dose, `{operator}`** ({where}): no number ({end['reason']})."
            continue
        word = vocabulary.accuracy_word
        text = (
            f"**Dose, `{operator}`** ({where}): from the lowest to the highest strength consistency changes by "
            f"{with_interval(end)}. MSB changes by {with_interval(msb)} and {word} by {with_interval(accuracy)}; "
            "inside the families Spearman's correlation of strength and consistency is "
            f"{with_interval(trend)} on average{_page(trend)}. There are "
            f"{counted(end['n_clusters'], 'family')} of runs that differ in strength alone, "
            f"{counted(end['n'], 'network')}."
        )
        text += _levels_off(found, vocabulary) + _given_accuracy(found, vocabulary)
        yield text + _few(end["n_clusters"], "families")


def _page(trend: pd.Series) -> str:
    if not np.isfinite(trend["p"]) or trend["n_clusters"] < MIN_CLUSTERS:
        return ""
    return f" (Page's trend test, p = {trend['p']:.2g})"


def _levels_off(rows: pd.DataFrame, vocabulary: Vocabulary) -> str:
    """From which strength on the mean has made nine tenths of its way."""
    texts = []
    for y, name in ((PRIMARY_READING, "of the change of MSB"), (vocabulary.score, "of that of consistency")):
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
                f"{100 * LEVEL:.0f} % {name} at strength {first['strength']:g} (share reached {with_interval(first)})"
            )
    return f" Reached are {' and '.join(texts)}." if texts else ""


def _given_accuracy(rows: pd.DataFrame, vocabulary: Vocabulary) -> str:
    slope, covariates = {"statistic": "slope", "y": vocabulary.score}, ("", vocabulary.accuracy)
    plain, given = (_only(rows, **slope, given=name) for name in covariates)
    if not np.isfinite([plain["estimate"], given["estimate"]]).all():
        return ""
    return (
        f" Consistency changes by {with_interval(plain)} per unit of MSB, given {vocabulary.accuracy_word} by "
        f"{with_interval(given)}."
    )


def _swap(where: str, rows: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[str]:
    for sites in (SINGLE, POOLING, EVERY):
        found = rows[(rows["sites"] == sites) & (rows["y"] == vocabulary.score) & (rows["replacement"] == "")]
        rank, partial = (_only(found, statistic=name) for name in ("spearman", "partial_spearman"))
        signs = _only(found, statistic="opposite signs")
        if not np.isfinite(rank["estimate"]):
            if len(found):
                yield f"**Swaps, {sites}** ({where}): no number ({rank['reason']})."
            continue
        of_swaps = f"{counted(rank['n'], 'swap')} in {counted(rank['n_clusters'], 'network')}"
        yield (
            f"**Swaps, {sites}** ({where}): the changes of MSB and of consistency have a Spearman correlation of "
            f"{with_interval(rank)}. Given the change of {vocabulary.accuracy_word} it is {with_interval(partial)}"
            f"{_coverages(rank, partial)}; the signs are opposite, as the claim would have it, in a share of "
            f"{with_interval(signs)}, where ½ is chance. There are {of_swaps}, weights kept."
            f"{_verdict(rank, partial, vocabulary)}{_few(rank['n_clusters'], 'networks')}"
        )
    yield from _by_replacement(where, rows[rows["sites"] == SINGLE], vocabulary)


def _by_replacement(where: str, rows: pd.DataFrame, vocabulary: Vocabulary) -> Iterator[str]:
    told, columns = [], (f"{PRIMARY_READING}_site", vocabulary.score, vocabulary.accuracy)
    for name in sorted(set(rows["replacement"]) - {""}):
        found = rows[(rows["replacement"] == name) & (rows["statistic"] == "mean change")]
        msb, score, accuracy = (_only(found, y=y) for y in columns)
        if np.isfinite(score["estimate"]):
            told.append(
                f"`{name}` MSB {with_interval(msb)}, consistency {with_interval(score)}, "
                f"{vocabulary.accuracy_word} {with_interval(accuracy)}, {counted(score['n'], 'swap')}"
            )
    if told:
        yield (
            f"What takes the place of a site's operator changes MSB and consistency there ({where}). Mean changes: "
            f"{'; '.join(told)}."
        )


def _verdict(rank: pd.Series, partial: pd.Series, vocabulary: Vocabulary) -> str:
    if rank["n_clusters"] < MIN_CLUSTERS or not np.isfinite([rank["low"], partial["low"]]).all():
        return ""
    clear = [found["low"] * found["high"] > 0 for found in (rank, partial)]
    if not any(clear):
        return " Neither interval excludes zero: that the two change together is not established."
    if all(clear) and rank["estimate"] * partial["estimate"] > 0:
        way = "less" if rank["estimate"] < 0 else "more"
        return f" Both intervals exclude zero: a rise of MSB goes with {way} consistency."
    word = vocabulary.accuracy_word
    return f" Whether they go together depends on whether the change of {word} is taken into account."


def _few(n_clusters: float, what: str) -> str:
    few = n_clusters < MIN_CLUSTERS
    return f" Fewer than {MIN_CLUSTERS} {what}: estimates, no statement of significance." if few else ""


def _coverages(*rows: pd.Series) -> str:
    told = [text for row in rows if (text := coverage(row))]
    return f" (coverage {' and '.join(told)})" if told else ""
