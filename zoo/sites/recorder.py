"""Watch one forward pass of any network and report its downsampling sites while their tensors are at hand."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from invariscope.base.errors import InputError, ModelError
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import Taps
from invariscope.zoo.sites.functions import reader_of, rearranged, unknown_use
from invariscope.zoo.sites.rearranging import VIEWS, Rearranged, follow, space_to_depth
from invariscope.zoo.sites.uses import Sampled, Size, Use, sampled
from invariscope.zoo.unchanged import unchanged


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
    """The use of one of this project's operators as a whole, with the choice of phase that its forward pass made.

    Of one that filters its map first, it is the use of what samples the filtered map.
    """
    site, source = operator.site, operator.site_input(x)
    selection = site.selection if site.shares_selection else None

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        return site.sampling(source[rows], outputs, selection=None if selection is None else selection[rows])

    stride = operator.stride, operator.stride
    return sampled(operator.name, source, y, taps, kernel=site.support(), stride=stride)


@dataclass
class _Frame:
    """A module whose forward is running, and how many of torch's functions it has called."""

    module: nn.Module
    path: str
    calls: int = 0


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
        self._stack: list[_Frame] = []
        self._operator: Downsample | None = None
        self._link: Sampled | None = None
        self._view: Rearranged | None = None
        self._slices: list[tuple[Tensor, Sampled]] = []
        self._opaque: dict[nn.Module, str] = {}
        self._names: Counter[str] = Counter()
        self._depth = 0
        self._hooks = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as hooks:
            for path, module in self._model.named_modules():
                if isinstance(module, torch.jit.ScriptModule):
                    self._opaque.setdefault(module, path)
                    continue
                hooks.callback(module.register_forward_pre_hook(partial(self._enter, path)).remove)
                leave = module.register_forward_hook(self._leave, with_kwargs=True, always_call=True)
                hooks.callback(leave.remove)
            if self._opaque:
                # TorchScript modules take no hooks of their own; what they call inside is seen by nobody.
                hooks.callback(nn.modules.module.register_module_forward_hook(self._left_opaque).remove)
            super().__enter__()
            self._hooks = hooks.pop_all()
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            super().__exit__(*exception)
        finally:
            self._hooks.close()
            self._link = self._view = None
            self._slices.clear()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._slices and func is not Tensor.__getitem__ and not _only_asks(func):
            self._end_slices()
        result = func(*args, **kwargs)
        # An operator is one site: what it calls inside is its own business.
        if self._operator is None:
            self.watching = True
            self._read(func, args, kwargs, result)
            self.watching = False
        return result

    def _read(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        """See what one call did."""
        if self._stack and isinstance(result, (Tensor, tuple, list)):
            self._stack[-1].calls += 1
        reader = reader_of(func)
        if reader is not None:
            use = reader(result, *args, **kwargs)
        else:
            use = self._rearranged(func, args, result) or unknown_use(func, args, result)
        if use is not None and func is Tensor.__getitem__ and isinstance(use, Sampled):
            if self._slices and args[0] is not self._slices[0][0]:
                self._end_slices()
            self._slices.append((args[0], use))
        elif use is not None:
            self._found(use)
        elif self._link is not None and _writes(func, kwargs, (self._link.x, self._link.y), args):
            self._link = None

    def _rearranged(self, func: Any, args: Sequence[Any], result: Any) -> Use | None:
        """Space-to-depth, when a chain of views has come to it."""
        if func not in VIEWS:
            return None
        self._view = follow(func, args, result, self._view)
        moved = space_to_depth(self._view) if self._view is not None else None
        if self._view is None or moved is None:
            return None
        stride, channels_last = moved
        x, self._view = self._view.x, None
        return rearranged(x.permute(0, 3, 1, 2) if channels_last else x, result, stride)

    def _end_slices(self) -> None:
        """List the slices just taken of one map: each is subsampling; but all phases together drop no pixel."""
        slices, self._slices = self._slices, []
        self.watching = True
        first = slices[0][1]
        phases = {use.start for _, use in slices if use.stride == first.stride and use.channels == first.channels}
        if first.stride is not None and len(slices) == len(phases) == first.stride[0] * first.stride[1]:
            self._found(rearranged(first.x, first.y, first.stride))
        else:
            for _, use in slices:
                self._found(use)
        self.watching = False

    def _enter(self, path: str, module: nn.Module, args: Any) -> None:
        if self._slices:
            self._end_slices()
        self._stack.append(_Frame(module, path))
        if self._operator is None and isinstance(module, Downsample):
            self._operator = module

    def _leave(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        try:
            if output is not None:
                self._left(module, args, kwargs, output)
        finally:
            if module is self._operator:
                self._operator = None
            frame = self._stack.pop()
            if self._stack:
                self._stack[-1].calls += frame.calls

    def _left(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """See what a module did as a whole: an operator, or one that called none of torch's functions."""
        if self._slices:
            self._end_slices()
        self.watching = True
        if module is self._operator:
            self._stack[-1].calls += 1
            self._found(operator_use(module, args[0] if args else kwargs["x"], output))
        elif self._operator is None and not self._stack[-1].calls:
            use = unknown_use(module.forward, args, output)
            if use is not None:
                opaque = "TorchScript" if isinstance(module, torch.jit.ScriptModule) else "code outside of torch"
                self._found(replace(use, kind="unknown", reason=f"it is {opaque}, which cannot be watched"))
        self.watching = False

    def _left_opaque(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module in self._opaque and self._operator is None:
            self._stack.append(_Frame(module, self._opaque[module]))
            self._left(module, args, {}, output)
            self._stack.pop()
            if self._stack:
                self._stack[-1].calls += 1

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
        module, path = (self._stack[-1].module, self._stack[-1].path) if self._stack else (self._model, "")
        name = path if path and not any(module.children()) else f"{path}.{use.kind}".lstrip(".")
        if isinstance(module, Downsample) and path:
            name = path
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}#{self._names[name]}"
        sizes = (use.kernel, use.stride, use.channels, use.input_size, use.output_size)
        self._depth += 1
        self._consume(Site(self._depth - 1, name, path, use.kind, *sizes, reason), use)


def _only_asks(func: Any) -> bool:
    """Whether a call only asks for an attribute or a size."""
    return getattr(func, "__name__", "") in ("__get__", "__len__", "size", "dim", "is_floating_point")


def _writes(func: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor], args: Sequence[Any]) -> bool:
    """Whether a call may change one of the tensors: ``add_``, ``+=``, ``x[...] =``, ``relu(x, inplace=True)``."""
    name = getattr(func, "__name__", "")
    assigns = name == "__setitem__" or name.startswith("__i") or name == name.rstrip("_") + "_"
    return (assigns or bool(kwargs.get("inplace"))) and any(arg is tensor for arg in args for tensor in tensors)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the network and the random states are afterwards what they were."""
    tensors = chain(model.parameters(), model.buffers())
    devices = {tensor.device.index for tensor in tensors if tensor.device.type == "cuda"}
    with unchanged(model), torch.random.fork_rng(sorted(devices)), torch.no_grad():
        # Not by eval(), which a network may have made do more, and which exported graphs refuse.
        for module in model.modules():
            module.training = False
        yield


def _eager() -> AbstractContextManager[Any]:
    """Compiled parts run as the code that they stand for; nothing where nothing has been compiled in this process."""
    # Asking would import the compiler, which takes seconds.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def record(model: nn.Module, inputs: Tensor | tuple[Any, ...], consume: Consumer) -> Any:
    """Run ``model`` once, in evaluation mode and without gradients; call ``consume(site, use)`` at each of its sites.

    ``inputs`` is a batch of images, or the tuple of all the model's arguments, images first. Sites that cannot be
    measured come too, with their reason. Returns the model's output.

    Raises:
        ModelError: when the forward pass fails, or the network is TorchScript.
    """
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    arguments = tuple(one.clone() if isinstance(one, Tensor) else one for one in given)  # which it may write to
    # A network that torch.compile has wrapped is watched as it was before: compiled code calls nothing that is seen.
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the network is TorchScript, whose inside cannot be watched: give the Python module that it was made from"
        )
    recorder = Recorder(model, len(arguments[0]), consume)
    try:
        with _untouched(model), _eager(), recorder:
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
    (depthwise strided convolutions with one fixed averaging filter), ``subsample`` (``x[..., ::s, ::s]``, channels last
    too, and nearest-neighbour reduction) and this project's operators; stride-1 pooling or blur and padding directly
    before one of them are parts of it. Global pooling is no site, nor is a stride on a map of one pixel.

    Listed with the reason why it has no MSB is what makes maps smaller in another way. ``space_to_depth``
    (``pixel_unshuffle``, patch merging by slices of all phases or by reshaping) is such a site: it drops no pixel, so
    that nothing is sampled, and a convolution at stride 1 after it is none. Compiled networks and traced or exported
    graphs are watched as the code that they stand for; a TorchScript layer that makes a map smaller is listed.

    Raises:
        ModelError: when the forward pass fails on ``example``, or the network as a whole is TorchScript.
    """
    sites: list[Site] = []
    record(model, example, lambda site, use: sites.append(site))
    return sites
