"""Operators compared in pairs of networks that are alike in all but the operator, TIPS above all."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from reference.words import markdown

KINDS = ("circular", "zero")
SCORES = ("msb_corrected", "consistency", "fidelity", "accuracy")
ALIKE = ["data", "architecture", "padding_mode", "seed"]
"""What the networks of a pair share."""


def where_tips_stands(final: pd.DataFrame) -> list[str]:
    """The section on TIPS: every operator against max pooling, and TIPS in words; ``final`` are the last snapshots."""
    parts = []
    for data, rows in final.groupby("data"):
        body = []
        for operator in sorted(set(rows["operator_spec"]) - {"max"}):
            told = [differences(rows[rows["shift_kind"] == kind], operator) for kind in KINDS]
            cells = [_mean(first[score]) for score in ("msb_corrected", "accuracy") for first in told[:1]]
            cells += [_mean(part[score]) for score in ("consistency", "fidelity") for part in told]
            if len(told[0]):
                body.append([operator, *cells, len(told[0])])
        shifted = [f"{score}, {kind}" for score in ("consistency", "fidelity") for kind in KINDS]
        head = [f"{str(data).partition('/')[0]}: minus max pooling", "MSB", "accuracy", *shifted, "pairs"]
        parts.append(markdown(head, body))
    parts.append(
        "Mean differences over pairs of networks that are alike in all but the operator (architecture, padding, seed), "
        "with t intervals where there are three pairs or more. Pairs share data and architecture: the intervals speak "
        "of other seeds of these networks."
    )
    parts.append(_tips_in_words(final))
    return parts


def differences(rows: pd.DataFrame, operator: str, base: str = "max") -> pd.DataFrame:
    """Every score of ``operator`` minus that of ``base``, a row per pair alike in all but the operator."""
    first, second = (rows[rows["operator_spec"] == name].set_index(ALIKE)[list(SCORES)] for name in (operator, base))
    return (first - second).dropna()


def _mean(values: pd.Series) -> str:
    if values.empty:
        return "-"
    low, high = interval(values)
    return f"{values.mean():+.3f}" + (f" ({low:+.3f} to {high:+.3f})" if np.isfinite(low) else "")


def interval(values: pd.Series) -> tuple[float, float]:
    """The 95 % t interval of a mean; NaN for fewer than three values."""
    if len(values) < 3:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return values.mean() - half, values.mean() + half


def _tips_in_words(final: pd.DataFrame) -> str:
    lines = []
    for data, of_data in final.groupby("data"):
        for kind in KINDS:
            rows = of_data[of_data["shift_kind"] == kind]
            if "tips" not in set(rows["operator_spec"]):
                continue
            told = differences(rows, "tips")
            words = [f"{name} {_direction(told[name])}" for name in SCORES]
            means = _in_the_cells_of(rows, "tips")
            place = list(means.index).index("tips") + 1
            lines.append(
                f"* {data}, {kind} shifts: against max pooling {', '.join(words)}; by mean consistency it comes in "
                f"place {place} of the {len(means)} operators trained wherever it was (first: {means.index[0]}, "
                f"{means.iloc[0]:.3f}; TIPS {means['tips']:.3f})."
            )
    lines.append("* Robustness and cost of TIPS were not measured on these networks.")
    return "\n".join(lines)


def _in_the_cells_of(rows: pd.DataFrame, operator: str) -> pd.Series:
    """Mean consistency of every operator that was trained in all cells of ``operator``, over these, highest first."""
    wide = rows.pivot_table(index=ALIKE, columns="operator_spec", values="consistency")
    return wide[wide[operator].notna()].dropna(axis="columns").mean().sort_values(ascending=False)


def _direction(values: pd.Series) -> str:
    low, high = interval(values)
    if not np.isfinite(low):
        return f"differs by {values.mean():+.3f} (too few pairs for an interval)" if len(values) else "is not known"
    word = "is lower" if high < 0 else "is higher" if low > 0 else "cannot be told apart"
    return f"{word} ({low:+.3f} to {high:+.3f})"
