"""The collectors by name: which tasks each asks for, and how one task's rows are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from collectors.schema import SHIFT_KINDS
from zoo.errors import DataError, ShiftError, unknown

if TYPE_CHECKING:
    from torch import nn

    from collectors.invariance import Predictions
    from collectors.shifts import ShiftPlan
    from zoo.datasets import ImageSet
    from zoo.datasets.inputs import PreparedImages
    from zoo.manifest import Checkpoint


MSB_BATCH = 64
"""Images per pass for MSB, whatever the batch size: another size may take another convolution kernel, whose rounding
moves ties (by up to 1e-5 in ``msb_top``, seen between batches of 1 and of 64)."""


@dataclass(frozen=True)
class Options:
    """What to measure, and how finely.

    ``max_shift`` is in input pixels (default: an eighth of the network's input size); ``crop_size`` is the size to
    which images are brought for crop shifts (default: the input size and ``max_shift`` on each side). MSB is measured
    on the first ``msb_images`` images, the surface on the first ``surface_images``, every ``surface_step`` pixels.
    Swaps put each operator of ``swap_to`` in the place of every site's, and are measured on the first ``swap_images``.
    """

    collect: tuple[str, ...] = ("checkpoints", "layers", "invariance")
    shift: tuple[str, ...] = ("circular", "zero")
    max_shift: int | None = None
    n_shifts: int = 9
    fill: str = "mean"
    crop_size: int | None = None
    seed: int = 0
    msb_images: int = 256
    windows_per_image: int | None = None
    surface_images: int = 256
    surface_step: int = 1
    swap_to: tuple[str, ...] = ("max", "avg", "subsample", "soft(beta=1)", "blur(m=3)")
    swap_images: int = 256
    batch_size: int = 256

    def __post_init__(self) -> None:
        for name in self.collect:
            if name not in COLLECTORS:
                raise ShiftError(unknown("collector", name, COLLECTORS))
        for kind in self.shift:
            if kind not in SHIFT_KINDS:
                raise ShiftError(unknown("shift kind", kind, SHIFT_KINDS))
        # As slices of the data these would mean other images: -1 all but the last.
        for name in ("msb_images", "surface_images", "swap_images"):
            count = getattr(self, name)
            if count < 1:
                raise DataError(f"{name} is {count}: take at least one image")
        if "swaps" in self.collect:
            from collectors.swap import read_replacements

            read_replacements(self.swap_to)


@dataclass
class Subject:
    """One checkpoint under measurement: its network, and the images as it wants them."""

    checkpoint: Checkpoint
    model: nn.Module
    images: ImageSet
    batch_size: int
    msb_batch: int = MSB_BATCH
    _predictions: dict[str, tuple[ShiftPlan, Predictions]] = field(default_factory=dict)

    def prepared(self, size: int | None = None, limit: int | None = None) -> PreparedImages:
        """The first ``limit`` images at the network's input size, or at ``size``."""
        from zoo.datasets.inputs import PreparedImages

        images = self.images if limit is None else self.images.head(limit)
        return PreparedImages(images, self.checkpoint.input, size)

    def halve(self) -> bool:
        """Halve the batches, for a machine whose memory ran out; false where they are of one image already."""
        if self.batch_size > 1:
            self.batch_size //= 2
            self.msb_batch = min(self.msb_batch, self.batch_size)
        elif self.msb_batch > 1:
            self.msb_batch //= 2
        else:
            return False
        return True

    def predictions(self, settings: Mapping[str, Any]) -> tuple[ShiftPlan, Predictions]:
        """Predictions under one kind's sampled plan, made once for all the tables that want them."""
        from collectors.invariance import predict

        key = json.dumps(dict(settings), sort_keys=True)
        if key not in self._predictions:
            plan = _sampled(settings, len(self.images))
            predictions = predict(
                self.model,
                self.prepared(settings["crop_size"]),
                self.images.labels,
                plan,
                batch_size=self.batch_size,
            )
            self._predictions[key] = plan, predictions
        return self._predictions[key]


@dataclass(frozen=True)
class Collector:
    """A table's collector: the settings of each task for one checkpoint, and the rows of one task."""

    settings: Callable[[Checkpoint, Options], list[dict[str, Any]]]
    measure: Callable[[Subject, dict[str, Any]], pd.DataFrame]
    help: str


def _describe_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    return [{"name": checkpoint.name, "factors": json.loads(json.dumps(dict(checkpoint.factors), default=str))}]


def _describe(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    factors = settings["factors"]
    text = {name: _text(factors.get(name)) for name in ("architecture", "operator", "operator_spec", "padding_mode")}
    row = {
        **text,
        "strength": _number(factors.get("strength")),
        "training_data": _text(factors.get("training_data", subject.checkpoint.labels)),
        "seed": factors.get("seed"),
        "run": _text(factors.get("run")),
        "epoch": _number(factors.get("epoch")),
        "n_params": sum(parameter.numel() for parameter in subject.model.parameters()),
        "factors": json.dumps(factors, sort_keys=True),
    }
    return pd.DataFrame([row])


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _layers_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    return [{"images": options.msb_images, "windows": options.windows_per_image, "seed": options.seed}]


def _layers(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from collectors.msb import measure_msb

    return measure_msb(
        subject.model,
        subject.prepared(limit=settings["images"]),
        batch_size=subject.msb_batch,
        windows_per_image=settings["windows"],
        seed=settings["seed"],
    )


def _shift_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    size = checkpoint.input.size
    max_shift = options.max_shift if options.max_shift is not None else max(size // 8, 1)
    crop_size = options.crop_size if options.crop_size is not None else size + 2 * max_shift
    return [
        {
            "kind": kind,
            "max_shift": max_shift,
            "n_shifts": options.n_shifts,
            "seed": options.seed,
            "fill": options.fill if kind == "zero" else None,
            "crop_size": crop_size if kind == "crop" else None,
        }
        for kind in dict.fromkeys(options.shift)
    ]


def _sampled(settings: Mapping[str, Any], n_images: int) -> ShiftPlan:
    """The sampled plan of a task's settings; of fewer images it is the beginning of that of more."""
    from collectors.shifts import ShiftPlan

    return ShiftPlan.sampled(
        n_images,
        settings["max_shift"],
        n_shifts=settings["n_shifts"],
        kind=settings["kind"],
        seed=settings["seed"],
        fill=settings["fill"],
    )


def _invariance_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    return [{"kind": "none"}, *_shift_settings(checkpoint, options)]


def _invariance(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from collectors.invariance import measure_accuracy, plan_columns, score

    if settings["kind"] == "none":
        return measure_accuracy(subject.model, subject.prepared(), subject.images.labels, batch_size=subject.batch_size)
    plan, predictions = subject.predictions(settings)
    return score(predictions, plan).assign(**plan_columns(plan))


def _surface_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    return [
        {
            **{name: value for name, value in settings.items() if name not in ("n_shifts", "seed")},
            "images": options.surface_images,
            "step": options.surface_step,
        }
        for settings in _shift_settings(checkpoint, options)
    ]


def _surface(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from collectors.invariance import measure_surface

    images = subject.prepared(settings["crop_size"], settings["images"])
    return measure_surface(
        subject.model,
        images,
        subject.images.labels[: len(images)],
        settings["max_shift"],
        settings["kind"],
        step=settings["step"],
        fill=settings["fill"],
        batch_size=subject.batch_size,
    )


def _predictions(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from collectors.invariance import plan_columns

    plan, predictions = subject.predictions(settings)
    return predictions.to_frame().assign(**plan_columns(plan))


def _swap_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    from zoo.operators import parse_operator

    replacements = list(dict.fromkeys(parse_operator(spec).canonical for spec in options.swap_to))
    unshifted = {"kind": "none", "seed": options.seed, "windows": options.windows_per_image, "crop_size": None}
    shared = {"images": options.swap_images, "replacements": replacements}
    return [{**settings, **shared} for settings in (unshifted, *_shift_settings(checkpoint, options))]


def _swap(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from collectors.swap import measure_swaps

    images = subject.prepared(settings["crop_size"], settings["images"])
    is_shifted = settings["kind"] != "none"
    return measure_swaps(
        subject.model,
        images,
        images.labels,
        [_sampled(settings, len(images))] if is_shifted else [],
        settings["replacements"],
        unshifted=not is_shifted,
        batch_size=subject.batch_size,
        msb_batch_size=MSB_BATCH,
        windows_per_image=settings.get("windows"),
        seed=settings["seed"],
    )


COLLECTORS: Mapping[str, Collector] = MappingProxyType(
    {
        "checkpoints": Collector(_describe_settings, _describe, "what each checkpoint is"),
        "layers": Collector(_layers_settings, _layers, "MSB of every downsampling site"),
        "invariance": Collector(_invariance_settings, _invariance, "accuracy and shift-invariance scores"),
        "surface": Collector(_surface_settings, _surface, "agreement and accuracy over a grid of shifts"),
        "predictions": Collector(_shift_settings, _predictions, "every prediction, to recompute any score from"),
        "swaps": Collector(_swap_settings, _swap, "what changes when a site's operator is replaced"),
    }
)
"""The collectors by the name of the table that each fills."""
