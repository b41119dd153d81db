"""How rows of table ``robustness`` were measured, in sentences."""

from __future__ import annotations

import numpy as np
import pandas as pd


def conditions_said(rows: pd.DataFrame) -> list[str]:
    """How the rows were measured, in sentences: attacks with steps and restarts, and the rows' notes."""
    said = []
    attacks = rows[rows["condition_kind"] == "adversarial"]
    for (name, steps), part in attacks.groupby(["condition", "steps"], sort=True):
        starts = ", ".join(f"{n:g}" for n in sorted(part["restarts"].dropna().unique()))
        ratio = (part["step_size"].astype(float) / part["severity"].astype(float)).dropna()
        step = f", steps of {ratio.iloc[0]:.3g} ε" if len(ratio) and np.ptp(ratio) < 1e-6 else ""
        said.append(f"{name}: {steps:g} steps{step}, random starts: {starts}; each ε attacked afresh.")
    if "note" not in rows:
        return said
    for kind, part in rows[rows["note"].notna()].groupby("condition_kind", sort=True):
        texts = part["note"].astype(str).str.split("; ").explode()
        for text, group in texts.groupby(texts, sort=True):
            who = part.loc[group.index.unique()]
            said.append(_note_said(str(kind), str(text), who))
    return said


def _note_said(kind: str, text: str, rows: pd.DataFrame) -> str:
    if kind == "adversarial":
        return f"{text[0].upper()}{text[1:]}: {', '.join(sorted(rows['operator'].astype(str).unique()))}."
    return f"Corruptions: {text}."
