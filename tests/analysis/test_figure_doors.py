"""Figures, frames and tables of the paper from outside: registered, given their frames, drawn beside ours, told of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from matplotlib.figure import Figure

from invariscope import cli
from invariscope.analysis import (
    TableError,
    Tables,
    analyze,
    draw,
    join,
    register_figure,
    register_frame,
    register_paper_table,
    report_page,
)
from invariscope.analysis.drawing import draw_figures
from invariscope.analysis.figures import FIGURES, FigureEntry
from invariscope.analysis.publication import PAPER_TABLES, Column, PaperTable
from invariscope.analysis.tables.frames import FRAMES


@pytest.fixture(scope="module")
def tables(simulate: ModuleType) -> Tables:
    return simulate.simulate_tables(
        simulate.Zoo(seeds=1, padding_modes=("circular",), epochs=(24.0,), shift_kinds=("zero",))
    )


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    for registry in (FIGURES, FRAMES, PAPER_TABLES):
        for name in registry.added:
            registry.remove(name)


def bars(frame: pd.DataFrame) -> Figure:
    """A figure that takes one frame and no option."""
    figure = Figure()
    figure.subplots().bar(range(len(frame)), frame["accuracy"])
    return figure


def sizes(tables: Tables) -> pd.DataFrame:
    return tables.checkpoints[["checkpoint", "n_params"]]


def test_a_function_of_the_joined_frame_is_a_figure(tables: Tables, tmp_path: Path) -> None:
    register_figure("bars", bars)
    assert list(FIGURES)[-1] == "bars"
    assert draw("bars", tables).axes[0].patches[0].get_height() > 0
    drawn = draw_figures(tables, ["bars", "msb_by_operator"])
    written = {path.name for path in drawn.write(tmp_path)}
    assert written == {"bars.png", "msb_by_operator.png", "msb_by_operator.txt"}  # a plain figure has no caption


def test_a_figure_is_given_its_frames_and_the_options_that_it_names(tables: Tables) -> None:
    given = []

    def seen(rows: pd.DataFrame, sites: pd.DataFrame, *, width: str) -> Figure:
        given.append((list(rows.columns), "depth" in sites, width))
        return Figure()

    register_frame("sizes", sizes)
    register_figure("seen", seen, frames=("sizes", "sites"))
    draw_figures(tables, ["seen"], width="single", data="ignored")
    assert given == [(["checkpoint", "n_params"], True, "single")]


def test_an_option_that_a_figure_does_not_know_is_an_error(tables: Tables) -> None:
    with pytest.raises(TypeError, match="colour"):
        draw("msb_by_operator", tables, colour="red")


def test_it_is_in_the_report(tables: Tables) -> None:
    register_figure("bars", bars)
    rows = join(tables)
    rows = rows[rows["operator"].isin(["max", "avg", "lp", "tips"])]
    results = analyze(rows, scores=["consistency"], resamples=5, permutations=0)
    page = report_page(tables, results=results, drawn=draw_figures(tables, ["bars"]))
    assert 'id="figure-bars"' in page
    assert 'alt="Bars"' in page


def test_a_table_of_the_paper(tables: Tables, tmp_path: Path) -> None:
    def table(frame: pd.DataFrame) -> PaperTable:
        rows = frame.groupby("operator", as_index=False).agg(accuracy=("accuracy", "mean"))
        rows = rows.assign(accuracy_low=float("nan"), accuracy_high=float("nan"), n=1, runs=1)
        return PaperTable("mine", rows, ("operator",), (Column("accuracy", "accuracy"),), "Mine.")

    register_paper_table("mine", table)
    drawn = draw_figures(tables, ["mine"])
    assert {path.name for path in drawn.write(tmp_path)} == {"mine.csv", "mine.md", "mine.tex", "mine.txt"}


@pytest.mark.parametrize(
    ("name", "function", "frames", "message"),
    [
        ("msb_by_operator", bars, ("joined",), "is there already: give yours another name"),
        ("../bars", bars, ("joined",), "cannot name a file"),
        ("bars", "accuracy", ("joined",), "is no function"),
        ("bars", bars, ("jointed",), "unknown frame 'jointed': did you mean 'joined'?"),
    ],
)
def test_what_is_no_figure_is_refused(name: str, function: object, frames: tuple[str, ...], message: str) -> None:
    for register in (register_figure, register_paper_table):
        if "already" in message and register is register_paper_table:
            name = "table_cost"
        with pytest.raises(TableError) as error:
            register(name, function, frames)  # type: ignore[operator]
        assert message in str(error.value)
        assert name not in {**FIGURES.added, **PAPER_TABLES.added}


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(TableError, match="is no function"):
        register_frame("mine", 1)  # type: ignore[arg-type]


def broken(frame: pd.DataFrame) -> Figure:
    raise KeyError("accuracies")


def without_data(frame: pd.DataFrame) -> Figure:
    raise TableError("there is nothing to draw: collect more")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (broken, "figure 'mine' failed (KeyError: 'accuracies'): mend its function"),
        (without_data, "there is nothing to draw: collect more"),
        (lambda frame: 1, "figure 'mine' returned int: its function has to return Figure"),
    ],
)
def test_one_that_fails_is_told_and_stops_no_other(tables: Tables, function: object, reason: str) -> None:
    register_figure("mine", function)  # type: ignore[arg-type]
    drawn = draw_figures(tables, ["mine", "msb_by_operator"])
    assert drawn.reasons == {"mine": reason}
    assert list(drawn.figures) == ["msb_by_operator"]


def broken_frame(tables: Tables) -> pd.DataFrame:
    return tables.checkpoints["no such column"]


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (broken_frame, "frame 'mine' failed (KeyError: 'no such column'): mend its function"),
        (lambda tables: 1, "frame 'mine' is int: its function has to return a DataFrame"),
    ],
)
def test_a_frame_that_fails_is_told(tables: Tables, function: object, reason: str) -> None:
    register_frame("mine", function)  # type: ignore[arg-type]
    register_figure("of_mine", bars, ("mine",))
    assert draw_figures(tables, ["of_mine"]).reasons == {"of_mine": reason}


def test_a_name_of_both_kinds_is_refused(tables: Tables) -> None:
    register_figure("mine", bars)
    register_paper_table("mine", bars)  # type: ignore[arg-type]
    with pytest.raises(TableError, match="is a figure and a table of the paper"):
        draw_figures(tables, ["mine"])


def test_an_entry_is_called_as_its_function_is() -> None:
    frame = pd.DataFrame({"accuracy": [0.5]})
    assert FigureEntry(bars)(frame).axes[0].patches[0].get_height() == 0.5


MINE = """
from matplotlib.figure import Figure

