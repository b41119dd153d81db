"""Shifts of periodic signals by any number of pixels, by their Fourier series."""

from __future__ import annotations

import torch
from torch import Tensor


def fourier_shift(x: Tensor, shift: float | Tensor, axis: int = -1) -> Tensor:
    """A periodic map shifted along one axis: ``out[i] = x(i - shift)``, ``x`` continued by its Fourier series.

    The coefficient of frequency ``k`` is multiplied by ``exp(-2 pi i k shift / N)``, that of the Nyquist frequency
    (``N`` even) by the real part, ``cos(pi shift)``, so that real maps stay real. Exact for whole shifts up to rounding
    and for any shift of what has nothing at the Nyquist frequency.

    Args:
        x: real, of any shape.
        shift: in pixels, positive = to higher indices; a number, or one for each of the first dimension ``(n,)``.
        axis: the axis, not the first where shifts are one for each.
    """
    size = x.shape[axis]
    x = x.movedim(axis, -1)
    spectrum = torch.fft.rfft(x)
    shifts = torch.as_tensor(shift, dtype=torch.float64, device=x.device)
    shifts = shifts.reshape(*shifts.shape, *(1,) * (x.ndim if shifts.ndim == 0 else x.ndim - 1))
    angle = -2 * torch.pi * torch.fft.rfftfreq(size, dtype=torch.float64, device=x.device) * shifts
    factor = torch.polar(torch.ones_like(angle), angle)
    if size % 2 == 0:
        factor[..., -1] = factor[..., -1].real.to(factor.dtype)
    return torch.fft.irfft(spectrum * factor.to(spectrum.dtype), n=size).movedim(-1, axis)
