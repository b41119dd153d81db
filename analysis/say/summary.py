"""The findings in words, folded behind the first page: every sentence is made from the numbers, what holds and what
does not.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from invariscope.analysis.say.design_findings import design_sections
from invariscope.analysis.say.findings import Comparison, Finding, paradoxes
from invariscope.analysis.say.opening import Fold
from invariscope.analysis.say.plan_words import plan_short
from invariscope.analysis.say.slope_findings import SlopeFindings
from invariscope.analysis.say.statements import ALPHA, bullets, disagreeing_kinds, in_short, statement_sections
from invariscope.analysis.say.vocabulary import IMAGES, Vocabulary
from invariscope.analysis.stats.cells import BY_OPERATOR, BY_RUN, PLAIN_SUBSAMPLING
from invariscope.analysis.stats.coverage import MIN_CLUSTERS, MIN_DF, MIN_PERMUTED
from invariscope.analysis.tables.checkpoints import COPIES, ELSEWHERE, no_functions
from invariscope.analysis.tables.plans import DATA_AND_PLAN
from invariscope.base.words import are, counted
from invariscope.collectors.schema import PRIMARY_READING

_READ = (
    "MSB is the reading `{reading}`, averaged over a network's downsampling sites; {score}. Ranges in brackets are "
    "nominal 95 % intervals, those of slopes from bias-reduced cluster-robust errors (CR2) with Satterthwaite's "
    "degrees of freedom. *Coverage* is how often such an interval held the truth in simulations with as many clusters. "
    "Below {least} clusters nothing is called significant from such an interval; (a) is tested by permutation, from "
    "{permuted} operators on, slopes from {df:g} degrees of freedom on. MSB is a property of the weights that an "
    "operator declares, not of the function that it computes: after a ReLU `avg` and `lp(p=1)` are the same function "
    "and have an MSB of 0.00 and 0.44. These are associations in the checkpoints at hand: they do not show what causes "
    "what."
)


_LEAST = {"least": MIN_CLUSTERS, "permuted": MIN_PERMUTED, "df": MIN_DF}


def summary_folds(
    rows: pd.DataFrame,
    correlations: pd.DataFrame,
    regressions: pd.DataFrame,
    primary: pd.DataFrame,
    designs: pd.DataFrame,
    vocabulary: Vocabulary = IMAGES,
    **checks: pd.DataFrame,
) -> list[Fold]:
    """Everything that was found as Markdown: the statements fixed in advance; what changes, what stays, what cannot be
    said; designs beyond correlation; how to read it, and limits. ``checks``: the tables ``influence``, ``comparisons``
    and ``sites``.
    """
    simpson = paradoxes(correlations, vocabulary.score)
    statements = [
        "## In short",
        bullets(in_short(primary, simpson)),
        "## The primary statements, fixed in advance",
        *statement_sections(primary, vocabulary),
    ]
    findings: dict[bool | None, list[str]] = {False: [], True: [], None: []}
    for heading, finding in _findings(correlations, regressions, checks, vocabulary):
        findings[finding.holds].append(f"{heading}: {finding.text}")
    for kind in disagreeing_kinds(primary):
        findings[False].append(kind)
    changes = []
    for holds, title, empty in (
        (
            False,
            "What changes or does not hold",
            "Nothing: every comparison below leads to the same conclusion or to none.",
        ),
        (True, "What stays", "Nothing can be said to stay the same."),
        (None, "What these tables cannot tell", "Nothing of what was compared."),
    ):
        changes += [f"## {title}", bullets(findings[holds] or [empty])]
    limits = ["## Many tests", bullets(_many_tests(correlations, primary))]
    limits += ["## Limits", bullets(_limits(rows, primary, vocabulary))]
    read = [_material(rows), _READ.format(reading=PRIMARY_READING, score=vocabulary.score_is, **_LEAST)]
    folds = {
        "Every statement fixed in advance": statements,
        "What changes, what stays, what cannot be told": changes,
        "Doses and swaps": design_sections(designs, vocabulary),
        "How to read this, and what was measured": read,
        "Many tests, and limits": limits,
    }
    return [Fold(title, "\n\n".join(parts)) for title, parts in folds.items() if parts]


def _material(rows: pd.DataFrame) -> str:
    final = rows[rows["final"]]
    snapshots = rows["checkpoint"].nunique() - final["checkpoint"].nunique()
    text = (
        f"{counted(final['checkpoint'].nunique(), 'checkpoint')} of {counted(rows['operator'].nunique(), 'operator')} "
        f"({counted(rows['operator_spec'].nunique(), 'operator setting')}), "
        f"{counted(rows['cluster'].nunique(), 'operator x run cluster')}, "
        f"{counted(rows['architecture'].nunique(), 'architecture')}, "
        f"measured on {', '.join(sorted(rows['data'].unique()))}."
    )
    if snapshots:
        text += f" {counted(snapshots, 'earlier snapshot')} of the same runs enter where said."
    elsewhere = rows.attrs.get(ELSEWHERE, [])
    if elsewhere:
        text += (
            f" {counted(len(elsewhere), 'network')} from elsewhere ({', '.join(elsewhere)}) "
            f"{'takes' if len(elsewhere) == 1 else 'take'} part in none of the numbers."
        )
    copies = rows.attrs.get(COPIES, [])
    if copies:
        copy = "a copy" if len(copies) == 1 else "copies"
        text += (
            f" {counted(len(copies), 'further checkpoint')} {are(len(copies))} {copy} of another (the same weights and "
            f"function) and not counted: {', '.join(copies)}."
        )
    random = sorted(rows.loc[no_functions(rows), "checkpoint"].unique())
    if random:
        text += (
            f" {counted(len(random), 'checkpoint')} {'gives' if len(random) == 1 else 'give'} other logits on a second "
            f"pass or in other batches, and {'was' if len(random) == 1 else 'were'} taken in as asked: "
            f"{', '.join(random)}."
        )
    return text + _without_msb(rows)


def _without_msb(rows: pd.DataFrame) -> str:
    """The checkpoints whose sites were looked at and gave no MSB, by name."""
    without = sorted(rows.loc[rows[PRIMARY_READING].isna() & rows["n_sites_unmeasured"].notna(), "checkpoint"].unique())
    if not without:
        return ""
    have, take = ("has", "takes") if len(without) == 1 else ("have", "take")
    return (
        f" {counted(len(without), 'checkpoint')} {have} no MSB, for want of a measured downsampling site or because a "
        f"shrink is not explained, and {take} part in no mean of it: {', '.join(without)}."
    )


def _findings(
    correlations: pd.DataFrame, regressions: pd.DataFrame, checks: dict[str, pd.DataFrame], vocabulary: Vocabulary
) -> Iterator[tuple[str, Finding]]:
    cells = correlations[DATA_AND_PLAN].drop_duplicates()
    several = cells["data"].nunique() > 1
    plans = cells.groupby("shift_kind").size() > cells["data"].nunique()
    for record in cells.to_dict("records"):
        cell = {str(name): value for name, value in record.items()}
        heading = plan_short(cell, several=bool(plans[cell["shift_kind"]])).capitalize()
        heading += f" on {cell['data']}" if several else ""
        same = (correlations[list(cell)] == pd.Series(cell)).all(axis=1)
        for finding in Comparison(cell, correlations[same], regressions, vocabulary).findings():
            yield heading, finding
        for finding in SlopeFindings(cell, regressions, **checks, vocabulary=vocabulary).findings():
            yield heading, finding


def _many_tests(correlations: pd.DataFrame, primary: pd.DataFrame) -> list[str]:
    """What is left of the small p-values: Holm over the primary statements, Benjamini-Hochberg over each family of
    correlations.
    """
    fixed = primary[primary["role"] == "primary"]
    tested = fixed[fixed["p_holm"].notna()]
    lines = []
    if tested.empty:
        lines.append(
            "Primary statements: none can be tested (too few operators or degrees of freedom, or no number), so there "
            "is nothing to correct."
        )
    else:
        kept = tested[tested["p_holm"] < ALPHA]
        names = ", ".join(
            f"({row['statement']}) {row['shift_kind']}, {row['subset']}: {row['estimate']:.2f}, p = {row['p_holm']:.2g}"
            for row in kept.to_dict("records")
        )
        listed = f" Left are {names}." if names else ""
        lines.append(
            f"Primary statements: {len(kept)} of {len(tested)} are left after Holm's correction over all of them. One "
            f"at a time {_below(tested['p'])} have p < {ALPHA}.{listed}"
        )
    for design in (BY_RUN, BY_OPERATOR):
        family = correlations[(correlations["interval"] == design) & correlations["p"].notna()]
        leant = family[family["n_clusters"] >= MIN_PERMUTED]
        tests = f"{counted(len(family), 'permutation test')} in the table"
        if leant.empty:
            lines.append(
                f"Exploratory correlations {design}: {tests}, each with fewer than {MIN_PERMUTED} clusters: none is "
                "called significant."
            )
            continue
        few = f"; {len(family) - len(leant)} have too few clusters" if len(leant) < len(family) else ""
        lines.append(
            f"Exploratory correlations {design}: of {tests} {_below(leant['p_bh'])} are left at the false discovery "
            f"rate. That is {ALPHA} over all of them (Benjamini-Hochberg); one at a time {_below(leant['p'])} have "
            f"p < {ALPHA}{few}."
        )
    return lines


def _below(p: pd.Series) -> int:
    return int((p < ALPHA).sum())


def _share_between(rows: pd.DataFrame) -> str:
    """How much of the variance of MSB over the last snapshots lies between operators."""
    finite = rows[rows["final"] & np.isfinite(rows[PRIMARY_READING])].drop_duplicates("checkpoint")
    total = finite[PRIMARY_READING].var(ddof=0)
    if not total > 0:
        return "MSB does not vary"
    between = finite.groupby("operator")[PRIMARY_READING].transform("mean").var(ddof=0)
    return f"{100 * between / total:.0f} % of the variance of MSB over the last snapshots lies between operators"


def _limits(rows: pd.DataFrame, primary: pd.DataFrame, vocabulary: Vocabulary) -> list[str]:
    operators = rows["operator"].nunique()
    lines = [
        f"{_share_between(rows)}. For what lies between operators the observations are the "
        f"{counted(operators, 'operator')}, not the {counted(rows['checkpoint'].nunique(), 'checkpoint')}. "
        "Intervals over checkpoints or runs speak about these operators only; those over "
        "operators about others like them."
    ]
    weakest = primary[(primary["role"] == "primary")]["coverage"].min()
    if np.isfinite(weakest) and weakest < 0.93:
        lines.append(
            f"The primary intervals are too short: the weakest holds the truth in {100 * weakest:.0f} % of "
            "simulations, not in 95 %."
        )
    lost = rows[~np.isfinite(rows[[PRIMARY_READING, vocabulary.score, vocabulary.accuracy]].astype(float)).all(axis=1)]
    if len(lost):
        n, word = lost["checkpoint"].nunique(), vocabulary.accuracy_word
        verbs = ("lacks", "takes") if n == 1 else ("lack", "take")
        lines.append(
            f"{counted(n, 'checkpoint')} {verbs[0]} MSB, consistency or {word} and {verbs[1]} no part where that is "
            "needed."
        )
    some = (rows["n_sites_unmeasured"].fillna(0) > 0) & rows[PRIMARY_READING].notna()
    unmeasured = rows.loc[some, "checkpoint"].nunique()
    if unmeasured:
        have, whose = ("has", "its") if unmeasured == 1 else ("have", "their")
        lines.append(
            f"{counted(unmeasured, 'checkpoint')} {have} sites without a number; {whose} MSB is the mean over the "
            "others."
        )
    mixed = rows.groupby(DATA_AND_PLAN)["plan_hash"].nunique()
    if (mixed > 1).any():
        lines.append(
            "Not all checkpoints of a shift kind were measured under the same shifts (their plan hashes differ)."
        )
    if not rows["operator"].isin(PLAIN_SUBSAMPLING).any():
        lines.append("No checkpoint subsamples plainly, so the statements with and without it are the same.")
    elif rows["operator"].isin(PLAIN_SUBSAMPLING).all():
        lines.append("Every checkpoint subsamples plainly, so there is no statement about pooling operators alone.")
    lines.append(
        "Nine shifts per image of up to an eighth of the input size were fixed in advance; other plans are secondary."
    )
    lines.append("All intervals are taken one at a time; only the p-values are corrected for their number.")
    return lines
