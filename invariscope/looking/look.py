"""Looking at one network: the measurements, each made by the function that fills the tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from invariscope.base.errors import DataError, InputError, ModelError, ShiftError
from invariscope.base.progress import bar
from invariscope.base.words import counted
from invariscope.collectors.measure.blame import Blame, around, blame_of, circular_sums
from invariscope.collectors.measure.drift import DriftSums, MapMeans
from invariscope.collectors.measure.exactness import try_choices
from invariscope.collectors.measure.invariance import plan_columns, predict, score
from invariscope.collectors.measure.msb import measure_msb
from invariscope.collectors.measure.passes import Images, predict_unshifted
from invariscope.collectors.measure.picks import Picks, measure_picks
from invariscope.collectors.measure.replacements import read_replacements
from invariscope.collectors.measure.shifts import ShiftPlan
from invariscope.collectors.measure.swap import NOTHING, measure_swaps
from invariscope.collectors.measure.views import fill_value
from invariscope.looking.found import Look, Shown
from invariscope.zoo.datasets.given import Given, given
from invariscope.zoo.datasets.inputs import PreparedImages
from invariscope.zoo.operators import operator_code_files

KINDS = ("circular", "zero")
SWAPS = ("blur(m=3)", "aps")
LIMIT, SWAP_IMAGES, FEWEST = 64, 32, 8
"""Images that are measured, and of small images those of them whose swaps are; of larger ones there are fewer."""

SMALL = 64
"""Pixels along the sides of a small image."""

N_SHIFTS = 9


def look(
    model: nn.Module,
    images: Given,
    labels: Tensor | np.ndarray | None = None,
    *,
    kinds: Sequence[str] = KINDS,
    max_shift: int | None = None,
    site: str | None = None,
    image: int | None = None,
    swaps: Sequence[str] = SWAPS,
    classes: Sequence[str] = (),
    name: str = "",
    limit: int = LIMIT,
    batch_size: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> Look:
    """Look at one network: is it stable under shifts, which layer is to blame, and what would another operator change?

    Measured are MSB, selectivity and ``see`` of every site (:func:`measure_msb`), consistency and what each site adds
    to the drift (:func:`blame_of`) under sampled plans of nine shifts of each kind, one image under every shift of a
    grid, where the windows of one site have their maximum (:func:`measure_picks`), and what changes when one site's
    operator is replaced (:func:`measure_swaps`, under the first kind). Of a network that chooses its phases is said
    which precondition of exact invariance is broken, and where (:func:`explain_invariance`). What cannot be measured
    is said in ``notes``.

    Args:
        model: a network that returns logits; run in evaluation mode, and left as it was.
        images: ``(N, C, H, W)`` as the network takes them, or another form of ``Given``; the first ``limit`` are
            measured.
        labels: ``(N,)`` integers; without them what the network says of the unshifted images takes their place, and
            nothing is said of accuracy.
        kinds: shift kinds, all of which keep the image's size.
        max_shift: largest displacement in pixels; by default an eighth of the image's shorter side.
        site: the site whose windows are drawn; by default the one that adds most to the drift.
        image: index of the image to draw; by default the least stable one, of those that are predicted right.
        swaps: operators without parameters that are put in the place of each site's; none: no swaps.
        classes: names of the classes.
        name: what the network is called.
        progress: show a bar on standard error from two seconds on, when that is a terminal or a notebook's.

    Returns:
        :class:`Look`: ``.lines()`` in words, ``.figure()`` with four panels, ``.frame()`` with a row per part of the
        network and kind; a notebook shows all of it.

    Raises:
        ModelError, DataError, ShiftError, OperatorError: the network cannot be measured on these images.
    """
    images, labels = given(model, images, labels)
    plans = _plans(images, kinds, max_shift, limit, seed)
    if own := [text for text in swaps if not operator_code_files(text)]:  # others' code runs after all else
        read_replacements(own)
    images, labels, notes = _first(images, labels, limit)
    if isinstance(images, PreparedImages) and not classes:
        classes = images.imageset.classes
    with bar("look", 3 * len(plans) + 5, progress, "step") as step:
        sites = measure_msb(model, images, batch_size=batch_size, seed=seed)
        known = labels is not None
        step()
        clean = predict_unshifted(model, images, _zeros(images) if labels is None else labels, batch_size=batch_size)
        said = clean.prediction if labels is None else np.asarray(labels)
        scores, blames, moved = [], list[Blame](), []
        rounds: dict[str, tuple[DriftSums | None, str]] = {}
        for plan in plans:
            sums = DriftSums(MapMeans(len(images)))
            found = predict(model, images, said, plan, batch_size=batch_size, drift=sums)
            moved.append((found.prediction != found.clean_prediction[:, None]).mean(1))
            step()
            key = around(plan).hash
            if key not in rounds:
                rounds[key] = circular_sums(model, images, plan, batch_size=batch_size)
            circular, reason = rounds[key]
            step()
            blames.append(blame_of(sums, plan, circular, reason, seed=seed))
            scores.append(score(found, plan).assign(**plan_columns(plan)))
            step()
        wrong = clean.prediction != said
        row = _row(image, np.mean(moved, 0) - (wrong & ~wrong.all()))
        shown = _shown(model, images, said, row, plans[0], batch_size)
        step()
        picks, problem = _picks(model, images[row : row + 1], site, sites, blames[0])
        step()
        exactness, untried = try_choices(model, images, kinds=[plan.kind for plan in plans])
        step()
        swapped = _swaps(model, images, said, plans[0], swaps, batch_size)
        step()
    notes += untried
    notes += _notes(sites, blames, problem, swapped)
    accuracy = float((clean.prediction == said).mean()) if known else float("nan")
    return Look(
        name=name or type(model).__name__,
        n_images=len(images),
        n_sites=int(sites["n_sites"].iloc[0]),
        sites=sites,
        scores=pd.concat(scores, ignore_index=True),
        blames=tuple(blames),
        shown=shown,
        picks=picks,
        swaps=swapped,
        classes=tuple(classes),
        accuracy=accuracy,
        has_labels=known,
        notes=tuple(notes),
        exactness=exactness,
    )


def _plans(images: Images, kinds: Sequence[str], max_shift: int | None, limit: int, seed: int) -> list[ShiftPlan]:
    if limit < 1:
        raise InputError(f"limit is {limit}, and must be at least 1")
    if not kinds:
        raise ShiftError("there is no shift kind to look under: name one, for example circular")
    if len(images) == 0:
        raise DataError("there are no images to look at: give at least one")
    if isinstance(images, Tensor) and images.ndim != 4:
        raise DataError(f"images have the shape {tuple(images.shape)}: give (N, C, H, W)")
    most = min(images.shape[2:]) // 8 if max_shift is None else max_shift
    if most < 1:
        raise ShiftError(f"max_shift is {most}: give at least 1 pixel")
    count = min(len(images), limit)
    plans = [ShiftPlan.sampled(count, most, N_SHIFTS, kind, seed, "background") for kind in dict.fromkeys(kinds)]
    for plan in plans:
        if not plan.rule.keeps_size:
            raise ShiftError(f"{plan.kind} shifts want larger images than the network takes: look under another kind")
    return plans


def _first(
    images: Images, labels: Tensor | np.ndarray | None, limit: int
) -> tuple[Images, np.ndarray | None, list[str]]:
    """The images and labels that are looked at, and what is said of the others."""
    total, notes = len(images), []
    if labels is None and isinstance(images, PreparedImages) and images.imageset.classes:
        labels = images.labels
    if labels is not None:
        labels = torch.as_tensor(labels).cpu().numpy()
        if labels.shape != (total,):
            raise DataError(f"labels have the shape {labels.shape} and there are {total} images: give one for each")
        labels = labels[:limit]
    else:
        notes.append("no labels: what the network says of the unshifted images stands for them, accuracy is not known")
    if total > limit:
        notes.append(f"measured on the first {limit} of {total} images")
        if isinstance(images, PreparedImages):
            images = PreparedImages(images.imageset.head(limit), images.spec, images.size)
        else:
            images = images[:limit]
    return images, labels, notes


def _zeros(images: Images) -> np.ndarray:
    return np.zeros(len(images), dtype=np.int64)


def _row(image: int | None, moved: np.ndarray) -> int:
    if image is None:
        return int(moved.argmax())
    if not 0 <= image < len(moved):
        raise InputError(f"image is {image}, and those looked at are 0 to {len(moved) - 1}")
    return image


def _shown(model: nn.Module, images: Images, said: np.ndarray, row: int, plan: ShiftPlan, batch_size: int) -> Shown:
    """One image under every shift of a grid: steps of one pixel, of larger images more."""
    batch = images[row : row + 1]
    across = 7 if max(batch.shape[2:]) <= SMALL else 4
    step = max(-(-plan.max_shift // across), 1)
    most = max(plan.max_shift // step, 1) * step
    grid = ShiftPlan.grid(most, step, plan.kind, plan.fill)
    fill = fill_value(images, plan, None)
    found = predict(model, batch, said[row : row + 1], grid, batch_size=batch_size, fill=fill)
    offsets = grid.offsets[0] // grid.rule.steps
    side = 2 * (most // step) + 1
    if found.drift_probability is None:
        raise ModelError("the probabilities under shifts are missing")
    return Shown(
        row=row,
        pixels=_pixels(images, batch[0]),
        label=int(said[row]),
        prediction=int(found.clean_prediction[0]),
        probability=float(found.clean_probability[0]),
        kind=plan.kind,
        steps=np.unique(offsets[:, 0]),
        predictions=found.prediction[0].reshape(side, side),
        probabilities=found.drift_probability[0].reshape(side, side),
    )


def _pixels(images: Images, image: Tensor) -> np.ndarray:
    """An image as it is drawn: ``(H, W, 3)`` or ``(H, W)`` from 0 to 1; a bare tensor's range is stretched to that."""
    x = image.detach().cpu().double()
    if isinstance(images, PreparedImages):
        mean, std = (torch.tensor(values).double().reshape(-1, 1, 1) for values in (images.spec.mean, images.spec.std))
        x = (x * std + mean).clamp(0, 1)
    else:
        low, high = x.min(), x.max()
        x = (x - low) / (high - low) if high > low else torch.zeros_like(x)
    shown = x[:3] if len(x) >= 3 else x[:1]
    drawn: np.ndarray = shown.permute(1, 2, 0).numpy() if len(shown) == 3 else shown[0].numpy()
    return drawn


