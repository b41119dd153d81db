"""Circular padding that keeps the layout: the values of torch's own, forwards and backwards, and where it is used."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from invariscope.collectors.measure.passes import shift_network
from invariscope.zoo.datasets import load_dataset
from invariscope.zoo.loading import build_model
from invariscope.zoo.run import Run
from invariscope.zoo.training.trainer import Trainer, reproducible
from invariscope.zoo.wrapping import wrap, wrap_in_place

EDGES = [(1, 1, 1, 1), (2, 0, 1, 3), (0, 0, 2, 1), (5, 4, 0, 0), (3, 5, 4, 4), (0, 0, 0, 0)]
"""Of maps of 4 x 5 pixels, up to their size."""
LAYOUTS = [torch.contiguous_format, torch.channels_last]


def noise(*size: int, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size, generator=generator, dtype=torch.float64).contiguous(memory_format=layout)


def theirs(x: Tensor, edges: tuple[int, ...]) -> Tensor:
    return F.pad(x, edges, mode="circular")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("edges", EDGES)
def test_values_and_gradients_are_torchs(edges: tuple[int, ...], layout: torch.memory_format) -> None:
    x = noise(2, 3, 4, 5, layout=layout).requires_grad_()
    y, expected = wrap(x, *edges), theirs(x, edges)
    assert torch.equal(y, expected)
    assert y.is_contiguous(memory_format=layout)
    given = noise(*y.shape)
    (mine,), (other,) = (torch.autograd.grad(result, x, given) for result in (y, expected))
    torch.testing.assert_close(mine, other, rtol=0, atol=1e-14)
    assert mine.is_contiguous(memory_format=layout)


def test_the_gradient_has_a_gradient() -> None:
    assert torch.autograd.gradgradcheck(lambda x: wrap(x, 1, 2, 2, 1) ** 3, noise(1, 2, 3, 4).requires_grad_())


def test_transforms_and_tracers_see_torchs_own() -> None:
    x, edges = noise(2, 3, 4, 5), (1, 1, 2, 0)
    batched = torch.vmap(lambda one: wrap(one[None], *edges)[0])(x)
    assert torch.equal(batched, theirs(x, edges))
    _, tangent = torch.func.jvp(lambda value: wrap(value, *edges), (x,), (x,))
    assert torch.equal(tangent, theirs(x, edges))
    traced = torch.jit.trace(lambda value: wrap(value, *edges), x)
    assert torch.equal(traced(2 * x), theirs(2 * x, edges))


class Calls(TorchFunctionMode):
    """Names of the functions that are called, outermost ones."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_who_watches_calls_sees_a_padding() -> None:
    conv = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    wrap_in_place(conv)
    with torch.no_grad(), Calls() as calls:
        conv(noise(2, 3, 4, 5, layout=torch.channels_last).float())
    assert [name for name in calls.names if name in ("pad", "conv2d", "__setitem__")] == ["pad", "conv2d"]


def test_wider_edges_than_the_map_are_refused_as_torch_does() -> None:
    with pytest.raises(RuntimeError, match="wrapping around more than once"):
        wrap(noise(1, 1, 4, 4), 5, 0, 0, 0)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_stay_what_they_are(stride: int) -> None:
    conv = nn.Conv2d(3, 4, 3, stride=stride, padding=1, padding_mode="circular").to(memory_format=torch.channels_last)
    network = nn.Sequential(conv, nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 2, 1))
    before, x = copy.deepcopy(network), noise(2, 3, 8, 8, layout=torch.channels_last).float()
    wrap_in_place(network)
    again = copy.deepcopy(network)
    assert torch.equal(network(x), before(x))
    assert list(network.state_dict()) == list(before.state_dict())
    assert [name for name, module in network.named_modules() if "_conv_forward" in vars(module)] == ["0"]
    with torch.no_grad():
        network[0].weight.zero_()
    assert torch.equal(again(x), before(x)), "a copy runs its own weights"


@pytest.mark.parametrize("channels_last", [False, True])
def test_only_channels_last_trainings_use_it(channels_last: bool) -> None:
    images = load_dataset("digits", split="train", limit=64)
    run = Run(model={"width": 2}, padding_mode="circular", channels_last=channels_last, batch_size=32, epochs=1)
    weights = []
    with reproducible(0):
        trainer = Trainer(run, images)
        assert channels_last == any("_conv_forward" in vars(module) for module in trainer.model.modules())
        list(trainer.epochs())
        weights.append(trainer.weights())
    with reproducible(0):
        trainer = Trainer(run, images)
        for module in trainer.model.modules():
            vars(module).pop("_conv_forward", None)
        list(trainer.epochs())
        weights.append(trainer.weights())
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=0, atol=1e-5)


def test_passes_use_it_on_their_copy_alone() -> None:
    model = build_model("zoo:smallcnn?operator=max&padding_mode=circular&width=4&in_channels=1").eval()
    images = noise(4, 1, 32, 32).float()
    network = shift_network(model, images)
    assert any("_conv_forward" in vars(module) for module in network.modules())
    assert not any("_conv_forward" in vars(module) for module in model.modules())
    views = images.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        wrapped = network(views)
        for module in network.modules():
            vars(module).pop("_conv_forward", None)
        assert torch.equal(wrapped, network(views))


class Viewing(nn.Module):
    """A network whose last map must be contiguous, and is with torch's own padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular")
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.norm(self.a(x)).relu()).relu()
        return self.head(x.view(len(x), -1))


def test_a_network_that_does_not_run_with_it_runs_without_it() -> None:
    model, images = Viewing().eval(), noise(4, 3, 8, 8).float()
    network = shift_network(model, images)
    assert not any("_conv_forward" in vars(module) for module in network.modules())
    with torch.no_grad():
        torch.testing.assert_close(network(images.contiguous(memory_format=torch.channels_last)), model(images))


def test_a_convolution_that_computes_otherwise_is_left_as_it_is() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))
    own = network[0]._conv_forward
    network[0]._conv_forward = lambda x, weight, bias: own(x, 2 * weight, bias)
    x = noise(2, 3, 8, 8).float()
    expected = network(x)
    network.modules = [network[0]]  # a name that users take
    assert wrap_in_place(network) is None
    assert torch.equal(network(x), expected)
