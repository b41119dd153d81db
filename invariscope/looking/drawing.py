"""The figure of a look: four panels on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from invariscope.analysis.figures import style
from invariscope.base.words import counted
from invariscope.looking.panels.blame import draw_blame, parts_of
from invariscope.looking.panels.image import draw_image
from invariscope.looking.panels.swaps import draw_swaps, swap_rows
from invariscope.looking.panels.windows import draw_windows

if TYPE_CHECKING:
    from invariscope.looking.found import Look

TOP, ROW, SPARE = 2.35, 0.19, 1.0
"""Inches: the row of the image, one site's line, and the axes of a row of sites."""

MOST_ROWS = 60
"""Lines of sites that are as high as that; more are set closer."""


def draw(look: Look) -> style.CaptionedFigure:
    """The image as it moves; the windows of one site beside swaps; blame."""
    with style.theme():
        blame = SPARE + ROW * min(max(len(parts_of(look)), 3), MOST_ROWS)
        swaps = max(2.5, SPARE + ROW * min(len(swap_rows(look)), MOST_ROWS))
        figure = style.new_figure("double", TOP + blame + swaps)
        top, middle, bottom = figure.subfigures(3, 1, height_ratios=[TOP, swaps, blame], squeeze=False)[:, 0]
        draw_image(top, look)
        left, right = middle.subfigures(1, 2, width_ratios=[1, 1.25], squeeze=False)[0]
        draw_windows(left, look)
        draw_swaps(right, look)
        draw_blame(bottom, look)
    figure.caption = caption(look)
    return figure


def caption(look: Look) -> str:
    """What the panels show, of how many images, with what intervals."""
    shown = look.shown
    sentences = [
        f"{look.name}, {counted(look.n_images, 'image')}.",
        f"(a) Image {shown.row} and the probability of the class predicted without a shift, under {shown.kind} shifts: "
        "along either axis, and over both; crosses: another class is predicted.",
    ]
    if look.picks is not None:
        picks = look.picks
        sentences.append(
            f"(b) {counted(len(picks.outputs), 'window')} of site {picks.site.name} ({picks.site.kind}) on channel "
            f"{picks.channel} over that image: where the window has its maximum, and the mean place of what the output "
            f"is made of, by its weights; lines join the two; {picks.flat} flat windows are not drawn. Places of the "
            "site's map are scaled to the image."
        )
    if len(look.swaps):
        count = int(look.swaps["n_images"].max())
        sentences.append(
            f"(c) Change of consistency where the operator of one site, or of all, is replaced and every weight stays, "
            f"{look.blames[0].plan.kind} shifts, {counted(count, 'image')}; paired 95 % intervals over images. The "
            "network was not trained with the replacement: hollow marks are the change of fidelity "
            f"(two shifts agree and {'are right' if look.has_labels else 'say what the network said before'})."
        )
    kinds = ", ".join(f"{blame.plan.kind} up to {blame.plan.max_shift} px" for blame in look.blames)
    sentences.append(
        "(d) Of each site: MSB (chance-corrected), selectivity, site equivariance error (see), and the drift of the "
        f"pooled features that it and the layers up to the next one add ({kinds}), with the head's and the border's; "
        "95 % jackknife intervals over images. The border's part is what goes away with circular padding and circular "
        "shifts, the others are of that network where it could be made. Ringed: the greatest; what a site aliases "
        "shows only after the next nonlinearity, so that a part of it is counted further on."
    )
    return " ".join(sentences)
