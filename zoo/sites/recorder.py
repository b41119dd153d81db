"""Watch one forward pass of any network and report its downsampling sites while their tensors are at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo.errors import InputError, ModelError
from zoo.operators.base import Downsample
from zoo.sampling import Taps
from zoo.sites.functions import READERS
from zoo.sites.uses import Sampled, Size, Use, sampled


@dataclass(frozen=True)
class Site:
    """A downsampling site of a network: ``(C, H, W) -> (C, H', W')`` with ``H' < H`` or ``W' < W``.

    ``name`` is the path of the module that downsamples, or ``path.kind`` where a module with other modules inside calls
    a function; a second use in the same forward pass is ``name#2``. ``path`` is the innermost module's.
    Sizes are height x width in pixels of the feature map; a strided convolution's input is its own dense (stride 1)
    output.
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


def operator_use(operator: Downsample, x: Tensor, y: Tensor) -> Sampled:
    """The use of one of this project's operators as a whole, with the choice of phase that its forward pass made."""
    selection = operator.selection if operator.shares_selection else None

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        return operator.sampling(x[rows], outputs, selection=None if selection is None else selection[rows])

    # Filters in a row (max then blur, blur then a phase) reach as far as all of them together.
    filters = {name: int(getattr(operator, name)) for name in ("kernel", "m", "blur_size") if hasattr(operator, name)}
    first = 1 if {"kernel", "m"} & set(filters) or operator.name == "subsample" else operator.stride
    kernel = first + sum(size - 1 for size in filters.values())
    stride = operator.stride, operator.stride
    return sampled(operator.name, x, y, taps, kernel=(kernel, kernel), stride=stride)


class Recorder(TorchFunctionMode):
    """Follows the module stack by hooks and the calls of torch's functions by its override mode.

    Use it as a context around one forward pass of ``model`` on ``images`` inputs: ``consume(site, use)`` is called at
    each downsampling site, right after it. Nothing of it is left on the model after the context, whatever happens.
    """

    def __init__(self, model: nn.Module, images: int, consume: Consumer) -> None:
        super().__init__()
        self._model = model
        self.watching = False
        """Whether the recorder or its consumer is at work, and not the network: then an error is not the network's."""
        self._images = images
        self._consume = consume
        self._stack: list[tuple[nn.Module, str]] = []
        self._operator: Downsample | None = None
        self._link: Sampled | None = None
        self._names: Counter[str] = Counter()
        self._depth = 0
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as hooks:
            for path, module in self._model.named_modules():
                hooks.callback(module.register_forward_pre_hook(partial(self._enter, path)).remove)
                leave = module.register_forward_hook(self._leave, with_kwargs=True, always_call=True)
                hooks.callback(leave.remove)
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
        # An operator is one site: what it calls inside is its own business.
        if self._operator is None:
            self.watching = True
            reader = READERS.get(func)
            use = reader(result, *args, **kwargs) if reader else None
            if use is not None:
                self._found(use)
            elif self._link is not None and _writes(func, kwargs, (self._link.x, self._link.y), args):
                self._link = None
            self.watching = False
        return result

    def _enter(self, path: str, module: nn.Module, args: Any) -> None:
        self._stack.append((module, path))
        if self._operator is None and isinstance(module, Downsample):
            self._operator = module

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        try:
            if module is self._operator and output is not None:
                self.watching = True
                self._found(operator_use(module, args[0] if args else kwargs["x"], output))
                self.watching = False
        finally:
            if module is self._operator:
                self._operator = None
            self._stack.pop()

    def _found(self, use: Use) -> None:
        if isinstance(use, Sampled):
            if self._link is not None and self._link.y is use.x:
                use = use.after(self._link)
            if use.stride == (1, 1):
                self._link = use
                return
        if not use.downsamples:
            return
        reason = use.reason
        if reason is None and use.rows != self._images:
            reason = f"its batch holds {use.rows} maps for {self._images} images, so that no image has its own"
        module, path = self._stack[-1] if self._stack else (self._model, "")
        name = path if path and not any(module.children()) else f"{path}.{use.kind}".lstrip(".")
        if isinstance(module, Downsample) and path:
            name = path
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}#{self._names[name]}"
        sizes = (use.kernel, use.stride, use.channels, use.input_size, use.output_size)
        self._depth += 1
        self._consume(Site(self._depth - 1, name, path, use.kind, *sizes, reason), use)


def _writes(func: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor], args: Sequence[Any]) -> bool:
    """Whether a call may change one of the tensors: ``add_``, ``+=``, ``x[...] =``, ``relu(x, inplace=True)``."""
    name = getattr(func, "__name__", "")
    assigns = name == "__setitem__" or name.startswith("__i") or name == name.rstrip("_") + "_"
    return (assigns or bool(kwargs.get("inplace"))) and any(arg is tensor for arg in args for tensor in tensors)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; training flags and random states are afterwards what they were."""
    flags = [(module, module.training) for module in model.modules()]
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    try:
        model.eval()
        with torch.random.fork_rng(sorted(devices)), torch.no_grad():
            yield
    finally:
        for module, flag in flags:
            module.training = flag


def record(model: nn.Module, inputs: Tensor | tuple[Any, ...], consume: Consumer) -> Any:
    """Run ``model`` once, in evaluation mode and without gradients; call ``consume(site, use)`` at each of its sites.

    ``inputs`` is a batch of images, or the tuple of all the model's arguments, images first. Sites that cannot be
    measured come too, with their reason. Returns the model's output.

    Raises:
        ModelError: when the forward pass fails.
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    recorder = Recorder(model, len(arguments[0]), consume)
    try:
        with _untouched(model), recorder:
            return model(*arguments)
    except InputError:
        raise
    except Exception as error:
        if recorder.watching:
            raise
        shape = " x ".join(str(size) for size in arguments[0].shape)
        line = " ".join(str(error).split())[:300]
        raise ModelError(
            f"the network fails on a batch of images {shape}: {line} (check the images' size and channels)"
        ) from error


def find_sites(model: nn.Module, example: Tensor | tuple[Any, ...]) -> list[Site]:
    """The downsampling sites of any network, in the order of its forward pass, found in one pass over ``example``.

    Found are ``max``, ``avg`` (pooling modules and functions), ``conv`` (strided convolutions, any kind), ``blur``
    (depthwise strided convolutions with one fixed averaging filter), ``subsample`` (``x[..., ::s, ::s]``) and this
    project's operators; stride-1 pooling or blur and padding directly before one of them are parts of it. What makes
    maps smaller in another way is listed with the reason why it has no MSB. Global pooling is no site.

    Raises:
        ModelError: when the forward pass fails on ``example``.
    """
    sites: list[Site] = []
    record(model, example, lambda site, use: sites.append(site))
    return sites
