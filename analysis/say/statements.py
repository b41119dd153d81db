"""The primary statements in words: what they say in short, each by itself, and where the shift kinds disagree."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.say.numbers import coverage, with_interval
from invariscope.analysis.say.plan_words import plan_short, plan_words
from invariscope.analysis.say.vocabulary import Vocabulary
from invariscope.analysis.stats.coverage import MIN_DF, MIN_PERMUTED
from invariscope.analysis.stats.primary import NO_NUMBER, TOO_FEW
from invariscope.analysis.tables.plans import PLAN
from invariscope.base.words import counted

ALPHA = 0.05
"""Below this an adjusted p-value is called small."""


def in_short(primary: pd.DataFrame, simpson: pd.DataFrame) -> list[str]:
    """A line per shift plan, and one per Simpson's paradox (a row of :func:`paradoxes`)."""
    lines = []
    statements = primary[primary["role"] == "primary"]
    if statements.empty:
        lines.append(
            "None of these measurements is of the kind fixed in advance (circular or zero shifts, sampled, nine per "
            "image). All statements below are secondary."
        )
        statements = primary[primary["snapshots"] == "final"]
    kinds = statements.drop_duplicates(PLAN)["shift_kind"].value_counts()
    for plan, rows in statements.groupby(PLAN, sort=True):
        labels = dict(zip(PLAN, plan, strict=True))
        lines.append(f"{plan_short(labels, several=kinds[labels['shift_kind']] > 1).capitalize()}: {_verdicts(rows)}")
    for row in simpson[simpson["paradox"] & (simpson["snapshots"] == "final")].to_dict("records"):
        lines.append(
            f"**Simpson's paradox** under {row['shift_kind']} shifts ({row['subset']}): pooled Pearson's r is "
            f"{row['r_pooled']:.2f}, inside operators it is {row['r_within']:.2f}."
        )
    return lines


def _verdicts(rows: pd.DataFrame) -> str:
    told = rows[rows["verdict"] != NO_NUMBER]
    if told.empty:
        return f"no primary statement can be made ({rows.iloc[0]['reason']})."
    missing = f" {len(rows) - len(told)} more have no number." if len(told) < len(rows) else ""
    few = told[told["verdict"] == TOO_FEW]
    if len(few):
        return _too_few(told, few, missing)
    verdicts = told["verdict"].value_counts()
    if list(verdicts.index) == ["no difference from zero"]:
        return (
            "no relation between MSB and consistency is established: "
            f"none of the {len(told)} primary statements is told from zero.{missing}"
        )
    if len(verdicts) > 1:
        return f"the primary statements do not agree. They are: {_listed(verdicts)}.{missing}"
    kept = int((told["p_holm"] < ALPHA).sum())
    if kept < len(told):
        side = "below" if verdicts.index[0] == "negative" else "above"
        return (
            f"all {len(told)} primary estimates are told to lie {side} zero, {kept} after Holm's correction.{missing}"
        )
    less = "less" if verdicts.index[0] == "negative" else "more"
    return (
        f"more MSB goes with {less} consistency: all {len(told)} primary estimates are told from zero, on the same "
        f"side, also after Holm's correction.{missing}"
    )


def _too_few(told: pd.DataFrame, few: pd.DataFrame, missing: str) -> str:
    """The primary statements where some rest on too little to be tested."""
    signs = np.sign(told["estimate"])
    lean = f"{int((signs < 0).sum())} estimates are negative and {int((signs > 0).sum())} positive.{missing}"
    operators = counted(int(few["n_clusters"].min()), "operator")
    if len(few) == len(told):
        return f"the {len(told)} primary estimates rest on too little ({operators}): none is called significant. {lean}"
    others = told.loc[~told.index.isin(few.index), "verdict"].value_counts()
    return (
        f"{len(few)} of {len(told)} primary estimates rest on too little to be tested. The fewest are "
        f"{operators}. The others: {_listed(others)}. {lean}"
    )


