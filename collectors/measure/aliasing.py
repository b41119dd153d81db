"""What folds when a map is subsampled: the energy of a dense map above the Nyquist frequency of its stride."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]


class Energies(NamedTuple):
    """Of each image, ``(n,)``: spectral energy that folds, and all of it but the mean's."""

    folded: Array
    total: Array


def folding_share(size: tuple[int, int], stride: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """What share of each bin of the half spectrum (``rfft2``) folds: ``(H, W // 2 + 1)`` of 0, 1/2 and 1.

    1 above ``1 / (2 s)`` cycles per pixel along either axis, 1/2 at it, 0 below; an axis of stride 1 folds nothing.
    """
    above, at = [], []
    for length, step, half in ((size[0], stride[0], False), (size[1], stride[1], True)):
        bins = torch.arange(length // 2 + 1 if half else length, device=device)
        frequency = torch.minimum(bins, length - bins)  # in bins; whole numbers, so that `at` is exact
        above.append((2 * step * frequency > length) & (step > 1))
        at.append((2 * step * frequency == length) & (step > 1))
    share = (at[0][:, None] | at[1][None, :]).double() / 2
    return share.masked_fill(above[0][:, None] | above[1][None, :], 1.0)


def folded_energy(dense: Tensor, stride: tuple[int, int], gain: Tensor | None = None) -> Energies:
    """The energy of a dense map's circular spectrum that a stride folds, per image, over its channels.

    The mean of each image and channel is left out.

    Args:
        dense: ``(n, C, H, W)``, the site's output at stride 1.
        gain: of each bin of ``rfft2``, what its energy is multiplied by; broadcasts to ``(n, C, H, W // 2 + 1)``.
    """
    height, width = int(dense.shape[-2]), int(dense.shape[-1])
    spectrum = torch.fft.rfft2(dense.to(torch.promote_types(dense.dtype, torch.float32)))
    energy = torch.view_as_real(spectrum).square().sum(-1)
    if gain is not None:
        energy = energy * gain
    energy = energy.sum(1, dtype=torch.float64)
    energy[:, 0, 0] = 0
    # The half spectrum holds one of each pair of conjugate columns.
    energy[..., 1 : (width + 1) // 2] *= 2
    share = folding_share((height, width), stride, dense.device)
    folded, total = (energy * share).sum((1, 2)), energy.sum((1, 2))
    return Energies(folded.cpu().numpy(), total.cpu().numpy())


def filter_gain(weights: Tensor, pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """The energy gain of a filter with ``weights (n, C, K)`` at the flat ``pixels (K,)`` of a periodic map.

    ``(n, C, H, W // 2 + 1)``; where the filter sits makes no difference.
    """
    weights = weights.to(torch.promote_types(weights.dtype, torch.float32))
    kernel = weights.new_zeros(*weights.shape[:2], size[0] * size[1])
    kernel.index_add_(2, pixels, weights)
    return torch.view_as_real(torch.fft.rfft2(kernel.unflatten(2, size))).square().sum(-1)
