"""Whether a network is a function of the image: the same logits on a second pass, in other batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from invariscope.collectors.measure.passes import CHECKED, FOLDING_TOLERANCE, Images, evaluating
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.unchanged import unshared

PROBED = 64
"""Numbers by which a network's function is known again."""

TIES = 16
"""One image of so many may differ: rounding moves a choice between phases that are equally good."""

OFTEN = 256
"""Images from which on a third pass over the first of them delays nothing."""

_EPS = 16
"""Multiples of the type's rounding that two batches may differ by, where that is more than the tolerance of folding."""


def is_function_of_image(model: nn.Module, images: Images, *, batch_size: int = CHECKED) -> bool | None:
    """Whether a network says the same of each of the first ``CHECKED`` images whatever is measured around it.

    A pass in batches of ``batch_size`` is compared with one in batches of a quarter of it and, where there are
    ``OFTEN`` images at least, with a second one in the same batches. An image differs where one of its outputs does by
    more than ``FOLDING_TOLERANCE`` of the largest; the network is none where more than one image in ``TIES`` does. So
    found are dropout that is left on, batch norm without running statistics, noise, and statistics that go on adapting;
    what is rare (a few images in a hundred) may be missed.

    Returns:
        None where that cannot be said: what the network returns is no finite tensor with a row for each image.
    """
    count = min(CHECKED, len(images))
    differing = 0
    with evaluating(model), torch.inference_mode():
        for start in range(0, count, batch_size):
            batch = images[start : min(start + batch_size, count)]
            sizes = [len(batch), _quarter(len(batch)), *([len(batch)] if len(images) >= OFTEN else [])]
            whole, *others = (_said(model, batch, size) for size in sizes)
            found = [None if whole is None or other is None else _differ(whole, other) for other in others]
            differ = [each for each in found if each is not None]
            if len(differ) < len(found):
                return None
            differing += int(torch.stack(differ).any(0).sum())
    return differing * TIES <= count


def noise(channels: int, spec: InputSpec) -> Tensor:
    """Two images of uniform noise as a network takes them, ``(2, C, H, W)``: the same on every machine."""
    count = 2 * channels * spec.height * spec.width
    pixels = (np.random.Philox(key=0).random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (spec.mean, spec.std))
    made = torch.from_numpy(pixels).float().reshape(2, channels, spec.height, spec.width)
    return (made * spec.range - mean) / std


def probe(model: nn.Module, images: Tensor) -> list[float] | None:
    """At most ``PROBED`` of the numbers that a network says of images, evenly spaced; None where one is not finite."""
    with evaluating(model), torch.inference_mode():
        said = _said(model, images, len(images))
    if said is None:
        return None
    numbers = said.flatten().double().cpu()
    chosen: list[float] = numbers[:: -(-len(numbers) // PROBED)].tolist()
    return chosen


def _quarter(size: int) -> int:
    return max(size // 4, 1)


def _said(model: nn.Module, batch: Tensor, size: int) -> Tensor | None:
    """All outputs of the images side by side, ``(n, outputs)``, from batches of ``size``."""
    parts = []
    for start in range(0, len(batch), size):
        some = batch[start : start + size]
        found = [output.flatten(1) for output in _floats(model(unshared(some, model))) if len(output) == len(some)]
        if not found:
            return None
        parts.append(torch.cat(found, 1))
    if len({part.shape[1] for part in parts}) > 1:
        return None
    made = torch.cat(parts)
    return made if bool(torch.isfinite(made).all()) else None


def _differ(one: Tensor, other: Tensor) -> Tensor:
    """Which images differ by more than rounding: ``(n,)``."""
    tolerance = max(FOLDING_TOLERANCE, _EPS * torch.finfo(one.dtype).eps)
    return (one - other).abs().amax(1) > tolerance * one.abs().amax()


def _floats(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        if output.ndim and output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _floats(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from _floats(value)
