"""Accuracy of a network under attacks and corruptions and on other data: the tasks, and the rows of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from invariscope.base.errors import DataError, InputError
from invariscope.base.names import unknown
from invariscope.collectors.measure.attack import NORMS, Attack
from invariscope.collectors.measure.corruptions import CORRUPTIONS, NOTES, SEVERITIES, check_corruption, corrupt
from invariscope.collectors.measure.corruptions.constants import constants_for
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages
from invariscope.zoo.datasets.source import DataSource

if TYPE_CHECKING:
    from torch import nn

    from invariscope.collectors.tables.tasks import Options, Subject
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet

KEPT_BYTES = 256 << 20
"""Corrupted images that a process keeps for the next checkpoint; what is beyond is made anew."""

_KEPT: dict[tuple[Any, ...], np.ndarray] = {}
_DRAWN = ("corruption", "constants", "seed")


@dataclass(frozen=True)
class RobustnessOptions:
    """What the collector ``robustness`` measures.

    ``attacks`` under each of ``norms``, at each budget of that norm (``linf``, ``l2``; units of [0, 1] pixels), with
    ``steps`` and ``restarts``; ``step`` is the step size as a share of the budget (default: ``2.5 / steps``).
    ``corruptions`` at ``severities``. All of these on the first ``images`` images. ``second_data``: specifications of
    further data sets, labelled with the classes of the network, which are measured whole.

    Raises:
        InputError: an unknown name, or a number out of range.
    """

    attacks: tuple[str, ...] = ("pgd",)
    norms: tuple[str, ...] = ("linf", "l2")
    linf: tuple[float, ...] = (1 / 255, 2 / 255, 4 / 255, 8 / 255)
    l2: tuple[float, ...] = (0.25, 0.5, 1.0)
    steps: int = 20
    restarts: int = 1
    step: float | None = None
    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = SEVERITIES
    images: int = 256
    second_data: tuple[str, ...] = ()
    second_split: str = "test"

    def check(self) -> None:
        """Refuse what cannot be measured; second data are read."""
        if self.images < 1:
            raise DataError(f"images of robustness are {self.images}: take at least one")
        for norm in self.norms:
            if norm not in NORMS:
                raise InputError(unknown("norm", norm, NORMS))
        for settings in _attacks(self, 0):
            Attack(**{name: value for name, value in settings.items() if name not in ("kind", "images")})
        for corruption in self.corruptions:
            for severity in self.severities:
                check_corruption(corruption, severity)
        if self.corruptions and not self.severities:
            raise InputError("corruptions without severities: name some of 1 to 5, or no corruptions")
        for spec in self.second_data:
            _second(spec, self.second_split)


def robustness_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task for clean accuracy, for each attack at each budget, for each corruption, and for each other data set."""
    chosen, seed = options.robustness, options.seed
    constants = constants_for(min(checkpoint.input.height, checkpoint.input.width))
    corruptions = [
        {
            "kind": "corruption",
            "corruption": name,
            "severities": sorted(set(chosen.severities)),
            "constants": constants,
            "images": chosen.images,
            "seed": seed,
        }
        for name in dict.fromkeys(chosen.corruptions)
    ]
    others = [
        {
            "kind": "data",
            "spec": spec,
            "split": chosen.second_split,
            "fingerprint": _second(spec, chosen.second_split).fingerprint,
        }
        for spec in dict.fromkeys(chosen.second_data)
    ]
    return [{"kind": "clean", "images": chosen.images}, *_attacks(chosen, seed), *corruptions, *others]


def _attacks(chosen: RobustnessOptions, seed: int) -> list[dict[str, Any]]:
    budgets = {"linf": chosen.linf, "l2": chosen.l2}
    return [
        {
            "kind": "adversarial",
            "name": name,
            "norm": norm,
            "epsilon": epsilon,
            "steps": chosen.steps,
            "restarts": chosen.restarts,
            "step_size": chosen.step * epsilon if chosen.step is not None and name == "pgd" and epsilon else None,
            "images": chosen.images,
            "seed": seed,
        }
        for name in dict.fromkeys(chosen.attacks)
        for norm in dict.fromkeys(chosen.norms)
        for epsilon in dict.fromkeys(budgets[norm])
    ]


