"""The table ``swaps``: what changes when a site's operator of a trained network is replaced and every weight stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.collectors.measure.replacements import DEFAULT_REPLACEMENTS, read_replacements
from invariscope.collectors.options import PassOptions, ShiftOptions, at_least
from invariscope.collectors.schema import (
    INT,
    PLAN,
    PLAN_CONDITIONS,
    REAL,
    TEXT,
    UNSHIFTED,
    Collector,
    column,
    optional,
)
from invariscope.collectors.tables.layers import LayersOptions

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint


@dataclass(frozen=True)
class SwapsOptions:
    """Swaps: a site's operator replaced in the trained network."""

    swap_to: tuple[str, ...] = DEFAULT_REPLACEMENTS
    """Operators without parameters that swaps put in the place of each site's."""
    swap_images: int = 256
    """First images on which swaps are measured."""

    def __post_init__(self) -> None:
        at_least(1, self, "swap_images")


COLUMNS = (
    optional("depth", INT, "", "index of the changed site in the order of the forward pass; null: every site"),
    column("n_sites", INT, "sites", "downsampling sites of the network"),
    optional("site", TEXT, "", "module path of the changed site"),
    optional("site_kind", TEXT, "", "kind of the site before the change"),
    column("replacement", TEXT, "", "operator put in its place, with its arguments; the weights stay"),
    *PLAN,
    column("measure", TEXT, "", "an MSB reading, or a score; none: there was nothing to swap"),
    column("scope", TEXT, "", "site: of the changed site; network: of all sites, or of the predictions"),
    optional("before", REAL, "1", "the measure of the network as it was trained"),
    optional("after", REAL, "1", "the measure with the replacement"),
    optional("change", REAL, "1", "after - before, on the same images and shifts"),
    optional("se", REAL, "1", "standard error of the change, images as the sampling unit, paired"),
    optional("low", REAL, "1", "lower end of the change's 95 % interval"),
    optional("high", REAL, "1", "upper end of the change's 95 % interval"),
    column("n_images", INT, "images", "images measured"),
    optional("reason", TEXT, "", "why there is no number, where there is none"),
)


def check(options: Options) -> None:
    """Refuse replacements that cannot be put in."""
    read_replacements(options[SwapsOptions].swap_to)


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """A task for the unshifted images, and one per shift kind.

    A network after a swap is another one, folded anew: swaps have no say in precision and folding.
    """
    chosen, seed = options[SwapsOptions], options[PassOptions].seed
    specs = read_replacements(chosen.swap_to)
    shared = {"seed": seed, "images": chosen.swap_images, "replacements": [spec.canonical for spec in specs]}
    if code := {spec.canonical: spec.code_sha256 for spec in specs if spec.code_files}:
        shared["code"] = code
    if checkpoint.parts.scheme != "zoo":
        shared["self_swaps"] = "none"  # poolings of others are found to be the replacement since
    windows = options[LayersOptions].windows_per_image
    unshifted = {"kind": UNSHIFTED, "windows": windows, "crop_size": None}
    return [{**settings, **shared} for settings in (unshifted, *options[ShiftOptions].settings(checkpoint))]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per site, replacement and measure."""
    from invariscope.collectors.measure.swap import measure_swaps

    images = subject.prepared(settings["crop_size"], settings["images"])
    is_shifted = settings["kind"] != UNSHIFTED
    return measure_swaps(
        subject.model,
        images,
        images.labels,
        [subject.plan(settings, len(images))] if is_shifted else [],
        settings["replacements"],
        unshifted=not is_shifted,
        batch_size=subject.images_per_pass,
        msb_batch_size=subject.msb_batch,
        windows_per_image=settings.get("windows"),
        seed=settings["seed"],
    )


COLLECTOR = Collector(
    "what changes when a site's operator is replaced",
    COLUMNS,
    settings,
    rows,
    SwapsOptions,
    check,
    conditions=PLAN_CONDITIONS,
    scores="images",
    of_labels=True,
)
