"""Watch one forward pass of any network and report its downsampling sites, in order, while their tensors are at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.errors import InputError, ModelError
from zoo.operators.base import Downsample
from zoo.sampling import Taps
from zoo.sites.functions import READERS, pair
from zoo.sites.uses import Sampled, Size, Use, map_size, sampled, unmeasured


@dataclass(frozen=True)
class Site:
    """A downsampling site of a network: ``(C, H, W) -> (C, H', W')`` with ``H' < H`` or ``W' < W``.

    ``name`` is the path of the module that downsamples, or ``path.function`` where a module with other modules inside
    calls a function; a second use in the same forward pass is ``name#2``. ``path`` is the innermost module's. Sizes are
    height x width in pixels of the feature map; a strided convolution's input is its own dense (stride 1) output.
    ``reason`` says why the site cannot be given an MSB, where it cannot.
    """

    depth: int
    name: str
    path: str
    kind: str
    kernel: Size | None
    stride: Size | None
    channels: int
    input_size: Size
    output_size: Size
    reason: str | None = None


Consumer = Callable[[Site, Use], None]


def operator_use(operator: Downsample, x: Tensor, y: Tensor) -> Use:
    """The use of one of this project's operators, whatever it does inside. The choice of phase is the one it made."""
    selection = operator.selection if operator.shares_selection else None

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        return operator.sampling(x[rows], outputs, selection=None if selection is None else selection[rows])

    stride = operator.stride, operator.stride
    kernel = [int(getattr(operator, name)) for name in ("kernel", "m", "blur_size") if hasattr(operator, name)]
    if len(kernel) != 1 or operator.shares_selection:
        # Two filters in a row (max then blur, blur then a phase) reach as far as both together.
        extent = sum(size - 1 for size in kernel) + (operator.stride if operator.shares_selection else 1)
        kernel = [extent if kernel else operator.stride]
    return sampled(operator.name, x, y, taps, kernel=pair(kernel[0]), stride=stride)


class Recorder(TorchFunctionMode):
    """Follows the module stack by hooks and the calls of torch's functions by its override mode.

    Use it as a context around one forward pass of ``model`` on ``images`` inputs: ``consume(site, use)`` is called at
    each downsampling site, right after it. Nothing of it is left on the model after the context, whatever happens.
    """

    def __init__(self, model: nn.Module, images: int, consume: Consumer) -> None:
        super().__init__()
        self._model = model
        self._images = images
        self._consume = consume
        self._stack: list[tuple[nn.Module, str]] = []
        self._opaque = 0
        self._link: Sampled | None = None
        self._names: Counter[str] = Counter()
        self._depth = 0
        self._hooks = ExitStack()

    def __enter__(self) -> Recorder:
        with ExitStack() as hooks:
            for path, module in self._model.named_modules():
                hooks.callback(module.register_forward_pre_hook(self._entering(path)).remove)
                hooks.callback(module.register_forward_hook(self._leave).remove)
            super().__enter__()
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._hooks.close()
            self._link = None

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._opaque:
            return result
        reader = _reader(func)
        if reader is not None:
            use = reader(result, *args, **kwargs)
            if use is not None:
                self._found(use, func.__name__.strip("_"))
        elif self._link is not None and _in_place(func, kwargs) and any(
            arg is self._link.x or arg is self._link.y for arg in args
        ):
            self._link = None
        return result

    def _entering(self, path: str) -> Callable[[nn.Module, Any], None]:
        def enter(module: nn.Module, args: Any) -> None:
            self._stack.append((module, path))
            self._opaque += isinstance(module, Downsample)

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        while self._stack and self._stack.pop()[0] is not module:
            continue
        if not isinstance(module, Downsample):
            return
        self._opaque = sum(isinstance(outer, Downsample) for outer, _ in self._stack)
        if not self._opaque:
            self._stack.append((module, self._path_of(module)))
            try:
                self._opaque = 1
                self._found(operator_use(module, args[0], output), module.name)
            finally:
                self._opaque = 0
                self._stack.pop()
