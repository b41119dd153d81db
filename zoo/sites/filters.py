"""Convolutions that are fixed filters: blur layers, and the low band of fixed transforms."""

from __future__ import annotations

from torch import Tensor, nn


def fixed_filter(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor | None:
    """The one filter ``(kh, kw)`` of a depthwise averaging, as public BlurPool layers call it; None for all else.

    That is: a filter that is not learned (no parameter, or a frozen one), not negative, sums to 1 and is the same in
    every channel; no bias.
    """
    learned = isinstance(weight, nn.Parameter) and weight.requires_grad
    if bias is not None or learned or weight.shape[:2] != (groups, 1) or groups != x.shape[1]:
        return None
    kernel = weight[0, 0].double()
    averages = bool((kernel >= 0).all()) and abs(float(kernel.sum()) - 1) <= 1e-3
    return kernel if averages and bool((weight == weight[:1]).all()) else None


def low_band(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> tuple[int, Tensor] | None:
    """Of a fixed transform of every channel into several bands: the one that averages, and its filter ``(kh, kw)``."""
    bands = weight.shape[0] // max(groups, 1)
    if isinstance(weight, nn.Parameter) and weight.requires_grad:
        return None
    if bias is not None or bands < 2 or weight.shape[1] != 1 or groups != x.shape[1]:
        return None
    filters = weight[:, 0].double().unflatten(0, (groups, bands))
    averages = (filters >= 0).all(-1).all(-1).all(0) & (filters.sum((-1, -2)) > 0).all(0)
    if not bool((filters == filters[:1]).all()) or int(averages.sum()) != 1:
        return None
    band = int(averages.int().argmax())
    return band, filters[0, band] / filters[0, band].sum()
