"""Robustness, segmentation and cost of a simulated zoo, with known truth, as the collectors of these tables write them.

logit(accuracy under a condition) = 0.9 logit(accuracy) - hardness · severity - MSB + noise
logit(per-pixel consistency) = 3 - 1.5 MSB + noise;  logit(mIoU) = 0.8 + noise
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import special

from invariscope.analysis.tables.joined import join
from invariscope.analysis.tables.load import Tables
from invariscope.collectors.schema import PLAN_COLUMNS, TABLES

CORRUPTIONS = ("gaussian_noise", "fog", "jpeg_compression")
ATTACKS = (("pgd", "linf", (1 / 255, 2 / 255, 4 / 255), 2.0), ("pgd", "l2", (0.25, 0.5), 2.5))
COSTS = {"max": 1.0, "avg": 0.97, "soft": 1.4, "tips": 1.8}
"""Latency as a share of max pooling's; 1.2 for the others."""


def with_conditions(tables: Tables, *, n_images: int = 500, seed: int = 0) -> Tables:
    """``tables`` with the three tables filled for all of their checkpoints; all but the doses are drawn operators."""
    rng = np.random.default_rng(seed)
    frame = join(tables).drop_duplicates("checkpoint")
    identity = frame[["checkpoint", "sha256", "model", "operator", "accuracy", "msb_corrected", "data"]]
    rows = list(identity.itertuples(index=False))
    return dataclasses.replace(
        tables,
        checkpoints=_drawn(tables.checkpoints, np.random.default_rng(seed + 1)),
        robustness=_finish("robustness", [r for row in rows for r in _robustness(row, rng)], n_images),
        segmentation=_finish("segmentation", [r for row in rows for r in _segmentation(row, rng)], n_images),
        cost=_finish("cost", [r for row in rows for r in _cost(row, rng)], n_images),
        layers=_rivals(tables.layers, np.random.default_rng(seed + 2)),
        drift=_finish("drift", _drifts(tables, np.random.default_rng(seed + 3)), n_images),
    )


