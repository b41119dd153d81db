"""Images as people have them in a notebook, brought to what the measuring functions take; what was done is said.

The one place of that: every function of the facade that takes images takes them through here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from invariscope.base.errors import DataError
from invariscope.zoo.datasets.decoding import pillow_pixels
from invariscope.zoo.datasets.geometry import resized
from invariscope.zoo.datasets.imageset import ImageSet
from invariscope.zoo.datasets.inputs import InputSpec, PreparedImages, sides
from invariscope.zoo.model_input import input_of

Given = Tensor | PreparedImages | ImageSet | np.ndarray | Image.Image | Sequence[Any] | DataLoader[Any] | Dataset[Any]
"""Images: ``(N, C, H, W)`` floats as the network takes them; or pixels of 0 to 255: PIL images, arrays ``(N, H, W, C)``
or ``(H, W, C)``, tensors ``(N, C, H, W)`` of uint8; or a data set, or a loader of batches of either."""

MOST = 2**32
"""Bytes that a loader's images may take."""

RAW = 16.0
"""Floats that are never negative and go beyond this are pixels of 0 to 255: a normalised image does neither."""

LOOKED_AT = 32
_CHANNELS = (1, 3, 4)
_LABELS = ("labels", "label", "target", "targets")

_log = logging.getLogger(__name__)
_said: WeakKeyDictionary[nn.Module, set[str]] = WeakKeyDictionary()


def given(
    model: nn.Module | None, images: Given, labels: Any = None, *, normalise: bool = True
) -> tuple[Tensor | PreparedImages, Any]:
    """Images, and labels where there are any, as the measuring functions take them.

    Floats ``(N, C, H, W)`` are taken as they are, and refused where they are pixels of 0 to 255; ``PreparedImages`` are
    what they are. Everything else is pixels of 0 to 255, which are resized and normalised as :func:`input_of` the model
    says, or, where it does not say it, divided by 255; one line of the log says which. A loader gives its labels too.

    Args:
        normalise: false for what takes pixels from 0 to 1.

    Raises:
        DataError: what is no images, or labels both of the loader and given.
    """
    if isinstance(images, PreparedImages):
        return images, labels
    if isinstance(images, DataLoader | Dataset) and not isinstance(images, ImageSet):
        images, found = _collected(images)
        if found is not None and labels is not None:
            raise DataError("the loader gives labels, and others are given: leave labels out")
        labels = found if labels is None else labels
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        images = _planes(images)
    if isinstance(images, Tensor) and images.is_floating_point():
        _refuse_raw(model, images)
        return images, labels
    if isinstance(images, ImageSet) and labels is None and images.labelled:
        labels = images.labels
    return _prepared(model, images, normalise), labels


def as_pixels(images: Given) -> Tensor:
    """Pixels of 0 to 255 as ``(N, C, H, W)`` uint8; a single image is one of a batch.

    Raises:
        DataError: what is no such images, or images of several sizes.
    """
    found = _pixels(images)
    if isinstance(found, Tensor):
        return found
    shapes = sorted({f"{height} x {width}" for _, height, width in (tuple(one.shape) for one in found)})
    raise DataError(
        f"images are of several sizes ({', '.join(shapes[:4])}): resize them to one, or say what the network takes "
        "with iv.set_input(model, iv.InputSpec(size, mean, std))"
    )


def is_pixels(images: Any) -> bool:
    """Whether images are given in another form than a tensor or arguments of a network's."""
    return not isinstance(images, Tensor | tuple)


def example_of(model: nn.Module, example: Any) -> Any:
    """A batch to run a network on, out of images in any form; tensors and tuples of arguments are what they are."""
    if not is_pixels(example) and not (isinstance(example, Tensor) and example.dtype == torch.uint8):
        return example
    images, _ = given(model, example)
    return images if isinstance(images, Tensor) else images[:1]


