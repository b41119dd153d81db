"""Drift: where in a network its features begin to depend on the shift of the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import ModelError
from invariscope.base.progress import bar
from invariscope.collectors.measure.jackknife import jackknife_error
from invariscope.collectors.measure.last_map import LastMap
from invariscope.collectors.measure.passes import Images, batches, class_maps, evaluating
from invariscope.collectors.measure.rivals import unwatched
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.measure.tapping import Taps
from invariscope.collectors.measure.views import ShiftView, fill_value
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import PreparedImages, place
from invariscope.zoo.sites import Site, Use, Watch, record

Array = npt.NDArray[np.float64]
Key = tuple[str, str]
"""A site's name with ``in`` or ``out``; or one of the two below."""

LAST: Key = ("", "in")
"""The last map before the head."""

LOGITS: Key = ("", "out")

COMPARED = 4
"""Images of the first batch on which the two ways to watch a network are compared; other batches round otherwise."""

LEAST = 1e-10
"""Features that vary over the images by no more than this, in squares summed, have no drift."""


def pooled(x: Tensor) -> Array:
    """The spatial mean of a map per channel, ``(n, C, ...) -> (n, C)``, in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    made = x.flatten(2).mean(2, dtype=wide) if x.ndim > 2 else x.to(wide)
    return made.cpu().numpy()


@dataclass
class Watched:
    """Runs networks and keeps the pooled maps of each pass, by what they are of.

    The first batch of a network is watched call by call. Where the maps turn out to be those that go in and out of
    modules, and a pass of a few of its images that looks at these alone shows the same, further batches are passed so.
    """

    sites: dict[str, Site] = field(default_factory=dict)
    is_last_unclear: bool = False
    """Whether a last map was seen whose channels cannot be told from its pixels."""
    _last_channels: int = 1
    _watches: dict[int, Watch] = field(default_factory=dict)
    _taps: dict[int, Taps | None] = field(default_factory=dict)

    def run(self, network: nn.Module, batch: Tensor) -> tuple[Any, dict[Key, Array]]:
        """The network's output, and ``(n, C)`` of every site's input and output, the last map, and the logits."""
        taps = self._taps.get(id(network))
        if taps is not None:
            output, found, _ = self._tapped(network, batch, taps)
            if len(found) == 2 * len(taps.sites) + 2:
                return output, found
        output, found = self._watched(network, batch)
        if id(network) not in self._taps:
            self._taps[id(network)] = self._known(network, batch, found)
        return output, found

    def _known(self, network: nn.Module, batch: Tensor, found: dict[Key, Array]) -> Taps | None:
        """The taps of a network that show what was found of a batch."""
        taps = Taps.of(self.sites.values(), self._last_channels)
        if taps is None:
            return None
        _, again, seen = self._tapped(network, batch[:COMPARED], taps)
        first = {key: values[:COMPARED] for key, values in found.items()}
        alike = again.keys() == first.keys() and all(
            again[key].shape == first[key].shape and np.allclose(again[key], first[key], rtol=1e-3, atol=1e-5)
            for key in first
        )
        return taps.ending(seen) if alike else None

    def _tapped(self, network: nn.Module, batch: Tensor, taps: Taps) -> tuple[Any, dict[Key, Array], list[str]]:
        found: dict[Key, Array] = {}

        def take(path: str, port: str, each: Tensor) -> None:
            found[path, port] = pooled(each)

        with taps.on(network, take) as seen:
            output = network(batch)
        _add_logits(found, output, len(batch))
        return output, found, seen

    def _watched(self, network: nn.Module, batch: Tensor) -> tuple[Any, dict[Key, Array]]:
        found: dict[Key, Array] = {}
        passed: dict[str, Site] = {}

        def consume(site: Site, use: Use) -> None:
            passed[site.name] = site
            if use.maps is not None and use.rows == len(batch) and not site.is_aside:
                for port, each in zip(("in", "out"), use.maps, strict=True):
                    found[site.name, port] = pooled(each)

        def again() -> None:
            found.clear()
            passed.clear()

        watch = self._watches.setdefault(id(network), Watch())
        # A network that takes several looks is judged by its derivatives, which inference mode does not know.
        with torch.inference_mode(False), torch.no_grad():
            with LastMap(batch) as last:
                output = record(network, batch, unwatched(consume), again=again, watch=watch, maps_only=True)
            if (map_ := last.pooled()) is not None:
                found[LAST] = pooled(map_)
        self.is_last_unclear |= last.is_unclear
        self._last_channels = last.channels or 1
        _add_logits(found, output, len(batch))
        self.sites |= {name: site for name, site in passed.items() if not site.is_aside}
        return output, found


def _add_logits(found: dict[Key, Array], output: Any, images: int) -> None:
    said = class_maps(output)
    if isinstance(said, Tensor) and len(said) == images and said.ndim >= 2:
        found[LOGITS] = pooled(said)


@dataclass
class MapMeans:
    """The pooled maps of unshifted images, of the first ``images``."""

    images: int
    watched: Watched = field(default_factory=Watched)
    means: dict[Key, Array] = field(default_factory=dict)

    def run(self, network: nn.Module, first: int, batch: Tensor) -> Any:
        """The network's output for images from ``first`` on, whose pooled maps are kept."""
        if first >= self.images:
            return network(batch)
        output, found = self.watched.run(network, batch)
        rows = slice(first, min(first + len(batch), self.images))
        for key, values in found.items():
            kept = self.means.setdefault(key, np.full((self.images, values.shape[1]), np.nan, values.dtype))
            if kept.shape[1:] != values.shape[1:]:
                raise ModelError(f"site {key[0]} has other channels in another batch: give images of one size")
            kept[rows] = values[: rows.stop - rows.start]
        return output


