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
    """A module's call under way: its input with the version that it had, and for each site in it whether the site takes
    the module's whole input as it came, its output and that output's version."""

    source: Any
    version: int | None
    found: list[tuple[bool, Any, int | None]] = field(default_factory=list)


def _version(x: Any) -> int | None:
    """How often a tensor was written to in place."""
    return x._version if isinstance(x, Tensor) else None


def _is_same(x: Any, y: Any) -> bool:
    """Whether two tensors are one, or views of the same numbers in the same order."""
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return False
    return x is y or (x.data_ptr() == y.data_ptr() and x.shape == y.shape and x.stride() == y.stride())


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
        stack.append(_Frame(x if len(values) == 1 else None, _version(x)))
        result.calls[module] += 1
        if isinstance(x, Tensor):
            result.inputs[module] = x.new_empty((0, *x.shape[1:]))
            if x.dim() == 4:
                size = int(x.shape[-2]), int(x.shape[-1])
                known = result.smallest.get(module, size)
                result.smallest[module] = min(size[0], known[0]), min(size[1], known[1])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        frame = stack.pop()
        covers = False
        if len(frame.found) == 1:
            takes_all, y, version = frame.found[0]
            covers = takes_all and _is_same(y, output) and version == _version(output)
        if covers and not any(True for _ in module.parameters()):
            result.whole.add(module)
        elif frame.found:
            partial.add(module)

    def consume(site: Site, use: Use) -> None:
        result.sites.append(site)
        if stack:
            x, y = getattr(use, "x", None), getattr(use, "y", None)
            frame = stack[-1]
            takes_all = _is_same(x, frame.source) and frame.version == _version(frame.source)
            frame.found.append((takes_all, y, _version(y)))

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
