"""Zoos with a known truth, at a study's very design: what its statements would say if that were so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from invariscope.analysis.designs.assigned import (
    ASYMMETRY,
    BLOCK,
    DRAW,
    FAMILY,
    LOW_PASS,
    MSB,
    POPULATION,
    SELECTIVITY,
    Settings,
)
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.verdicts import LEVEL, MSB_SLOPE, TOTAL, WITHIN, causes
from invariscope.analysis.stats.resampling import Array

_PIXELS = 4
_EQUAL: dict[str, Any] = {
    **{"architecture": "smallcnn", "final": True, "seed": 0, "accuracy": 0.97},
    **{"max_shift": 4, "n_shifts": 9, "plan": "sampled"},
}
_KEPT = {WITHIN: "", TOTAL: "_2", MSB_SLOPE: "_3"}


@dataclass(frozen=True)
class Truth:
    """What the logit of consistency depends on, in logits per unit.

    ``msb``, ``selectivity``: of the assigned values; ``see``: of the measured equivariance error, which follows the
    assigned factors (:func:`_error`). ``ranks``: the effect of weight on the other ranks 2, 3, 4, which the rotations
    show beside that on the maximum; with their mean 0 it is no effect of MSB.
    """

    name: str
    msb: float = 0.0
    selectivity: float = 0.0
    see: float = 0.0
    ranks: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class SimulatedDesign:
    """Numbers of the design, and the sizes of what is left over.

    ``residual``: of a drawn operator in P, in logits, of whose variance ``shared`` is the operator's own and the same
    in every cell; ``rotated``: of a network within its block; ``block``: between blocks; ``images``: measured on.
    """

    cells: tuple[str, ...] = ("digits", "mnist", "cifar10")
    draws: int = 160
    blocks: int = 40
    residual: float = 0.7
    shared: float = 0.5
    rotated: float = 1.18
    block: float = 0.6
    images: int = 1_000
    baseline: Mapping[str, float] = field(default_factory=lambda: {"circular": 1.5, "zero": 1.2})


def simulate_study(truth: Truth, design: SimulatedDesign, seed: int) -> pd.DataFrame:
    """Rows as ``analysis.join`` gives them, for circular and zero shifts, of a study in which ``truth`` holds.

    The draws of P are the same in all cells, with half of them padded by zeros; the blocks of R are fresh in each.
    """
    rng = np.random.default_rng(seed)
    population = population_factors(design.draws, rng)
    own = rng.normal(size=(2, design.draws))
    parts = []
    for cell in design.cells:
        rotations = rotation_factors(design.blocks, rng)
        block = rng.normal(0, design.block, design.blocks)[pd.factorize(rotations[BLOCK])[0]]
        for number, kind in enumerate(design.baseline):
            fresh = rng.normal(size=design.draws)
            left = design.residual * (np.sqrt(design.shared) * own[number] + np.sqrt(1 - design.shared) * fresh)
            left = left - 0.3 * (population["padding_mode"] == "zeros").to_numpy()
            turned = block + rng.normal(0, design.rotated, len(rotations))
            for factors, rest in ((population, left), (rotations, turned)):
                parts.append(_measured(factors, truth, rest + design.baseline[kind], cell, kind, design.images, rng))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return pd.DataFrame(columns).assign(**_EQUAL)


def population_factors(count: int, rng: np.random.Generator) -> pd.DataFrame:
    """The assigned factors of ``count`` operators of population P (docs/analysis-plan.md), a row each."""
    cube = stats.qmc.LatinHypercube(d=12, rng=rng).random(count)
    ranks = cube[:, 0] < 2 / 3
    first = cube[:, 1]
    weights = np.column_stack([first, (1 - first)[:, None] * _dirichlet(cube[:, 2:5])])
    place = np.maximum(2 * cube[:, 5] - 1, 0)
    kernel = _dirichlet(cube[:, 6:10])
    low_pass = np.maximum((cube[:, 10] - 1 / 3) * 3 / 2, 0)
    chosen = np.where(ranks, (weights**2).sum(axis=1), 1.0)
    squares = place**2 * (kernel**2).sum(axis=1) + (1 - place) ** 2 * chosen + 2 * place * (1 - place) / _PIXELS
    return pd.DataFrame(
        {
            POPULATION: "P",
            DRAW: [f"P{number:03d}" for number in range(count)],
            BLOCK: None,
            FAMILY: np.where(ranks, "rank", "channelranks"),
            MSB: (1 - place) * _beyond_chance(first),
            SELECTIVITY: _beyond_chance(squares),
            ASYMMETRY: place * np.abs(kernel - 1 / _PIXELS).sum(axis=1) / 2,
            LOW_PASS: low_pass,
            "padding_mode": np.where(cube[:, 11] < 0.5, "zeros", "circular"),
            "operator_spec": "",
        }
    )


def rotation_factors(blocks: int, rng: np.random.Generator) -> pd.DataFrame:
    """The assigned factors of ``blocks`` blocks of four rotations (docs/analysis-plan.md), a row per network."""
    cube = stats.qmc.LatinHypercube(d=_PIXELS + 1, rng=rng).random(blocks)
    vectors = -np.sort(-_dirichlet(cube[:, :_PIXELS]), axis=1)
    low_pass = np.maximum((cube[:, -1] - 1 / 3) * 3 / 2, 0)
    weights = np.stack([np.roll(vectors, turn, axis=1) for turn in range(_PIXELS)], axis=1).reshape(-1, _PIXELS)
    return pd.DataFrame(
        {
            POPULATION: "R",
            DRAW: None,
            BLOCK: np.repeat([f"R{number:02d}" for number in range(blocks)], _PIXELS),
            FAMILY: "rank",
            MSB: _beyond_chance(weights[:, 0]),
            SELECTIVITY: _beyond_chance((weights**2).sum(axis=1)),
            ASYMMETRY: 0.0,
            LOW_PASS: np.repeat(low_pass, _PIXELS),
            "padding_mode": "circular",
            "operator_spec": [f"rank(({', '.join(f'{weight:.6f}' for weight in row)}))" for row in weights],
        }
    )


def _measured(
    factors: pd.DataFrame, truth: Truth, rest: Array, cell: str, kind: str, images: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    msb, selectivity = (factors[name].to_numpy(dtype=float) for name in (MSB, SELECTIVITY))
    see = _error(factors, rng)
    mean = rest + truth.msb * msb + truth.selectivity * (selectivity - 0.5) + truth.see * (see - 0.4)
    if factors[POPULATION].iloc[0] == "R":
        mean = mean + _weights(factors)[:, 1:] @ np.array(truth.ranks)
    consistency = rng.binomial(images, special.expit(mean)) / images
    population = factors[POPULATION].iloc[0]
    literal = np.where(factors[FAMILY] == "channelranks", (1 + 3 * msb) / 4, np.nan)
    n = len(factors)
    labels = {"data": cell, "shift_kind": kind, "fill": "background" if kind == "zero" else "", "n_images": images}
    return {
        **{name: factors[name].to_numpy() for name in factors.columns},
        **{name: np.repeat(np.array([label], dtype=object), n) for name, label in labels.items()},
        "checkpoint": np.array([f"{cell}-{population}-{number}" for number in range(n)], dtype=object),
        "consistency": consistency,
        "msb": literal,
        "msb_corrected": msb + rng.normal(0, 0.01, n),
        "msb_jacobian": msb + rng.normal(0, 0.01, n),
        "selectivity": selectivity + rng.normal(0, 0.01, n),
        "see": see,
    }


def _error(factors: pd.DataFrame, rng: np.random.Generator) -> Array:
    """An equivariance error that rises with selectivity and position and falls with the low pass, as in the pilot."""
    selectivity, place, low_pass = (factors[name].to_numpy(dtype=float) for name in (SELECTIVITY, ASYMMETRY, LOW_PASS))
    sharp = 0.15 + 0.45 * np.sqrt(np.maximum(selectivity, 0)) + 0.4 * place
    found: Array = np.maximum(sharp * (1 - 0.7 * low_pass) + rng.normal(0, 0.05, len(factors)), 0.01)
    return found


def _weights(factors: pd.DataFrame) -> Array:
    found: Array = np.array([[float(part) for part in text[6:-2].split(",")] for text in factors["operator_spec"]])
    return found


def _dirichlet(uniform: Array) -> Array:
    gammas = stats.gamma.ppf(np.clip(uniform, 1e-12, 1 - 1e-12), 0.5)
    shares: Array = gammas / gammas.sum(axis=1, keepdims=True)
    return shares


def _beyond_chance(value: Array) -> Array:
    found: Array = (value - 1 / _PIXELS) / (1 - 1 / _PIXELS)
    return found


def outcomes(truth: Truth, design: SimulatedDesign, seeds: Iterable[int], settings: Settings) -> pd.DataFrame:
    """What the statements say of simulated studies: a row per seed and shift kind.

    ``named``: the cause (:func:`~invariscope.analysis.designs.verdicts.causes`); ``false_claim``: whether, were
    nothing true, anything was claimed: a primary statement after Holm's correction, or a cause; ``slope``, ``se``,
    ``verdict``, ``p_holm`` of statement 1, and with ``_2``, ``_3`` those of the others.
    """
    records = []
    for seed in seeds:
        table = statements(simulate_study(truth, design, seed), settings, brief=True)
        for found in causes(table).to_dict("records"):
            members = table[table["shift_kind"] == found["shift_kind"]]
            row: dict[str, Any] = {"seed": seed, "shift_kind": found["shift_kind"], "named": found["named"]}
            for quantity, ending in _KEPT.items():
                one = members[members["quantity"] == quantity].to_dict("records")[0]
                row |= {f"{name}{ending}": one[name] for name in ("estimate", "se", "verdict", "p_holm")}
            claimed = min(row["p_holm"], row["p_holm_2"]) <= LEVEL or row["named"] != "nothing"
            records.append({**row, "false_claim": claimed})
    return pd.DataFrame(records)
