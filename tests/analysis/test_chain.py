"""The chain: paths, inflation and shares against statsmodels and against the truth of a simulated population."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.stats.outliers_influence import variance_inflation_factor

from invariscope.analysis.designs.chain import LAST, LOGITS, OPERATOR_LINK, SCORE, chain, plans
from invariscope.analysis.figures.chain import chain as drawn
from invariscope.base.errors import TableError

READINGS = ["msb_corrected", "selectivity", "see"]
PLAN = {"shift_kind": "circular", "fill": None, "max_shift": 4, "n_shifts": 9, "plan": "sampled"}


def population(operators: int = 120, runs: int = 2, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Consistency goes with the drift of the logits, that with the drift before, that with ``see`` alone."""
    draw = np.random.default_rng(seed)
    unit = np.repeat(np.arange(operators), runs)
    n = len(unit)
    given = draw.normal(size=(operators, 3))
    given[:, 1] += 0.8 * given[:, 0]
    readings = given[unit] + 0.1 * draw.normal(size=(n, 3))
    last = np.exp(0.9 * readings[:, 2] + 0.4 * draw.normal(size=n))
    logits = np.exp(0.8 * np.log(last) + 0.3 * draw.normal(size=n))
    score = 1 / (1 + np.exp(np.log(logits) + 0.2 * draw.normal(size=n)))
    keys = pd.DataFrame({"sha256": [f"w{i}" for i in range(n)], "model": "m", "data": "d/test"}).assign(**PLAN)
    joined = keys.assign(
        architecture=np.where(unit % 2, "a", "b"), padding_mode="zeros", operator="x",
        checkpoint=[f"n{i}" for i in range(n)],
        operator_spec=[f"x({i})" for i in unit], final=True, n_images=500, consistency=score,
        **dict(zip(READINGS, readings.T, strict=True)),
    )  # fmt: skip
    head = keys.assign(site=None, drift_in=last, drift_out=logits)
    return joined, pd.concat([head, head.assign(site="s")], ignore_index=True)


def test_paths_inflation_and_shares_are_those_of_other_programs() -> None:
    joined, drift = population()
    table = chain(joined, drift)
    ((_, rows),) = plans(joined, drift)
    for outcome, names in ((LAST, READINGS), (LOGITS, [*READINGS, LAST]), (SCORE, [*READINGS, LOGITS])):
        mine = table[(table["outcome"] == outcome) & table["path"].notna()].set_index("predictor")
        design = sm.add_constant(rows[names])
        fit = sm.OLS(rows[outcome], design).fit(cov_type="cluster", cov_kwds={"groups": pd.factorize(rows["unit"])[0]})
        assert mine["path"].loc[names].tolist() == pytest.approx(fit.params[names].tolist(), rel=1e-8)
        # CR1 against CR2 over 120 clusters.
        assert mine["se"].loc[names].tolist() == pytest.approx(fit.bse[names].tolist(), rel=0.06)
        inflation = [variance_inflation_factor(design.to_numpy(), place) for place in range(1, design.shape[1])]
        assert mine["vif"].loc[names].tolist() == pytest.approx(inflation, rel=1e-8)
        assert mine["share"].sum() == pytest.approx(fit.rsquared)
        assert (mine["r_squared"] - fit.rsquared).abs().max() < 1e-10
        assert set(mine["n_clusters"]) == {120}


def test_the_chain_that_is_there_is_found_and_no_other() -> None:
    joined, drift = population()
    table = chain(joined, drift).set_index(["outcome", "predictor"])
    for link in ((LAST, "see"), (LOGITS, LAST), (SCORE, LOGITS)):
        assert table.loc[link, "p"] < 1e-6
    for link in ((LAST, "msb_corrected"), (LAST, "selectivity"), (LOGITS, "see"), (SCORE, "see")):
        assert table.loc[link, "low"] < 0 < table.loc[link, "high"]
    assert table.loc[(SCORE, LOGITS), "path"] < 0
    between = table[table["link"] == OPERATOR_LINK]
    # Variances 1 (1.64 for selectivity) between operators and 0.01 within.
    assert between["share"].to_numpy() == pytest.approx(0.99, abs=0.01)


def test_without_drift_the_rivals_stand_alone_and_a_note_says_so() -> None:
    joined, _ = population(20)
    table = chain(joined)
    fits = table[table["path"].notna()]
    assert set(fits["outcome"]) == {SCORE}
    assert fits["note"].str.contains("drift was not measured").all()


def test_networks_that_move_exactly_along_are_left_out_and_counted() -> None:
    joined, drift = population()
    exact = joined["sha256"].isin(["w3", "w4"])
    odd = joined.assign(consistency=joined["consistency"].where(~exact, 1.0))
    small = drift.assign(
        **{name: drift[name].where(~drift["sha256"].isin(["w3", "w4"]), 1e-13) for name in ("drift_in", "drift_out")}
    )
    table = chain(odd, small)
    fits = table[table["path"].notna()]
    assert fits["note"].str.contains("without 2 networks consistent by construction").all()
    rest = chain(joined[~exact], drift)
    assert fits["path"].tolist() == pytest.approx(rest[rest["path"].notna()]["path"].tolist())


def test_collinear_rivals_are_told_and_not_fitted() -> None:
    joined, _ = population(20)
    table = chain(joined.assign(selectivity=joined["msb_corrected"]))
    link = table[table["outcome"] == SCORE]
    assert link["path"].isna().all()
    assert link["note"].str.contains("collinear").all()


def test_too_few_operators_and_missing_columns_are_refused() -> None:
    joined, drift = population(5)
    with pytest.raises(TableError, match="no plan has 8 operators"):
        chain(joined, drift)
    with pytest.raises(TableError, match="see"):
        chain(joined.drop(columns="see"), drift)


@pytest.mark.parametrize(("width", "panels"), [("double", 5), ("single", 5)])
def test_every_link_is_drawn_with_its_path(width: str, panels: int) -> None:
    joined, drift = population(20)
    figure = drawn(joined, drift, width=width)
    shown = [ax for ax in figure.axes if ax.collections]
    assert len(shown) == panels
    assert all(len(ax.collections[0].get_offsets()) == 40 for ax in shown)
    path = chain(joined, drift).set_index(["outcome", "predictor"]).loc[(LOGITS, LAST), "path"]
    assert f"{path:.2f}" in shown[3].get_title("left")
    assert "VIF" in figure.caption