def _rivals(layers: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    return layers.assign(**{name: rng.uniform(0.1, 0.9, len(layers)) for name in ("selectivity", "see")})


def _drifts(tables: Tables, rng: np.random.Generator) -> list[dict]:
    """The head's drift under every plan: logarithms go with consistency."""
    found = []
    for row in join(tables).itertuples(index=False):
        last = float(np.exp(2 * (1 - row.consistency) + rng.normal(0, 0.3)))
        plan = {name: getattr(row, name) for name in PLAN_COLUMNS}
        about = {**_identity(row), **plan, "depth": 3, "site": None, "site_kind": "logits", "reason": None}
        found.append({**about, "drift_in": last, "drift_out": last * float(np.exp(rng.normal(0, 0.2)))})
    return found


def _drawn(checkpoints: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Checkpoints with the factors that recipes of drawn operators give: two thirds a population, a third blocks."""
    told = []
    for number, (factors, operator) in enumerate(zip(checkpoints["factors"], checkpoints["operator"], strict=True)):
        if operator in ("soft", "lp"):
            told.append(factors)
            continue
        msb, selectivity, low_pass, asymmetry = rng.uniform(size=4).round(3).tolist()
        design = {"population": "P", "family": ("rank", "channelranks")[number % 2], "draw": f"P{number:03d}"}
        if number % 3 == 0:
            design = {"population": "R", "family": "rank", "draw": f"R{number:03d}", "block": f"R{number // 12:02d}"}
        assigned = {
            "assigned_msb": msb,
            "assigned_selectivity": selectivity,
            "assigned_lambda": low_pass,
            "assigned_asymmetry": asymmetry,
        }
        told.append(json.dumps({**json.loads(factors), **design, **assigned}))
    return checkpoints.assign(factors=told)


def _identity(row) -> dict:
    return {name: getattr(row, name) for name in ("checkpoint", "sha256", "model", "data")}


def _robustness(row, rng: np.random.Generator) -> list[dict]:
    clean = special.logit(np.clip(row.accuracy, 0.02, 0.998))

    def measured(kind: str, condition: str, drop: float, **settings: object) -> dict:
        logit = 0.9 * clean - drop - row.msb_corrected * (drop > 0) + rng.normal(0, 0.1)
        accuracy = row.accuracy if kind == "clean" else float(special.expit(logit))
        return {**_identity(row), "condition_kind": kind, "condition": condition, "accuracy": accuracy, **settings}

    found = [measured("clean", "clean", 0.0)]
    for attack, norm, budgets, hardness in ATTACKS:
        for place, budget in enumerate(budgets, start=1):
            settings = {"severity": budget, "norm": norm, "steps": 20, "restarts": 1, "step_size": budget / 4}
            found.append(measured("adversarial", attack, hardness * place, **settings, seed=0))
    for corruption in CORRUPTIONS:
        for severity in range(1, 6):
            found.append(measured("corruption", corruption, 0.4 * severity, severity=float(severity), seed=0))
    return [*found, measured("data", "digits-far", 1.2)]


def _segmentation(row, rng: np.random.Generator) -> list[dict]:
    none = {"shift_kind": "none", "fill": None, "max_shift": 0, "n_shifts": 0, "plan": "none", "plan_hash": "0"}
    miou = float(special.expit(0.8 + rng.normal(0, 0.1)))
    found = [{**_identity(row), **none, "score": "miou", "value": miou}]
    found.append({**_identity(row), **none, "score": "pixel_accuracy", "value": miou**0.3})
    for kind in ("circular", "zero"):
        plan = {"shift_kind": kind, "fill": "background" if kind == "zero" else None, "max_shift": 4, "n_shifts": 9}
        value = float(special.expit(3 - 1.5 * row.msb_corrected - (kind == "zero") + rng.normal(0, 0.1)))
        plan |= {"plan": "sampled", "plan_hash": f"plan-{kind}", "score": "consistency_pixel", "value": value}
        found.append({**_identity(row), **plan})
    return found


def _cost(row, rng: np.random.Generator) -> list[dict]:
    ratio = COSTS.get(row.operator, 1.2)
    timed = {"input_size": "32x32", "batch_size": 64, "repeats": 30, "threads": 1, "device": "cpu", "reference": "max"}
    counted = {**timed, "repeats": None, "threads": None, "device": None}
    shared = {name: value for name, value in _identity(row).items() if name != "data"}
    extra = 1.1 if row.operator in ("tips", "lps", "ddac") else 1.0
    found = [
        {**shared, **counted, "quantity": "parameters", "value": 5000 * extra, "unit": "parameters", "relative": extra},
        {
            **{**shared, **counted, "quantity": "multiply_adds", "value": 1e6 * extra},
            **{"unit": "multiply-adds", "relative": extra},
        },
    ]
    for quantity, base in (("latency", 0.01), ("training_step", 0.03)):
        relative = ratio * float(np.exp(rng.normal(0, 0.02)))
        spread = {"low": base * relative * 0.98, "high": base * relative * 1.03}
        found.append(
            {
                **{**shared, **timed, "quantity": quantity, "value": base * relative, "unit": "s", **spread},
                **{"relative": relative, "relative_low": relative * 0.97, "relative_high": relative * 1.04},
            }
        )
    return found


def _finish(table: str, records: list[dict], n_images: int) -> pd.DataFrame:
    schema = TABLES[table]
    rows = pd.DataFrame(records).assign(n_images=n_images)
    value = "accuracy" if table == "robustness" else "value"
    if table not in ("cost", "drift"):
        error = np.sqrt(rows[value] * (1 - rows[value]) / n_images)
        rows = rows.assign(se=error, low=rows[value] - 2 * error, high=rows[value] + 2 * error)
    provenance = {"data_fingerprint": "f0", "task": table, "invariscope_version": "0", "torch_version": "0"}
    rows = rows.assign(**{name: value for name, value in provenance.items() if name in schema.names})
    rows = rows.assign(**{name: None for name in schema.names if name not in rows})
    return pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False).to_pandas()
