"""Operators that weigh the pixels of a window by their rank: ordered weighted averages (Yager 1988).

Not in the registry yet: specifications have no lists of weights so far.

``y = sum_r w_r x_(r)`` with ``x_(1) >= x_(2) >= ... >= x_(n)``, ``w >= 0``, ``sum w = 1``. The weight on the maximum is
``w_1`` by construction, so that the maximum-sampling bias is assigned and not observed. Geometry as in
:mod:`invariscope.zoo.operators.pooling`; a window that zero padding clips to ``m`` of its ``n`` pixels takes the first
``m`` weights, renormalised, or its smallest pixel where these are all 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.pooling import PoolingOperator, continued
from invariscope.zoo.operators.taps import Windows, weigh_taps

SUM_TOLERANCE = 2e-3
"""How far weights may be from a sum of 1, to which they are brought: they may be written with three digits."""


def rank_pool(x: Tensor, weights: Tensor, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum_r w_r x_(r)`` over ``kernel x kernel`` windows, ``(N, C, H, W) -> (N, C, ceil(H/s), ceil(W/s))``.

    ``weights``: ``(n,)`` for every channel, or ``(n, C)``.
    """
    frame = continued(x, kernel, stride, padding_mode, fill=torch.finfo(x.dtype).min)
    windows = Windows(kernel, stride, frame.size)
    if frame.outside is not None:
        inside = (~frame.outside).sum(0)[0, 0]
        return weigh_taps(frame.padded, windows, _clipped(weights, inside).to(x))
    if weights.ndim == 1:
        return weigh_taps(frame.padded, windows, weights.tolist())
    return weigh_taps(frame.padded, windows, weights[:, None, :, None, None].to(x))


def rank_weights(values: Tensor, weights: Tensor, outside: Tensor) -> Tensor:
    """The weight of each of ``values (N, C, L, K)`` by its rank in the last dimension; tied values share theirs.

    ``weights``: ``(K,)`` or ``(K, C)``; ``outside (L, K)``: values that are not there.
    """
    values = values.masked_fill(outside, -math.inf)
    table = _clipped(weights, (~outside).sum(-1)).to(values)  # (K, 1 or C, L)
    sums = torch.cat([table.new_zeros(1, *table.shape[1:]), table.cumsum(0)]).permute(1, 2, 0)
    sums = sums.expand(len(values), values.shape[1], -1, -1)
    above, equal = (torch.zeros(values.shape, dtype=torch.int64, device=values.device) for _ in range(2))
    for other in values.split(1, -1):
        above += other > values
        equal += other == values
    shared = (sums.gather(-1, above + equal) - sums.gather(-1, above)) / equal
    return shared.masked_fill(outside, 0)


def _clipped(weights: Tensor, inside: Tensor) -> Tensor:
    """Weights of windows of ``inside (...)`` pixels each: ``(n, 1 or C, ...)``."""
    columns = weights[:, None] if weights.ndim == 1 else weights
    count = len(columns)
    rows = []
    for m in range(count + 1):
        kept = columns.clone()
        kept[m:] = 0
        total = kept.sum(0)
        kept[max(m, 1) - 1, total == 0] = 1
        rows.append(kept / kept.sum(0))
    table = torch.stack(rows)  # (m, n, C)
    return table[inside].movedim((-2, -1), (0, 1))


