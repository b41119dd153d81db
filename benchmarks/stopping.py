"""How often the interval of consistency holds the truth where its own error decides when to stop: simulated.

    python -m benchmarks.stopping

Per-image consistency of nine shifts is drawn as a network gives it: a share of the images agrees under all shifts, the
others do so for a part of the pairs. Up to 10,000 images, looked at after every 256 as ``collect --target-se`` does.
"""

from __future__ import annotations

import numpy as np

from benchmarks.results import machine, table, write_section
from invariscope.collectors.measure.scores import mean_over_images, pair_agreement
from invariscope.collectors.measure.stopping import error, steps

IMAGES, SHIFTS, REPEATS = 10_000, 9, 2_000
TARGETS = (0.0025, 0.005, 0.01)
UNSTABLE = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 0.8)
"""Shares of the images that do not agree under all of their shifts."""


def pool(unstable: float, rng: np.random.Generator, size: int = 400_000) -> np.ndarray:
    """Consistency of so many images: each shift of an unstable one goes to another class with a chance of its own."""
    values = np.ones(size)
    count = round(unstable * size)
    chance = rng.beta(0.6, 1.2, count)
    values[:count] = pair_agreement((rng.random((count, SHIFTS)) < chance[:, None]).astype(np.int64))
    return values


def stopped(values: np.ndarray, target: float) -> np.ndarray:
    """The values that are measured."""
    for _, stop in steps(len(values)):
        if error(values[:stop]) <= target:
            return values[:stop]
    return values


def simulate(unstable: float, target: float, repeats: int, rng: np.random.Generator) -> tuple[float, float, float]:
    """Share of intervals that hold the mean of the pool, the same of all images, and the median of those measured."""
    everything = pool(unstable, rng)
    truth, held, held_all, counts = float(everything.mean()), 0, 0, []
    for _ in range(repeats):
        values = everything[rng.integers(len(everything), size=IMAGES)]
        early = stopped(values, target)
        found, whole = mean_over_images(early), mean_over_images(values)
        held += found.low <= truth <= found.high
        held_all += whole.low <= truth <= whole.high
        counts.append(len(early))
    return held / repeats, held_all / repeats, float(np.median(counts))


def main() -> None:
    """Simulate, and write the section of RESULTS.md."""
    rng = np.random.default_rng(20261129)
    rows: list[dict[str, object]] = []
    worst = 1.0
    for unstable in UNSTABLE:
        for target in TARGETS:
            held, held_all, count = simulate(unstable, target, REPEATS, rng)
            worst = min(worst, held)
            rows.append(
                {
                    "images that do not agree": f"{unstable:.1%}",
                    "target": target,
                    "images measured (median)": f"{count:,.0f}",
                    "holds the truth": f"{held:.3f}",
                    "that of all images": f"{held_all:.3f}",
                }
            )
    text = (
        f"`python -m benchmarks.stopping`: share of {REPEATS:,} nominal 95 % intervals of consistency that hold the "
        f"truth where measuring stops at a standard error (`--target-se`), and where all {IMAGES:,} images are "
        f"measured; {SHIFTS} shifts; the standard error of a share is 0.005. Least: {worst:.3f}. {machine('numpy')}"
        f"\n\n{table(rows)}"
    )
    write_section("Stopping at a standard error", text)


if __name__ == "__main__":
    main()
