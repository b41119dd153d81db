"""How a network wants its images and masks: input size and normalisation, applied to a data set on demand.

Importing this module does not import torch, so that a manifest can be read without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from invariscope.base.errors import DataError
from invariscope.base.names import unknown

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from invariscope.zoo.datasets.files import ImageFiles
    from invariscope.zoo.datasets.imageset import ImageSet

Size = int | tuple[int, int]
"""The side of a square, or height and width, in pixels."""

INTERPOLATIONS = ("bilinear", "bicubic", "nearest", "lanczos", "box", "hamming")
"""How ``resize`` may interpolate; without antialiasing the first three."""

LARGEST_SIDE = 8192
"""Pixels along a side at most; one image of three channels then holds 800 MB as a network takes it."""

ORDERS = ("rgb", "bgr")
RANGES = (1, 255, 65535)


@dataclass(frozen=True)
class InputSpec:
    """What a network was trained on: images of ``size`` pixels, ``(pixel * range / white - mean) / std`` per channel.

    ``white`` is 255, or 65,535 for images of 16 bits.
    ``size`` is the side of square images, or height and width; equal ones are kept as one number. ``mean`` and ``std``
    hold one number per channel, or a single one for all channels, in the order in which the network takes them.

    Attributes:
        resize: what images are resized to before the crop of ``size`` at the centre: the shorter side, or height and
            width (:func:`invariscope.zoo.datasets.geometry.resized`). Without it, images of another size are resized
            until they cover ``size``, and those of that size are left as they are.
        interpolation: of that resize, one of ``INTERPOLATIONS``.
        antialias: of that resize; Pillow has none without.
        order: ``bgr`` for a network that takes blue first.
        range: 255 for one that takes values from 0 to 255, 65535 for one that takes 16 bits, else 1.

    Raises:
        DataError: for a size below 1, a mean that is not finite, a std that is not positive, a resize that is smaller
            than the size, or an unknown interpolation, order or range.
    """

    size: Size
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: Size | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    order: str = "rgb"
    range: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_size(self.size, "input size"))
        if not self.mean or not all(math.isfinite(value) for value in self.mean):
            raise DataError(f"input mean is {self.mean!r}: give one finite number per channel")
        if not self.std or not all(math.isfinite(value) and value > 0 for value in self.std):
            raise DataError(f"input std is {self.std!r}: give one positive number per channel")
        for name, known in (("interpolation", INTERPOLATIONS), ("order", ORDERS)):
            if getattr(self, name) not in known:
                raise DataError(f"input: {unknown(name, str(getattr(self, name)), known)}")
        if self.range not in RANGES or isinstance(self.range, bool):
            raise DataError(
                f"input range is {self.range!r}: give 1 for values from 0 to 1, 255 or 65535 for values up to that"
            )
        if not self.antialias and self.interpolation not in INTERPOLATIONS[:3]:
            raise DataError(f"input: {self.interpolation} is always antialiased: leave antialias out")
        self._check_resize()

    def _check_resize(self) -> None:
        if self.resize is None:
            if (self.interpolation, self.antialias) != ("bilinear", True):
                raise DataError("input has interpolation or antialias and no resize: add resize, or leave them out")
            return
        if isinstance(self.resize, int):
            as_size(self.resize, "input resize")
        else:  # equal ones are kept: a square, not a shorter side
            as_size(self.resize, "input resize")
            object.__setattr__(self, "resize", tuple(self.resize))
        high, wide = sides(self.resize)
        if high < self.height or wide < self.width:
            raise DataError(
                f"input resize is {self.resize!r} and size {self.size!r}, which is cut out of it: give a resize of at "
                "least that size"
            )

    def settings(self) -> dict[str, Any]:
        """As a manifest's ``input`` has it: what is as always is left out, size, mean and std apart."""
        made: dict[str, Any] = {"size": _listed(self.size), "mean": list(self.mean), "std": list(self.std)}
        for field in fields(self)[3:]:
            if (value := getattr(self, field.name)) != field.default:
                made[field.name] = _listed(value)
        return made

    def in_pixels(self) -> InputSpec:
        """The same images without normalisation: values from 0 to 1, red first."""
        return replace(self, mean=(0.0,), std=(1.0,), order="rgb", range=1)

    def as_cut(self) -> InputSpec:
        """For images that have been resized and cropped already."""
        return replace(self, resize=None, interpolation="bilinear", antialias=True)

    @property
    def height(self) -> int:
        """Height of the input, in pixels."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Width of the input, in pixels."""
        return self.size if isinstance(self.size, int) else self.size[1]

    def larger(self, size: Size) -> Size:
        """The size to which images are brought so that the shorter side has ``size`` pixels, or as given in full."""
        if not isinstance(size, int) or isinstance(self.size, int):
            return size
        scale = size / min(self.size)
        return as_size((max(size, round(self.height * scale)), max(size, round(self.width * scale))), "size")