def _picks(
    model: nn.Module, image: Tensor, site: str | None, sites: pd.DataFrame, blame: Blame
) -> tuple[Picks | None, str]:
    """The windows of the site asked for; else of the one that adds most, of those whose windows are known."""
    if site is not None:
        return measure_picks(model, image, site), ""
    added = blame.rows.dropna(subset=["site"]).set_index("site")["added"]
    measured = sites[sites["reason"].isna() & sites["site"].notna()]
    order = measured.assign(added=measured["site"].map(added)).sort_values("added", ascending=False)
    problem = "no site has windows that are known"
    for name in order["site"]:
        try:
            return measure_picks(model, image, name), ""
        except ModelError as error:
            problem = str(error)
    return None, problem


def _swaps(
    model: nn.Module, images: Images, said: np.ndarray, plan: ShiftPlan, swaps: Sequence[str], batch_size: int
) -> pd.DataFrame:
    if not swaps:
        return pd.DataFrame()
    small = (SMALL / max(*images.shape[2:], 1)) ** 2
    count = min(len(images), max(FEWEST, int(SWAP_IMAGES * min(small, 1.0))))
    some = (
        PreparedImages(images.imageset.head(count), images.spec, images.size)
        if isinstance(images, PreparedImages)
        else images[:count]
    )
    part = ShiftPlan(plan.kind, plan.mode, plan.max_shift, plan.fill, plan.seed, plan.offsets[:count])
    return measure_swaps(model, some, said[:count], [part], swaps, unshifted=False, batch_size=batch_size)


