"""Operators that are means of a window's values without being sums with the weights that they are known by.

``lme`` is another function than ``soft`` with the same weights; ``lehmer`` weighs by powers of the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial, reduce
from typing import ClassVar

import torch
from torch import Tensor

from invariscope.zoo.operators.pooling import PoolingOperator, avg_pool, continued, lp_weights, max_pool, soft_weights
from invariscope.zoo.operators.smooth import Frame, lme_by_taps, suits
from invariscope.zoo.operators.taps import Windows


def lme_pool(x: Tensor, beta: float = 1.0, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``(1/beta) log mean exp(beta x)`` over ``kernel x kernel``: the mean at 0, the maximum at inf, minimum at -inf.

    Log-mean-exp, Pinheiro & Collobert 2015. Overflow-safe: exponentials are of the difference from the extreme value.
    """
    if beta == 0:
        return avg_pool(x, kernel, stride, padding_mode)
    if beta < 0:
        return -lme_pool(-x, -beta, kernel, stride, padding_mode)
    if beta == math.inf:
        return max_pool(x, kernel, stride, padding_mode)
    by_taps = suits(x, kernel, stride)
    frame = continued(x, kernel, stride, padding_mode, fill=torch.finfo(x.dtype).min if by_taps else 0.0)
    around = Frame(Windows(kernel, stride, frame.size), frame.outside)
    plain = partial(stacked_lme, frame=around, beta=beta)
    return lme_by_taps(frame.padded, around, beta, plain) if by_taps else plain(frame.padded)


def stacked_lme(padded: Tensor, frame: Frame, beta: float) -> Tensor:
    """:func:`lme_pool` of a padded map, over a stack of its taps."""
    values = torch.stack(frame.windows.taps(padded))
    values = values if frame.outside is None else values.masked_fill(frame.outside, -math.inf)
    # The difference first: beta * x can overflow where beta * (x - max) only underflows.
    top = values.detach().amax(0)
    count = torch.as_tensor(frame.pixels(padded), dtype=padded.dtype, device=padded.device)
    return top + (torch.logsumexp(beta * (values - top), 0) - count.log()) / beta


def lehmer_pool(x: Tensor, p: float = 2.0, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum x+^p / sum x+^(p-1)`` with ``x+ = relu(x)`` over ``kernel x kernel``; 0 where no value is positive.

    The mean of ``x+`` at ``p = 1``, the expectation of stochastic pooling (Zeiler & Fergus 2013) at 2, the maximum at
    inf. The gradient of a value that is not positive is 0; for ``p`` below 2 that of a small one grows without bound.
    """
    if p == 1:
        return avg_pool(x.relu(), kernel, stride, padding_mode)
    if p == math.inf:
        return max_pool(x.relu(), kernel, stride, padding_mode)
    frame = continued(x.relu(), kernel, stride, padding_mode)
    taps = Windows(kernel, stride, frame.size).taps(frame.padded)
    # The maximum as a number: through it, the gradient is 0 where it is defined.
    top = reduce(torch.maximum, [tap.detach() for tap in taps])
    unit = top.where(top > 0, 1.0)
    upper = lower = torch.zeros_like(unit)
    for tap in taps:
        share = tap / unit
        # A root has no derivative at 0, where the mean has: that of the values that are not positive is 0.
        power = share.where(share > 0, 1.0).pow(p - 1).where(share > 0, 0.0)
        upper, lower = torch.addcmul(upper, power, share), lower + power
    return upper / lower.where(lower > 0, 1.0) * top


class LME(PoolingOperator):
    """Log-mean-exp; its sampling weights are its gradient, ``softmax(beta x)``. See :func:`lme_pool`."""

    name = "lme"
    strength_argument = "beta"
    examples = ({"beta": 5.0, "kernel": 3}, {"beta": -2.0}, {"beta": 0.0}, {"beta": math.inf}, {"beta": -math.inf})
    exempt: ClassVar[Mapping[str, str]] = {"weighted sum": "log-mean-exp: its weights are its gradient"}

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", beta: float = 1.0, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.at_least(-math.inf, " (inf is the maximum)", beta=beta)
        self.beta = float(beta)

    def pool(self, x: Tensor) -> Tensor:
        return lme_pool(x, self.beta, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        return soft_weights(values, self.beta, outside, -1)

    @property
    def is_maximum(self) -> bool:
        return math.isinf(self.beta)


class Lehmer(PoolingOperator):
    """Lehmer mean of the positive parts, ``p >= 1``; sampling weights in proportion to ``x+^(p-1)``.

    See :func:`lehmer_pool`. The weights give the output of ``relu(x)``.

    Raises:
        OperatorError: for ``p`` below 1.
    """

    name = "lehmer"
    strength_argument = "p"
    examples = ({"p": 3.5, "kernel": 3}, {"p": 1.5}, {"p": 1.0}, {"p": math.inf})
    exempt: ClassVar[Mapping[str, str]] = {"weighted sum": "a mean of relu(x), whose weights these are"}

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", p: float = 2.0, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        self.at_least(1, " (inf is the maximum)", p=p)
        self.p = float(p)

    def pool(self, x: Tensor) -> Tensor:
        return lehmer_pool(x, self.p, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        if self.p == 1:
            inside = (~outside).to(values.dtype)
            return (inside / inside.sum(-1, keepdim=True))[None, None]
        return lp_weights(values, self.p - 1, outside, -1)

    @property
    def is_maximum(self) -> bool:
        return math.isinf(self.p)