def as_size(size: Any, what: str) -> Size:
    """One number for a square, else height and width.

    Raises:
        DataError: for anything but one or two whole numbers from 1 to :data:`LARGEST_SIDE`.
    """
    sides = (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, tuple | list) else ()
    if len(sides) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in sides):
        raise DataError(f"{what} is {size!r}: give a whole number of pixels, at least 1, or height and width")
    if max(sides) > LARGEST_SIDE:
        raise DataError(f"{what} is {size!r}: give at most {LARGEST_SIDE} pixels")
    return sides[0] if sides[0] == sides[1] else (sides[0], sides[1])


class PreparedImages:
    """A data set as a network sees it: float32, resized where needed, normalised; made on demand.

    ``prepared[start:stop]`` and ``prepared[index_tensor]`` give ``(n, C, H, W)``, computed at that moment, so that
    memory is bounded by the batch. Images are resized as ``spec.resize`` says. Without it, those of the wanted size are
    not touched; others are resized bilinearly, with antialiasing, until they cover it, and cropped at the centre where
    they have another shape.

    Args:
        imageset: the data set, uint8.
        spec: input size and normalisation of the network.
        size: side, or height and width, in pixels of what is produced; ``spec.size`` by default. A larger one leaves
            room for crop shifts, whose window then has ``spec.size`` pixels. One number for a network that is not
            square is the shorter side.

    Raises:
        DataError: when the normalisation is for another number of channels than the images have.
    """

    def __init__(self, imageset: ImageSet, spec: InputSpec, size: Size | None = None) -> None:
        import torch

        channels = imageset.channels
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            if len(values) not in (1, channels):
                raise DataError(
                    f"{imageset.name} has images of {channels} channel(s) and the input's {name} has {len(values)} "
                    f"numbers: give {channels} of them, or measure the network on images of {len(values)} channels"
                )
        self.imageset = imageset
        self.spec = spec
        self.size = spec.size if size is None else spec.larger(as_size(size, "size"))
        if spec.order != "rgb" and channels != 3:
            raise DataError(
                f"{imageset.name} has images of {channels} channel(s) and the input's order is {spec.order}: leave "
                "order out, or take images of 3 channels"
            )
        self._mean = torch.tensor(spec.mean).expand(channels).reshape(channels, 1, 1)
        self._std = torch.tensor(spec.std).expand(channels).reshape(channels, 1, 1)

    @property
    def name(self) -> str:
        """Name of the data set, with its split."""
        return self.imageset.name

    @property
    def labels(self) -> Tensor:
        """Labels of the data set, ``(N,)``."""
        return self.imageset.labels

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """``(N, C, H, W)``: the shape of all images together."""
        return len(self.imageset), self.imageset.channels, *sides(self.size)

    def masks(self, rows: slice | Tensor | np.ndarray) -> Tensor:
        """Masks of some images, brought to the images' size by the nearest pixel: ``(n, H, W)`` uint8, void 255.

        Raises:
            DataError: the data set has none.
        """
        import torch

        from invariscope.zoo.datasets.geometry import resized

        if self.imageset.masks is None:
            raise DataError(f"{self.name} has no masks: take a data set with one for each image, such as shapes")
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
        masks = self.imageset.masks[rows]
        if self.spec.resize is not None and len(masks):
            nearest = replace(self.spec, interpolation="nearest", antialias=True)
            return torch.stack([resized(mask[None], nearest, sides(self.size))[0] for mask in masks])
        # Class numbers up to 255 are exact in float32.
        return _fit(masks[:, None].float(), self.size, nearest=True)[:, 0].to(torch.uint8) if len(masks) else masks

    @cached_property
    def black(self) -> Tensor:
        """Value of a black pixel after normalisation, ``(C,)``: ``(0 - mean) / std``."""
        return (-self._mean / self._std).flatten()

    @cached_property
    def background(self) -> Tensor:
        """Value of the data set's background after normalisation, ``(C,)``."""
        import torch

        colour = torch.tensor(self.imageset.background).reshape(1, -1, 1, 1)
        return self._normalised(colour).flatten()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the data set's fingerprint, both sizes and the normalisation."""
        content: list[Any] = [self.imageset.fingerprint, self.spec.size, self.size]
        content += [list(map(float, self.spec.mean)), list(map(float, self.spec.std))]
        more = {name: value for name, value in self.spec.settings().items() if name not in ("size", "mean", "std")}
        content += [more] if more else []  # fingerprints of plain inputs are as they were
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def after(self, start: int) -> PreparedImages:
        """The images from ``start`` on."""
        return PreparedImages(self.imageset.tail(start), self.spec, self.size)

    def __len__(self) -> int:
        return len(self.imageset)

    def __getitem__(self, rows: slice | Tensor | np.ndarray) -> Tensor:
        import torch

        from invariscope.zoo.datasets.geometry import resized

        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
        images: Any = self.imageset.images[rows]
        if not isinstance(images, torch.Tensor):
            return self._of_files(images)
        if self.spec.resize is None or not len(images):
            return self._normalised(_fit(images.to(torch.float32) / self.imageset.white, self.size), 1)
        return self._normalised(torch.stack([resized(image, self.spec, sides(self.size)) for image in images]).float())

    def _of_files(self, images: ImageFiles) -> Tensor:
        """Images that are decoded now, each resized as soon as it is."""
        import torch

        from invariscope.zoo.datasets.geometry import resized

        if self.spec.resize is None:
            made = images.decoded(lambda image: _fit(image[None].to(torch.float32) / self.imageset.white, self.size)[0])
            return self._normalised(torch.stack(made), 1) if made else torch.empty(self.shape)[:0]
        made = images.decoded(lambda image: resized(image, self.spec, sides(self.size)).float())
        return self._normalised(torch.stack(made)) if made else torch.empty(self.shape)[:0]

    def _normalised(self, images: Tensor, white: int | None = None) -> Tensor:
        """Images of values from 0 to ``white``, red first, as the network takes them."""
        white = self.imageset.white if white is None else white
        images = images / white if white != 1 else images
        images = images * self.spec.range if self.spec.range != 1 else images
        images = images.flip(1) if self.spec.order == "bgr" else images
        return (images - self._mean) / self._std


def place(images: Tensor, model: nn.Module) -> Tensor:
    """Images on the device and in the floating-point type of the network's first parameter."""
    parameter = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), None)
    return images if parameter is None else images.to(parameter.device, parameter.dtype)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def _fit(images: Tensor, size: Size, *, nearest: bool = False) -> Tensor:
    """Resize ``(n, C, H, W)`` until ``size`` is covered, then crop the centre; nothing when it fits."""
    from torch.nn import functional as F

    height, width = images.shape[-2:]
    high, wide = sides(size)
    if (height, width) == (high, wide):
        return images
    scale = max(high / height, wide / width)
    if scale != 1:
        target = (max(high, round(height * scale)), max(wide, round(width * scale)))
        if nearest:
            images = F.interpolate(images, target, mode="nearest-exact")
        else:
            images = F.interpolate(images, target, mode="bilinear", align_corners=False, antialias=True)
    top, left = (images.shape[-2] - high) // 2, (images.shape[-1] - wide) // 2
    return images[..., top : top + high, left : left + wide]
