"""What a checkpoint is: every frame, figure and table of the paper says the same of it, or refuses the same."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from types import ModuleType

import pandas as pd
import pytest

from invariscope.analysis import TableError, Tables, analyze, analyze_tables, draw, report_page
from invariscope.analysis.drawing import draw_figures
from invariscope.analysis.figures import FIGURES, FigureEntry
from invariscope.analysis.publication import PAPER_TABLES
from invariscope.analysis.tables.checkpoints import FACTORS, describe
from invariscope.analysis.tables.frames import FRAMES, Frames

SHARED = ["checkpoint", *FACTORS, "cluster", "final", "factor_width"]
FEW = {"resamples": 5, "permutations": 0}


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    zoo = simulate.Zoo(seeds=1, padding_modes=("circular",), shift_kinds=("zero",), surface_shift=1, swap_slope=-1.0)
    return conditions.with_conditions(simulate.simulate_tables(zoo))


@pytest.fixture(scope="module")
def undescribed(tables: Tables) -> Tables:
    """One network that was measured is not described."""
    lost = tables.checkpoints["checkpoint"] == tables.checkpoints["checkpoint"].iloc[-1]
    return dataclasses.replace(tables, checkpoints=tables.checkpoints[~lost])


@pytest.fixture(scope="module")
def copied(tables: Tables) -> Tables:
    """The last network has a second name, an earlier one, with another operator; it was measured under both names."""
    last = tables.checkpoints[tables.checkpoints["checkpoint"] == tables.checkpoints["checkpoint"].iloc[-1]]
    copy = last.assign(checkpoint="a-copy", operator="other", operator_spec="other", run="other-run")
    made = {"checkpoints": pd.concat([tables.checkpoints, copy], ignore_index=True)}
    return dataclasses.replace(tables, **made)


def key(rows: pd.DataFrame) -> pd.Series:
    return rows["sha256"] + rows["model"]


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_has_every_fact_and_the_same(tables: Tables, name: str) -> None:
    described = describe(tables).set_index("checkpoint")
    frame = FRAMES[name](tables)
    assert len(frame)
    assert set(SHARED) <= set(frame.columns)
    once = frame.drop_duplicates("checkpoint").set_index("checkpoint")
    pd.testing.assert_frame_equal(once[FACTORS], described.loc[once.index, FACTORS], check_dtype=False)
    assert (once["cluster"] == once["operator"] + "|" + once["run"]).all()
    assert (once["final"] == (once["epoch"] == once["epoch"].max())).all()


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_refuses_a_network_that_is_not_described(undescribed: Tables, name: str) -> None:
    with pytest.raises(TableError, match=r"^1 of the networks in table \w+ is not in table checkpoints \("):
        FRAMES[name](undescribed)


@pytest.mark.parametrize("name", [*FIGURES, *PAPER_TABLES])
def test_every_figure_and_table_tells_why(undescribed: Tables, name: str) -> None:
    drawn = draw_figures(undescribed, [name])
    assert not drawn.figures
    assert not drawn.tables
    assert "is not in table checkpoints" in drawn.reasons[name]


@pytest.mark.parametrize("entry", [analyze_tables, report_page])
def test_the_analysis_and_the_report_refuse_it(undescribed: Tables, entry: Callable[[Tables], object]) -> None:
    with pytest.raises(TableError, match="is not in table checkpoints"):
        entry(undescribed)


@pytest.mark.parametrize("name", FRAMES)
def test_a_network_of_two_names_is_one_network_of_the_first(tables: Tables, copied: Tables, name: str) -> None:
    last = tables.checkpoints.iloc[-1]
    network = last["sha256"] + last["model"]
    before, after = FRAMES[name](tables), FRAMES[name](copied)
    mine = after[key(after) == network]
    assert len(mine)
    assert len(after) == len(before)
    assert set(mine["checkpoint"]) == {"a-copy"}
    assert set(mine["operator"]) == {"other"}
    assert set(mine["cluster"]) == {"other|other-run"}
    assert after.attrs["copies"] == [last["checkpoint"]]


def test_statistics_and_figures_agree_on_it_and_tell_its_other_name(
    tables: Tables, copied: Tables, studies: ModuleType
) -> None:
    other = tables.checkpoints["checkpoint"].iloc[-1]
    frames = Frames(copied)
    published = dataclasses.replace(copied, checkpoints=copied.checkpoints.assign(factors="{}"))  # none of them drawn
    rows = Frames(published)["joined"]
    results = analyze(rows[rows["final"] & (rows["operator"] != "subsample")], scores=["consistency"], **FEW)
    assert f"1 further checkpoint is a copy of another (the same weights and function) and not counted: {other}." in (
        results.summary
    )
    last = frames["joined"].query("final and operator != 'subsample'")
    assert f"{last['checkpoint'].nunique()} checkpoints of 11 operators" in results.summary
    told = f"Copies of another checkpoint (the same weights and function), not counted: {other}."
    study = studies.study()
    study.attrs = frames["joined"].attrs
    one_of_each_frames = {FigureEntry.of(FIGURES[name]).frames: name for name in FIGURES}
    for name in FIGURES if os.environ.get("INVARISCOPE_FULL") else one_of_each_frames.values():
        caption = draw(name, studies.StudyFrames(study) if studies.is_of_a_study(name) else frames).caption
        assert told in caption.splitlines(), name
    figure = draw("msb_by_operator", frames)
    assert any(line.startswith("other: ") for line in figure.caption.splitlines())
    groups = set(results.regressions.loc[results.regressions["model"] == "slope within each operator", "group"])
    assert "operator=other" in groups


def test_every_entry_names_its_frames() -> None:
    for registry in (FIGURES, PAPER_TABLES):
        for name in registry.own:
            assert set(FigureEntry.of(registry[name]).frames) <= set(FRAMES)