from shared_look import COLOR


def mine(frame, *, width):
    figure = Figure()
    figure.subplots().bar(range(len(frame)), frame["accuracy"], color=COLOR)
    figure.caption = f"Mine, {width}."
    return figure
"""


def test_a_function_of_a_file_is_drawn_by_the_command(
    simulate: ModuleType, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = simulate.write_tables(tables, tmp_path / "tables")
    (tmp_path / "my_figures.py").write_text(MINE)
    (tmp_path / "shared_look.py").write_text("COLOR = '#112233'\n")
    monkeypatch.chdir(tmp_path)
    only = "python:my_figures.py:mine,msb_by_operator"
    for _ in range(2):  # nothing of it is left for the next command
        assert cli.main(["figures", str(folder), "--out", "out", "--allow-code", "--only", only]) == cli.DONE
    assert {path.name for path in Path("out").iterdir()} == {
        *("mine.png", "mine.txt", "msb_by_operator.png", "msb_by_operator.txt")
    }
    assert Path("out/mine.txt").read_text() == "Mine, double.\n"
    assert "mine" not in FIGURES


@pytest.mark.parametrize(
    ("only", "message"),
    [
        ("python:my_figures.py", "write python:FILE.py:NAME"),
        ("python:my_figures.py:other", "unknown function or class 'other'"),
        ("python:no_such.py:mine", "no_such.py"),
    ],
)
def test_a_file_without_the_function_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    only: str,
    message: str,
) -> None:
    (tmp_path / "my_figures.py").write_text(MINE)
    (tmp_path / "shared_look.py").write_text("COLOR = '#112233'\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["figures", "tables", "--out", "out", "--allow-code", "--only", only]) == cli.BAD_INPUT
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()
