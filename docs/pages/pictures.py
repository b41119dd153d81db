"""Draw the picture of the page of shifts: ``python docs/pages/pictures.py``, from the repository's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure

import invariscope as iv
from invariscope.analysis.figures import render
from invariscope.collectors.schema import SHIFT_KINDS

SIDE, MOVE, IMAGE = 32, 8, 3
"""Pixels along the sides of the image, how far it moves down and right, and which one of the data set it is."""


def shifts() -> Figure:
    """One image as it is, and moved under every shift kind; a crop is cut out of a larger image of the same scene."""
    larger = iv.load_dataset("shapes", size=SIDE + 2 * MOVE).pixels()[IMAGE : IMAGE + 1].float() / 255
    image = larger[..., MOVE:-MOVE, MOVE:-MOVE]
    move = torch.tensor([[MOVE, MOVE]])
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    for axes, kind in zip(figure.subplots(2, 4).flat, ["as it is", *SHIFT_KINDS.own, "crop, unshifted"], strict=True):
        if kind == "as it is":
            shown = image
        elif kind.startswith("crop"):
            shown = iv.apply_shift(larger, move * (kind == "crop"), "crop", size=SIDE)
        else:
            rule = SHIFT_KINDS[kind]
            shown = iv.apply_shift(image, move * rule.steps + rule.steps // 2, kind)
        axes.imshow(shown[0].clamp(0, 1).permute(1, 2, 0))
        axes.set_title(f"{kind}, {MOVE}.5 px" if kind == "fractional" else kind, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    return figure


if __name__ == "__main__":
    Path("docs/concepts/shifts.png").write_bytes(render(shifts()))
