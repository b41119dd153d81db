"""Correlations of MSB and consistency: over operators and networks, under control, and in other choices of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from invariscope.analysis import Results
from invariscope.analysis.stats.cells import BY_OPERATOR, BY_RUN
from invariscope.analysis.stats.correlation import correlate
from invariscope.base.words import counted
from invariscope.collectors.schema import MSB_READINGS
from reference.lookup import correlation, rows_where
from reference.tips import KINDS
from reference.words import kind_on, markdown, ranged_row

SUBSETS = ("all operators", "without subsample")
POLYPHASE = ("aps", "lps")
"""With circular padding their networks are consistent under circular shifts by construction, whatever their MSB."""

NEAR_ZERO = 0.05

_ROWS: dict[str, dict[str, str]] = {
    "Spearman over operator means": {},
    "Pearson over networks": {"method": "pearson", "level": "checkpoints"},
    "Spearman over networks": {"level": "checkpoints"},
    "Spearman, given accuracy": {"method": "partial_spearman", "level": "checkpoints", "given": "accuracy"},
    "Spearman, given accuracy, architecture and padding": {
        **{"method": "partial_spearman", "level": "checkpoints", "given": "several"}
    },
    "the same over all snapshots": {
        **{"method": "partial_spearman", "level": "checkpoints", "given": "several", "snapshots": "all"}
    },
    "Pearson within operators": {"method": "within_pearson", "level": "within operator", "interval": BY_RUN},
    "Pearson within operators, given accuracy": {
        **{"method": "within_partial_pearson", "level": "within operator", "interval": BY_RUN, "given": "accuracy"}
    },
    "accuracy in the place of MSB: Spearman over networks": {"level": "checkpoints", "x": "accuracy"},
}

_CONTROLLED = (
    "Spearman over networks",
    "Spearman, given accuracy",
    "Spearman, given accuracy, architecture and padding",
)
"""The rows that hold more and more equal."""


def correlation_tables(final: pd.DataFrame, results: Results, least: Mapping[str, float]) -> list[str]:
    """The section's paragraphs; ``final`` are the last snapshots, ``least`` the accuracy that a run must have."""
    cells = [(str(data), kind) for data in sorted(final["data"].unique()) for kind in KINDS]
    head = [f"{data.partition('/')[0]}, {kind_on(data, kind)}" for data, kind in cells]
    parts = []
    for subset in SUBSETS:
        body = [
            [name, *(ranged_row(correlation(results.correlations, *cell, subset, **how), "r") for cell in cells)]
            for name, how in _ROWS.items()
        ]
        parts.append(markdown([subset, *head], body))
    parts.append(_units(results, cells))
    parts.append("\n".join(_control(results, cells)))
    parts.append(
        "Other choices of networks and readings, Spearman over operator means (in brackets the interval over operators "
        "and their number). `aps` and `lps` with circular padding are consistent under circular shifts by construction:"
    )
    parts.append(markdown(["networks", *head], _variants(final, cells, least)))
    parts.append(markdown(["reading of MSB (all operators)", *head], _readings(results, cells)))
    parts.append("\n".join(_near_zero(final)))
    return parts


def _units(results: Results, cells: list[tuple[str, str]]) -> str:
    rows = [correlation(results.correlations, *cell, subset) for cell in cells for subset in SUBSETS]
    found = [row for row in rows if row is not None]
    if not found:
        return "No correlation could be computed."
    operators = [int(row["n"]) for row in found]
    coverage = [row["coverage"] for row in found if np.isfinite(row["coverage"])]
    told = (
        f" (simulated coverage over as many operators {min(coverage):.2f} to {max(coverage):.2f})" if coverage else ""
    )
    return (
        "MSB against consistency, last snapshots but where said; 95 % intervals. Their units are operators, "
        f"{min(operators)} to {max(operators)} of them{told}; within operators (centred in each operator x "
        "architecture x padding) they are training runs, and the interval speaks of these operators alone. With fewer "
        "than 15 operators no significance is claimed from an interval. Operators were trained in different cells, so "
        "that the unadjusted rows mix operators with architectures and paddings. *Without subsample* is without "
        "strided convolutions too."
    )


