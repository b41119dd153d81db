"""Swaps: one site's operator of a trained network is replaced, and MSB and invariance are measured before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError, OperatorError, ShiftError
from invariscope.base.progress import bar
from invariscope.collectors.measure.invariance import Predictions, plan_columns, predict
from invariscope.collectors.measure.jackknife import ratio_without
from invariscope.collectors.measure.msb import Tally, tally_sites
from invariscope.collectors.measure.paired import Statistic, average, mean_statistic, paired_change
from invariscope.collectors.measure.passes import Images, need_labels, predict_unshifted
from invariscope.collectors.measure.replacements import DEFAULT_REPLACEMENTS, read_replacements
from invariscope.collectors.measure.scores import kappa_without, pair_agreement, pair_hits, product_without
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.schema import MSB_READINGS
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import place
from invariscope.zoo.operators import Operatorlike, OperatorSpec, build_operator
from invariscope.zoo.operators.base import Downsample
from invariscope.zoo.sites import Site, find_sites
from invariscope.zoo.surgery import replace_downsampling
from invariscope.zoo.unchanged import unshared

SWAP_SCORES = ("consistency", "fidelity", "fidelity_product", "kappa")
"""The shift scores whose change is measured."""

_LARGEST: dict[str, float | None] = {"kappa": 2.0, **dict.fromkeys(MSB_READINGS)}
"""The largest change of each measure, where that is not 1 and enters its interval."""

NOTHING = "none"
"""In the place of a measure, where there was nothing to swap."""

Key = tuple[int | None, str, int | None]
"""Position of the plan (None: unshifted images), measure, depth of the site (None: the whole network)."""


def measure_swaps(
    model: nn.Module,
    images: Given,
    labels: Tensor | np.ndarray | None = None,
    plans: Sequence[ShiftPlan] = (),
    replacements: Sequence[Operatorlike] = DEFAULT_REPLACEMENTS,
    *,
    unshifted: bool = True,
    batch_size: int = 256,
    msb_batch_size: int | None = None,
    windows_per_image: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """What changes when a site's operator is replaced and every weight stays: site by site, and at all sites at once.

    A swap changes the downsampling operator alone. A pooling layer is replaced as a whole: a max pooling by ``blur(3)``
    becomes the blur, without a maximum before it (that is ``maxblur(3)``). A strided convolution is a dense one and
    plain subsampling, and the subsampling is replaced, right behind the convolution. New operators take the padding
    mode of the network's convolutions. A site that does what the replacement does already is no swap and has no row; a
    network of one site has none for all sites at once. Where nothing is left to swap, one row per plan says so, whose
    measure is :data:`NOTHING`.

    Every measure is taken on the same images and shifts before and after, and ``change = after - before`` has the
    paired standard error of :func:`paired_change`. The network as it was is measured once.

    The network was not trained with the replacement, so that its accuracy changes as well: see the change of a score
    beside that of the accuracy.

    Args:
        images: ``(N, C, H, W)`` as the network takes them, or another form of ``Given``; all of them are used.
        labels: ``(N,)`` integers; a data set and a loader have their own.
        plans: shift plans; the scores ``SWAP_SCORES`` are measured under each.
        replacements: operators without parameters: specifications, or classes (:func:`parse_operator`).
        unshifted: whether to measure MSB (every reading, of the changed site and as the mean over the network's sites)
            and accuracy, on the images as they are.
        progress: show a bar from two seconds on.
        msb_batch_size, windows_per_image, seed: as ``batch_size``, ... of :func:`measure_msb`.

    Returns:
        The measurement columns of the table ``swaps``: one row per site (``depth`` null: all) x replacement x plan x
        measure. A swap that cannot be made, or a measure without a number, is a row with the ``reason``.

    Raises:
        OperatorError: see :func:`read_replacements`.
        ModelError, DataError, ShiftError: the network as it is cannot be measured on the images, see
            :func:`invariscope.collectors.measure.invariance.predict`; crop plans together with ``unshifted``.
    """
    specs = read_replacements(replacements)
    images, labels = given(model, images, labels)
    if len(images) == 0:
        raise DataError("there are no images to measure swaps on: give at least one")
    need_labels(labels, "a swap")
    if unshifted and not all(plan.rule.keeps_size for plan in plans):
        raise ShiftError("a crop plan wants larger images than MSB: measure it apart, with unshifted=False")
    measurement = _SwapMeasurement(
        images, labels, tuple(plans), unshifted, batch_size, msb_batch_size, windows_per_image, seed
    )
    example = _example(model, images, plans)
    sites = [site for site in find_sites(model, example) if not site.is_aside]
    swaps = list(_swaps(model, sites, specs, example))
    rows: list[dict[str, Any]] = []
    with bar("swaps", len(swaps) + 1, progress, "network") as step:
        before = measurement.of(model)
        step()
        for swap in swaps:
            rows += _rows(model, swap, example, before, measurement)
            step()
    frame = pd.DataFrame(rows or _nothing(sites, specs, plans, unshifted), columns=_COLUMNS)
    return frame.assign(n_sites=len(sites), n_images=len(images))


_COLUMNS = [
    *("depth", "n_sites", "site", "site_kind", "replacement", *plan_columns(None), "measure", "scope"),
    *("before", "after", "change", "se", "low", "high", "n_images", "reason"),
]


@dataclass(frozen=True)
class _SwapMeasurement:
    """How a network is measured, before and after a swap."""

    images: Images
    labels: Tensor | np.ndarray
    plans: tuple[ShiftPlan, ...]
    unshifted: bool
    batch_size: int
    msb_batch_size: int | None
    windows_per_image: int | None
    seed: int

    def of(self, model: nn.Module) -> dict[Key, Statistic]:
        """Every measure of a network."""
        found: dict[Key, Statistic] = {}
        if self.unshifted:
            tallies = tally_sites(
                model,
                self.images,
                batch_size=self.msb_batch_size,
                dense_images=len(self.images),
                windows_per_image=self.windows_per_image,
                seed=self.seed,
            )
            for reading in MSB_READINGS:
                of_sites = [_reading(tally, reading) for tally in tallies if not tally.site.is_aside]
                found |= {(None, reading, depth): statistic for depth, statistic in enumerate(of_sites)}
                found[None, reading, None] = average(of_sites)
            clean = predict_unshifted(model, self.images, self.labels, batch_size=self.batch_size)
            hits = clean.prediction == torch.as_tensor(self.labels).cpu().numpy()
            found[None, "accuracy", None] = mean_statistic(hits)
        for position, plan in enumerate(self.plans):
            predictions = predict(model, self.images, self.labels, plan, batch_size=self.batch_size)
            found |= {(position, name, None): value for name, value in _scores(predictions).items()}
        return found


def _reading(tally: Tally, reading: str) -> Statistic:
    if tally.reason is not None:
        return Statistic.missing(tally.reason)
    value, without = ratio_without(*tally.ratios()[reading])
    return Statistic(value, without, floor=1 / tally.sampled if tally.sampled else 0.0)


def _scores(predictions: Predictions) -> dict[str, Statistic]:
    """The scores ``SWAP_SCORES`` of predictions, with their values without each image."""
    prediction, label = predictions.prediction, predictions.label
    right = predictions.clean_prediction == label
    agreement = pair_agreement(prediction)
    consistency = mean_statistic(agreement)
    if consistency.reason:
        return dict.fromkeys(SWAP_SCORES, consistency)
    value, _, without = kappa_without(prediction)
    one_class = Statistic.missing("kappa is not defined: every prediction is of one class")
    return {
        "consistency": consistency,
        "fidelity": mean_statistic(pair_hits(prediction == label[:, None])),
        "fidelity_product": Statistic(float(right.mean()) * consistency.value, product_without(right, agreement)),
        "kappa": one_class if np.isnan(value) else Statistic(value, without),
    }


@dataclass(frozen=True)
class _Swap:
    """A replacement at one site, or at every site (``site`` None)."""

    site: Site | None
    spec: OperatorSpec
    chosen: tuple[Site, ...]

    @property
    def depth(self) -> int | None:
        return None if self.site is None else self.site.depth

    def apply(self, model: nn.Module, example: Tensor) -> nn.Module:
        """A copy of the network with the replacement; ModelError or OperatorError where that cannot be."""
        names = {site.name for site in self.chosen}
        changed, table = replace_downsampling(
            model,
            self.spec,
            example,
            where=lambda site: site.name in names,
            placement="conv",
            keep_max=False,
            padding_mode=_padding_mode(model),
        )
        wanted = table["site"].isin(names)
        stays, further = table[wanted & ~table["replaced"]], table[~wanted & table["replaced"]]
        if len(stays):
            raise ModelError(f"{stays.iloc[0]['site']} stays: {stays.iloc[0]['reason']}")
        if len(further):
            raise ModelError(f"its module is also the site {further.iloc[0]['site']}, which would change with it")
        return changed


def _nothing(
    sites: list[Site], specs: Sequence[OperatorSpec], plans: Sequence[ShiftPlan], unshifted: bool
) -> list[dict[str, Any]]:
    """What stands for a network at which there is nothing to swap: a row per plan, without a number."""
    reason = "every site does what it would be replaced by" if sites else "the network has no downsampling site"
    shared = {"replacement": ", ".join(spec.canonical for spec in specs), "measure": NOTHING, "scope": "network"}
    of = [*([None] if unshifted else []), *plans]
    return [{**shared, **plan_columns(plan), "reason": reason} for plan in of]


def _swaps(model: nn.Module, sites: list[Site], specs: Sequence[OperatorSpec], example: Tensor) -> Iterator[_Swap]:
    """Every swap that would change something: site by site, then all sites at once where there are several."""
    other = {
        spec.canonical: tuple(site for site in sites if not _is_already(model, site, spec, example)) for spec in specs
    }
    for site in sites:
        yield from (_Swap(site, spec, (site,)) for spec in specs if site in other[spec.canonical])
    if len(sites) > 1:
        yield from (_Swap(None, spec, chosen) for spec in specs if (chosen := other[spec.canonical]))


def _is_already(model: nn.Module, site: Site, spec: OperatorSpec, example: Tensor) -> bool:
    """Whether a site does what the replacement would do there; of a pooling of others that is tried on noise."""
    old = model.get_submodule(site.path)
    if isinstance(old, Downsample):
        try:
            return build_operator(spec, old.channels, old.stride, old.padding_mode).does_as(old)
        except OperatorError:
            return False
    if site.kind == "conv":
        return spec.name == "subsample"
    if site.reason is not None or any(old.children()) or any(True for _ in old.parameters()):
        return False
    try:
        new = _Swap(site, spec, (site,)).apply(model, example).get_submodule(site.path)
    except InputError:  # which its row will tell
        return False
    shape = (2, site.channels, *site.input_size)
    noise = place(torch.randn(shape, generator=torch.Generator().manual_seed(0)), model)
    with torch.no_grad():
        made, instead = old(noise.clone()), new(noise.clone())
    return made.shape == instead.shape and torch.allclose(made, instead, rtol=1e-5, atol=1e-6)


def _padding_mode(model: nn.Module) -> str | None:
    """The one padding mode of all convolutions that pad; None where there is none, or several."""
    modes = {conv.padding_mode for conv in nn.Module.modules(model) if isinstance(conv, nn.Conv2d) and _pads(conv)}
    return modes.pop() if len(modes) == 1 and "zeros" not in modes else None


def _pads(conv: nn.Conv2d) -> bool:
    return conv.padding == "same" or (conv.padding != "valid" and any(conv.padding))


def _example(model: nn.Module, images: Images, plans: Sequence[ShiftPlan]) -> Tensor:
    """One image as the network sees it: of a crop plan's larger images a window of the network's size."""
    image = unshared(images[:1], model)
    if not isinstance(images, Tensor) and not all(plan.rule.keeps_size for plan in plans):
        return image[..., : images.spec.height, : images.spec.width]
    return image


def _rows(
    model: nn.Module, swap: _Swap, example: Tensor, before: dict[Key, Statistic], measurement: _SwapMeasurement
) -> Iterator[dict[str, Any]]:
    after: dict[Key, Statistic] = {}
    reason = "the change moves the network's sites"
    try:
        after = measurement.of(swap.apply(model, example))
    except InputError as problem:
        reason = " ".join(str(problem).split())
    moved = sum(depth is not None for _, _, depth in after) != sum(depth is not None for _, _, depth in before)
    facts = {
        "depth": swap.depth,
        "site": None if swap.site is None else swap.site.name,
        "site_kind": None if swap.site is None else swap.site.kind,
        "replacement": swap.spec.canonical,
    }
    for (position, measure, depth), old in before.items():
        if depth is not None and depth != swap.depth:
            continue
        new = after.get((position, measure, depth))
        if new is None or (moved and measure in MSB_READINGS):
            new = Statistic.missing(reason)
        yield {
            **facts,
            **plan_columns(None if position is None else measurement.plans[position]),
            "measure": measure,
            "scope": "network" if depth is None else "site",
            **vars(paired_change(old, new, _LARGEST.get(measure, 1.0))),
        }
