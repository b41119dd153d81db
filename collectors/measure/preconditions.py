"""The preconditions of exact invariance under circular shifts: how a part of a network that breaks one is named."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from invariscope.collectors.measure.rolling import equivariance_failures, is_equivariant
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.operators.polyphase import LPS
from invariscope.zoo.sites import Site

PADDING, SAMPLING, SIZE, TIES = "padding", "sampling", "size", "ties"
SHARED, HEAD, SHIFT_KIND, CODE = "shared phase", "head", "shift kind", "code"
PRECONDITIONS = {
    PADDING: "every layer pads circularly",
    SAMPLING: "nothing samples a fixed grid: no strided convolution (the stem included), no plain pooling or blur",
    SIZE: "the stride of every site divides the height and width of its map",
    TIES: "no two phases of a map are equally large",
    SHARED: "branches that are added take the same phase",
    HEAD: "nothing after the last map reads positions",
    SHIFT_KIND: "the shift is circular",
    CODE: "what a part does by code of its own moves along with its map",
}
"""Every precondition, in words."""

NETWORK = "the network"
"""The place of what no part of the network does alone."""

_POOLS = (nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.FractionalMaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True)
class Broken:
    """A precondition that does not hold.

    Attributes:
        precondition: a key of :data:`PRECONDITIONS`.
        where: the path of the part, as in ``named_modules()``.
        why, remedy: in a few words.
    """

    precondition: str
    where: str
    why: str
    remedy: str


@dataclass(frozen=True, eq=False)
class Called:
    """One call of a part of the network: ``x`` in, ``y`` out.

    ``alone``: it takes one map and nothing else, so that it can be run again. ``flat``: of a linear layer, the map
    that was seen before it.
    """

    path: str
    module: nn.Module
    x: Tensor
    y: Tensor
    alone: bool
    flat: Tensor | None = None


def chooses(operator: Downsample) -> bool:
    """Whether an operator keeps one phase per image, chosen by the map."""
    return operator.stride > 1 and operator.shares_selection


def reasons(
    model: nn.Module, sites: Sequence[Site], calls: Sequence[Called], failing: Mapping[str, Called], n_images: int
) -> tuple[Broken, ...]:
    """What breaks exactness, in the order of the forward pass: of parts that fail those whose own parts do not.

    ``n_images``: the images that were given; what comes after them in the batch is noise.
    """
    found: list[tuple[int, str, Broken]] = []
    order = {call.path: number for number, call in reversed(list(enumerate(calls)))}
    modules = dict(model.named_modules())
    read: set[int] = set()
    for site in sites:
        grid = site.kind not in ("phase", "unexplained", "unknown", "space_to_depth") and not site.is_aside
        if grid and not _is_named(modules.get(site.path)):
            found.append((order.get(site.path, len(calls)), site.path or NETWORK, _grid(site.name, site.kind)))
    for call in calls:
        if call.flat is not None and call.x.ndim == 2 and _reads_positions(call.x, call.flat):
            height, width = call.flat.shape[2:]
            why = f"it takes the {height}x{width} positions of the last map for features of their own"
            head = Broken(HEAD, call.path, why, "pool the map over space before it")
            found.append((order[call.path], call.path, head))
            read.add(call.x.shape[1])
    for path, call in sorted(failing.items(), key=lambda item: -item[0].count(".")):
        if isinstance(call.module, nn.Flatten) and call.y.shape[-1] in read:
            continue
        if any(place == path or place.startswith(f"{path}.") for _, place, _ in found):
            continue
        found += [(order[path], path, one) for one in _of_part(call, calls, n_images)]
    if not found:
        found = [(0, NETWORK, _of_block("", NETWORK, calls))]
    return tuple(one for _, _, one in sorted(found, key=lambda item: item[0]))


def _is_named(module: nn.Module | None) -> bool:
    """Whether a part is of a class whose reasons are known; its sites are then its own."""
    return isinstance(module, (Downsample, nn.Conv2d, *_POOLS))


def _grid(where: str, kind: str) -> Broken:
    what = "a strided convolution" if kind == "conv" else f"`{kind}` with a stride"
    remedy = "take stride 1 there (`stem=stride1`) or put aps or lps in its place (`replace_downsampling`)"
    return Broken(SAMPLING, where, f"{what} samples a fixed grid", remedy)


def _padding(where: str, how: str) -> Broken:
    return Broken(PADDING, where, how, "set padding_mode='circular'")


def _reads_positions(x: Tensor, map_: Tensor) -> bool:
    channels, height, width = map_.shape[1:]
    return height * width > 1 and x.shape[1] == channels * height * width


def _of_part(call: Called, calls: Sequence[Called], n_images: int) -> list[Broken]:
    """The reasons of a part that fails."""
    module, path = call.module, call.path
    match module:
        case Downsample():
            return _of_operator(path, module, call.x, n_images)
        case nn.Conv2d():
            return _of_convolution(path, module, call)
        case nn.MaxPool2d() | nn.AvgPool2d() if _pair(module.stride) == (1, 1):
            return [_padding(path, "it pads with what lies outside of the map")]
    if isinstance(module, _POOLS):
        return [_grid(path, type(module).__name__)]
    return [_of_block(path, path, calls)]


def _of_convolution(path: str, module: nn.Conv2d, call: Called) -> list[Broken]:
    reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    if call.y.shape[2:] == (1, 1) and tuple(module.kernel_size) == tuple(call.x.shape[2:]):
        why = "its kernel covers the whole map, and reads positions"
        return [Broken(HEAD, path, why, "pool the map over space before it")]
    found = [_grid(path, "conv")] if max(module.stride) > 1 else []
    pads = module.padding not in ("valid", 0, (0, 0)) and max(reach) > 0
    if pads and module.padding_mode != "circular":
        found.append(_padding(path, f"it pads with {module.padding_mode}"))
    elif not found and max(reach) > 0:
        found.append(_padding(path, f"its {'x'.join(map(str, module.kernel_size))} kernel leaves the border out"))
    return found or [_own_code(path)]


def _of_operator(path: str, operator: Downsample, x: Tensor, n_images: int) -> list[Broken]:
    """The reasons of one of our operators: those without whose mending it is not exact."""
    stride = operator.stride
    if not chooses(operator):
        return [_grid(path, operator.name)]
    height, width = x.shape[2:]
    mended = copy.deepcopy(operator)
    for module in mended.modules():
        if isinstance(module, Downsample):
            module.padding_mode = "circular"
    whole = x[..., : height - height % stride, : width - width % stride]
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(0))
    untied = x + 1e-3 * x.std().clamp(min=1e-6) * noise
    found = []
    if whole.shape != x.shape and 0 not in whole.shape and not is_equivariant(mended, untied):
        why = f"its map is {height}x{width}, which stride {stride} does not divide"
        found.append(Broken(SIZE, path, why, "take images whose sides the product of all strides divides"))
    cut = untied[..., : whole.shape[2], : whole.shape[3]]
    if operator.padding_mode != "circular" and 0 not in whole.shape and not is_equivariant(operator, cut):
        found.append(_padding(path, f"it pads with {operator.padding_mode}"))
    if 0 not in whole.shape and (tied := set(equivariance_failures(mended, whole))):
        given = sum(row < n_images for row in tied)
        on = f"{given} of {n_images} images" if given else "noise"
        why = f"two phases are equally large on {on}, and the first is taken"
        remedy = "take scores that do not tie (lps), or leave out images that are symmetric or plain"
        if isinstance(operator, LPS) and not is_equivariant(mended, cut):
            why = f"all phases have one score on {on}, whatever the map, and the first is taken: it subsamples"
            remedy = "train it again, with a lower rate: no hidden unit of its scoring network is active any more"
        found.append(Broken(TIES, path, why, remedy))
    return found or [_own_code(path)]


def _of_block(path: str, where: str, calls: Sequence[Called]) -> Broken:
    """A block whose parts are exact each: branches with phases of their own, or code of its own."""
    inside = [call for call in calls if not path or call.path.startswith(f"{path}.")]
    apart = [call for call in inside if call.alone and isinstance(call.module, Downsample) and chooses(call.module)]
    sizes = [(tuple(call.x.shape[2:]), call.module.stride) for call in apart]
    if twice := next((size for size in sizes if sizes.count(size) > 1), None):
        beside = [call.path for call, size in zip(apart, sizes, strict=True) if size == twice]
        why = f"{' and '.join(beside[:2])} choose their phases apart"
        return Broken(SHARED, where, why, "call the second with selection=first.selection")
    return _own_code(where)


def _own_code(where: str) -> Broken:
    why = "what it does by its own code does not move along with its map"
    return Broken(CODE, where, why, "look for padding, fixed indices, resizing or positions in its forward")


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
