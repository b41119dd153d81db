"""What the columns of a wide table are: role, unit and meaning of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from invariscope.analysis.tables.checkpoints import METRIC, SAME
from invariscope.collectors.schema import TABLES


@dataclass(frozen=True)
class Field:
    """A column. ``role``: identity, factor, metric, score, or error (of a score)."""

    name: str
    role: str
    unit: str
    meaning: str

    def error(self, kind: str) -> Field:
        """The column beside it that holds its standard error (``se``) or an end of its interval (``low``, ``high``)."""
        return replace(self, name=f"{self.name}_{kind}", role="error", meaning=f"{_ERRORS[kind]} of {self.name}")


_ERRORS = {
    "se": "standard error, images as the sampling unit,",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
}

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "accuracy": "share of images predicted right",
        "consistency": "probability that two different shifts of an image get the same prediction",
        "consistency_to_clean": "probability that a shifted image gets the prediction of the unshifted one",
        "fidelity": "probability that two different shifts of an image get the same prediction and it is right",
        "stability": "probability that the unshifted image and two different shifts all get the same prediction",
        "fidelity_product": "accuracy times consistency",
        "worst_case_accuracy": "share of images predicted right under every shift",
        "kappa": "chance-corrected consistency: 0 chance, 1 perfect",
        "flip_rate": "share of one-pixel steps of a path at which the prediction changes",
        "probability_drift": "mean absolute change of the probability of the class predicted without a shift",
        "miou": "mean intersection over union",
        "pixel_accuracy": "share of pixels predicted right",
        "consistency_pixel": "share of pixels that two shifts of an image put into the same class, shifts undone",
        "consistency_pixel_corrected": "chance-corrected consistency_pixel: 0 chance, 1 perfect",
        "fidelity_pixel": "share of pixels that two shifts of an image both put into the right class",
        "miou_shifted": "mean intersection over union of shifted images",
        "pixel_accuracy_shifted": "share of pixels of shifted images predicted right",
        "robust_accuracy": "share of images predicted right",
    }
)
"""What each score is, in one line; all are shares or corrected shares, of unit 1."""

_IDENTITY = {"checkpoint", SAME, "sha256", "model", "deterministic", "data"}


def field_of(name: str) -> Field:
    """The field of a column that the tables have under this name, of a further factor, or of a metric."""
    if name == SAME:
        return Field(name, "identity", "", "first name of the network that this one equals; the analysis counts one")
    if name.startswith("factor_"):
        return Field(name, "factor", "", f"factor {name.removeprefix('factor_')} of the manifest")
    if name.startswith(METRIC):
        return Field(name, "metric", "", f"metric {name.removeprefix(METRIC)} of the manifest, measured elsewhere")
    if name in ("n_sites_unmeasured", "n_sites_unexplained"):
        what = "without a number" if name == "n_sites_unmeasured" else "that no site explains"
        return Field(name, "count", "sites", f"downsampling sites of the network {what}")
    for table in ("checkpoints", "layers"):
        if name in TABLES[table].names:
            notes = {key.decode(): text.decode() for key, text in (TABLES[table].field(name).metadata or {}).items()}
            meaning, role = notes.get("meaning", ""), _role(name, table)
            if table == "layers" and role == "score":
                meaning += "; mean over the network's sites"
            if table == "layers" and name.endswith("_se"):
                meaning = f"largest standard error that the mean of {name.removesuffix('_se')} over the sites can have"
            return Field(name, role, notes.get("unit", ""), meaning)
    return Field(name, "score", "", "")


def _role(name: str, table: str) -> str:
    if name in _IDENTITY:
        return "identity"
    if table == "checkpoints":
        return "score" if name == "operator_equivariance_error" else "factor"
    return "error" if name.endswith("_se") else "count" if name.startswith("n_") else "score"


def scored(column: str, score: str, *, shift: Any = None, condition: Any = None) -> Field:
    """The field of a score: without a shift, under a plan, or of a condition of table ``robustness``."""
    meaning = MEANINGS.get(score, score)
    if shift is not None:
        border = f", filled with {shift.fill}" if shift.fill else ""
        chosen = f"{shift.n_shifts} {shift.plan} per image"
        meaning += f"; {shift.shift_kind} shifts of up to {shift.max_shift} input pixels{border}, {chosen}"
    if condition is not None:
        settings = [
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
            for name in ("norm", "severity", "steps", "restarts")
            if (value := getattr(condition, name)) is not None and value == value
        ]
        about = f"{condition.condition_kind} {condition.condition}".replace("clean clean", "clean")
        meaning += f"; {', '.join([about, *settings])}, first {condition.n_images} images"
    return Field(column, "score", "1", meaning)
