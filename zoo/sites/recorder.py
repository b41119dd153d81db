"""Watch one forward pass of any network and report its downsampling sites while their tensors are at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from invariscope.base.explained import READER, is_aside
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import Taps
from invariscope.zoo.sites.again import operated
from invariscope.zoo.sites.functions import explains, reader_of, rearranged
from invariscope.zoo.sites.rearranging import VIEWS, Rearranged, follow, space_to_depth
from invariscope.zoo.sites.replaying import Replayer
from invariscope.zoo.sites.trace import Call, Trace, cuts, mark, name_of, tensors
from invariscope.zoo.sites.unexplained import unknown_use
from invariscope.zoo.sites.uses import Dense, Sampled, Size, Use, sampled


@dataclass(frozen=True)
class Site:
    """A downsampling site of a network: ``(C, H, W) -> (C, H', W')`` with ``H' < H`` or ``W' < W``.

    ``name`` is the path of the module that downsamples, or ``path.kind`` where a module with other modules inside calls
    a function; a second use in the same forward pass is ``name#2``. ``path`` is the innermost module's.
    ``depth`` counts the sites of the forward pass. Sizes are height x width in pixels of the feature map; a strided
    convolution's input is its own dense (stride 1) output.
    ``reason`` says why the site cannot be given an MSB, where it cannot; ``explained`` how it is known what it samples:
    from the arguments of a call (``reader``), from what it does to its map (``behaviour``), or not (``no``).
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
    reason: str | None = field(default=None, compare=False)
    explained: str = field(default=READER, compare=False)

    @property
    def is_aside(self) -> bool:
        """Whether it is on a side branch, and so none of the network's own sites."""
        return is_aside(self.reason)

    def changed_from(self, other: Site) -> str:
        """In what it differs from the same site of another batch."""
        names = [field.name for field in fields(self) if field.compare]
        pairs = [(name, getattr(other, name), getattr(self, name)) for name in names]
        return ", ".join(f"{name} {before} and then {after}" for name, before, after in pairs if before != after)


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
    again = operated(site, source)
    return sampled(operator.name, source, y, taps, kernel=site.support(), stride=stride, again=again)


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

    def __init__(
        self,
        model: nn.Module,
        images: int,
        consume: Consumer,
        trace: Trace | None = None,
        replayer: Replayer | None = None,
    ) -> None:
        super().__init__()
        self._trace = trace
        self._replayer = replayer
        self._starts: dict[int, _Frame] = {}
        self._model = model
        self.watching = False
        """Whether the recorder or its consumer is at work, and not the network: then an error is not the network's."""
        self._images = images
        self._consume = consume
        self._stack: list[_Frame] = []
        self._operator: Downsample | None = None
        self._link: Sampled | None = None
        self._view: Rearranged | None = None
        self._slices: list[tuple[Tensor, Sampled, int]] = []
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
        if self._replayer is not None and self._trace is not None and self._operator is None:
            self._replayer.before(len(self._trace.calls), _writes_first(func, kwargs), args, self._trace)
        result = func(*args, **kwargs)
        # An operator is one site: what it calls inside is its own business.
        if self._operator is None and type(result) not in _NO_MAPS:
            self.watching = True
            call = self._note(func, args, kwargs, result)
            self._read(func, args, kwargs, result, call)
            self.watching = False
        return result

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> Call | None:
        """Put a call that made or changed a tensor into the trace."""
        if self._trace is None:
            return None
        made = [result] if isinstance(result, Tensor) else tensors(result)
        if not made and result is None and _writes_first(func, kwargs):
            made = [args[0]]
        given = tensors(*args, kwargs) if kwargs else tensors(*args)
        return self._trace.add(name_of(func), given, made) if made else None

    def _read(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any, call: Call | None) -> None:
        """See what one call did."""
        if self._stack and isinstance(result, (Tensor, tuple, list)):
            self._stack[-1].calls += 1
        reader = reader_of(func)
        if reader is not None:
            use = reader(result, *args, **kwargs)
        else:
            use = self._rearranged(func, args, result) or unknown_use(func, args, result)
        if call is not None:
            call.read = call.read or explains(func, reader, use)
            call.cuts = cuts(call.name, args)
            mark(call, use, self._images)
        number = self._number
        if use is not None and func is Tensor.__getitem__ and isinstance(use, Sampled):
            if self._slices and args[0] is not self._slices[0][0]:
                self._end_slices()
            self._slices.append((args[0], use, number))
        elif use is not None:
            self._found(use, number)
        elif self._link is not None and _writes(func, kwargs, (self._link.x, self._link.y), args):
            self._link = None
        if call is not None and self._replayer is not None:
            self._replay(func, args, kwargs, result, call)

    @property
    def _number(self) -> int:
        """The call that was noted last."""
        return len(self._trace.calls) - 1 if self._trace is not None else -1

    def _replay(self, func: Any, args: Any, kwargs: Any, result: Any, call: Call) -> None:
        """Take note of a call of a planned piece, and list the pieces that end with it."""
        assert self._replayer is not None
        assert self._trace is not None
        number = self._number
        if number in self._replayer.starts:
            self._starts[number] = self._stack[-1] if self._stack else _Frame(self._model, "")
        writes = _writes_first(func, kwargs)
        made = tensors(result) or [args[0]]
        for piece, use in self._replayer.step(number, func, args, kwargs, call, made, writes, self._trace):
            if self._slices:
                self._end_slices()
            self._found(use, None, self._starts[piece.calls[0]])

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
        silent = self._replayer.plan.silent if self._replayer is not None else frozenset()
        slices = [item for item in slices if item[2] not in silent]
        if not slices:
            return
        self.watching = True
        first = slices[0][1]
        phases = {use.start for _, use, _ in slices if use.stride == first.stride and use.channels == first.channels}
        if first.stride is not None and len(slices) == len(phases) == first.stride[0] * first.stride[1]:
            self._found(rearranged(first.x, first.y, first.stride), slices[0][2])
        else:
            for _, use, number in slices:
                self._found(use, number)
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
            x = args[0] if args else kwargs["x"]
            with torch._C.DisableTorchFunction():  # what is computed here is no call of the network's
                use: Use | None = operator_use(module, x, output)
            self._whole("operator", x, output, use)
        elif self._operator is None and not self._stack[-1].calls:
            use = unknown_use(module.forward, args, output)
            if use is not None:
                opaque = "TorchScript" if isinstance(module, torch.jit.ScriptModule) else "code outside of torch"
                use = replace(use, kind="unknown", reason=f"it is {opaque}, which cannot be watched")
            self._whole("opaque", args, output, use)
        self.watching = False

    def _whole(self, name: str, given: Any, output: Any, use: Use | None) -> None:
        """Put a module into the trace as one call, and what it did into the sites."""
        if self._trace is not None and tensors(output):
            call = self._trace.add(name, tensors(given), tensors(output))
            mark(call, use, self._images)
            call.read = use is not None
        if use is not None:
            self._found(use, self._number)

    def _left_opaque(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module in self._opaque and self._operator is None:
            self._stack.append(_Frame(module, self._opaque[module]))
            self._left(module, args, {}, output)
            self._stack.pop()
            if self._stack:
                self._stack[-1].calls += 1

    def _found(self, use: Use, number: int | None, frame: _Frame | None = None) -> None:
        """Report a use, of a call by its number or of a piece that began in a ``frame``, if it makes a map smaller."""
        if isinstance(use, Sampled):
            if number is not None and self._link is not None and self._link.y is use.x and _one_site(self._link, use):
                use = use.after(self._link)
            if use.stride == (1, 1):
                self._link = use
                return
        elif isinstance(use, Dense) and self._link is not None and self._link.kind == "pad" and self._link.y is use.x:
            use = use.after(self._link)
        if self._replayer is not None and self._replayer.changed:
            return
        if not use.downsamples or (self._replayer is not None and number in self._replayer.plan.silent):
            return
        reason = use.reason
        if reason is None and use.rows != self._images:
            reason = "its batch does not hold one map for each image, so that no image has its own"
        if self._replayer is not None and number in self._replayer.plan.reasons:
            reason = self._replayer.plan.reasons[number]
        frame = frame or (self._stack[-1] if self._stack else _Frame(self._model, ""))
        name = frame.path if frame.path and not any(frame.module.children()) else f"{frame.path}.{use.kind}".lstrip(".")
        if isinstance(frame.module, Downsample) and frame.path:
            name = frame.path
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name}#{self._names[name]}"
        sizes = (use.kernel, use.stride, use.channels, use.input_size, use.output_size)
        self._depth += 1
        self._consume(Site(self._depth - 1, name, frame.path, use.kind, *sizes, reason, use.explained), use)


