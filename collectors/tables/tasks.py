"""The collectors by name: which tasks each asks for, and how one task's rows are measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pandas as pd

from invariscope.base.errors import DataError, InputError, ShiftError
from invariscope.base.names import unknown
from invariscope.collectors.measure.precision import PRECISIONS
from invariscope.collectors.schema import SHIFT_KINDS
from invariscope.collectors.tables.robustness import RobustnessOptions, measure_robustness, robustness_settings
from invariscope.zoo.datasets.inputs import Size, as_size
from invariscope.zoo.devices import check_device

if TYPE_CHECKING:
    from torch import nn

    from invariscope.collectors.measure.invariance import Predictions
    from invariscope.collectors.measure.passes import Unshifted
    from invariscope.collectors.measure.shifts import ShiftPlan
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet
    from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages


MSB_BATCH = 64
"""Images per pass for MSB, whatever the batch size: another size may take another convolution kernel, whose rounding
moves ties (by up to 1e-5 in ``msb_top``, seen between batches of 1 and of 64)."""

SHARED_IMAGES = 256
"""First images of which one pass serves both MSB and the unshifted predictions: the network as it is, in batches of
``MSB_BATCH``. They are run so whether MSB is measured in the same run or not, so that no value depends on that."""

BATCH_PIXELS, SMALLEST_BATCH, LARGEST_BATCH = 1 << 19, 8, 64
"""Pixels of a batch of images, where its size is not given, and the bounds of that size. Maps that stay in the caches
are fast: on one core batches of 64 take 1.2 to 1.4 times as long per image as batches of 8 for ResNet-50 at 224."""


@dataclass(frozen=True)
class Options:
    """What to measure, and how finely.

    ``max_shift`` is in input pixels (default: an eighth of the network's input size); ``crop_size`` is the size to
    which images are brought for crop shifts (default: the input size and ``max_shift`` on each side). MSB is measured
    on the first ``msb_images`` images, the surface on the first ``surface_images``, every ``surface_step`` pixels.
    Swaps put each operator of ``swap_to`` in the place of every site's, and are measured on the first ``swap_images``.
    Costs are of passes over ``cost_batch`` images, timed ``cost_repeats`` times.
    ``robustness``: attacks, corruptions and other data.

    The passes over shifted images take ``precision`` (``fp32`` or ``bf16``) and, unless ``fold`` is off, a network
    whose batch norms are folded into its convolutions; both are part of the tasks' keys. ``batch_size`` (default: by
    the input size) and ``device`` (``cpu``, ``cuda`` or ``mps``) are not: they move values by rounding only.
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
    cost_batch: int = 32
    cost_repeats: int = 20
    precision: str = "fp32"
    fold: bool = True
    batch_size: int | None = None
    device: str = "cpu"
    robustness: RobustnessOptions = field(default_factory=RobustnessOptions)

    def __post_init__(self) -> None:
        for name in self.collect:
            if name not in COLLECTORS:
                raise ShiftError(unknown("collector", name, COLLECTORS))
        # MSB comes before the scores, whose unshifted pass it shares.
        object.__setattr__(self, "collect", tuple(name for name in COLLECTORS if name in self.collect))
        for kind in self.shift:
            if kind not in SHIFT_KINDS:
                raise ShiftError(unknown("shift kind", kind, SHIFT_KINDS))
        if self.precision not in PRECISIONS:
            raise InputError(unknown("precision", self.precision, PRECISIONS))
        if self.batch_size is not None and self.batch_size < 1:
            raise DataError(f"batch_size is {self.batch_size}: take at least 1")
        check_device(self.device)
        # As slices of the data these would mean other images: -1 all but the last.
        for name in ("msb_images", "surface_images", "swap_images"):
            count = getattr(self, name)
            if count < 1:
                raise DataError(f"{name} is {count}: take at least one image")
        for name in ("cost_batch", "cost_repeats"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}: take at least 1")
        if "swaps" in self.collect:
            from invariscope.collectors.measure.swap import read_replacements

            read_replacements(self.swap_to)
        if "robustness" in self.collect:
            self.robustness.check()


