"""The findings in words: every sentence is made from the numbers, what holds and what does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from invariscope.analysis.designs import design_sections
from invariscope.analysis.say.findings import BY_OPERATOR, BY_RUN, Comparison, Finding, paradoxes, with_interval
from invariscope.analysis.say.slope_findings import SlopeFindings
from invariscope.analysis.stats.coverage import MIN_CLUSTERS
from invariscope.analysis.tables.joined import ELSEWHERE
from invariscope.collectors.schema import PRIMARY_READING, PRIMARY_SCORE

ALPHA = 0.05
"""Below this an adjusted p-value is called small."""

_PLAN = ["shift_kind", "fill", "max_shift", "n_shifts", "plan"]
READ_SCORE = "*consistency* is the probability that two shifts of an image get the same prediction"
"""What the score is; :mod:`invariscope.analysis.pixels` has another one."""

_READ = (
    "MSB is the reading `{reading}`, averaged over a network's downsampling sites; {score}. Ranges in brackets are "
    "nominal 95 % intervals, those of slopes from bias-reduced cluster-robust errors (CR2) with Satterthwaite's "
    "degrees of freedom. *Coverage* is how often such an interval held the truth in simulations with as many clusters. "
    "Below {least} clusters no statement of significance is made, whatever the interval. These are associations in "
    "the checkpoints at hand: they do not show what causes what."
)


def write_summary(
    rows: pd.DataFrame,
    correlations: pd.DataFrame,
    regressions: pd.DataFrame,
    primary: pd.DataFrame,
    designs: pd.DataFrame,
    **checks: pd.DataFrame,
) -> str:
    """The whole summary as Markdown: in short, the primary statements, what changes, what stays, what cannot be said,
    designs beyond correlation, limits. ``checks``: the tables ``influence``, ``comparisons`` and ``sites``.
    """
    simpson = paradoxes(correlations)
    parts = [
        "# Does maximum-sampling bias go with shift invariance?",
        _material(rows),
        _READ.format(reading=PRIMARY_READING, score=READ_SCORE, least=MIN_CLUSTERS),
        "## In short",
        *_bullets(_in_short(primary, simpson)),
        "## The primary statements, fixed in advance",
        *_primary_sections(primary),
    ]
    findings: dict[bool | None, list[str]] = {False: [], True: [], None: []}
    for heading, finding in _findings(correlations, regressions, checks):
        findings[finding.holds].append(f"{heading}: {finding.text}")
    for kind in _disagreeing_kinds(primary):
        findings[False].append(kind)
    for holds, title, empty in (
        (
            False,
            "What changes or does not hold",
            "Nothing: every comparison below leads to the same conclusion or to none.",
        ),
        (True, "What stays", "Nothing can be said to stay the same."),
        (None, "What these tables cannot tell", "Nothing of what was compared."),
    ):
        parts += [f"## {title}", *_bullets(findings[holds] or [empty])]
    parts += design_sections(designs)
    parts += ["## Many tests", *_bullets(_many_tests(correlations, primary))]
    parts += ["## Limits", *_bullets(_limits(rows, primary))]
    return "\n\n".join(parts) + "\n"


def headline(correlations: pd.DataFrame, primary: pd.DataFrame) -> list[str]:
    """The main correlations of every plan with intervals, as lines for a terminal."""
    lines: list[str] = []
    rows = correlations[
        (correlations["x"] == PRIMARY_READING)
        & (correlations["y"] == PRIMARY_SCORE)
        & (correlations["snapshots"] == "final")
        & (correlations["subset"] == "all operators")
    ]
    for plan, found in rows.groupby(["data", *_PLAN], sort=True):
        labels = dict(zip(["data", *_PLAN], plan, strict=True))
        lines.append(f"{labels['data']}, {_plan_words(labels)}: {PRIMARY_READING} against {PRIMARY_SCORE}")
        wanted = (
            ("Spearman over operator means", "spearman", "operator means", None, "operators"),
            ("Pearson over checkpoints", "pearson", "checkpoints", BY_OPERATOR, "operators"),
            ("Spearman over checkpoints", "spearman", "checkpoints", BY_OPERATOR, "operators"),
            ("Kendall over checkpoints", "kendall", "checkpoints", BY_OPERATOR, "operators"),
            ("Spearman given accuracy", "partial_spearman", "checkpoints", BY_OPERATOR, "operators"),
            ("Pearson within operators", "within_pearson", "within operator", BY_RUN, "operator x run clusters"),
        )
        for name, method, level, interval, unit in wanted:
            row = found[(found["method"] == method) & (found["level"] == level) & found["given"].isin(("", "accuracy"))]
            row = row if interval is None else row[row["interval"] == interval]
            if len(row):
                lines.append(f"  {name:<29} {_headline_numbers(row.iloc[0], unit)}")
    too_few = primary[(primary["role"] == "primary") & (primary["verdict"] == "too few clusters")]
    if len(too_few):
        lines.append(
            f"  Fewer than {MIN_CLUSTERS} operators: the primary statements are estimates; no significance is claimed."
        )
    return lines


def _headline_numbers(row: pd.Series, unit: str) -> str:
    if not np.isfinite(row["r"]):
        return f"  -   ({row['reason']})"
    if not np.isfinite(row["low"]):
        return f"{row['r']:+.2f} ({row['reason']})"
    return f"{row['r']:+.2f} [{row['low']:+.2f}, {row['high']:+.2f}]  {int(row['n_clusters'])} {unit}{_coverage(row)}"


def _coverage(row: Any) -> str:
    return f", coverage {row['coverage']:.2f}" if np.isfinite(row["coverage"]) else ""


def _bullets(lines: list[str]) -> list[str]:
    return ["\n".join(f"* {line}" for line in lines)]


def _material(rows: pd.DataFrame) -> str:
    final = rows[rows["final"]]
    snapshots = rows["checkpoint"].nunique() - final["checkpoint"].nunique()
    text = (
        f"{_count(final['checkpoint'].nunique(), 'checkpoint')} of {_count(rows['operator'].nunique(), 'operator')} "
        f"({_count(rows['operator_spec'].nunique(), 'operator setting')}), "
        f"{_count(rows['cluster'].nunique(), 'operator x run cluster')}, "
        f"{_count(rows['architecture'].nunique(), 'architecture')}, "
        f"measured on {', '.join(sorted(rows['data'].unique()))}."
    )
    if snapshots:
        text += f" {_count(snapshots, 'earlier snapshot')} of the same runs enter where said."
    elsewhere = rows.attrs.get(ELSEWHERE, [])
    if elsewhere:
        text += (
            f" {_count(len(elsewhere), 'network')} from elsewhere ({', '.join(elsewhere)}) "
            f"{'takes' if len(elsewhere) == 1 else 'take'} part in none of the numbers."
        )
    copies = rows.attrs.get("copies", [])
    if copies:
        are = "is a copy" if len(copies) == 1 else "are copies"
        text += (
            f" {_count(len(copies), 'further checkpoint')} {are} of another (the same weights and model) and not "
            f"counted: {', '.join(copies)}."
        )
    return text


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _plan_words(labels: Any) -> str:
    fill = f", fill {labels['fill']}" if labels["fill"] else ""
    sampled = f"{labels['n_shifts']} shifts per image" if labels["plan"] == "sampled" else f"{labels['plan']} plan"
    return f"{labels['shift_kind']} shifts (up to {labels['max_shift']} px{fill}, {sampled})"


def _in_short(primary: pd.DataFrame, simpson: pd.DataFrame) -> list[str]:
    lines = []
    statements = primary[primary["role"] == "primary"]
    if statements.empty:
        lines.append(
            "None of these measurements is of the kind fixed in advance (circular or zero shifts, sampled, nine per "
            "image); all statements below are secondary."
        )
        statements = primary[primary["snapshots"] == "final"]
    for plan, rows in statements.groupby(_PLAN, sort=True):
        lines.append(f"{_plan_words(dict(zip(_PLAN, plan, strict=True))).capitalize()}: {_verdicts(rows)}")
    for row in simpson[simpson["paradox"] & (simpson["snapshots"] == "final")].to_dict("records"):
        lines.append(
            f"**Simpson's paradox** under {row['shift_kind']} shifts ({row['subset']}): pooled Pearson's r is "
            f"{row['r_pooled']:.2f}, inside operators it is {row['r_within']:.2f}."
        )
    return lines


def _verdicts(rows: pd.DataFrame) -> str:
    told = rows[rows["verdict"] != "no number"]
    if told.empty:
        return f"no primary statement can be made ({rows.iloc[0]['reason']})."
    missing = f" ({len(rows) - len(told)} more have no number)" if len(told) < len(rows) else ""
    few = told[told["verdict"] == "too few clusters"]
    if len(few):
        return _too_few(told, few, missing)
    verdicts = told["verdict"].value_counts()
    if list(verdicts.index) == ["no difference from zero"]:
        return (
            "no relation between MSB and consistency is established: "
            f"all {len(told)} primary intervals include zero{missing}."
        )
    if len(verdicts) > 1:
        return f"the primary statements do not agree ({_counted(verdicts)}){missing}."
    kept = int((told["p_holm"] < ALPHA).sum())
    if kept < len(told):
        side = "below" if verdicts.index[0] == "negative" else "above"
        return f"all {len(told)} primary intervals lie {side} zero, {kept} of them after Holm's correction{missing}."
    less = "less" if verdicts.index[0] == "negative" else "more"
    return (
        f"more MSB goes with {less} consistency: all {len(told)} primary intervals exclude zero on the same side, "
        f"also after Holm's correction{missing}."
    )


def _too_few(told: pd.DataFrame, few: pd.DataFrame, missing: str) -> str:
    """The primary statements where some rest on fewer than :data:`MIN_CLUSTERS` operators."""
    signs = np.sign(told["estimate"])
    lean = (
        f"{int((signs < 0).sum())} of {len(told)} primary estimates are negative and {int((signs > 0).sum())} positive"
        f"{missing}"
    )
    fewest = _count(int(few["n_clusters"].min()), "operator")
    if len(few) == len(told):
        return f"{lean}, but with {fewest} (fewer than {MIN_CLUSTERS}) none is called significant."
    others = told.loc[~told.index.isin(few.index), "verdict"].value_counts()
    return (
        f"{lean}; {len(few)} of them with too few operators ({fewest}, fewer than {MIN_CLUSTERS}) to be called "
        f"significant, the others {_counted(others)}."
    )


def _counted(verdicts: pd.Series) -> str:
    return ", ".join(f"{count} {name}" for name, count in verdicts.items())


def _primary_sections(primary: pd.DataFrame) -> list[str]:
    parts = []
    shown = primary[primary["snapshots"] == "final"]
    for plan, rows in shown.groupby(_PLAN, sort=True):
        secondary = "" if (rows["role"] == "primary").all() else " (secondary: not the plan fixed in advance)"
        parts.append(f"### {_plan_words(dict(zip(_PLAN, plan, strict=True))).capitalize()}{secondary}")
        lines = []
        for subset, of_subset in rows.groupby("subset", sort=True):
            both = rows["subset"].nunique() > 1
            name = "With plain subsampling" if both else "All operators"
            name = name if subset == "all operators" else "Pooling operators alone"
            lines += [f"{name}, {_statement(row)}" for _, row in of_subset.iterrows()]
        parts += _bullets(lines)
    return parts


def _statement(row: pd.Series) -> str:
    subjects = {
        "a": f"(a) Spearman's correlation of the operators' mean MSB and mean consistency on {row['data']}",
        "b": "(b) the fractional logit's slope at equal accuracy, architecture and data set",
        "c": "(c) the slope inside operators",
    }
    subject = subjects[row["statement"]]
    if not np.isfinite(row["estimate"]):
        return f"{subject}: no number ({row['reason']})."
    if not np.isfinite(row["low"]):
        return f"{subject} is {row['estimate']:.2f} ({row['reason']})."
    text = f"{subject} is {with_interval(row)}"
    if row["statement"] != "a":
        text += f" logits per unit of MSB: 0.1 more MSB goes with {row['effect'] * 10:+.1f} points of consistency"
    text += f" (n = {row['n']:.0f}, {_count(int(row['n_clusters']), 'operator')}{_coverage(row)})"
    if row["statement"] == "c" and row["leading"]:
        text += f"; it rests on {row['leading']} of the variation, worth {row['effective_clusters']:.1f} operators"
    return f"{text}. {_CONCLUSIONS[row['verdict']]}"


_CONCLUSIONS = {
    "negative": "The interval lies below zero.",
    "positive": "The interval lies above zero.",
    "no difference from zero": "The interval includes zero: no relation is established.",
    "too few clusters": f"Fewer than {MIN_CLUSTERS} operators: an estimate, no statement of significance.",
    "no number": "",
}


def _findings(
    correlations: pd.DataFrame, regressions: pd.DataFrame, checks: dict[str, pd.DataFrame]
) -> Iterator[tuple[str, Finding]]:
    cells = correlations[["data", *_PLAN]].drop_duplicates()
    several = cells["data"].nunique() > 1
    for record in cells.to_dict("records"):
        cell = {str(name): value for name, value in record.items()}
        heading = f"{str(cell['shift_kind']).capitalize()} shifts"
        if cells["shift_kind"].eq(cell["shift_kind"]).sum() > cells["data"].nunique():
            heading = _plan_words(cell).capitalize()
        heading += f" on {cell['data']}" if several else ""
        same = (correlations[list(cell)] == pd.Series(cell)).all(axis=1)
        for finding in Comparison(cell, correlations[same], regressions).findings():
            yield heading, finding
        for finding in SlopeFindings(cell, regressions, **checks).findings():
            yield heading, finding


def _disagreeing_kinds(primary: pd.DataFrame) -> list[str]:
    rows = primary[(primary["role"] == "primary") & (primary["subset"] == "all operators")]
    lines = []
    for (statement, data), found in rows.groupby(["statement", "data"]):
        told = found[found["verdict"] != "no number"]
        if told["verdict"].nunique() > 1 or np.sign(told["estimate"]).nunique() > 1:
            listed = ", ".join(f"{row['shift_kind']} {with_interval(row)}" for _, row in told.iterrows())
            lines.append(f"Statement ({statement}) on {data} depends on the shift kind: {listed}.")
    return lines


def _many_tests(correlations: pd.DataFrame, primary: pd.DataFrame) -> list[str]:
    """What is left of the small p-values: Holm over the primary statements, Benjamini-Hochberg over each family of
    correlations.
    """
    fixed = primary[primary["role"] == "primary"]
    tested = fixed[fixed["p_holm"].notna()]
    lines = []
    if tested.empty:
        lines.append(
            f"Primary statements: none has a p-value that may be leant on (fewer than {MIN_CLUSTERS} operators, or no "
            "number), so there is nothing to correct."
        )
    else:
        kept = tested[tested["p_holm"] < ALPHA]
        names = ", ".join(
            f"({row['statement']}) {row['shift_kind']}, {row['subset']}: {row['estimate']:.2f}, p = {row['p_holm']:.2g}"
            for row in kept.to_dict("records")
        )
        lines.append(
            f"Primary statements: {_below(tested['p'])} of {len(tested)} have p < {ALPHA} one at a time, {len(kept)} "
            f"after Holm's correction over the {len(tested)} together{f' ({names})' if names else ''}."
        )
    for design in (BY_RUN, BY_OPERATOR):
        family = correlations[(correlations["interval"] == design) & correlations["p"].notna()]
        leant = family[family["n_clusters"] >= MIN_CLUSTERS]
        text = f"Exploratory correlations {design}: {_count(len(family), 'permutation test')} in the table"
        if leant.empty:
            lines.append(f"{text}, each with fewer than {MIN_CLUSTERS} clusters: none is called significant.")
            continue
        few = f"; {len(family) - len(leant)} have too few clusters" if len(leant) < len(family) else ""
        lines.append(
            f"{text}; {_below(leant['p'])} have p < {ALPHA} one at a time, {_below(leant['p_bh'])} at a false "
            f"discovery rate of {ALPHA} over all of them (Benjamini-Hochberg){few}."
        )
    return lines


def _below(p: pd.Series) -> int:
    return int((p < ALPHA).sum())


def _share_between(rows: pd.DataFrame) -> str:
    """How much of the variance of MSB lies between operators."""
    finite = rows[np.isfinite(rows[PRIMARY_READING])].drop_duplicates("checkpoint")
    total = finite[PRIMARY_READING].var(ddof=0)
    if not total > 0:
        return "MSB does not vary"
    between = finite.groupby("operator")[PRIMARY_READING].transform("mean").var(ddof=0)
    return f"{100 * between / total:.0f} % of the variance of MSB lies between operators"


def _limits(rows: pd.DataFrame, primary: pd.DataFrame) -> list[str]:
    operators = rows["operator"].nunique()
    lines = [
        f"{_share_between(rows)}. For what lies between operators the observations are the "
        f"{_count(operators, 'operator')}, not the {_count(rows['checkpoint'].nunique(), 'checkpoint')}. "
        "Intervals over checkpoints or runs speak about these operators only; those over "
        "operators about others like them."
    ]
    weakest = primary[(primary["role"] == "primary")]["coverage"].min()
    if np.isfinite(weakest) and weakest < 0.93:
        lines.append(
            f"The primary intervals are too short: the weakest holds the truth in {100 * weakest:.0f} % of "
            "simulations, not in 95 %."
        )
    lost = rows[~np.isfinite(rows[[PRIMARY_READING, PRIMARY_SCORE, "accuracy"]].astype(float)).all(axis=1)]
    if len(lost):
        lines.append(
            f"{_count(lost['checkpoint'].nunique(), 'checkpoint')} lack MSB, consistency or accuracy and take no part "
            "where that is needed."
        )
    unmeasured = rows.loc[rows["n_sites_unmeasured"].fillna(0) > 0, "checkpoint"].nunique()
    if unmeasured:
        lines.append(
            f"{_count(unmeasured, 'checkpoint')} have sites without a number; their MSB is the mean over the others."
        )
    mixed = rows.groupby(["data", *_PLAN])["plan_hash"].nunique()
    if (mixed > 1).any():
        lines.append(
            "Not all checkpoints of a shift kind were measured under the same shifts (their plan hashes differ)."
        )
    if not rows["operator"].isin(("subsample", "strided")).any():
        lines.append("No checkpoint subsamples plainly, so the statements with and without it are the same.")
    elif rows["operator"].isin(("subsample", "strided")).all():
        lines.append("Every checkpoint subsamples plainly, so there is no statement about pooling operators alone.")
    lines.append(
        "Nine shifts per image of up to an eighth of the input size were fixed in advance; other plans are secondary."
    )
    lines.append("All intervals are taken one at a time; only the p-values are corrected for their number.")
    return lines
