"""Padding, tap indices and sampling weights against plain loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from invariscope.zoo.sampling import PADDING_MODES, Taps, max_weights, pad, source_index, take, tap_index


def slow_source(position: int, size: int, mode: str, widest: int) -> int:
    """Source pixel of a position on an axis, -1 for zero padding."""
    if 0 <= position < size:
        return position
    if mode == "zeros":
        return -1
    if mode == "circular":
        while position < 0:
            position += size
        while position >= size:
            position -= size
        return position
    if mode == "reflect" and widest < size:
        return -position if position < 0 else 2 * (size - 1) - position
    return 0 if position < 0 else size - 1


@given(size=st.integers(1, 5), before=st.integers(0, 7), after=st.integers(0, 7), mode=st.sampled_from(PADDING_MODES))
def test_source_index_is_the_loop(size: int, before: int, after: int, mode: str) -> None:
    expected = [slow_source(p, size, mode, max(before, after)) for p in range(-before, size + after)]
    assert source_index(size, before, after, mode).tolist() == expected


def test_source_index_refuses_unknown_modes() -> None:
    with pytest.raises(ValueError, match="zeros, reflect, replicate, circular"):
        source_index(4, 1, 1, "mirror")


@given(
    height=st.integers(1, 4), width=st.integers(1, 4), edges=st.tuples(*[st.integers(0, 5)] * 4),
    mode=st.sampled_from(PADDING_MODES),
)  # fmt: skip
def test_pad_is_the_loop(height: int, width: int, edges: tuple[int, int, int, int], mode: str) -> None:
    x = torch.arange(2.0 * height * width).reshape(1, 2, height, width) + 1
    left, right, top, bottom = edges
    padded = pad(x, *edges, mode, value=-7.0)
    assert padded.shape == (1, 2, top + height + bottom, left + width + right)
    for u in range(padded.shape[2]):
        for v in range(padded.shape[3]):
            h = slow_source(u - top, height, mode, max(top, bottom))
            w = slow_source(v - left, width, mode, max(left, right))
            expected = torch.full((2,), -7.0) if h < 0 or w < 0 else x[0, :, h, w]
            assert torch.equal(padded[0, :, u, v], expected)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_pad_is_torchs_where_torch_can(mode: str) -> None:
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pad(x, 2, 3, 1, 4, mode), F.pad(x, (2, 3, 1, 4), mode=mode))


@given(
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)), kernel=st.integers(1, 4), stride=st.integers(1, 3),
    before=st.integers(0, 3), after=st.integers(0, 3), dilation=st.integers(1, 2), mode=st.sampled_from(PADDING_MODES),
)  # fmt: skip
def test_tap_index_is_the_loop(
    size: tuple[int, int], kernel: int, stride: int, before: int, after: int, dilation: int, mode: str
) -> None:
    out = (-(-size[0] // stride), -(-size[1] // stride))
    geometry = (size, out, *[(n, n) for n in (kernel, stride, before, dilation)], mode)
    index = tap_index(*geometry, None, (after, after))
    expected = []
    for u in range(out[0]):
        for v in range(out[1]):
            row = []
            for p in range(kernel):
                for q in range(kernel):
                    sources = []
                    for start, tap, length, count in ((u, p, size[0], out[0]), (v, q, size[1], out[1])):
                        last = stride * (count - 1) + dilation * (kernel - 1) - before
                        widest = max(before, after, last - length + 1)
                        sources.append(slow_source(stride * start + dilation * tap - before, length, mode, widest))
                    row.append(-1 if min(sources) < 0 else sources[0] * size[1] + sources[1])
            expected.append(row)
    assert index.tolist() == expected
    wanted = torch.tensor([out[0] * out[1] - 1, 0])
    some = tap_index(*geometry, wanted, (after, after))
    assert some.tolist() == [expected[-1], expected[0]]


def test_take_reads_pixels_and_fills_outside() -> None:
    x = torch.arange(12.0).reshape(1, 2, 2, 3)
    values = take(x, torch.tensor([[0, 5, -1], [3, 3, 1]]), fill=-math.inf)
    assert values[0, 0].tolist() == [[0, 5, -math.inf], [3, 3, 1]]
    assert values[0, 1].tolist() == [[6, 11, -math.inf], [9, 9, 7]]


def test_max_weights_share_ties_and_skip_empty_windows() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0], [-math.inf, -2.0, -math.inf], [-math.inf] * 3, [0.0, 0.0, 0.0]])
    third = 1 / 3
    expected = torch.tensor([[0, 0.5, 0.5], [0, 1, 0], [0, 0, 0], [third, third, third]])
    assert torch.allclose(max_weights(values), expected)


def dense(taps: Taps, pixels: int) -> torch.Tensor:
    """The taps as a matrix ``(N, C, L, pixels)``: a loop over every tap."""
    n, c = taps.weights.shape[:2]
    length, count = taps.index.shape
    weights = taps.weights.expand(n, c, length, count)
    matrix = torch.zeros(n, c, length, pixels, dtype=weights.dtype)
    for row in range(length):
        for k in range(count):
            if taps.index[row, k] >= 0:
                matrix[:, :, row, taps.index[row, k]] += weights[:, :, row, k]
    return matrix


@pytest.mark.parametrize("inner_rows", [1, 9])
def test_after_is_the_matrix_product(inner_rows: int) -> None:
    generator = torch.Generator().manual_seed(3)
    first = Taps(
        torch.randint(-1, 16, (9, 4), generator=generator),
        torch.rand(2, 3, inner_rows, 4, generator=generator, dtype=torch.float64),
    )
    second = Taps(
        torch.randint(-1, 9, (5, 6), generator=generator),
        torch.rand(2, 1, 5, 6, generator=generator, dtype=torch.float64),
    )
    expected = dense(second, 9) @ dense(first, 16)
    torch.testing.assert_close(dense(second.after(first), 16), expected)
