"""Mixed effects, sites, influence and model comparison against known truth, brute-force refits and plain formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import stats

from invariscope.analysis import TableError
from invariscope.analysis.stats.regression import (
    FractionalLogit,
    LogitOLS,
    MixedEffects,
    compare,
    fit,
    fit_mixed,
    group_slopes,
    leave_one_out,
    site_slopes,
    within_between,
)
from invariscope.analysis.stats.regression.sites import CONTRAST, MEAN
from tests.analysis.simulate import logits_of, regression_frame


@pytest.fixture(scope="module")
def frame():
    return regression_frame()


LOGIT = FractionalLogit("logit", "c", ("m", "accuracy"), ("architecture", "data"))
OLS = LogitOLS("ols", "c", ("m", "accuracy"), ("architecture", "data"))
MIXED = MixedEffects("mixed", "c", ("m", "accuracy"), ("architecture", "data"))


def test_mixed_effects_recover_known_components():
    names = {"m": -1.5, "sd(intercept | operator)": None, "sd(m | operator)": 0.8, "sd(residual)": 0.2}
    found = []
    for seed in range(6):
        table = fit_mixed(regression_frame(seed, groups=60, slope_sd=0.8), MIXED).set_index("term")
        assert (table["reason"].drop(index="data", errors="ignore") == "").all()
        found.append(table.loc[list(names), "estimate"])
        assert table.loc["m", "n_clusters"] == 60
        assert table.loc["m", "df"] == 59
        half = stats.t.ppf(0.975, 59) * table.loc["m", "se"]
        assert table.loc["m", "high"] - table.loc["m", "estimate"] == pytest.approx(half, rel=1e-10)
    mean = pd.DataFrame(found).mean()
    # The intercepts are those at mean MSB, one half: 0.3² + 0.8² / 4.
    truth = {**names, "sd(intercept | operator)": 0.5}
    for name, value in truth.items():
        assert mean[name] == pytest.approx(value, abs=0.1), name
    # Slopes of this size make level and slope go together: cov = 0.8² / 2.
    correlation = table.loc["correlation(intercept, m | operator)", "estimate"]
    assert correlation == pytest.approx(0.8 * 0.5 / 0.5, abs=0.15)


def test_mixed_effects_equal_the_formula_interface(frame):
    table = fit_mixed(frame, replace(MIXED, slopes=False)).set_index("term")
    data = frame.assign(y=logits_of(frame), m=frame["m"] - frame["m"].mean())
    expected = smf.mixedlm("y ~ m + accuracy + architecture", data, groups="operator").fit(reml=True)
    for ours, theirs in {"m": "m", "accuracy": "accuracy", "architecture[vgg]": "architecture[T.vgg]"}.items():
        assert table.loc[ours, "estimate"] == pytest.approx(expected.params[theirs], abs=1e-4)
        # Theirs are of the joint information with the variances; ours are those of known variances, below.
        assert table.loc[ours, "se"] == pytest.approx(expected.bse[theirs], rel=1e-2)
    assert table.loc["sd(intercept | operator)", "estimate"] == pytest.approx(
        np.sqrt(float(expected.cov_re.iloc[0, 0])), rel=1e-3
    )
    level, residual = (table.loc[name, "estimate"] for name in ("sd(intercept | operator)", "sd(residual)"))
    same = frame["operator"].to_numpy()[:, None] == frame["operator"].to_numpy()
    covariance = level**2 * same + residual**2 * np.eye(len(frame))
    factors = (
        pd.get_dummies(data["architecture"], drop_first=True, dtype=float).add_prefix("architecture[").add_suffix("]")
    )
    design = pd.concat([data[["m", "accuracy"]], factors], axis=1).assign(intercept=1.0)
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ np.linalg.solve(covariance, design))))
    assert table.loc[design.columns, "se"].tolist() == pytest.approx(errors.tolist(), rel=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f[f["operator"] < "op04"], "4 groups (operator) are fewer than 5: they tell nothing"),
        (lambda f: f.assign(m=0.2), "m is constant (0.2)"),
        (lambda f: f.assign(c=np.inf), "no row has a value in every column"),
        (lambda f: f.iloc[:2], "1 group (operator) is fewer than 5"),
    ],
)
def test_mixed_effects_that_cannot_be_fitted_say_why(frame, change, reason, recwarn):
    table = fit_mixed(change(frame), MIXED)
    assert table["estimate"].isna().all()
    assert table["reason"].str.startswith(reason).all()
    assert not recwarn.list


def test_a_variance_at_its_boundary_is_a_row_with_a_reason(recwarn):
    same = regression_frame(4, slope_sd=0.0, level_sd=0.5, noise=0.3)
    # Slopes more equal than chance would have them: each operator's own is taken out.
    eta = logits_of(same)
    for name in same["operator"].unique():
        mine = same["operator"] == name
        line = np.polyfit(same.loc[mine, "m"], eta[mine], 1)
        eta[mine] += (-1.5 - line[0]) * (same.loc[mine, "m"] - same.loc[mine, "m"].mean())
    table = fit_mixed(same.assign(c=1 / (1 + np.exp(-eta))), replace(MIXED, numeric=("m",), factors=()))
    row = table.set_index("term").loc["sd(m | operator)"]
    assert np.isnan(row["estimate"])
    assert row["reason"].startswith("left out: ")
    assert table.set_index("term").loc["m", "estimate"] == pytest.approx(-1.5, abs=0.05)
    flat = same.assign(c=1 / (1 + np.exp(-(1 - same["m"] + 0.3 * np.random.default_rng(1).normal(size=len(same))))))
    means = (logits_of(flat) + same["m"]).groupby(flat["operator"]).transform("mean")
    flat = flat.assign(c=1 / (1 + np.exp(-(logits_of(flat) - means))))
    table = fit_mixed(flat, replace(MIXED, numeric=("m",), factors=()))
    assert table["reason"].str.contains("no random intercept: .*read the least-squares slope instead").all()
    assert not recwarn.list


def _with_sites(frame, count=3, noise=0.15):
    rng = np.random.default_rng(7)
    sites = {f"site_{k}": frame["m"] + noise * rng.normal(size=len(frame)) for k in range(count)}
    eta = logits_of(frame) + 1.5 * frame["m"] - 2.0 * sites["site_0"] + 0.5 * sites[f"site_{count - 1}"]
    return frame.assign(**sites, c=1 / (1 + np.exp(-eta)))


SITES = replace(LOGIT, numeric=("accuracy",), factors=("data",))


def test_site_slopes_of_an_architecture_are_plain_fits_with_variance_inflation():
    frame = _with_sites(regression_frame(groups=20))
    names = ["site_0", "site_1", "site_2"]
    table = site_slopes(frame, SITES, names)
    assert table["architecture"].unique().tolist() == ["cnn", "resnet", "vgg"]
    rows = frame[frame["architecture"] == "cnn"]
    mine = table[table["architecture"] == "cnn"].set_index(["parametrisation", "term"])
    together = sm.GLM(rows["c"], sm.add_constant(rows[[*names, "accuracy"]]), family=sm.families.Binomial()).fit()
    for name in names:
        row = mine.loc[("joint", name)]
        assert row["estimate"] == pytest.approx(together.params[name], abs=1e-7)
        others = sm.add_constant(rows[[*(n for n in names if n != name), "accuracy"]])
        assert row["vif"] == pytest.approx(1 / (1 - sm.OLS(rows[name], others).fit().rsquared), rel=1e-8)
        alone = sm.GLM(rows["c"], sm.add_constant(rows[[name, "accuracy"]]), family=sm.families.Binomial()).fit()
        assert mine.loc[("one at a time", name), "estimate"] == pytest.approx(alone.params[name], abs=1e-7)
    scaled = sm.add_constant(rows[[*names, "accuracy"]]).to_numpy()
    scaled = scaled / np.linalg.norm(scaled, axis=0)
    values = np.linalg.eigvalsh(scaled.T @ scaled)
    assert mine.loc[("joint", "site_0"), "condition_number"] == pytest.approx(np.sqrt(values[-1] / values[0]), rel=1e-6)
    parts = rows.assign(mean=rows[names].mean(axis=1), late=rows["site_2"] - rows["site_0"])
    both = sm.GLM(rows["c"], sm.add_constant(parts[["mean", "late", "accuracy"]]), family=sm.families.Binomial()).fit()
    assert mine.loc[("mean and contrast", MEAN), "estimate"] == pytest.approx(both.params["mean"], abs=1e-7)
    assert mine.loc[("mean and contrast", CONTRAST), "estimate"] == pytest.approx(both.params["late"], abs=1e-7)
    assert mine.loc[("mean and contrast", CONTRAST), "estimate"] > 0.5


def test_collinear_sites_are_said_to_be():
    frame = _with_sites(regression_frame(groups=20), noise=0.03)
    joint = site_slopes(frame, SITES, ["site_0", "site_1", "site_2"]).query("parametrisation == 'joint'")
    assert (joint["vif"] > 10).all()
    assert joint["note"].str.contains(r"collinear .*\(variance inflation \d+\): read the mean and the contrast").all()
    apart = site_slopes(_with_sites(regression_frame(groups=20), noise=0.6), SITES, ["site_0", "site_1", "site_2"])
    assert (apart["note"] == "").all()


def test_sites_that_tell_nothing_say_why(recwarn):
    frame = _with_sites(regression_frame(groups=20))
    names = ["site_0", "site_1", "site_2"]
    one = frame.assign(site_1=np.nan, site_2=np.nan)
    none = frame.assign(site_0=np.nan, site_1=np.nan, site_2=np.nan)
    flat = frame.assign(site_0=0.5, site_1=0.5, site_2=0.5)
    assert site_slopes(one, SITES, names)["reason"].unique().tolist() == ["one site only: there is no early and late"]
    assert site_slopes(none, SITES, names)["reason"].unique().tolist() == ["no site has an MSB"]
    assert site_slopes(flat, SITES, names)["reason"].str.contains("is constant").all()
    few = site_slopes(frame[frame["operator"] < "op02"], SITES, names)
    assert few["reason"].str.contains("fewer than 3|too few for").all()
    # A network of two sites among those of three takes no part, and is counted.
    holes = frame.copy()
    cnn = holes.index[holes["architecture"] == "cnn"]
    holes.loc[cnn[:4], "site_2"] = np.nan
    table = site_slopes(holes, SITES, names).query("architecture == 'cnn'")
    assert (table["n_missing"] == 4).all()
    assert (table["n"] == len(cnn) - 4).all()
    with pytest.raises(TableError, match="no such columns site_9"):
        site_slopes(frame, SITES, ["site_9"])
    assert not recwarn.list


def test_the_measured_sites_are_fitted_where_an_early_one_has_no_msb(recwarn):
    frame = _with_sites(regression_frame(groups=20))
    names = ["site_0", "site_1", "site_2"]
    late = frame.assign(site_0=np.nan)
    late.loc[late.index[late["architecture"] == "cnn"][:3], "site_1"] = np.nan
    table = site_slopes(late, SITES, names)
    expected = site_slopes(late.dropna(subset=["site_1"]), SITES, ["site_1", "site_2"])
    assert table["term"].tolist() == expected["term"].tolist()
    np.testing.assert_allclose(table["estimate"], expected["estimate"], atol=1e-12)
    assert table["estimate"].notna().all()
    assert (table["n_sites"] == 2).all()
    assert table["note"].str.endswith("without site_0, which has no MSB").all()
    cnn, whole = table[table["architecture"] == "cnn"], (frame["architecture"] == "cnn").sum()
    assert (cnn["n_missing"] == 3).all()
    assert (cnn["n"] == whole - 3).all()
    near = site_slopes(_with_sites(regression_frame(groups=20), noise=0.03).assign(site_0=np.nan), SITES, names)
    near = near[near["parametrisation"] == "joint"]
    assert near["note"].str.match(r"collinear .*; without site_0, which has no MSB$").all()
    # Checkpoints without any site do not outvote those that have some.
    half = frame.copy()
    half.loc[half["operator"] < "op12", names] = np.nan
    some = site_slopes(half, SITES, names)
    np.testing.assert_allclose(some["estimate"], site_slopes(half.dropna(), SITES, names)["estimate"], atol=1e-12)
    assert (some["n"] + some["n_missing"] == some["architecture"].map(frame["architecture"].value_counts())).all()
    one = site_slopes(late.assign(site_1=np.nan), SITES, names)
    assert one["reason"].unique().tolist() == [
        "one site only (site_2, without site_0, site_1, which have no MSB): there is no early and late"
    ]
    assert one["n_missing"].tolist() == frame["architecture"].value_counts().sort_index().tolist()
    assert (one["n"] == 0).all()
    assert not recwarn.list


def test_no_architecture_at_all_is_a_row_with_its_reason():
    frame = _with_sites(regression_frame(groups=20))
    for change in (frame.iloc[:0], frame.assign(architecture=None)):
        row = site_slopes(change, SITES, ["site_0", "site_1", "site_2"])
        assert row["reason"].tolist() == ["no row has a value of architecture: there are no sites to compare"]
        assert row[["n", "n_missing"]].iloc[0].tolist() == [0, len(change)]
    twice = pd.concat([frame, frame[["site_1"]]], axis=1)
    with pytest.raises(TableError, match="several columns are named site_1; keep one of each"):
        site_slopes(twice, SITES, ["site_0", "site_1", "site_2"])


@pytest.mark.parametrize("model", [LOGIT, OLS])
def test_influence_is_refits_and_cooks_distance_by_its_formula(frame, model):
    table = leave_one_out(frame, model).set_index(["left_out_kind", "left_out"])
    assert len(table) == 1 + 8 + 1 + 3
    whole = fit(frame, model).set_index("term")
    assert table.loc[("", ""), "estimate"] == whole.loc["m", "estimate"]
    for kind, name in (("operator", "op03"), ("architecture", "cnn"), ("architecture", "vgg")):
        rest = fit(frame[frame[kind] != name], model).set_index("term")
        row = table.loc[(kind, name)]
        for column in ("estimate", "low", "high", "n", "n_clusters"):
            assert row[column] == pytest.approx(rest.loc["m", column], abs=1e-10)
        assert row["change"] == pytest.approx(rest.loc["m", "estimate"] - whole.loc["m", "estimate"], abs=1e-10)
    formula = "y ~ m + accuracy + architecture"
    if model is OLS:
        data = frame.assign(y=logits_of(frame))
        full, part = (smf.ols(formula, d).fit() for d in (data, data[data["operator"] != "op03"]))
        covariance = full.cov_params()
    else:
        data = frame.assign(y=frame["c"])
        family = sm.families.Binomial()
        full, part = (
            smf.glm(formula, d, family=family).fit(tol=1e-12) for d in (data, data[data["operator"] != "op03"])
        )
        covariance = full.cov_params() * full.pearson_chi2 / full.df_resid
    moved = part.params - full.params
    expected = moved @ np.linalg.solve(covariance, moved) / 5
    assert table.loc[("operator", "op03"), "cooks_distance"] == pytest.approx(expected, rel=1e-6)


def test_influence_of_single_rows_is_cooks_distance_of_statsmodels(frame):
    data = frame.assign(row=[f"{i:03d}" for i in range(len(frame))])
    table = leave_one_out(data, OLS, ["row"]).iloc[1:]
    expected = smf.ols("y ~ m + accuracy + architecture", data.assign(y=logits_of(data))).fit()
    np.testing.assert_allclose(table["cooks_distance"], expected.get_influence().cooks_distance[0], rtol=1e-6)


def test_influence_inside_groups_and_without_anything_to_leave_out(frame, recwarn):
    table = leave_one_out(frame, LOGIT, within="operator").set_index(["left_out_kind", "left_out"])
    whole = within_between(frame, LOGIT).set_index("term")
    assert table.loc[("", ""), "estimate"] == pytest.approx(whole.loc["m_within", "estimate"], abs=1e-12)
    rest = within_between(frame[frame["operator"] != "op05"], LOGIT).set_index("term")
    assert table.loc[("operator", "op05"), "low"] == pytest.approx(rest.loc["m_within", "low"], abs=1e-9)
    row = table.loc[("data", "digits")]
    assert np.isnan(row["estimate"])
    assert row["reason"] == "digits is the only value of data: nothing is left without it"
    lost = leave_one_out(frame.assign(m=np.nan), LOGIT)
    assert lost["reason"].str.contains("no row has a value|is the only value").all()
    assert leave_one_out(frame.iloc[:2], LOGIT)["estimate"].isna().all()
    assert not recwarn.list


def test_influence_inside_groups_splits_the_rows_that_are_left_anew():
    rng = np.random.default_rng(3)
    frame = regression_frame(3)
    frame["data"] = np.where(rng.uniform(size=len(frame)) < 0.3 + 0.4 * (frame["operator"] < "op04"), "A", "B")
    frame["m"] += 0.8 * (frame["data"] == "B")
    frame.loc[5, "data"] = None
    table = leave_one_out(frame, LOGIT, within="operator").set_index(["left_out_kind", "left_out"])
    whole = within_between(frame, LOGIT).set_index("term").loc["m_within"]
    assert table.loc[("", ""), "estimate"] == pytest.approx(whole["estimate"], abs=1e-12)
    for kind, name in (("data", "A"), ("data", "B"), ("architecture", "cnn"), ("architecture", "vgg")):
        rest = within_between(frame[frame[kind] != name], LOGIT).set_index("term").loc["m_within"]
        row = table.loc[(kind, name)]
        for column in ("estimate", "low", "high", "n", "n_clusters"):
            assert row[column] == pytest.approx(rest[column], abs=1e-10), (kind, name, column)
        assert row["change"] == pytest.approx(rest["estimate"] - whole["estimate"], abs=1e-10)


@pytest.mark.parametrize("name", ["c", "m", "architecture", "operator"])
def test_columns_of_one_name_are_refused(frame, name):
    twice = pd.concat([frame, frame[[name]]], axis=1)
    for function in (
        lambda: fit(twice, LOGIT),
        lambda: within_between(twice, LOGIT),
        lambda: fit_mixed(twice, MIXED),
        lambda: leave_one_out(twice, LOGIT),
        lambda: leave_one_out(twice, LOGIT, within="operator"),
        lambda: compare(twice, LOGIT),
        lambda: group_slopes(twice, LOGIT, "operator"),
    ):
        with pytest.raises(TableError, match=f"^regression: several columns are named {name}; keep one of each$"):
            function()
    other = pd.concat([frame.assign(other=1), frame.assign(other=2)[["other"]]], axis=1)
    assert fit(other, LOGIT)["estimate"].equals(fit(frame, LOGIT)["estimate"])


def test_numbers_written_as_text_are_read_and_other_text_is_missing(frame):
    text = frame.assign(m=frame["m"].map(repr).astype(object))
    text.loc[3, "m"] = "not measured"
    kept = frame.drop(index=3)
    found, expected = within_between(text, LOGIT), within_between(kept, LOGIT)
    np.testing.assert_allclose(found["estimate"], expected["estimate"], atol=1e-10)
    assert (found["n_missing"] == 1).all()
    found, expected = (leave_one_out(f, LOGIT, ["architecture"], within="operator") for f in (text, kept))
    np.testing.assert_allclose(found["estimate"], expected["estimate"], atol=1e-10)
