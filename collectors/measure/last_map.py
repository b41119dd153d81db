"""The last map of more than one pixel that a network makes of a batch of images, and where its channels are."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from invariscope.zoo.sites.trace import name_of, tensors
from invariscope.zoo.sites.vocabulary import MAP_LAYERS, NO_MAPS, PRODUCTS

CHANNELS_SECOND = MAP_LAYERS | {"conv_transpose2d", "instance_norm", "pixel_shuffle", "pixel_unshuffle", "fold"}
"""Functions of ``(N, C, H, W)`` alone, and all whose names say that they pool."""

REORDERING = {"permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "T", "mT"}
REGROUPING = {"view", "reshape", "flatten", "unflatten"}


class LastMap(TorchFunctionMode):
    """Keeps hold of the last map; ``channels`` is its dimension of channels, None where that cannot be told.

    The dimension is followed from call to call: ``(N, C, H, W)`` goes into convolutions and pools and comes out of
    them, a permutation moves it, a linear layer has it last, other functions leave it where it is. Where it is lost (a
    view that takes it apart) the map's sizes tell it, if only two neighbouring ones have the proportions of the image.

    A map that is written part by part into room made for it is one as soon as it is used.
    """

    def __init__(self, batch: Tensor) -> None:
        super().__init__()
        self.images = len(batch)
        self.size = batch.shape[-2:]
        self.map: Tensor | None = None
        self.channels: int | None = None
        self._made_of_it: dict[int, tuple[weakref.ref[Tensor], int | None]] = {id(batch): (weakref.ref(batch), 1)}
        self._scores: set[int] = set()
        self._unused: set[int] = set()

    def pooled(self) -> Tensor | None:
        """The map as ``(n, C, H, W)``; None where there is none, or its channels cannot be told."""
        return None if self.map is None or self.channels is None else self.map.movedim(self.channels, 1)

    @property
    def is_unclear(self) -> bool:
        """Whether there is a map whose channels cannot be told."""
        return self.map is not None and self.channels is None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for each in tensors((args, kwargs)) if self._unused else ():
            if self._is_of_it(each) and id(each) in self._unused:
                self._unused.discard(id(each))
                self._take_map(each)
        made = func(*args, **kwargs)
        # A weight may have as many filters as there are images.
        given = [(each, self._made_of_it[id(each)][1]) for each in tensors((args, kwargs)) if self._is_of_it(each)]
        if not given:
            return made
        name = name_of(func)
        product = len(given) > 1 and name in PRODUCTS | NO_MAPS
        for each in tensors(made):
            axis = _channels(func, name, args, kwargs, each, given)
            # Scores of attention stay scores as long as they keep their shape: scaled, masked, through a softmax.
            alike = [id(one) in self._scores for one, _ in given if one.shape == each.shape]
            scores = product or (name not in CHANNELS_SECOND and bool(alike) and all(alike))
            self._made_of_it[id(each)] = weakref.ref(each), axis
            (self._scores.add if scores else self._scores.discard)(id(each))
            self._written(each, axis)
        if name == "setitem":
            self._written(args[0][args[1]], given[0][1])
        if isinstance(made, Tensor) and id(made) not in self._scores:
            self._take_map(made)
        return made

    def _written(self, part: Tensor, axis: int | None) -> None:
        """Follow a tensor of which this result is a part, as what is written with ``out=`` or in place is."""
        whole = part._base
        if whole is None or self._is_of_it(whole):
            return
        places = [
            place
            for place in range(whole.dim())
            if axis is not None and (whole.stride(place), whole.shape[place]) == (part.stride(axis), part.shape[axis])
        ]
        self._made_of_it[id(whole)] = weakref.ref(whole), places[0] if len(places) == 1 else None
        self._unused.add(id(whole))

    def _take_map(self, made: Tensor) -> None:
        if made.dim() == 4 and len(made) == self.images and made.is_floating_point():
            self._take(made)

    def _take(self, made: Tensor) -> None:
        channels = self._made_of_it[id(made)][1] or self._by_proportions(made.shape)
        across = [made.shape[place] for place in (1, 2, 3) if place != channels]
        if sum(size > 1 for size in across) > (channels is None):
            self.map, self.channels = made, channels

    def _by_proportions(self, shape: Sequence[int]) -> int | None:
        height, width = self.size
        second, last = (abs(h * width - w * height) <= max(height, width) for h, w in (shape[2:], shape[1:3]))
        return None if second == last else 1 if second else 3

    def _is_of_it(self, tensor: Tensor) -> bool:
        made = self._made_of_it.get(id(tensor))
        return made is not None and made[0]() is tensor


def _channels(
    func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], made: Tensor, given: list[tuple[Tensor, Any]]
) -> int | None:
    """The dimension of a result's channels, from those of what it was made of."""
    if made.dim() < 3 or name == "einsum":  # whose equation may put them anywhere
        return None
    if name in CHANNELS_SECOND or "pool" in name or func is F.unfold:
        return 1
    first, axis = given[0]
    if name in REORDERING:
        return None if axis is None else _reordered(func, args, kwargs, first.dim(), axis)
    of_pixels = name == "layer_norm" and len(args[1] if len(args) > 1 else kwargs["normalized_shape"]) == 1
    if (name == "linear" or of_pixels) and axis is None:
        return made.dim() - 1
    # What is written in other sizes than the result's is spread over it, and says less of it.
    given = [each for each in given if each[0].shape == made.shape and each[1] is not None] or given
    found = {_kept(name, each, axis, made) for each, axis in given if axis is not None}
    return found.pop() if len(found) == 1 else None


def _reordered(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], dims: int, axis: int) -> int | None:
    marked = torch.empty([2 if place == axis else 1 for place in range(dims)])
    with torch._C.DisableTorchFunction():
        moved = func(marked, *args[1:], **{name: value for name, value in kwargs.items() if name != "input"})
    return list(moved.shape).index(2)


def _kept(name: str, given: Tensor, axis: int, made: Tensor) -> int | None:
    """Where the channels of an argument are in a result that leaves the order of dimensions as it was."""
    if made.dim() == given.dim():
        return axis if name not in REGROUPING or made.shape[axis] == given.shape[axis] else None
    if axis == 1 and made.shape[:2] == given.shape[:2]:
        return 1
    if axis == given.dim() - 1 and made.shape[-1] == given.shape[-1]:
        return made.dim() - 1
    return None
