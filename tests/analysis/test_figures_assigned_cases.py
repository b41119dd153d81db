"""The figures of operators drawn at random where something is missing, and names beside their marks."""

from __future__ import annotations

import re
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import RendererAgg

from invariscope.analysis.figures import FIGURES, style
from invariscope.analysis.figures.assigned_rows import assigned_rows
from invariscope.analysis.figures.heldout import heldout
from invariscope.analysis.figures.importance import importance
from invariscope.analysis.figures.labels import Name, place_names
from invariscope.analysis.figures.mechanism import mechanism
from invariscope.analysis.figures.population import population
from invariscope.analysis.figures.rotations import rotations
from invariscope.base.errors import TableError

DRAWN = {"population": population, "rotations": rotations, "mechanism": mechanism, "importance": importance}
DRAWN |= {"heldout": heldout}


@pytest.fixture(scope="module")
def frame(studies: ModuleType) -> pd.DataFrame:
    return studies.study()


def test_every_figure_of_a_study_is_here(studies: ModuleType) -> None:
    assert {name for name in FIGURES.own if studies.is_of_a_study(name)} == set(DRAWN)


@pytest.mark.parametrize("name", DRAWN)
def test_a_zoo_without_drawn_operators_is_told(frame: pd.DataFrame, name: str) -> None:
    none = frame[frame["factor_population"] == "H"]
    for rows in (none, frame.drop(columns="factor_population")):
        with pytest.raises(TableError, match=f"^{name}: no operator was drawn at random: train a recipe that"):
            DRAWN[name](rows)


@pytest.mark.parametrize(
    ("name", "lost", "reason"),
    [
        ("population", "P", "population: no network of population P: train that part of the recipe too"),
        ("mechanism", "P", "mechanism: no network of population P"),
        ("importance", "P", "importance: no network of population P"),
        ("rotations", "R", "rotations: no network of population R"),
        ("heldout", "H", "heldout: no network of population H"),
    ],
)
def test_a_part_that_was_not_trained_is_told(frame: pd.DataFrame, name: str, lost: str, reason: str) -> None:
    with pytest.raises(TableError, match=f"^{reason}"):
        DRAWN[name](frame[frame["factor_population"] != lost])


def test_without_the_equivariance_error_the_rest_is_drawn(frame: pd.DataFrame) -> None:
    for without in (frame.drop(columns="see"), frame.assign(see=np.nan)):
        with pytest.raises(TableError, match=r"^mechanism: see was not measured: collect `layers` again"):
            mechanism(without)
        figure = importance(without)
        assert len(figure.axes) == 1
        assert "The site equivariance error `see` was not measured: no bars with it." in figure.caption
        assert {ax.get_title(loc="left").split(",")[0] for ax in heldout(without).axes} == {"by MSB"}


CASES = ["one kind", "one data set", "few", "constant score", "missing values"]
"""Two of them for each figure, and each for two figures, in the quick run."""


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, marks=pytest.mark.full if (place + number) % len(CASES) > 1 else ())
        for place, name in enumerate(DRAWN)
        for number, case in enumerate(CASES)
    ],
)
def test_unusual_studies_are_drawn_or_refused_in_one_line(frame: pd.DataFrame, name: str, case: str) -> None:
    rng = np.random.default_rng(0)
    edited = {
        "one kind": lambda: frame[frame["shift_kind"] == "zero"],
        "one data set": lambda: frame[frame["data"] == "digits"],
        "few": lambda: frame.groupby(["data", "shift_kind", "factor_population"]).head(3),
        "constant score": lambda: frame.assign(consistency=0.9),
        "missing values": lambda: frame.assign(
            msb_corrected=frame["msb_corrected"].where(rng.uniform(size=len(frame)) > 0.1),
            see=frame["see"].where(rng.uniform(size=len(frame)) > 0.1),
        ),
    }[case]()
    refused = {
        "few": {"mechanism", "importance", "rotations", "heldout"},
        "constant score": set(DRAWN) - {"population", "heldout"},
    }
    if name in refused.get(case, ()):
        with pytest.raises(TableError, match=f"^{name}: "):
            DRAWN[name](edited, width="single")
        return
    figure = DRAWN[name](edited, width="single")
    assert figure.axes
    assert not any("nan" in ax.get_title(loc="left") for ax in figure.axes)
    if case == "missing values" and name in ("population", "mechanism"):
        assert re.search(r"Not shown, for want of .*: \d+ checkpoints\.", figure.caption)
    if case in ("few", "constant score") and name == "population":
        assert "No fit under circular shifts: " in figure.caption


