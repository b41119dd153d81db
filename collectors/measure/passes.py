"""Forward passes: the network as the passes run it, its checked logits, and what it says of unshifted images."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError
from invariscope.base.names import unknown
from invariscope.collectors.measure.finite import all_finite
from invariscope.collectors.measure.folding import fold_batch_norms
from invariscope.collectors.measure.packing import pack_pointwise
from invariscope.collectors.measure.precision import PRECISIONS
from invariscope.collectors.measure.saying import is_view_problem, logits_of, said
from invariscope.zoo.datasets.imageset import NO_LABEL
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.unchanged import unchanged, unshared
from invariscope.zoo.wrapping import wrap_in_place

Images = Tensor | PreparedImages

CHECKED, FEWEST_CHECKED = 32, 8
"""First images on which a folded network is compared with the network as it is, whatever the batch size: an eighth of
those measured, but so many at most and so many at least."""

FOLDING_TOLERANCE = 1e-4
"""Largest difference of logits, relative to the largest logit, up to which a folded network stands for the original.
Rounding moves them by up to 2e-6 in the networks of the tests; a batch norm folded in error, by 1e-2 and more."""


def checked_images(count: int) -> int:
    """How many first images of so many a folded network is compared on: it must not delay the passes proper.

    Which network runs may depend on it, where a folded one is off by about the tolerance: values move by rounding then.

    >>> [checked_images(count) for count in (3, 24, 100, 1000)]
    [3, 8, 12, 32]
    """
    return min(max(count // 8, FEWEST_CHECKED), CHECKED, count)


@dataclass(frozen=True, eq=False)
class Unshifted:
    """What a network says of ``N`` unshifted images: top-1 ``prediction (N,)``, its float32 ``probability (N,)``."""

    prediction: np.ndarray
    probability: np.ndarray

    def rows(self, rows: slice) -> Unshifted:
        """Of some of the images."""
        return Unshifted(self.prediction[rows], self.probability[rows])

    @classmethod
    def join(cls, parts: list[Unshifted]) -> Unshifted:
        """One after the other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("prediction", "probability")))

    @classmethod
    def of(cls, logits: Tensor) -> Unshifted:
        """From logits ``(N, classes)``."""
        prediction = logits.argmax(1, keepdim=True)
        return cls(prediction[:, 0].cpu().numpy(), class_probability(logits, prediction)[:, 0].cpu().numpy())


def predict_unshifted(
    model: nn.Module,
    images: Images,
    labels: Tensor | np.ndarray | None,
    *,
    batch_size: int = 256,
    run: Callable[[int, Tensor], Any] | None = None,
) -> Unshifted:
    """Top-1 class of each unshifted image, and its softmax probability.

    ``run(first, batch)`` stands for the network on the images from ``first`` on, where its passes are watched.

    Raises:
        ModelError, DataError: as :func:`invariscope.collectors.measure.invariance.predict`.
    """
    labels = check_inputs(images, labels, batch_size)
    highest = int(labels.max())
    with evaluating(model), torch.inference_mode():
        parts, first = [], 0
        for batch in batches(images, batch_size):
            say = model if run is None else partial(run, first)
            parts.append(Unshifted.of(checked_logits(say, unshared(batch, model), highest)))
            first += len(batch)
    return Unshifted.join(parts)


def shift_network(model: nn.Module, images: Tensor, *, precision: str = "fp32", fold: bool = True) -> nn.Module:
    """The network as many passes run it: batch norms folded into convolutions, in the precision asked for.

    In float32 on a processor the weights of 1 x 1 convolutions are packed as well (:func:`pack_pointwise`). Circular
    convolutions of the copy keep maps channels-last (:func:`wrap_in_place`), where it still says the same. The copy is
    compared with the network itself on the ``images``, ``CHECKED`` of them at most (:func:`checked_images` says how
    many are enough): where a logit differs by more than ``FOLDING_TOLERANCE`` of the largest, or a top-1 class by more
    than a tie within that, the copy that is folded alone is tried, and else the network stays as it is. ``model`` is
    not changed.

    Args:
        images: ``(n, C, H, W)`` as the network takes them.
        precision: one of ``PRECISIONS``.
        fold: whether anything of this is done; without it the network is taken as it is.

    Raises:
        InputError: an unknown precision.
        ModelError: the network does not run in bfloat16.
    """
    if precision not in PRECISIONS:
        raise InputError(unknown("precision", precision, PRECISIONS))
    views = unshared(images[:CHECKED], model)
    network = model
    with evaluating(model), torch.no_grad():
        if fold:
            folded = fold_batch_norms(model, views[:1])
            packed = pack_pointwise(folded) if precision == "fp32" else folded
            network = _first_that_stands([packed, folded], model, views)
            if network is not model:
                undo = wrap_in_place(network)
                if undo is not None and _first_that_stands([network], model, views) is model:
                    undo()
        return network if precision == "fp32" else _in_bfloat16(network, views)