_LINEAR = {"pad", "avg", "blur", "subsample", "aps", "lps", "tips", "ddac"}
"""What mixes pixels of a map by weights that are not those of the window's values."""


def _one_site(first: Sampled, second: Sampled) -> bool:
    """Whether what follows a link is one site with it: a low pass before a pool of the values is no part of that."""
    return second.kind in _LINEAR or {"avg", "blur"}.isdisjoint(first.kind.split("+"))


_NO_MAPS = {torch.Size, int, float, bool, str, torch.dtype, torch.device, torch.layout}
"""What a call gives that only asks for a property."""


def _only_asks(func: Any) -> bool:
    """Whether a call only asks for an attribute or a size."""
    return getattr(func, "__name__", "") in ("__get__", "__len__", "size", "dim", "is_floating_point")


def _writes(func: Any, kwargs: Mapping[str, Any], tensors: Sequence[Tensor], args: Sequence[Any]) -> bool:
    """Whether a call may change one of the tensors: ``add_``, ``+=``, ``x[...] =``, ``relu(x, inplace=True)``."""
    name = getattr(func, "__name__", "")
    assigns = name == "__setitem__" or name.startswith("__i") or name == name.rstrip("_") + "_"
    return (assigns or bool(kwargs.get("inplace"))) and any(arg is tensor for arg in args for tensor in tensors)


def _writes_first(func: Any, kwargs: Mapping[str, Any]) -> bool:
    """Whether a call writes to its first argument."""
    name = getattr(func, "__name__", "")
    in_place = name.startswith("__i") and name.endswith("__") and name not in ("__index__", "__int__", "__invert__")
    return name == "__setitem__" or in_place or (name[-1:] == "_" and name[-2:] != "__") or bool(kwargs.get("inplace"))
