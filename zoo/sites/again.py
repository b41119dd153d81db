"""What a site does to other maps than its own: as it is, with circular padding, and circular at stride 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sampling import pad

Size = tuple[int, int]


class Stage(Protocol):
    """A part of a site's function that goes round at the border: ``(N, C, H, W)``, at its stride or at stride 1."""

    def around(self, x: Tensor, dense: bool, channels: Tensor | None) -> Tensor:
        """The stage on maps that go round; of some of the output's channels."""


@dataclass(frozen=True, eq=False)
class Moved:
    """Padding at the top and the left: where maps go round, it moves them."""

    before: Size

    def around(self, x: Tensor, dense: bool, channels: Tensor | None) -> Tensor:
        return x.roll(self.before, (2, 3))


@dataclass(frozen=True, eq=False)
class Windowed:
    """A function of windows: ``valid(x, stride, channels)`` is what it makes of a map without padding.

    ``reach``: height and width of a window; ``before``: the padding at the top and the left.
    """

    valid: Callable[[Tensor, Size, Tensor | None], Tensor]
    reach: Size
    stride: Size
    before: Size

    def around(self, x: Tensor, dense: bool, channels: Tensor | None) -> Tensor:
        if any(self.before):
            x = x.roll(self.before, (2, 3))
        x = pad(x, 0, self.reach[1] - 1, 0, self.reach[0] - 1, "circular")
        return self.valid(x, (1, 1) if dense else self.stride, channels)


@dataclass(frozen=True, eq=False)
class Again:
    """A site's function, and the map ``x (N, C, H, W)`` that it was given; of a strided convolution, its input.

    ``as_is(x, channels)`` is the function as the network calls it. ``stages`` make it with circular padding; None where
    padding cannot be set. ``closed``: the network's own padding goes round, or no output looks beyond its stride cell.
    """

    x: Tensor
    as_is: Callable[[Tensor, Tensor | None], Tensor]
    stages: Sequence[Stage] | None
    closed: bool = False
    operator: Downsample | None = None
    """The operator, where it is one of this project's."""

    def own(self, x: Tensor, channels: Tensor | None = None) -> Tensor:
        """The site on another map, with its own padding and its own choice of phase; some channels of its output."""
        return self.as_is(x, channels)

    def circular(self, x: Tensor, channels: Tensor | None = None, *, dense: bool = False) -> Tensor:
        """The same where the map goes round: ``ceil(H/s) x ceil(W/s)`` outputs, or all ``H x W`` at stride 1."""
        stages = self.stages or ()
        for number, stage in enumerate(stages):
            last = number == len(stages) - 1
            x = stage.around(x, dense or not last, channels if last else None)
        return x

    def then(self, following: Again) -> Again:
        """This part of a site, and then the next."""

        def as_is(x: Tensor, channels: Tensor | None) -> Tensor:
            return following.as_is(self.as_is(x, None), channels)

        known = self.stages is not None and following.stages is not None
        stages = (*(self.stages or ()), *(following.stages or ())) if known else None
        return replace(following, x=self.x, as_is=as_is, stages=stages, closed=self.closed and _unpadded(following))


def _unpadded(part: Again) -> bool:
    return all(isinstance(stage, Windowed) and not any(stage.before) for stage in part.stages or ())


def per_channel(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor | None], Tensor]:
    """A function that takes each channel by itself, of some channels."""
    return lambda x, channels: function(x if channels is None else x[:, channels.to(x.device)])


def windowed(
    x: Tensor,
    own: Callable[[Tensor], Tensor],
    valid: Callable[[Tensor, Size], Tensor],
    *,
    reach: Size,
    stride: Size,
    before: Size = (0, 0),
) -> Again:
    """Pooling, fixed filters and slices: each channel by itself."""
    stage = Windowed(
        lambda x, stride, channels: per_channel(lambda x: valid(x, stride))(x, channels), reach, stride, before
    )
    inside = max(before) <= 0 and all(width <= step for width, step in zip(reach, stride, strict=True))
    return Again(x, per_channel(own), (stage,), inside)


def moved(x: Tensor, own: Callable[[Tensor], Tensor], before: Size, goes_round: bool) -> Again:
    """Padding by itself."""
    return Again(x, per_channel(own), (Moved(before),), goes_round)


