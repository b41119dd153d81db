"""Maximum-sampling bias: how strongly every downsampling site of a network prefers the maximum of its window."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError
from invariscope.base.progress import bar
from invariscope.collectors.measure.batches import shared_batch
from invariscope.collectors.measure.finite import all_finite
from invariscope.collectors.measure.jackknife import ratio_jackknife
from invariscope.collectors.measure.rivals import Rivals, Seen, unwatched
from invariscope.collectors.measure.windows import Windows, gather, on_window, windows
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import place
from invariscope.zoo.sites import Site, Use, View, Watch, record

if TYPE_CHECKING:
    from invariscope.zoo.datasets.inputs import PreparedImages

Array = npt.NDArray[np.float64]

PATCH_CELL = 16
"""Pixels of a stride cell from which a strided convolution's windows are sampled: its dense output costs as many times
the layer."""

PATCH_WINDOWS = 64
"""Output locations sampled per image there, unless the caller asks for another number."""

LARGEST_WHOLE = 1024
"""Output locations of a site up to which all are looked at; of a larger map as many are sampled per image, unless the
caller asks otherwise. Outputs of an image are alike: the jackknife over images has what sampling adds."""

CHUNK, LARGEST_CHUNK = 1 << 20, 1 << 23
"""Window entries handled at once: so many of several images; the outputs of one image are divided from so many on."""

AT_ONCE = 1 << 17
"""Window entries handled in one go, channel by channel: so many, and what is made of them, stay in the cache."""

_SUMS = ("windows", "flat", "equal", "weight", "top", "corrected", "selectivity")


def window_sums(view: View, places: Windows, seen: Seen | None = None) -> Array:
    """Sums over the windows of each image: ``(n, 7)``, columns ``windows, flat, equal, weight, top, corrected,
    selectivity``.

    The last five are over windows that are not flat: outputs equal to the window's maximum; weight on the maximum;
    share of the positions of greatest weight that are maxima; ``(weight - t/|W|) / (1 - t/|W|)`` with ``t`` tied
    maxima; ``(sum a^2 - 1/|W|) / (1 - 1/|W|)``.
    """
    weights = view.taps.weights
    weights = on_window(weights.to(torch.promote_types(weights.dtype, torch.float32)), places)
    values = gather(view.pixels, places.pixels)
    n, channels = values.shape[:2]
    step = max(AT_ONCE // max(n * places.pixels.numel(), 1), 1)
    total = torch.zeros(n, len(_SUMS), dtype=torch.float64, device=view.pixels.device)
    lies: list[Tensor] = []

    def add(*found: Tensor) -> None:
        lies[:] = [one + other for one, other in zip(lies, found, strict=True)] if lies else found

    for start in range(0, channels, step):
        some = slice(start, start + step)
        own = weights[:, some].contiguous() if weights.shape[1] > 1 else weights
        total += _sums(values[:, some], view.outputs[:, some], own, places.size, seen and add)
    if seen is not None and lies:
        seen(*lies)
    return total.cpu().numpy()


def _sums(values: Tensor, outputs: Tensor, weights: Tensor, size: Tensor, seen: Seen | None) -> Tensor:
    """The sums of :func:`window_sums` from values and weights ``(n, C, M, L)``, outputs ``(n, C, L)``, sizes ``(L,)``.

    The pixels of a window lie in the last dimension but one: a reduction over a short last one is slow.
    """
    maximum = values.amax(2)
    hit = values == maximum[:, :, None]
    ties = _count(hit)
    mass = _total(weights)
    weight = _total(hit, weights) / mass
    # Weights that are equal but for the rounding of their sums are tied.
    greatest = weights >= weights.amax(2, keepdim=True) * (1 - 16 * torch.finfo(weights.dtype).eps)
    top = _count(hit & greatest) / _count(greatest)

    sampled = (mass > 0).expand_as(ties)
    mixed = sampled & (ties < size)
    corrected = (weight * size - ties) / (size - ties)
    selectivity = (_total(weights, weights) / mass.square() * size - 1) / (size - 1)
    if seen is not None:
        seen(_summed(weights, mixed / mass), mixed.sum(1))
    columns = [sampled, sampled & ~mixed, mixed & (outputs == maximum)]
    columns += [torch.where(mixed, reading, 0) for reading in (weight, top, corrected, selectivity)]
    return torch.stack([column.sum((1, 2), dtype=torch.float64) for column in columns], 1)


def _total(these: Tensor, weights: Tensor | None = None) -> Tensor:
    """``sum_m these_m weights_m`` in float64, ``(n, C, M, L)`` to ``(n, C, L)``; by slices, with no large temporary."""
    total = torch.zeros(these.shape[:2] + these.shape[3:], dtype=torch.float64, device=these.device)
    shared = None if weights is None or weights.shape[:2] != (1, 1) else weights.count_nonzero((0, 1, 3)).tolist()
    for m, chosen in enumerate(these.unbind(2)):
        if shared is None or shared[m]:  # of a convolution's window one pixel alone has a weight
            total += chosen if weights is None else chosen * weights[:, :, m]
    return total


def _count(these: Tensor) -> Tensor:
    """``sum_m these_m`` of truths in float64, ``(n, C, M, L)`` to ``(n, C, L)``; bytes add up faster than doubles."""
    total = these[:, :, 0].to(torch.uint8 if these.shape[2] < 256 else torch.int64)
    for chosen in these.unbind(2)[1:]:
        total += chosen
    return total.double()


def _summed(weights: Tensor, scale: Tensor) -> Tensor:
    """``sum_c weights_cm scale_c``: ``(n, C, M, L)`` and ``(n, C, L)`` to ``(n, M, L)``."""
    if weights.shape[1] == 1:
        return weights[:, 0] * scale.sum(1)[:, None]
    return torch.stack([(part * scale).sum(1) for part in weights.unbind(2)], 1)


@dataclass
class Tally:
    """What one site has given so far: its sums per image."""

    site: Site
    sums: list[Array] = field(default_factory=list)
    failed: str | None = None
    """Why a batch could not be read, where one could not."""
    explained: str = ""
    """How the site is explained, where one of the batches says otherwise than the first."""
    sampled: int = 0
    """Windows drawn so far, over all images (one for all channels); 0 where all of them are looked at."""
    rivals: Rivals | None = None
    """What else was asked for of the site."""

    def copy(self) -> Tally:
        """The same, to be added to apart."""
        return replace(self, sums=list(self.sums), rivals=self.rivals and self.rivals.copy())

    @property
    def counts(self) -> dict[str, Array]:
        """The sums of every image, ``(N,)`` each, by the names of ``_SUMS``."""
        stacked = np.concatenate(self.sums) if self.sums else np.zeros((0, len(_SUMS)))
        return dict(zip(_SUMS, stacked.T, strict=True))

    @property
    def reason(self) -> str | None:
        """Why the site has no readings, where it has none."""
        if self.site.reason is not None or self.failed is not None:
            return self.site.reason or self.failed
        count = self.counts
        if (count["windows"] - count["flat"]).any():
            return None
        return "every window is flat" if count["windows"].any() else "no window has a sampled pixel"

    def ratios(self) -> dict[str, tuple[Array, Array]]:
        """Numerator and denominator of each reading, per image."""
        count = self.counts if self.failed is None else dict.fromkeys(_SUMS, np.zeros(0))
        mixed = count["windows"] - count["flat"]
        return {
            "msb": (count["equal"], mixed),
            "msb_all": (count["equal"] + count["flat"], count["windows"] * mixed.any()),
            "msb_weight": (count["weight"], mixed),
            "msb_top": (count["top"], mixed),
            "msb_corrected": (count["corrected"], mixed),
            "flat_fraction": (count["flat"], count["windows"]),
            "selectivity": (count["selectivity"], mixed),
        }

    def row(self) -> dict[str, Any]:
        """The site's columns of the table ``layers``."""
        site, ratios = self.site, self.ratios()
        windows_of_all = ratios["flat_fraction"][1]
        row: dict[str, Any] = {
            "site": site.name,
            "site_kind": site.kind,
            "kernel": _by(site.kernel),
            "stride": _by(site.stride),
            "channels": site.channels,
            "input_size": _by(site.input_size),
            "output_size": _by(site.output_size),
            "n_windows": int(windows_of_all.sum()),
            "n_images": len(windows_of_all),
        }
        for name in ratios:
            row[name], error = ratio_jackknife(*ratios[name])
            # What happens in none of m windows drawn can still happen in one of m.
            row[f"{name}_se"] = max(error, 1 / self.sampled) if self.sampled and error == error else error
        rivals = Rivals() if self.rivals is None or self.failed is not None else self.rivals
        return {**row, **rivals.columns(), "explained": self.explained or site.explained, "reason": self.reason}


