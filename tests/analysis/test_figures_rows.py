"""Figures with a row per operator stay of a page's height, however many operators there are, and say what they draw."""

from __future__ import annotations

import itertools
from types import ModuleType

import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

from invariscope.analysis import Frames
from invariscope.analysis.figures import draw, style
from invariscope.analysis.figures.influence import _slopes
from invariscope.analysis.figures.msb_by_depth import msb_by_depth
from invariscope.analysis.figures.selection import select

MOST = 4
ROWS = {"msb_by_operator": MOST, "within_between": 4, "cost": MOST, "influence": MOST, "swap": 8}
"""Rows at most: the forest of slopes has two pooled ones, swaps up to four places of each replacement."""


@pytest.fixture(scope="module")
def frames(simulate: ModuleType, conditions: ModuleType) -> Frames:
    zoo = simulate.Zoo(seeds=2, epochs=(8.0,), padding_modes=("zeros",), surface_shift=1, swap_slope=-0.2)
    return Frames(conditions.with_conditions(simulate.simulate_tables(zoo)))


def ticks(figure: style.CaptionedFigure) -> int:
    """Labels with a letter along the y axis that has most of them."""
    labels = [[text.get_text() for text in ax.get_yticklabels()] for ax in figure.axes]
    return max(sum(any(map(str.isalpha, text)) for text in those) for those in labels)


@pytest.mark.parametrize("name", ROWS)
def test_more_operators_than_a_page_holds_are_sampled_and_said(
    frames: Frames, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = draw(name, frames)
    assert ticks(whole) > ROWS[name] or name in ("within_between", "swap")
    assert "are drawn, evenly" not in whole.caption
    monkeypatch.setattr(style, "MOST_ROWS", 2 if name in ("within_between", "swap") else MOST)
    some = draw(name, frames)
    assert ticks(some) <= ROWS[name]
    assert ticks(some) < ticks(whole)
    assert some.get_figheight() < whole.get_figheight()
    said = "largest Cook's distance" if name == "influence" else f"{style.MOST_ROWS} of "
    assert said in some.caption
    assert len(some.caption) < len(whole.caption) or name == "within_between"


def test_lines_by_depth_are_of_as_many_operators(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw("msb_by_depth", frames)
    monkeypatch.setattr(style, "MOST_ROWS", MOST)
    some = draw("msb_by_depth", frames)
    assert len(whole.axes[0].containers) > MOST == len(some.axes[0].containers)
    means = frames["sites"].dropna(subset=["msb_corrected"]).groupby("operator")["msb_corrected"].mean()
    drawn = [container.get_label() for container in some.axes[0].containers]
    assert (drawn[0], drawn[-1]) == (means.idxmin(), means.idxmax())
    assert f"{MOST} of {len(whole.axes[0].containers)} operators are drawn, evenly spaced" in some.caption


@pytest.mark.parametrize("listed", [40, 3])
def test_lines_by_depth_look_as_the_legend_has_them(
    frames: Frames, monkeypatch: pytest.MonkeyPatch, listed: int
) -> None:
    monkeypatch.setattr(style, "LISTED", listed)
    sites = frames["sites"]
    own = sites.assign(operator="my_" + sites["operator"].astype(str))
    figure = msb_by_depth(own)
    legend = {text.get_text(): handle for handle, text in handles(figure)}
    lines = {container.get_label(): container.lines[0] for container in figure.axes[0].containers}
    assert len(lines) > 4
    for name, line in lines.items():
        entry = legend[name] if listed == 40 else legend[f"{len(lines)} further operators"]
        assert (line.get_color(), line.get_marker()) == (entry.get_color(), entry.get_marker())
    assert len({(line.get_color(), line.get_marker()) for line in lines.values()}) == (
        len(lines) if listed == 40 else 1
    )


def handles(figure: style.CaptionedFigure) -> list[tuple[Line2D, Text]]:
    legend = figure.legends[0]
    return list(zip(legend.legend_handles, legend.get_texts(), strict=True))


def test_a_sample_of_rows_is_even_and_holds_both_ends() -> None:
    order = [f"op{number}" for number in range(1000)]
    drawn, (said,) = style.some_rows(order)
    places = [order.index(name) for name in drawn]
    assert (places[0], places[-1], len(set(places))) == (0, 999, style.MOST_ROWS)
    steps = {after - before for before, after in itertools.pairwise(places)}
    assert steps <= {25, 26}
    assert said == "40 of 1,000 operators are drawn, evenly spaced in their order; the tables hold all."
    assert style.some_rows(order[:40]) == (order[:40], [])


def test_influence_keeps_what_moves_the_slope_most(frames: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(style, "MOST_ROWS", 3)
    figure = draw("influence", frames)
    selection = select(frames.get("joined"), "influence", ["msb_corrected", "consistency", "accuracy"], None, "final")
    tables = [_slopes(selection.kind(kind), "msb_corrected", "consistency") for kind in selection.kinds]
    greatest: dict[tuple[str, str], float] = {}
    for table in tables:
        for row in table.itertuples():
            if row.left_out and row.cooks_distance > greatest.get((row.left_out_kind, row.left_out), -1):
                greatest[row.left_out_kind, row.left_out] = row.cooks_distance
    expected = {name for _, name in sorted(greatest, key=lambda key: -greatest[key])[:3]}
    found = {label.get_text().removeprefix("architecture ") for label in figure.axes[0].get_yticklabels()}
    assert found == expected
