"""What else a site does besides preferring the maximum: the rival explanations, measured in the same pass as MSB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from invariscope.base.errors import InputError
from invariscope.collectors.measure.aliasing import Energies, filter_gain, folded_energy
from invariscope.collectors.measure.derivative import (
    MOST_CHANNELS,
    apart,
    derivative_rows,
    held,
    maximum_share,
    mixes_channels,
)
from invariscope.collectors.measure.equivariance import Errors, cropped, equivariance_errors
from invariscope.collectors.measure.jackknife import jackknife_error, ratio_jackknife, ratio_without
from invariscope.collectors.measure.places import PlaceSums, place_keys, position
from invariscope.collectors.measure.windows import Windows, windows
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import Site, Use
from invariscope.zoo.sites.again import Again, rebuilt
from invariscope.zoo.sites.recorder import Consumer
from invariscope.zoo.sites.uses import Sampled

Array = npt.NDArray[np.float64]

BUDGET = 1 << 20
"""Elements of a site's dense output, over images and channels, from which spectra and rolled maps are of fewer."""

FEWEST_IMAGES, FEWEST_CHANNELS = 16, 8
"""So many there are at least: the first images, and channels drawn from the seed."""

PIECEWISE = {"max", "subsample", "avg", "blur", "phase"}
"""Kinds of sites whose weights are the rows of their Jacobian."""

NO_TWIN = "the site has no twin at stride 1"
NO_PADDING = "its padding cannot be set"
WEIGHTS_ONLY = "its weights are read with what they depend on held fixed"


Seen = Callable[[Tensor, Tensor], None]
"""Is given the weights ``(n, M, L)`` of the windows that are not flat, summed over channels, and their number."""


