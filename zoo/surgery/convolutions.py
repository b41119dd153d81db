"""Change the stride and the padding mode of convolutions, of torch's own class and of others, in place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from invariscope.zoo.sampling import pad
from invariscope.zoo.surgery.geometry import Size, pair, same_before


@dataclass
class SamePadding:
    """Hooks that keep the grid of a ``same`` padded convolution (TensorFlow's) when its stride becomes 1.

    The padding of such a layer follows its stride, so at stride 1 its windows would lie elsewhere. ``before`` pads more
    than any window needs, by ``mode``, and ``after`` crops what the strided layer's windows start from.
    """

    reach: Size
    stride: Size
    mode: str

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        height, width = self.reach
        return (pad(args[0], width, width, height, height, self.mode), *args[1:])

    def after(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        starts, ends = [], []
        for axis in (0, 1):
            length = args[0].shape[2 + axis] - 2 * self.reach[axis]
            moved = self.reach[axis] // 2 - same_before(length, self.stride[axis], self.reach[axis])
            starts.append(self.reach[axis] + moved)
            ends.append(self.reach[axis] + moved + length)
        return output[..., starts[0] : ends[0], starts[1] : ends[1]]

    def attach(self, conv: nn.Conv2d) -> None:
        conv.register_forward_pre_hook(self.before)
        conv.register_forward_hook(self.after)


@dataclass
class Padding:
    """A hook that pads a convolution's input in its stead: ``edges`` are left, right, top, bottom.

    With a ``stride`` above 1, the stride that the convolution had, it pads further at the right and the bottom, as far
    as the map and the strided outputs go: windows that a patch embedding (kernel = stride) lacks at stride 1, without
    which all phases but the first would miss their last row and column.
    """

    edges: tuple[int, int, int, int]
    mode: str
    reach: Size = (0, 0)
    stride: Size = (1, 1)

    def before(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        left, right, top, bottom = self.edges
        below = self._further(args[0].shape[-2], top + bottom, 0)
        aside = self._further(args[0].shape[-1], left + right, 1)
        return (pad(args[0], left, right + aside, top, bottom + below, self.mode), *args[1:])

    def _further(self, length: int, edges: int, axis: int) -> int:
        count = length + edges - self.reach[axis]
        outputs = math.ceil(count / self.stride[axis])
        return max(min(outputs * self.stride[axis], length) - count, 0)

    def attach(self, conv: nn.Conv2d) -> None:
        conv.register_forward_pre_hook(self.before)
        conv.padding = (0, 0)
        conv.padding_mode = "zeros"
        conv._reversed_padding_repeated_twice = [0, 0, 0, 0]


def pads_by_mode(conv: nn.Conv2d) -> bool:
    """Whether the class pads as ``nn.Conv2d`` does, and so by its ``padding_mode``."""
    kind = type(conv)
    return kind.forward is nn.Conv2d.forward and kind._conv_forward is nn.Conv2d._conv_forward


def _reach(conv: nn.Conv2d) -> Size:
    kernel, dilation = pair(conv.kernel_size), pair(conv.dilation)
    return dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1)


def _edges(conv: nn.Conv2d) -> tuple[int, int, int, int]:
    """Padding at the left, the right, the top and the bottom."""
    left, right, top, bottom = conv._reversed_padding_repeated_twice
    return left, right, top, bottom


def alignment(conv: nn.Conv2d) -> str | None:
    """How a convolution's padding depends on its stride: ``fixed`` (not at all), ``same``, or None where unknown.

    Classes other than torch's own are run on noise, with their own stride and at stride 1, and the values compared.
    """
    if pads_by_mode(conv):
        return "fixed"
    reach, edges, stride, training = _reach(conv), _edges(conv), pair(conv.stride), conv.training
    found = {"fixed", "same"}
    if stride == (1, 1):
        return _alignment_at_stride_1(conv)
    try:
        conv.eval()
        for extra in range(2):
            height, width = (reach[axis] + 2 * stride[axis] + 1 + extra for axis in (0, 1))
            noise = torch.randn(1, conv.in_channels, height, width, generator=torch.Generator().manual_seed(extra))
            noise = noise.to(conv.weight.device, conv.weight.dtype)
            with torch.no_grad():
                made = conv(noise)
                conv.stride = (1, 1)
                fixed = conv(noise)
                padding = SamePadding(reach, stride, "zeros")
                wider = padding.before(conv, (noise,))
                same = padding.after(conv, wider, conv(*wider))
            conv.stride = stride
            # An even kernel's "same" padding may start alike at both strides; the size at stride 1 tells them apart.
            static = (height + edges[2] + edges[3] - reach[0], width + edges[0] + edges[1] - reach[1])
            if fixed.shape[2:] != static or not _close(fixed[..., :: stride[0], :: stride[1]], made):
                found.discard("fixed")
            if not _close(same[..., :: stride[0], :: stride[1]], made):
                found.discard("same")
    finally:
        conv.stride = stride
        conv.train(training)
    return "fixed" if "fixed" in found else "same" if found else None


def _alignment_at_stride_1(conv: nn.Conv2d) -> str | None:
    reach, pads = _reach(conv), _edges(conv)
    height, width = (2 * length + 4 for length in reach)
    with torch.no_grad():
        made = conv(conv.weight.new_zeros(1, conv.in_channels, height, width))
    if made.shape[2:] == (height + pads[2] + pads[3] - reach[0], width + pads[0] + pads[1] - reach[1]):
        return "fixed"
    return "same" if made.shape[2:] == (height, width) else None


def _close(found: Tensor, wanted: Tensor) -> bool:
    bound = 1e-4 if found.dtype in (torch.float32, torch.float64) else 2e-2
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= bound * wanted.abs().max())


def make_dense(conv: nn.Conv2d, aligned: str, padding_mode: str | None) -> None:
    """Set the stride to 1 on the strided grid: output ``o`` of before is output ``s * o`` of now."""
    stride = pair(conv.stride)
    conv.stride = (1, 1)
    reach, edges = _reach(conv), _edges(conv)
    if aligned == "same":
        SamePadding(reach, stride, padding_mode or "zeros").attach(conv)
    elif edges[0] + edges[1] < reach[1] or edges[2] + edges[3] < reach[0]:
        own = conv.padding_mode if pads_by_mode(conv) else "zeros"
        Padding(edges, padding_mode or own, reach, stride).attach(conv)


def set_padding_mode(conv: nn.Conv2d, mode: str, smallest: Size | None) -> str | None:
    """Let a convolution pad by ``mode``; returns why not, where it cannot.

    ``smallest``: the smallest map that it was used on, if any; torch refuses to wrap more pixels than a map has.
    """
    reach = _reach(conv)
    ours = [found for hook in conv._forward_pre_hooks.values() if (found := _padding(hook)) is not None]
    for padding in ours:
        padding.mode = mode
    if ours or reach == (0, 0) or conv.padding_mode == mode:
        return None
    left, right, top, bottom = edges = _edges(conv)
    if pads_by_mode(conv):
        if smallest is None or (max(left, right) <= smallest[1] and max(top, bottom) <= smallest[0]):
            conv.padding_mode = cast(Any, mode)
            return None
    else:
        aligned = alignment(conv)
        if aligned == "same" and pair(conv.stride) == (1, 1) and not any(edges):
            SamePadding(reach, (1, 1), mode).attach(conv)
            return None
        if aligned != "fixed":
            return "its padding follows its stride: replace it, or write it with a fixed padding"
    if any(edges):
        Padding(edges, mode).attach(conv)
    return None


def _padding(hook: Any) -> SamePadding | Padding | None:
    """The padding that a hook of this module applies."""
    owner = getattr(hook, "__self__", None)
    return owner if isinstance(owner, (SamePadding, Padding)) else None
