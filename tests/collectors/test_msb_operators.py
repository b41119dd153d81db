"""MSB of every operator against plain Python loops over windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from invariscope_tests_msb_loops import (  # loaded by conftest.py
    CHECKED,
    MODES,
    Counts,
    Sampler,
    Sources,
    agree,
    binomial,
    count,
    grid,
    images,
    share_of_maximum,
)
from torch import Tensor, nn

from invariscope.collectors.measure import msb
from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import APS, DDAC, LPS, TIPS, Avg, Blur, Lp, Max, MaxBlur, Soft, Subsample
from invariscope.zoo.operators.base import pad_to_multiple


def operator_samplers() -> Iterator[tuple[str, Callable[[int, str], nn.Module], Callable[..., Sampler]]]:
    """Operators by name: how to build one, and its sampler for (operator, stride, padding mode, map size)."""

    def pooled(weigh: Callable[[list[float]], list[float]]) -> Callable[..., Sampler]:
        def build(operator: nn.Module, s: int, mode: str) -> Sampler:
            k = operator.kernel
            before = (k - 1) // 2 if k > s else 0

            def sampler(image: np.ndarray, u: int, v: int) -> Sources:
                taps = grid(image.shape, u, v, (k, k), (s, s), (before, before), (1, 1), mode)
                taps = [tap for tap in taps if tap is not None]
                return list(zip(taps, weigh([float(image[tap]) for tap in taps]), strict=True))

            return sampler

        return build

    def softened(values: list[float]) -> list[float]:
        powers = [math.exp(0.7 * (value - max(values))) for value in values]
        return [power / sum(powers) for power in powers]

    def powered(values: list[float]) -> list[float]:
        powers = [max(value, 0.0) ** 3 for value in values]
        total = sum(powers)
        return [power / total if total else 1 / len(powers) for power in powers]

    def blurred(operator: nn.Module, s: int, mode: str) -> Sampler:
        m = operator.m

        def sampler(image: np.ndarray, u: int, v: int) -> Sources:
            before = ((m - 1) // 2, (m - 1) // 2)
            taps = grid(image.shape, u, v, (m, m), (s, s), before, (1, 1), mode)
            return list(zip(taps, binomial(m), strict=True))

        return sampler

    def max_blurred(operator: nn.Module, s: int, mode: str) -> Sampler:
        k = operator.kernel
        outer = blurred(operator, s, mode)

        def sampler(image: np.ndarray, u: int, v: int) -> Sources:
            chained: Sources = []
            for middle, weight in outer(image, u, v):
                if middle is None:
                    continue
                before = ((k - 1) // 2 if k > 1 else 0,) * 2
                taps = grid(image.shape, *middle, (k, k), (1, 1), before, (1, 1), mode)
                taps = [tap for tap in taps if tap is not None]
                shares = share_of_maximum([float(image[tap]) for tap in taps])
                chained += [(tap, weight * share) for tap, share in zip(taps, shares, strict=True)]
            return chained

        return sampler

    for kernel in (None, 3):
        yield f"max-{kernel}", lambda s, mode, k=kernel: Max(2, s, mode, kernel=k), pooled(share_of_maximum)
    yield "avg-3", lambda s, mode: Avg(2, s, mode, kernel=3), pooled(lambda values: [1 / len(values)] * len(values))
    yield "soft", lambda s, mode: Soft(2, s, mode, beta=0.7, kernel=3), pooled(softened)
    yield "lp", lambda s, mode: Lp(2, s, mode, p=3.0), pooled(powered)
    for m in (2, 3, 4):
        yield f"blur-{m}", lambda s, mode, m=m: Blur(2, s, mode, m=m), blurred
    yield "maxblur", lambda s, mode: MaxBlur(2, s, mode, m=3), max_blurred
    yield "maxblur-2-3", lambda s, mode: MaxBlur(2, s, mode, m=2, kernel=3), max_blurred
    subsampled = lambda operator, s, mode: lambda image, u, v: [((s * u, s * v), 1.0)]  # noqa: E731
    yield "subsample", lambda s, mode: Subsample(2, s, mode), subsampled


@pytest.mark.parametrize(("build", "sampler"), [pytest.param(b, s, id=name) for name, b, s in operator_samplers()])
@settings(parent=CHECKED, max_examples=16)
@given(data=st.data())
def test_operators(build: Callable[..., nn.Module], sampler: Callable[..., Sampler], data: st.DataObject) -> None:
    s, mode = data.draw(st.integers(2, 3)), data.draw(st.sampled_from(MODES))
    x = images(data.draw, least=4)
    operator = build(s, mode).double()
    y = operator(x).detach()
    agree(measure_msb(operator, x), count(x.numpy(), y.numpy(), (s, s), sampler(operator, s, mode)))


def whole_map_operators() -> Iterator[tuple[str, Callable[[int, str], nn.Module]]]:
    yield "aps", lambda s, mode: APS(2, s, mode)
    yield "aps-inf", lambda s, mode: APS(2, s, mode, p=math.inf)
    yield "aps-filter2", lambda s, mode: APS(2, s, mode, filter=2)
    yield "aps-filter3", lambda s, mode: APS(2, s, mode, filter=3)
    yield "lps", lambda s, mode: LPS(2, s, mode)
    yield "tips-hard", lambda s, mode: TIPS(2, s, mode, hard=True)
    yield "tips", lambda s, mode: TIPS(2, s, mode)
    yield "ddac", lambda s, mode: DDAC(2, s, mode, groups=2)


@pytest.mark.parametrize("build", [pytest.param(build, id=name) for name, build in whole_map_operators()])
@settings(parent=CHECKED, max_examples=16)
@given(data=st.data())
def test_operators_that_look_at_the_whole_map(build: Callable[..., nn.Module], data: st.DataObject) -> None:
    """The chosen phases and predicted filters are the operator's own; windows, copies and the chain rule are not."""
    s, mode = data.draw(st.integers(2, 3)), data.draw(st.sampled_from(MODES))
    x = images(data.draw, least=4)
    torch.manual_seed(data.draw(st.integers(0, 99)))
    operator = build(s, mode).double().eval()
    with torch.no_grad():
        y = operator(x)
        counts = Counts()
        for n, c in itertools.product(range(len(x)), range(2)):
            sampler = filtered(operator, x, n, c) if isinstance(operator, DDAC) else phased(operator, x, n, c)
            part = count(x[n : n + 1, c : c + 1].numpy(), y[n : n + 1, c : c + 1].numpy(), (s, s), sampler)
            counts = Counts(*(mine + new for mine, new in zip(astuple(counts), astuple(part), strict=True)))
    agree(measure_msb(operator, x), counts)