@lru_cache(maxsize=8)
def _second(spec: str, split: str) -> ImageSet:
    """Another data set, decoded once per process."""
    images = DataSource(spec, split).images
    if not images.classes:
        raise DataError(f"{images.name} has no labels: second data must have those of the network's classes")
    return images


def measure_robustness(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """The rows of one task."""
    return _MEASURES[settings["kind"]](subject, settings)


def _clean(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    images = subject.prepared(limit=settings["images"])
    return _row(subject, subject.model, images, condition_kind="clean", condition="clean")


def _adversarial(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.attacks import PixelModel, measure_attack

    spec = subject.checkpoint.input
    network = PixelModel(subject.model, spec.mean, spec.std)
    attack = Attack(**{name: value for name, value in settings.items() if name not in ("kind", "images")})
    pixels = _pixels(subject, settings["images"])
    return measure_attack(network, pixels, pixels.labels, attack, block=subject.attack_block)


def _corruption(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    rows = []
    for severity in settings["severities"]:
        made = _corrupted(subject, settings, severity)
        rows.append(
            _row(
                subject,
                subject.model,
                PreparedImages(made, subject.checkpoint.input),
                condition_kind="corruption",
                condition=settings["corruption"],
                severity=float(severity),
                seed=settings["seed"],
                note=_corruption_note(settings),
            )
        )
    return pd.concat(rows, ignore_index=True)


def _corruption_note(settings: Mapping[str, Any]) -> str:
    notes = [f"constants of {settings['constants']}"]
    if settings["corruption"] in NOTES:
        notes.append(NOTES[settings["corruption"]])
    return "; ".join(notes)


def _data(subject: Subject, settings: Mapping[str, Any]) -> pd.DataFrame:
    other = _second(settings["spec"], settings["split"])
    if other.fingerprint != settings["fingerprint"]:
        raise DataError(f"{other.name} was changed during the run: run again")
    images = PreparedImages(other, subject.checkpoint.input)
    return _row(subject, subject.model, images, condition_kind="data", condition=other.name)


_MEASURES = {"clean": _clean, "adversarial": _adversarial, "corruption": _corruption, "data": _data}


def _row(subject: Subject, model: nn.Module, images: PreparedImages, **columns: Any) -> pd.DataFrame:
    """Accuracy on images, as a row of the table ``robustness``."""
    from invariscope.collectors.measure.passes import predict_unshifted
    from invariscope.collectors.measure.scores import accuracy

    unshifted = predict_unshifted(model, images, images.labels, batch_size=subject.images_per_pass)
    found = accuracy(unshifted.prediction == images.labels.numpy())
    nothing = dict.fromkeys(("severity", "norm", "steps", "restarts", "step_size", "seed", "note"))
    numbers = {"accuracy": found.value, "se": found.se, "low": found.low, "high": found.high}
    return pd.DataFrame([{**nothing, **columns, **numbers, "n_images": len(images)}])


def _pixels(subject: Subject, limit: int) -> PreparedImages:
    """The first images at the network's size, as pixels in [0, 1]."""
    spec = InputSpec(subject.checkpoint.input.size, (0.0,), (1.0,))
    return PreparedImages(subject.images.head(limit), spec)


def _corrupted(subject: Subject, settings: Mapping[str, Any], severity: int) -> ImageSet:
    """The first images at the network's size, corrupted: for every checkpoint of that size the same."""
    import torch

    limit, size = settings["images"], subject.checkpoint.input.size
    clean = subject.images.head(limit)
    key = (subject.images.fingerprint, len(clean), size, severity, *(settings[k] for k in _DRAWN))
    if (made := _KEPT.get(key)) is None:
        pixels = _pixels(subject, limit)
        parts = [
            corrupt(
                (pixels[start : start + 64] * 255).round().clamp(0, 255).to(torch.uint8).numpy(),
                settings["corruption"],
                severity,
                seed=settings["seed"],
                first=start,
                constants=settings["constants"],
            )
            for start in range(0, len(pixels), 64)
        ]
        made = np.concatenate(parts)
        if sum(kept.nbytes for kept in _KEPT.values()) + made.nbytes <= KEPT_BYTES:
            _KEPT[key] = made
    return replace(clean, images=torch.from_numpy(made), masks=None, mask_classes=())
