"""The fractional logit against statsmodels' formulas and the sandwich written out, and its reasons for having no
slope.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from invariscope.analysis import TableError
from invariscope.analysis.stats.regression import FractionalLogit, LogitOLS, fit, group_slopes, split, within_between


def _make(seed: int = 0, clusters: int = 20, size: int = 6, slope: float = -1.5, cluster_sd: float = 0.4):
    rng = np.random.default_rng(seed)
    operator = np.repeat(np.arange(clusters), size)
    m = rng.uniform(0, 1, clusters)[operator] + rng.normal(0, 0.1, len(operator))
    accuracy = 0.9 + 0.03 * rng.normal(size=len(operator))
    architecture = np.where(rng.uniform(size=len(operator)) < 0.5, "cnn", "resnet")
    eta = 1 + slope * m + 5 * (accuracy - 0.9) + 0.3 * (architecture == "cnn")
    eta += cluster_sd * rng.normal(size=clusters)[operator] + 0.2 * rng.normal(size=len(operator))
    columns = {"c": 1 / (1 + np.exp(-eta)), "m": m, "accuracy": accuracy, "architecture": architecture}
    return pd.DataFrame(columns).assign(
        data="digits", operator=[f"op{o:02d}" for o in operator], run=np.arange(len(m)) // 2
    )


@pytest.fixture(scope="module")
def frame():
    return _make()


MODEL = FractionalLogit("logit", "c", ("m", "accuracy"), ("architecture", "data"))
PLAIN = replace(MODEL, interval="t")


def _by_formula(formula, frame, groups):
    codes = pd.factorize(frame[groups])[0]
    model = smf.glm(formula, frame, family=sm.families.Binomial())
    return model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True, tol=1e-12)


def test_the_fit_equals_the_formula_interface(frame):
    table = fit(frame, PLAIN).set_index("term")
    expected = _by_formula("c ~ m + accuracy + architecture", frame, "operator")
    names = {
        "intercept": "Intercept",
        "m": "m",
        "accuracy": "accuracy",
        "architecture[resnet]": "architecture[T.resnet]",
    }
    assert set(table.index) == set(names)
    for ours, theirs in names.items():
        row = table.loc[ours]
        assert row["estimate"] == pytest.approx(expected.params[theirs], abs=1e-8)
        assert row["se"] == pytest.approx(expected.bse[theirs], abs=1e-8)
        width = stats.t.ppf(0.975, 19) * expected.bse[theirs]
        assert (row["low"], row["high"]) == pytest.approx((row["estimate"] - width, row["estimate"] + width), abs=1e-8)
        assert row["p"] == pytest.approx(
            2 * stats.t.sf(abs(expected.params[theirs] / expected.bse[theirs]), 19), abs=1e-8
        )
    assert (table["df"] == 19).all()


def test_the_cluster_errors_equal_the_sandwich_written_out(frame):
    row = fit(frame, PLAIN).set_index("term").loc["m"]
    x = np.column_stack([np.ones(len(frame)), frame["m"], frame["accuracy"], frame["architecture"] == "resnet"])
    x = x.astype(float)
    beta = np.zeros(4)
    for _ in range(50):
        mu = 1 / (1 + np.exp(-x @ beta))
        beta += np.linalg.solve((x.T * (mu * (1 - mu))) @ x, x.T @ (frame["c"] - mu))
    mu = 1 / (1 + np.exp(-x @ beta))
    bread = np.linalg.inv((x.T * (mu * (1 - mu))) @ x)
    meat = np.zeros((4, 4))
    for operator in frame["operator"].unique():
        mine = (frame["operator"] == operator).to_numpy()
        score = x[mine].T @ (frame["c"].to_numpy() - mu)[mine]
        meat += np.outer(score, score)
    n, groups = len(frame), 20
    variance = bread @ meat @ bread * groups / (groups - 1) * (n - 1) / (n - 4)
    assert row["estimate"] == pytest.approx(beta[1], abs=1e-8)
    assert row["se"] == pytest.approx(np.sqrt(variance[1, 1]), abs=1e-8)
    assert row["effect"] == pytest.approx(beta[1] * np.mean(mu * (1 - mu)), abs=1e-8)


def test_shares_of_information_against_a_loop(frame):
    row = fit(frame, FractionalLogit("logit", "c", ("m",))).iloc[1]
    mu = _by_formula("c ~ m", frame, "operator").fittedvalues
    weight = mu * (1 - mu)
    squares = weight * (frame["m"] - np.average(frame["m"], weights=weight)) ** 2
    shares = {name: squares[frame["operator"] == name].sum() / squares.sum() for name in frame["operator"].unique()}
    assert row["effective_clusters"] == pytest.approx(1 / sum(share**2 for share in shares.values()), rel=1e-8)
    largest = max(shares, key=shares.__getitem__)
    assert row["leading"].startswith(f"{largest} {100 * shares[largest]:.0f} %")


def test_within_between_equals_the_formula_with_means_made_by_hand(frame):
    table = within_between(frame, PLAIN).set_index("term")
    by_hand = frame.copy()
    for name in ("m", "accuracy"):
        by_hand[f"{name}_b"] = [frame.loc[frame["operator"] == o, name].mean() for o in frame["operator"]]
        cells = list(zip(frame["operator"], frame["architecture"], strict=True))
        of_cell = [frame.loc[[one == cell for one in cells], name].mean() for cell in cells]
        by_hand[f"{name}_w"] = frame[name] - of_cell
        by_hand[f"{name}_c"] = of_cell - by_hand[f"{name}_b"]
    numbers = " + ".join(f"{name}_{part}" for name in ("m", "accuracy") for part in "wbc")
    expected = _by_formula(f"c ~ {numbers} + architecture", by_hand, "operator")
    for name in ("m", "accuracy"):
        for part, short in (("within", "w"), ("between", "b"), ("between_cells", "c")):
            row = table.loc[f"{name}_{part}"]
            assert row["estimate"] == pytest.approx(expected.params[f"{name}_{short}"], abs=1e-7)
            assert row["se"] == pytest.approx(expected.bse[f"{name}_{short}"], abs=1e-7)


def test_opposite_slopes_between_and_within_are_told_apart():
    frame = _make(slope=0, cluster_sd=0.05)
    parts = split(frame, ["m"], "operator")
    whole = parts["m_between"] + parts["m_between_cells"] + parts["m_within"]
    assert whole.to_numpy() == pytest.approx(frame["m"].to_numpy())
    noise = 1e-3 * np.random.default_rng(1).normal(size=len(frame))
    frame["c"] = 1 / (1 + np.exp(-(3 * parts["m_between"] - 4 * parts["m_within"] + noise)))
    table = within_between(frame, FractionalLogit("logit", "c", ("m",))).set_index("term")
    assert table.loc["m_within", "estimate"] == pytest.approx(-4, abs=0.01)
    assert table.loc["m_between", "estimate"] == pytest.approx(3, abs=0.01)


def test_missing_rows_are_left_out_before_the_means(frame):
    holes = frame.copy()
    holes.loc[[0, 7], "c"] = [np.nan, np.inf]
    holes.loc[13, "operator"] = None
    kept = frame.drop(index=[0, 7, 13])
    for function in (fit, within_between):
        found, expected = function(holes, MODEL), function(kept, MODEL)
        assert (found["n"] == 117).all()
        assert (found["n_missing"] == 3).all()
        np.testing.assert_allclose(found["estimate"], expected["estimate"], atol=1e-10)


@pytest.mark.parametrize("name", ["architecture", "run", "n_images"])
def test_a_missing_factor_cluster_or_number_of_images_leaves_before_the_means(frame, name):
    model = LogitOLS("ols", "c", ("m", "accuracy"), ("architecture",), "run")
    whole = frame.assign(n_images=1000, run=frame["run"].astype(object))
    holes = whole.copy()
    holes.loc[[0, 8], name] = np.nan
    found, expected = within_between(holes, model), within_between(whole.drop(index=[0, 8]), model)
    np.testing.assert_allclose(found["estimate"], expected["estimate"], atol=1e-10)
    assert abs(within_between(whole, model)["estimate"] - found["estimate"]).max() > 1e-4
    assert (found["n"] == 118).all()
    assert (found["n_missing"] == 2).all()


@pytest.mark.parametrize("change", [lambda f: f.iloc[:0], lambda f: f.assign(operator=None)])
def test_no_group_at_all_is_a_row_with_its_reason(frame, change, recwarn):
    table = group_slopes(change(frame), replace(MODEL, cluster="run"), "operator")
    assert table["term"].tolist() == ["m"]
    row = table.iloc[0]
    assert np.isnan(row["estimate"])
    assert (row["n"], row["n_missing"]) == (0, len(change(frame)))
    assert row["reason"] == "no row has a value of operator: there is no group to fit"
    assert not recwarn.list


def test_group_slopes_are_separate_fits(frame):
    flat = frame.copy()
    flat.loc[flat["operator"] == "op03", "m"] = 0.5 + 1e-9 * np.arange(6)
    model = FractionalLogit("slope within each operator", "c", ("m",), (), "run", "t")
    table = group_slopes(flat, model, "operator").set_index("group")
    assert len(table) == 20
    assert np.isnan(table.loc["operator=op03", "estimate"])
    assert "hardly varies here" in table.loc["operator=op03", "reason"]
    for name in ("op00", "op11"):
        expected = _by_formula("c ~ m", frame[frame["operator"] == name], "run")
        assert table.loc[f"operator={name}", "estimate"] == pytest.approx(expected.params["m"], abs=1e-8)
        assert table.loc[f"operator={name}", "se"] == pytest.approx(expected.bse["m"], abs=1e-8)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(m=0.3), "m is constant (0.3)"),
        (lambda f: f.assign(c=1.0), "c is constant (1)"),
        (lambda f: f.assign(c=f["c"] - 0.9), "c leaves [0, 1], where the fractional logit lives"),
        (lambda f: f.assign(m=2 * f["accuracy"] - 1), "m is determined by the other columns"),
        (lambda f: f.assign(operator=f["run"] % 2), "2 clusters (operator) are fewer than 3: no standard error"),
        (lambda f: f.iloc[:3], "3 complete rows are too few for 3 coefficients"),
        (lambda f: f.assign(m=np.nan), "no row has a value in every column of the model"),
    ],
)
def test_no_slope_comes_with_its_reason_and_without_warnings(frame, change, reason, recwarn):
    table = fit(change(frame), MODEL)
    row = table[table["term"] == "m"].iloc[0]
    assert np.isnan(row[["estimate", "se", "low", "high"]].astype(float)).all()
    assert row["reason"] == reason
    assert not recwarn.list


def test_separated_scores_give_a_reason_and_no_warning(frame, recwarn):
    table = fit(frame.assign(c=(frame["m"] > 0.5).astype(float)), MODEL)
    assert table["reason"].str.contains("the fit failed|no finite slope").all()
    assert not recwarn.list


def test_a_constant_covariate_and_an_aliased_factor_are_left_out_and_said(frame):
    table = fit(frame.assign(accuracy=0.9, data=frame["architecture"]), MODEL).set_index("term")
    expected = _by_formula("c ~ m + architecture", frame, "operator")
    assert table.loc["m", "estimate"] == pytest.approx(expected.params["m"], abs=1e-8)
    assert table.loc["accuracy", "reason"] == "accuracy is constant (0.9)"
    assert table.loc["data[resnet]", "reason"] == "data[resnet] is determined by the other columns"


def test_a_slope_is_tested_from_four_degrees_of_freedom_on():
    for clusters in (4, 6, 14):
        table = fit(_make(clusters=clusters), MODEL)
        assert (table["p"].notna() == (table["df"] >= 4)).all()
    assert table["p"].notna().all()
    assert fit(_make(clusters=4), MODEL)["p"].isna().all()


def test_below_fifteen_clusters_the_plain_t_has_no_p_value():
    model = replace(MODEL, interval="t")
    assert fit(_make(clusters=14), model)["p"].isna().all()
    assert fit(_make(clusters=15), model)["p"].notna().all()


def test_missing_columns_are_named(frame):
    with pytest.raises(TableError, match="no such columns m"):
        fit(frame.drop(columns="m"), MODEL)
    with pytest.raises(TableError, match="no such columns family"):
        group_slopes(frame, MODEL, "family")


def test_the_coverage_beside_the_interval_is_what_refitting_gives():
    """New errors on one unbalanced design, refitted: the coverage found, against the stated one."""
    base = _make(seed=3, clusters=8, size=30, cluster_sd=0.8)
    base = base[(base["operator"] == "op00") | (base.groupby("operator").cumcount() < 3)].reset_index(drop=True)
    model = FractionalLogit("logit", "c", ("m",), interval="t")
    stated = fit(base, model).set_index("term").loc["m", "coverage"]
    mean = _by_formula("c ~ m", base, "operator").fittedvalues.to_numpy()
    spread = np.sqrt(mean * (1 - mean))
    rho = _intracluster_by_loop((base["c"] - mean) / spread, base["operator"])
    rng = np.random.default_rng(4)
    codes, simulations, hits = pd.factorize(base["operator"])[0], 250, 0
    # The fitted means lie on the logistic curve, so their own logits give the true slope.
    truth = np.polyfit(base["m"], np.log(mean / (1 - mean)), 1)[0]
    for _ in range(simulations):
        noise = np.sqrt(rho) * rng.normal(size=8)[codes] + np.sqrt(1 - rho) * rng.normal(size=len(codes))
        row = fit(base.assign(c=mean + 0.05 * spread * noise), model).iloc[1]
        hits += row["low"] <= truth <= row["high"]
    assert stated < 0.85
    # Four standard errors of 250 simulations.
    assert hits / simulations == pytest.approx(stated, abs=4 * np.sqrt(stated * (1 - stated) / simulations))


def _intracluster_by_loop(residual, clusters):
    """The analysis-of-variance estimate of the intra-cluster correlation."""
    groups = [np.array([r for r, c in zip(residual, clusters, strict=True) if c == name]) for name in clusters.unique()]
    n, g = len(residual), len(groups)
    between = sum(len(group) * (group.mean() - residual.mean()) ** 2 for group in groups) / (g - 1)
    within = sum(((group - group.mean()) ** 2).sum() for group in groups) / (n - g)
    typical = (n - sum(len(group) ** 2 for group in groups) / n) / (g - 1)
    return (between - within) / (between + (typical - 1) * within)
