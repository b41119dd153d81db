"""What surgery must know of a network before it cuts: its sites, and how each module was used in one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from zoo.sites import Site, Use, record
from zoo.surgery.geometry import Size


@dataclass
class Survey:
    """One forward pass of a network.

    ``whole`` holds the modules that are a site and nothing else: one map in, the same site's map out, no parameters.
    ``inputs`` holds each module's last first argument's shape, data type and device (as an empty tensor), and
    ``smallest`` the smallest map that it was given.
    """

    sites: list[Site] = field(default_factory=list)
    calls: Counter[nn.Module] = field(default_factory=Counter)
    inputs: dict[nn.Module, Tensor] = field(default_factory=dict)
    smallest: dict[nn.Module, Size] = field(default_factory=dict)
    whole: set[nn.Module] = field(default_factory=set)
    output: Any = None


@dataclass
class _Frame:
    module: nn.Module
    source: Any
    found: list[Use] = field(default_factory=list)


def survey(model: nn.Module, example: Tensor | tuple[Any, ...]) -> Survey:
    """Run ``model`` once, in evaluation mode and without a trace on it.

    Raises:
        ModelError: when the forward pass fails.
    """
    result = Survey()
    stack: list[_Frame] = []
    partial: set[nn.Module] = set()

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [*args, *kwargs.values()]
        x = values[0] if values else None
        stack.append(_Frame(module, x if len(values) == 1 else None))
        result.calls[module] += 1
        if isinstance(x, Tensor):
            result.inputs[module] = x.new_empty((0, *x.shape[1:]))
            if x.dim() == 4:
                size = int(x.shape[-2]), int(x.shape[-1])
                known = result.smallest.get(module, size)
                result.smallest[module] = min(size[0], known[0]), min(size[1], known[1])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = stack.pop()
        uses = frame.found
        is_site = len(uses) == 1 and getattr(uses[0], "x", None) is frame.source and frame.source is not None
        if is_site and getattr(uses[0], "y", None) is output and not any(True for _ in module.parameters()):
            result.whole.add(module)
        elif uses:
            partial.add(module)

    def consume(site: Site, use: Use) -> None:
        result.sites.append(site)
        if stack:
            stack[-1].found.append(use)

    with ExitStack() as hooks:
        for module in model.modules():
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        result.output = shapes(record(model, example, consume))
    result.whole -= partial
    return result


def shapes(output: Any) -> Any:
    """The shapes of the tensors in a network's output, in its structure of dicts, lists and tuples."""
    if isinstance(output, Tensor):
        return tuple(output.shape)
    if isinstance(output, Mapping):
        return {key: shapes(value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return [shapes(value) for value in output]
    return type(output).__name__
