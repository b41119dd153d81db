"""Whether a part of a network moves along with its map: its output for a rolled input is a roll of what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

TOLERANCE = 1e-6
"""Relative change, in float64, up to which an output counts as the same."""

FLOOR = 1e-8
"""The least spread, as a part of an output's norm: below it float64 rounds too much."""

ROLLS = ((1, 0), (0, 1), (1, 1))
"""Shifts of a part's own input, in pixels of its map (down, right); half of its sides is added."""


def is_equivariant(module: Callable[[Tensor], Tensor], x: Tensor, y: Tensor | None = None) -> bool:
    """Whether the output for every rolled input is a roll of ``y``, image by image; a vector must stay as it is."""
    return next(equivariance_failures(module, x, y), None) is None


def is_equivariant_last(module: nn.Module, x: Tensor) -> bool:
    """The same of maps ``(N, H, W, C)``, of a part with a linear layer or layer normalisation: these take such maps."""
    if not any(isinstance(part, (nn.Linear, nn.LayerNorm)) for part in module.modules()):
        return False
    if module(x.clone()).ndim != 4:
        return False
    return is_equivariant(lambda map_: module(map_.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), x.permute(0, 3, 1, 2))


def equivariance_failures(module: Callable[[Tensor], Tensor], x: Tensor, y: Tensor | None = None) -> Iterator[int]:
    """The images, by index, for which it is not; once per shift."""
    y = module(x.clone()) if y is None else y
    for roll in (*ROLLS, (x.shape[2] // 2, x.shape[3] // 2)):
        after = module(x.roll(roll, (2, 3)))
        if not isinstance(after, Tensor) or after.shape != y.shape:
            yield from range(len(x))
            continue
        changes = map_changes(y, after) if y.ndim == 4 else vector_changes(y, after)
        yield from (row for row, change in enumerate(changes) if not change <= TOLERANCE)


def vector_changes(before: Tensor, after: Tensor) -> list[float]:
    """``|after - before| / s`` of each image, with ``s`` the spread of ``before`` over the images."""
    centred, norms = _centred(before).flatten(1), before.flatten(1).norm(dim=1)
    spread = centred.square().sum(1).mean().sqrt()
    size = torch.maximum(spread, FLOOR * norms).clamp(min=1e-300)
    return [float(one) for one in (after - before).flatten(1).norm(dim=1) / size]


def _centred(outputs: Tensor) -> Tensor:
    """Less the mean over the images, and of maps over positions: what a bias adds is no part of the spread."""
    return outputs - outputs.mean((0, 2, 3) if outputs.ndim == 4 else 0, keepdim=True)


def map_changes(before: Tensor, after: Tensor) -> list[float]:
    """The same after the roll of each image's map that fits best: the peak of the circular cross-correlation."""
    spectra = torch.fft.rfft2(_centred(before)).conj() * torch.fft.rfft2(_centred(after))
    height, width = before.shape[2:]
    peaks = torch.fft.irfft2(spectra.sum(1), s=(height, width)).flatten(1).argmax(1).tolist()
    rolled = [one.roll((peak // width, peak % width), (1, 2)) for one, peak in zip(before, peaks, strict=True)]
    return vector_changes(torch.stack(rolled), after)
