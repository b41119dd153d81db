"""What a downsampling site did in one forward pass: its geometry, and which pixels each of its outputs sampled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.base.explained import READER
from invariscope.zoo.sampling import Taps, pick, tap_index
from invariscope.zoo.sites.again import Again, convolved

Size = tuple[int, int]
"""Height and width, in pixels of a feature map."""


@dataclass(frozen=True, eq=False)
class View:
    """Some outputs of a site for some images, with the pixels that they could have been sampled from.

    ``pixels (n, C, P)`` are values of the site's input and ``outputs (n, C, L)`` those of its output; row ``l`` of
    ``cells (L, Q)`` lists the pixels of output ``l``'s stride cell (-1 outside the map), and ``taps`` says what the
    output was made of. Both hold indices into ``P``.
    """

    pixels: Tensor
    outputs: Tensor
    cells: Tensor
    taps: Taps


@dataclass(frozen=True, eq=False)
class Use:
    """One use of a downsampling operation in a forward pass, ``(N, C, H, W) -> (N, C, H', W')``.

    Sizes are those of the site as MSB defines it: a strided convolution's input is its own dense (stride 1) output.
    ``reason`` says why the use cannot be given an MSB, where it cannot.
    """

    kind: str
    kernel: Size | None
    stride: Size | None
    rows: int
    channels: int
    input_size: Size
    output_size: Size
    reason: str | None = None
    explained: str = READER
    """How it is known what it sampled (:mod:`invariscope.base.explained`)."""
    maps: tuple[Tensor, Tensor] | None = None
    """The map that goes in (of a convolution, its input) and the one that comes out, where they are known."""
    again: Again | None = None
    """The site's function on other maps, where it can be made again."""

    costs_dense: ClassVar[bool] = False
    """Whether a view computes the layer anew, at stride 1."""

    def view(self, rows: slice, outputs: Tensor | None = None) -> View:
        """The site's sampling for some images, at the outputs ``h' * W' + w'`` given; at all of them by default."""
        raise NotImplementedError(f"a use of kind {self.kind} has no sampling weights: {self.reason}")

    @property
    def downsamples(self) -> bool:
        """Whether the map gets smaller through a stride."""
        strided = self.stride is None or max(self.stride) > 1
        return strided and any(out < size for out, size in zip(self.output_size, self.input_size, strict=True))


def map_size(x: Tensor) -> Size:
    """Height and width of ``(N, C, H, W)``."""
    return int(x.shape[-2]), int(x.shape[-1])


def unmeasured(
    kind: str, x: Tensor, y: Tensor, reason: str, kernel: Size | None = None, explained: str = READER
) -> Use:
    """A use that is listed with the reason why it has no MSB."""
    return Use(kind, kernel, None, len(x), int(x.shape[1]), map_size(x), map_size(y), reason, explained, (x, y))


@dataclass(frozen=True, eq=False, kw_only=True)
class Sampled(Use):
    """A use whose output is sampled from its input: pooling, fixed blur, slicing, padding, the operators.

    ``taps(rows, outputs)`` gives the sampling weights for some images. ``origin`` is the pixel from which the stride
    cell of the first output starts. A use of stride 1 is a link: it is no site, but a part of one that follows it.
    """

    x: Tensor
    y: Tensor
    taps: Callable[[slice, Tensor | None], Taps]
    origin: Size = (0, 0)
    start: Size = (0, 0)
    """The pixel that a slice starts from."""

    def view(self, rows: slice, outputs: Tensor | None = None) -> View:
        if self.stride is None:
            raise NotImplementedError(f"a use of kind {self.kind} has no stride")
        before = (-self.origin[0], -self.origin[1])
        cells = tap_index(self.input_size, self.output_size, self.stride, self.stride, before, outputs=outputs)
        y = self.y[rows].flatten(2)
        if outputs is not None:
            y = pick(y, outputs.to(y.device))
        return View(self.x[rows].flatten(2), y, cells, self.taps(rows, outputs))

    def after(self, first: Sampled) -> Sampled:
        """This use applied to the output of ``first`` as one: from the first's input, weights by the chain rule."""

        def taps(rows: slice, outputs: Tensor | None) -> Taps:
            return self.taps(rows, outputs).after(first.taps(rows, None))

        kernel = self.kernel or first.kernel
        if self.kernel is not None and first.kernel is not None:
            kernel = (self.kernel[0] + first.kernel[0] - 1, self.kernel[1] + first.kernel[1] - 1)
        kind = self.kind if first.kind == "pad" else first.kind if self.kind == "pad" else f"{first.kind}+{self.kind}"
        size = first.input_size
        again = first.again.then(self.again) if first.again and self.again else None
        own: Any = {"x": first.x, "maps": (first.x, self.y), "again": again, "taps": taps}
        return replace(self, kind=kind, kernel=kernel, channels=first.channels, input_size=size, **own)


