"""Studies with assigned MSB whose truth is known, with published operators held out, as frames for the figures."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import special

from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, simulate_study
from invariscope.analysis.figures import FIGURES, FigureEntry
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.load import Tables

PUBLISHED = {
    "max": (0.97, 0.95, 0.62),
    "avg": (0.01, 0.0, 0.08),
    "subsample": (0.03, 0.98, 0.9),
    "soft(beta=1)": (0.2, 0.1, 0.2),
    "soft(beta=4)": (0.5, 0.35, 0.38),
    "soft(beta=16)": (0.8, 0.7, 0.5),
    "lp(p=2)": (0.25, 0.15, 0.25),
    "lp(p=8)": (0.7, 0.6, 0.5),
    "blur(m=3)": (0.02, 0.05, 0.05),
    "maxblur(m=3)": (0.4, 0.3, 0.22),
    "ddac(k=3, g=2)": (0.08, 0.2, 0.3),
    "aps": (0.3, 0.95, 0.01),
    "lps": (0.25, 0.93, 0.01),
    "tips(pool=phase, hard=true)": (0.33, 0.95, 0.01),
    "tips": (0.2, 0.2, 0.15),
}
"""Specifications of operators with their MSB, selectivity and equivariance error."""

CONSTRUCTED = ("aps", "lps", "tips(pool=phase, hard=true)")


def study(
    cells: tuple[str, ...] = ("digits", "mnist"), draws: int = 48, blocks: int = 12, images: int = 1_000, seed: int = 3
) -> pd.DataFrame:
    """The joined frame of a study in which the equivariance error lowers the logit by 3 per unit and MSB does nothing;
    two training runs of every published operator.
    """
    design = SimulatedDesign(cells=cells, draws=draws, blocks=blocks, images=images)
    frame = simulate_study(Truth("aliasing", see=-3.0), design, seed)
    rng = np.random.default_rng([seed, 1])
    rows = []
    for (_, kind), members in frame.groupby(["data", "shift_kind"]):
        blank = {name: np.nan for name in frame.columns if name.startswith("factor_")}
        for run in (0, 1):
            for spec, (msb, selectivity, see) in PUBLISHED.items():
                told = {**members.iloc[0].to_dict(), **blank, "factor_population": "H", "padding_mode": "circular"}
                c = float(special.expit(1.5 - 3 * (see - 0.4) + rng.normal(0, 0.25)))
                c = 1.0 if kind == "circular" and spec in CONSTRUCTED else round(c * images) / images
                read = {"msb_corrected": msb + rng.normal(0, 0.01), "selectivity": selectivity, "see": see}
                named = {"operator_spec": spec, "seed": run, "checkpoint": f"{told['data']}-{spec}-{run}"}
                rows.append({**told, **read, **named, "consistency": c, "strength": _strength(spec)})
    return pd.concat([frame, pd.DataFrame(rows)], ignore_index=True)


def _strength(spec: str) -> float:
    name, _, argument = spec.partition("(")
    return float(argument.rstrip(")").partition("=")[2]) if name in ("soft", "lp") else np.nan


class StudyFrames(Frames):
    """The frames of a study: a joined one, and no other."""

    def __init__(self, frame: pd.DataFrame) -> None:
        super().__init__(Tables.__new__(Tables))
        self._frame = frame

    def __getitem__(self, name: str) -> pd.DataFrame:
        return {"joined": self._frame}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(["joined"])


def is_of_a_study(name: str) -> bool:
    """Whether a figure shows operators to which MSB was assigned, so that other zoos have nothing to show in it."""
    return hasattr(sys.modules[FigureEntry.of(FIGURES[name]).load().__module__], "assigned_rows")
