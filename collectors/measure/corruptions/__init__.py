"""The 15 corruptions of ImageNet-C at 5 severities, of images of any size (Hendrycks and Dietterich, Benchmarking
neural network robustness to common corruptions and perturbations, 2019).

Written anew from the published formulas, with the published constants: see module ``constants``.
Frost is procedural: the published one pastes photographs, so that accuracies under frost compare with none elsewhere.
Motion blur and snow follow ImageMagick's motion blur in floating point. The published ImageNet-C was stored as JPEG of
quality 85 as well, which is not done here. Importing this package does not import torch.
"""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from invariscope.base.errors import DataError, InputError
from invariscope.base.names import unknown
from invariscope.collectors.measure.corruptions.constants import SETS, constants_for

if TYPE_CHECKING:
    from invariscope.zoo.datasets.given import Given

SEVERITIES = (1, 2, 3, 4, 5)

_HOMES: Mapping[str, str] = MappingProxyType(
    {
        "gaussian_noise": "noise",
        "shot_noise": "noise",
        "impulse_noise": "noise",
        "defocus_blur": "blur",
        "glass_blur": "blur",
        "motion_blur": "blur",
        "zoom_blur": "blur",
        "snow": "weather",
        "frost": "weather",
        "fog": "weather",
        "brightness": "digital",
        "contrast": "digital",
        "elastic_transform": "digital",
        "pixelate": "digital",
        "jpeg_compression": "digital",
    }
)

CORRUPTIONS = tuple(_HOMES)
"""The corruptions by their published names, in the published order."""

NOTES: Mapping[str, str] = MappingProxyType(
    {"frost": "procedural frost: not comparable with ImageNet-C or CIFAR-10-C, whose frost is of photographs"}
)
"""What an accuracy under a corruption does not say."""

BLOCK = 64
"""Images corrupted at once; bounds the memory, and changes no value."""

_Corruption = Callable[[np.ndarray, Any, Sequence[np.random.Generator]], np.ndarray]


def corrupt(
    images: Given, corruption: str, severity: int, *, seed: int = 0, first: int = 0, constants: str | None = None
) -> np.ndarray:
    """Corrupted images: uint8 ``(N, C, H, W)`` to the same; those in another form of ``Given`` to that.

    Image ``n`` has random numbers of its own, by ``seed``, corruption, severity and ``first + n``: whatever images are
    beside it, and whatever network sees it, it is corrupted in the same way. Values are cut to whole numbers, as
    published.

    Args:
        corruption: one of ``CORRUPTIONS``.
        severity: 1 to 5.
        first: index of the first image in its data set.
        constants: ``cifar-10-c`` or ``imagenet-c``; by default by the size (:func:`constants_for`).

    Raises:
        InputError: an unknown corruption, severity or set of constants.
        DataError: images that are not uint8 of 1 or 3 channels.
    """
    check_corruption(corruption, severity)
    if not isinstance(images, np.ndarray) or images.ndim != 4:
        from invariscope.zoo.datasets.given import as_pixels  # imports torch, which the names here do not need

        images = as_pixels(images).numpy()
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise DataError(
            f"images are {images.dtype} of shape {images.shape}: corruptions take uint8 (N, C, H, W) of 1 or 3 channels"
        )
    name = constants_for(min(images.shape[-2:])) if constants is None else constants
    if name not in SETS:
        raise InputError(unknown("set of constants", name, SETS))
    strength = SETS[name][corruption][severity - 1]
    code = zlib.crc32(corruption.encode())
    made = np.empty_like(images)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        draws = [np.random.default_rng([seed, code, severity, first + start + n]) for n in range(len(block))]
        values = _function(corruption)(block / 255.0, strength, draws)
        # Of whole levels, rounding must not make the level below.
        made[start : start + BLOCK] = (np.clip(values, 0, 1) * 255 + 1e-6).astype(np.uint8)
    return made


def check_corruption(corruption: str, severity: int) -> None:
    """Refuse what is no corruption or no severity with an :class:`InputError`."""
    if corruption not in CORRUPTIONS:
        raise InputError(unknown("corruption", corruption, CORRUPTIONS))
    if severity not in SEVERITIES:
        raise InputError(f"severity {severity} of {corruption}: severities are 1 to 5")


def _function(corruption: str) -> _Corruption:
    module = importlib.import_module(f"invariscope.collectors.measure.corruptions.{_HOMES[corruption]}")
    function: _Corruption = getattr(module, corruption)
    return function
