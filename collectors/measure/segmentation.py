"""How a segmentation network predicts pixels, unshifted and under shifts: scores over images, from maps made in turn.

Views are compared where both show the same pixel of the image: each is brought back to the unshifted frame, and what
a shift moved out of sight, or what is void in the mask, takes no part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, ModelError, ShiftError
from invariscope.collectors.measure.invariance import plan_columns
from invariscope.collectors.measure.passes import (
    Images,
    batches,
    class_maps,
    evaluating,
    is_logits,
    is_maps,
    run_network,
    shift_network,
)
from invariscope.collectors.measure.pixel_scores import (
    MOST_CLASSES,
    NOWHERE,
    class_counts,
    corrected_agreement,
    in_frame,
    miou,
    over_images,
    pair_shares,
    pixel_accuracy,
)
from invariscope.collectors.measure.scores import ScoreEstimate
from invariscope.collectors.measure.shifts import ShiftPlan, crop_window
from invariscope.collectors.measure.views import ShiftView, fill_value, image_size, refuse_padded
from invariscope.zoo.datasets.inputs import PreparedImages, Size, place

CHECKED_MAPS = 4
"""First images on which a folded network is compared with the network as it is: each gives as many logits as pixels."""

LOOK = 64
"""Masks looked at together before anything is measured."""


def measure_segmentation(
    model: nn.Module,
    images: Images,
    masks: Tensor | np.ndarray | None = None,
    plans: Sequence[ShiftPlan] = (),
    *,
    unshifted: bool = True,
    batch_size: int = 16,
    size: Size | None = None,
    fill: float | Tensor | None = None,
    precision: str = "fp32",
    fold: bool = True,
    classes: Sequence[str] | None = None,
) -> pd.DataFrame:
    """mIoU and pixel accuracy of the unshifted images, and per-pixel consistency under each plan.

    Unshifted (kind ``none``): ``miou``, ``pixel_accuracy``. Under a plan: ``consistency_pixel``, the share of pixels on
    which two shifts of an image agree, mean over its pairs of shifts and over images (mASCC for ``circular``, mASSC
    for ``zero`` and ``crop``); ``consistency_pixel_corrected``, the same corrected for chance; ``fidelity_pixel``, the
    share on which they agree and are right; ``miou_shifted`` and ``pixel_accuracy_shifted``, of all shifted views, over
    the pixels of the image that each shows. Void pixels (255) are left out of everything. Definitions and errors:
    module ``pixel_scores``. Held in memory at once: the logits of ``batch_size`` views, and the uint8
    maps of as many images under all their shifts.

    Args:
        model: a network that returns logits ``(n, classes, H, W)`` of the size of its input, or a mapping whose entry
            ``out`` is that; run in evaluation mode, and left in the mode that it was in.
        images: ``(N, C, H, W)`` floating-point images as the network wants them (normalised), or ``PreparedImages``.
        masks: ``(N, H, W)`` uint8, class numbers or 255 for void; those of ``PreparedImages`` by default.
        plans: the shifts; of a ``crop`` plan the images and masks are the larger ones.
        unshifted: whether to measure the unshifted images. Of ``crop`` plans' images that is the window at the centre,
            whose scores have the plan's columns: they are not those of the images.
        batch_size: views per forward pass.
        size: the window of a ``crop`` plan; the network's input size for ``PreparedImages``.
        fill: value(s) of the uncovered strip under kind ``zero``, as for :func:`predict`.
        precision: ``fp32``, the network's own floating-point type, or ``bf16``.
        fold: whether batch norms are folded into the convolutions before them and 1 x 1 convolutions packed.
        classes: names of the masks' classes, for ``classes_absent``; those of ``PreparedImages`` by default.

    Returns:
        One row per score, with ``value``, ``se``, ``low``, ``high``, ``n_images``, ``n_pairs`` (of shifts),
        ``n_classes`` (those that an mIoU is the mean of), ``void_share``, ``classes_absent`` (classes with no pixel in
        the masks) and the plan's columns.

    Raises:
        ModelError: the network fails, or returns no finite logits per pixel of its input's size.
        DataError: masks that are missing, do not go together with the images, are void throughout, or hold a class
            that the network does not have.
        ShiftError: a plan does not fit the images.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: take at least 1")
    truth = _Masks.checked(images, masks, classes)
    size = images.spec.size if size is None and isinstance(images, PreparedImages) else size
    if parts := [plan.kind for plan in plans if plan.rule.steps > 1]:
        raise ShiftError(f"a {parts[0]} shift brings no pixel to a pixel: take a kind of whole pixels")
    crops = [plan for plan in plans if not plan.rule.keeps_size]
    for plan in crops:
        crop_window(image_size(images), size, plan.for_rows(0, len(images)))
    if crops:
        refuse_padded(images, batch_size)
    still = ShiftView(crops[0].kind if crops else "circular", 0.0, size)
    network = shift_network(model, still.unshifted(images[:CHECKED_MAPS]), precision=precision, fold=fold)
    segmenter = _Segmenter(network, truth.highest, batch_size)
    frames = []
    with evaluating(model), torch.inference_mode():
        if unshifted:
            found = _measure_unshifted(segmenter, images, truth, still)
            frames += [found.assign(**plan_columns(plan)) for plan in crops or (None,)]
        for plan in plans:
            view = ShiftView(plan.kind, fill_value(images, plan, fill), size)
            frames.append(_measure_plan(segmenter, images, truth, plan, view))
    if not frames:
        raise DataError("there is nothing to measure: give plans, or unshifted=True")
    return pd.concat(frames, ignore_index=True)


