"""The functions of torch that downsample, each read from its own arguments: which pixels did this call sample?

Every reader has the signature of the function that it reads, after the call's result. It returns a use; or None where
the call does not downsample (global pooling, a convolution at stride 1). Uses of stride 1 are links (``Sampled``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from invariscope.zoo.sampling import Taps, max_weights, source_index, take, tap_index
from invariscope.zoo.sites.again import moved, windowed
from invariscope.zoo.sites.filters import fixed_filter, low_band
from invariscope.zoo.sites.uses import Sampled, Size, Use, dense, map_size, sampled, unmeasured

GLOBAL_FROM = 4
"""Pooling of a whole map to 1 x 1 is global, and no site, from this side on; 2 x 2 and 3 x 3 are ordinary windows."""

_PAD_MODES = {"constant": "zeros", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def pair(value: Any) -> Size:
    """``(height, width)`` of an argument that may be one number or two."""
    if isinstance(value, (tuple, list, torch.Size)):
        return (int(value[0]), int(value[-1]))
    return (int(value), int(value))


def _real(x: Tensor) -> Tensor:
    """The values of a quantised map."""
    return x.dequantize() if x.is_quantized else x


def _is_global(x: Tensor, y: Tensor, kernel: Size) -> bool:
    size = map_size(x)
    covers = kernel[0] >= size[0] and kernel[1] >= size[1]
    return map_size(y) == (1, 1) and covers and min(size) >= GLOBAL_FROM


def _pool(
    kind: str,
    x: Tensor,
    y: Tensor,
    kernel: Size,
    stride: Size,
    padding: Size = (0, 0),
    dilation: Size = (1, 1),
    ceil_mode: bool = False,
    include_pad: bool = True,
) -> Use | None:
    """Max or average pooling. An average's divisor does not matter: the weights are normalised over the window."""
    if x.dim() != 4:
        return unmeasured(kind, x[None], y[None], "its input is one image without a batch dimension", kernel)
    if _is_global(x, y, kernel):
        return None
    x, y = _real(x), _real(y)
    size, out = map_size(x), map_size(y)

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        index = tap_index(size, out, kernel, stride, padding, dilation, outputs=outputs).to(x.device)
        if kind == "max":
            return Taps(index, max_weights(take(x[rows], index, fill=float("-inf"))))
        share = torch.full((1, 1, 1, index.shape[1]), 1 / index.shape[1], dtype=torch.float64, device=x.device)
        return Taps(index, share)

    def pooled(x: Tensor, stride: Size, padding: Size = (0, 0), ceil_mode: bool = False) -> Tensor:
        if kind == "max":
            return F.max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)
        return F.avg_pool2d(x, kernel, stride, padding, ceil_mode, include_pad)

    again = windowed(
        x,
        lambda x: pooled(x, stride, padding, ceil_mode),
        pooled,
        reach=(dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1),
        stride=stride,
        before=padding,
    )
    return sampled(kind, x, y, taps, kernel=kernel, stride=stride, again=again)


