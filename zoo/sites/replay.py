"""Run a piece of a network again on other maps, everything else held fixed, and read its weights off what it does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from invariscope.base.errors import ModelError
from invariscope.base.explained import BEHAVIOUR
from invariscope.zoo.sampling import Taps, take
from invariscope.zoo.sites.again import Again, behaving
from invariscope.zoo.sites.jacobian import Places, Rows, Unreadable, read_rows, stride_of
from invariscope.zoo.sites.plan import Piece
from invariscope.zoo.sites.trace import Trace, tensors
from invariscope.zoo.sites.uses import Sampled, Size
from invariscope.zoo.sites.vocabulary import CONVOLUTIONS

AT_ONCE = 1 << 22
"""Elements of a map from which its images are read a few at a time."""

LARGEST = 1 << 25
"""Elements from which a map that cannot be cut into images is not replayed: 256 MiB in float64."""


@dataclass(frozen=True)
class Slot:
    """The place of a tensor in a call's arguments, by its number."""

    number: int


@dataclass(frozen=True)
class Step:
    """A call that can be made again."""

    name: str
    func: Any
    args: Any
    kwargs: Any
    given: tuple[int, ...]
    results: tuple[int, ...]
    writes: bool


def template(item: Any, numbers: Iterator[int]) -> Any:
    """An argument with slots for its tensors."""
    if isinstance(item, Tensor):
        return Slot(next(numbers))
    if isinstance(item, (list, tuple)):
        parts = [template(part, numbers) for part in item]
        return type(item)(parts) if type(item) in (list, tuple) else tuple(parts)
    if isinstance(item, Mapping):
        return {key: template(part, numbers) for key, part in item.items()}
    return item


def _filled(item: Any, get: Callable[[int], Tensor]) -> Any:
    if isinstance(item, Slot):
        return get(item.number)
    if isinstance(item, (list, tuple)):
        return type(item)(_filled(part, get) for part in item)
    if isinstance(item, dict):
        return {key: _filled(part, get) for key, part in item.items()}
    return item