def _listed(verdicts: pd.Series) -> str:
    return ", ".join(f"{count} {name}" for name, count in verdicts.items())


def statement_sections(primary: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    """Markdown: a heading per shift plan, and every statement under it."""
    parts = []
    shown = primary[primary["snapshots"] == "final"]
    for plan, rows in shown.groupby(PLAN, sort=True):
        secondary = "" if (rows["role"] == "primary").all() else " (secondary: not the plan fixed in advance)"
        parts.append(f"### {plan_words(dict(zip(PLAN, plan, strict=True))).capitalize()}{secondary}")
        lines = []
        for subset, of_subset in rows.groupby("subset", sort=True):
            both = rows["subset"].nunique() > 1
            name = "With plain subsampling" if both else "All operators"
            name = name if subset == "all operators" else "Pooling operators alone"
            lines += [f"{name}, {_statement(row, vocabulary)}" for _, row in of_subset.iterrows()]
        parts.append(bullets(lines))
    return parts


def _statement(row: pd.Series, vocabulary: Vocabulary) -> str:
    subjects = {
        "a": f"(a) Spearman's correlation of the operators' mean MSB and mean consistency on {row['data']}",
        "b": f"(b) the fractional logit's slope at equal {vocabulary.accuracy_word}, architecture and data set",
        "c": "(c) the slope inside operators, at equal architecture and padding,",
    }
    subject = subjects[row["statement"]]
    if not np.isfinite(row["estimate"]):
        return f"{subject}: {with_interval(row)}."
    text = f"{subject} is {with_interval(row)}"
    if not np.isfinite(row["low"]):
        return f"{text}."
    if row["statement"] != "a":
        text += " logits per unit of MSB"
    text += f". {_conclusion(row)}"
    if row["statement"] != "a":
        text += f" 0.1 more MSB goes with {row['effect'] * 10:+.1f} points of consistency."
    units = counted(int(row["n_clusters"]), "operator")
    text += f" It is of {row['n']:.0f} rows and {units}{coverage(row, '; coverage {:.2f}')}."
    if row["statement"] == "c" and row["leading"]:
        text += f" It rests on {row['leading']} of the variation, worth {row['effective_clusters']:.1f} operators."
    return text


_SIDES = {"negative": "below", "positive": "above"}


def _conclusion(row: pd.Series) -> str:
    permuted = row["statement"] == "a" and np.isfinite(row["p"])
    if row["verdict"] == TOO_FEW:
        few = f"Fewer than {MIN_PERMUTED} operators"
        if row["statement"] != "a":
            few = f"Its error has {row['df']:.1f} degrees of freedom, fewer than {MIN_DF:g}"
        return f"{few}: an estimate, no statement of significance."
    test = f"By permutation p = {row['p']:.2g}" if permuted else "The interval"
    if row["verdict"] in _SIDES:
        side = _SIDES[row["verdict"]]
        return f"{test}: it lies {side} zero." if permuted else f"{test} lies {side} zero."
    return f"{test}: no relation is established." if permuted else f"{test} includes zero: no relation is established."


def disagreeing_kinds(primary: pd.DataFrame) -> list[str]:
    """A line per primary statement that another shift kind contradicts."""
    rows = primary[(primary["role"] == "primary") & (primary["subset"] == "all operators")]
    lines = []
    for (statement, data), found in rows.groupby(["statement", "data"]):
        told = found[found["verdict"] != NO_NUMBER]
        if told["verdict"].nunique() > 1 or np.sign(told["estimate"]).nunique() > 1:
            listed = ", ".join(f"{row['shift_kind']} {with_interval(row)}" for _, row in told.iterrows())
            lines.append(f"Statement ({statement}) on {data} depends on the shift kind: {listed}.")
    return lines


def bullets(lines: list[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"* {line}" for line in lines)