def _max_pool2d(
    result: Any,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Use | None:
    y = result[0] if isinstance(result, tuple) else result
    kernel = pair(kernel_size)
    strides = pair(stride) if stride else kernel
    return _pool("max", input, y, kernel, strides, pair(padding), pair(dilation), ceil_mode)


def _avg_pool2d(
    result: Tensor,
    input: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Use | None:
    kernel = pair(kernel_size)
    strides = pair(stride) if stride else kernel
    return _pool("avg", input, result, kernel, strides, pair(padding), (1, 1), ceil_mode, count_include_pad)


def _adaptive(kind: str, x: Tensor, y: Tensor) -> Use | None:
    size, out = map_size(x), map_size(y)
    if out == (1, 1):
        return None
    if size[0] % out[0] or size[1] % out[1]:
        return unmeasured(kind, x, y, f"adaptive pooling from {size} to {out} has windows of several sizes")
    ratio = size[0] // out[0], size[1] // out[1]
    return _pool(kind, x, y, ratio, ratio)


def _adaptive_avg_pool2d(result: Tensor, input: Tensor, output_size: Any) -> Use | None:
    return _adaptive("avg", input, result)


def _adaptive_max_pool2d(result: Any, input: Tensor, output_size: Any, return_indices: bool = False) -> Use | None:
    return _adaptive("max", input, result[0] if isinstance(result, tuple) else result)


def _conv2d(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Use | None:
    strides, dilations, kernel = pair(stride), pair(dilation), (int(weight.shape[-2]), int(weight.shape[-1]))
    if input.dim() != 4:
        return unmeasured("conv", input[None], result[None], "its input is one image without a batch dimension", kernel)
    blur = fixed_filter(input, weight, bias, groups) if padding != "same" else None
    if blur is None and padding != "same":
        band = low_band(input, weight, bias, groups)
        if band is not None:
            blur, result = band[1], result[:, band[0] :: weight.shape[0] // groups]
    if blur is None and max(strides) == 1:
        return None
    pads = (0, 0) if isinstance(padding, str) else pair(padding)
    if blur is None:
        return dense(input, weight, bias, result, stride=strides, padding=pads, dilation=dilations, groups=groups)
    size, out = map_size(input), map_size(result)

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        index = tap_index(size, out, kernel, strides, pads, dilations, outputs=outputs).to(input.device)
        return Taps(index, blur.flatten()[None, None, None])

    def filtered(x: Tensor, strides: Size, pads: Size = (0, 0)) -> Tensor:
        return torch.conv2d(x, blur.to(x).expand(x.shape[1], 1, -1, -1), None, strides, pads, dilations, x.shape[1])

    again = windowed(
        input,
        lambda x: filtered(x, strides, pads),
        filtered,
        reach=(dilations[0] * (kernel[0] - 1) + 1, dilations[1] * (kernel[1] - 1) + 1),
        stride=strides,
        before=pads,
    )
    return sampled("blur", input, result, taps, kernel=kernel, stride=strides, again=again)


def _pad(result: Tensor, input: Tensor, pad: Any, mode: str = "constant", value: float | None = None) -> Use | None:
    """Padding of a map, as a link: a site that follows sees each padded position at its source pixel."""
    widths = [int(width) for width in pad]
    if input.dim() != 4 or input.is_quantized or len(widths) > 4 or min(widths, default=0) < 0:
        return None
    left, right, top, bottom = widths + [0] * (4 - len(widths))
    height, width = map_size(input)
    rows_of = source_index(height, top, bottom, _PAD_MODES[mode])[:, None]
    columns_of = source_index(width, left, right, _PAD_MODES[mode])[None, :]
    index = torch.where((rows_of < 0) | (columns_of < 0), -1, rows_of * width + columns_of)
    index = index.flatten()[:, None].to(input.device)
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=input.device)

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        return Taps(index if outputs is None else index[outputs], one)

    again = moved(input, lambda x: F.pad(x, widths, mode, value), (top, left), mode == "circular")
    return sampled("pad", input, result, taps, kernel=None, stride=(1, 1), again=again)


def _subsample(x: Tensor, y: Tensor, stride: Size, start: Size = (0, 0)) -> Sampled:
    """``y = x[..., start::stride]``; the stride cell of an output is the one that holds its pixel."""
    x, y = _real(x), _real(y)
    size, out = map_size(x), map_size(y)
    origin = start[0] - start[0] % stride[0], start[1] - start[1] % stride[1]
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64, device=x.device)

    def taps(rows: slice, outputs: Tensor | None) -> Taps:
        index = tap_index(size, out, (1, 1), stride, (-start[0], -start[1]), outputs=outputs)
        return Taps(index.to(x.device), one)

    def sliced(x: Tensor, stride: Size, start: Size = start) -> Tensor:
        return x[..., start[0] :: stride[0], start[1] :: stride[1]]

    again = windowed(
        x, lambda x: sliced(x, stride), lambda x, stride: sliced(x, stride, (0, 0)), reach=(1, 1), stride=stride
    )
    return sampled("subsample", x, y, taps, kernel=(1, 1), stride=stride, origin=origin, start=start, again=again)


def _getitem(result: Tensor, input: Tensor, index: Any) -> Use | None:
    """``x[..., a::s, b::t]`` or, channels last, ``x[:, a::s, b::t, :]``, both steps above 1: plain subsampling.

    One axis alone is left out: that is how rotary position embeddings split their channels.
    """
    parts = index if isinstance(index, tuple) else (index,)
    if (
        not isinstance(input, Tensor)
        or input.dim() != 4
        or not (input.is_floating_point() or input.is_quantized)
        or 0 in result.shape
    ):
        return None
    if not all(part is Ellipsis or isinstance(part, slice) for part in parts) or parts.count(Ellipsis) > 1:
        return None
    if Ellipsis in parts:
        at = parts.index(Ellipsis)
        parts = (*parts[:at], *[slice(None)] * (5 - len(parts)), *parts[at + 1 :])
    parts = (*parts, *[slice(None)] * (4 - len(parts)))
    ranges = [range(size)[part] for size, part in zip(input.shape, parts, strict=True)]
    steps = [axis.step for axis in ranges]
    x, y = input, result
    if min(steps[1], steps[2]) > 1 and steps[3] == 1:
        x, y = input.permute(0, 3, 1, 2), result.permute(0, 3, 1, 2)
        ranges, parts = [ranges[0], ranges[3], ranges[1], ranges[2]], (parts[0], parts[3], parts[1], parts[2])
    elif min(steps[2], steps[3]) < 2:
        return None
    if any(len(axis) < size for axis, size in zip(ranges[:2], x.shape[:2], strict=True)):
        x = x[parts[:2]]
    return _subsample(x, y, (ranges[2].step, ranges[3].step), (ranges[2].start, ranges[3].start))


def _interpolate(
    result: Tensor,
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *rest: Any,
    **also: Any,
) -> Use | None:
    """Nearest-neighbour reduction by a whole number is plain subsampling, by area it is an average."""
    if input.dim() != 4 or map_size(result) == (1, 1):
        return None
    shape, out = map_size(input), map_size(result)
    ratio = shape[0] // max(out[0], 1), shape[1] // max(out[1], 1)
    if (ratio[0] * out[0], ratio[1] * out[1]) == shape and max(ratio) > 1:
        if mode == "nearest":
            return _subsample(input, result, ratio)
        if mode == "area":
            return _pool("avg", input, result, ratio, ratio)
    return unmeasured("interpolate", input, result, "interpolation to another size is not sampling at a stride")


def _unshuffle(result: Tensor, input: Tensor, downscale_factor: int) -> Use | None:
    return rearranged(input, result, pair(downscale_factor))


def rearranged(x: Tensor, y: Tensor, stride: Size) -> Use:
    """Space-to-depth, by whatever functions: a site, for the map gets smaller, but one that drops no pixel."""
    size = map_size(x)
    reason = "it keeps every pixel, as channels: nothing is sampled"
    out = size[0] // stride[0], size[1] // stride[1]
    return Use("space_to_depth", stride, stride, len(x), int(x.shape[1]), size, out, reason, maps=(x, y))


def _unfold(
    result: Tensor, input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Use | None:
    """Patches as channels (``nn.Unfold``), taken at a stride: as space-to-depth, they hold every pixel."""
    kernel, strides = pair(kernel_size), pair(stride)
    if input.dim() != 4 or max(strides) == 1:
        return None
    reach = [pair(dilation)[axis] * (kernel[axis] - 1) + 1 - 2 * pair(padding)[axis] for axis in (0, 1)]
    size = map_size(input)
    out = (size[0] - reach[0]) // strides[0] + 1, (size[1] - reach[1]) // strides[1] + 1
    reason = "it keeps whole patches, as channels: nothing is sampled"
    return Use("unfold", kernel, strides, len(input), int(input.shape[1]), size, out, reason)


def _convolution(
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Use | None:
    if transposed:
        return None
    return _conv2d(result, input, weight, bias, stride, padding, dilation, groups)


def _volume(result: Any, input: Tensor, *args: Any, **kwargs: Any) -> Use | None:
    y = result[0] if isinstance(result, tuple) else result
    if input.dim() != 5 or map_size(y) == (1, 1):
        return None
    return unmeasured("volume", input, y, "it works on volumes (N, C, T, H, W), and MSB is defined on images")


def _without_weights(kind: str, reason: str) -> Callable[..., Use | None]:
    """The reader of a function that makes a map smaller in a way that has no sampling weights here."""

    def read(result: Any, input: Tensor, *args: Any, **kwargs: Any) -> Use | None:
        y = result[0] if isinstance(result, tuple) else result
        if input.dim() != 4 or map_size(y) == (1, 1):
            return None
        return unmeasured(kind, input, y, reason)

    return read


_lp_pool2d = _without_weights("lp", "F.lp_pool2d takes powers of signed values, which are no sampling weights")
_fractional = _without_weights("fractional_max", "fractional pooling has windows of several sizes")

READERS: Mapping[Any, Callable[..., Use | None]] = {
    F.max_pool2d: _max_pool2d,
    F.max_pool2d_with_indices: _max_pool2d,
    torch.max_pool2d: _max_pool2d,
    F.avg_pool2d: _avg_pool2d,
    F.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    F.adaptive_max_pool2d: _adaptive_max_pool2d,
    F.adaptive_max_pool2d_with_indices: _adaptive_max_pool2d,
    torch.conv2d: _conv2d,
    F.pad: _pad,
    Tensor.__getitem__: _getitem,
    F.interpolate: _interpolate,
    F.lp_pool2d: _lp_pool2d,
    F.fractional_max_pool2d: _fractional,
    F.fractional_max_pool2d_with_indices: _fractional,
    F.pixel_unshuffle: _unshuffle,
    F.unfold: _unfold,
    torch.conv3d: _volume,
    F.max_pool3d: _volume,
    torch.max_pool3d: _volume,
    F.avg_pool3d: _volume,
}
"""The reader of every function that is watched."""

_ATEN: Mapping[Any, Callable[..., Use | None]] = {
    torch.ops.aten.max_pool2d: _max_pool2d,
    torch.ops.aten.max_pool2d_with_indices: _max_pool2d,
    torch.ops.aten.avg_pool2d: _avg_pool2d,
    torch.ops.aten.adaptive_avg_pool2d: _adaptive_avg_pool2d,
    torch.ops.aten._adaptive_avg_pool2d: _adaptive_avg_pool2d,
    torch.ops.aten.adaptive_max_pool2d: _adaptive_max_pool2d,
    torch.ops.aten.conv2d: _conv2d,
    torch.ops.aten.convolution: _convolution,
    torch.ops.aten.pad: _pad,
    torch.ops.aten.pixel_unshuffle: _unshuffle,
}
"""The same for the operators that exported graphs (``torch.export``) call."""


def reader_of(func: Any) -> Callable[..., Use | None] | None:
    """The reader of a function, if it is watched."""
    if isinstance(func, torch._ops.OpOverload):
        return _ATEN.get(func.overloadpacket)
    return READERS.get(func) or _ATEN.get(func)


def explains(func: Any, reader: Callable[..., Use | None] | None, use: Use | None) -> bool:
    """Whether a function has a reader that says what it did, also where that is no site."""
    return reader is not None and func is not Tensor.__getitem__ and not (reader is _volume and use is None)
