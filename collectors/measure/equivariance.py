"""How far a site is from moving its output along with its input: the site equivariance error ``see``."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invariscope.base.errors import InputError
from invariscope.collectors.measure.fourier import fourier_shift

Array = npt.NDArray[np.float64]
Run = Callable[[Tensor], Tensor]


class Errors(NamedTuple):
    """Of each image: the squared error ``(n,)``, a mean over axes and shifts, and the squared spread it is held to."""

    error: Array
    spread: Array

    def see(self) -> float:
        """The error of all images together, ``sqrt(sum error / sum spread)``; NaN where nothing varies."""
        whole = float(self.spread.sum())
        return float(np.sqrt(self.error.sum() / whole)) if whole > 0 else float("nan")


def cropped(x: Tensor, stride: tuple[int, int]) -> Tensor:
    """A map without the rows and columns that are too many for the stride to divide its size."""
    height, width = x.shape[-2:]
    return x[..., : height // stride[0] * stride[0], : width // stride[1] * stride[1]]


def equivariance_errors(run: Run, x: Tensor, stride: tuple[int, int]) -> Errors:
    """The squared site equivariance error of a site's function, per image.

    ``see^2 = mean over axes and t = 1 ... s-1 of sum min_u ||F_u y_0 - y_t||^2 / sum ||y_0 - mean y_0||^2``: ``y_0`` is
    ``run(x)`` and ``y_t`` is ``run`` of ``x`` rolled by ``t`` pixels along the axis; ``F_u`` is the Fourier shift by
    ``u`` output pixels, ``u`` in ``{0, 1/s, ..., 1}`` the best of each image, axis and ``t``; the mean is spatial, of
    each image and channel; sums run over channels (and images).

    Args:
        run: the site: ``(n, C, H, W)`` to ``(n, C', H', W')``.
        x: maps whose sizes the stride divides (:func:`cropped`).
        stride: along height and width; an axis of stride 1 has no shifts.

    Raises:
        InputError: no axis has a stride above 1.
    """
    if max(stride) < 2:
        raise InputError(f"a site of stride {stride} has no shifts within its stride: give one above 1")
    still = run(x).double()
    spread = (still - still.mean((2, 3), keepdim=True)).square().sum((1, 2, 3))
    errors = []
    for axis, step in ((2, stride[0]), (3, stride[1])):
        if step < 2:
            continue
        moved = [still, *(fourier_shift(still, u / step, axis) for u in range(1, step)), still.roll(1, axis)]
        for t in range(1, step):
            seen = run(x.roll(t, axis)).double()
            distances = torch.stack([(each - seen).square().sum((1, 2, 3)) for each in moved])
            errors.append(distances.amin(0))
    return Errors(torch.stack(errors).mean(0).cpu().numpy(), spread.cpu().numpy())