def _notes(sites: pd.DataFrame, blames: Sequence[Blame], problem: str, swaps: pd.DataFrame) -> list[str]:
    """What was not measured, a line each."""
    notes = []
    listed = sites[sites["site"].notna()]
    if listed.empty:
        notes.append("the network has no downsampling site")
    lacks = listed[listed["reason"].notna()]
    if len(lacks):
        told = "; ".join(f"{row.site}: {row.reason}" for row in lacks.itertuples())
        notes.append(f"{counted(len(lacks), 'site')} without MSB, kept out of all means ({told})")
    for blame in blames:
        if blame.reason:
            notes.append(f"{blame.plan.kind} shifts: the border is not told apart ({blame.reason})")
        if lacking := blame.missing():
            notes.append(f"{blame.plan.kind} shifts: no added drift of {'; '.join(lacking)}")
    if problem:
        notes.append(f"no windows are drawn: {problem}")
    if len(swaps):
        if (swaps["measure"] == NOTHING).any():
            notes.append(f"no swaps: {swaps['reason'].iloc[0]}")
        else:
            failed = swaps[swaps["change"].isna() & (swaps["measure"] == "consistency")]
            for reason, rows in failed.groupby("reason", sort=False):
                what = ", ".join(
                    f"{row.replacement} at {row.site if isinstance(row.site, str) else 'all sites'}"
                    for row in rows.itertuples()
                )
                notes.append(f"no swap to {what}: {reason}")
    return notes
