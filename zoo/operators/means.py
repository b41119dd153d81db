"""Operators that are means of a window's values without being sums with the weights that they are known by.

``lme`` is another function than ``soft`` with the same weights; ``lehmer`` weighs by powers of the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import windows
from invariscope.zoo.operators.pooling import PoolingOperator, avg_pool, continued, lp_weights, max_pool, soft_weights


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
    frame = continued(x, kernel, stride, padding_mode)
    values = windows(frame.padded, kernel, stride, frame.size)
    count: Tensor | float = float(kernel**2)
    if frame.outside is not None:
        values = values.masked_fill(frame.outside, -math.inf)
        count = (~frame.outside).sum(0).to(x.dtype)
    sums = torch.logsumexp(beta * values, 0)
    return (sums - torch.log(torch.as_tensor(count, dtype=x.dtype, device=x.device))) / beta


def lehmer_pool(x: Tensor, p: float = 2.0, kernel: int = 2, stride: int = 2, padding_mode: str = "zeros") -> Tensor:
    """``sum x+^p / sum x+^(p-1)`` with ``x+ = relu(x)`` over ``kernel x kernel``; 0 where no value is positive.

    The mean of ``x+`` at ``p = 1``, the expectation of stochastic pooling (Zeiler & Fergus 2013) at 2, the maximum at
    inf.
    """
    if p == 1:
        return avg_pool(x.relu(), kernel, stride, padding_mode)
    frame = continued(x.relu(), kernel, stride, padding_mode)
    values = windows(frame.padded, kernel, stride, frame.size)
    return (lp_weights(values, p - 1, frame.outside, 0) * values).sum(0)


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
        if math.isnan(beta):
            raise OperatorError(f"lme: beta is {beta}: give a number")
        self.beta = float(beta)

    def pool(self, x: Tensor) -> Tensor:
        return lme_pool(x, self.beta, self.kernel, self.stride, self.padding_mode)

    def weigh(self, values: Tensor, outside: Tensor) -> Tensor:
        if self.beta < 0:
            return soft_weights(-values, -self.beta, outside, -1)
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
    examples = ({"p": 3.5, "kernel": 3}, {"p": 1.0}, {"p": math.inf})
    exempt: ClassVar[Mapping[str, str]] = {"weighted sum": "a mean of relu(x), whose weights these are"}

    def __init__(
        self, channels: int, stride: int = 2, padding_mode: str = "zeros", p: float = 2.0, kernel: int | None = None
    ) -> None:
        super().__init__(channels, stride, padding_mode, kernel)
        if not p >= 1:
            raise OperatorError(f"lehmer: p is {p}, and must be at least 1 (inf is the maximum)")
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