def _wide(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return tensor.double()
    return tensor.to(torch.complex128) if tensor.is_complex() else tensor


@dataclass
class Replay:
    """A piece with the steps of one pass, and the tensors that went in and out of them.

    Values with fewer elements than ``least`` are weights, as are those that cannot be linear in the map: they stay
    what they were.
    """

    piece: Piece
    trace: Trace
    steps: Sequence[Step]
    held: Mapping[int, Tensor]
    least: int
    whole: Sequence[Step] = ()
    """The steps, and those that compute of the map what it chooses by."""
    images: slice | None = None
    """The images to run it on, where they are not all: what is held fixed is cut where its batch is theirs."""
    free: bool = False
    """Whether weights are computed anew."""

    def anew(self, x: Tensor, *, chooses: bool) -> Tensor:
        """The piece on other maps ``(n, C, H, W)``, with a choice of its own where it ``chooses``.

        Raises:
            ModelError: what it chooses by is computed elsewhere, or it cannot be run on so many maps.
        """
        made = {self.piece.source, *(number for step in self.whole for number in step.results)}
        given = {number for step in self.whole for number in step.given}
        try:
            if any(not self.trace.values[number].constant for number in given - made):
                raise Unreadable("what it chooses by is computed elsewhere")
            if chooses and len(self.whole) == len(self.steps) and not any(map(self._is_weight, self.steps)):
                raise Unreadable("what it chooses by is no tensor")
            return replace(self, steps=self.whole, free=True, images=slice(0, len(x))).run(x.double())
        except (Unreadable, RuntimeError, ValueError, IndexError, TypeError) as error:
            raise ModelError(f"it cannot be run on other maps ({' '.join(str(error).split())[:200]})") from error

    def run(self, x: Tensor) -> Tensor:
        """The piece on the map ``x (N, C, H, W)``, in float64: ``(N, C, H', W')``."""
        made: dict[int, Tensor] = {self.piece.source: x.permute(0, 2, 3, 1) if self.piece.last[0] else x}
        for step in self.steps:
            self._step(step, made)
        y = made.get(self.piece.target)
        if y is None:
            raise Unreadable("it cannot be run again")
        return y.permute(0, 3, 1, 2) if self.piece.last[1] else y

    @property
    def chosen(self) -> bool:
        """Whether values that the network computed are held fixed."""
        values = self.trace.values
        made = {self.piece.source, *(number for step in self.steps for number in step.results)}
        given = {number for step in self.steps for number in step.given}
        return any(self._is_weight(step) for step in self.steps) or any(
            not values[number].constant for number in given - made
        )

    def _is_weight(self, step: Step) -> bool:
        values = [self.trace.values[number] for number in step.results]
        small = all(not value.carries or value.numel < self.least for value in values)
        return (step.name in _WEIGHTS or small) and self.piece.target not in step.results

    def _step(self, step: Step, made: dict[int, Tensor]) -> None:
        if not self.free and self._is_weight(step):
            return
        if step.name in _CASTS and isinstance(step.args[0], Slot) and step.args[0].number in made:
            same = made[step.args[0].number]
            counts = self.trace.values[step.results[0]].real and not same.is_floating_point() and not same.is_complex()
            made[step.results[0]] = same.double() if counts else same
            return

        def get(number: int) -> Tensor:
            return made[number] if number in made else _wide(self._cut(self.held[number]))

        args, kwargs = _filled(step.args, get), _filled(step.kwargs, get)
        if step.writes:
            args = (args[0].clone(), *args[1:])
        result = step.func(*args, **kwargs)
        if result is None or step.writes:
            result = args[0]
        for number, tensor in zip(step.results, tensors(result), strict=True):
            if self.free or self.trace.values[number].carries:
                made[number] = tensor

    def _cut(self, tensor: Tensor) -> Tensor:
        batch = self.trace.values[self.piece.source].shape[0]
        if self.images is None or tensor.dim() == 0 or len(tensor) != batch or isinstance(tensor, nn.Parameter):
            return tensor
        part = tensor[self.images]
        if not tensor.is_floating_point() and tensor.numel() == batch:
            counted = torch.arange(batch, device=tensor.device)
            if bool((tensor.flatten() == counted).all()):
                # The numbers of the images, as an index that picks one value of each has them.
                return tensor[: len(part)]
        return part


_WEIGHTS = {"softmax", "sigmoid", "exp", "tanh", "log", "norm", "vector_norm", "hardsigmoid", "argmax", "std", "var"}
_CASTS = {"float", "to", "type", "half", "bfloat16", "double", "type_as", "detach", "data"}


def kind_of(rows: Rows, x: Tensor, chosen: bool, cell: int) -> str:
    """What a piece is by its weights: the same everywhere, the maximum, one phase of each image, or a mixture.

    ``chosen``: the network has computed of its images which weights they are. ``cell``: pixels of a stride cell;
    windows of fewer show no maximum.
    """
    weights = rows.weights
    single = bool((weights.amax(3) > 1 - 1e-9)[rows.sums > 0].all())
    if rows.fixed and not chosen:
        if single:
            return "subsample"
        positive = weights[0, 0][weights[0, 0] > 1e-12]
        return "avg" if float(positive.max() - positive.min()) < 1e-9 else "blur"
    values = take(x.double(), rows.index, fill=float("-inf"))
    on_maximum = (weights * (values == values.amax(3, keepdim=True))).sum(3)
    whole = rows.index.shape[1] >= cell
    if whole and bool((on_maximum > 1 - 1e-9)[rows.sums > 0].all()):
        return "max"
    return "phase" if single else "mixture"


@dataclass(frozen=True, eq=False)
class Reading:
    """What one batch has shown of a piece, and what holds in every other."""

    kind: str
    kernel: Size
    stride: Size
    places: Places
    is_mean: bool
    """Whether all weights of an output add up to 1 as they are, so that its value can be that of a pixel."""


def behaved(replay: Replay, x: Tensor, y: Tensor, reading: Reading | None = None) -> tuple[Sampled, Reading]:
    """The use of a piece from ``x (N, C, H, W)`` to ``y``, with the weights that its behaviour shows.

    Large maps are read a few images at a time, when they are asked for. ``reading``: what another batch has shown.

    Raises:
        Unreadable: where it shows none.
    """
    size, out = (int(x.shape[2]), int(x.shape[3])), (int(y.shape[2]), int(y.shape[3]))
    some = max(AT_ONCE * len(x) // max(x.numel(), 1), 1)
    places = None if reading is None else reading.places
    read: dict[tuple[int, int], Rows] = {}
    known: list[bool] = []

    def rows_of(images: slice) -> Rows:
        start, stop, _ = images.indices(len(x))
        if (start, stop) not in read:
            read.clear()
            part = replace(replay, images=slice(start, stop))
            try:
                read[start, stop] = read_rows(part.run, x[start:stop], y[start:stop], places)
            except Unreadable:
                if not known:
                    raise
                rows = read_rows(replay.run, x, y, places)
                read[start, stop] = replace(rows, weights=rows.weights[start:stop])
        return read[start, stop]

    whole = None
    if some < len(x):
        try:
            rows_of(slice(len(x) - some, len(x)))
            first = rows_of(slice(0, some))
            known.append(True)
        except Unreadable:
            some = len(x)
    if some >= len(x):
        if x.numel() > LARGEST:
            raise Unreadable("the map is too large to be run again as a whole: take a smaller batch")
        whole = first = read_rows(replay.run, x, y, places)

    def taps(images: slice, outputs: Tensor | None) -> Taps:
        index, weights = (whole.index, whole.weights[images]) if whole is not None else _of(rows_of(images))
        if outputs is None:
            return Taps(index, weights)
        outputs = outputs.to(index.device)
        return Taps(index[outputs], weights[:, :, outputs])

    if reading is None:
        stride = stride_of(size, out)
        kind, kernel = kind_of(first, x[: len(first.weights)], replay.chosen, prod(stride)), _reach(first.index, size)
        if kind not in ("subsample", "avg", "blur"):
            # A phase that one image has not chosen is one that it could have.
            kernel = max(kernel[0], stride[0]), max(kernel[1], stride[1])
        is_mean = bool(((first.sums - 1).abs() < 1e-4)[first.sums > 0].all())
        reading = Reading(kind, kernel, stride, first.places, is_mean)
    shape = reading.kind, reading.kernel, reading.stride, len(x), int(x.shape[1]), size, out
    again = _again(replay, x, first, reading, out)
    return Sampled(*shape, None, BEHAVIOUR, maps=(x, y), again=again, x=x, y=y, taps=taps), reading


def _again(replay: Replay, x: Tensor, rows: Rows, reading: Reading, out: Size) -> Again | None:
    """The piece on other maps; None where no window lies wholly inside of the map."""
    middle = out[0] // 2 * out[1] + out[1] // 2
    index = rows.index[middle]
    if bool((index < 0).any()):
        return None
    width = int(x.shape[3])
    corner = torch.tensor(
        [middle // out[1] * reading.stride[0], middle % out[1] * reading.stride[1]], device=index.device
    )
    offsets = torch.stack([index // width, index % width], 1) - corner
    anew = partial(replay.anew, chooses=reading.kind in ("phase", "mixture"))
    made = behaving(x, anew, reading.kind, offsets, rows.weights[0, 0, middle], reading.stride)
    return replace(made, closed=made.closed and not any(map(_pads, replay.whole)))


def _pads(step: Step) -> bool:
    """Whether a call pads a map otherwise than around."""
    args, kwargs = step.args, step.kwargs
    if step.name == "pad":
        return bool((args[2] if len(args) > 2 else kwargs.get("mode", "constant")) != "circular")
    place = 4 if step.name in CONVOLUTIONS else 3 if step.name in ("max_pool2d", "avg_pool2d") else len(args)
    padding = args[place] if len(args) > place else kwargs.get("padding", 0)
    return padding not in (0, (0, 0), [0, 0], (0,), "valid")


def _of(rows: Rows) -> tuple[Tensor, Tensor]:
    return rows.index, rows.weights


def _reach(index: Tensor, size: Size) -> Size:
    """Height and width of the widest window."""
    most = [1, 1]
    for axis, places in enumerate((index // size[1], index % size[1])):
        outside = index < 0
        low = places.masked_fill(outside, size[axis]).amin(1)
        high = places.masked_fill(outside, -1).amax(1)
        most[axis] = int((high - low + 1).mode().values)
    return most[0], most[1]