def _prepared(model: nn.Module | None, images: Given, normalise: bool) -> PreparedImages:
    spec = input_of(model) if normalise else None
    name = type(model).__name__ if model is not None else "the network"
    if not isinstance(images, ImageSet):
        found = _pixels(images)
        if isinstance(found, list) and spec is not None:
            found, spec = _of_one_size(found, spec), spec.as_cut()
        images = ImageSet("given", found if isinstance(found, Tensor) else as_pixels(found), None)  # type: ignore[arg-type]
    if spec is not None:
        _say(model, f"{name}: images of 0 to {images.white} are prepared as it takes them: {spec.settings()}")
        return PreparedImages(images, spec)
    height, width = images.pixels().shape[2:]
    line = f"{name}: images of 0 to {images.white} are divided by {images.white}"
    if normalise:
        line += (
            ", and not normalised: it does not say how it takes them; say it with iv.set_input(model, "
            "iv.InputSpec(size, mean, std))"
        )
    _say(model, line)
    return PreparedImages(images, InputSpec((height, width), (0.0,), (1.0,)))


def _say(model: nn.Module | None, line: str) -> None:
    """Once for a network."""
    if model is not None:
        if line in _said.setdefault(model, set()):
            return
        _said[model].add(line)
    _log.warning("%s", line)


def _refuse_raw(model: nn.Module | None, images: Tensor) -> None:
    if images.ndim != 4 or not len(images) or not images[:LOOKED_AT].numel():
        return  # told of where it is measured
    first = images[:LOOKED_AT].detach()
    low, high = float(first.min()), float(first.max())
    if low >= 0 and RAW < high <= 255:
        raise DataError(
            f"images are floats from {low:g} to {high:g}, which are pixels and not normalised: give them as uint8 "
            "(images.to(torch.uint8)), after iv.set_input(model, iv.InputSpec(size, mean, std)); its range=255 is for "
            "a network that takes such values"
        )


def _pixels(images: Any) -> Tensor | list[Tensor]:
    """``(N, C, H, W)`` uint8, or, of several sizes, a list of ``(C, H, W)``."""
    if isinstance(images, ImageSet):
        return images.pixels()
    if isinstance(images, Image.Image):
        images = [images]
    if isinstance(images, Tensor):
        return _of_tensor(images)
    if isinstance(images, np.ndarray):
        return _of_array(images)
    if not isinstance(images, Sequence) or isinstance(images, str | bytes):
        raise DataError(
            f"images are a {type(images).__name__}: give tensors (N, C, H, W), PIL images, uint8 arrays or a DataLoader"
        )
    if not len(images):
        raise DataError("there are no images: give at least one")
    parts = [_single(image, row) for row, image in enumerate(images)]
    if len({part.shape[0] for part in parts}) == 2 and {1, 3} == {part.shape[0] for part in parts}:
        parts = [part.expand(3, *part.shape[1:]) for part in parts]
    if len({part.dtype for part in parts}) > 1:
        raise DataError("images are of 8 and of 16 bits: convert them to one")
    if len({part.shape[0] for part in parts}) > 1:
        raise DataError("images have several numbers of channels: convert them to one, such as image.convert('RGB')")
    return torch.stack(parts) if len({part.shape for part in parts}) == 1 else parts


def _single(image: Any, row: int) -> Tensor:
    if isinstance(image, Image.Image):
        pixels = pillow_pixels(image, f"image {row}")
        return torch.from_numpy(np.array(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1), order="C"))
    found = _pixels(image) if isinstance(image, Tensor | np.ndarray) else None
    if not isinstance(found, Tensor) or len(found) != 1:
        raise DataError(f"image {row} is a {type(image).__name__}: give PIL images, or arrays (H, W, C) of uint8")
    return found[0]


def _of_tensor(images: Tensor, deep: bool = False) -> Tensor:
    if images.dtype == torch.uint16:
        images, deep = images.to(torch.int32), True
    if images.dtype != torch.uint8 and not deep:
        if images.is_floating_point() or images.is_complex() or images.dtype == torch.bool:
            raise DataError(f"images are {images.dtype}: give uint8 of 0 to 255 here")
        if images.numel() and not 0 <= int(images.min()) <= int(images.max()) <= 255:
            raise DataError(f"images are from {int(images.min())} to {int(images.max())}: give pixels of 0 to 255")
        images = images.to(torch.uint8)
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4:
        raise DataError(f"images have the shape {tuple(images.shape)}: give tensors (N, C, H, W)")
    if images.shape[-1] in _CHANNELS and images.shape[1] not in _CHANNELS:
        images = images.permute(0, 3, 1, 2)
    return images.contiguous()