@pytest.mark.parametrize("name", DRAWN)
def test_the_caption_says_what_is_left_out(frame: pd.DataFrame, name: str) -> None:
    first = {which: frame.index[frame["factor_population"] == which] for which in ("P", "R", "H")}
    mine = first[{"rotations": "R", "heldout": "H"}.get(name, "P")]
    edited = frame.assign(factor_origin=None)
    gone = frame.loc[mine[:3], "checkpoint"].tolist()
    edited.loc[edited["checkpoint"] == gone[0], "accuracy"] = 0.3
    edited.loc[edited["checkpoint"] == gone[1], "factor_origin"] = "elsewhere"
    other = edited[edited["shift_kind"] == "zero"].assign(fill="mean")
    wider = edited[edited["shift_kind"] == "circular"].assign(max_shift=8)
    edited = pd.concat([edited, other, wider], ignore_index=True)
    edited.attrs["copies"] = ["twin"]
    caption = DRAWN[name](edited, data="digits").caption.splitlines()
    assert "Copies of another checkpoint (the same weights and function), not counted: twin." in caption
    assert f"Not shown: networks from elsewhere ({gone[1]})." in caption
    assert "Left out, accuracy below 0.5: 1 network." in caption
    (told,) = [text for text in caption if text.startswith("Other shift plans in the tables, not shown here: ")]
    assert "circular (≤ 8 px, 9 per image, sampled)" in told
    assert "zero (≤ 4 px, 9 per image, sampled, fill mean)" in told
    rows = assigned_rows(edited, name, ["P", "R", "H"], score="consistency", data="digits", width="double").rows
    assert set(frame.loc[frame["data"] == "digits", "checkpoint"]) - set(rows["checkpoint"]) == set(gone[:2])
    assert rows.groupby(["checkpoint", "shift_kind"]).size().max() == 1
    with pytest.raises(TableError, match=rf"^{name}: no rows measured on 'cifar'; the tables hold digits, mnist"):
        DRAWN[name](edited, data="cifar")


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_measured_under_no_primary_plan_is_refused(frame: pd.DataFrame, name: str) -> None:
    with pytest.raises(TableError, match=f"^{name}: no network that counts under a primary plan: collect"):
        DRAWN[name](frame[frame["shift_kind"] == "zero"].assign(fill="mean"))


def test_data_sets_without_room_are_named(studies: ModuleType) -> None:
    frame = studies.study(("a", "b", "c", "d"), 8, 2)
    caption = population(frame, width="single").caption
    assert "Not shown, for want of room: d/smallcnn." in caption.splitlines()
    assert "d, circular" not in caption


@pytest.mark.parametrize("width", ["double", "single"])
def test_names_cover_neither_each_other_nor_their_marks(width: style.Width) -> None:
    rng = np.random.default_rng(6)
    marks = rng.uniform(0.2, 0.8, size=(11, 2))
    with style.theme(width):
        figure = style.new_figure(width, 2.6)
        ax = figure.subplots()
        ax.set(xlim=(0, 1), ylim=(0, 1))
        figure.draw_without_rendering()
        names = [Name(name, x, y) for name, (x, y) in zip(style.MARKS, marks, strict=False)]
        texts = place_names(ax, names)
        again = place_names(ax, names)
        boxes = [text.get_window_extent().extents for text in texts]
        inside = ax.get_window_extent().extents
        centres = ax.transData.transform(marks)
        far = 1.5 * figure.dpi / 72
    assert [text.get_position() for text in texts] == [text.get_position() for text in again]
    for index, (x0, y0, x1, y1) in enumerate(boxes):
        assert x0 > inside[0] - 1
        assert x1 < inside[2] + 1
        for other in boxes[:index]:
            assert min(x1, other[2]) <= max(x0, other[0]) or min(y1, other[3]) <= max(y0, other[1])
        for x, y in centres:
            assert not (x0 + far < x < x1 - far and y0 + far < y < y1 - far)


def test_names_are_placed_by_one_renderer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renderer of the whole figure for each name, which matplotlib keeps, took 4 GiB of 200 operators."""
    made = []
    begin = RendererAgg.__init__

    def counted(self: RendererAgg, *size: float) -> None:
        made.append(size)
        begin(self, *size)

    monkeypatch.setattr(RendererAgg, "__init__", counted)
    with style.theme("double"):
        figure = style.new_figure("double", 2.6)
        ax = figure.subplots()
        names = [Name(f"operator {number}", number / 20, number % 7 / 7) for number in range(20)]
        ax.get_window_extent()
        made.clear()
        texts = place_names(ax, names)
    assert [text.get_text() for text in texts] == [name.text for name in names]
    assert len(made) == 1


def test_a_data_set_without_what_a_figure_shows_is_named_and_in_no_legend(frame: pd.DataFrame) -> None:
    lacks = frame["data"].str.startswith("mnist") & (frame["factor_population"] == "H")
    figure = heldout(frame[~lacks])
    notes = [line for line in figure.caption.splitlines() if "mnist" in line]
    assert len(notes) == 1
    assert notes[0].startswith("Not shown, without a network of population H: mnist")
    assert not any("mnist" in text.get_text() for legend in figure.legends for text in legend.get_texts())
