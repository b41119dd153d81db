"""Write RESULTS.md of the reference study from its tables: every number and every verdict in it is computed here.

Run `python -m reference.results TABLES OUT`, which also writes OUT/results (the analysis' own files) and the
figures of each data set. `make figures` does this for the published tables.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis import Results, Tables, analyze_tables, join, load, write_results
from analysis.designs import design_sections
from analysis.drawing import save_figures
from analysis.files import write_whole
from analysis.findings import BY_RUN
from analysis.tables import is_elsewhere, own
from reference.claims import claims
from reference.lookup import correlation, rows_where
from reference.tips import KINDS, where_tips_stands
from reference.words import markdown, ranged
from zoo.recipe import read_recipe

HERE = Path(__file__).resolve().parents[1] / "data" / "reference"
RECIPES = ("cifar10", "mnist")
LEAST_ACCURACY = {"cifar10/test": 0.60, "mnist/test": 0.97}
"""Accuracy on the measured images below which a finished run counts as failed, fixed before any was trained."""

SHOWN = (
    *("msb_invariance", "confounding", "within_between", "dose_response", "msb_by_operator", "msb_by_depth", "swap"),
    *("robustness", "cost", "table_classification", "table_robustness", "table_cost"),
)
FIGURES = HERE.parents[1] / "docs" / "reference"


@dataclass(frozen=True)
class Study:
    """The tables; the joined rows of the study's own networks and of those from elsewhere; what the analysis found."""

    tables: Tables
    rows: pd.DataFrame
    elsewhere: pd.DataFrame
    results: Results

    @classmethod
    def of(cls, tables: Tables, **options: Any) -> Study:
        """Join and analyse the tables; options go to :func:`analysis.analyze`."""
        joined = join(tables)
        return cls(tables, own(joined), joined[is_elsewhere(joined)], analyze_tables(tables, **options))

    @property
    def final(self) -> pd.DataFrame:
        """The last snapshots, once per shift kind."""
        return self.rows[self.rows["final"]]

    @property
    def data(self) -> list[str]:
        """Names of the data sets."""
        return sorted(self.rows["data"].unique())


def text(study: Study) -> str:
    """The whole of RESULTS.md."""
    parts = [
        "# Results of the reference study",
        "<!-- Written by reference/results.py (`make figures`); a test compares it with the tables. -->",
        _opening(study),
        "## What was trained and measured",
        *_material(study),
        "## The paper's claims, one by one",
        *claims(study.final, study.results, study.tables),
        "The primary statements, which were fixed in advance, taken together:",
        _section(study.results.summary, "In short"),
        "## Does MSB go with less consistency?",
        *_shown(study, "msb_invariance"),
        *_correlations(study),
        "## At equal accuracy, architecture and data set",
        *_controlled(study),
        *_shown(study, "confounding"),
        "## Between and within operators",
        *_within(study),
        *_shown(study, "within_between"),
        *design_sections(study.results.designs),
        *_shown(study, "dose_response"),
        *_shown(study, "swap"),
        "## Which layers matter",
        *_layers(study),
        *_shown(study, "msb_by_depth"),
        "## Where TIPS stands",
        *where_tips_stands(study.final, study.tables),
        "## Networks from elsewhere",
        *_elsewhere(study),
        "## Limits",
        *_limits(study),
    ]
    return "\n\n".join(parts) + "\n"


def _opening(study: Study) -> str:
    planned = {name: len(read_recipe(HERE / f"{name}.yaml")) for name in RECIPES}
    done = study.rows.groupby("data")["run"].nunique()
    counts = [f"{done.get(f'{name}/test', 0)} of {count} runs planned on {name}" for name, count in planned.items()]
    whole = all(done.get(f"{name}/test", 0) >= count for name, count in planned.items())
    partial = "**The study is partial**: what is missing was not trained for want of time."
    return (
        "Saha and Gokhale (WACV 2025, arXiv 2404.07410) report that maximum-sampling bias (MSB) correlates negatively "
        "with shift invariance, and that TIPS pooling lowers MSB and raises invariance. This study asks the same of "
        f"networks trained from the recipes beside this file: {', '.join(counts)}, "
        f"{study.rows['checkpoint'].nunique()} checkpoints with the snapshots along training. "
        f"{'All planned runs are in.' if whole else partial} MSB is the reading `msb_corrected`, the mean over a "
        "network's sites; brackets are 95 % intervals. What counts was fixed in advance in "
        "[docs/analysis-plan.md](../../docs/analysis-plan.md); everything the analysis found stands in "
        "[docs/reference/results/summary.md](../../docs/reference/results/summary.md)."
    )


