"""Operators that are computed tap by tap: their gradients of any order, layouts, number formats and transforms."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from invariscope.zoo.operators import OPERATORS, build_operator, tiled
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.composed import Prefilter
from invariscope.zoo.operators.smooth import suits
from invariscope.zoo.operators.taps import Windows, needed_comparators, plainly_weighed, sorting_network, weigh_taps

SPECS = [
    "soft(3)", "soft(-2, 3)", "soft(0)", "lp(2.5)", "lp(3, 3)", "lme(2)", "lme(-3, 3)", "rank((0.4, 0.3, 0.2, 0.1), 2)",
    "topk(3, 3)", "channelranks((0.5, 0, 0, 0.5), 2)", "kernel((0.1, 0.2, 0.3, 0.4), 2)",
    "mix(0.3, rank((0.4, 0.3, 0.2, 0.1), 2), kernel((0.1, 0.2, 0.3, 0.4), 2))", "prefilter(0.7, soft(2))",
    "lehmer(1.5)", "lehmer(3, kernel=3)",
]  # fmt: skip
CASES = [*itertools.product(SPECS, ["zeros", "reflect"])]
LAST = torch.channels_last


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Values far from each other and from 0, in channels-last layout: no kink lies within a numeric derivative."""
    count = torch.Size(shape).numel()
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return ((order.double() - count / 2 + 0.25) * (8 / count)).view(shape).contiguous(memory_format=LAST)


