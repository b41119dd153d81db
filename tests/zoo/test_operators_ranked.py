"""Operators by rank, by place, and means: against torch's sort, their own sampling weights, and each other."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.errors import OperatorError
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.fixed import Gauss, Kernel, Phase
from invariscope.zoo.operators.means import LME, Lehmer
from invariscope.zoo.operators.pooling import Avg, Max, default_kernel
from invariscope.zoo.operators.ranked import OWA, ChannelRanks, Quantile, Rank, TopK, dealt
from invariscope.zoo.operators.taps import sorting_network
from invariscope.zoo.sampling import PADDING_MODES, take

GEOMETRIES = [(None, 2), (3, 2), (3, 3), (2, 1), (None, 3)]
SIZES = [(6, 6), (7, 5), (5, 3)]
CASES = [
    pytest.param(*case, marks=pytest.mark.full if sum(places) % len(PADDING_MODES) else ())
    for places, case in zip(
        itertools.product(*(range(len(each)) for each in (GEOMETRIES, SIZES, PADDING_MODES))),
        itertools.product(GEOMETRIES, SIZES, PADDING_MODES),
        strict=True,
    )
]
"""Each geometry at each size, with one of the padding modes in turn in the quick run."""


def shares(count: int, seed: int = 0) -> tuple[float, ...]:
    weights = torch.rand(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return tuple((weights / weights.sum()).tolist())


def noise(size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randn(2, 5, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sampled(operator: Downsample, x: Tensor) -> Tensor:
    taps = operator.sampling(x)
    assert (taps.weights >= 0).all()
    return (taps.weights * take(x, taps.index)).sum(-1)


@pytest.mark.parametrize("count", range(1, 17))
def test_a_network_sorts(count: int) -> None:
    values = torch.randn(200, count, generator=torch.Generator().manual_seed(count)).round(decimals=1)
    columns = list(values.clone().unbind(1))
    for a, b in sorting_network(count):
        columns[a], columns[b] = torch.maximum(columns[a], columns[b]), torch.minimum(columns[a], columns[b])
    assert torch.equal(torch.stack(columns, 1), values.sort(1, descending=True).values)


def test_ranks_are_those_of_a_sort() -> None:
    x, w = noise((8, 6)), torch.tensor([0.5, 0.25, 0.2, 0.05], dtype=torch.float64)
    cells = F.unfold(x, 2, stride=2).view(2, 5, 4, -1).sort(2, descending=True).values
    expected = torch.einsum("nckl,k->ncl", cells, w).view(2, 5, 4, 3)
    assert torch.allclose(Rank(5, w=tuple(w.tolist()))(x), expected, atol=1e-14)
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.allclose(Rank(5, w=tuple(w.tolist()))(last), expected, atol=1e-14)


@pytest.mark.parametrize(("geometry", "size", "mode"), CASES)
def test_identities_weights_and_gradients(geometry: tuple[int | None, int], size: tuple[int, int], mode: str) -> None:
    kernel, stride = geometry
    n = default_kernel(kernel, stride) ** 2
    how = {"stride": stride, "padding_mode": mode, "kernel": kernel}
    x = noise(size)
    largest, mean = Max(5, **how), Avg(5, **how)
    assert torch.equal(Rank(5, w=(1.0,) + (0.0,) * (n - 1), **how)(x), largest(x))
    assert torch.allclose(Rank(5, w=(1 / n,) * n, **how)(x), mean(x), atol=1e-12)
    assert torch.equal(OWA(5, q=0.0, **how)(x), largest(x))
    assert torch.allclose(OWA(5, q=1.0, **how)(x), mean(x), atol=1e-12)
    assert torch.equal(TopK(5, k=1, **how)(x), largest(x))
    assert torch.equal(Quantile(5, j=n, **how)(x), -largest(-x))
    assert torch.allclose(Kernel(5, k=(1 / n,) * n, **how)(x), mean(x), atol=1e-12)
    assert torch.equal(LME(5, beta=0.0, **how)(x), mean(x))
    assert torch.allclose(LME(5, beta=500.0, **how)(x), largest(x), atol=0.02)
    operators = [
        Rank(5, w=shares(n), **how),
        ChannelRanks(5, v=shares(n), **how),
        OWA(5, q=0.4, **how),
        TopK(5, k=min(2, n), **how),
        Kernel(5, k=shares(n), **how),
        Gauss(5, stride, mode, sigma=0.6),
        Phase(5, stride, mode, i=stride - 1, j=0),
    ]
    for operator, map_ in itertools.product(operators, (x, (2 * x).round())):  # the second has ties
        before = map_.clone()
        y = operator(map_)
        assert torch.equal(map_, before)
        assert torch.allclose(y, sampled(operator, map_).view_as(y), atol=1e-10), operator
    if size == SIZES[-1]:
        for operator in operators:
            assert torch.autograd.gradcheck(operator, noise(size, 1)[:1, :5].requires_grad_(True)), operator
    positive = x.abs() + 0.1
    lehmer = Lehmer(5, p=3.0, **how)
    assert torch.allclose(lehmer(positive), sampled(lehmer, positive).view_as(lehmer(positive)), atol=1e-10)


@pytest.mark.parametrize("beta", [0.5, 3.0, -2.0])
@pytest.mark.parametrize("mode", PADDING_MODES)
def test_weights_of_log_mean_exp_are_its_gradient(beta: float, mode: str) -> None:
    operator = LME(5, 2, mode, beta=beta, kernel=3)
    x = noise((7, 6)).requires_grad_(True)
    y = operator(x)
    taps = operator.sampling(x.detach())
    for output in range(y[0, 0].numel()):
        gradient = torch.autograd.grad(y.flatten(2)[0, 1, output], x, retain_graph=True)[0].flatten(2)[0, 1]
        weights = torch.zeros_like(gradient)
        index = taps.index[output]
        weights.index_add_(0, index.clamp(min=0), taps.weights[0, 1, output].masked_fill(index < 0, 0))
        assert torch.allclose(gradient, weights, atol=1e-9)


def test_channels_are_dealt_by_largest_remainder() -> None:
    assert dealt([0.5, 0.3, 0.2, 0.0], 8) == [4, 2, 2, 0]
    assert dealt([0.25, 0.25, 0.25, 0.25], 6) == [2, 2, 1, 1]
    x = noise((4, 4))
    ranks = F.unfold(x, 2, stride=2).view(2, 5, 4, -1).sort(2, descending=True).values
    y = ChannelRanks(5, v=(0.6, 0.0, 0.0, 0.4))(x).flatten(2)
    assert torch.equal(y[:, :3], ranks[:, :3, 0])
    assert torch.equal(y[:, 3:], ranks[:, 3:, 3])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Rank(4, w=(0.5, 0.5)), "w has 2 weights and the window 4 pixels: give 4"),
        (lambda: Rank(4, w=(1.5, -0.5, 0.0, 0.0)), "weights must be finite and not negative"),
        (lambda: Kernel(4, k=(0.5, 0.1, 0.1, 0.1)), "the weights of k sum to 0.8: let them sum to 1"),
        (lambda: TopK(4, k=5), "k is 5, and must be from 1 to the 4 pixels of the window"),
        (lambda: OWA(4, q=-1.0), "q is -1.0, and must be at least 0"),
        (lambda: Phase(4, 2, i=2), r"\(2, 0\) is no phase of stride 2"),
        (lambda: Gauss(4, sigma=0.0), "sigma is 0.0, and must be above 0"),
        (lambda: Lehmer(4, p=0.5), "p is 0.5, and must be at least 1"),
    ],
)
def test_values_that_are_refused(build: Callable[[], Downsample], message: str) -> None:
    with pytest.raises(OperatorError, match=message):
        build()
