"""Resizing as evaluations do it: by Pillow with antialiasing, or on tensors without; then a crop at the centre."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from invariscope.zoo.datasets.inputs import InputSpec, Size


def resized(image: Tensor, spec: InputSpec, size: tuple[int, int]) -> Tensor:
    """One image as an evaluation resizes and crops it: ``(C, H, W)`` uint8 to ``(C, *size)`` uint8; int32 likewise.

    A number as ``spec.resize`` is the length of the shorter side, the longer one being ``int(resize * long / short)``
    as in torchvision and timm; two are height and width. With antialiasing Pillow resizes the 8-bit image, as
    torchvision and timm do with an image that was read from a file; without, ``torch.nn.functional.interpolate`` does
    (of the values in float32, rounded to 8 bits), as torchvision does with a tensor. The crop starts at
    ``round((length - size) / 2)``, as torchvision's. Where ``size`` is more than the resized image has (a margin for
    crop shifts), the image is resized until it covers it.

    Source: ``torchvision.transforms.functional.resize``, ``center_crop``.
    """
    if spec.resize is None:
        raise ValueError("the input has no resize")
    high, wide = size
    height, width = _target(image.shape[-2], image.shape[-1], spec.resize, high, wide)
    if (height, width) != tuple(image.shape[-2:]):
        resize = _by_pillow if spec.antialias else _by_torch
        image = resize(image, height, width, spec.interpolation)
    top, left = round((height - high) / 2), round((width - wide) / 2)
    return image[..., top : top + high, left : left + wide]


def _target(height: int, width: int, resize: Size, high: int, wide: int) -> tuple[int, int]:
    """Height and width after resizing, which cover ``high x wide``."""
    if isinstance(resize, int):
        short, long = sorted((height, width))
        longer = int(resize * long / short)
        made = (resize, longer) if height <= width else (longer, resize)
    else:
        made = resize
    grow = max(high / made[0], wide / made[1])
    return made if grow <= 1 else (max(high, round(made[0] * grow)), max(wide, round(made[1] * grow)))


def _by_pillow(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    import numpy as np
    import torch
    from PIL import Image

    method = Image.Resampling[interpolation.upper()]
    if image.dtype != torch.uint8:  # Pillow resizes 16 bits as floats alone
        wide = [Image.fromarray(plane).resize((width, height), method) for plane in image.float().numpy()]
        return _whole(torch.from_numpy(np.stack([np.asarray(plane) for plane in wide])), image)
    planes = image.permute(1, 2, 0).contiguous().numpy()
    if planes.shape[2] == 3:
        return torch.from_numpy(np.array(Image.fromarray(planes).resize((width, height), method))).permute(2, 0, 1)
    made = [Image.fromarray(planes[..., i].copy()).resize((width, height), method) for i in range(planes.shape[2])]
    return torch.from_numpy(np.stack([np.asarray(plane) for plane in made]))


def _by_torch(image: Tensor, height: int, width: int, interpolation: str) -> Tensor:
    import torch
    from torch.nn import functional as F

    values = image[None].to(torch.float32)
    if interpolation == "nearest":
        made = F.interpolate(values, (height, width), mode="nearest")
    else:
        made = F.interpolate(values, (height, width), mode=interpolation, align_corners=False)
    return _whole(made, image)[0]


def _whole(values: Tensor, like: Tensor) -> Tensor:
    """Rounded to whole numbers of the type that an image has."""
    import torch

    most = 255 if like.dtype == torch.uint8 else 65535
    return values.round().clamp(0, most).to(like.dtype)