@dataclass
class Subject:
    """One checkpoint under measurement: its network, and the images as it wants them.

    What several tasks want is made once: the network of the shift passes, the unshifted pass, and, where
    ``keeps_predictions``, the predictions under shifts, which are as large as images x shifts.
    """

    checkpoint: Checkpoint
    model: nn.Module
    images: ImageSet
    batch_size: int | None = None
    keeps_predictions: bool = True
    msb_batch: int = MSB_BATCH
    halved: bool = False
    _networks: dict[tuple[str, bool], nn.Module] = field(default_factory=dict)
    _recorded: dict[int, Unshifted] = field(default_factory=dict)
    _unshifted: dict[tuple[str, bool], Unshifted] = field(default_factory=dict)
    _predictions: dict[str, tuple[ShiftPlan, Predictions]] = field(default_factory=dict)

    def prepared(self, size: Size | None = None, limit: int | None = None) -> PreparedImages:
        """The first ``limit`` images at the network's input size, or at ``size``."""
        from invariscope.zoo.datasets.inputs import PreparedImages

        images = self.images if limit is None else self.images.head(limit)
        return PreparedImages(images, self.checkpoint.input, size)

    def halve(self) -> bool:
        """Halve the batches, for a machine whose memory ran out; false where they are of one image already."""
        if self.images_per_pass > 1:
            self.batch_size = self.images_per_pass // 2
            self.msb_batch = min(self.msb_batch, self.batch_size)
        elif self.msb_batch > 1:
            self.msb_batch //= 2
        else:
            return False
        self.halved = True
        return True

    @property
    def attack_block(self) -> int:
        """Images attacked at once: always as many, unless memory ran out."""
        from invariscope.collectors.measure.attacks import BLOCK

        return min(BLOCK, self.images_per_pass) if self.halved else BLOCK

    @property
    def images_per_pass(self) -> int:
        """The batch size, by the input's pixels where none was given."""
        if self.batch_size is not None:
            return self.batch_size
        return min(max(self._images_of_pixels, SMALLEST_BATCH), LARGEST_BATCH)

    @property
    def maps_per_pass(self) -> int:
        """The batch size of a segmentation network: its logits grow with the image, so that there is no least size."""
        most = min(max(self._images_of_pixels, 1), LARGEST_BATCH)
        if self.batch_size is None:
            return most
        return min(self.batch_size, most) if self.halved else self.batch_size

    @property
    def _images_of_pixels(self) -> int:
        return BATCH_PIXELS // (self.checkpoint.input.height * self.checkpoint.input.width)

    def network(self, settings: Mapping[str, Any], checked: int | None = None) -> nn.Module:
        """The network of the shift passes, in the precision of a task's settings; ``checked`` images compare it."""
        from invariscope.collectors.measure.passes import CHECKED, shift_network

        precision, fold = key = settings["precision"], settings["fold"]
        if key not in self._networks:
            images = self.prepared()[: checked or CHECKED]
            self._networks[key] = shift_network(self.model, images, precision=precision, fold=fold)
        return self._networks[key]

    def record_output(self, start: int, output: Any) -> None:
        """Keep what the network said of the batch of ``MSB_BATCH`` unshifted images from ``start`` on."""
        from invariscope.collectors.measure.passes import Unshifted, says_classes

        # What is no prediction is refused where predictions are wanted; MSB can be measured all the same.
        if start >= SHARED_IMAGES or not says_classes(output, int(self.images.labels.max())):
            return
        # A batch cut short by the number of MSB's images is another one than the scores take.
        if len(output) == min(MSB_BATCH, len(self.images) - start):
            self._recorded[start] = Unshifted.of(output)

    def unshifted(self, settings: Mapping[str, Any]) -> Unshifted:
        """What the network says of the unshifted images: of the first ``SHARED_IMAGES`` as it is, of the others folded.

        In bfloat16 it says all of them so: a change of precision is no change under a shift.
        """
        from invariscope.collectors.measure.passes import Unshifted, predict_unshifted

        key = settings["precision"], settings["fold"]
        if key not in self._unshifted:
            labels, shared = self.images.labels, SHARED_IMAGES if settings["precision"] == "fp32" else 0
            parts = []
            for start in range(0, min(shared, len(labels)), MSB_BATCH):
                rows = slice(start, start + MSB_BATCH)
                if start not in self._recorded:
                    batch = self.prepared()[rows]
                    self._recorded[start] = predict_unshifted(
                        self.model, batch, labels[rows], batch_size=self.msb_batch
                    )
                parts.append(self._recorded[start])
            if len(labels) > shared:
                rest = self.prepared().after(shared)
                parts.append(
                    predict_unshifted(self.network(settings), rest, labels[shared:], batch_size=self.images_per_pass)
                )
            self._unshifted[key] = Unshifted.join(parts)
        return self._unshifted[key]

    def predictions(self, settings: Mapping[str, Any]) -> tuple[ShiftPlan, Predictions]:
        """Predictions under one kind's sampled plan, made once for all the tables that want them."""
        from invariscope.collectors.measure.invariance import predict

        key = json.dumps(dict(settings), sort_keys=True)
        if key in self._predictions:
            return self._predictions[key]
        plan = _sampled(settings, len(self.images))
        images = self.prepared(settings["crop_size"])
        options = {**self.pass_options(settings, len(images)), "keep_probabilities": self.keeps_predictions}
        made = plan, predict(self.network(settings), images, self.images.labels, plan, **options)
        if self.keeps_predictions:
            self._predictions[key] = made
        return made

    def pass_options(self, settings: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """How the first ``limit`` images go through the network of :meth:`network`."""
        # The centre of a crop's larger image is resized otherwise than the image itself.
        unshifted = None if settings["kind"] == "crop" else self.unshifted(settings).rows(slice(limit))
        return {"batch_size": self.images_per_pass, "fold": False, "unshifted": unshifted}


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
    from invariscope.collectors.measure.msb import measure_msb

    return measure_msb(
        subject.model,
        subject.prepared(limit=settings["images"]),
        batch_size=subject.msb_batch,
        windows_per_image=settings["windows"],
        seed=settings["seed"],
        on_output=subject.record_output,
    )


def _shift_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    spec = checkpoint.input
    max_shift = options.max_shift if options.max_shift is not None else max(min(spec.height, spec.width) // 8, 1)
    crop_size = options.crop_size if options.crop_size is not None else _with_margin(spec, max_shift)
    return [
        {
            "kind": kind,
            "max_shift": max_shift,
            "n_shifts": options.n_shifts,
            "seed": options.seed,
            "fill": options.fill if kind == "zero" else None,
            "crop_size": crop_size if kind == "crop" else None,
            **_passes(options),
        }
        for kind in dict.fromkeys(options.shift)
    ]


def _with_margin(spec: InputSpec, margin: int) -> Size:
    """The size of images in which a window of the input's size can move by ``margin`` pixels."""
    return as_size((spec.height + 2 * margin, spec.width + 2 * margin), "crop size")


def _sampled(settings: Mapping[str, Any], n_images: int) -> ShiftPlan:
    """The sampled plan of a task's settings; of fewer images it is the beginning of that of more."""
    from invariscope.collectors.measure.shifts import ShiftPlan

    return ShiftPlan.sampled(
        n_images,
        settings["max_shift"],
        n_shifts=settings["n_shifts"],
        kind=settings["kind"],
        seed=settings["seed"],
        fill=settings["fill"],
    )


def _passes(options: Options) -> dict[str, Any]:
    return {"precision": options.precision, "fold": options.fold}


def _invariance_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    return [{"kind": "none", **_passes(options)}, *_shift_settings(checkpoint, options)]


def _invariance(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.invariance import accuracy_frame, plan_columns, score

    if settings["kind"] == "none":
        return accuracy_frame(subject.unshifted(settings).prediction == subject.images.labels.numpy())
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
    from invariscope.collectors.measure.invariance import measure_surface

    images = subject.prepared(settings["crop_size"], settings["images"])
    return measure_surface(
        subject.network(settings),
        images,
        subject.images.labels[: len(images)],
        settings["max_shift"],
        settings["kind"],
        step=settings["step"],
        fill=settings["fill"],
        **subject.pass_options(settings, len(images)),
    )


def _predictions(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.invariance import plan_columns

    plan, predictions = subject.predictions(settings)
    return predictions.to_frame().assign(**plan_columns(plan))


def _segmentation(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.segmentation import CHECKED_MAPS, measure_segmentation

    is_shifted = settings["kind"] != "none"
    images = subject.prepared(settings["crop_size"] if is_shifted else None)
    return measure_segmentation(
        subject.network(settings, CHECKED_MAPS),
        images,
        plans=[_sampled(settings, len(images))] if is_shifted else [],
        unshifted=not is_shifted,
        batch_size=subject.maps_per_pass,
        fold=False,
    )


def _swap_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    from invariscope.zoo.operators import parse_operator

    replacements = list(dict.fromkeys(parse_operator(spec).canonical for spec in options.swap_to))
    unshifted = {"kind": "none", "seed": options.seed, "windows": options.windows_per_image, "crop_size": None}
    shared = {"images": options.swap_images, "replacements": replacements}
    # A network after a swap is another one, folded anew: swaps have no say in precision and folding.
    shifted = [
        {name: value for name, value in settings.items() if name not in _passes(options)}
        for settings in _shift_settings(checkpoint, options)
    ]
    return [{**settings, **shared} for settings in (unshifted, *shifted)]


def _swap(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.swap import measure_swaps

    images = subject.prepared(settings["crop_size"], settings["images"])
    is_shifted = settings["kind"] != "none"
    return measure_swaps(
        subject.model,
        images,
        images.labels,
        [_sampled(settings, len(images))] if is_shifted else [],
        settings["replacements"],
        unshifted=not is_shifted,
        batch_size=subject.images_per_pass,
        msb_batch_size=subject.msb_batch,
        windows_per_image=settings.get("windows"),
        seed=settings["seed"],
    )


def _cost_settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    size = checkpoint.input.size
    return [{"size": size, "batch": options.cost_batch, "repeats": options.cost_repeats, "device": options.device}]


def _cost(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    from invariscope.collectors.measure.cost import measure_model_cost

    batch = settings["batch"]
    images = subject.prepared(limit=batch)[:]
    # Fewer images than a batch stand in it several times: a pass takes as long whatever they show.
    images = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch]
    checkpoint = subject.checkpoint
    return measure_model_cost(
        checkpoint.model, images, checkpoint.folder, repeats=settings["repeats"], device=settings["device"]
    )


COLLECTORS: Mapping[str, Collector] = MappingProxyType(
    {
        "checkpoints": Collector(_describe_settings, _describe, "what each checkpoint is"),
        "layers": Collector(_layers_settings, _layers, "MSB of every downsampling site"),
        "invariance": Collector(_invariance_settings, _invariance, "accuracy and shift-invariance scores"),
        "surface": Collector(_surface_settings, _surface, "agreement and accuracy over a grid of shifts"),
        "predictions": Collector(_shift_settings, _predictions, "every prediction, to recompute any score from"),
        "segmentation": Collector(_invariance_settings, _segmentation, "mIoU and per-pixel consistency"),
        "swaps": Collector(_swap_settings, _swap, "what changes when a site's operator is replaced"),
        "cost": Collector(_cost_settings, _cost, "parameters, multiply-adds, and timings beside max pooling's"),
        "robustness": Collector(robustness_settings, measure_robustness, "accuracy under attacks and corruptions"),
    }
)
"""The collectors by the name of the table that each fills."""