def _material(study: Study) -> list[str]:
    once = study.final.drop_duplicates("checkpoint")
    groups = once.groupby(["data", "architecture", "padding_mode"])
    table = groups.agg(
        operators=("operator", "nunique"),
        settings=("operator_spec", "nunique"),
        seeds=("seed", "nunique"),
        runs=("run", "nunique"),
        mean=("accuracy", "mean"),
        least=("accuracy", "min"),
        most=("accuracy", "max"),
    ).reset_index()
    head = [
        "data",
        "architecture",
        "padding_mode",
        "operators",
        "settings",
        "seeds",
        "runs",
        "accuracy (range of runs)",
    ]
    rows = [
        [*(getattr(row, name) for name in head[:7]), f"{row.mean:.3f} ({row.least:.3f} to {row.most:.3f})"]
        for row in table.itertuples()
    ]
    images = int(study.rows["n_images"].max())
    return [
        markdown(head, rows),
        f"Measured on the first {images:,} test images, {int(study.rows['n_shifts'].max())} shifts per image of up to "
        f"{int(study.rows['max_shift'].max())} px. A final accuracy below "
        + " or ".join(f"{least:.2f} ({name})" for name, least in LEAST_ACCURACY.items())
        + f" counts as a failed run: {_failed(once)}",
    ]


def _failed(once: pd.DataFrame) -> str:
    least = once["data"].map(LEAST_ACCURACY)
    failed = once[once["accuracy"] < least].sort_values("run")
    if failed.empty:
        return "there is none."
    listed = ", ".join(f"`{row.run}` ({row.accuracy:.3f})" for row in failed.itertuples())
    return f"{len(failed)} of {len(once)}, which stay in the numbers below: {listed}."


def _shown(study: Study, figure: str) -> list[str]:
    """The figure of each data set, where it was drawn."""
    names = [data.partition("/")[0] for data in study.data]
    return [
        f"![{figure.replace('_', ' ')}, {name}](../../docs/reference/{name}/{figure}.png)"
        for name in names
        if (FIGURES / name / f"{figure}.png").exists()
    ]


def _section(summary: str, title: str) -> str:
    return summary.partition(f"## {title}\n")[2].partition("\n## ")[0].strip()


def _correlations(study: Study) -> list[str]:
    wanted: dict[str, dict[str, str]] = {
        "Spearman over operator means": {},
        "Pearson over networks": {"method": "pearson", "level": "checkpoints"},
        "Spearman over networks": {"level": "checkpoints"},
        "Spearman, given accuracy": {"method": "partial_spearman", "level": "checkpoints", "given": "accuracy"},
        "Spearman, given accuracy, architecture, padding": {
            **{"method": "partial_spearman", "level": "checkpoints", "given": "several"}
        },
        "the same over all snapshots": {
            **{"method": "partial_spearman", "level": "checkpoints", "given": "several", "snapshots": "all"}
        },
        "Pearson within operators": {"method": "within_pearson", "level": "within operator", "interval": BY_RUN},
    }
    parts = []
    for subset in ("all operators", "without subsample"):
        cells = [(data, kind) for data in study.data for kind in KINDS]
        table = study.results.correlations
        body = [
            [name, *(ranged(correlation(table, data, kind, subset, **how), "r") for data, kind in cells)]
            for name, how in wanted.items()
        ]
        head = [subset, *(f"{data.partition('/')[0]}, {kind}" for data, kind in cells)]
        parts.append(markdown(head, body))
    counts = ", ".join(f"{study.final.query('data == @name')['operator'].nunique()} on {name}" for name in study.data)
    parts.append(
        f"MSB against consistency, last snapshots. The units of the intervals are operators ({counts}); within "
        "operators they are training runs, and the intervals speak of these operators alone. Fewer than 15 operators "
        "allow no statement of significance."
    )
    return parts


def _controlled(study: Study) -> list[str]:
    body = []
    for kind in KINDS:
        for subset in ("all operators", "without subsample"):
            where = {"shift_kind": kind, "subset": subset, "snapshots": "final"}
            fit = _one(study.results.regressions, **where, model="fractional logit", term="msb_corrected")
            padding = {"model": "fractional logit with padding", "term": "msb_corrected"}
            padded = _one(study.results.regressions, **where, **padding)
            body.append([kind, subset, ranged(fit), _points(fit), ranged(padded), *_added(study, where)])
    head = [
        "shifts",
        "operators",
        "slope",
        "points per 0.1 MSB",
        "slope, padding too",
        "deviance R² with MSB (without)",
    ]
    return [
        markdown([*head, "error for an operator left out with MSB (without)"], body),
        "The slope is in logits of consistency per unit of MSB: a fractional logit given accuracy, with architecture "
        "and data set as factors, errors clustered by operator. Points are percentage points of consistency. The last "
        "two columns say what MSB adds to accuracy, architecture and data set.",
    ]


def _added(study: Study, where: dict[str, str]) -> list[str]:
    rows = study.results.comparisons
    told = []
    for measure, held in (("deviance R2", ""), ("RMSE", "operator")):
        found = rows_where(rows, **where, model="fractional logit", measure=measure)
        kind = found["held_out_kind"].fillna("")
        found = found[(kind == held) & (found["held_out"].fillna("").isin(("", "all")))]
        told.append(f"{found.iloc[0]['with_x']:.3f} ({found.iloc[0]['baseline']:.3f})" if len(found) else "-")
    return told