def _measure_unshifted(segmenter: _Segmenter, images: Images, truth: _Masks, view: ShiftView) -> pd.DataFrame:
    counts = []
    for rows, batch in segmenter.batches(images):
        prediction = segmenter.maps(view.unshifted(batch))
        masks = truth.of(rows, prediction.shape[1:])
        counts.append(class_counts(prediction, masks, segmenter.classes))
    return truth.describe(_accuracies(np.concatenate(counts), "", truth.classes))


def _measure_plan(
    segmenter: _Segmenter, images: Images, truth: _Masks, plan: ShiftPlan, view: ShiftView
) -> pd.DataFrame:
    frame, k = image_size(images), plan.n_shifts
    shares, counts = [], []
    for rows, batch in segmenter.batches(images):
        offsets = plan.for_rows(rows.start, rows.stop)
        framed = in_frame(segmenter.shifted_maps(batch, offsets, view), offsets, plan.kind, frame)
        masks = truth.of(rows, frame)
        shares.append(np.stack(pair_shares(framed, masks)))
        counts.append(class_counts(framed, masks[:, None], segmenter.classes))
    agreement, fidelity = np.concatenate(shares, axis=1)
    counted = np.concatenate(counts)
    seen = np.isfinite(agreement)
    n_images, n_pairs = int(seen.sum()) if k > 1 else len(images), int(seen.sum()) * (k * (k - 1) // 2)
    estimates = {
        "consistency_pixel": over_images(agreement[seen], n_pairs),
        "consistency_pixel_corrected": corrected_agreement(agreement[seen], counted[seen, 2], n_pairs),
        "fidelity_pixel": over_images(fidelity[seen], n_pairs),
    }
    records = [_record(name, estimate, n_images) for name, estimate in estimates.items()]
    accuracies = _accuracies(counted, "_shifted", truth.classes)
    return truth.describe([*records, *accuracies]).assign(**plan_columns(plan))


def _accuracies(counts: np.ndarray, suffix: str, classes: int | None) -> list[dict[str, Any]]:
    """The records of mIoU and pixel accuracy, over the images that have a pixel with a class.

    An output that is no class of the data is wrong wherever it is predicted, and has no IoU of its own.
    """
    counts = counts[counts[:, 1].any(1)]
    mean, present = miou(counts[..., :classes])
    return [
        {**_record(f"miou{suffix}", mean, len(counts)), "n_classes": present},
        _record(f"pixel_accuracy{suffix}", pixel_accuracy(counts), len(counts)),
    ]


def _record(name: str, estimate: ScoreEstimate, n_images: int) -> dict[str, Any]:
    return {"score": name, **vars(estimate), "n_images": n_images, "n_classes": None}


@dataclass(frozen=True)
class _Masks:
    """The masks of the images, as large as these, and what is to be said of them."""

    images: Images
    masks: Tensor | None
    names: tuple[str, ...]
    pixels: np.ndarray
    """``(256,)``: pixels of each value over all masks."""

    @classmethod
    def checked(cls, images: Images, masks: Tensor | np.ndarray | None, names: Sequence[str] | None) -> _Masks:
        """The masks, after a look at all of them; those of ``PreparedImages`` where none are given."""
        if isinstance(images, PreparedImages):
            names = images.imageset.mask_classes if names is None else names
        elif masks is None:
            raise DataError("masks are missing: give one for each image, (N, H, W) of class numbers, 255 for void")
        elif images.ndim != 4 or not images.is_floating_point():
            found = f"{images.dtype} of shape {tuple(images.shape)}"
            raise DataError(f"images are {found}: give floating-point images (N, C, H, W), normalised for the network")
        if len(images) == 0:
            raise DataError("there are no images: give at least one")
        given = None if masks is None else _as_masks(masks, (len(images), *image_size(images)))
        counted = np.zeros(NOWHERE + 1, dtype=np.int64)
        truth = cls(images, given, tuple(names or ()), counted)
        for start in range(0, len(images), LOOK):
            counted += np.bincount(truth._some(slice(start, start + LOOK)).ravel(), minlength=len(counted))
        if not counted[:NOWHERE].any():
            raise DataError("every pixel of the masks is void (255): take masks with classes")
        return truth

    @property
    def highest(self) -> int:
        """The highest class in the masks."""
        return int(np.flatnonzero(self.pixels[:NOWHERE])[-1])

    @property
    def classes(self) -> int | None:
        """The number of the data's classes, where their names are known."""
        return len(self.names) or None

    def of(self, rows: slice, window: tuple[int, ...]) -> np.ndarray:
        """Masks of some images, ``(n, *window)`` uint8: of larger ones the window at the centre."""
        masks = self._some(rows)
        top, left = ((have - want) // 2 for have, want in zip(masks.shape[1:], window, strict=True))
        return masks[:, top : top + window[0], left : left + window[1]]

    def describe(self, records: list[dict[str, Any]]) -> pd.DataFrame:
        """Records as rows, with the share of void pixels and the classes that no mask holds."""
        void = float(self.pixels[NOWHERE] / self.pixels.sum())
        names = self.names or tuple(str(number) for number in range(self.highest + 1))
        absent = [name for name, count in zip(names, self.pixels, strict=False) if count == 0]
        return pd.DataFrame(records).assign(
            void_share=void, classes_absent=", ".join(absent), n_classes=lambda rows: rows["n_classes"].astype("Int64")
        )

    def _some(self, rows: slice) -> np.ndarray:
        if self.masks is None and isinstance(self.images, PreparedImages):
            found: np.ndarray = self.images.masks(rows).numpy()
            return found
        return self.masks[rows].numpy() if self.masks is not None else np.empty(0, np.uint8)


def _as_masks(masks: Tensor | np.ndarray, shape: tuple[int, ...]) -> Tensor:
    masks = torch.as_tensor(masks).cpu()
    if tuple(masks.shape) != shape:
        raise DataError(f"masks have shape {tuple(masks.shape)}, and the images want {shape}: give one of their size")
    if masks.is_floating_point() or masks.is_complex() or masks.dtype == torch.bool:
        raise DataError(f"masks are {masks.dtype}: give whole numbers, classes from 0 and 255 for void")
    low, high = int(masks.min()), int(masks.max())
    if low < 0 or high > NOWHERE:
        raise DataError(f"masks hold numbers from {low} to {high}: give classes from 0 to 254 and 255 for void")
    return masks.to(torch.uint8)


@dataclass
class _Segmenter:
    """A network whose maps are made a few views at a time; ``classes`` is known once it has said something."""

    network: nn.Module
    highest: int
    batch_size: int
    classes: int = 0

    def batches(self, images: Images) -> Iterator[tuple[slice, Tensor]]:
        """The images where the network is, and which rows they are."""
        start = 0
        for batch in batches(images, self.batch_size):
            yield slice(start, start + len(batch)), place(batch, self.network)
            start += len(batch)

    def maps(self, views: Tensor) -> np.ndarray:
        """The class of every pixel: ``(n, H, W)`` uint8; the logits are gone when this returns."""
        output = class_maps(run_network(self.network, views))
        logits = checked_maps(output, type(self.network).__name__, tuple(views.shape), self.highest)
        self.classes = logits.shape[1]
        return logits.argmax(1).to(torch.uint8).cpu().numpy()

    def shifted_maps(self, batch: Tensor, offsets: np.ndarray, view: ShiftView) -> np.ndarray:
        """The maps of each image under each of its ``offsets (n, K, 2)``: ``(n, K, h, w)`` uint8.

        Few images go through the network under several shifts at once, as in :func:`predict`.
        """
        together = max(self.batch_size // len(batch), 1)
        made = []
        for start in range(0, offsets.shape[1], together):
            some = offsets[:, start : start + together]
            maps = self.maps(view.shifted(batch, some))
            made.append(maps.reshape(len(batch), some.shape[1], *maps.shape[1:]))
        return np.concatenate(made, axis=1)


def checked_maps(logits: object, name: str, shape: tuple[int, ...], highest: int) -> Tensor:
    """What a network said of images of a shape: refused unless finite logits ``(n, classes, H, W)``, ``highest`` in."""
    wanted = f"return logits of shape ({shape[0]}, classes, {shape[2]}, {shape[3]})"
    if is_logits(logits):
        raise ModelError(
            f"{name} returned {tuple(logits.shape)} for images of shape {shape}: it classifies whole images; collect "
            f"`invariance`, or {wanted}"
        )
    if not is_maps(logits):
        found = (
            f"{logits.dtype} of shape {tuple(logits.shape)}"
            if isinstance(logits, Tensor)
            else f"a {type(logits).__name__}"
        )
        raise ModelError(f"{name} returned {found} for images of shape {shape}: {wanted}")
    if len(logits) != shape[0] or logits.shape[2:] != shape[2:]:
        found = f"maps of shape {tuple(logits.shape)}"
        raise ModelError(f"{name} returned {found} for images of shape {shape}: {wanted}, enlarged inside the network")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{name} returned logits that are NaN or infinite: check its weights and the normalisation")
    if logits.shape[1] > MOST_CLASSES:
        raise ModelError(f"{name} has {logits.shape[1]} classes, and masks hold at most {MOST_CLASSES}: merge some")
    if highest >= logits.shape[1]:
        raise DataError(
            f"there is a mask class {highest} and {name} has {logits.shape[1]} classes (0 to {logits.shape[1] - 1}): "
            "measure it on the data set that it was trained for"
        )
    return logits
