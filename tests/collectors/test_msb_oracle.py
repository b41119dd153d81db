"""MSB against plain Python loops over windows, written from the definitions and from nothing else."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.msb import measure_msb
from invariscope.zoo.operators import APS, DDAC, LPS, TIPS, Avg, Blur, Lp, Max, MaxBlur, Soft, Subsample
from invariscope.zoo.operators.base import pad_to_multiple

Pixel = tuple[int, int]
Sources = list[tuple[Pixel | None, float]]
"""The taps of one output: source pixel (None in zero padding) and weight, copies listed one by one."""
Sampler = Callable[[np.ndarray, int, int], Sources]
"""(map (H, W), u, v) -> what output (u, v) is made of."""

CHECKED = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors]
)
MODES = ("zeros", "reflect", "replicate", "circular")


def source(position: int, size: int, mode: str) -> int | None:
    """Where a position of the continued axis comes from."""
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return None
    if mode == "circular":
        return position % size
    if mode == "replicate":
        return 0 if position < 0 else size - 1
    return -position if position < 0 else 2 * (size - 1) - position


def grid(
    shape: tuple[int, ...], u: int, v: int, kernel: Pixel, stride: Pixel, before: Pixel, dilation: Pixel, mode: str
) -> list[Pixel | None]:
    """The source pixel of every kernel position of output (u, v), row by row."""
    found: list[Pixel | None] = []
    for i, j in itertools.product(range(kernel[0]), range(kernel[1])):
        h = source(stride[0] * u - before[0] + dilation[0] * i, shape[0], mode)
        w = source(stride[1] * v - before[1] + dilation[1] * j, shape[1], mode)
        found.append(None if h is None or w is None else (h, w))
    return found


def share_of_maximum(values: list[float]) -> list[float]:
    top = max(values)
    if top == -math.inf:
        return [0.0] * len(values)
    hits = [float(value == top) for value in values]
    return [hit / sum(hits) for hit in hits]


def at(image: np.ndarray, pixel: Pixel | None, outside: float) -> float:
    return outside if pixel is None else float(image[pixel])


def binomial(m: int) -> list[float]:
    line = [math.comb(m - 1, n) / 2 ** (m - 1) for n in range(m)]
    return [a * b for a in line for b in line]


@dataclass
class Counts:
    windows: int = 0
    flat: int = 0
    equal: int = 0
    weight: float = 0.0
    top: float = 0.0
    corrected: float = 0.0

    def readings(self) -> dict[str, float]:
        mixed = self.windows - self.flat
        if not mixed:
            return dict.fromkeys(("msb", "msb_all", "msb_weight", "msb_top", "msb_corrected"), math.nan)
        return {
            "msb": self.equal / mixed,
            "msb_all": (self.equal + self.flat) / self.windows,
            "msb_weight": self.weight / mixed,
            "msb_top": self.top / mixed,
            "msb_corrected": self.corrected / mixed,
        }


def count(x: np.ndarray, y: np.ndarray, stride: Pixel, sampler: Sampler, origin: Pixel = (0, 0)) -> Counts:
    """Every window of every image and channel, one after the other."""
    counts = Counts()
    for n, c in itertools.product(range(x.shape[0]), range(x.shape[1])):
        image = x[n, c]
        for u, v in itertools.product(range(y.shape[2]), range(y.shape[3])):
            weights: dict[Pixel, float] = defaultdict(float)
            for pixel, weight in sampler(image, u, v):
                if pixel is not None:
                    weights[pixel] += weight
            if not sum(weights.values()) > 0:
                continue
            for i, j in itertools.product(range(stride[0]), range(stride[1])):
                cell = (origin[0] + stride[0] * u + i, origin[1] + stride[1] * v + j)
                if cell[0] < image.shape[0] and cell[1] < image.shape[1]:
                    weights[cell] += 0.0
            add(counts, image, weights, float(y[n, c, u, v]))
    return counts


def add(counts: Counts, image: np.ndarray, weights: dict[Pixel, float], output: float) -> None:
    counts.windows += 1
    values = {pixel: float(image[pixel]) for pixel in weights}
    maximum = max(values.values())
    if min(values.values()) == maximum:
        counts.flat += 1
        return
    total = math.fsum(weights.values())
    on_maximum = [pixel for pixel in weights if values[pixel] == maximum]
    mass = math.fsum(weights[pixel] for pixel in on_maximum) / total
    chance = len(on_maximum) / len(weights)
    greatest = max(weights.values())
    best = [pixel for pixel in weights if math.isclose(weights[pixel], greatest, rel_tol=1e-13)]
    counts.equal += output == maximum
    counts.weight += mass
    counts.top += sum(pixel in on_maximum for pixel in best) / len(best)
    counts.corrected += (mass - chance) / (1 - chance)


def agree(frame: pd.DataFrame, counts: Counts, row: int = 0) -> None:
    measured = frame.iloc[row]
    mixed = counts.windows - counts.flat
    assert measured["n_windows"] == counts.windows
    if counts.windows:
        assert measured["flat_fraction"] * counts.windows == pytest.approx(counts.flat, abs=1e-9)
    if mixed:
        assert measured["msb"] * mixed == pytest.approx(counts.equal, abs=1e-9)
    for name, value in counts.readings().items():
        assert measured[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def images(draw: st.DrawFn, channels: int = 2, least: int = 1, most: int = 7) -> Tensor:
    """Two images of small integers: ties everywhere."""
    height, width = (draw(st.integers(least, most)) for _ in range(2))
    spread = draw(st.integers(1, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return torch.randint(-spread, spread + 1, (2, channels, height, width), generator=generator).double()


class Call(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def pairs(low: int, high: int) -> st.SearchStrategy[Pixel]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


def downsampled(x: Tensor, y: Tensor, stride: Pixel) -> bool:
    return max(stride) > 1 and y.numel() > 0 and (y.shape[-2] < x.shape[-2] or y.shape[-1] < x.shape[-1])


@st.composite
def poolings(draw: st.DrawFn) -> tuple[Tensor, dict[str, object]]:
    x = images(draw)
    kernel, stride, dilation = draw(pairs(1, 3)), draw(pairs(1, 4)), draw(pairs(1, 2))
    padding = draw(st.tuples(st.integers(0, kernel[0] // 2), st.integers(0, kernel[1] // 2)))
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    assume(all(x.shape[2 + axis] + 2 * padding[axis] >= reach[axis] for axis in (0, 1)))
    arguments = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    return x, {**arguments, "dilation": dilation}


@CHECKED
@given(poolings(), st.booleans(), st.booleans())
def test_max_pooling(case: tuple[Tensor, dict[str, Pixel]], functional: bool, with_indices: bool) -> None:
    x, arguments = case
    kernel, stride = arguments["kernel_size"], arguments["stride"]
    y = F.max_pool2d(x, **arguments)
    assume(downsampled(x, y, stride))

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        taps = grid(image.shape, u, v, kernel, stride, arguments["padding"], arguments["dilation"], "zeros")
        return list(zip(taps, share_of_maximum([at(image, tap, -math.inf) for tap in taps]), strict=True))

    module = nn.MaxPool2d(**arguments, return_indices=with_indices)
    model = Call(lambda x: F.max_pool2d(x, **arguments, return_indices=with_indices)) if functional else module
    agree(measure_msb(model, x), count(x.numpy(), y.numpy(), stride, sampler))


@CHECKED
@given(poolings(), st.booleans(), st.sampled_from([None, 1, 5]))
def test_average_pooling(case: tuple[Tensor, dict[str, Pixel]], include: bool, divisor: int | None) -> None:
    x, arguments = case
    arguments = {key: value for key, value in arguments.items() if key != "dilation"}
    kernel, stride = arguments["kernel_size"], arguments["stride"]
    try:
        y = F.avg_pool2d(x, **arguments, count_include_pad=include, divisor_override=divisor)
    except RuntimeError:
        assume(False)
    assume(downsampled(x, y, stride))

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        taps = grid(image.shape, u, v, kernel, stride, arguments["padding"], (1, 1), "zeros")
        return [(tap, 0.5) for tap in taps]

    model = nn.AvgPool2d(**arguments, count_include_pad=include, divisor_override=divisor)
    agree(measure_msb(model, x), count(x.numpy(), y.numpy(), stride, sampler))


@CHECKED
@given(st.data())
def test_pooling_of_a_padded_map(data: st.DataObject) -> None:
    """Padding before a pooling is a part of it: its positions count at their source pixels."""
    x = images(data.draw, least=3)
    mode = data.draw(st.sampled_from(MODES))
    left, right, top, bottom = data.draw(st.tuples(*[st.integers(0, 2)] * 4))
    maximum = data.draw(st.booleans())
    fill = data.draw(st.sampled_from([0.0, -math.inf])) if maximum else 0.0
    options = {"mode": "constant", "value": fill} if mode == "zeros" else {"mode": mode}
    pool = F.max_pool2d if maximum else F.avg_pool2d

    def function(x: Tensor) -> Tensor:
        return pool(F.pad(x, (left, right, top, bottom), **options), 3, 2)

    y = function(x)
    assume(downsampled(x, y, (2, 2)))

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        taps = grid(image.shape, u, v, (3, 3), (2, 2), (top, left), (1, 1), mode)
        values = [at(image, tap, fill) for tap in taps]
        return list(zip(taps, share_of_maximum(values) if maximum else [1 / 9] * 9, strict=True))

    agree(measure_msb(Call(function), x), count(x.numpy(), y.numpy(), (2, 2), sampler))


@CHECKED
@given(st.data())
def test_strided_convolution(data: st.DataObject) -> None:
    groups = data.draw(st.sampled_from([1, 2]))
    x = images(data.draw, least=3, most=8)
    kernel, stride, dilation = data.draw(pairs(1, 3)), data.draw(pairs(1, 4)), data.draw(pairs(1, 2))
    padding = data.draw(pairs(0, 2))
    mode = data.draw(st.sampled_from(MODES))
    assume(max(stride) > 1)
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 for axis in (0, 1)]
    assume(all(x.shape[2 + axis] + 2 * padding[axis] >= reach[axis] for axis in (0, 1)))
    conv = nn.Conv2d(2, 4, kernel, stride, padding, dilation, groups, padding_mode=mode).double()
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    for parameter in conv.parameters():
        parameter.data = torch.randint(-2, 3, parameter.shape, generator=generator).double()

    size = [x.shape[2 + axis] + 2 * padding[axis] - reach[axis] + 1 for axis in (0, 1)]
    dense = np.zeros((2, 4, *size))
    weight, bias = conv.weight.detach().numpy(), conv.bias.detach().numpy()
    for n, o, u, v in np.ndindex(dense.shape):
        taps = grid(x.shape[2:], u, v, kernel, (1, 1), padding, dilation, mode)
        for part in range(2 // groups):
            image = x[n, o // (4 // groups) * (2 // groups) + part].numpy()
            dense[n, o, u, v] += sum(
                at(image, tap, 0.0) * w for tap, w in zip(taps, weight[o, part].flatten(), strict=True)
            )
        dense[n, o, u, v] += bias[o]
    y = conv(x).detach().numpy()
    np.testing.assert_array_equal(y, dense[:, :, :: stride[0], :: stride[1]])
    assume(y.shape != dense.shape)

    counts = count(dense, y, stride, lambda image, u, v: [((stride[0] * u, stride[1] * v), 1.0)])
    agree(measure_msb(conv, x), counts)
    # All the windows, through the patches that sampled windows are computed from.
    functional = Call(lambda x: F.conv2d(x, conv.weight, conv.bias, stride, padding, dilation, groups))
    locations = y.shape[2] * y.shape[3]
    if locations > 1 and mode == "zeros":
        sampled = measure_msb(functional, x, windows_per_image=locations - 1)
        assert sampled["n_windows"][0] == 8 * (locations - 1)
        agree(_every_patch(functional, x), counts)


def _every_patch(model: nn.Module, x: Tensor) -> pd.DataFrame:
    from invariscope.collectors.measure import msb

    limits = msb.CHUNK, msb.LARGEST_CHUNK
    try:
        msb.CHUNK, msb.LARGEST_CHUNK = 1, 3
        return measure_msb(model, x)
    finally:
        msb.CHUNK, msb.LARGEST_CHUNK = limits


@CHECKED
@given(st.data())
def test_slicing(data: st.DataObject) -> None:
    x = images(data.draw, least=2)
    stride = data.draw(pairs(2, 3))
    start = data.draw(pairs(0, 4))
    assume(start[0] < x.shape[2] and start[1] < x.shape[3])
    y = x[..., start[0] :: stride[0], start[1] :: stride[1]]
    origin = tuple(first - first % step for first, step in zip(start, stride, strict=True))

    def sampler(image: np.ndarray, u: int, v: int) -> Sources:
        return [((start[0] + stride[0] * u, start[1] + stride[1] * v), 1.0)]

    model = Call(lambda x: x[:, :, start[0] :: stride[0], start[1] :: stride[1]])
    agree(measure_msb(model, x), count(x.numpy(), y.numpy(), stride, sampler, origin))


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
