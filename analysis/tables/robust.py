"""Accuracy of each network under every attack, and over all corruptions, from the frame ``robustness``."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from invariscope.analysis.tables.checkpoints import is_elsewhere
from invariscope.base.words import counted

SETTINGS = ["condition_kind", "condition", "norm", "severity"]
"""What tells one condition from another."""

CLEAN, CORRUPTIONS = "clean", "corruptions"


def measured_once(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One row per checkpoint and condition: that of most images, then of most steps and restarts; and a note."""
    rows = rows.assign(strength=rows["severity"].astype(float))
    order = ["n_images", "steps", "restarts"]
    ranked = rows.sort_values(order, ascending=False, kind="stable", na_position="last")
    once = ranked.drop_duplicates(["checkpoint", "model", *SETTINGS]).sort_index()
    lost = len(rows) - len(once)
    return once, [
        f"Measured on fewer images or in fewer steps as well, not shown here: {counted(lost, 'row')}."
    ] if lost else []


def robust_accuracies(frame: pd.DataFrame, about: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """A row per network of one's own, with its accuracy under each condition, and the names of these columns.

    Attacks stand apart by budget (``pgd L∞ 2/255``); the corruptions are averaged over kinds and severities, for
    networks that were measured under as many as any other. Of the conditions that a network lacks there is NaN.

    Args:
        frame: as :func:`invariscope.analysis.tables.frames.robustness_frame` gives it.
        about: columns that describe a network, ``checkpoint`` among them.
    """
    rows, _ = measured_once(frame[~is_elsewhere(frame) & frame["final"].astype(bool)])
    names = rows["condition_kind"].where(rows["condition_kind"] != "data", rows["condition"]).astype(object)
    attacked = rows["condition_kind"] == "adversarial"
    names = names.mask(attacked, [_attack(row) for row in rows.itertuples()])
    names = names.replace({"corruption": CORRUPTIONS})
    found = rows.assign(name=names).groupby([*about, "name"])["accuracy"].agg(["mean", "count"]).reset_index()
    whole = found["count"] == found.groupby("name")["count"].transform("max")
    wide = found[whole].pivot(index=list(about), columns="name", values="mean")
    attacks = sorted({str(name) for name in wide} - {CLEAN, CORRUPTIONS})
    order = [name for name in (CLEAN, *attacks, CORRUPTIONS) if name in wide]
    return wide[order].reset_index(), order


def _attack(row: object) -> str:
    norm, budget = getattr(row, "norm", ""), float(getattr(row, "severity", 0))
    size = f"L∞ {255 * budget:g}/255" if norm == "linf" else f"L2 {budget:g}"
    return f"{getattr(row, 'condition', '')} {size}"
