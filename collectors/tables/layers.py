"""The table ``layers``: the readings of the maximum-sampling bias of every downsampling site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from invariscope.base.explained import remark as network_remark
from invariscope.collectors.options import PassOptions, at_least
from invariscope.collectors.schema import INT, TEXT, Collector, column, optional, with_errors

if TYPE_CHECKING:
    import pandas as pd

    from invariscope.collectors.engine.subject import Subject
    from invariscope.collectors.options import Options
    from invariscope.zoo.checkpoint import Checkpoint


WINDOWS = 1024
"""Most windows looked at per image and site by default (:data:`invariscope.collectors.measure.msb.LARGEST_WHOLE`)."""

AT_MOST = "windows_at_most"
"""Setting of the tasks of large inputs."""


@dataclass(frozen=True)
class LayersOptions:
    """Layers: the maximum-sampling bias (MSB) of every site."""

    msb_images: int = 256
    """First images on which MSB is measured."""
    windows_per_image: int | None = None
    """Windows sampled per image and site for MSB, by swaps as well. By default all; in `layers` of inputs above 64 x 64
    pixels 1024 at most (1000000: all), and 64 of convolutions of stride 4 or more."""

    def __post_init__(self) -> None:
        at_least(1, self, "msb_images", "windows_per_image")


_READINGS = {
    "msb": "share of non-flat windows whose output equals the window's maximum exactly",
    "msb_all": "the same over all windows, flat ones as hits",
    "msb_weight": "mean sampling weight on the window's maximum, non-flat windows",
    "msb_top": "mean of: the maximum sits at a position of greatest weight (tied weights share the point)",
    "msb_corrected": "chance-corrected msb_weight: 0 blind to the values, 1 always the maximum",
    "flat_fraction": "share of windows whose values are all equal",
    "selectivity": "chance-corrected sum of squared weights: 0 all pixels alike, 1 one pixel, whichever",
    "position": "distance of the mean weight per place of the window from uniform (total variation)",
    "msb_jacobian": "chance-corrected share of the output's derivative that falls on the window's maximum",
    "aliasing": "share of the spectral energy of the dense output above the Nyquist frequency of the stride",
    "see": "site equivariance error, relative, with circular padding of the site; 0 where the output moves along",
    "see_padding": "the same with the site's own padding, minus see",
}
"""Null where they do not apply, and, from `selectivity` on, in tables older than these columns."""


COLUMNS = (
    column("depth", INT, "", "index of the site in the order of the forward pass, from 0; side branches come last"),
    column("n_sites", INT, "sites", "downsampling sites of the network, measured or not; without side branches"),
    optional("site", TEXT, "", "module path of the site; null: the network has no site"),
    optional("site_kind", TEXT, "", "max, avg, blur, conv, subsample, soft, lp, aps, lps, tips, ..."),
    optional("kernel", TEXT, "feature pixels", "kernel, height x width"),
    optional("stride", TEXT, "feature pixels", "stride, height x width"),
    optional("channels", INT, "channels", "channels of the site's input"),
    optional("input_size", TEXT, "feature pixels", "size of the site's input, height x width"),
    optional("output_size", TEXT, "feature pixels", "size of the site's output, height x width"),
    column("n_windows", INT, "windows", "windows measured, over all images and channels"),
    column("n_images", INT, "images", "images measured"),
    *with_errors(_READINGS),
    optional("not_applicable", TEXT, "", "readings of the site without a number, each with the reason"),
    optional("explained", TEXT, "", "how the site was read: reader, behaviour or no; null in older tables"),
    optional("reason", TEXT, "", "why there is no number, where there is none"),
)


def _windows(checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
    """What a task's key holds of the windows looked at.

    The most that are by default are a part of it, and apply, only for inputs that are large enough for most sites with
    more: smaller ones have the keys and the values of before there was a most.
    """
    windows = options[LayersOptions].windows_per_image
    can_be_larger = checkpoint.input.height * checkpoint.input.width > 4 * WINDOWS
    return {"windows": windows, **({AT_MOST: WINDOWS} if windows is None and can_be_larger else {})}


def settings(checkpoint: Checkpoint, options: Options) -> list[dict[str, Any]]:
    """One task for all sites."""
    chosen = options[LayersOptions]
    images = {"images": chosen.msb_images, "seed": options[PassOptions].seed}
    return [{**images, **_windows(checkpoint, options)}]


def rows(subject: Subject, settings: dict[str, Any]) -> pd.DataFrame:
    """A row per site."""
    from invariscope.collectors.measure.msb import measure_msb

    return measure_msb(
        subject.model,
        subject.prepared(limit=settings["images"]),
        batch_size=subject.msb_batch,
        windows_per_image=settings["windows"],
        windows_at_most=settings.get(AT_MOST),
        seed=settings["seed"],
        on_output=subject.record_output,
    )


def remark(rows: pd.DataFrame) -> str | None:
    """That a network has no site, none that is measured, or shrinks that are not explained."""
    listed = rows[rows["site"].notna()]
    reasons = listed["reason"].astype(object).where(listed["reason"].notna(), None)
    return network_remark(zip(listed["site"], reasons, listed["explained"], strict=True))


COLLECTOR = Collector(
    "MSB of every downsampling site",
    COLUMNS,
    settings,
    rows,
    LayersOptions,
    default=True,
    remark=remark,
    renewed=("msb_weight", "selectivity"),
)
