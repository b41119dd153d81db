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


def channels_last(n: int = 8) -> Tensor:
    return images(n).contiguous(memory_format=torch.channels_last)


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
        network(channels_last())
        assert len(runs) == 4
        with torch.autocast("cpu", torch.bfloat16):
            assert network(channels_last()).dtype == model(images()).dtype
        assert len(runs) == 4
    with torch.no_grad():
        network.last.weight.mul_(2)
        torch.testing.assert_close(network(channels_last()), model(images()), rtol=1e-5, atol=1e-6)
    assert len(runs) == 7  # the one that was written to is not the one that was packed
    with torch.inference_mode():
        network.double()(channels_last().double())
    assert len(runs) == 7


def test_a_copy_of_a_packed_network_runs(model: nn.Module) -> None:
    made = copy.deepcopy(pack_pointwise(model))
    with torch.inference_mode():
        torch.testing.assert_close(made(channels_last()), model(images()), rtol=1e-5, atol=1e-6)


class Viewing(nn.Module):
    """Takes a map apart by ``view``, which only one layout allows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.first(x)).contiguous()).view(len(x), 5, -1).mean(2)


def test_a_map_keeps_its_layout() -> None:
    torch.manual_seed(0)
    network, plain = Viewing().eval(), Viewing().eval()
    made = shift_network(network, images(1))
    assert packed(made) == ["last"]
    assert packed(plain) == []
    with torch.inference_mode():
        torch.testing.assert_close(made(channels_last()), network(images()), rtol=1e-5, atol=1e-6)


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


def replaced(conv: nn.Conv2d, name: str = "forward") -> nn.Conv2d:
    setattr(conv, name, lambda x, *_: x)
    return conv


def biased(conv: nn.Conv2d) -> nn.Conv2d:
    conv.bias = nn.Parameter(torch.randn(8)[::2])
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
        lambda: replaced(nn.Conv2d(3, 4, 1), "_conv_forward"),
        lambda: biased(nn.Conv2d(3, 4, 1)),
        lambda: Mine(3, 4, 1),
        lambda: nn.Linear(3, 4),
    ],
    ids=[
        "3x3",
        "groups",
        "circular",
        "same",
        "double",
        "meta",
        "parametrised",
        "hook",
        "forward",
        "own",
        "bias",
        "class",
        "linear",
    ],
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


def folded_alone(network: nn.Module) -> bool:
    return packed(network) == [] and isinstance(network.norm, nn.Identity)


def test_an_error_of_packing_is_seen_and_folding_is_kept(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = packing._Packed.__call__
    monkeypatch.setattr(packing._Packed, "__call__", lambda self, x, bias: ours(self, x, bias) * 1.001)
    assert folded_alone(shift_network(model, images()))


@pytest.mark.parametrize("failing", ["when packed", "later"])
def test_a_processor_that_cannot_run_packed_weights_runs_folded_ones(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    ours = packing._Packed.__call__

    def fails(self: Any, x: Tensor, bias: Any) -> Tensor:
        if failing == "later" and x.shape[2] == 2:
            return ours(self, x, bias)
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(packing._Packed, "__call__", fails)
    assert folded_alone(shift_network(model, images()))
