"""What is said of the slopes' checks: every sentence against the table that it is made from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis import analyze, join, with_sites
from invariscope.analysis.say.findings import Finding
from invariscope.analysis.say.slope_findings import SlopeFindings
from invariscope.analysis.stats.cells import CELL
from invariscope.analysis.stats.regression import FractionalLogit, site_slopes

SMALL = {"epochs": (24.0,), "padding_modes": ("zeros",), "shift_kinds": ("zero",)}


@pytest.fixture(scope="module")
def tables(simulate):
    """Eighteen operators with a common negative slope, on two architectures."""
    zoo = simulate.Zoo(n_operators=18, seeds=2, architectures=("smallcnn", "resnet8"), **SMALL)
    return simulate.simulate_tables(zoo)


@pytest.fixture(scope="module")
def frame(tables):
    return _uneven(with_sites(join(tables), tables))


def _uneven(rows: pd.DataFrame) -> pd.DataFrame:
    """Sites whose differences are not the same in every network."""
    noise = np.random.default_rng(0).normal(scale=0.1, size=(len(rows), 3))
    return rows.assign(**{f"site_{k}": rows[f"site_{k}"] + noise[:, k] for k in range(3)})


@pytest.fixture(scope="module")
def results(frame):
    return analyze(frame.drop(columns="strength"), scores=["consistency"], resamples=50)


OPERATORS_B = "Leaving out one operator at a time, the slope of statement (b)"


def _findings(results, **changed) -> list[Finding]:
    names = ("regressions", "influence", "comparisons", "sites")
    frames = {name: changed.get(name, getattr(results, name)) for name in names}
    cell = {name: results.regressions[name].iloc[0] for name in CELL if name not in ("subset", "snapshots")}
    return list(SlopeFindings(cell, **frames).findings())


def _starting(findings: list[Finding], text: str) -> Finding:
    (found,) = [finding for finding in findings if finding.text.startswith(text)]
    return found


def test_sites_are_the_layers_of_the_tables(tables):
    frame = with_sites(join(tables), tables)
    layers = tables.layers.set_index(["sha256", "depth"])["msb_corrected"]
    for depth in (0, 1, 2):
        expected = [layers[sha256, depth] for sha256 in frame["sha256"]]
        np.testing.assert_array_equal(frame[f"site_{depth}"], expected)
    np.testing.assert_allclose(frame[["site_0", "site_1", "site_2"]].mean(axis=1), frame["msb_corrected"])
    assert frame.attrs["copies"] == []
    few = with_sites(join(tables), type(tables)(**{**tables.__dict__, "layers": tables.layers.iloc[:0]}))
    assert not [name for name in few if name.startswith("site_")]


def test_the_tables_hold_what_is_promised(results, frame):
    assert set(results.influence["model"]) == {"fractional logit", "within-between"}
    counts = results.influence[results.influence["model"] == "fractional logit"].groupby("left_out_kind").size()
    assert counts.to_dict() == {"": 1, "operator": 18, "data": 1, "architecture": 2}
    assert set(results.comparisons["measure"]) == {
        *("deviance R2", "R2", "likelihood ratio", "Wald", "RMSE", "MAE"),
    }
    models = set(results.regressions["model"])
    assert {"OLS on logits", "within-between OLS on logits", "mixed effects per operator"} <= models
    squares = results.regressions.query("model == 'OLS on logits' and term == 'msb_corrected'")
    assert squares["interval"].tolist() == ["CR2", "t", "wild bootstrap-t"]
    assert squares["estimate"].nunique() == 1
    rows = frame.assign(**{f"site_{k}": frame[f"site_{k}"].round(9) for k in range(3)})
    model = FractionalLogit("m", "consistency", ("accuracy",), ("data",))
    expected = site_slopes(rows, model, ["site_0", "site_1", "site_2"])
    np.testing.assert_allclose(results.sites["estimate"], expected["estimate"], rtol=1e-6)
    assert (results.sites["shift_kind"] == "zero").all()


def test_intervals_and_mixed_effects_in_words(results):
    found = _findings(results)
    rows = results.regressions.query("cluster == 'operator' and term == 'msb_corrected'").set_index("model")
    sentence = _starting(found, "The interval of statement (b)")
    reported, plain = rows.loc["fractional logit"], rows.loc["fractional logit, plain t"]
    assert f"{reported['low']:.2f} to {reported['high']:.2f}, holds the truth in" in sentence.text
    assert f"{100 * reported['coverage']:.0f} % of simulations" in sentence.text
    assert f"The plain t interval, {plain['low']:.2f} to {plain['high']:.2f}" in sentence.text
    assert "(wild bootstrap-t, " in sentence.text
    assert sentence.holds is True
    mixed = rows.loc["mixed effects per operator"]
    sentence = _starting(found, "With random effects per operator")
    assert f"{mixed['estimate']:.2f} ({mixed['low']:.2f} to {mixed['high']:.2f})" in sentence.text
    assert "(18 operators)" in sentence.text


def test_influence_in_words(results):
    sentence = _starting(_findings(results), OPERATORS_B)
    rows = results.influence.query("model == 'fractional logit' and left_out_kind == 'operator'")
    low, high = rows.loc[rows["estimate"].idxmin()], rows.loc[rows["estimate"].idxmax()]
    cook = rows.loc[rows["cooks_distance"].idxmax()]
    assert f"It is {low['estimate']:.2f} (without `{low['left_out']}`)" in sentence.text
    assert f"to {high['estimate']:.2f} (without `{high['left_out']}`)" in sentence.text
    assert f"largest for `{cook['left_out']}` ({cook['cooks_distance']:.1f})" in sentence.text
    assert sentence.text.startswith(f"{OPERATORS_B} leads to the same conclusion each time. It is ")
    assert sentence.holds is True
    turned = results.influence.copy()
    turned.loc[turned["left_out"] == cook["left_out"], ["estimate", "low", "high"]] = [0.5, -0.2, 1.2]
    sentence = _starting(_findings(results, influence=turned), OPERATORS_B)
    assert f"has **a sign that hangs on** `{cook['left_out']}`. It is" in sentence.text
    assert sentence.holds is False
    wide = results.influence.copy()
    wide.loc[wide["left_out"] == cook["left_out"], "high"] = 0.1
    sentence = _starting(_findings(results, influence=wide), OPERATORS_B)
    assert "leads to **another conclusion** for some. It is" in sentence.text
    few = results.influence.assign(df=3.9)
    sentence = _starting(_findings(results, influence=few), OPERATORS_B)
    assert "keeps its sign (some rest on fewer than 4 degrees of freedom and are estimates alone). It" in sentence.text
    assert sentence.holds is None


def test_what_msb_adds_in_words(results):
    sentence = _starting(_findings(results), "To accuracy, architecture and data set MSB adds")
    rows = results.comparisons.set_index(["measure", "held_out_kind", "held_out"])
    inside = rows.loc[("deviance R2", "", "")]
    assert f"adds {inside['difference']:.3f} to a deviance R² of {inside['baseline']:.3f}" in sentence.text
    outside = rows.loc[("RMSE", "operator", "all")]
    assert f"of {outside['with_x']:.3f} with MSB and {outside['baseline']:.3f} without" in sentence.text
    assert outside["difference"] < 0
    assert sentence.text.endswith("it helps to predict.")
    assert sentence.holds is True
    worse = results.comparisons.assign(difference=results.comparisons["difference"].abs())
    sentence = _starting(_findings(results, comparisons=worse), "To accuracy")
    assert sentence.text.endswith("it does not help to predict.")
    assert sentence.holds is False


def test_sites_in_words(results):
    found = [finding for finding in _findings(results) if finding.text.startswith("In `")]
    assert len(found) == 2
    rows = results.sites.query("architecture == 'resnet8' and parametrisation == 'mean and contrast'")
    mean, contrast = (rows[rows["term"] == name].iloc[0] for name in ("mean over sites", "late minus early"))
    sentence = _starting(found, "In `resnet8` early and late sites are not told apart. Over its 3 sites")
    for row in (mean, contrast):
        assert f"{row['estimate']:.2f} ({row['low']:.2f} to {row['high']:.2f})" in sentence.text
    flat = results.sites.assign(low=np.nan, high=np.nan, reason="late minus early is constant (0.04)")
    sentence = _starting(_findings(results, sites=flat), "In `resnet8`")
    assert sentence.text.endswith("early and late sites cannot be compared (late minus early is constant (0.04)).")
    clear = results.sites.copy()
    clear.loc[clear["term"] == "late minus early", ["estimate", "low", "high"]] = [-2.0, -3.0, -1.0]
    clear.loc[clear["parametrisation"] == "joint", "vif"] = 42.0
    start = "In `resnet8` at equal mean, late MSB goes with less consistency than early. Over its 3 sites"
    sentence = _starting(_findings(results, sites=clear), start)
    assert "single sites cannot be told apart (variance inflation up to 42)" in sentence.text
    assert sentence.holds is False


def test_the_summary_holds_the_sentences_and_claims_nothing_from_few_operators(simulate):
    tables = simulate.simulate_tables(simulate.Zoo(seeds=1, **SMALL))
    results = analyze(_uneven(with_sites(join(tables), tables)), scores=["consistency"], resamples=50)
    for finding in _findings(results):
        assert finding.text in results.summary
        if not finding.text.startswith(("To accuracy", "Leaving out")):
            assert finding.holds is None, finding.text
    assert "there are 11 operators, for an estimate alone" in results.summary
    # Without the sites' columns there are no rows and no sentence.
    plain = analyze(join(tables), scores=["consistency"], resamples=50)
    assert plain.sites.empty
    assert "late minus early" not in plain.summary