def _by(size: tuple[int, int] | None) -> str | None:
    return None if size is None else f"{size[0]}x{size[1]}"


@dataclass
class _Measurement:
    """The consumer of recorded uses: measures each one and keeps a tally per site."""

    dense_images: int
    windows_per_image: int | None
    windows_at_most: int | None
    seed: int
    rivals: bool
    tallies: dict[str, Tally] = field(default_factory=dict)
    start: int = 0
    """Index of the batch's first image."""
    before: dict[str, Tally] = field(default_factory=dict)

    def begin(self, start: int) -> None:
        """A batch comes, from this image on."""
        self.start = start
        self.before = {name: tally.copy() for name, tally in self.tallies.items()}

    def forget(self) -> None:
        """Forget what the batch has given so far: it comes again."""
        self.tallies = {name: tally.copy() for name, tally in self.before.items()}

    def __call__(self, site: Site, use: Use) -> None:
        rivals = Rivals(self.seed) if self.rivals else None
        tally = self.tallies.setdefault(site.name, Tally(site, rivals=rivals))
        if tally.site != site:
            changed = f"site {site.name} changes from batch to batch ({site.changed_from(tally.site)})"
            raise ModelError(f"{changed}: give the network images on which it does the same")
        if site.reason is not None:
            tally.failed, tally.explained = site.reason, site.explained
        if tally.site.reason is not None or tally.failed is not None:
            return
        images = min(use.rows, self.dense_images - self.start) if use.costs_dense else use.rows
        if images <= 0:
            return
        sums = np.zeros((images, len(_SUMS)))
        drawn = self._drawn(use)
        tally.sampled += images * (drawn or 0)
        for rows, outputs in self._parts(site, use, images, drawn):
            view = use.view(rows, outputs)
            if not all_finite(view.pixels):
                raise ModelError(
                    f"site {site.name} has NaN or infinite values: check the network's weights and the images' range"
                )
            places = windows(view.cells, view.taps.index)
            rivals = tally.rivals
            seen = None if rivals is None else rivals.watch(use, self.start + rows.start, outputs, places)
            sums[rows] += window_sums(view, places, seen)
        tally.sums.append(sums)
        if tally.rivals is not None:
            tally.rivals.read(site, use, self.start, sums[:, 5], sums[:, 0] - sums[:, 1])

    def _drawn(self, use: Use) -> int | None:
        """Output locations to draw per image; None for all."""
        cell = use.stride[0] * use.stride[1] if use.stride else 1
        limit = self.windows_per_image
        if limit is None:
            limit = PATCH_WINDOWS if use.costs_dense and cell >= PATCH_CELL else self.windows_at_most
        return limit if limit is not None and limit < use.output_size[0] * use.output_size[1] else None

    def _parts(self, site: Site, use: Use, images: int, drawn: int | None) -> Iterator[tuple[slice, Tensor | None]]:
        """Rows and outputs to look at together: all outputs of some images, or some outputs of one."""
        locations = use.output_size[0] * use.output_size[1]
        cell = use.stride[0] * use.stride[1] if use.stride else 1
        taps = use.view(slice(0, 1), torch.zeros(1, dtype=torch.long)).taps.index.shape[1]
        entries = use.channels * max(taps, cell)
        if drawn is not None or entries * locations > LARGEST_CHUNK:
            for row in range(images):
                chosen = torch.arange(locations)
                if drawn is not None:
                    draw = np.random.default_rng([self.seed, site.depth, self.start + row])
                    chosen = torch.from_numpy(np.sort(draw.choice(locations, drawn, replace=False)))
                for part in chosen.split(max(LARGEST_CHUNK // entries, 1)):
                    yield slice(row, row + 1), part
            return
        at_once = max(CHUNK // (entries * locations), 1)
        for row in range(0, images, at_once):
            yield slice(row, min(row + at_once, images)), None


def measure_msb(
    model: nn.Module,
    images: Given,
    *,
    batch_size: int | None = None,
    dense_images: int = 256,
    windows_per_image: int | None = None,
    windows_at_most: int | None = LARGEST_WHOLE,
    seed: int = 0,
    on_output: Callable[[int, Any], None] | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """The maximum-sampling bias of every downsampling site of a network: one row per site, in forward order.

    The window ``W(o)`` of an output is the union of its stride cell (``s x s`` pixels from ``s o``) and its operator's
    support, as pixels of the site's input; the sampling weights are normalised over it. Windows of which no sampled
    pixel lies in the map are left out. Over the windows that are not flat (all values equal):

    * ``msb``: share with ``y_o == max W(o)``, exactly, in the type of the forward pass;
    * ``msb_weight``: mean weight on the maximum;
    * ``msb_top``: mean share of the positions of greatest weight that are maxima;
    * ``msb_corrected``: mean of ``(weight - t/|W|) / (1 - t/|W|)`` with ``t`` tied maxima.

    ``msb_all`` is ``msb`` over all windows with the flat ones as hits, ``flat_fraction`` is their share. Each is a
    ratio pooled over all windows of all images, with its jackknife standard error over images (``_se``); where windows
    are drawn, that is at least ``1 / m`` for ``m`` of them, so that what was not met is not held to be impossible.

    Args:
        images: ``(N, C, H, W)`` as the network takes them, moved to its device and floating-point type; or in another
            form of :data:`invariscope.zoo.datasets.given.Given`.
        batch_size: images per pass, by default by their pixels (64 up to 90 x 90, 8 from 182 x 182 on).
        dense_images: strided convolutions are measured on their dense (stride 1) output, on that many first images.
        windows_per_image: output locations per image and site (every channel at each), drawn without replacement
            from ``seed``; by default all of them up to ``windows_at_most``, or that many, and ``PATCH_WINDOWS`` where a
            convolution's stride is 4 or more. A number larger than any map asks for all.
        windows_at_most: None for all, where ``windows_per_image`` is not given.
        progress: show a bar from two seconds on.
        on_output: called after each batch with the index of its first image and the network's output, so that the
            unshifted images need not be run again for what else is wanted of them.

    Returns:
        The measurement columns of the table ``layers``; readings are NaN, with the ``reason``, where there are none.
        Sites on side branches come last and do not count in ``n_sites``. A network without sites gives one row with a
        null ``site``.

    Raises:
        ModelError: when the forward pass fails, or a site holds NaN or infinite values.
        DataError: for no images.
    """
    found, _ = given(model, images)
    tallies = tally_sites(
        model,
        found,
        batch_size=batch_size,
        dense_images=dense_images,
        windows_per_image=windows_per_image,
        windows_at_most=windows_at_most,
        seed=seed,
        on_output=on_output,
        rivals=True,
        progress=progress,
    )
    rows = [tally.row() for tally in tallies] or [_no_site(len(found))]
    frame = pd.DataFrame(rows)
    frame.insert(0, "depth", range(len(frame)))
    frame.insert(1, "n_sites", sum(not tally.site.is_aside for tally in tallies))
    return frame


def tally_sites(
    model: nn.Module,
    images: Tensor | PreparedImages,
    *,
    batch_size: int | None = None,
    dense_images: int = 256,
    windows_per_image: int | None = None,
    windows_at_most: int | None = None,
    seed: int = 0,
    on_output: Callable[[int, Any], None] | None = None,
    rivals: bool = False,
    progress: bool = True,
) -> list[Tally]:
    """What :func:`measure_msb` makes its rows of: the sums over windows, per site and image.

    ``rivals``: also what else a row holds, :mod:`invariscope.collectors.measure.rivals`.
    The network's own sites in forward order, then those on side branches.
    """
    names = ("batch_size", "dense_images", "windows_per_image", "windows_at_most")
    for name, value in zip(names, (batch_size, dense_images, windows_per_image, windows_at_most), strict=True):
        if value is not None and value < 1:
            raise InputError(f"{name} is {value}, and must be at least 1")
    if seed < 0:
        raise InputError(f"seed is {seed}, and must be 0 or more")
    if len(images) == 0:
        raise DataError("there are no images to measure MSB on: give at least one")
    measurement, watch = _Measurement(dense_images, windows_per_image, windows_at_most, seed, rivals), Watch()
    size = batch_size or shared_batch(math.prod(images[:1].shape[-2:]))
    starts = range(0, len(images), size)
    with bar("MSB", len(starts), progress) as step:
        for start in starts:
            measurement.begin(start)
            batch = place(images[start : start + size], model)
            output = record(model, batch, unwatched(measurement), again=measurement.forget, watch=watch)
            if on_output is not None:
                on_output(start, output)
            step()
    return sorted(measurement.tallies.values(), key=lambda tally: (tally.site.is_aside, tally.site.depth))


def _no_site(images: int) -> dict[str, Any]:
    """The row of a network without a downsampling site."""
    empty = Site(0, "", "", "", None, None, 0, (0, 0), (0, 0), "the network has no downsampling site")
    row = {**Tally(empty).row(), "n_images": images}
    return {**row, **dict.fromkeys(("site", "site_kind", "channels", "input_size", "output_size", "explained"))}
