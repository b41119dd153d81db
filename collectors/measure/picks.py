"""Where the windows of one site have their maximum, and what the site samples there: of one channel of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from invariscope.base.errors import InputError, ModelError
from invariscope.base.names import unknown
from invariscope.collectors.measure.rivals import unwatched
from invariscope.collectors.measure.windows import gather, on_window, windows
from invariscope.zoo.datasets.inputs import place
from invariscope.zoo.sites import Site, Use, record

Array = npt.NDArray[np.float64]

MOST_ACROSS = 12
"""Windows along either axis at most; where there are more, those of the part of the map that varies most."""


@dataclass(frozen=True, eq=False)
class Picks:
    """Windows of a site on one channel of one image.

    Attributes:
        site, channel: which.
        outputs: ``(L, 2)`` rows and columns of the outputs looked at.
        values: ``(H, W)`` the output's values in this channel.
        maxima: ``(L, 2)`` row and column of the window's maximum in the site's map, of tied ones the mean; NaN where
            the window is flat.
        sampled: ``(L, 2)`` the mean place of what the output is made of, by its weights; NaN as above.
        weight: ``(L,)`` the weight on the maximum (ties summed); NaN as above.
    """

    site: Site
    channel: int
    outputs: npt.NDArray[np.int64]
    values: Array
    maxima: Array
    sampled: Array
    weight: Array

    @property
    def flat(self) -> int:
        """Windows of which all values are equal."""
        return int(np.isnan(self.weight).sum())


def measure_picks(model: nn.Module, image: Tensor, site: str, *, channel: int | None = None) -> Picks:
    """Where the windows of a site have their maximum, and what the site samples.

    Args:
        image: ``(1, C, H, W)`` as the network takes it.
        site: its name, as in ``measure_msb``.
        channel: of the site's map; by default the one that varies most over the image.

    Raises:
        InputError: no such site, or channel; ModelError: a site whose weights are not known.
    """
    found: list[Picks] = []
    names: list[str] = []

    def consume(each: Site, use: Use) -> None:
        names.append(each.name)
        if each.name == site:
            found.append(_picks(each, use, channel))

    def again() -> None:
        found.clear()
        names.clear()

    record(model, place(image, model), unwatched(consume), again=again)
    if not found:
        raise InputError(unknown("site", site, names))
    return found[0]


def _picks(site: Site, use: Use, channel: int | None) -> Picks:
    if site.reason is not None or use.maps is None or use.stride is None:
        raise ModelError(f"site {site.name} has no windows to draw: {site.reason or 'its maps are not known'}")
    made = use.maps[1][0].double()
    if channel is None:
        channel = int(made.flatten(1).var(1).argmax()) if made[0].numel() > 1 else 0
    if not 0 <= channel < len(made):
        raise InputError(f"channel is {channel}, and site {site.name} has 0 to {len(made) - 1}")
    values = made[channel].cpu().numpy()
    rows, columns = (_busiest(values, axis) for axis in (0, 1))
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    outputs = torch.from_numpy(grid[:, 0] * use.output_size[1] + grid[:, 1])
    view = use.view(slice(0, 1), outputs)
    window = windows(view.cells, view.taps.index)
    weights = view.taps.weights[:, channel if view.taps.weights.shape[1] > 1 else 0][:, None].double()
    weights = on_window(weights, window)[0, 0]
    seen = gather(view.pixels[:, channel : channel + 1].double(), window.pixels)[0, 0]
    hit = seen == seen.amax(0)
    mass, ties = weights.sum(0), hit.sum(0)
    mixed = (mass > 0) & (ties < window.size.to(ties.device))
    places = _places(use, window.pixels.cpu().numpy(), grid)
    maxima = _centre(places, hit.double().cpu().numpy())
    sampled = _centre(places, weights.cpu().numpy())
    weight = ((weights * hit).sum(0) / mass).cpu().numpy()
    for each in (maxima, sampled, weight):
        each[~mixed.cpu().numpy()] = np.nan
    return Picks(site, channel, grid, values, maxima, sampled, weight)


def _busiest(values: Array, axis: int) -> npt.NDArray[np.int64]:
    """The run of rows (or columns) of the output in which its values vary most."""
    size = values.shape[axis]
    if size <= MOST_ACROSS:
        return np.arange(size)
    spread = np.square(values - values.mean()).sum(1 - axis)
    runs = np.convolve(spread, np.ones(MOST_ACROSS), "valid")
    return int(runs.argmax()) + np.arange(MOST_ACROSS)


def _places(use: Use, pixels: npt.NDArray[np.int64], grid: npt.NDArray[np.int64]) -> Array:
    """Row and column of every pixel of a window, ``(M, L, 2)``, in the site's map, beside its window."""
    stride, size = np.array(use.stride), np.array(use.input_size)
    if use.costs_dense:  # a view of some outputs holds their stride cells, one after the other
        inside = pixels.T % stride.prod()
        found = np.stack([inside // stride[1], inside % stride[1]], -1) + grid * stride
    else:
        found = np.stack([pixels.T // size[1], pixels.T % size[1]], -1)
    # What a circular padding takes from the other side is drawn where the window lies.
    middle = grid * stride + (stride - 1) / 2
    away = found - middle
    around = np.where(np.abs(away) > size / 2, away - np.sign(away) * size, away)
    made: Array = middle + around
    made[pixels.T < 0] = 0.0
    return made


def _centre(places: Array, weights: Array) -> Array:
    total = weights.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Array = (places * weights[..., None]).sum(0) / total[:, None]
    return found
