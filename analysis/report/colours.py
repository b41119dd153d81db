"""The marks of the figures for the page: their outlines as SVG paths, and colours for light and for dark paper."""

from __future__ import annotations

import re

import numpy as np
from matplotlib.markers import MarkerStyle

CIRCLE = "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z"

# CSS's hue-rotate(180deg): Rec. 709 luminance stays, chroma turns round.
_LUMA = np.array([0.2126, 0.7152, 0.0722])
_HALF_TURN = 2 * np.outer(np.ones(3), np.array([0.213, 0.715, 0.072])) - np.eye(3)

_LEAST_LIGHT = 0.5
"""Luma below which a colour does not stand out from dark paper."""


def light_dark(color: str) -> str:
    """A colour for CSS: itself on light paper, :func:`dark_of` it on dark."""
    return f"light-dark({color},{dark_of(color)})"


def dark_of(color: str) -> str:
    """``#rrggbb`` as the page's filter of figures shows it on dark paper: inverted, its hue kept; lightened where even
    so it would be hard to see.
    """
    if not re.fullmatch("#[0-9a-fA-F]{6}", color):
        return color
    rgb = np.array([int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    turned = np.clip(_HALF_TURN @ (1 - rgb), 0, 1)
    luma = float(_LUMA @ turned)
    if luma < _LEAST_LIGHT:
        turned += (1 - turned) * (_LEAST_LIGHT - luma) / (1 - luma)
    return "#" + "".join(f"{round(part * 255):02x}" for part in turned)


def outline(marker: str) -> str:
    """A matplotlib marker as the path of an SVG within ±1."""
    if marker == "o":
        return CIRCLE
    style = MarkerStyle(marker)
    corners = style.get_path().transformed(style.get_transform()).to_polygons(closed_only=False)[0]
    points = corners / np.abs(corners).max()
    # SVG's y axis points down.
    return "M" + "L".join(f"{x:.3g},{-y:.3g}" for x, y in points) + "Z"
