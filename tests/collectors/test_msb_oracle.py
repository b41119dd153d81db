"""MSB against plain Python loops over windows: poolings, convolutions and slices."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from invariscope_tests_msb_loops import (  # loaded by conftest.py
    CHECKED,
    MODES,
    Call,
    Pixel,
    Sources,
    agree,
    at,
    count,
    downsampled,
    grid,
    images,
    pairs,
    share_of_maximum,
)
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.collectors.measure.msb import measure_msb


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
