"""Measuring changes nothing that is handed in: neither images nor labels nor the network, whatever the network does."""

from __future__ import annotations

import copy
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import invariscope as iv
from invariscope import collectors
from invariscope.collectors import Attack, ShiftPlan, measure
from invariscope.zoo.unchanged import unchanged

COUNT = 6


class Restless(nn.Module):
    """Normalises its input in place, and averages in evaluation mode too, in every way that a network can keep that."""

    seen: Tensor
    written: Tensor

    def __init__(self, per_pixel: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 5, 1) if per_pixel else nn.Linear(4 * 8 * 8, 5)
        self.per_pixel = per_pixel
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("written", torch.zeros(2))
        self.plain = torch.zeros(3)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        x.sub_(0.25).div_(2)
        self.calls += 1
        self.seen = self.seen + 1  # another tensor
        self.written += x.detach().mean()  # the same one
        self.written.data.mul_(1.5)  # past the counter of versions
        self.plain.add_(1)
        self.latest = x.detach()
        with torch.no_grad():
            self.last.weight.mul_(1.0001)
        x = F.relu(self.norm(self.first(x)))
        if self.per_pixel:
            return self.last(x)
        return self.last(F.max_pool2d(x, 2).flatten(1))


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """The functions that take a network: of the facade, and of every module that measures."""
    for name in dir(iv):
        if callable(found := getattr(iv, name)) and not inspect.isclass(found):
            yield name, found
    for module in pkgutil.walk_packages(measure.__path__, f"{measure.__name__}."):
        for name, found in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(found) and found.__module__ == module.name and not name.startswith("_"):
                yield name, found


def takes_network(function: Callable[..., Any]) -> bool:
    return "nn.Module" in str(inspect.get_annotations(function).get("model", ""))


TRIED = {name: function for name, function in functions() if takes_network(function)}

INSIDE = {"attack_with_library", "checked_logits", "fold_batch_norms", "reasons", "run_network"}
"""Steps of the others, which have the network in their care."""

LESS = INSIDE | {"evaluating", "hard_selections", "in_mode"}
"""And these run no network."""


def arguments(function: Callable[..., Any], per_pixel: bool) -> dict[str, Any]:
    torch.manual_seed(0)
    images = torch.rand(COUNT, 1, 16, 16)
    plan = ShiftPlan.sampled(COUNT, 2, 3)
    given: dict[str, Any] = {
        "images": images,
        "pixels": images,
        "example": images[:1],
        "labels": torch.arange(COUNT) % 5,
        "masks": (torch.rand(COUNT, 16, 16) * 5).long(),
        "plan": plan,
        "plans": [plan],
        "max_shift": 2,
        "attack": Attack("pgd", epsilon=0.1, steps=2),
        "attacks": [Attack("pgd", epsilon=0.1, steps=2)],
        "replacements": ("avg",),
        "operator": "avg",
        "repeats": 2,
    }
    wanted = inspect.signature(function).parameters
    if function.__name__ == "replace_downsampling":
        return {"operator": "avg", "example": images[:1]}
    if function.__name__ == "measure_picks":
        return {"image": images[:1], "site": "max"}
    return {name: value for name, value in given.items() if name in wanted}


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that a network holds, by values, and by which tensors hold them."""
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        for name, value in {**vars(module), **module._parameters, **module._buffers}.items():
            kept = value.detach().clone() if isinstance(value, Tensor) else value
            found[f"{path}.{name}"] = (id(value), kept if isinstance(kept, Tensor | bool | int) else None)
        found |= {f"{path}.{name}.grad": value.grad for name, value in module._parameters.items() if value is not None}
    return found


def assert_same(now: dict[str, Any], before: dict[str, Any]) -> None:
    assert now.keys() == before.keys()
    for name, value in before.items():
        if name.endswith(".grad"):
            assert now[name] is value, name
            continue
        assert now[name][0] == value[0], f"{name} is another object"
        same = torch.equal(now[name][1], value[1]) if isinstance(value[1], Tensor) else now[name][1] == value[1]
        assert same, f"{name} has other values"


def test_every_measuring_function_is_tried() -> None:
    public = {name for name in collectors.__all__ if name.startswith("measure_")}
    assert len(public) >= 6
    assert public <= TRIED.keys()
    assert {"measure_accuracy", "measure_segmentation", "predict", "find_sites", "replace_downsampling"} <= TRIED.keys()


@pytest.mark.parametrize("name", sorted(TRIED.keys() - LESS))
def test_nothing_that_is_handed_in_is_changed(name: str) -> None:
    function = TRIED[name]
    per_pixel = name == "measure_segmentation"
    torch.manual_seed(1)
    model = Restless(per_pixel)
    model.norm.eval()  # a mode that differs from that of the rest
    model.last.weight.grad = torch.ones_like(model.last.weight)
    given = arguments(function, per_pixel)
    kept = copy.deepcopy(given)
    before = state(model)
    trained_here = [gradient.clone() for gradient in (model.last.weight.grad,)]
    function(model, **given)
    for each, value in given.items():
        if isinstance(value, Tensor | np.ndarray):
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(kept[each])), each
    assert_same(state(model), before)
    assert torch.equal(model.last.weight.grad, trained_here[0])


@pytest.mark.parametrize("jitted", [False, True])
def test_a_failure_on_the_way_leaves_the_network_as_it_was(jitted: bool) -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen.add_(1)
            raise RuntimeError("no")

    class Adapts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            return x + self.seen

    if jitted:
        scripted = torch.jit.script(Adapts())
        with unchanged(scripted):
            scripted(torch.zeros(1))
        assert float(scripted.seen) == 0
        return
    model = Fails()
    with pytest.raises(iv.InputError):
        iv.measure_invariance(model, torch.rand(2, 1, 8, 8), [0, 0], ShiftPlan.sampled(2, 1))
    assert float(model.seen) == 0


class InPlace(nn.Module):
    """The same network, that normalises in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.norm.running_mean.normal_()
        self.last = nn.Linear(4 * 8 * 8, 5)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.1) if self.in_place else (x - 0.5) / 0.1
        return self.last(F.max_pool2d(F.relu(self.norm(self.first(x))), 2).flatten(1))


def test_a_network_that_normalises_in_place_has_the_readings_of_its_twin() -> None:
    images, labels = torch.rand(40, 1, 16, 16), torch.arange(40) % 5
    plan = ShiftPlan.sampled(40, 4)
    attack = Attack("pgd", epsilon=0.02, steps=3)

    def readings(model: nn.Module) -> list[Any]:
        frames = [
            iv.measure_msb(model, images, batch_size=16),
            iv.measure_invariance(model, images, labels, plan, batch_size=16),
            iv.measure_attack(model, images, labels, attack),
            iv.measure_swaps(model, images, labels, [plan], ("avg",), batch_size=16),
        ]
        return [frame.drop(columns="reason", errors="ignore") for frame in frames]

    for mine, twin in zip(readings(InPlace(True)), readings(InPlace(False)), strict=True):
        assert mine.equals(twin)