def _first_that_stands(candidates: list[nn.Module], model: nn.Module, views: Tensor) -> nn.Module:
    """The first copy that says what the network says and runs as the passes run it, channels last; else the network."""
    output: Any = None
    for made in dict.fromkeys(candidates):
        if made is model:
            break
        output = model(views.clone()) if output is None else output
        try:
            if agree(output, made(views.clone(memory_format=torch.channels_last))):
                return made
        except RuntimeError as problem:
            if made is candidates[-1] and not is_view_problem(problem):
                raise
    return model


def agree(logits: object, others: object) -> bool:
    """Whether logits are equal up to rounding, and name the same classes but for ties within it."""
    logits, others = class_maps(logits_of(logits)), class_maps(logits_of(others))
    if not (is_logits(logits) and is_logits(others)) and not (is_maps(logits) and is_maps(others)):
        return False
    allowed = FOLDING_TOLERANCE * float(logits.abs().max())
    if not float((logits - others).abs().max()) <= allowed:
        return False
    best = logits.amax(1)
    return bool((best - logits.gather(1, others.argmax(1, keepdim=True)).squeeze(1) <= 2 * allowed).all())


def _in_bfloat16(network: nn.Module, views: Tensor) -> nn.Module:
    try:
        network = copy.deepcopy(network).to(torch.bfloat16)
        network(views.to(torch.bfloat16))
    except Exception as error:  # foreign code, which may be written for one type
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{type(network).__name__} does not run in bfloat16 ({type(error).__name__}: {reason}): take precision fp32"
        ) from error
    return network


def is_logits(output: object) -> TypeGuard[Tensor]:
    """Whether a network's output is logits: floats ``(n, classes)``."""
    return isinstance(output, Tensor) and output.ndim == 2 and 0 not in output.shape and output.is_floating_point()


def class_maps(output: object) -> object:
    """What a segmentation network says, of a mapping the entry ``out`` (as torchvision's return)."""
    return output["out"] if isinstance(output, Mapping) and "out" in output else output


def is_maps(output: object) -> TypeGuard[Tensor]:
    """Whether a network's output is logits per pixel: floats ``(n, classes, H, W)``."""
    return isinstance(output, Tensor) and output.ndim == 4 and 0 not in output.shape and output.is_floating_point()


def says_classes(output: object, highest: int) -> TypeGuard[Tensor]:
    """Whether a network's output passes :func:`check_logits`, for labels up to ``highest``."""
    return is_logits(output) and highest < output.shape[1] and bool(torch.isfinite(output).all())


def class_probability(logits: Tensor, classes: Tensor) -> Tensor:
    """Softmax probability of the given classes ``(n, c)`` of each row, computed in float64: ``(n, c)``, float32."""
    return logits.double().softmax(1).gather(1, classes).float()


def run_network(model: Callable[[Tensor], Any], batch: Tensor) -> Any:
    """What the network returns for a batch; a :class:`ModelError` that names the shape where it fails on it."""
    try:
        return said(model, batch)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        reason = " ".join(str(error).split())[:300]
        name, shape = type(model).__name__, tuple(batch.shape)
        raise ModelError(
            f"{name} failed on images of shape {shape} ({type(error).__name__}: {reason}): "
            "give images of the channels and size that it takes"
        ) from error


def checked_logits(model: Callable[[Tensor], Tensor], batch: Tensor, highest: int) -> Tensor:
    """The network's logits, checked: floats, ``(n, classes)``, finite, and a class for the ``highest`` label."""
    logits: Tensor = run_network(model, batch)
    check_logits(logits, type(model).__name__, tuple(batch.shape), highest)
    return logits