def filtered(operator: DDAC, x: Tensor, n: int, c: int) -> Sampler:
    weights = operator.weights(x, training=False)[n, c]
    s = operator.stride

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        taps = grid(image.shape, u, v, (3, 3), (s, s), (1, 1), (1, 1), operator.padding_mode)
        return list(zip(taps, weights[:, u, v].tolist(), strict=True))

    return sampler


def phased(operator: nn.Module, x: Tensor, n: int, c: int) -> Sampler:
    s, mode, m = operator.stride, operator.padding_mode, getattr(operator, "filter", 1)
    if operator.selection is not None:
        weights = [float(k == int(operator.selection[n])) for k in range(s * s)]
    else:
        weights = operator.logits(pad_to_multiple(x, s, mode))[1].softmax(2)[n, c].tolist()

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        found: Sources = []
        for tap, weight in zip(grid(image.shape, u, v, (s, s), (s, s), (0, 0), (1, 1), mode), weights, strict=True):
            if tap is not None:
                before = ((m - 1) // 2, (m - 1) // 2)
                inner = grid(image.shape, *tap, (m, m), (1, 1), before, (1, 1), mode)
                found += [(pixel, weight * share) for pixel, share in zip(inner, binomial(m), strict=True)]
        return found

    return sampler


def test_weights_that_are_equal_but_for_rounding_are_tied() -> None:
    """0.1 + 0.2 is above 0.3 by one bit: three of the four positions have the greatest weight all the same."""
    values = torch.tensor([[5.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    weights = torch.tensor([[0.3, 0.1 + 0.2, 0.1, 0.3]], dtype=torch.float64)
    assert weights[0, 1] > weights[0, 0]
    sums = msb._sums(values[None, ..., None], values[None, :, :1], weights[None, ..., None], torch.tensor([4]), None)
    assert sums[0, msb._SUMS.index("top")] == pytest.approx(1 / 3, abs=1e-15)
    assert sums[0, msb._SUMS.index("weight")] == pytest.approx(0.3, abs=1e-15)
