"""Any factor as colour, panel or row; readings and scores by choice; marks of many operators."""

from __future__ import annotations

import dataclasses
import itertools
import json
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis.drawing import draw_figures
from invariscope.analysis.figures import style
from invariscope.analysis.figures.alone import alone_fit
from invariscope.analysis.figures.confounding import confounding
from invariscope.analysis.figures.fits import mean_interval
from invariscope.analysis.figures.msb_invariance import msb_invariance
from invariscope.analysis.figures.population import population
from invariscope.analysis.publication import table_classification, table_cost
from invariscope.analysis.tables.factors import factor_levels
from invariscope.analysis.tables.frames import Frames
from invariscope.analysis.tables.load import Tables
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def tables(simulate: ModuleType, conditions: ModuleType) -> Tables:
    """Networks of 16 and of 64 channels, by seed; one operator without a specification."""
    zoo = simulate.Zoo(n_operators=4, seeds=2, epochs=(8.0,), padding_modes=("zeros",))
    made = conditions.with_conditions(simulate.simulate_tables(zoo))
    rows = made.checkpoints
    width = rows["seed"].map({0: 64, 1: 16})
    factors = [
        json.dumps({**json.loads(text), "width": int(w)}) for text, w in zip(rows["factors"], width, strict=True)
    ]
    operators = rows["operator"].replace({"op1": "mine"})
    own = operators == "mine"
    specs = rows["operator_spec"].where(~own, None)
    return dataclasses.replace(made, checkpoints=rows.assign(factors=factors, operator=operators, operator_spec=specs))


@pytest.fixture(scope="module")
def frame(tables: Tables) -> pd.DataFrame:
    return Frames(tables)["joined"]


def test_points_and_means_by_any_factor(seen: ModuleType, frame: pd.DataFrame) -> None:
    figure = msb_invariance(frame, scores=["consistency"], hue="width")
    ax = figure.axes[-1]
    rows = frame[frame["shift_kind"] == "zero"].assign(operator=frame["factor_width"].astype(str))
    seen.assert_same_points(seen.points(ax), seen.expected(rows, "msb_corrected", "consistency"))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["width 16", "64"]  # by size, not by name
    for width, part in rows.groupby("factor_width"):
        wanted = part[["msb_corrected", "consistency"]].mean()
        assert seen.line(ax, f"mean of {width}")[0] == pytest.approx(wanted.to_numpy(), abs=1e-9)
    figure = confounding(frame, hue="width")
    assert set(seen.points(figure.axes[0])) == {"16", "64"}
    assert "colour and marker: width" in figure.caption


def test_panels_by_any_factor_leave_nothing_unsaid(seen: ModuleType, frame: pd.DataFrame) -> None:
    figure = msb_invariance(frame, scores=["consistency", "fidelity"], facet="width")
    titled = {seen.heading(ax): ax for ax in figure.axes if seen.heading(ax)}
    assert list(titled) == [f"{kind} shift, ≤ 4 px, width {w}" for w in (16, 64) for kind in ("circular", "zero")]
    rows = frame[(frame["shift_kind"] == "zero") & (frame["factor_width"] == 16)]
    seen.assert_same_points(
        seen.points(titled["zero shift, ≤ 4 px, width 16"]), seen.expected(rows, "msb_corrected", "consistency")
    )
    many = frame[frame["shift_kind"] == "zero"].assign(factor_batch=lambda rows: np.arange(len(rows)) % 7)
    assert "Not shown, for want of room: batch 4, 5, 6." in msb_invariance(many, facet="batch").caption


def test_a_factor_that_is_not_there_is_one_line_with_those_that_are(tables: Tables, frame: pd.DataFrame) -> None:
    for choice in ({"hue": "widht"}, {"facet": "widht"}, {"by": ("operator", "widht")}):
        with pytest.raises(
            TableError, match=r"unknown factor 'widht': did you mean 'width'\? known are architecture, "
        ):
            draw_figures(tables, ["table_classification"], **choice)
    with pytest.raises(TableError, match="unknown reading 'selectivty': did you mean 'selectivity'"):
        draw_figures(tables, ["msb_invariance"], reading="selectivty")
    with pytest.raises(TableError, match="unknown score 'consistensy': did you mean 'consistency'"):
        draw_figures(tables, ["msb_invariance"], score="consistensy")
    many = frame.loc[frame.index.repeat(20)].assign(factor_many=lambda rows: np.arange(len(rows)))
    many = many.assign(checkpoint=many["checkpoint"] + many["factor_many"].astype(str))
    with pytest.raises(TableError, match="which no colours and markers tell apart"):
        msb_invariance(many, hue="many")


def test_choices_reach_the_figures_that_have_them_and_the_others_are_named(seen: ModuleType, tables: Tables) -> None:
    names = ["msb_invariance", "msb_by_operator", "confounding", "table_classification"]
    drawn = draw_figures(tables, names, score="fidelity", hue="width", by=("width", "operator"), reading="msb_weight")
    assert drawn.reasons == {}
    assert drawn.ignored == {"hue": ["msb_by_operator"], "score": ["msb_by_operator"]}
    headline = drawn.figures["msb_invariance"]
    assert headline.axes[0].get_ylabel() == "fidelity (share of shift pairs)"
    assert "weight on the maximum (share of weight)" in headline.axes[-1].get_xlabel().replace("\n", " ")
    assert set(seen.points(headline.axes[0])) == {"16", "64"}
    assert drawn.figures["confounding"].axes[0].get_ylabel().startswith("fidelity")
    assert drawn.tables["table_classification"].keys == ("factor_width", "operator")


