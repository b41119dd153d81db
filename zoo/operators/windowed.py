"""Weighted sums over the windows of a map by fixed weights, by rank and by place, and the weights at a clipped window.

Geometry as in :mod:`invariscope.zoo.operators.pooling`. A window that zero padding clips to ``m`` of its ``n`` pixels
takes the first ``m`` weights by rank, renormalised, or its smallest pixel where these are all 0; by place it takes the
weights of the pixels that are there, renormalised, or even ones where these are all 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.pooling import continued
from invariscope.zoo.operators.taps import Windows, WindowWeights, weigh_taps

SUM_TOLERANCE = 2e-3
"""How far weights may be from a sum of 1, to which they are brought: they may be written with three digits."""


def window_pool(x: Tensor, weights: WindowWeights, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum_r w_r x_(r) + sum_p k_p x_p`` over square windows, ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))``."""
    fill = torch.finfo(x.dtype).min if weights.ranks else 0.0
    frame = continued(x, weights.kernel, stride, padding_mode, fill=fill)
    windows = Windows(weights.kernel, stride, frame.size)
    if frame.outside is None:
        by_rank = [share * w for share, w in weights.ranks]
        by_place = [share * w for share, w in weights.places]
    else:
        inside = (~frame.outside).sum(0)[0, 0]
        by_rank = [share * clipped_ranks(w.to(x.device), inside) for share, w in weights.ranks]
        outside = frame.outside.flatten(1).T
        by_place = [
            share * clipped_places(w.to(x.device), outside).T.unflatten(1, frame.size)[:, None]
            for share, w in weights.places
        ]
    return weigh_taps(frame.padded, windows, _total(by_rank, x), _total(by_place, x))


def _total(parts: Sequence[Tensor], x: Tensor) -> Sequence[float] | Tensor | None:
    """One weight per tap: numbers where they are the same everywhere, else maps that broadcast to the output."""
    if not parts:
        return None
    if all(part.ndim == 1 for part in parts):
        numbers: list[float] = torch.stack(tuple(parts)).sum(0).tolist()
        return numbers
    most = max(part.ndim for part in parts)
    shaped = [part.reshape(*part.shape, *(1,) * (max(most, 4) - part.ndim)) for part in parts]
    total = shaped[0]
    for part in shaped[1:]:
        total = total + part
    return total[:, None].to(x)


def rank_weights(values: Tensor, weights: Tensor, outside: Tensor) -> Tensor:
    """The weight of each of ``values (N, C, L, K)`` by its rank in the last dimension; tied values share theirs.

    ``weights``: ``(K,)`` or ``(K, C)``; ``outside (L, K)``: values that are not there.
    """
    values = values.masked_fill(outside, -math.inf)
    table = clipped_ranks(weights.to(values.device), (~outside).sum(-1)).to(values)  # (K, 1 or C, L)
    sums = torch.cat([table.new_zeros(1, *table.shape[1:]), table.cumsum(0)]).permute(1, 2, 0)
    sums = sums.expand(len(values), values.shape[1], -1, -1)
    above, equal = (torch.zeros(values.shape, dtype=torch.int64, device=values.device) for _ in range(2))
    for other in values.split(1, -1):
        above += other > values
        equal += other == values
    shared = (sums.gather(-1, above + equal) - sums.gather(-1, above)) / equal
    return shared.masked_fill(outside, 0)


def clipped_ranks(weights: Tensor, inside: Tensor) -> Tensor:
    """Weights by rank, ``(n,)`` or ``(n, C)``, of windows of ``inside (...)`` pixels each: ``(n, 1 or C, ...)``."""
    columns = weights[:, None] if weights.ndim == 1 else weights
    rows = []
    for m in range(len(columns) + 1):
        kept = columns.clone()
        kept[m:] = 0
        kept[max(m, 1) - 1, kept.sum(0) == 0] = 1
        rows.append(kept / kept.sum(0))
    table = torch.stack(rows)  # (m, n, C)
    return table[inside].movedim((-2, -1), (0, 1))


def clipped_places(weights: Tensor, outside: Tensor) -> Tensor:
    """Weights ``(n,)`` over the pixels of each window that are there: ``(L, n)`` from ``outside (L, n)``."""
    inside = (~outside).to(weights)
    kept = inside * weights
    total = kept.sum(-1, keepdim=True)
    return torch.where(total > 0, kept, inside) / torch.where(total > 0, total, inside.sum(-1, keepdim=True))


def checked_weights(name: str, what: str, weights: Sequence[float] | None, count: int) -> Tensor:
    """Weights as a tensor with a sum of 1, even for None; refuses a wrong number, negative ones, and another sum."""
    if weights is None:
        return torch.full((count,), 1 / count, dtype=torch.float64)
    if len(weights) != count:
        raise OperatorError(f"{name}: {what} has {len(weights)} weights and the window {count} pixels: give {count}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise OperatorError(f"{name}: {what} is {tuple(weights)}: weights must be finite and not negative")
    total = math.fsum(weights)
    if abs(total - 1) > SUM_TOLERANCE:
        raise OperatorError(f"{name}: the weights of {what} sum to {total:g}: let them sum to 1")
    return torch.tensor(weights, dtype=torch.float64) / total
