"""Drawing and saving: registry, files, captions, what is skipped and refused, equal bytes, no trace in matplotlib."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from invariscope.analysis.drawing import draw_figures, save_figures
from invariscope.analysis.figures import FIGURES, draw, render, style
from invariscope.analysis.tables.frames import FRAMES, Frames
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    zoo = simulate.Zoo(seeds=2, epochs=(8.0,), padding_modes=("zeros",), surface_shift=1, swap_slope=-0.2)
    return conditions.with_conditions(simulate.simulate_tables(zoo))


@pytest.fixture(scope="module")
def study(studies: ModuleType) -> Frames:
    return studies.StudyFrames(studies.study())


@pytest.fixture(scope="module")
def frames(tables: Tables) -> Frames:
    return Frames(tables)


@pytest.fixture
def given(frames: Frames, study: Frames, studies: ModuleType, name: str) -> Frames:
    """What the figure ``name`` has something to show of."""
    return study if studies.is_of_a_study(name) else frames


@pytest.fixture(scope="module")
def small(tables: Tables) -> Tables:
    """Three operators."""
    keep = set(tables.checkpoints.loc[tables.checkpoints["operator"].isin(["max", "soft", "subsample"]), "sha256"])
    return change(tables, lambda rows: rows[rows["sha256"].isin(keep)])


def change(tables: Tables, edit) -> Tables:
    names = [field.name for field in dataclasses.fields(Tables)]
    return Tables(**{name: edit(getattr(tables, name)).reset_index(drop=True) for name in names})


DRAWN: dict[tuple[str, str], style.CaptionedFigure] = {}


def drawn(tables: Frames, name: str, width: str) -> style.CaptionedFigure:
    if (name, width) not in DRAWN:
        DRAWN[name, width] = draw(name, tables, width=width)
    return DRAWN[name, width]


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


QUICK_WIDTH = {name: ("double", "single")[place % 2] for place, name in enumerate(FIGURES)}
"""The width of each figure that the quick run looks at; the full run looks at both."""


@pytest.mark.parametrize(
    ("name", "width"),
    [
        pytest.param(name, width, marks=pytest.mark.full if width != quick else ())
        for name, quick in QUICK_WIDTH.items()
        for width in ("double", "single")
    ],
)
def test_every_figure_is_readable_and_nothing_overlaps(given: Frames, name: str, width: str) -> None:
    figure = drawn(given, name, width)
    assert figure.get_size_inches()[0] == {"double": 7.0, "single": 3.5}[width]
    assert figure.get_size_inches()[1] < 9.8
    with style.theme(width):
        figure.draw_without_rendering()
        assert min(text.get_fontsize() for text in texts(figure)) >= 7
        renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
        page = figure.bbox
        flat = [ax for ax in figure.axes if ax.name != "3d" and ax.axison]
        boxes = [ax.get_tightbbox(renderer) for ax in flat]
        boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    slack = 0.02 * figure.dpi
    for box in boxes:
        assert box.x0 > page.x0 - slack
        assert box.x1 < page.x1 + slack
        assert box.y0 > page.y0 - slack
        assert box.y1 < page.y1 + slack
    for index, box in enumerate(boxes):
        for other in boxes[:index]:
            common = Bbox.intersection(box, other)
            assert common is None or min(common.width, common.height) <= slack
    named = [ax for ax in flat if ax.get_label() != "<colorbar>"]
    assert any(ax.get_xlabel() for ax in named) or any(part.get_supxlabel() for part in figure.subfigs)


@pytest.mark.parametrize("name", FIGURES)
def test_captions_state_n_clusters_interval_and_plan(
    frames: Frames, given: Frames, studies: ModuleType, name: str
) -> None:
    caption = drawn(given, name, QUICK_WIDTH[name]).caption
    if studies.is_of_a_study(name):
        _states_what_a_study_is(caption, name)
        return
    rows = frames["joined"]
    doses = rows[rows["operator"].isin(["soft", "lp"])]
    runs = (doses if name == "dose_response" else rows)["cluster"].nunique()
    if name == "drawn":  # of what was assigned; nothing is measured
        many = rows.loc[~rows["operator"].isin(["soft", "lp"]), "checkpoint"].nunique()
        assert f"{many} checkpoints, each operator once" in caption
        assert "Spearman's rho with 95 % interval on Fisher's z" in caption
        return
    if name == "published_operators":  # the fullest cell alone
        told = f"smallcnn, zeros: {doses['operator_spec'].nunique()} specifications of 2 operators; "
        assert f"{told}large marks are means over {doses['run'].nunique()} runs" in caption
        assert "95 % intervals by the jackknife over operators" in caption
        assert "zero (≤ 4 px, 9 per image, sampled, fill background)" in caption
        return
    assert f"{runs} " in caption
    assert ("quartiles" if name == "cost" else "95 %") in caption
    assert name == "cost" or "digits test" in caption
    if name != "dose_response":
        assert f"{rows['checkpoint'].nunique()} checkpoints, 11 operators" in caption
    if name in ("msb_invariance", "confounding", "within_between", "segmentation"):
        assert "simulated coverage" in caption
    if all("shift_kind" in frames[frame] for frame in FIGURES[name].frames):
        grid = "9 per image, grid" if name == "shift_surface" else "9 per image, sampled"
        assert f"zero (≤ {1 if name == 'shift_surface' else 4} px, {grid}, fill background)" in caption


def _states_what_a_study_is(caption: str, name: str) -> None:
    assert "Measured on digits, mnist (1000 images); shifts: circular (≤ 4 px, 9 per image, sampled), zero (" in caption
    assert "sampled, fill background)." in caption
    assert ("LMG" if name == "importance" else "95 %") in caption
    many = {
        "population": "digits, circular shift 48 and 15; ",
        "rotations": "12 blocks, 48 networks; ",
        "mechanism": "(n = 48); ",
        "importance": "digits, circular shift (48 networks): ",
        "heldout": "(population H; 15 specifications, 30 means over runs",
    }
    assert many[name] in caption


CASES = ["one kind", "one operator", "missing values", "no operator", "constant score", "one row"]
"""Two of them for each figure, and each for a third of the figures, in the quick run."""


@pytest.mark.parametrize(
    ("case", "name"),
    [
        pytest.param(case, name, marks=pytest.mark.full if (place + number) % 3 else ())
        for place, name in enumerate(FIGURES)
        for number, case in enumerate(CASES)
    ],
)
def test_unusual_tables_are_drawn_or_refused_in_one_line(
    small: Tables, studies: ModuleType, name: str, case: str
) -> None:
    edited = _unusual(small, case)
    if studies.is_of_a_study(name):  # more in test_figures_assigned_cases.py
        told = draw_figures(edited, [name], width="single").reasons.get(name, "")
        assert told.startswith(f"{name}: ") or (not told and name == "population")
        return
    if name == "dose_response" and case in ("one row", "no operator"):
        with pytest.raises(TableError, match="two strengths or more"):
            draw(name, edited)
        return
    if name == "drawn" and case == "one operator":  # of doses, which were not drawn
        with pytest.raises(TableError, match="no operator was drawn at random"):
            draw(name, edited)
        return
    if name == "chain" and case in ("one operator", "no operator", "constant score", "one row"):
        told = draw_figures(edited, [name], width="single").reasons.get(name, "")
        assert told.startswith("chain: no plan has 8 operators") or case == "no operator"
        return
    if name == "published_operators" and case in ("one row", "no operator"):
        with pytest.raises(TableError, match=r"no cell of 4 published|published_operators has no rows to draw"):
            draw(name, edited)
        return
    figure = draw(name, edited, width="single")
    assert figure.axes
    if case == "missing values" and name in ("msb_invariance", "msb_by_operator", "confounding"):
        assert "Not shown, for want of" in figure.caption
        assert "2 checkpoints" in figure.caption


def _unusual(tables: Tables, case: str) -> Tables:
    first = tables.checkpoints["sha256"].iloc[0]
    soft = set(tables.checkpoints.loc[tables.checkpoints["operator"] == "soft", "sha256"])
    lost = set(tables.checkpoints["sha256"].iloc[[0, 3]])
    readings = ["msb", "msb_all", "msb_weight", "msb_top", "msb_corrected"]
    if case == "one kind":
        return change(tables, lambda r: r[r["shift_kind"] != "zero"] if "shift_kind" in r else r)
    if case == "one operator":
        return change(tables, lambda r: r[r["sha256"].isin(soft)])
    if case == "one row":
        return change(tables, lambda r: r[r["sha256"] == first])
    if case == "missing values":
        layers = tables.layers.copy()
        layers.loc[layers["sha256"].isin(lost), readings] = np.nan
        return dataclasses.replace(tables, layers=layers)
    if case == "no operator":
        return dataclasses.replace(tables, checkpoints=tables.checkpoints.assign(operator=None, operator_spec=None))
    constant = tables.invariance.assign(value=1.0)
    return dataclasses.replace(tables, invariance=constant, surface=tables.surface.assign(agreement=1.0))


def test_unknown_names_are_answered_with_the_known_ones(tables: Tables, tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"'msb_invariant': did you mean 'msb_invariance'\?"):
        draw("msb_invariant", tables)
    with pytest.raises(TableError, match=r"'msb'.*known are chain, clean_accuracy, confounding, cost, dose_response"):
        save_figures(tables, tmp_path / "out", only=["msb"])
    with pytest.raises(TableError, match=r"'jpg'.*pdf, png, svg"):
        save_figures(tables, tmp_path / "out", formats=["jpg"])
    with pytest.raises(TableError, match=r"'wide'.*double, single"):
        save_figures(tables, tmp_path / "out", width="wide")  # type: ignore[arg-type]
    with pytest.raises(TableError, match=r"no rows measured on 'cifar'.*digits test"):
        draw("msb_invariance", tables, data="cifar")
    assert not (tmp_path / "out").exists()


def test_files_and_captions_are_written(small: Tables, tmp_path: Path) -> None:
    written = save_figures(small, tmp_path, only=["msb_by_operator"], formats=["svg", "png", "pdf"])
    expected = {f"msb_by_operator.{kind}" for kind in ("png", "pdf", "svg", "txt")}
    assert {path.name for path in written} == expected == {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "msb_by_operator.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "msb_by_operator.pdf").read_bytes().startswith(b"%PDF")
    assert b"<svg" in (tmp_path / "msb_by_operator.svg").read_bytes()
    assert (tmp_path / "msb_by_operator.txt").read_text() == draw("msb_by_operator", small).caption + "\n"
    single = save_figures(small, tmp_path, only=["msb_by_operator"], width="single")
    assert {path.name for path in single} == {"msb_by_operator-single.png", "msb_by_operator-single.txt"}


def test_a_figure_without_rows_is_skipped_with_its_reason(small: Tables, tmp_path: Path, capsys) -> None:
    hard = set(small.checkpoints.loc[small.checkpoints["operator"] != "soft", "sha256"])
    without_soft = change(small, lambda rows: rows[rows["sha256"].isin(hard)])
    told: list[tuple[str, str]] = []
    names = ["dose_response", "msb_by_operator"]
    written = save_figures(without_soft, tmp_path, only=names, skipped=lambda *line: told.append(line))
    assert {path.stem for path in written} == {"msb_by_operator"}
    assert [name for name, _ in told] == ["dose_response"]
    assert "soft or lp at two strengths" in told[0][1]
    assert capsys.readouterr().err == ""
    save_figures(without_soft, tmp_path, only=names)
    assert capsys.readouterr().err.startswith("figure dose_response skipped: ")
    with pytest.raises(TableError, match=r"no figure could be drawn: .*two strengths"):
        save_figures(without_soft, tmp_path, only=["dose_response"], skipped=lambda *line: None)


def test_empty_tables_are_refused(small: Tables, tmp_path: Path) -> None:
    empty = change(small, lambda rows: rows.iloc[:0])
    for name in FIGURES:
        with pytest.raises(TableError, match="collect"):
            draw(name, empty)
    with pytest.raises(TableError, match="no figure could be drawn"):
        save_figures(empty, tmp_path, skipped=lambda *line: None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_equal_tables_give_equal_bytes(small: Tables, kind: str) -> None:
    name = "msb_invariance" if kind == "png" else "msb_by_operator"
    assert render(draw(name, small), kind) == render(draw(name, small), kind)


def test_a_failed_write_leaves_the_old_file_whole(small: Tables, tmp_path: Path, monkeypatch) -> None:
    old = tmp_path / "msb_by_operator.png"
    old.write_bytes(b"old")

    def fail(source: str, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(TableError, match="disk full"):
        save_figures(small, tmp_path, only=["msb_by_operator"])
    assert old.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [old]


def test_drawing_leaves_no_trace_in_matplotlib(small: Tables) -> None:
    import matplotlib.pyplot as plt

    before = dict(mpl.rcParams)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        strange = render(draw("msb_by_operator", small))
    assert strange == render(draw("msb_by_operator", small))
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == []
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002


def test_every_entry_loads_and_frames_are_known() -> None:
    for name in FIGURES.own:
        entry = FIGURES[name]
        function = entry.load()
        assert function.__name__ == name
        assert function.__doc__
        assert set(entry.frames) <= set(FRAMES)


def test_operators_differ_for_colour_blind_readers_and_in_grey() -> None:
    known = {name: mark for name, mark in style.MARKS.items() if name != "strided"}
    assert len({mark.marker for mark in style.MARKS.values()}) == len(style.MARKS)
    for matrix in _DICHROMACY.values():
        colors = {name: _lab(matrix @ _linear(mark.color)) for name, mark in known.items()}
        names = list(colors)
        nearest = min(np.linalg.norm(colors[a] - colors[b]) for i, a in enumerate(names) for b in names[:i])
        assert nearest > 13
    for mark in style.MARKS.values():
        contrast = 1.05 / (_linear(mark.color) @ [0.2126, 0.7152, 0.0722] + 0.05)
        assert contrast > 2.2


# Machado, Oliveira & Fernandes 2009, severity 1.
_DICHROMACY = {
    "none": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def _linear(color: str) -> np.ndarray:
    value = np.array(mpl.colors.to_rgb(color))
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(linear: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    white = np.array([0.9505, 1, 1.089])
    f = to_xyz @ np.clip(linear, 0, 1) / white
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def test_unknown_operators_get_marks_of_their_own() -> None:
    found = style.marks(pd.Series(["zebra", "max", "apple"]))
    assert list(found) == ["max", "apple", "zebra"]
    assert found["max"] == style.MARKS["max"]
    assert len(set(found.values())) == 3
