"""Shift kinds that are not known here are analysed and drawn by an explicit rule, and never as another kind."""

from __future__ import annotations

import dataclasses
from types import ModuleType

import pandas as pd
import pytest

from invariscope.analysis import Tables, analyze, draw, join
from invariscope.analysis.say.vocabulary import PIXELS
from invariscope.analysis.tables.plans import PLAN, kind_look, kind_order, pixel_consistency_name, shifted
from invariscope.collectors.schema import SHIFT_KINDS


@pytest.fixture(scope="module")
def rotated(simulate: ModuleType) -> Tables:
    """Shifts of a kind of somebody else's, beside circular ones."""
    tables = simulate.simulate_tables(simulate.Zoo(seeds=1, padding_modes=("circular",)))
    kinds = tables.invariance["shift_kind"].replace("zero", "rotate")
    return dataclasses.replace(tables, invariance=tables.invariance.assign(shift_kind=kinds, fill=None))


def test_every_kind_has_a_look_of_its_own() -> None:
    looks = [kind_look(kind) for kind in (*SHIFT_KINDS, "rotate")]
    for axis in range(3):
        assert len({str(look[axis]) for look in looks}) == len(looks)


def test_kinds_come_in_the_order_of_the_registry_then_by_name() -> None:
    assert kind_order(["wobble", *reversed([*SHIFT_KINDS]), "rotate"]) == (*SHIFT_KINDS, "rotate", "wobble")


def test_a_kind_without_a_name_in_the_literature_has_none() -> None:
    assert {kind for kind in SHIFT_KINDS if pixel_consistency_name(kind)} == {"circular", "zero", "crop"}
    assert PIXELS.against("rotate") == "per-pixel consistency"


def test_an_unknown_kind_is_analysed_and_drawn(rotated: Tables) -> None:
    frame = join(rotated)
    rows = frame[frame["final"] & (frame["operator"] != "subsample")]
    results = analyze(rows, scores=["consistency"], resamples=5, permutations=0)
    assert set(results.correlations["shift_kind"]) == {"circular", "rotate"}
    assert set(results.primary.query("role == 'primary'")["shift_kind"]) == {"circular"}
    figure = draw("dose_response", rotated)
    [legend] = figure.legends
    colors = {
        text.get_text(): handle.get_color() for text, handle in zip(legend.texts, legend.legend_handles, strict=True)
    }
    assert colors["rotate shift"] == kind_look("rotate").color != colors["circular shift"]
    assert "rotate (≤ 4 px, 9 per image, sampled)" in figure.caption


def test_only_rows_without_a_shift_are_left_out(rotated: Tables) -> None:
    assert set(shifted(rotated.invariance)["shift_kind"]) == {"circular", "rotate"}
    assert "none" in set(rotated.invariance["shift_kind"])


def test_the_labels_of_a_plan_are_columns_of_every_table_of_shifts(rotated: Tables) -> None:
    for table in (rotated.invariance, rotated.surface, rotated.swaps, rotated.segmentation):
        assert set(PLAN) <= set(pd.DataFrame(table).columns)
