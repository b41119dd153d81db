"""Where surgery puts an operator, and which calls it cannot reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from invariscope.zoo.operators import TIPS
from invariscope.zoo.sites import find_sites
from invariscope.zoo.surgery import replace_downsampling


class Chain(nn.Module):
    """A strided convolution and what a test puts behind it."""

    def __init__(self, follow: Any, **modules: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, 2, 1)
        self.follow = follow
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.follow(self, self.conv(x))
        return y


FOLLOWERS: list[tuple[Any, dict[str, nn.Module], str, str]] = [
    (lambda m, y: m.act(y), {"act": nn.PReLU()}, "after act", ""),
    (
        lambda m, y: m.act(m.drop(m.norm(y))),
        {"act": nn.SiLU(), "norm": nn.BatchNorm2d(4), "drop": nn.Dropout2d()},
        "after act",
        "",
    ),
    (lambda m, y: m.last(F.gelu(y)), {"last": nn.Conv2d(4, 4, 1)}, "before last", ""),
    (lambda m, y: m.last(y.relu()), {"last": nn.BatchNorm2d(4)}, "before last", ""),
    (lambda m, y: F.relu(y), {}, "after conv", "the activation that follows it is a function"),
    (lambda m, y: m.act(y) + y, {"act": nn.ReLU()}, "after conv", "its output is used in several places"),
    (lambda m, y: m.act(m.act(y)), {"act": nn.ReLU()}, "after conv", "the activation that follows it is"),
    (lambda m, y: m.norm(y), {"norm": nn.BatchNorm2d(4)}, "after conv", "no activation follows"),
    (lambda m, y: m.soft(y), {"soft": nn.Softmax2d()}, "after conv", "no activation follows"),
    (lambda m, y: m.norm(y), {"norm": nn.LayerNorm([4, 8, 8])}, "after conv", "no activation follows"),
    (lambda m, y: m.act(y) if y.sum() > -1e9 else y, {"act": nn.ReLU()}, "after conv", "its graph cannot"),
]


@pytest.mark.parametrize(("follow", "modules", "placed", "reason"), FOLLOWERS)
def test_where_the_operator_stands(follow: Any, modules: dict[str, nn.Module], placed: str, reason: str) -> None:
    x = torch.randn(1, 3, 16, 16)
    chain = Chain(follow, **modules).eval()
    model, table = replace_downsampling(chain, "subsample", x)
    assert table.placed[0] == placed
    assert table.reason[0].startswith(reason)
    assert bool(table.reason[0]) == bool(reason)
    torch.testing.assert_close(model(x), chain(x))


def test_a_block_that_can_be_traced_inside_a_network_that_cannot() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())

        def forward(self, x: Tensor) -> Tensor:
            return self.block(x) if float(x.sum()) < 1e9 else x

    _, table = replace_downsampling(Outer(), "tips", torch.randn(1, 3, 8, 8))
    assert list(table.placed) == ["after block.2"]


def test_an_operator_before_a_pool_that_is_replaced_too() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, 2, 1)
            self.pool = nn.MaxPool2d(2)

        def forward(self, x: Tensor) -> Tensor:
            return self.pool(F.relu(self.conv(x)))

    net, x = Net(), torch.randn(1, 3, 16, 16)
    model, table = replace_downsampling(net, "subsample", x)
    assert list(table.placed) == ["before pool", "in place of pool, after its maximum at stride 1"]
    torch.testing.assert_close(model(x), net(x))
    tips, _ = replace_downsampling(net, "tips", x)
    assert [site.name for site in find_sites(tips, x)] == ["pool.operator_before", "pool.operator"]
    assert tips(x).shape == net(x).shape


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv(x), 2)
        return F.avg_pool2d(x[..., ::2, ::2], 2)


def test_calls_of_functions_are_listed() -> None:
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    model, table = replace_downsampling(Functional(), "tips", images)
    assert list(table.kind) == ["max", "subsample", "avg"]
    assert not table.replaced.any()
    assert set(table.reason) == {
        "it is a call in the forward of Functional, which does more than that: write it as a module of its own"
    }
    _, table = replace_downsampling(nn.Sequential(Functional(), nn.AvgPool2d(2)), "tips", images)
    assert list(table.replaced) == [False, False, False, True]
    assert table.reason[0].startswith("it is a call inside 0 (Functional)")
    assert torch.equal(model(images), model(images))


class Half(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, 1)


class Sliced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[..., ::2, ::2]


class Rectified(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2).relu()


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 2).relu_()


class Offset(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.add_(1), 2)


def test_a_module_that_is_a_call_and_nothing_else_is_replaced() -> None:
    x = torch.randn(2, 3, 21, 30)
    net = nn.Sequential(Half(), Sliced(), Rectified())
    model, table = replace_downsampling(net, "subsample", x)
    assert list(table.replaced) == [True, True, False]
    torch.testing.assert_close(model(x), net(x))
    model, table = replace_downsampling(net, "tips", x)
    assert list(table.replaced) == [True, True, False]
    assert isinstance(model[0], TIPS)
    assert isinstance(model[1], TIPS)
    _, table = replace_downsampling(nn.Sequential(InPlace(), Offset()), "tips", torch.randn(2, 3, 21, 30))
    assert not table.replaced.any()


def test_what_cannot_be_replaced_says_why() -> None:
    class Indices(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(2, return_indices=True)
            self.wide = nn.MaxPool2d((2, 1))
            self.strip = nn.Conv2d(3, 3, 3, stride=(1, 2), padding=1)
            self.adaptive = nn.AdaptiveAvgPool2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.adaptive(self.strip(self.wide(self.pool(x)[0])))

    _, table = replace_downsampling(Indices(), "tips", torch.randn(1, 3, 32, 32))
    assert not table.replaced.any()
    assert list(table.reason) == [
        "it returns the indices of its maxima, which an operator does not have",
        "its stride is 2 x 1, and an operator has one for both axes",
        "its stride is 1 x 2, and an operator has one for both axes",
        "adaptive pooling takes its stride from the size of its input",
    ]
