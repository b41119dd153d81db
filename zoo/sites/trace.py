"""The calls of one forward pass as a graph of numbers: what came of what, without holding on to a tensor."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from invariscope.zoo.sites.uses import Sampled, Use
from invariscope.zoo.sites.vocabulary import CREATING, LIKE

Shape = tuple[int, ...]


class Value(NamedTuple):
    """A tensor of the pass. ``carries``: it holds values (real, quantised or complex) and no indices or masks.

    ``constant``: nothing of it was computed of the images.
    """

    shape: Shape
    carries: bool
    real: bool
    constant: bool

    @property
    def numel(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(slots=True)
class Call:
    """A call of a function: values by their numbers, and what was read of it.

    ``kind`` and ``reason`` are those of a site; ``link`` is a part of one at stride 1; ``read`` says that the function
    has a reader, so that it is explained whatever it did. ``spatial``: a convolution with a kernel above 1 x 1.
    """

    name: str
    args: tuple[int, ...]
    results: tuple[int, ...]
    kind: str | None = None
    reason: str | None = None
    link: bool = False
    read: bool = False
    guess: bool = False
    """Whether the site's batch is not that of the images, so that it may be one part of another."""
    cuts: bool = False
    """Whether it only cuts a part out of a map, at step 1."""

    @property
    def is_site(self) -> bool:
        """Whether a site, measured or not, was read of the call."""
        return self.kind is not None


@dataclass
class Trace:
    """The numbers of a pass. Tensors are known by weak references, so that they die when the network lets go of them.

    ``images`` are the values that the network was given, and ``outputs`` those that it returned: by its keys or places.
    """

    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    outputs: dict[Any, list[int]] = field(default_factory=dict)
    _known: dict[int, tuple[weakref.ref[Tensor], int]] = field(default_factory=dict)

    def number(self, tensor: Tensor) -> int:
        """The number of a tensor; a new one for what the pass did not make."""
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        return self.new(tensor, True)

    def new(self, tensor: Tensor, constant: bool = False) -> int:
        """A new number for a tensor that was made, or written to."""
        number, dtype = len(self.values), tensor.dtype
        real = dtype.is_floating_point or tensor.is_quantized
        self.values.append(Value(tensor.shape, real or dtype.is_complex, real, constant))
        self._known[id(tensor)] = (weakref.ref(tensor), number)
        return number

    def add(self, name: str, args: Sequence[Tensor], results: Sequence[Tensor]) -> Call:
        """Note a call."""
        numbers = () if name in CREATING else tuple(map(self.number, args))
        constant = True
        for number in numbers[:1] if name in LIKE else numbers:
            if not self.values[number].constant:
                constant = False
                break
        call = Call(name, numbers, tuple([self.new(tensor, constant) for tensor in results]))
        self.calls.append(call)
        return call

    def begin(self, arguments: Any) -> None:
        """Note the images."""
        self.images = [self.new(tensor) for tensor in tensors(arguments)]

    def end(self, output: Any) -> None:
        """Note what the network returned."""
        parts: Any = enumerate(output) if isinstance(output, (list, tuple)) else [(0, output)]
        if isinstance(output, Mapping):
            parts = output.items()
        self.outputs = {key: [self.number(tensor) for tensor in tensors(part)] for key, part in parts}


def tensors(*items: Any) -> list[Tensor]:
    """The tensors in arguments or results: alone, in lists, in mappings."""
    found: list[Tensor] = []
    for item in items:
        if type(item) in _PLAIN:
            continue
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            if item:
                found += tensors(*item)
        elif isinstance(item, Mapping):
            found += tensors(*item.values())
    return found


_PLAIN = {type(None), int, float, bool, str, torch.dtype, torch.device, torch.Size, slice}
"""What holds no tensor, of what most calls are given."""


@cache
def name_of(func: Any) -> str:
    """The plain name of a function: of a method, of an operator of a graph, of a property that is asked for."""
    if isinstance(func, torch._ops.OpOverload):
        func = func.overloadpacket
    name = str(getattr(func, "__name__", ""))
    if name == "__get__":
        name = str(getattr(func.__self__, "__name__", ""))
    bare = name.strip("_")
    for prefix in ("fft_", "linalg_"):
        bare = bare.removeprefix(prefix)
    return bare[1:] if name.startswith("__") and bare[:1] in "ir" and bare[1:] in _REFLECTED else bare


_REFLECTED = {"add", "sub", "mul", "truediv", "div", "matmul", "pow"}


def mark(call: Call, use: Use | None, images: int) -> None:
    """Note on a call what was read of it, in a pass over so many images."""
    if use is None:
        return
    if use.downsamples:
        call.kind, call.reason = use.kind, use.reason
        call.guess = use.rows != images
    elif isinstance(use, Sampled) and use.stride == (1, 1):
        call.link = True


_CUTTING = {"slice", "getitem", "narrow", "split", "chunk", "tensor_split"}


def cuts(name: str, args: Sequence[Any]) -> bool:
    """Whether a call only cuts a part out of a tensor, with a step of 1."""
    if name not in _CUTTING:
        return False
    if name == "slice":
        return len(args) < 5 or args[4] == 1
    if name != "getitem":
        return True
    parts = args[1] if isinstance(args[1], tuple) else (args[1],)
    return all(part is Ellipsis or (isinstance(part, slice) and part.step in (None, 1)) for part in parts)
