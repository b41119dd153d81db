"""A figure and an analysis as the last line of a notebook's cell: the picture, and the verdict in words."""

from __future__ import annotations

import base64
import io
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from invariscope.analysis.figures import style
from invariscope.analysis.results import Results
from invariscope.analysis.say.opening import Fold, Opening


def _shown(thing: object, formatter: DisplayFormatter) -> dict[str, Any]:
    data: dict[str, Any] = formatter.format(thing)[0]
    return data


@pytest.fixture
def formatter() -> DisplayFormatter:
    """What a kernel shows things with."""
    return DisplayFormatter()


@pytest.mark.parametrize("width", ["double", "single"])
def test_a_figure_is_shown_at_its_size(width: style.Width, formatter: DisplayFormatter) -> None:
    figure = style.new_figure(width, 2.0)
    figure.subplots().plot([0, 1])
    figure.caption = "A line."
    shown = _shown(figure, formatter)
    with mpl.rc_context({"savefig.facecolor": "black", "savefig.bbox": "tight"}):
        assert _shown(figure, formatter) == shown
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image/png"])))
    assert picture.size == ({"double": 770, "single": 385}[width], 220)
    assert "Software" not in picture.info
    assert np.asarray(picture)[0, 0, :3].tolist() == [255, 255, 255]
    assert shown["text/plain"] == "A line."


def test_a_figure_without_a_caption_has_a_text(formatter: DisplayFormatter) -> None:
    figure = style.new_figure("single", 2.0)
    assert _shown(figure, formatter)["text/plain"] == repr(figure)


def test_the_picture_of_pyplot_is_shown_where_there_is_one(formatter: DisplayFormatter) -> None:
    formatter.formatters["image/png"].enabled = True
    formatter.formatters["image/png"].for_type(Figure, lambda figure: b"pyplot's")
    assert _shown(style.new_figure("single", 2.0), formatter)["image/png"] == b"pyplot's"


def test_an_analysis_is_shown_as_its_verdict(formatter: DisplayFormatter) -> None:
    opening = Opening("Does it?", "It is open.", caveats=("Few operators.",))
    results = Results(*[pd.DataFrame()] * 7, opening, (Fold("All of it", "every number"),), ("and more",))
    shown = _shown(results, formatter)
    assert shown["text/markdown"] == "# Does it?\n\n**It is open.**\n\n* Few operators.\n"
    assert shown["text/plain"] == "It is open.\nand more"
