"""Networks from elsewhere: drawn hollow, told of, and in no number."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection

from invariscope.analysis import Frames, TableError, Tables, analyze, join
from invariscope.analysis.designs import swap_changes
from invariscope.analysis.figures import draw
from invariscope.analysis.report.explorer import explorer
from invariscope.analysis.stats.power import Power, power
from invariscope.analysis.tables.checkpoints import own
from invariscope.analysis.tables.swapped import swap_frame
from tests.analysis.simulate import Zoo, simulate_tables

FOREIGN = ("max-a", "strided-b")


@pytest.fixture(scope="module")
def plain() -> Tables:
    return simulate_tables(Zoo(seeds=2, epochs=(24.0,), padding_modes=("zeros",)))


@pytest.fixture(scope="module")
def mixed(plain: Tables) -> Tables:
    """The same tables with two networks from elsewhere beside them, which would move every number."""
    added: dict[str, list[pd.DataFrame]] = {}
    first = plain.checkpoints["checkpoint"].iloc[0]
    for number, name in enumerate(FOREIGN):
        for table in ("checkpoints", "layers", "invariance"):
            rows = getattr(plain, table)
            rows = rows[rows["checkpoint"] == first].assign(checkpoint=name, sha256=f"{number}" * 64)
            added.setdefault(table, []).append(rows)
        factors = json.dumps({"operator": name.split("-")[0], "origin": "elsewhere", "run": name})
        described = added["checkpoints"][-1].assign(factors=factors, operator=name.split("-")[0], run=name, epoch=None)
        added["checkpoints"][-1] = described
        added["invariance"][-1] = added["invariance"][-1].assign(value=0.123 + number / 4)
    whole = {table: pd.concat([getattr(plain, table), *rows], ignore_index=True) for table, rows in added.items()}
    return dataclasses.replace(plain, **whole)


@pytest.fixture(scope="module")
def frames(plain: Tables, mixed: Tables) -> tuple[Frames, Frames]:
    """Of both, made once for all figures."""
    return Frames(plain), Frames(mixed)


def test_they_change_no_number_and_are_named(plain: Tables, mixed: Tables) -> None:
    options = {"resamples": 10, "permutations": 9, "scores": ["consistency"]}
    frames = (join(tables) for tables in (plain, mixed))
    kept = (rows[(rows["shift_kind"] == "zero") & (rows["operator"] != "subsample")] for rows in frames)
    expected, found = (analyze(rows, **options) for rows in kept)
    for name in ("correlations", "regressions", "influence", "comparisons", "designs", "primary"):
        pd.testing.assert_frame_equal(getattr(found, name), getattr(expected, name))
    sentence = " 2 networks from elsewhere (max-a, strided-b) take part in none of the numbers."
    assert found.summary.replace(sentence, "", 1) == expected.summary
    assert sentence in found.summary


def test_power_leaves_them_out(plain: Tables, mixed: Tables) -> None:
    settings = Power(simulations=4)
    pd.testing.assert_frame_equal(power(join(mixed), settings), power(join(plain), settings))


def test_own_keeps_the_others_and_says_who_left(plain: Tables, mixed: Tables) -> None:
    rows = own(join(mixed))
    assert rows.attrs["elsewhere"] == list(FOREIGN)
    assert not set(FOREIGN) & set(rows["checkpoint"])
    assert len(rows) == len(join(plain))


def test_nothing_but_networks_from_elsewhere_is_refused(mixed: Tables) -> None:
    rows = join(mixed)
    with pytest.raises(TableError, match=r"all networks have the origin 'elsewhere'.*leave that factor out"):
        own(rows[rows["checkpoint"].isin(FOREIGN)])


@pytest.mark.parametrize(("figure", "panels"), [("msb_invariance", 4), ("confounding", 2)])
def test_they_are_hollow_and_in_no_fit(frames: tuple[Frames, Frames], figure: str, panels: int) -> None:
    expected, found = (draw(figure, of) for of in frames)
    hollow = [
        points
        for ax in found.axes
        for points in ax.collections
        if isinstance(points, PathCollection) and str(points.get_label()).endswith("(elsewhere)")
    ]
    assert len(hollow) == 2 * panels
    assert all(len(points.get_facecolors()) == 0 for points in hollow)
    drawn = {round(float(np.asarray(points.get_offsets())[0, 1]), 3) for points in hollow}
    assert drawn == {0.123, 0.373}
    for ax, other in zip(found.axes, expected.axes, strict=True):
        assert ax.get_title(loc="left") == other.get_title(loc="left")
        for line, fit in zip(ax.lines, other.lines, strict=True):
            np.testing.assert_array_equal(line.get_xydata(), fit.get_xydata())
    note = "Drawn hollow, and in no fit or number: networks from elsewhere (max-a, strided-b)."
    assert note in found.caption
    labels = [text.get_text() for text in found.legends[0].get_texts()]
    assert "hollow: from elsewhere" in labels
    assert "strided" in labels + [text.get_text() for ax in found.axes for text in ax.texts]


@pytest.mark.parametrize("figure", ["within_between", "msb_by_depth"])
def test_a_figure_that_does_not_draw_them_says_so(frames: tuple[Frames, Frames], figure: str) -> None:
    note = "Not shown: networks from elsewhere (max-a, strided-b)."
    expected, found = (draw(figure, of).caption for of in frames)
    assert note in found
    assert found.replace(f"\n{note}", "") == expected


def test_their_swaps_count_in_no_number() -> None:
    zoo = Zoo(seeds=1, epochs=(24.0,), padding_modes=("zeros",), shift_kinds=("zero",), swap_slope=-0.3)
    tables = simulate_tables(zoo)
    foreign = sorted(tables.swaps["checkpoint"].unique())[:2]
    marked = tables.checkpoints["checkpoint"].isin(foreign)
    factors = [
        json.dumps({**json.loads(text), **({"origin": "elsewhere"} if apart else {})})
        for text, apart in zip(tables.checkpoints["factors"], marked, strict=True)
    ]
    mixed = dataclasses.replace(tables, checkpoints=tables.checkpoints.assign(factors=factors))
    rest = dataclasses.replace(tables, swaps=tables.swaps[~tables.swaps["checkpoint"].isin(foreign)])
    expected = swap_changes(swap_frame(rest), resamples=10)
    pd.testing.assert_frame_equal(swap_changes(swap_frame(mixed), resamples=10), expected)
    assert f"({', '.join(foreign)})" in draw("swap", mixed).caption


def test_the_report_marks_them(plain: Tables, mixed: Tables) -> None:
    payload = explorer(Frames(mixed))
    marked = {name for name, apart in zip(payload["names"], payload["elsewhere"], strict=True) if apart}
    assert marked == set(FOREIGN)
    assert not any(explorer(Frames(plain))["elsewhere"])