class RankedOperator(PoolingOperator):
    """Base of the operators that weigh by rank: :meth:`rank_weights` gives ``w``, ``(n,)`` or ``(n, C)``."""

    def rank_weights(self) -> Tensor:
        """``w`` in float64, with a sum of 1 over the ranks."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        return rank_pool(x, self.rank_weights(), self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return rank_weights(values, self.rank_weights(), outside)

    @property
    def taps(self) -> int:
        """Pixels of a window, ``n``."""
        return self.kernel**2


def checked_weights(name: str, what: str, weights: Sequence[float], count: int) -> Tensor:
    """Weights as a tensor with a sum of 1; refuses a wrong number, negative ones, and another sum."""
    if len(weights) != count:
        raise OperatorError(f"{name}: {what} has {len(weights)} weights and the window {count} pixels: give {count}")
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
        raise OperatorError(f"{name}: {what} is {tuple(weights)}: weights must be finite and not negative")
    total = math.fsum(weights)
    if abs(total - 1) > SUM_TOLERANCE:
        raise OperatorError(f"{name}: the weights of {what} sum to {total:g}: let them sum to 1")
    return torch.tensor(weights, dtype=torch.float64) / total


class Rank(RankedOperator):
    """``sum_r w_r x_(r)``: one weight per rank, from the largest pixel to the smallest. See :func:`rank_pool`.

    Raises:
        OperatorError: for weights that are not one per pixel of the window, are negative, or do not sum to 1.
    """

    name = "rank"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        w: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25),
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.w = tuple(w)
        checked_weights("rank", "w", self.w, self.taps)

    def rank_weights(self) -> Tensor:
        return checked_weights("rank", "w", self.w, self.taps)


class ChannelRanks(RankedOperator):
    """Each channel takes one pixel by its rank; ranks are dealt to channels in the shares ``v``.

    By largest remainder, the channels in order of their rank: the literal MSB is ``v_1``, up to the rounding to
    channels, and selectivity is 1 throughout.

    Raises:
        OperatorError: as :class:`Rank`.
    """

    name = "channelranks"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        v: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25),
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.v = tuple(v)
        checked_weights("channelranks", "v", self.v, self.taps)

    def rank_weights(self) -> Tensor:
        shares = checked_weights("channelranks", "v", self.v, self.taps)
        counts = dealt(shares.tolist(), self.channels)
        ranks = torch.tensor([rank for rank, count in enumerate(counts) for _ in range(count)])
        return torch.nn.functional.one_hot(ranks, self.taps).T.to(torch.float64)


def dealt(shares: Sequence[float], count: int) -> list[int]:
    """``count`` dealt in these shares to whole numbers, by largest remainder; the first of equal remainders first."""
    exact = [share * count for share in shares]
    whole = [math.floor(value + 1e-9) for value in exact]
    order = sorted(range(len(shares)), key=lambda place: (whole[place] - exact[place], place))
    for place in order[: count - sum(whole)]:
        whole[place] += 1
    return whole


class OWA(RankedOperator):
    """``w_r = Q(r/n) - Q((r-1)/n)`` with ``Q(t) = t^q``: the maximum at ``q = 0``, the mean at 1, the minimum at inf.

    MSB falls from 1 through 0 to ``-1 / (n - 1)``. (Regular increasing monotone quantifier, Yager 1996.)

    Raises:
        OperatorError: for a negative ``q``.
    """

    name = "owa"
    strength_argument = "q"

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        q: float = 1.0,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        if not q >= 0:
            raise OperatorError(f"owa: q is {q}, and must be at least 0")
        self.q = float(q)

    def rank_weights(self) -> Tensor:
        steps = torch.arange(self.taps + 1, dtype=torch.float64) / self.taps
        quantifier = steps**self.q
        quantifier[0] = 0.0
        return quantifier.diff()


class TopK(RankedOperator):
    """Mean of the ``k`` largest pixels; MSB ``1/k``.

    Raises:
        OperatorError: for a ``k`` below 1 or beyond the pixels of the window.
    """

    name = "topk"
    strength_argument = "k"

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", k: int = 2, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.k = _place("topk", "k", k, self.taps)

    def rank_weights(self) -> Tensor:
        weights = torch.zeros(self.taps, dtype=torch.float64)
        weights[: self.k] = 1 / self.k
        return weights


class Quantile(RankedOperator):
    """The ``j``-th largest pixel: the maximum at 1, the minimum at ``n``.

    Raises:
        OperatorError: for a ``j`` below 1 or beyond the pixels of the window.
    """

    name = "quantile"
    strength_argument = "j"

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", j: int = 2, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.j = _place("quantile", "j", j, self.taps)

    def rank_weights(self) -> Tensor:
        weights = torch.zeros(self.taps, dtype=torch.float64)
        weights[self.j - 1] = 1
        return weights


def _place(name: str, what: str, value: int, count: int) -> int:
    if not 1 <= value <= count:
        raise OperatorError(f"{name}: {what} is {value}, and must be from 1 to the {count} pixels of the window")
    return value
