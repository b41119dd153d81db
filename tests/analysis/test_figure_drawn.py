"""The figure of what was drawn: each operator once, rotations apart, correlations as scipy has them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis.figures.drawn import FACTORS, drawn, drawn_operators, spearman
from invariscope.analysis.publication import table_drawn
from invariscope.base.errors import TableError

N, BLOCKS = 40, 5


@pytest.fixture
def frame() -> pd.DataFrame:
    """A population on two data sets, one of its operators trained again, blocks, and two published operators."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(N):
        factors = dict(zip(FACTORS, rng.uniform(size=4), strict=True))
        factors["factor_assigned_lambda"] = (factors["factor_assigned_msb"] + rng.normal(0, 0.2)) ** 2
        named = {
            "factor_population": "P",
            "factor_draw": f"P{number:03d}",
            "factor_family": ("rank", "channelranks")[number % 2],
        }
        for data in ("digits", "mnist"):
            rows.append({**factors, **named, "data": data, "padding_mode": ("zeros", "circular")[number // 2 % 2]})
    rows.append({**rows[0], "factor_repeat": 1})
    for number in range(4 * BLOCKS):
        block, turn = divmod(number, 4)
        factors = dict(zip(FACTORS, (0.1 * turn * (block + 1), 0.5, 0.2, 0.0), strict=True))
        rows.append(
            {**factors, "factor_block": f"R{block}", "factor_draw": f"R{block}-{turn}", "factor_family": "rank"}
        )
    rows += [{"operator": "max"}, {"operator": "avg"}]
    made = pd.DataFrame(rows)
    names = [f"net{number}" for number in range(len(made))]
    return made.assign(
        checkpoint=names,
        model=names,
        cluster=names,
        final=True,
        operator=made["operator"].fillna("mix"),
        operator_spec="x",
        data=made["data"].fillna("digits"),
        padding_mode=made["padding_mode"].fillna("circular"),
    )


def test_an_operator_counts_once_whatever_it_was_trained_on(frame: pd.DataFrame) -> None:
    _, rows = drawn_operators(frame, "drawn")
    assert rows["factor_draw"].is_unique
    assert (~rows["rotation"]).sum() == N
    assert rows["rotation"].sum() == 4 * BLOCKS
    caption = drawn(frame).caption
    assert f"of {2 * N + 1 + 4 * BLOCKS} checkpoints, each operator once" in caption
    assert f"Population: {N} operators" in caption
    assert f"Rotations: {4 * BLOCKS} operators" in caption
    assert "Padding by family: channelranks circular 10, zeros 10; rank circular 10, zeros 10." in caption
    assert "Augmentation" not in caption


def test_rotations_are_told_by_their_blocks(frame: pd.DataFrame) -> None:
    spans = [0.3 * (block + 1) for block in range(BLOCKS)]
    told = f"{BLOCKS} blocks, range of MSB within a block {np.median(spans):.2f} (median; 0.30 to 1.50)."
    assert told in drawn(frame).caption


def test_points_and_histograms_are_the_operators(frame: pd.DataFrame) -> None:
    axes = np.array(drawn(frame).axes).reshape(4, 4)
    one = frame[frame["factor_draw"].notna()].drop_duplicates("factor_draw")
    population = one[one["factor_block"].isna()]
    names = list(FACTORS)
    rotations, ranks, channels = axes[2, 0].collections
    assert len(rotations.get_offsets()) == 4 * BLOCKS
    for collection, family in ((ranks, "rank"), (channels, "channelranks")):
        part = population[population["factor_family"] == family]
        assert np.allclose(collection.get_offsets(), part[[names[0], names[2]]])
    for place, name in enumerate(names):
        heights = [patch.get_height() for patch in axes[place, place].patches]
        assert heights == np.histogram(population[name], bins=len(heights))[0].tolist()
        assert axes[3, place].get_xlabel() == FACTORS[name]
    rho = stats.spearmanr(population[names[0]], population[names[2]]).statistic
    assert [text.get_text() for text in axes[0, 2].texts] == [f"ρ = {rho:+.2f}"]


def test_the_interval_of_rho_holds_the_truth_as_often_as_it_says() -> None:
    """Normal data, for which rho of the ranks is 6/pi asin(r/2)."""
    rng = np.random.default_rng(1)
    r = 0.5
    truth = 6 / np.pi * np.arcsin(r / 2)
    held = 0
    for _ in range(400):
        x = rng.normal(size=60)
        rows = pd.DataFrame({"x": x, "y": r * x + np.sqrt(1 - r**2) * rng.normal(size=60)})
        rho, low, high = spearman(rows, "x", "y")
        assert rho == pytest.approx(stats.spearmanr(rows["x"], rows["y"]).statistic)
        held += low <= truth <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_factor_that_does_not_vary_has_no_correlation(frame: pd.DataFrame) -> None:
    blocks = frame[frame["factor_block"].notna()]
    assert np.isnan(spearman(blocks, "factor_assigned_msb", "factor_assigned_asymmetry")).all()
    caption = drawn(blocks).caption
    assert "Population" not in caption
    assert "MSB with asymmetry" not in caption


def test_the_table_counts_operators_blocks_and_what_was_trained(frame: pd.DataFrame) -> None:
    frame = frame.assign(factor_population=frame["factor_population"].where(frame["factor_block"].isna(), "R"))
    rows = table_drawn(frame).rows.set_index(["factor_population", "factor_family"])
    assert rows["operators"].to_dict() == {
        ("P", "rank"): N / 2,
        ("P", "channelranks"): N / 2,
        ("R", "rank"): 4 * BLOCKS,
    }
    assert rows["blocks"].to_dict() == {("P", "rank"): 0, ("P", "channelranks"): 0, ("R", "rank"): BLOCKS}
    assert rows["n"].to_dict() == {("P", "rank"): N + 1, ("P", "channelranks"): N, ("R", "rank"): 4 * BLOCKS}
    msb = frame[frame["factor_family"] == "channelranks"]["factor_assigned_msb"]
    ends = rows.loc[("P", "channelranks"), [f"factor_assigned_msb{end}" for end in ("", "_low", "_high")]]
    assert ends.tolist() == [msb.median(), msb.min(), msb.max()]


@pytest.mark.parametrize(("family", "label"), [(None, "no family named"), ("bumps", "bumps"), ("absent", "")])
def test_operators_of_other_families_or_of_none_are_drawn_and_counted(
    frame: pd.DataFrame, family: str | None, label: str
) -> None:
    population = frame[frame["factor_block"].isna() & frame["factor_draw"].notna()]
    if family == "absent":
        population, label = population.drop(columns="factor_family"), "no family named"
    else:
        other = population["factor_family"] == "channelranks"
        population = population.assign(factor_family=population["factor_family"].mask(other, family))
    figure = drawn(population)
    axes = np.array(figure.axes).reshape(4, 4)
    assert sum(len(found.get_offsets()) for found in axes[2, 0].collections) == N
    assert label in [text.get_text() for text in figure.legends[0].get_texts()]
    rows = table_drawn(population).rows.set_index(["factor_population", "factor_family"])
    assert rows.loc[("P", label), "operators"] == (N if family == "absent" else N / 2)
    assert rows["n"].sum() == 2 * N + 1


def test_a_zoo_without_drawn_operators_is_told(frame: pd.DataFrame) -> None:
    published = frame[frame["operator"] != "mix"]
    for rows in (published, published.drop(columns=list(FACTORS))):
        with pytest.raises(TableError, match="drawn: no operator was drawn at random: train a recipe that"):
            drawn(rows)
