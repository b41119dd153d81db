"""How a network wants its images: input size and normalisation, applied to a data set on demand.

Importing this module does not import torch, so that a manifest can be read without it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from zoo.datasets.imageset import ImageSet


@dataclass(frozen=True)
class InputSpec:
    """What a network was trained on: square images of ``size`` pixels, ``(pixel / 255 - mean) / std`` per channel.

    ``mean`` and ``std`` hold one number per channel, or a single one for all channels.

    Raises:
        DataError: for a size below 1, a mean that is not finite, or a std that is not positive.
    """

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise DataError(f"input size is {self.size!r}: give a whole number of pixels, at least 1")
        if not self.mean or not all(math.isfinite(value) for value in self.mean):
            raise DataError(f"input mean is {self.mean!r}: give one finite number per channel")
        if not self.std or not all(math.isfinite(value) and value > 0 for value in self.std):
            raise DataError(f"input std is {self.std!r}: give one positive number per channel")


class PreparedImages:
    """A data set as a network sees it: float32, resized where needed, normalised; made on demand.

    ``prepared[start:stop]`` and ``prepared[index_tensor]`` give ``(n, C, size, size)``, computed at that moment, so
    that memory is bounded by the batch. Images of the wanted size are not touched; others are resized bilinearly, with
    antialiasing, until the shorter side fits, and cropped at the centre where they are not square.

    Args:
        imageset: the data set, uint8.
        spec: input size and normalisation of the network.
        size: side in pixels of what is produced; ``spec.size`` by default. A larger one leaves room for crop shifts,
            whose window then has ``spec.size`` pixels.

    Raises:
        DataError: when the normalisation is for another number of channels than the images have.
    """

    def __init__(self, imageset: ImageSet, spec: InputSpec, size: int | None = None) -> None:
        import torch

        channels = imageset.images.shape[1]
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            if len(values) not in (1, channels):
                raise DataError(
                    f"{imageset.name} has images of {channels} channel(s) and the input's {name} has {len(values)} "
                    f"numbers: give {channels} of them, or measure the network on images of {len(values)} channels"
                )
        if size is not None and size < 1:
            raise DataError(f"size is {size}: give a whole number of pixels, at least 1")
        self.imageset = imageset
        self.spec = spec
        self.size = spec.size if size is None else size
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
        """``(N, C, size, size)``: the shape of all images together."""
        count, channels = self.imageset.images.shape[:2]
        return count, channels, self.size, self.size

    @cached_property
    def black(self) -> Tensor:
        """Value of a black pixel after normalisation, ``(C,)``: ``(0 - mean) / std``."""
        return (-self._mean / self._std).flatten()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the data set's fingerprint, both sizes and the normalisation."""
        content: list[Any] = [self.imageset.fingerprint, self.spec.size, self.size]
        content += [list(map(float, self.spec.mean)), list(map(float, self.spec.std))]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def after(self, start: int) -> PreparedImages:
        """The images from ``start`` on."""
        return PreparedImages(self.imageset.tail(start), self.spec, self.size)

    def __len__(self) -> int:
        return len(self.imageset)

    def __getitem__(self, rows: slice | Tensor | np.ndarray) -> Tensor:
        import torch

        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows)
        images = self.imageset.images[rows].to(torch.float32) / 255
        return (_fit(images, self.size) - self._mean) / self._std


def place(images: Tensor, model: nn.Module) -> Tensor:
    """Images on the device and in the floating-point type of the network's first parameter."""
    parameter = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), None)
    return images if parameter is None else images.to(parameter.device, parameter.dtype)


def _fit(images: Tensor, size: int) -> Tensor:
    """Resize ``(n, C, H, W)`` until the shorter side is ``size``, then crop the centre; nothing when it fits."""
    from torch.nn import functional as F

    height, width = images.shape[-2:]
    if (height, width) == (size, size):
        return images
    if min(height, width) != size:
        scale = size / min(height, width)
        target = (max(size, round(height * scale)), max(size, round(width * scale)))
        images = F.interpolate(images, target, mode="bilinear", align_corners=False, antialias=True)
    top, left = (images.shape[-2] - size) // 2, (images.shape[-1] - size) // 2
    return images[..., top : top + size, left : left + size]