def _of_array(images: np.ndarray) -> Tensor:
    if images.dtype == np.uint16:
        return _of_tensor(_planes(images.astype(np.int32)), deep=True)
    if images.dtype.kind not in "iu" or (images.size and not 0 <= images.min() <= images.max() <= 255):
        raise DataError(f"images are {images.dtype} of other values than 0 to 255: give uint8 of 0 to 255, or uint16")
    return _of_tensor(_planes(images.astype(np.uint8)))


def _planes(images: np.ndarray) -> Tensor:
    """``(N, H, W, C)``, ``(H, W, C)``, ``(N, H, W)``, ``(H, W)`` or ``(N, C, H, W)`` to the last of these."""
    if images.ndim == 2:
        images = images[None, :, :, None]
    elif images.ndim == 3:
        images = images[None] if images.shape[-1] in _CHANNELS else images[..., None]
    if images.ndim != 4:
        raise DataError(f"images have the shape {images.shape}: give arrays (N, H, W, C) or (H, W, C)")
    if images.shape[-1] in _CHANNELS:
        images = images.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.array(images, order="C"))


def _of_one_size(images: list[Tensor], spec: InputSpec) -> Tensor:
    """Images of several sizes, resized and cropped as the input says; without its resize, until they cover its size."""
    high, wide = sides(spec.size)
    made = []
    for image in images:
        fitted = spec
        if spec.resize is None:
            height, width = image.shape[1:]
            scale = max(high / height, wide / width)
            fitted = replace(spec, resize=(max(high, round(height * scale)), max(wide, round(width * scale))))
        made.append(resized(image, fitted, (high, wide)))
    return torch.stack(made)


def _collected(loader: Any) -> tuple[Tensor, Tensor | None]:
    """The images and the labels of a loader's batches, or of a data set's items, one after the other."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    taken = 0
    batched = isinstance(loader, DataLoader)
    for item in loader if batched else map(loader.__getitem__, range(len(loader))):
        part, label = _parts(item)
        part = part if isinstance(part, Tensor) and part.is_floating_point() else _stacked(part)
        images.append(part if part.ndim == 4 else part[None])
        taken += images[-1].nbytes
        if taken > MOST:
            raise DataError(
                f"the loader gives more than {MOST // 2**30} GiB of images: give part of it, such as "
                "torch.utils.data.Subset(data, range(1000)), or name the data as iv.load_dataset does"
            )
        if label is not None:
            labels.append(torch.as_tensor(label).reshape(-1))
    if not images:
        raise DataError("the loader gives no images: give at least one")
    if len({part.shape[1:] for part in images}) > 1:
        raise DataError("the loader gives images of several sizes: resize them in its transform")
    return torch.cat(images), torch.cat(labels) if labels else None


def _parts(item: Any) -> tuple[Any, Any]:
    """Images and labels of a batch: a pair, a mapping such as ``{pixel_values, labels}``, or images alone."""
    if isinstance(item, Mapping):
        names = [name for name, one in item.items() if isinstance(one, Image.Image) or getattr(one, "ndim", 0) >= 3]
        if len(names) != 1:
            raise DataError(f"the loader gives {', '.join(map(str, item))}: give pairs of images and labels")
        return item[names[0]], next((item[name] for name in _LABELS if name in item), None)
    if isinstance(item, tuple | list) and item and not isinstance(item[0], Image.Image | int):
        return item[0], item[1] if len(item) > 1 else None
    if isinstance(item, tuple) and len(item) == 2:
        return item
    return item, None


def _stacked(images: Any) -> Tensor:
    found = _pixels(images)
    if isinstance(found, list):
        raise DataError("the loader gives images of several sizes: resize them in its transform")
    return found