def test_tables_group_by_any_factor(frame: pd.DataFrame, tables: Tables) -> None:
    table = table_classification(frame, by=("operator",))
    kind = frame[frame["shift_kind"] == "zero"]
    assert table.rows["operator"].tolist() == style.operator_order(kind["operator"])
    for _, row in table.rows.iterrows():
        wanted = kind.loc[kind["operator"] == row["operator"], "consistency"].mean()
        assert row["consistency_zero"] == pytest.approx(wanted)
    table = table_classification(frame, by=("operator", "width"))
    assert table.keys == ("operator", "factor_width")
    assert table.rows["factor_width"].tolist() == ["16", "64"] * kind["operator"].nunique()
    row = table.rows[(table.rows["operator"] == "mine") & (table.rows["factor_width"] == "64")].iloc[0]
    part = kind[(kind["operator"] == "mine") & (kind["factor_width"] == 64)]
    assert row["accuracy"] == pytest.approx(part["accuracy"].mean())
    assert (row["n"], row["runs"]) == (part["checkpoint"].nunique(), part["cluster"].nunique())
    assert table.headings()["factor_width"] == "width"
    costs = table_cost(Frames(tables)["cost"], by=("width",))
    assert costs.rows["factor_width"].tolist() == ["16", "64"]


def test_operators_of_ones_own_without_a_specification_are_rows_of_their_own(frame: pd.DataFrame) -> None:
    own = frame["operator"].isin(["mine", "op2"])
    table = table_classification(frame.assign(operator_spec=frame["operator_spec"].where(~own, None)))
    assert {"mine", "op2"} <= set(table.rows["operator_spec"])
    assert "–" not in set(table.rows["operator_spec"])


def test_levels_are_ordered_by_size_then_by_name_and_what_is_not_given_last() -> None:
    assert factor_levels(pd.Series([16.0, 2.0, np.nan, 2.0])) == ["2", "16", "not given"]
    assert factor_levels(pd.Series(["b", None, "a"], dtype=object)) == ["a", "b", "not given"]


def test_thirty_operators_of_ones_own_are_told_apart() -> None:
    found = style.marks(f"mine{number}" for number in range(30))
    assert len(set(found.values())) == 30
    marks = list(found.values())
    for one, other in itertools.pairwise(marks):
        assert one.color != other.color
        assert one.marker != other.marker
    assert len(set(style.OTHER_MARKS)) == len(style.OTHER_MARKS) == 105


def test_no_interval_of_a_share_leaves_0_to_1() -> None:
    values, runs = pd.Series([0.999, 0.9, 0.999, 0.999]), pd.Series(list("abcd"))
    mean, low, high = mean_interval(values, runs, "accuracy")
    plain = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert plain[1] > 1
    half = (plain[1] - mean) / (mean * (1 - mean))
    odds = mean / (1 - mean)
    assert high == pytest.approx(odds * np.exp(half) / (1 + odds * np.exp(half)))
    assert low == pytest.approx(odds * np.exp(-half) / (1 + odds * np.exp(-half)))
    assert mean_interval(values, runs, "msb_corrected") == pytest.approx((mean, *plain))
    assert np.isnan(mean_interval(pd.Series([1.0, 1.0]), runs[:2], "accuracy")[1:]).all()


def test_a_rival_across_the_drawn_operators(studies: ModuleType) -> None:
    rows = studies.study()
    figure = population(rows, reading="see", data="digits")
    ax = next(ax for ax in figure.axes if ax.get_title(loc="left").startswith("digits, circular shift"))
    drawn = rows[(rows["data"] == "digits") & (rows["shift_kind"] == "circular")]
    drawn = drawn[drawn["factor_population"] == "P"]
    n, c = (drawn[name].to_numpy(dtype=float) for name in ("n_images", "consistency"))
    y = np.log((n * c + 0.5) / (n - n * c + 0.5))
    x = drawn["see"].to_numpy(dtype=float)
    fit = np.polynomial.Polynomial.fit(x, y, 2)
    (curve,) = [line.get_xydata() for line in ax.lines if line.get_label() == "fit"]
    np.testing.assert_allclose(curve[:, 1], fit(curve[:, 0]), atol=1e-8)
    r2 = 1 - np.sum((y - fit(x)) ** 2) / np.sum((y - y.mean()) ** 2)
    assert ax.get_title(loc="left").endswith(f"R² = {r2:.2f}")
    assert "Exploratory, and of no statement fixed in advance: see was measured" in figure.caption
    assert ax.get_xlabel() == "site equivariance error"


def test_a_curve_alone_has_the_band_of_hc3() -> None:
    rng = np.random.default_rng(0)
    x = pd.Series(rng.uniform(size=30))
    y = x + rng.normal(scale=0.1 + x)
    found = alone_fit(x, y, points=5)
    import statsmodels.api as sm

    design = np.column_stack([np.ones(30), x, x**2])
    fit = sm.OLS(y.to_numpy(), design).fit(cov_type="HC3")
    at = np.column_stack([np.ones(5), found.x, found.x**2])
    error = np.sqrt(np.einsum("ij,jk,ik->i", at, fit.cov_params(), at))
    np.testing.assert_allclose(found.half, stats.t.ppf(0.975, 27) * error, rtol=1e-6)
    assert found.r_squared == pytest.approx(fit.rsquared)
    assert alone_fit(x[:5], y[:5]) is None
    assert alone_fit(x.round(0), y) is None
