"""Zoos whose truth is known: tables as a collector writes them, from a model of what MSB does to consistency.

    logit(consistency) = 1.5 + between·(M_o - ½) + within·(m - M_o) + 6·(accuracy - 0.95) + operator + run + noise

with ``m`` a checkpoint's MSB and ``M_o`` the mean of its operator's. ``between = within`` is one common slope, both 0 a
null zoo, opposite signs Simpson's paradox.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.collectors.schema import LATER_COLUMNS, MSB_READINGS, OTHER_READINGS, SCHEMA_VERSION, TABLES

# operator -> (specifications with their strength and MSB, whether it selects one input)
OPERATORS = {
    "max": ({"max": (None, 0.97)}, True),
    "avg": ({"avg": (None, 0.02)}, False),
    "subsample": ({"subsample": (None, 0.05)}, True),
    "lp": ({f"lp(p={p:g})": (p, m) for p, m in ((1, 0.1), (2, 0.25), (3, 0.4), (5, 0.55), (9, 0.75))}, False),
    "soft": (
        {f"soft(beta={b:g})": (b, m) for b, m in ((0, 0.02), (0.5, 0.12), (1, 0.22), (2, 0.38), (8, 0.7), (32, 0.9))},
        False,
    ),
    "blur": ({f"blur(m={m})": (float(m), 0.02 + 0.01 * m) for m in (2, 3, 5)}, False),
    "maxblur": ({"maxblur(m=3)": (3.0, 0.45)}, False),
    "ddac": ({"ddac(k=3, g=2)": (None, 0.12)}, False),
    "aps": ({"aps(p=2)": (None, 0.35)}, True),
    "lps": ({"lps": (None, 0.3)}, True),
    "tips": ({"tips": (None, 0.25)}, False),
}
TRUTHS = {"negative": (-2.5, -2.5), "null": (0.0, 0.0), "simpson": (4.0, -4.0)}
"""Slopes between and within operators."""


@dataclass(frozen=True)
class Zoo:
    """A zoo to simulate; ``n_operators`` None = the project's own operators, else that many with MSB drawn at
    random.
    """

    truth: str = "negative"
    n_operators: int | None = None
    seeds: int = 3
    epochs: tuple[float, ...] = (8.0, 24.0)
    padding_modes: tuple[str, ...] = ("circular", "zeros")
    architectures: tuple[str, ...] = ("smallcnn",)
    shift_kinds: tuple[str, ...] = ("circular", "zero")
    operator_sd: float = 0.15
    run_sd: float = 0.1
    noise_sd: float = 0.1
    n_images: int = 600
    data: str = "digits test"
    surface_shift: int = 0
    swap_slope: float | None = None
    seed: int = 0


def simulate_tables(zoo: Zoo | None = None) -> Tables:
    """The tables of a simulated zoo; ``surface`` on a grid of ±``surface_shift`` pixels where that is positive,
    ``swaps`` where their slope is given: of the change of a score on that of the site's MSB, given accuracy's.
    """
    zoo = zoo or Zoo()
    rng = np.random.default_rng(zoo.seed)
    truth = _truth(zoo, rng)
    invariance = pd.DataFrame([record for row in truth.itertuples() for record in _invariance(zoo, row, rng)])
    spread = np.sqrt(np.maximum(invariance["value"] * (1 - invariance["value"]), 0) / zoo.n_images)
    invariance = invariance.assign(
        se=spread, low=invariance["value"] - 2 * spread, high=invariance["value"] + 2 * spread
    )
    layers = pd.DataFrame([record for row in truth.itertuples() for record in _layers(row, rng)])
    surface = [_surface(zoo, row, rng) for row in truth.itertuples() if zoo.surface_shift and row.last]
    checkpoints = _finish("checkpoints", _checkpoints(truth))
    swaps = [record for row in truth.itertuples() if zoo.swap_slope is not None for record in _swaps(zoo, row)]
    return Tables(
        checkpoints=checkpoints,
        layers=_finish("layers", layers.assign(data=zoo.data)),
        invariance=_finish("invariance", invariance.assign(data=zoo.data)),
        surface=_finish("surface", pd.concat(surface, ignore_index=True).assign(data=zoo.data) if surface else None),
        swaps=_finish("swaps", pd.DataFrame(swaps).assign(data=zoo.data) if swaps else None),
    )


def simulate_frame(zoo: Zoo | None = None) -> pd.DataFrame:
    """The joined frame of a simulated zoo."""
    return join(simulate_tables(zoo))


def write_tables(tables: Tables, folder: Path, parts: int = 2, version: int = SCHEMA_VERSION) -> Path:
    """Write tables as parquet parts, as the collectors do."""
    for name in ("checkpoints", "layers", "invariance", "surface", "swaps"):
        rows = getattr(tables, name)
        (folder / name).mkdir(parents=True, exist_ok=True)
        for part in range(parts if len(rows) else 0):
            data = pa.Table.from_pandas(rows.iloc[part::parts], schema=TABLES[name], preserve_index=False)
            data = data.replace_schema_metadata({"schema_version": str(version)})
            pq.write_table(data, folder / name / f"part{part}.parquet")
    return folder


def _truth(zoo: Zoo, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for operator, (specifications, selects) in _operators(zoo, rng).items():
        effect = rng.normal(0, zoo.operator_sd)
        for spec, (strength, msb) in specifications.items():
            for architecture in zoo.architectures:
                for padding in zoo.padding_modes:
                    for seed in range(zoo.seeds):
                        run = f"{architecture}-{spec}-{padding}-s{seed}"
                        run_effect, skill = rng.normal(0, zoo.run_sd), rng.normal(0, 0.01)
                        run_msb = np.clip(msb + rng.normal(0, 0.03), 0, 1)
                        for epoch in zoo.epochs:
                            rows.append(
                                {
                                    "checkpoint": f"{run}-e{epoch:g}",
                                    "architecture": architecture,
                                    "operator": operator,
                                    "operator_spec": spec,
                                    "strength": strength,
                                    "padding_mode": padding,
                                    "seed": seed,
                                    "run": run,
                                    "epoch": epoch,
                                    "last": epoch == max(zoo.epochs),
                                    "selects": selects,
                                    "effect": effect + run_effect + rng.normal(0, zoo.noise_sd),
                                    "m": float(np.clip(run_msb + rng.normal(0, 0.01), 0, 1)),
                                    "accuracy": float(np.clip(0.99 - 0.5 / epoch + skill, 0.05, 0.999)),
                                }
                            )
    frame = pd.DataFrame(rows)
    between, within = TRUTHS[zoo.truth]
    mean = frame.groupby("operator")["m"].transform("mean")
    frame["eta"] = (
        1.5 + between * (mean - 0.5) + within * (frame["m"] - mean) + 6 * (frame["accuracy"] - 0.95) + frame["effect"]
    )
    frame["sha256"] = [hashlib.sha256(name.encode()).hexdigest() for name in frame["checkpoint"]]
    frame["model"] = "zoo:" + frame["architecture"] + "?operator=" + frame["operator_spec"]
    return frame


def _operators(zoo: Zoo, rng: np.random.Generator) -> dict:
    if zoo.n_operators is None:
        return OPERATORS
    made = {}
    for index in range(zoo.n_operators):
        centre = rng.uniform(0.15, 0.85)
        specs = {f"op{index}({k})": (float(k), centre + 0.1 * (k - 1)) for k in range(3)}
        made[f"op{index}"] = (specs, bool(index % 2))
    return made


def _checkpoints(truth: pd.DataFrame) -> pd.DataFrame:
    factors = [
        json.dumps({"operator": o, "run": r, "width": 8}) for o, r in zip(truth["operator"], truth["run"], strict=True)
    ]
    return truth.assign(training_data="digits train", n_params=5000, factors=factors)


def _invariance(zoo: Zoo, row, rng: np.random.Generator) -> list[dict]:
    n, accuracy = zoo.n_images, row.accuracy
    shared = {"checkpoint": row.checkpoint, "sha256": row.sha256, "model": row.model, "n_images": n}
    shared["precision"] = "fp32"
    none = {"shift_kind": "none", "fill": None, "max_shift": 0, "n_shifts": 0, "plan": "none", "plan_hash": "0"}
    rows = [{**shared, **none, "score": "accuracy", "value": accuracy, "n_pairs": 0}]
    for kind in zoo.shift_kinds:
        c = float(1 / (1 + np.exp(-row.eta + (0.3 if kind == "zero" else 0.0) + rng.normal(0, zoo.noise_sd / 2))))
        scores = {
            "consistency": c,
            "consistency_to_clean": c**0.9,
            "fidelity": accuracy * c + 0.2 * (1 - accuracy) * c,
            "fidelity_product": accuracy * c,
            "worst_case_accuracy": accuracy * c**3,
            "kappa": (c - 0.1) / 0.9,
            "probability_drift": (1 - c) / 2,
        }
        plan = {"shift_kind": kind, "fill": "background" if kind == "zero" else None, "max_shift": 4, "n_shifts": 9}
        plan |= {"plan": "sampled", "plan_hash": f"plan-{kind}"}
        rows += [{**shared, **plan, "score": s, "value": v, "n_pairs": 36 * n} for s, v in scores.items()]
    return rows


def _layers(row, rng: np.random.Generator) -> list[dict]:
    sites = []
    for depth, offset in enumerate((-0.02, 0.0, 0.02)):
        m, flat = float(np.clip(row.m + offset, -0.05, 1)), 0.35 - 0.1 * depth
        readings = {
            "msb": float(np.clip(0.25 + 0.75 * m, 0, 1)) if row.selects else 1e-9,
            "msb_weight": 0.25 + 0.75 * m,
            "msb_top": float(np.clip(0.3 + 0.6 * m + rng.normal(0, 0.05), 0, 1)),
            "msb_corrected": m,
            "flat_fraction": flat,
        }
        readings["msb_all"] = flat + (1 - flat) * readings["msb"]
        sites.append(
            {
                "depth": depth,
                "site": f"stage{depth}.down",
                "site_kind": row.operator,
                **readings,
                **{f"{name}_se": 0.002 for name in (*MSB_READINGS, "flat_fraction")},
                **{column: np.nan for name in OTHER_READINGS for column in (name, f"{name}_se")},
                "not_applicable": None,
            }
        )
    shared = {
        **{"checkpoint": row.checkpoint, "sha256": row.sha256, "model": row.model, "n_sites": 3, "kernel": "2x2"},
        **{"stride": "2x2", "channels": 8, "input_size": "32x32", "output_size": "16x16", "n_windows": 1000},
        **{"n_images": 256, "explained": "reader", "reason": None},
    }
    return [{**shared, **site} for site in sites]


def _surface(zoo: Zoo, row, rng: np.random.Generator) -> pd.DataFrame:
    m = zoo.surface_shift
    dy, dx = (grid.ravel() for grid in np.meshgrid(np.arange(-m, m + 1), np.arange(-m, m + 1), indexing="ij"))
    distance = np.hypot(dy, dx)
    frames = []
    for kind in zoo.shift_kinds:
        eta = row.eta + 2.0 - 0.4 * distance + 0.3 * ((dy % 2 == 0) & (dx % 2 == 0))
        agreement = np.where(distance == 0, 1.0, 1 / (1 + np.exp(-eta)))
        frames.append(
            pd.DataFrame({"dy": dy, "dx": dx, "agreement": agreement, "accuracy": row.accuracy * agreement}).assign(
                shift_kind=kind, fill="background" if kind == "zero" else None, plan_hash=f"grid-{kind}"
            )
        )
    return pd.concat(frames, ignore_index=True).assign(
        checkpoint=row.checkpoint,
        sha256=row.sha256,
        model=row.model,
        max_shift=m,
        n_shifts=dy.size,
        plan="grid",
        agreement_se=0.01,
        accuracy_se=0.01,
        precision="fp32",
        n_images=256,
    )


SWAP_TO = {"max": 0.97, "avg": 0.02, "subsample": 0.05}
"""Replacements of simulated swaps, with the MSB that they have."""


def _swaps(zoo: Zoo, row) -> list[dict]:
    """Every site, and all at once (depth None), to each replacement: a network's changes share an effect of its own."""
    rng = np.random.default_rng([zoo.seed, int(row.sha256[:8], 16)])
    effect, rows = rng.normal(0, 0.02), []
    for depth in (0, 1, 2, None):
        for replacement, msb in SWAP_TO.items():
            if replacement == row.operator:
                continue
            before = {"msb_corrected_site": row.m, "msb_corrected": row.m, "accuracy": row.accuracy}
            accuracy = -0.1 * rng.random()
            site = msb - row.m + rng.normal(0, 0.03)
            change = {"msb_corrected_site": site, "msb_corrected": site / (1 if depth is None else 3)}
            changes = [("none", name, value) for name, value in {**change, "accuracy": accuracy}.items()]
            for kind in zoo.shift_kinds:
                score = zoo.swap_slope * site + 0.5 * accuracy + effect + rng.normal(0, 0.02)
                changes += [(kind, name, score) for name in ("consistency", "fidelity", "kappa")]
            for kind, name, value in changes:
                if depth is None and name == "msb_corrected_site":
                    continue
                none = kind == "none"
                plan = {
                    "shift_kind": kind,
                    "fill": "background" if kind == "zero" else None,
                    "max_shift": 0 if none else 4,
                }
                plan |= {"n_shifts": 0 if none else 9, "plan": "none" if none else "sampled"}
                start = before.get(name, 0.8)
                rows.append(
                    {
                        **{"checkpoint": row.checkpoint, "sha256": row.sha256, "model": row.model, **plan},
                        **{"depth": depth, "n_sites": 3, "replacement": replacement, "n_images": 100},
                        **{"site": None if depth is None else f"stage{depth}.down", "plan_hash": f"swap-{kind}"},
                        **{"site_kind": None if depth is None else row.operator, "reason": None},
                        **{"measure": name.removesuffix("_site"), "scope": "site" if "_site" in name else "network"},
                        **{"before": start, "after": start + value, "change": value, "se": 0.01},
                        **{"low": value - 0.02, "high": value + 0.02},
                    }
                )
    return rows


