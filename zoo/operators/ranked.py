"""Operators that weigh the pixels of a window by their rank: ordered weighted averages (Yager 1988).

``y = sum_r w_r x_(r)`` with ``x_(1) >= x_(2) >= ... >= x_(n)``, ``w >= 0``, ``sum w = 1``. The weight on the maximum is
``w_1`` by construction, so that the maximum-sampling bias is assigned and not observed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.pooling import PoolingOperator
from invariscope.zoo.operators.taps import WindowWeights
from invariscope.zoo.operators.windowed import checked_weights, rank_weights, window_pool


class RankedOperator(PoolingOperator):
    """Base of the operators that weigh by rank: :meth:`rank_weights` gives ``w``, ``(n,)`` or ``(n, C)``.

    See :func:`invariscope.zoo.operators.windowed.window_pool`.
    """

    def rank_weights(self) -> Tensor:
        """``w`` in float64, with a sum of 1 over the ranks."""
        raise NotImplementedError

    def window_weights(self) -> WindowWeights:
        return WindowWeights(self.kernel, ranks=((1.0, self.rank_weights()),))

    def pool(self, x: Tensor) -> Tensor:
        return window_pool(x, self.window_weights(), self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return rank_weights(values, self.rank_weights(), outside)

    def multiply_adds(self, size: tuple[int, int], *, chosen: bool = False) -> int:
        """One per output and rank of positive weight; none where a single pixel is taken, by comparisons alone."""
        terms = int((self.rank_weights() > 0).sum(0).max())
        return self.outputs(size) * terms if terms > 1 else 0

    @property
    def taps(self) -> int:
        """Pixels of a window, ``n``."""
        return self.kernel**2


class Rank(RankedOperator):
    """``sum_r w_r x_(r)``: one weight per rank, from the largest pixel to the smallest; even ones by default.

    Raises:
        OperatorError: for weights that are not one per pixel of the window, are negative, or do not sum to 1.
    """

    name = "rank"
    examples = (
        {"w": (0.7, 0.1, 0.1, 0.1), "kernel": 2},
        {"w": (0.0, 0.5, 0.0, 0.0, 0.1, 0.1, 0.0, 0.0, 0.3), "kernel": 3},
    )

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        w: tuple[float, ...] | None = None,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.w = None if w is None else tuple(w)
        self.rank_weights()

    def rank_weights(self) -> Tensor:
        return checked_weights("rank", "w", self.w, self.taps)


class ChannelRanks(RankedOperator):
    """Each channel takes one pixel by its rank; ranks are dealt to channels in the shares ``v``, even ones by default.

    By largest remainder, the channels in order of their rank: the literal MSB is ``v_1``, up to the rounding to
    channels, and selectivity is 1 throughout.

    Raises:
        OperatorError: as :class:`Rank`.
    """

    name = "channelranks"
    examples = ({"v": (0.5, 0.0, 0.25, 0.25), "kernel": 2},)

    def __init__(
        self,
        channels: int,
        stride: int = 2,
        padding_mode: str = "zeros",
        v: tuple[float, ...] | None = None,
        kernel: int | None = None,
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.v = None if v is None else tuple(v)
        self.rank_weights()

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
    examples = ({"q": 0.3, "kernel": 3}, {"q": 0.0}, {"q": math.inf})

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", q: float = 1.0, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.at_least(0, " (0 is the maximum)", q=q)
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
    examples = ({"k": 5, "kernel": 3}, {"k": 1})

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", k: int = 2, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.k = _rank("topk", "k", k, self.taps)

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
    examples = ({"j": 9, "kernel": 3}, {"j": 1})

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", j: int = 2, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.j = _rank("quantile", "j", j, self.taps)

    def rank_weights(self) -> Tensor:
        weights = torch.zeros(self.taps, dtype=torch.float64)
        weights[self.j - 1] = 1
        return weights


def _rank(name: str, what: str, value: int, count: int) -> int:
    if not 1 <= value <= count:
        raise OperatorError(f"{name}: {what} is {value}, and must be from 1 to the {count} pixels of the window")
    return value
