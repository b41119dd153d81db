"""What a network costs: parameters, multiply-adds, time of a pass and of a training step, beside a reference's."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from invariscope.base.errors import DataError, ModelError
from invariscope.collectors.measure.passes import evaluating, in_mode
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.loading import build_model
from invariscope.zoo.model_string import ModelString
from invariscope.zoo.operators.base import Downsample

REFERENCE = "max"
"""Operator of the network that each is compared with, all else equal."""

WARM_UP = 2
"""Pairs of passes before those that are timed."""

QUARTILES = (0.25, 0.5, 0.75)


class Times(NamedTuple):
    """Seconds of passes, one after the other: of the network, and of the reference in turn with it."""

    own: np.ndarray
    reference: np.ndarray | None


def measure_cost(
    model: nn.Module, images: Given, reference: nn.Module | None = None, *, repeats: int = 20, name: str = REFERENCE
) -> pd.DataFrame:
    """Parameters, multiply-adds per image, and seconds per pass of the batch ``images (N, C, H, W)``: a row each.

    No bar is shown: it would be timed.

    ``latency`` is a forward pass in evaluation mode, ``training_step`` forward, backward and a step of plain gradient
    descent, in training mode, both in float32 and by the wall clock. Every pass is timed beside one of the reference,
    whichever first by turns, and ``relative`` is the median of the ratios of the pairs; ``low`` and ``high`` are
    quartiles. Without a reference there are no ratios. Parameters and multiply-adds are the same on every machine;
    timings are those of this one, and no two runs have the same. The networks are afterwards what they were.

    Args:
        repeats: pairs of passes timed, after two that are not.
        name: operator of the reference.

    Raises:
        DataError: no images, or fewer than one repeat.
        ModelError: the network returns something other than a tensor.
    """
    found, _ = given(model, images)
    images = found if isinstance(found, Tensor) else found[:]
    if images.ndim != 4 or not len(images) or repeats < 1:
        raise DataError(f"cost: images {tuple(images.shape)} and {repeats} repeats: give a batch and at least one")
    networks = [model] if reference is None else [model, reference]
    rows = [
        _count_row("parameters", "parameters", [_parameters(network) for network in networks]),
        _count_row("multiply_adds", "multiply-adds", [count_multiply_adds(each, images[:1]) for each in networks]),
    ]
    for quantity, prepare in (("latency", _pass), ("training_step", _step)):
        rows.append({"quantity": quantity, "unit": "s", **_timed(networks, images, repeats, prepare)})
    height, width = images.shape[2:]
    shared: dict[str, Any] = {
        "input_size": f"{height}x{width}",
        "batch_size": len(images),
        "reference": name if reference else None,
    }
    return pd.DataFrame(rows).assign(**shared)


def reference_model(model: str, operator: str = REFERENCE) -> str | None:
    """The model string with another operator; None where the network takes no ``operator=``, as those of timm."""
    parts = ModelString.parse(model)
    if parts.scheme != "zoo" and "operator" not in parts.arguments:
        return None
    return str(ModelString(parts.scheme, parts.target, {**parts.arguments, "operator": operator}))


def measure_model_cost(model: str, images: Tensor, folder: Any, *, repeats: int, device: str) -> pd.DataFrame:
    """:func:`measure_cost` of new networks of a model string and of its reference, with initial weights from seed 0."""
    other = reference_model(model)
    built = []
    for text in (model,) if other is None else (model, other):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            built.append(build_model(text, folder).to(device))
    return measure_cost(built[0], images.to(device), *built[1:], repeats=repeats)


def count_multiply_adds(model: nn.Module, images: Tensor) -> int:
    """Multiply-adds of a forward pass in evaluation mode.

    Convolutions and matrix products as torch counts them (two operations are one multiply-add); downsampling operators
    of this package by :meth:`multiply_adds`. Pooling, norms and activations of others count 0.

    Raises:
        ModelError: as :func:`measure_cost`.
    """
    own: list[int] = []
    inside: list[int] = []
    started: dict[int, int] = {}

    def before(module: Downsample, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        started[id(module)] = counter.get_total_flops()

    def after(module: Downsample, given: tuple[Any, ...], named: dict[str, Any], output: Tensor) -> None:
        x = given[0]
        chosen = (given[1] if len(given) > 1 else named.get("selection")) is not None
        own.append(len(x) * module.multiply_adds((x.shape[-2], x.shape[-1]), chosen=chosen))
        inside.append(counter.get_total_flops() - started.pop(id(module)))

    every = [module for module in nn.Module.modules(model) if isinstance(module, Downsample)]
    parts = {part for module in every for part in nn.Module.modules(module) if part is not module}
    operators = [module for module in every if module not in parts]
    hooks = []
    counter = FlopCounterMode(display=False)
    try:
        for module in operators:
            hooks.append(module.register_forward_pre_hook(before, with_kwargs=True))
            hooks.append(module.register_forward_hook(after, with_kwargs=True))
        with evaluating(model), torch.no_grad(), counter:
            _checked(model(images.clone()))
    finally:
        for hook in hooks:
            hook.remove()
    return (counter.get_total_flops() - sum(inside)) // 2 + sum(own)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _count_row(quantity: str, unit: str, values: list[int]) -> dict[str, Any]:
    relative = values[0] / values[1] if len(values) == 2 and values[1] else None
    return {"quantity": quantity, "unit": unit, "value": float(values[0]), "relative": relative}


def _timed(
    networks: list[nn.Module], images: Tensor, repeats: int, prepare: Callable[[nn.Module, Tensor], Callable[[], None]]
) -> dict[str, Any]:
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(in_mode(network, training=prepare is _step))
        times = in_turn([prepare(network, images) for network in networks], repeats, images.device)
    low, middle, high = np.quantile(times.own, QUARTILES)
    row: dict[str, Any] = {"value": middle, "low": low, "high": high, "repeats": repeats, "device": _device(images)}
    if times.reference is not None:
        ends = np.quantile(times.own / times.reference, QUARTILES)
        row |= dict(zip(("relative_low", "relative", "relative_high"), ends, strict=True))
    return row | {"threads": torch.get_num_threads()}


def in_turn(calls: list[Callable[[], None]], repeats: int, device: torch.device) -> Times:
    """Seconds of each call, in turn, the first of a pair by turns the second; after a warm-up."""
    seconds: list[list[float]] = [[] for _ in calls]
    for repeat in range(-WARM_UP, repeats):
        for i in range(len(calls)) if repeat % 2 == 0 else reversed(range(len(calls))):
            _wait(device)
            start = time.perf_counter()
            calls[i]()
            _wait(device)
            if repeat >= 0:
                seconds[i].append(time.perf_counter() - start)
    own, *others = map(np.array, seconds)
    return Times(own, others[0] if others else None)


def _pass(model: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        with torch.inference_mode():
            _checked(model(images.clone()))

    return run


def _step(model: nn.Module, images: Tensor) -> Callable[[], None]:
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # A rate of 0 does the same arithmetic and leaves the weights where they are.
    optimizer = torch.optim.SGD(learned, lr=0.0) if learned else None

    def run() -> None:
        loss = _checked(model(images.clone())).square().mean()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


def _checked(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise ModelError(f"the network returns a {type(output).__name__}: cost needs one that returns a tensor")
    return output


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _device(images: Tensor) -> str:
    if images.device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(images.device)})"
    return images.device.type