def _finish(table: str, rows: pd.DataFrame | None) -> pd.DataFrame:
    schema = TABLES[table]
    if rows is None:
        return schema.empty_table().to_pandas()
    provenance = {"data_fingerprint": "f0", "task": table, "invariscope_version": "0", "torch_version": "0"}
    rows = rows.assign(**{name: value for name, value in provenance.items() if name in schema.names})
    rows = rows.assign(**{name: None for name in LATER_COLUMNS if name in schema.names and name not in rows})
    return pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).to_pandas()


def regression_frame(
    seed: int = 0, groups: int = 8, size: int = 10, slope_sd: float = 0.0, level_sd: float = 0.3, noise: float = 0.2
):
    """Scores of operators whose slopes and levels are random, for models of ``c`` on ``m``."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(groups), size)
    m = rng.uniform(size=len(codes))
    accuracy = 0.9 + 0.03 * rng.normal(size=len(codes))
    architecture = np.array(["cnn", "resnet", "vgg"])[rng.integers(3, size=len(codes))]
    eta = 0.5 + level_sd * rng.normal(size=groups)[codes] + (slope_sd * rng.normal(size=groups) - 1.5)[codes] * m
    eta = eta + 4 * (accuracy - 0.9) + 0.2 * (architecture == "vgg") + noise * rng.normal(size=len(codes))
    columns = {"c": 1 / (1 + np.exp(-eta)), "m": m, "accuracy": accuracy, "architecture": architecture}
    return pd.DataFrame(columns).assign(operator=[f"op{o:02d}" for o in codes], data="digits", n_images=10_000)


def logits_of(frame: pd.DataFrame) -> pd.Series:
    """The logits of ``c`` of :func:`regression_frame`, as least squares takes them."""
    hits = frame["c"] * frame["n_images"]
    return np.log((hits + 0.5) / (frame["n_images"] - hits + 0.5))
