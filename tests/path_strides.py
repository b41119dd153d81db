"""The product of strides along every path of a network, carried by its tensors: what the sweep holds sites against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from invariscope.zoo.sites import Site, Use, record

MATMUL = ("matmul", "__matmul__", "bmm")

Scale = tuple[Fraction, Fraction]
"""Pixels of the network's input for one step on a map, down and right."""


class Strides(TorchFunctionMode):
    """Carries the product of strides from the network's input along every path, and notes what does not fit."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.images = images
        self.clear()

    def clear(self) -> None:
        """Begin anew: the network runs again."""
        self.scales = WeakTensorKeyDictionary()
        self.slices: list[Tensor] = []
        self.last: Any = None
        self.problems: list[str] = []
        self.sizes: list[tuple[Site, Scale]] = []
        self.calling = False
        self.found: list[Site] = []

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.calling, self.found = True, []
        result = func(*args, **(kwargs or {}))
        self.calling = False
        with torch._C.DisableTorchFunction():
            self.carry(func, args, kwargs or {}, result)
            for site in self.found:
                self.multiply(site, self.last)
        return result

    def carry(self, func: Any, args: Sequence[Any], kwargs: Any, result: Any) -> None:
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__len__", "size", "dim"):
            return
        listed = [
            item for arg in (*args, *kwargs.values()) for item in (arg if isinstance(arg, (list, tuple)) else [arg])
        ]
        sources = [item for item in listed if isinstance(item, Tensor) and item in self.scales]
        results = [
            item for item in (result if isinstance(result, (list, tuple)) else [result]) if isinstance(item, Tensor)
        ]
        for made in results:
            if sources:
                same = [item for item in sources if item.shape[-2:] == made.shape[-2:]]
                self.join(name, made, [item for item in same if item.dim() == made.dim()])
                if name in MATMUL:
                    scale = self.scales[self.leading(made, sources)]
                else:
                    # A class token that is concatenated with a map is the smaller of the two.
                    scale = self.scales[(same or sorted(sources, key=Tensor.numel, reverse=True))[0]]
                if name in ("interpolate", "fold", "upsample", "pixel_shuffle", "conv_transpose2d"):
                    scale = self.of_size(made)
                self.scales[made] = scale
        if results:
            self.last = results[0]
        self.slices = [*self.slices, result] if name == "__getitem__" and isinstance(result, Tensor) else []

    @property
    def total(self) -> int:
        """The largest product of strides along a path."""
        return max((round(max(scale)) for _, scale in self.sizes), default=1)

    def leading(self, made: Tensor, sources: Sequence[Tensor]) -> Tensor:
        """The factor of a matrix product whose positions its result has: the values that attention mixes among as many
        places; else queries, as rows or as columns.
        """
        other = [source for source in sources if source.shape[-1] != source.shape[-2]]
        if len(sources) == 2 and len(other) == 1:
            return other[0]
        for source in sources:
            if self.expected(self.scales[source]) == tuple(made.shape[-2:]):
                return source
        for length in made.shape[-2:]:
            for source in sources:
                if math.prod(self.expected(self.scales[source])) == length:
                    return source
        return sources[0]

    def expected(self, scale: Scale) -> tuple[int, int]:
        """Size of a map that many times smaller than the images, rounded up."""
        height, width = (
            math.ceil(Fraction(size) / factor) for size, factor in zip(self.images.shape[2:], scale, strict=True)
        )
        return height, width

    def of_size(self, made: Tensor) -> Scale:
        height, width = self.images.shape[-2:]
        return Fraction(height, made.shape[-2]), Fraction(width, made.shape[-1])

    def is_map(self, tensor: Tensor) -> bool:
        return tensor.dim() == 4 and len(tensor) == len(self.images) and min(tensor.shape[-2:]) > 1

    def join(self, name: str, made: Tensor, sources: Sequence[Tensor]) -> None:
        """Branches that are added or concatenated must have come down by the same factor."""
        if name.strip("_") not in ("add", "iadd", "cat", "concat", "sub", "mul", "maximum", "stack"):
            return
        if self.is_map(made) and len({self.scales[item] for item in sources}) > 1:
            found = sorted({str(tuple(map(str, self.scales[item]))) for item in sources})
            self.problems.append(f"branches that come together have total strides {', '.join(found)}")

    def site(self, site: Site, use: Use) -> None:
        """A site has been found: by the call that is running, in the slices before it, or by a module just left."""
        slices = [item for item in self.slices if site.output_size in (item.shape[1:3], item.shape[2:4])]
        if slices and site.kind == "subsample":
            self.slices = [item for item in self.slices if item is not slices[0]]
            self.multiply(site, slices[0])
        elif slices and site.kind == "space_to_depth":
            self.slices = []
            self.multiply(site, *slices)
        elif self.calling:
            self.found.append(site)
        else:
            self.multiply(site, self.last)

    def multiply(self, site: Site, *made: Tensor) -> None:
        """What a site made is that much smaller than its input."""
        for tensor in made:
            before = self.scales.get(tensor)
            if before is None:
                self.problems.append(f"site {site.name}: the path from the input is lost")
                continue
            stride = site.stride or [Fraction(*both) for both in zip(site.input_size, site.output_size, strict=True)]
            self.scales[tensor] = before[0] * stride[0], before[1] * stride[1]
        self.sizes.append((site, self.scales.get(made[0], (Fraction(1), Fraction(1)))))


class Inside(nn.Module):
    """A network that runs with a mode of its own, inside of the recorder's."""

    def __init__(self, model: nn.Module, mode: Strides) -> None:
        super().__init__()
        self.model, self.mode = model, mode

    def forward(self, x: Tensor) -> Any:
        self.mode.scales[x] = (Fraction(1), Fraction(1))  # the network runs on images of its own
        with self.mode:
            return self.model(x)


def watch(model: nn.Module, images: Tensor) -> Strides:
    """The strides along the paths of a network, by the sites that are found."""
    strides = Strides(images)
    record(Inside(model, strides), images, strides.site, again=strides.clear)
    return strides
