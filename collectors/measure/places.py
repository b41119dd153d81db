"""Where in their windows a site's weights lie on average: the distance of the mean weight per place from uniform."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


def place_keys(pixels: Tensor, outputs: Tensor, size: tuple[int, int], out: int, stride: tuple[int, int]) -> Tensor:
    """A number for the place of each pixel in its window: ``(L, M)``, of one place the same at every output.

    The place is where the pixel lies from its stride cell's corner, around the map.

    Args:
        pixels: flat pixels ``(L, M)`` of a map of ``size``, -1 for none.
        outputs: ``(L,)`` flat indices of the outputs, in rows of ``out``.
    """
    row = (pixels // size[1] - stride[0] * (outputs // out)[:, None]) % size[0]
    column = (pixels % size[1] - stride[1] * (outputs % out)[:, None]) % size[1]
    return torch.where(pixels < 0, -1, row * size[1] + column)


@dataclass
class PlaceSums:
    """Weights per place, summed over the windows of each image, beside what uniform weights would be."""

    parts: list[tuple[int, npt.NDArray[np.int64], Array, Array]] = field(default_factory=list)
    """First image, keys ``(P,)``, sums ``(2, n, P)`` (the weights; ``1 / |W|`` where the place is in the window) and
    windows ``(n,)`` of some images."""

    def add(self, first: int, keys: Tensor, weights: Tensor, windows: Tensor, size: Tensor) -> None:
        """Add windows of the images from ``first`` on.

        Args:
            keys: ``(L, M)`` of :func:`place_keys`.
            weights: ``(n, M, L)``, summed over the windows of all channels.
            windows: ``(n, L)``, how many those are.
            size: ``(L,)``, pixels of each.
        """
        known = keys.T >= 0
        numbers = keys.T[known]
        places = numbers.bincount().nonzero()[:, 0]
        uniform = (windows.double() / size)[:, None].expand_as(weights)
        made = weights.new_zeros(2, len(weights), int(numbers.max()) + 1, dtype=torch.float64)
        for into, values in zip(made, (weights, uniform), strict=True):
            into.index_add_(1, numbers, values[:, known].double())
        counts = windows.sum(1, dtype=torch.float64)
        self.parts.append((first, places.cpu().numpy(), made[..., places].cpu().numpy(), counts.cpu().numpy()))

    def per_image(self, images: int) -> tuple[Array, Array]:
        """The sums ``(2, N, P)`` over all places, and the windows ``(N,)``."""
        every = np.unique(np.concatenate([part[1] for part in self.parts])) if self.parts else np.zeros(0, np.int64)
        made, windows = np.zeros((2, images, len(every))), np.zeros(images)
        for first, keys, sums, counts in self.parts:
            rows = slice(first, first + len(counts))
            made[:, rows, np.searchsorted(every, keys)] += sums
            windows[rows] += counts
        return made, windows


def position(sums: Array, windows: Array) -> tuple[float, Array]:
    """Total variation ``1/2 sum_p |mean a_p - mean u_p|`` from uniform weights, and it without each image in turn.

    0 = all places alike, ``1 - 1/|W|`` = always one place. ``u_p`` is ``1 / |W|``, 0 where a clipped window lacks the
    place; NaN where there is no window.
    """
    apart = sums[0] - sums[1]
    total, count = apart.sum(0), windows.sum()
    rest = count - windows
    value = float(np.abs(total).sum() / 2 / count) if count else float("nan")
    left = np.abs(total - apart).sum(1) / 2
    return value, np.divide(left, rest, out=np.full(len(rest), np.nan), where=rest > 0)