def convolved(x: Tensor, weight: Tensor, stride: Size, padding: Size, dilation: Size, groups: int) -> Again:
    """A strided convolution, without its bias."""

    def valid(x: Tensor, stride: Size, channels: Tensor | None, padding: Size = (0, 0)) -> Tensor:
        if channels is None:
            return torch.conv2d(x, weight, None, stride, padding, dilation, groups)
        outputs, inputs = weight.shape[0] // groups, weight.shape[1]
        parts = []
        for group in (channels // outputs).unique().tolist():
            own = weight[channels[channels // outputs == group].to(weight.device)]
            parts.append(
                torch.conv2d(x[:, group * inputs : (group + 1) * inputs], own, None, stride, padding, dilation)
            )
        return torch.cat(parts, 1)

    reach = tuple(dilation[axis] * (int(weight.shape[2 + axis]) - 1) + 1 for axis in (0, 1))
    stage = Windowed(valid, (reach[0], reach[1]), stride, padding)
    return Again(x, lambda x, channels: valid(x, stride, channels, padding), (stage,))


def behaving(
    x: Tensor, as_is: Callable[[Tensor], Tensor], kind: str, offsets: Tensor, weights: Tensor, stride: Size
) -> Again:
    """A site known by what it does to its map.

    Args:
        as_is: the site on other maps, with a choice of its own.
        kind: of ``max``, ``avg``, ``blur`` and ``subsample`` the window says all; of others padding cannot be set.
        offsets: ``(K, 2)``, places of the window from its stride cell's corner.
        weights: ``(K,)``, the weight of each.
    """
    low, high = offsets.amin(0), offsets.amax(0)
    reach = int(high[0] - low[0]) + 1, int(high[1] - low[1]) + 1
    closed = bool((low >= 0).all()) and all(int(high[axis]) < stride[axis] for axis in (0, 1))
    kernel = weights.new_zeros(reach)
    kernel[offsets[:, 0] - low[0], offsets[:, 1] - low[1]] = weights

    def valid(x: Tensor, stride: Size) -> Tensor:
        if kind == "max":
            return torch.max_pool2d(x, reach, stride)
        return torch.conv2d(x, kernel.to(x).expand(x.shape[1], 1, -1, -1), None, stride, 0, 1, x.shape[1])

    whole = kind in ("avg", "blur", "subsample") or (kind == "max" and len(offsets) == reach[0] * reach[1])
    before = -int(low[0]), -int(low[1])
    known = windowed(x, as_is, valid, reach=reach, stride=stride, before=before).stages if whole else None

    def chosen(x: Tensor, channels: Tensor | None) -> Tensor:
        y = as_is(x)
        return y if channels is None else y[:, channels.to(y.device)]

    # What is chosen, or weighed, by all channels together is so for some of them too.
    return Again(x, chosen if kind in ("phase", "mixture") else per_channel(as_is), known, closed)


def rebuilt(operator: Downsample, **changes: Any) -> Downsample:
    """A copy of an operator with another stride or padding mode, without its hooks and what it kept."""
    common = {"channels": operator.channels, "stride": operator.stride, "padding_mode": operator.padding_mode}
    with torch.random.fork_rng(devices=[]):
        made: Downsample = type(operator)(**{**common, **operator.settings(), **changes})
    made.load_state_dict(operator.state_dict())
    like = next((tensor for tensor in (*operator.parameters(), *operator.buffers())), None)
    return made.to(like.device, like.dtype).eval() if like is not None else made.eval()


@dataclass(frozen=True, eq=False)
class Operated:
    """One of this project's operators as a stage."""

    operator: Downsample

    def around(self, x: Tensor, dense: bool, channels: Tensor | None) -> Tensor:
        stride = 1 if dense else self.operator.stride
        y = rebuilt(self.operator, padding_mode="circular", stride=stride)(x)
        return y if channels is None else y[:, channels.to(y.device)]


def operated(operator: Downsample, x: Tensor) -> Again:
    """One of this project's operators, with a choice of phase of its own."""

    def as_is(x: Tensor, channels: Tensor | None) -> Tensor:
        y = rebuilt(operator)(x)
        return y if channels is None else y[:, channels.to(y.device)]

    return Again(x, as_is, (Operated(operator),), operator.padding_mode == "circular", operator)