@dataclass
class Rivals:
    """What one site has given so far; image by image, in the order of the images."""

    seed: int = 0
    places: PlaceSums = field(default_factory=PlaceSums)
    shares: list[Array] = field(default_factory=list)
    """``(2, n)``: corrected shares of the derivative on the maximum, and the windows that they are over."""
    energies: list[Energies] = field(default_factory=list)
    around: list[Errors] = field(default_factory=list)
    own: list[Errors] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    """Why a reading has no number, by its name."""

    def copy(self) -> Rivals:
        """The same, to be added to apart."""
        lists: dict[str, Any] = {name: list(getattr(self, name)) for name in ("shares", "energies", "around", "own")}
        return replace(self, **lists, places=PlaceSums(list(self.places.parts)), reasons=dict(self.reasons))

    def watch(self, use: Use, first: int, outputs: Tensor | None, window: Windows) -> Seen | None:
        """What takes the weights of some outputs' windows by their places, of the images from ``first`` on."""
        stride, out, pixels = use.stride, use.output_size, window.pixels
        if stride is None:
            return None
        if use.costs_dense and outputs is not None:
            keys = torch.where(pixels < 0, -1, pixels % (stride[0] * stride[1]))  # a view holds the cells one by one
        else:
            every = torch.arange(out[0] * out[1]) if outputs is None else outputs
            keys = place_keys(pixels, every.to(pixels.device), use.input_size, out[1], stride)
        return lambda weights, count: self.places.add(first, keys, weights, count, window.size)

    def read(self, site: Site, use: Use, start: int, corrected: Array, windows: Array) -> None:
        """Measure a use of the site by the images from ``start`` on.

        ``corrected (n,)``: the sums of ``msb_corrected``, and ``windows (n,)`` those that they are over.
        """
        stride, again = use.stride, use.again
        if stride is None:
            return
        uniform = uniform_weights(use)
        images, channels = self._sample(site, use, start, len(windows))
        if uniform is not None or use.costs_dense or PIECEWISE.issuperset(use.kind.split("+")):
            self.shares.append(np.stack([corrected, windows]))
        elif again is None or again.operator is None:
            self.reasons["msb_jacobian"] = WEIGHTS_ONLY
        elif images > 0:
            with _excused(self.reasons, "msb_jacobian"):
                self.shares.append(self._derivative(site, again.operator, use, images))
        if images <= 0:
            return
        with _excused(self.reasons, "aliasing"):
            self._aliasing(use, uniform, images, channels)
        with _excused(self.reasons, "see", "see_padding"):
            self._see(use, again, images, channels)

    def _sample(self, site: Site, use: Use, start: int, rows: int) -> tuple[int, Tensor | None]:
        """Of how many of the first ``rows`` images spectra and rolled maps are, and of which channels; None for all."""
        area = use.input_size[0] * use.input_size[1]
        most = max(BUDGET // (area * use.channels), FEWEST_IMAGES)
        wide = max(BUDGET // (area * FEWEST_IMAGES), FEWEST_CHANNELS)
        channels = None
        if use.channels > wide:
            drawn = np.random.default_rng([self.seed, site.depth]).choice(use.channels, wide, replace=False)
            channels = torch.from_numpy(np.sort(drawn))
        return min(rows, most - start), channels

    def _derivative(self, site: Site, operator: Downsample, use: Use, images: int) -> Array:
        """Shares of the derivative on the maximum, on windows without a pixel in common."""
        draw = np.random.default_rng([self.seed, site.depth])
        places = use.view(slice(0, 1))
        window = windows(places.cells, places.taps.index)
        outputs = apart(window.pixels, use.output_size, draw)
        pixels, size = (each[outputs.to(each.device)] for each in (window.pixels, window.size))
        x = _input(use)[:images].double()
        made = held(rebuilt(operator).double(), x[:1])
        channels = torch.arange(x.shape[1])
        mixed = x.shape[1] > 1 and mixes_channels(made, x[:1])
        if mixed:
            channels = torch.from_numpy(np.sort(draw.permutation(x.shape[1])[:MOST_CHANNELS]))
        total = np.zeros((2, images))
        for some in channels.split(1) if mixed else (channels,):
            some = some.to(x.device)
            rows = derivative_rows(made, x, outputs, pixels, some)
            index = pixels.T
            values = x[:, some].flatten(2)[:, :, index.clamp(min=0)].masked_fill(index < 0, float("-inf"))
            total += np.stack(maximum_share(values, rows, size))
        return total

    def _aliasing(self, use: Use, uniform: Uniform | None, images: int, channels: Tensor | None) -> None:
        stride = use.stride or (1, 1)
        if uniform is not None:
            weights, pixels = uniform(images)
            x = _input(use)[:images]
            if channels is not None:
                x = x[:, channels.to(x.device)]
                weights = weights[:, channels.to(weights.device)] if weights.shape[1] > 1 else weights
            gain = filter_gain(weights, pixels, use.input_size)
            self.energies.append(folded_energy(x, stride, gain))
        elif use.again is not None and use.again.stages is not None:
            dense = use.again.circular(use.again.x[:images], channels, dense=True)
            self.energies.append(folded_energy(dense, stride))
        else:
            raise InputError(NO_TWIN)

    def _see(self, use: Use, again: Again | None, images: int, channels: Tensor | None) -> None:
        stride = use.stride or (1, 1)
        if again is None:
            raise InputError("its function cannot be made again on other maps")
        x = cropped(again.x[:images], stride)
        out = x.shape[-2] // stride[0], x.shape[-1] // stride[1]
        if 0 in out or out == (1, 1):
            raise InputError("its output has one pixel" if out == (1, 1) else "the map is smaller than the stride")
        if x.shape != again.x[:images].shape and not _runs(again, x[:1]):
            raise InputError("the map, cut to a multiple of the stride, is too small for the site")
        if again.stages is None and not again.closed:
            raise InputError(NO_PADDING)
        run = again.own if again.stages is None else again.circular
        made = equivariance_errors(lambda each: run(each, channels), x, stride)
        own = made if again.closed else equivariance_errors(lambda each: again.own(each, channels), x, stride)
        self.around.append(made)
        self.own.append(own)

    def columns(self) -> dict[str, Any]:
        """The site's readings with their standard errors, and why some are missing."""
        row: dict[str, Any] = {}
        images = max((first + len(counts) for first, _, _, counts in self.places.parts), default=0)
        value, left = position(*self.places.per_image(images))
        row["position"], row["position_se"] = value, jackknife_error(left)
        shares = np.concatenate(self.shares, 1) if self.shares else np.zeros((2, 0))
        row["msb_jacobian"], row["msb_jacobian_se"] = ratio_jackknife(*shares)
        energies = _joined(self.energies)
        row["aliasing"], row["aliasing_se"] = ratio_jackknife(*energies)
        value, left = _root(_joined(self.around))
        row["see"], row["see_se"] = value, jackknife_error(left)
        own, own_left = _root(_joined(self.own))
        row["see_padding"], row["see_padding_se"] = own - value, jackknife_error(own_left - left)
        reasons = dict(self.reasons)
        # What cannot be had of some batches is no number of the others alone.
        row |= {column: float("nan") for name in reasons for column in (name, f"{name}_se")}
        for name in ("msb_jacobian", "aliasing", "see", "see_padding"):
            if np.isnan(row[name]):
                reasons.setdefault(name, "nothing varies")
        row["not_applicable"] = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or None
        return row


@contextmanager
def _excused(reasons: dict[str, str], *names: str) -> Iterator[None]:
    """Readings that cannot be had have a reason instead."""
    try:
        yield
    except InputError as error:
        reasons.update(dict.fromkeys(names, str(error)))


def _runs(again: Again, x: Tensor) -> bool:
    """Whether a site takes maps of this size."""
    try:
        again.own(x)
    except RuntimeError:
        return False
    return True


def unwatched(consume: Consumer) -> Consumer:
    """A consumer of whose own calls the recorder sees nothing."""

    def quietly(site: Site, use: Use) -> None:
        with torch._C.DisableTorchFunction():
            consume(site, use)

    return quietly


Uniform = Callable[[int], tuple[Tensor, Tensor]]
"""Of the first images: weights ``(n, C, K)``, the same at every output, and flat pixels ``(K,)`` of one output."""


def uniform_weights(use: Use) -> Uniform | None:
    """The weights of a site that weighs its windows alike everywhere: fixed filters, phases, mixtures of phases."""
    if not isinstance(use, Sampled) or use.output_size == (1, 1):
        return None
    middle = torch.tensor([use.output_size[0] // 2 * use.output_size[1] + use.output_size[1] // 2])
    behaves = use.again is not None and use.again.operator is None and use.kind in ("phase", "mixture")
    taps = use.taps(slice(0, 1), None if behaves else torch.cat([middle, middle - 1]))
    number = int(middle) if behaves else 0
    index, weights = taps.index[number], taps.weights
    if bool((index < 0).any()):
        return None
    if weights.shape[2] != 1:
        inside = (taps.index >= 0).all(1).to(weights.device)
        alike = (weights[:, :, inside] - weights[:, :, number : number + 1]).abs() < 1e-9
        if not behaves or not bool(alike.all()):
            return None

    def of(images: int) -> tuple[Tensor, Tensor]:
        taps = use.taps(slice(0, images), middle)
        return taps.weights[:, :, 0], taps.index[0]

    return of


def _input(use: Use) -> Tensor:
    """The map that goes into a site."""
    if use.maps is None:
        raise InputError("its input is not known")
    return use.maps[0]


def _joined(parts: Any) -> tuple[Array, Array]:
    first, second = (np.concatenate([part[number] for part in parts]) if parts else np.zeros(0) for number in (0, 1))
    return first, second


def _root(sums: tuple[Array, Array]) -> tuple[float, Array]:
    value, left = ratio_without(*sums)
    return float(np.sqrt(value)), np.sqrt(left)