def _within(study: Study) -> list[str]:
    body = []
    for kind in KINDS:
        for subset in ("all operators", "without subsample"):
            where = {"shift_kind": kind, "subset": subset, "snapshots": "final", "model": "within-between"}
            within, between = (
                _one(study.results.regressions, **where, term=f"msb_corrected_{part}") for part in ("within", "between")
            )
            carried = "-" if within is None else str(within["leading"] or "-")
            body.append([kind, subset, ranged(within), carried, ranged(between)])
    body_single = [
        [kind, str(row["group"]).removeprefix("operator="), ranged(row), int(row["n"])]
        for kind in KINDS
        for _, row in rows_where(
            study.results.regressions,
            shift_kind=kind,
            subset="all operators",
            snapshots="final",
            model="slope within each operator",
            term="msb_corrected",
            y="consistency",
        ).iterrows()
        if row["group"] in ("operator=soft", "operator=lp") and np.isfinite(row["low"])
    ]
    parts = [
        markdown(["shifts", "operators", "slope within", "carried by", "slope between"], body),
        "Logits of consistency per unit of MSB, given accuracy and architecture, errors clustered by operator.",
    ]
    if body_single:
        parts.append(markdown(["shifts", "operator", "its own slope (runs as clusters)", "networks"], body_single))
    return parts


def _layers(study: Study) -> list[str]:
    sites = study.results.sites
    rows = rows_where(sites, subset="all operators", snapshots="final", parametrisation="mean and contrast")
    body = []
    for (kind, architecture, count), group in rows.groupby(["shift_kind", "architecture", "n_sites"]):
        terms = [rows_where(group, term=name) for name in ("mean over sites", "late minus early")]
        body.append([kind, architecture, f"{count:.0f}", *(ranged(row.iloc[0] if len(row) else None) for row in terms)])
    if not body:
        return ["Too few networks were measured for slopes of single sites."]
    return [
        markdown(["shifts", "architecture", "sites", "mean MSB over sites", "late minus early MSB"], body),
        "Slopes in logits of consistency per unit of MSB. The MSB of one network's sites goes together closely, so "
        "that single sites cannot be told apart; the second slope asks whether it matters where the MSB is.",
    ]


def _elsewhere(study: Study) -> list[str]:
    rows = study.elsewhere
    if rows.empty:
        return ["None is in these tables."]
    body = []
    for name, group in rows.groupby("checkpoint"):
        first = group.iloc[0]
        told = [group.loc[group["shift_kind"] == kind, "consistency"] for kind in KINDS]
        values = [first["accuracy"], first["msb_corrected"], *(v.iloc[0] if len(v) else np.nan for v in told)]
        body.append([name, first["operator"], first["architecture"], *(f"{value:.3f}" for value in values)])
    head = ["network", "operator", "architecture", "accuracy", "MSB", *(f"consistency, {kind}" for kind in KINDS)]
    return [
        "Published CIFAR-10 networks, each trained by its own recipe on all 50,000 images: rows of the same tables "
        "(factor `origin: elsewhere`), hollow in the figures, and in none of the numbers above.",
        markdown(head, body),
    ]


def _limits(study: Study) -> list[str]:
    once = study.final.drop_duplicates("checkpoint")
    share = once["operator"].nunique()
    epochs = " or ".join(f"{epoch:.0f}" for epoch in sorted(once["epoch"].unique()))
    return [
        "\n".join(
            [
                f"* {share} operators: for what lies between operators that is n, however many networks there are.",
                f"* Small networks, 20,000 training images, {epochs} epochs, no augmentation: far from what the paper "
                "trains. Consistency rises with training and augmentation, and differences may shrink.",
                "* The digits of MNIST stand in an empty margin. A zero shift fills with the mean of the images, not "
                "with their background.",
                "* The design is not balanced: dearer operators were trained on the plain network alone; the first "
                "table says what was.",
                "* Networks of one seed share the order of their images and, where shapes agree, initial weights.",
            ]
        )
    ]


def _points(row: pd.Series | None) -> str:
    return "-" if row is None or not np.isfinite(row["effect"]) else f"{10 * row['effect']:+.1f}"


def _one(table: pd.DataFrame, **where: str) -> pd.Series | None:
    rows = rows_where(table, **where, x="msb_corrected", y="consistency", cluster="operator")
    return None if rows.empty else rows.iloc[0]


def main(folder: str, out: Path) -> None:
    """Write RESULTS.md, the analysis' files and the figures."""
    tables = load(folder)
    study = Study.of(tables)
    write_results(study.results, out / "results")
    for data in study.data:
        for path in save_figures(tables, out / data.partition("/")[0], SHOWN, data=data, skipped=lambda *_: None):
            print(path)
    # The text shows the figures that are there.
    write_whole(HERE / "RESULTS.md", text(study).encode())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], Path(sys.argv[2]))