def check_logits(logits: object, name: str, shape: tuple[int, ...], highest: int) -> None:
    """Refuse what is no finite logits ``(n, classes)`` of images of a shape, with a class for the ``highest`` label."""
    wanted = f"return logits of shape ({shape[0]}, classes), if need be from a module around it"
    if is_maps(class_maps(logits)):
        raise ModelError(
            f"{name} returned maps for images of shape {shape}: it segments; collect `segmentation`, not the scores "
            "of one class per image"
        )
    if not isinstance(logits, Tensor):
        raise ModelError(f"{name} returned a {type(logits).__name__} for images of shape {shape}: {wanted}")
    if not is_logits(logits) or len(logits) != shape[0]:
        found = f"{logits.dtype} of shape {tuple(logits.shape)}"
        raise ModelError(f"{name} returned {found} for images of shape {shape}: {wanted}")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{name} returned logits that are NaN or infinite: check its weights and the normalisation")
    if highest >= logits.shape[1]:
        raise DataError(
            f"there is a label {highest} and {name} has {logits.shape[1]} classes (0 to "
            f"{logits.shape[1] - 1}): measure it on the data set that it was trained for"
        )


def evaluating(model: nn.Module) -> AbstractContextManager[None]:
    """Evaluation mode inside; the network is :func:`unchanged` after."""
    return in_mode(model, training=False)


@contextmanager
def in_mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    """One mode inside; the network is :func:`unchanged` after."""
    with unchanged(model):
        model.train(training)
        yield


def check_inputs(images: Images, labels: Tensor | np.ndarray | None, batch_size: int) -> Tensor:
    """Labels as an int64 tensor on the CPU, all ``NO_LABEL`` where there are none (``None``, or all of them so).

    Refuses images and labels that cannot be measured.
    """
    if batch_size < 1:
        raise DataError(f"batch_size is {batch_size}: take at least 1")
    if isinstance(images, Tensor) and (images.ndim != 4 or not images.is_floating_point()):
        found = f"{images.dtype} of shape {tuple(images.shape)}"
        raise DataError(f"images are {found}: give floating-point images (N, C, H, W), normalised for the network")
    if len(images) == 0:
        raise DataError("there are no images: give at least one")
    if labels is None:
        return torch.full((len(images),), NO_LABEL)
    try:
        labels = torch.as_tensor(labels).cpu()
    except (TypeError, ValueError) as error:
        raise DataError("labels are no numbers: give whole numbers from 0") from error
    if labels.shape != (len(images),):
        raise DataError(
            f"labels have shape {tuple(labels.shape)} and there are {len(images)} images: give one for each"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise DataError(f"labels are {labels.dtype}: give whole numbers from 0")
    labels = labels.long()
    if not has_labels(labels):
        return labels
    if int(labels.min()) < 0:
        row = int((labels < 0).nonzero()[0])
        raise DataError(
            f"image {row} has the label {int(labels[row])}: give labels from 0, or labels=None where there are none"
        )
    return labels


def has_labels(labels: Tensor | np.ndarray) -> bool:
    """Whether the images have labels: not all of them are ``NO_LABEL``."""
    return bool((labels != NO_LABEL).any())


def need_labels(labels: Tensor | np.ndarray | None, what: str) -> None:
    """Refuse images without labels where a measure needs them."""
    if labels is None or not has_labels(torch.as_tensor(labels)):
        raise DataError(f"{what} needs labels, and there are none: give one from 0 for each image")


def batches(images: Images, batch_size: int, limit: int | None = None) -> Iterator[Tensor]:
    """The images, or the first ``limit`` of them, batch by batch; refuses pixels that are not finite."""
    stop = len(images) if limit is None else min(limit, len(images))
    for start in range(0, stop, batch_size):
        batch = images[start : min(start + batch_size, stop)]
        if not all_finite(batch):
            finite = torch.isfinite(batch).flatten(1).all(1)
            row = start + int((~finite).nonzero()[0])
            raise DataError(f"image {row} holds NaN or infinite pixels: correct or leave out the image")
        yield batch