@pytest.mark.parametrize(("spec", "mode"), CASES)
def test_gradients_with_channels_last(spec: str, mode: str) -> None:
    operator = build_operator(spec, 2, 2, mode)
    x = noise(2, 2, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(operator, x, fast_mode=True)


@pytest.mark.parametrize(("spec", "mode"), CASES)
def test_layouts_and_single_precision_agree(spec: str, mode: str) -> None:
    operator = build_operator(spec, 6, 2, mode)
    exact = noise(3, 6, 7, 8)
    found = []
    for dtype, layout in itertools.product((torch.float64, torch.float32), (torch.contiguous_format, LAST)):
        x = exact.to(dtype).contiguous(memory_format=layout).requires_grad_()
        y = operator(x)
        assert y.dtype == dtype
        (gradient,) = torch.autograd.grad((y**2).sum(), x)
        found.append((y.detach().double(), gradient.double()))
    for y, gradient in found[1:]:
        torch.testing.assert_close(y, found[0][0], rtol=0, atol=5e-6)
        torch.testing.assert_close(gradient, found[0][1], rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    ("spec", "stride"),
    [
        ("soft(3)", 2), ("soft(-2)", 3), ("lme(2)", 2), ("lme(3)", 3), ("lp(2)", 2), ("lp(2.5)", 2), ("lp(3)", 3),
        ("rank((0.4, 0.3, 0.2, 0.1))", 2), ("mix(0.3, rank((0.4, 0.1, 0.2, 0.3)), kernel((0.1, 0.2, 0.3, 0.4)))", 2),
        ("prefilter(0.7, rank((0.1, 0.2, 0.3, 0.4)))", 2),
    ],
)  # fmt: skip
def test_windows_that_tile_a_map(spec: str, stride: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One image at a time, all at once, and in the default layout: the same."""
    operator = build_operator(spec, 2, stride, "circular")
    x = noise(3, 2, 6, 6).requires_grad_()
    assert tiled.suits(x, stride, stride)
    monkeypatch.setattr(tiled, "FEW_CHANNELS", 1)
    together = operator(x)
    monkeypatch.setattr(tiled, "BLOCK_BYTES", 1)
    y = operator(x)
    torch.testing.assert_close(y, together, rtol=1e-14, atol=1e-14)  # powers of what fills no vector: by other code
    assert y.is_contiguous(memory_format=LAST)
    assert torch.equal(operator(x.detach()), y)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(operator, x, fast_mode=True)
    other = x.detach().contiguous().requires_grad_()
    expected = operator(other)
    torch.testing.assert_close(y, expected.contiguous(memory_format=LAST), rtol=0, atol=1e-12)
    weights = noise(*y.shape, seed=1)
    for found, source in ((y, x), (together, x), (expected, other)):
        found.backward(weights)
        found_gradient, source.grad = source.grad, None
        assert found_gradient is not None
        if found is y:
            gradient = found_gradient
        torch.testing.assert_close(found_gradient.contiguous(), gradient.contiguous(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_values_share_the_weights_out(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 32, 4, 4, dtype=dtype).contiguous(memory_format=LAST).requires_grad_()
    build_operator("rank((0.4, 0.3, 0.2, 0.1), 2)", 32)(x).sum().backward()
    assert x.grad is not None
    windows = x.grad.unfold(2, 2, 2).unfold(3, 2, 2).flatten(-2).sort(-1).values
    assert torch.equal(windows, torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=dtype).expand_as(windows))


@pytest.mark.parametrize("spec", ["ddac", "ddac(4, groups=5)"])
@pytest.mark.parametrize("channels", [16, 13])
def test_content_adaptive_blur_in_both_layouts(spec: str, channels: int) -> None:
    torch.manual_seed(0)
    operator = build_operator(spec, channels, 2, "reflect").eval().double()
    x = torch.randn(3, channels, 7, 9, dtype=torch.float64)
    found = []
    for layout in (torch.contiguous_format, LAST):
        given = x.contiguous(memory_format=layout).requires_grad_()
        y = operator(given)
        found.append((y.detach(), *torch.autograd.grad(y.square().sum(), [given, *operator.parameters()])))
    for first, other in zip(*found, strict=True):
        torch.testing.assert_close(first, other)


@pytest.mark.parametrize("spec", SPECS)
def test_transforms_of_functions(spec: str) -> None:
    """``torch.func`` cannot pass through a hand-written gradient: the plain formula stands in."""
    operator = build_operator(spec, 2, 2, "circular")
    x = noise(3, 2, 4, 4)
    singly = torch.stack([operator(image[None])[0] for image in x])
    torch.testing.assert_close(torch.func.vmap(lambda image: operator(image[None])[0])(x), singly)
    wanted = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(operator(wanted).square().sum(), wanted)
    torch.testing.assert_close(torch.func.grad(lambda z: operator(z).square().sum())(x), expected)
    _, slope = torch.func.jvp(lambda z: operator(z).square().sum(), (x,), (torch.ones_like(x),))
    torch.testing.assert_close(slope, expected.sum())


@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_operator_trains_under_autocast(layout: torch.memory_format, dtype: torch.dtype) -> None:
    for name in OPERATORS:
        operator = build_operator(name, 8, 2, "circular").train()
        x = noise(2, 8, 7, 8).to(dtype).contiguous(memory_format=layout).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            y = operator(x)
        assert y.shape == (2, 8, 4, 4), name
        y.float().sum().backward()
        assert x.grad is not None
        assert bool(x.grad.isfinite().all()), name
        assert bool(x.grad.any()), name


@pytest.mark.parametrize("count", [4, 9])
def test_values_of_one_weight_are_not_ordered(count: int) -> None:
    distinct = tuple(float(rank) for rank in range(count))
    assert needed_comparators(count, distinct) == sorting_network(count)
    assert needed_comparators(count, (0.25,) * count) == ()
    assert len(needed_comparators(4, (1.0, 0.0, 0.0, 0.0))) < len(sorting_network(4))
    assert needed_comparators(count, torch.ones(count, 1)) == sorting_network(count)
    x = noise(2, 3, 9, 9)
    kernel = {4: 2, 9: 3}[count]
    windows = Windows(kernel, kernel, (9 // kernel, 9 // kernel))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        weights = torch.randint(0, 3, (count,), generator=generator).double().tolist()
        expected = plainly_weighed(x, windows, weights, None)
        torch.testing.assert_close(weigh_taps(x, windows, weights), expected, rtol=1e-12, atol=1e-12)


def test_where_the_taps_are_taken() -> None:
    x = torch.zeros(2, 3, 4, 4)
    last = x.contiguous(memory_format=LAST)
    assert not suits(x, 2, 2)  # as fast by a stack of the taps
    assert suits(x, 3, 2)
    assert suits(last, 2, 2)
    assert not suits(last.bfloat16(), 2, 2)
    assert not suits(last[:0], 2, 2)


def test_the_layout_stays() -> None:
    for spec in SPECS:
        operator: Downsample = build_operator(spec, 4, 2, "replicate")
        if isinstance(operator, Prefilter) or getattr(operator, "kernel", 2) == 2:
            assert operator(noise(2, 4, 6, 6)).is_contiguous(memory_format=LAST), spec
