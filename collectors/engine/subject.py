"""One checkpoint under measurement: its network, and what several of its tasks want, made once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from invariscope.base.errors import is_memory
from invariscope.collectors.measure.batches import BATCH_PIXELS, LARGEST_BATCH, shared_batch, usual_batch
from invariscope.collectors.schema import SHIFT_KINDS

if TYPE_CHECKING:
    from torch import Tensor, nn

    from invariscope.collectors.measure.drift import DriftSums, MapMeans
    from invariscope.collectors.measure.invariance import Predictions
    from invariscope.collectors.measure.passes import Unshifted
    from invariscope.collectors.measure.shifts import ShiftPlan
    from invariscope.zoo.checkpoint import Checkpoint
    from invariscope.zoo.datasets import ImageSet
    from invariscope.zoo.datasets.inputs import PreparedImages, Size

SHARED_IMAGES = 256
"""First images of which one pass serves both MSB and the unshifted predictions: the network as it is, in batches of
``whole_batch``. They are run so whether MSB is measured in the same run or not: no value depends on that."""

SHARED_CHECK = 32
"""Images per pass where a network is looked at for whether it is a function of the image, and for a quarter of them."""


@dataclass
class Subject:
    """One checkpoint under measurement: its network, and the images as it wants them.

    What several tasks want is made once: the network of the shift passes, the unshifted pass, and, where
    ``keeps_predictions``, the predictions under shifts, which are as large as images x shifts. ``runtime``: what is to
    run the shift passes (:data:`invariscope.collectors.measure.precision.RUNTIMES`). ``watched``: of so many
    first images the maps at the sites are wanted of all these passes; 0 where they are not.
    """

    checkpoint: Checkpoint
    model: nn.Module
    images: ImageSet
    batch_size: int | None = None
    runtime: str = "torch"
    keeps_predictions: bool = True
    halved: bool = False
    watched: int = 0
    known_deterministic: bool | None = None
    ran: str | None = None
    """What ran the shift passes asked for last: a runtime, and after ``torch``, where it took the place of one, why."""
    by_torch: str | None = None
    """Why torch ran them although another runtime was asked for and there."""
    msb_batch: int = field(init=False)
    """Images per pass for MSB: ``whole_batch``, or fewer where memory ran out."""
    _checked: bool = False
    _networks: dict[tuple[str, bool], tuple[nn.Module, str]] = field(default_factory=dict)
    _recorded: dict[int, Unshifted] = field(default_factory=dict)
    _unshifted: dict[tuple[str, bool], Unshifted] = field(default_factory=dict)
    _predictions: dict[str, tuple[ShiftPlan, Predictions]] = field(default_factory=dict)
    _still: dict[tuple[str, bool], MapMeans] = field(default_factory=dict)
    _drifts: dict[str, DriftSums] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.msb_batch = self.whole_batch

    @property
    def whole_batch(self) -> int:
        """Images per pass for MSB, where memory does not run out."""
        return shared_batch(self.checkpoint.input.height * self.checkpoint.input.width)

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

    def check_deterministic(self) -> None:
        """Find out, once, whether the network is a function of the image: ``known_deterministic``, None where unknown.

        A network that fails here fails where it is measured, and is told of there.
        """
        from invariscope.collectors.measure.determinism import is_function_of_image

        if self._checked:
            return
        try:
            size = max(min(SHARED_CHECK, self.maps_per_pass), 2)
            self.known_deterministic = is_function_of_image(self.model, self.prepared(), batch_size=size)
        except Exception as error:  # foreign code
            if is_memory(error):
                raise
        self._checked = True

    def probe(self) -> list[float] | None:
        """What the network says of two images of noise, in a few numbers; None where it cannot be run on them."""
        from invariscope.collectors.measure.determinism import noise, probe

        spec = self.checkpoint.input
        try:
            return probe(self.model, noise(self.images.channels, spec))
        except Exception:  # foreign code, or an image too much for the memory: it is told of where it is measured
            return None

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
        return usual_batch(self.checkpoint.input.height * self.checkpoint.input.width)

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
        from invariscope.collectors.measure.passes import checked_images, shift_network

        precision, fold = key = settings["precision"], settings["fold"]
        if key not in self._networks:
            images = self.prepared()[: checked or checked_images(len(self.images))]
            if self.runtime == "torch":
                self._networks[key] = shift_network(self.model, images, precision=precision, fold=fold), "torch"
            else:
                self._networks[key] = self._by_openvino(images, precision, fold)
        network, self.ran = self._networks[key]
        return network

    def _by_openvino(self, images: Tensor, precision: str, fold: bool) -> tuple[nn.Module, str]:
        """The network as OpenVINO runs it, or as torch does where that is not to be; and which it is, and why."""
        from invariscope.base.errors import ModelError
        from invariscope.collectors.measure.passes import shift_network
        from invariscope.collectors.measure.runtimes import LEAST_IMAGES, Unconverted, by_openvino, faster

        is_auto = self.runtime == "auto"
        plain = shift_network(self.model, images, fold=fold)
        if is_auto and len(self.images) < LEAST_IMAGES:
            return plain, f"torch: fewer than {LEAST_IMAGES} images"
        try:
            if self.watched:
                raise Unconverted("the maps inside of it are watched")
            network = by_openvino(plain, images, precision)
        except (ModelError, Unconverted) as reason:
            if precision != "fp32":  # its rows are told from those of torch, whose numbers are others
                raise ModelError(f"OpenVINO does not run it in {precision} ({reason}): take runtime torch") from reason
            self.by_torch = f"torch: {reason}"
            return plain, self.by_torch
        if is_auto and not faster(plain, network, self.prepared()[: self.images_per_pass]):
            return plain, "torch: it is as fast"
        return network, "openvino"

    def record_output(self, start: int, output: Any) -> None:
        """Keep what the network said of the batch of ``whole_batch`` unshifted images from ``start`` on."""
        from invariscope.collectors.measure.passes import Unshifted, says_classes
        from invariscope.collectors.measure.saying import logits_of

        output = logits_of(output)
        # What is no prediction is refused where predictions are wanted; MSB can be measured all the same.
        # Where the maps are wanted too, the unshifted images are run once more, and watched.
        if self.watched or start >= SHARED_IMAGES or not says_classes(output, int(self.images.labels.max())):
            return
        # A batch cut short by the number of MSB's images is another one than the scores take.
        if len(output) == min(self.whole_batch, len(self.images) - start):
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
            still = self._map_means() if self.watched else None
            for start in range(0, min(shared, len(labels)), self.whole_batch):
                rows = slice(start, start + self.whole_batch)
                if start not in self._recorded:
                    batch = self.prepared()[rows]
                    self._recorded[start] = predict_unshifted(
                        self.model, batch, labels[rows], batch_size=self.msb_batch, run=_from(still, self.model, start)
                    )
                parts.append(self._recorded[start])
            if len(labels) > shared:
                rest, network = self.prepared().after(shared), self.network(settings)
                run = _from(still, network, shared)
                parts.append(
                    predict_unshifted(network, rest, labels[shared:], batch_size=self.images_per_pass, run=run)
                )
            self._unshifted[key] = Unshifted.join(parts)
            if still is not None:
                self._still[key] = still
        return self._unshifted[key]

    @staticmethod
    def plan(settings: Mapping[str, Any], n_images: int) -> ShiftPlan:
        """The sampled plan of a task's settings; of fewer images it is the beginning of that of more."""
        from invariscope.collectors.measure.shifts import ShiftPlan

        names = ("n_shifts", "kind", "seed", "fill")
        return ShiftPlan.sampled(n_images, settings["max_shift"], **{name: settings[name] for name in names})

    def predictions(self, settings: Mapping[str, Any], target_se: float | None = None) -> tuple[ShiftPlan, Predictions]:
        """Predictions under one kind's sampled plan, made once for all the tables that want them.

        With ``target_se`` only those of the first images, as many as it takes to know consistency so well.
        """
        from invariscope.collectors.measure.invariance import predict

        if target_se is not None:
            return self._predictions_until(settings, target_se)
        key = json.dumps(dict(settings), sort_keys=True)
        if key in self._predictions and (not self.watched or key in self._drifts):
            return self._predictions[key]
        plan = self.plan(settings, len(self.images))
        images = self.prepared(settings["crop_size"])
        options = {**self.pass_options(settings, len(images)), "keep_probabilities": self.keeps_predictions}
        drift = self._drift_sums(settings) if self.watched else None
        made = plan, predict(self.network(settings), images, self.images.labels, plan, drift=drift, **options)
        if self.keeps_predictions:
            self._predictions[key] = made
        if drift is not None:
            self._drifts[key] = drift
        return made

    def _predictions_until(self, settings: Mapping[str, Any], target_se: float) -> tuple[ShiftPlan, Predictions]:
        from invariscope.collectors.measure.invariance import Predictions, predict
        from invariscope.collectors.measure.scores import pair_agreement
        from invariscope.collectors.measure.stopping import error, steps
        from invariscope.collectors.measure.views import refuse_padded

        plan, network, labels = self.plan(settings, len(self.images)), self.network(settings), self.images.labels
        options = {**self.pass_options(settings, len(self.images)), "keep_probabilities": False}
        unshifted = options.pop("unshifted")
        if not plan.rule.keeps_size:  # once, of all: a part may be a single image
            refuse_padded(self.prepared(settings["crop_size"]), options["batch_size"])
        parts: list[Predictions] = []
        agreement: list[np.ndarray] = []
        for start, stop in steps(len(self.images)):
            images = self.prepared(settings["crop_size"], stop).after(start)
            clean = None if unshifted is None else unshifted.rows(slice(start, stop))
            some = plan.of_rows(start, stop)
            parts.append(predict(network, images, labels[start:stop], some, unshifted=clean, genuine=True, **options))
            agreement.append(pair_agreement(parts[-1].prediction))
            if error(np.concatenate(agreement)) <= target_se:
                break
        return plan, Predictions.join(parts)

    def drift(self, settings: Mapping[str, Any]) -> DriftSums:
        """How far the pooled maps move under one kind's sampled plan: of the passes of :meth:`predictions`."""
        key = json.dumps(dict(settings), sort_keys=True)
        if key not in self._drifts:
            self.predictions(settings)
        return self._drifts[key]

    def circular_drift(self, settings: Mapping[str, Any]) -> tuple[DriftSums | None, str]:
        """The same shifts as circular ones, seen by the network with circular padding; or why that cannot be had."""
        from invariscope.base.errors import ModelError
        from invariscope.collectors.measure.border import circularly_padded
        from invariscope.collectors.measure.drift import sum_drift
        from invariscope.collectors.measure.passes import checked_images, shift_network
        from invariscope.collectors.measure.shifts import ShiftPlan

        plan, images = self.plan(settings, len(self.images)), self.prepared(limit=self.watched)
        kind = settings["kind"] if plan.rule.reversible else "circular"
        around = ShiftPlan(kind, plan.mode, plan.max_shift, None, plan.seed, plan.offsets)
        try:
            model = circularly_padded(self.model, images[:1].to(next(self.model.parameters()).device))
        except ModelError as error:
            return None, str(error)
        how = {name: settings[name] for name in ("precision", "fold")}
        network = shift_network(model, images[: checked_images(len(self.images))], **how)
        return sum_drift(network, images, around, batch_size=self.images_per_pass), ""

    def _map_means(self) -> MapMeans:
        from invariscope.collectors.measure.drift import MapMeans

        return MapMeans(min(self.watched, len(self.images)))

    def _drift_sums(self, settings: Mapping[str, Any]) -> DriftSums:
        from invariscope.collectors.measure.drift import DriftSums

        if not SHIFT_KINDS[settings["kind"]].keeps_size:
            return DriftSums(self._map_means())  # the unshifted images are those at the windows' centre
        self.unshifted(settings)
        return DriftSums(self._still[settings["precision"], settings["fold"]])

    def pass_options(self, settings: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """How the first ``limit`` images go through the network of :meth:`network`."""
        # The centre of a window's larger image is resized otherwise than the image itself.
        keeps_size = SHIFT_KINDS[settings["kind"]].keeps_size
        unshifted = self.unshifted(settings).rows(slice(limit)) if keeps_size else None
        return {"batch_size": self.images_per_pass, "fold": False, "unshifted": unshifted}


def _from(still: MapMeans | None, network: nn.Module, first: int) -> Any:
    """What runs a network on images from ``first`` on, where they are watched."""
    return None if still is None else lambda start, batch: still.run(network, first + start, batch)
