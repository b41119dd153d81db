"""What surgery must know of a network before it cuts: its sites, and how each module was used in one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.zoo.sites import Site, Use, record
from invariscope.zoo.surgery.geometry import Size


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
class _Call:
    """A module's call: its input with the version that it had, the same of its output once there is one, and for each
    site in it whether the site takes the whole input as it came, with the site's output and that output's version."""

    module: nn.Module
    source: Any
    version: int | None
    output: Any = None
    output_version: int | None = None
    found: list[tuple[bool, Any, int | None]] = field(default_factory=list)

    def add(self, use: Use) -> None:
        x, y = getattr(use, "x", None), getattr(use, "y", None)
        takes_all = _is_same(x, self.source) and self.version == _version(self.source)
        self.found.append((takes_all, y, _version(y)))

    @property
    def is_site(self) -> bool:
        """Whether the call was one site and nothing else."""
        if len(self.found) != 1:
            return False
        takes_all, y, version = self.found[0]
        return takes_all and _is_same(y, self.output) and version == self.output_version


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
    modules = dict(model.named_modules())
    stack: list[_Call] = []
    ended: list[_Call] = []
    partial: set[nn.Module] = set()

    def settle() -> None:
        """Judge the call that ended last: its last site may be reported a little later than its end."""
        while ended:
            call = ended.pop()
            if call.is_site and not any(True for _ in call.module.parameters()):
                result.whole.add(call.module)
            elif call.found:
                partial.add(call.module)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        settle()
        values = [*args, *kwargs.values()]
        x = values[0] if values else None
        stack.append(_Call(module, x if len(values) == 1 else None, _version(x)))
        result.calls[module] += 1
        if isinstance(x, Tensor):
            result.inputs[module] = x.new_empty((0, *x.shape[1:]))
            if x.dim() == 4:
                size = int(x.shape[-2]), int(x.shape[-1])
                known = result.smallest.get(module, size)
                result.smallest[module] = min(size[0], known[0]), min(size[1], known[1])

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        settle()
        call = stack.pop()
        call.output, call.output_version = output, _version(output)
        ended.append(call)

    def consume(site: Site, use: Use) -> None:
        result.sites.append(site)
        for call in (*stack[-1:], *ended):
            if call.module is modules[site.path]:
                call.add(use)
                return

    def again() -> None:
        for known in (result.sites, result.calls, result.inputs, result.smallest, result.whole, partial, ended):
            known.clear()

    with ExitStack() as hooks:
        for module in nn.Module.modules(model):
            if isinstance(module, torch.jit.ScriptModule):
                continue
            hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        result.output = shapes(record(model, example, consume, again=again))
    settle()
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
