"""What a study with assigned MSB says of zoos whose truth is known, at its very design; the plan quotes it.

    python -m benchmarks.assigned [SIMULATIONS [WORKERS]]

``SIMULATIONS`` (200) of each truth; ten times as many of the one in which nothing has an effect.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
from dataclasses import replace
from multiprocessing import Pool

import pandas as pd

from benchmarks.results import machine, table, write_section
from invariscope.analysis.designs.assigned import Settings
from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, outcomes

STUDY = SimulatedDesign()
BUNDLED = SimulatedDesign(cells=("digits",), draws=64, blocks=16, images=600)
LARGER = replace(STUDY, blocks=60)
ALIASING = -5.0
"""Logits per unit of equivariance error: it then explains half of the variance over P (four fifths in the pilot)."""

NOTHING = Truth("nothing")
TRUTHS = {
    "msb": Truth("MSB alone, -1 logit per unit", msb=-1),
    "selectivity": Truth("selectivity alone, -1 logit per unit", selectivity=-1),
    "aliasing": Truth("equivariance error alone", see=ALIASING),
}
SMALLER = Truth("MSB alone, -0.45 logit per unit", msb=-0.45)
RANKS = Truth("other ranks differ, their mean does not from the maximum", ranks=(1.1, -0.6, -0.5))
SETTINGS = Settings(draws=399)


HEADING = "Statements on assigned MSB, where the truth is known"
_CHUNK = 20


def simulated(truth: Truth, design: SimulatedDesign, simulations: int, workers: int) -> pd.DataFrame:
    """What the simulations said, by several processes."""
    chunks = [range(start, min(start + _CHUNK, simulations)) for start in range(0, simulations, _CHUNK)]
    with Pool(workers) as pool:
        return pd.concat(pool.starmap(outcomes, [(truth, design, chunk, SETTINGS) for chunk in chunks]))


def summary(truth: Truth, design: SimulatedDesign, right: str, found: pd.DataFrame) -> dict[str, object]:
    """A row of the table: what the simulations said, under circular shifts and under both kinds."""
    circular = found[found["shift_kind"] == "circular"]
    blocks = f"{len(design.cells)} x {design.draws} + {len(design.cells)} x {design.blocks} blocks"
    by_study = found.groupby("seed")
    claims = by_study["false_claim"].any() if right == "nothing" else pd.Series([float("nan")])
    return {
        "truth": truth.name,
        "design": blocks,
        "n": found["seed"].nunique(),
        "right cause, circular": _share(circular["named"] == right),
        "right cause, both kinds": _share(by_study["named"].agg(lambda names: (names == right).all())),
        "(1) Holm": _share(circular["p_holm"] <= 0.05),
        "(2) Holm": _share(circular["p_holm_2"] <= 0.05),
        "no effect that matters, (1)": _share(circular["verdict"].str.contains("matters")),
        "(3)": _share(circular["verdict_3"].str.contains("matters")),
        "mean (1)": f"{circular['estimate'].mean():.2f}",
        "SE (1)": f"{circular['se'].mean():.3f}",
        "SE (3)": f"{circular['se_3'].mean():.3f}",
        "median Spearman (2)": f"{circular['estimate_2'].median():.2f}",
        "any false claim": _share(claims) if right == "nothing" else "",
    }


def main(simulations: int = 200, workers: int = 2) -> None:
    """Simulate and write the section."""
    plan = [
        *((truth, STUDY, right) for right, truth in TRUTHS.items()),
        (NOTHING, STUDY, "nothing"),
        *((truth, BUNDLED, right) for right, truth in TRUTHS.items()),
        (SMALLER, STUDY, "msb"),
        (RANKS, STUDY, "nothing"),
        (NOTHING, LARGER, "nothing"),
        (NOTHING, BUNDLED, "nothing"),
    ]
    sizes = {**dict.fromkeys(range(len(plan)), simulations), 3: 10 * simulations}
    rows = []
    for number, (truth, design, right) in enumerate(plan):
        rows.append(summary(truth, design, right, simulated(truth, design, sizes[number], workers)))
        print(rows[-1], flush=True)
    write_section(HEADING, section(rows, simulations))


def section(rows: list[dict[str, object]], simulations: int) -> str:
    """The text of the section."""
    return (
        f"`python -m benchmarks.assigned {simulations}`: shares of simulated studies (standard error at most "
        f"{0.5 / simulations**0.5:.3f}), {SETTINGS.draws} draws of each randomisation. Residuals from the pilot: "
        f"{STUDY.rotated} logits within blocks, {STUDY.residual} between drawn operators, half of that variance the "
        f"operator's own in all cells. {machine('numpy', 'pandas')}\n\n{table(rows)}"
    )


def _share(hits: pd.Series) -> str:
    return f"{hits.mean():.3f}"


if __name__ == "__main__":
    main(*(int(text) for text in sys.argv[1:3]))
