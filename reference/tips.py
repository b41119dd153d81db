"""Where TIPS stands: every operator against max pooling, in scores, robustness and cost."""

from __future__ import annotations

import pandas as pd

from analysis import Tables
from analysis.figures.cost import QUANTITIES
from analysis.figures.frames import cost_frame, robustness_frame
from analysis.figures.robustness import conditions, measured_once
from analysis.tables import is_elsewhere
from reference.pairs import ALIKE, BASE, differences, mean_told
from reference.words import markdown

KINDS = ("circular", "zero")
TIPS = "tips"


def where_tips_stands(final: pd.DataFrame, tables: Tables) -> list[str]:
    """The section's paragraphs; ``final`` are the last snapshots, a row per shift kind."""
    parts = [_against_max(str(data), rows) for data, rows in final.groupby("data")]
    parts.append(
        "Mean differences over pairs of networks that are alike in all but the operator (architecture, padding, seed), "
        "with t intervals where there are three pairs or more. Pairs share data and architecture: the intervals speak "
        "of other seeds of these networks, and not each of many intervals can be leaned on."
    )
    return [*parts, _in_words(final), *_robustness(tables), *_cost(tables)]


def _against_max(data: str, rows: pd.DataFrame) -> str:
    body = []
    for operator in sorted(set(rows["operator_spec"]) - {BASE}):
        told = [differences(rows[rows["shift_kind"] == kind], operator) for kind in KINDS]
        if len(told[0]):
            cells = [mean_told(told[0][score]) for score in ("msb_corrected", "accuracy")]
            cells += [mean_told(part[score]) for score in ("consistency", "fidelity") for part in told]
            body.append([operator, *cells, len(told[0])])
    shifted = [f"{score}, {kind}" for score in ("consistency", "fidelity") for kind in KINDS]
    return markdown([f"{data.partition('/')[0]}: minus max pooling", "MSB", "accuracy", *shifted, "pairs"], body)


def _in_words(final: pd.DataFrame) -> str:
    lines = []
    for data, of_data in final.groupby("data"):
        for kind in KINDS:
            rows = of_data[of_data["shift_kind"] == kind]
            if TIPS not in set(rows["operator_spec"]):
                continue
            means = _in_the_cells_of(rows, TIPS)
            place = list(means.index).index(TIPS) + 1
            lines.append(
                f"* {data}, {kind} shifts: by mean consistency TIPS comes in place {place} of the {len(means)} "
                "operators trained wherever it was: "
                f"{', '.join(f'{name} {value:.3f}' for name, value in means.items())}."
            )
    return "\n".join(lines)


def _in_the_cells_of(rows: pd.DataFrame, operator: str) -> pd.Series:
    """Mean consistency of every operator that was trained in all cells of ``operator``, over these, highest first."""
    wide = rows.pivot_table(index=ALIKE, columns="operator_spec", values="consistency")
    return wide[wide[operator].notna()].dropna(axis="columns").mean().sort_values(ascending=False)


def robust_accuracies(tables: Tables) -> pd.DataFrame:
    """A row per network of the study: accuracies by condition, attacks at every budget, corruptions averaged."""
    frame = robustness_frame(tables)
    rows, _ = measured_once(frame[~is_elsewhere(frame) & frame["final"]])
    about = ["checkpoint", *ALIKE, "operator", "operator_spec"]
    clean = rows[rows["condition_kind"] == "clean"].assign(condition="clean")
    parts = [clean[[*about, "condition", "accuracy"]]]
    for condition in conditions(rows)[0]:
        if condition.name == "corruptions":
            parts.append(
                condition.rows.groupby(about, as_index=False)["accuracy"].mean().assign(condition="corruptions")
            )
            continue
        names = [f"{condition.name}, {condition.axis} {strength:g}" for strength in condition.rows["strength"]]
        parts.append(condition.rows.assign(condition=names)[[*about, "condition", "accuracy"]])
    long = pd.concat(parts)
    order = list(dict.fromkeys(long["condition"]))
    return long.pivot(index=about, columns="condition", values="accuracy")[order].reset_index()


def _robustness(tables: Tables) -> list[str]:
    if tables.robustness.empty:
        return ["Robustness was not measured on these networks."]
    rows = robust_accuracies(tables)
    names = [name for name in rows.columns if name not in ("checkpoint", *ALIKE, "operator", "operator_spec")]
    body = [["max (its accuracy)", *(f"{rows.loc[rows['operator_spec'] == BASE, name].mean():.3f}" for name in names)]]
    for operator in sorted(set(rows["operator_spec"]) - {BASE}):
        told = differences(rows, operator, names)
        body.append([f"{operator} ({len(told)} pairs)", *(mean_told(told[name]) for name in names)])
    first = rows.iloc[0]
    images = int(tables.robustness["n_images"].max())
    where = f"{rows['checkpoint'].nunique()} {first['architecture']} networks, {first['padding_mode']} padding"
    return [
        "### Robustness",
        markdown(["accuracy minus max pooling's", *names], body),
        f"Accuracy on the first {images} test images of {first['data']}, of {where}: clean, under PGD by budget, and "
        "the mean over 15 corruptions in 5 severities. None was trained to be robust; robust accuracy goes with clean "
        "accuracy, which the first column gives.",
    ]


def _cost(tables: Tables) -> list[str]:
    if tables.cost.empty:
        return ["Cost was not measured on these networks."]
    frame = cost_frame(tables)
    rows = frame[~is_elsewhere(frame) & frame["relative"].notna()]
    wide = rows.pivot_table(index="operator_spec", columns="quantity", values="relative", aggfunc=["median", "count"])
    quantities = [name for name in QUANTITIES if name in wide["median"]]
    body = [
        [operator, *(f"{wide['median'].loc[operator, name]:.2f}" for name in quantities), int(counts.max())]
        for operator, counts in wide["count"].iterrows()
    ]
    architectures = ", ".join(sorted(rows["architecture"].unique()))
    return [
        "### Cost",
        markdown(["operator", *(QUANTITIES[name] for name in quantities), "networks"], body),
        f"Multiples of the same network with max pooling, medians over networks ({architectures}); times are medians "
        "of pairs of passes taken in turn, one thread per process, on the machine of data/README.md.",
    ]
