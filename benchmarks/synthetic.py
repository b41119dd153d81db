"""Synthetic tables of any number of checkpoints, with the columns and the parts that `collect` writes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from invariscope.collectors.schema import MSB_READINGS, OTHER_READINGS, SCHEMA_VERSION, TABLES

KINDS = {"circular": None, "zero": "background"}
"""Shift kinds, and what fills them."""

N_IMAGES, MAX_SHIFT, N_SHIFTS = 1_000, 4, 9
_ARCHITECTURES, _PADDINGS = ("smallcnn", "resnet"), ("circular", "zeros")


@dataclass(frozen=True)
class Synthetic:
    """``checkpoints`` networks of ``operators`` operators in turn, of two architectures and paddings; ``drawn``: the
    operators are those of a population, each in one network of a cell, with their assigned quantities as factors.

        logit(consistency) = 1.5 - 2.5 m + 6 (accuracy - 0.95) + operator + run + noise
    """

    checkpoints: int
    operators: int = 200
    drawn: bool = False
    seed: int = 0

    def write(self, folder: Path) -> Path:
        """Write one compacted part of each table."""
        truth = self._truth()
        tables = {"checkpoints": _described(truth), "layers": _layers(truth), "invariance": _invariance(truth)}
        for name, rows in tables.items():
            (folder / name).mkdir(parents=True, exist_ok=True)
            pq.write_table(_finished(name, rows), folder / name / "compacted-0.parquet")
        return folder

    def _truth(self) -> pd.DataFrame:
        rng = np.random.default_rng(self.seed)
        number = np.arange(self.checkpoints)
        operator, turn = number % self.operators, number // self.operators
        architecture, padding = turn % 2, (operator + turn // 2) % 2
        assigned = rng.uniform(0, 1, self.operators)
        msb = np.clip(assigned[operator] + rng.normal(0, 0.05, self.checkpoints), 0, 1)
        accuracy = np.clip(0.95 + rng.normal(0, 0.01, self.checkpoints), 0.6, 0.999)
        effect = rng.normal(0, 0.15, self.operators)[operator] + rng.normal(0, 0.15, self.checkpoints)
        names = np.array([f"op{index:03d}" for index in range(self.operators)])[operator]
        frame = pd.DataFrame({"number": number, "operator": names, "turn": turn, "m": msb, "accuracy": accuracy})
        frame["architecture"], frame["padding_mode"] = (
            np.array(_ARCHITECTURES)[architecture],
            np.array(_PADDINGS)[padding],
        )
        frame["eta"] = 1.5 - 2.5 * msb + 6 * (accuracy - 0.95) + effect - 0.2 * architecture + 0.1 * padding
        frame["run"] = "run-" + frame["number"].astype(str).str.zfill(6)
        frame["checkpoint"] = frame["run"] + "-e020"
        frame["sha256"] = [f"{one:064x}" for one in number]
        frame["model"] = "zoo:" + frame["architecture"] + "?operator=" + frame["operator"]
        frame["data"] = "synthetic/test"
        factors = {"seed": turn, "strength": np.full(self.checkpoints, np.nan)}
        further: dict[str, np.ndarray] = {}
        if self.drawn:
            low_pass, asymmetry, selectivity = (rng.uniform(0, top, self.operators) for top in (0.4, 1.0, 1.0))
            further = {
                "population": np.full(self.checkpoints, "P"),
                "draw": operator,
                "assigned_msb": assigned[operator],
                "assigned_selectivity": selectivity[operator],
                "assigned_asymmetry": asymmetry[operator],
                "assigned_lambda": low_pass[operator],
            }
            frame["data"] = np.array([f"synthetic{one}/test" for one in turn // 2])
        columns = {name: list(values) for name, values in further.items()}
        texts = [
            json.dumps({name: _plain(values[row]) for name, values in columns.items()}) for row in range(len(frame))
        ]
        return frame.assign(**factors, factors=texts)


def _plain(value: object) -> object:
    return value.item() if isinstance(value, np.generic) else value


def _described(truth: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    probe = list(rng.normal(size=(len(truth), 20)))
    return truth.assign(
        operator_spec=truth["operator"] + "(a=1)", training_data="synthetic", epoch=20.0, n_params=1702,
        tensors_sha256=truth["sha256"], probe=probe, operator_equivariance_error=0.5 * truth["m"],
    )  # fmt: skip


def _layers(truth: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    sites = []
    for depth, offset in enumerate((-0.02, 0.0, 0.02)):
        m = np.clip(truth["m"] + offset + rng.normal(0, 0.01, len(truth)), -0.05, 1)
        values = {
            "msb": np.clip(0.25 + 0.75 * m, 0, 1),
            "msb_all": np.clip(0.3 + 0.7 * m, 0, 1),
            "msb_weight": 0.25 + 0.75 * m,
            "msb_top": np.clip(0.3 + 0.6 * m + rng.normal(0, 0.05, len(truth)), 0, 1),
            "msb_corrected": m,
            "flat_fraction": np.full(len(truth), 0.35 - 0.1 * depth),
            **{name: np.clip(m + rng.normal(0, 0.2, len(truth)), 0, 1) for name in OTHER_READINGS},
        }
        errors = {f"{name}_se": 0.002 for name in (*MSB_READINGS, "flat_fraction", *OTHER_READINGS)}
        sites.append(
            truth[["checkpoint", "sha256", "model", "data"]].assign(
                depth=depth,
                n_sites=3,
                site=f"stage{depth}.down",
                site_kind=truth["operator"],
                kernel="2x2",
                stride="2x2",
                channels=8,
                input_size="32x32",
                output_size="16x16",
                n_windows=1000,
                n_images=256,
                explained="reader",
                **values,
                **errors,
            )
        )
    return pd.concat(sites, ignore_index=True)


def _invariance(truth: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    shared = truth[["checkpoint", "sha256", "model", "data"]].assign(precision="fp32", n_images=N_IMAGES)
    still = {
        "shift_kind": "none",
        "fill": None,
        "max_shift": 0,
        "n_shifts": 0,
        "plan": "none",
        "plan_hash": "plan-none",
    }
    parts = [shared.assign(**still, score="accuracy", value=truth["accuracy"], n_pairs=N_IMAGES)]
    for kind, fill in KINDS.items():
        eta = truth["eta"] - (0.3 if kind == "zero" else 0.0) + rng.normal(0, 0.05, len(truth))
        c = 1 / (1 + np.exp(-eta))
        scores = {
            "consistency": c,
            "consistency_to_clean": c**0.9,
            "fidelity": truth["accuracy"] * c + 0.2 * (1 - truth["accuracy"]) * c,
            "stability": c**0.8,
            "fidelity_product": truth["accuracy"] * c,
            "worst_case_accuracy": truth["accuracy"] * c**3,
            "kappa": (c - 0.1) / 0.9,
            "probability_drift": (1 - c) / 2,
        }
        plan = {"shift_kind": kind, "fill": fill, "max_shift": MAX_SHIFT, "n_shifts": N_SHIFTS, "plan": "sampled"}
        parts += [
            shared.assign(**plan, plan_hash=f"plan-{kind}", score=score, value=value, n_pairs=36 * N_IMAGES)
            for score, value in scores.items()
        ]
    rows = pd.concat(parts, ignore_index=True)
    error = np.sqrt(np.maximum(rows["value"] * (1 - rows["value"]), 0) / N_IMAGES)
    return rows.assign(se=error, low=rows["value"] - 2 * error, high=rows["value"] + 2 * error)


def _finished(name: str, rows: pd.DataFrame) -> pa.Table:
    schema = TABLES[name]
    tasks = [f"{name}-{one}" for one in rows["sha256"]]
    given = {"data_fingerprint": rows.get("data", ""), "deterministic": True, "task": tasks}
    given |= {"invariscope_version": "0", "torch_version": "0"}
    missing = [column for column in schema.names if column not in rows.columns]
    rows = rows.assign(**{column: given.get(column) for column in missing})
    made = pa.Table.from_pandas(rows[schema.names], schema=schema, preserve_index=False)
    return made.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