def _control(results: Results, cells: list[tuple[str, str]]) -> Iterator[str]:
    """What control changes, in words."""
    for data, kind in cells:
        steps = [
            correlation(results.correlations, data, kind, SUBSETS[0], **_ROWS[name])
            for name in _CONTROLLED
        ]  # fmt: skip
        numbers = [row["r"] for row in steps if row is not None]
        if len(numbers) < 2:
            continue
        signs = "keeps its sign" if len(set(np.sign(numbers))) == 1 else "changes its sign"
        told = " to ".join(f"{number:.2f}" for number in numbers)
        held = "accuracy, then architecture and padding," if len(numbers) == 3 else "accuracy"
        yield (
            f"* {data.partition('/')[0]}, {kind_on(data, kind)} shifts: over networks the rank correlation of MSB and "
            f"consistency goes from {told} when {held} are held equal; it {signs}."
        )


def _variants(final: pd.DataFrame, cells: list[tuple[str, str]], least: Mapping[str, float]) -> Iterator[list[str]]:
    passed = final["accuracy"] >= final["data"].map(least)
    polyphase = final["operator"].isin(POLYPHASE)
    choices: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
        "without failed runs": lambda rows: rows[passed.loc[rows.index]],
        "without aps and lps": lambda rows: rows[~polyphase.loc[rows.index]],
        "in the cell of most operators": lambda rows: _one_cell(rows)[1],
        "in that cell, without aps and lps": lambda rows: _one_cell(rows[~polyphase.loc[rows.index]])[1],
    }
    parts = [rows_where(final, data=data, shift_kind=kind) for data, kind in cells]
    for name, choose in choices.items():
        yield [name, *(_over_means(choose(rows)) for rows in parts)]
    yield ["that cell", *(_one_cell(rows)[0] for rows in parts)]


def _one_cell(rows: pd.DataFrame) -> tuple[str, pd.DataFrame]:
    """The architecture and padding in which most operators were trained, where they can be compared as they are."""
    cells = rows.groupby(["architecture", "padding_mode"])
    largest = max(cells, key=lambda cell: cell[1]["operator"].nunique())
    return ", ".join(map(str, largest[0])), largest[1]


def _over_means(rows: pd.DataFrame) -> str:
    """Spearman over operator means, as the primary statement (a)."""
    x, y = "msb_corrected", "consistency"
    means = rows.assign(**{x: rows[x].round(9)}).groupby("operator", as_index=False)[[x, y]].mean()
    found = correlate(means, [x], [y], methods=["spearman"], clusters={BY_OPERATOR: "operator"}, permutations=0)
    row = found.iloc[0]
    if not np.isfinite(row["r"]):
        return "-"
    interval = f"{row['low']:.2f} to {row['high']:.2f}; " if np.isfinite(row["low"]) else ""
    return f"{row['r']:.2f} ({interval}{int(row['n'])})"


def _readings(results: Results, cells: list[tuple[str, str]]) -> Iterator[list[str]]:
    for reading in MSB_READINGS:
        told = [ranged_row(correlation(results.correlations, *cell, SUBSETS[0], x=reading), "r") for cell in cells]
        yield [f"`{reading}`", *told]


def _near_zero(final: pd.DataFrame) -> Iterator[str]:
    """How many operators have an MSB that can hardly be ranked."""
    for data, rows in final.groupby("data"):
        means = rows.drop_duplicates("checkpoint").groupby("operator")["msb_corrected"].mean()
        near = sorted(means[means.abs() <= NEAR_ZERO].index)
        yield (
            f"* On {data}, {len(near)} of {counted(len(means), 'operator')} have a mean MSB within {NEAR_ZERO:g} "
            f"of zero ({', '.join(near)}): among them ranks by MSB mean little."
        )