def sampled(
    kind: str,
    x: Tensor,
    y: Tensor,
    taps: Callable[[slice, Tensor | None], Taps],
    *,
    kernel: Size | None,
    stride: Size,
    origin: Size = (0, 0),
    start: Size = (0, 0),
    again: Again | None = None,
) -> Sampled:
    """A :class:`Sampled` use of ``x`` and ``y``."""
    sizes = map_size(x), map_size(y)
    own: Any = {"x": x, "y": y, "taps": taps, "origin": origin, "start": start, "maps": (x, y), "again": again}
    return Sampled(kind, kernel, stride, len(x), int(x.shape[1]), *sizes, **own)


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Use):
    """A strided convolution, seen as plain subsampling of the same convolution at stride 1.

    The padding is the one that the strided call used. A view at given outputs convolves only the patches that their
    stride cells need, so that the dense map need not exist as a whole; its ``pixels`` are then those cells.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    padding: Size
    dilation: Size
    groups: int

    costs_dense: ClassVar[bool] = True

    def after(self, padded: Sampled) -> Dense:
        """This use behind padding that was a call of its own: the map that goes in is the one before it."""
        again = padded.again.then(self.again) if padded.again and self.again else None
        return replace(self, maps=self.maps and (padded.x, self.maps[1]), again=again)

    def view(self, rows: slice, outputs: Tensor | None = None) -> View:
        if self.stride is None:
            raise NotImplementedError("a convolution without a stride has no stride cells")
        one = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=self.x.device)
        if outputs is None:
            dense = torch.conv2d(self.x[rows], self.weight, self.bias, 1, self.padding, self.dilation, self.groups)
            cells = tap_index(self.input_size, self.output_size, self.stride, self.stride)
            y = dense[..., :: self.stride[0], :: self.stride[1]]
            return View(dense.flatten(2), y.flatten(2), cells, Taps(cells[:, :1], one))
        patches = self._patches(self.x[rows], outputs)
        n, count = patches.shape[:2]
        made = torch.conv2d(patches.flatten(0, 1), self.weight, self.bias, 1, 0, self.dilation, self.groups)
        pixels = made.flatten(2).unflatten(0, (n, count)).transpose(1, 2)
        inside = tap_index(self.input_size, self.output_size, self.stride, self.stride, outputs=outputs) >= 0
        cells = torch.arange(inside.numel()).view_as(inside).masked_fill(~inside, -1)
        return View(pixels.flatten(2), pixels[..., 0], cells, Taps(cells[:, :1], one))

    def _patches(self, x: Tensor, outputs: Tensor) -> Tensor:
        """The padded input under each output's stride cell: ``(n, L, C_in, reach, reach)``."""
        axes, after = [], []
        for axis, place in enumerate((outputs // self.output_size[1], outputs % self.output_size[1])):
            stride = self.stride[axis] if self.stride else 1
            reach = self.dilation[axis] * (int(self.weight.shape[2 + axis]) - 1) + stride
            axes.append(place[:, None] * stride + torch.arange(reach))
            end = int(place.max()) * stride + reach
            after.append(max(end - self.padding[axis] - int(x.shape[2 + axis]), 0))
        padded = F.pad(x, (self.padding[1], after[1], self.padding[0], after[0]))
        height, width = (places.to(x.device) for places in axes)
        return padded[:, :, height[:, :, None], width[:, None, :]].transpose(1, 2)


def dense(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    y: Tensor,
    *,
    stride: Size,
    padding: Size,
    dilation: Size,
    groups: int,
) -> Dense:
    """A :class:`Dense` use of a strided convolution's arguments and its output ``y``."""
    kernel = int(weight.shape[-2]), int(weight.shape[-1])
    size = [int(x.shape[2 + axis]) + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
    return Dense(
        "conv",
        kernel,
        stride,
        len(x),
        int(weight.shape[0]),
        (size[0], size[1]),
        map_size(y),
        x=x,
        weight=weight,
        bias=bias,
        padding=padding,
        dilation=dilation,
        groups=groups,
        maps=(x, y),
        again=convolved(x, weight, stride, padding, dilation, groups),
    )
