"""Packed 1 x 1 convolutions compute what the network computes, share its weights, and step aside where watched."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from invariscope.collectors.measure import packing
from invariscope.collectors.measure.packing import PackedConv2d, pack_pointwise
from invariscope.collectors.measure.passes import shift_network

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN packs nothing")


class Bottleneck(nn.Module):
    """A block with three 1 x 1 convolutions, of stride 1 and 2, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(8), nn.Conv2d(8, 16, 1, bias=False)
        self.short, self.again = nn.Conv2d(3, 16, 1, stride=2), self.first

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.middle(self.first(x).relu() + self.again(x)))
        return (self.last(y)[..., ::2, ::2] + self.short(x)).mean((2, 3))


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Bottleneck().eval().requires_grad_(False)


def images(n: int = 8) -> Tensor:
    return torch.randn(n, 3, 10, 10, generator=torch.Generator().manual_seed(1))


def packed(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, PackedConv2d)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_packed_network_says_what_the_network_says(model: nn.Module, layout: torch.memory_format) -> None:
    before = copy.deepcopy(model.state_dict())
    made = pack_pointwise(model)
    assert packed(made) == ["first", "last", "short"]
    assert made.again is made.first
    assert packed(model) == []
    with torch.inference_mode():
        for n in (1, 8, 0):
            x = images(n).contiguous(memory_format=layout)
            torch.testing.assert_close(made(x), model(x), rtol=1e-5, atol=1e-6)
    assert [value.data_ptr() for value in made.state_dict().values()] == [
        value.data_ptr() for value in model.state_dict().values()
    ]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_packed_weights_are_what_runs(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    ours = packing._Packed.__call__
    monkeypatch.setattr(packing._Packed, "__call__", lambda *given: runs.append(1) or ours(*given))
    network = shift_network(model, images())
    assert packed(network) == ["first", "last", "short"]
    runs.clear()
    with torch.inference_mode():
        network(images())
        assert len(runs) == 4
        copy.deepcopy(network)(images())
        assert len(runs) == 8
        network.double()(images().double())
        assert len(runs) == 8


def test_where_gradients_are_recorded_or_the_pass_is_watched_or_traced_the_convolution_runs(model: nn.Module) -> None:
    made, called = pack_pointwise(model), []
    x = images().requires_grad_()
    made(x).square().sum().backward()
    found, x.grad = x.grad, None
    model(x).square().sum().backward()
    assert torch.equal(found, x.grad)

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            called.append(func)
            return func(*args, **(kwargs or {}))

    with Watch(), torch.no_grad():
        made(images())
    assert called.count(torch.conv2d) == 5
    with torch.no_grad():
        traced = torch.jit.trace(made, images())
    assert "_convolution_pointwise" not in str(traced.inlined_graph)


def hooked(conv: nn.Conv2d) -> nn.Conv2d:
    conv.register_forward_hook(lambda *_: None)
    return conv


def replaced(conv: nn.Conv2d) -> nn.Conv2d:
    conv.forward = lambda x: x  # type: ignore[method-assign]
    return conv


class Mine(nn.Conv2d):
    """A class of its own, whose forward pass may be another."""


@pytest.mark.parametrize(
    "made",
    [
        lambda: nn.Conv2d(3, 4, 3),
        lambda: nn.Conv2d(4, 4, 1, groups=2),
        lambda: nn.Conv2d(3, 4, 1, padding=1, padding_mode="circular"),
        lambda: nn.Conv2d(3, 4, 1, padding="same"),
        lambda: nn.Conv2d(3, 4, 1).double(),
        lambda: nn.Conv2d(3, 4, 1, device="meta"),
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 1)),
        lambda: hooked(nn.Conv2d(3, 4, 1)),
        lambda: replaced(nn.Conv2d(3, 4, 1)),
        lambda: Mine(3, 4, 1),
        lambda: nn.Linear(3, 4),
    ],
    ids=["3x3", "groups", "circular", "same", "double", "meta", "parametrised", "hook", "forward", "class", "linear"],
)
def test_other_layers_stay_as_they_are(made: Callable[[], nn.Module]) -> None:
    network = nn.Sequential(made())
    assert pack_pointwise(network) is network


def test_a_network_that_cannot_be_copied_or_a_torch_without_packing_runs_as_it_is(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert pack_pointwise(model) is model
    monkeypatch.undo()
    model.lock = (one for one in "ab")  # a generator cannot be copied
    assert pack_pointwise(model) is model


def test_an_error_of_packing_is_seen(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = packing._Packed.__call__
    monkeypatch.setattr(packing._Packed, "__call__", lambda self, x, bias: ours(self, x, bias) * 1.001)
    assert shift_network(model, images()) is model