@dataclass
class DriftSums:
    """How far the pooled maps of shifted images are from those of the unshifted ones: ``(N,)``, by what they are of."""

    still: MapMeans
    sums: dict[Key, Array] = field(default_factory=dict)
    shifts: Array | None = None
    """``(N,)``, shifts seen of each image."""

    def run(self, network: nn.Module, first: int, count: int, batch: Tensor) -> Any:
        """The network's output for the images from ``first`` on, each under ``count`` shifts, image by image."""
        still = self.still
        if first >= still.images:
            return network(batch)
        output, found = still.watched.run(network, batch)
        rows = slice(first, min(first + len(batch) // count, still.images))
        if self.shifts is None:
            self.shifts = np.zeros(still.images)
        self.shifts[rows] += count
        for key, values in found.items():
            if key not in still.means:
                continue
            moved = values.reshape(-1, count, values.shape[1])[: rows.stop - rows.start].astype(np.float64)
            apart = np.square(moved - still.means[key][rows, None]).sum((1, 2))
            self.sums.setdefault(key, np.zeros(still.images))[rows] += apart
        return output

    def frame(self) -> pd.DataFrame:
        """A row per site in forward order, and one for the head: drift in and out, what is added, and their errors.

        ``blame`` of a site is the drift that goes into the next site (the first later one that takes a map no larger
        than this one's output), or of the last map before the head, minus its own ``drift_in``. The last row, without a
        site, is the head's: ``drift_in`` is that of the last map, ``drift_out`` that of the logits.
        """
        sites = self.sites()
        rows = [
            self._row(site.depth, site.name, site.kind, (site.name, "in"), (site.name, "out"), key)
            for site, key in zip(sites, self.following(), strict=True)
        ]
        depth = sites[-1].depth + 1 if sites else 0
        rows.append(self._row(depth, None, "logits", LAST, LOGITS, LOGITS))
        return pd.DataFrame(rows)

    def sites(self) -> list[Site]:
        """The network's own sites in forward order."""
        return sorted(self.still.watched.sites.values(), key=lambda site: site.depth)

    def following(self) -> list[Key]:
        """For each site what takes up its output: the input of the next site that it fits, or the last map."""
        sites, found = self.sites(), list[Key]()
        for number, site in enumerate(sites):
            following = next((other for other in sites[number + 1 :] if _fits(other, site)), None)
            found.append((following.name, "in") if following is not None else LAST)
        return found

    def _row(self, depth: int, site: str | None, kind: str, into: Key, out: Key, following: Key) -> dict[str, Any]:
        before, after, added = self.drift_of(into), self.drift_of(out), self.drift_of(following)
        pairs = {"drift_in": before, "drift_out": after, "blame": (added[0] - before[0], added[1] - before[1])}
        row: dict[str, Any] = {"depth": depth, "site": site, "site_kind": kind}
        for name, (value, left) in pairs.items():
            row |= {name: value, f"{name}_se": jackknife_error(left)}
        missing = [name for name in pairs if np.isnan(row[name])]
        reason = "the map is not that of one image each, or does not vary over the images" if missing else None
        if missing and LAST in (into, following) and self.still.watched.is_last_unclear:
            reason = "which dimension of the last map is that of its channels cannot be told"
        return {**row, "n_images": self.still.images, "reason": reason and f"{', '.join(missing)}: {reason}"}

    def drift_of(self, key: Key) -> tuple[float, Array]:
        """The drift of what a key stands for, and it without each image in turn."""
        none = float("nan"), np.full(self.still.images, np.nan)
        means = self.still.means.get(key)
        if self.shifts is None or means is None or key not in self.sums or np.isnan(means).any():
            return none
        return drift(self.sums[key] / self.shifts, means)


def _fits(later: Site, site: Site) -> bool:
    return all(size <= out for size, out in zip(later.input_size, site.output_size, strict=True))


def drift(errors: Array, means: Array) -> tuple[float, Array]:
    """``sum_n e_n / sum_n ||g_n - mean g||^2``, and it without each image in turn; NaN where nothing varies.

    Args:
        errors: ``(N,)``, the mean over an image's shifts of ``||g(x_nk) - g(x_n0)||^2``.
        means: ``(N, C)``, ``g(x_n0)``.
    """
    wide = means.astype(np.float64)
    n = len(wide)
    spread = np.square(wide - wide.mean(0)).sum(1)
    whole = float(spread.sum())
    if not whole > LEAST:
        return float("nan"), np.full(n, np.nan)
    # The mean loses the image as well: sum_{m != i} ||g_m - mean_{-i}||^2 = D - N / (N - 1) d_i.
    rest = whole - spread * n / max(n - 1, 1)
    left = np.divide(errors.sum() - errors, rest, out=np.full(n, np.nan), where=rest > LEAST)
    return float(errors.sum() / whole), left


def measure_drift(
    model: nn.Module,
    images: Given,
    plan: ShiftPlan,
    *,
    batch_size: int = 64,
    size: int | tuple[int, int] | None = None,
    fill: float | Tensor | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The drift of the pooled features before and after every downsampling site, and of the logits, under a plan.

    ``g(x)`` is the spatial mean of a map per channel; ``drift = (1/K) sum_{n,k} ||g(x_nk) - g(x_n0)||^2 /
    sum_n ||g(x_n0) - mean_n g||^2`` for the map that goes into a site (of a strided convolution, its input) and the one
    that comes out. Of a network that predicts pixels the logits are pooled too.

    Args:
        model: any network; run in evaluation mode, and left as it was.
        images: ``(N, C, H, W)`` as the network takes them, or another form of ``Given``.
        plan: the shifts; ``size`` and ``fill`` as for ``predict``.
        progress: show a bar from two seconds on.

    Returns:
        The rows of :meth:`DriftSums.frame`.
    """
    found, _ = given(model, images)
    options: dict[str, Any] = {"batch_size": batch_size, "size": size, "fill": fill, "progress": progress}
    return sum_drift(model, found, plan, **options).frame()


def sum_drift(
    network: nn.Module,
    images: Images,
    plan: ShiftPlan,
    *,
    batch_size: int = 64,
    size: int | tuple[int, int] | None = None,
    fill: float | Tensor | None = None,
    progress: bool = True,
) -> DriftSums:
    """What :func:`measure_drift` makes its rows of."""
    if not plan.rule.keeps_size and size is None and isinstance(images, PreparedImages):
        size = images.spec.size
    view = ShiftView(plan.kind, fill_value(images, plan, fill), size)
    made = DriftSums(MapMeans(len(images)))
    first, steps = 0, -(-len(images) // max(batch_size, 1))
    with bar("drift", steps, progress) as step, evaluating(network), torch.no_grad():
        for batch in batches(images, batch_size):
            batch = place(batch, network)
            made.still.run(network, first, view.unshifted(batch))
            offsets = plan.for_rows(first, first + len(batch))
            together = max(batch_size // len(batch), 1)
            for start in range(0, offsets.shape[1], together):
                some = offsets[:, start : start + together]
                made.run(network, first, some.shape[1], view.shifted(batch, some))
            first += len(batch)
            step()
    return made
