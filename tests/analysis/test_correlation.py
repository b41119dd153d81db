"""The tidy frame of correlations: agreement with scipy and pingouin, and a reason wherever there is no number."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis import TableError
from invariscope.analysis.stats.correlation import METHODS, correlate, indicator_columns
from invariscope.analysis.stats.coverage import simulated_coverage
from invariscope.analysis.stats.resampling import bootstrap_counts, cluster_codes

DRAWS = {"rows": None, "runs": "cluster"}
FAST = {"clusters": DRAWS, "resamples": 200}


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(7)
    cluster = np.repeat(np.arange(30), 3)
    z = rng.normal(size=90)
    x = np.round(0.5 * z + rng.normal(size=30)[cluster] + rng.normal(size=90), 1)
    y = np.round(-0.6 * x + 0.8 * z + rng.normal(size=90), 1)
    names = {"x": x, "x2": x**2, "y": y, "y2": np.exp(y), "z": z, "cluster": [f"c{c}" for c in cluster]}
    return pd.DataFrame(names).assign(group=[f"g{c % 6}" for c in cluster], kind=np.where(z > 0.3, "a", "b"))


@pytest.mark.parametrize(
    ("method", "reference"),
    [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)],
)
def test_plain_coefficients_equal_scipy(frame, method, reference):
    table = correlate(frame, ["x", "x2"], ["y", "y2"], methods=[method], **FAST)
    assert len(table) == 8
    for row in table.itertuples():
        assert row.r == pytest.approx(reference(frame[row.x], frame[row.y]).statistic, abs=1e-8)
        assert row.low < row.r < row.high
        assert (row.n, row.n_missing, row.nominal, row.reason) == (90, 0, 0.95, "")
        assert row.n_clusters == (90 if row.interval == "rows" else 30)


@pytest.mark.parametrize("method", ["pearson", "spearman"])
def test_partial_coefficients_equal_pingouin(frame, method):
    pingouin = pytest.importorskip("pingouin")
    table = correlate(frame, ["x"], ["y"], methods=[f"partial_{method}"], covariates=["z", "x2"], **FAST)
    expected = pingouin.partial_corr(frame, x="x", y="y", covar=["z", "x2"], method=method)["r"].iloc[0]
    assert table["r"].iloc[0] == pytest.approx(expected, abs=1e-8)
    assert set(table["given"]) == {"z + x2"}


def test_a_category_is_held_fixed_through_its_indicator_columns(frame):
    pingouin = pytest.importorskip("pingouin")
    table = correlate(frame, ["x"], ["y"], methods=["partial_pearson"], covariates=["z", "group"], **FAST)
    dummies = pd.get_dummies(frame["group"], drop_first=True, dtype=float)
    wide = pd.concat([frame[["x", "y", "z"]], dummies], axis=1)
    expected = pingouin.partial_corr(wide, x="x", y="y", covar=["z", *dummies.columns])["r"].iloc[0]
    assert table["r"].iloc[0] == pytest.approx(expected, abs=1e-8)


def test_the_within_group_coefficient_equals_the_repeated_measures_one(frame):
    pingouin = pytest.importorskip("pingouin")
    table = correlate(frame, ["x"], ["y"], methods=["within_pearson"], within="group", **FAST)
    expected = pingouin.rm_corr(frame, x="x", y="y", subject="group")["r"].iloc[0]
    assert table["r"].iloc[0] == pytest.approx(expected, abs=1e-8)


def test_the_partial_within_group_coefficient_holds_groups_and_covariate_fixed(frame):
    found = correlate(frame, ["x"], ["y"], methods=["within_partial_pearson"], covariates=["z"], within="group", **FAST)
    expected = correlate(frame, ["x"], ["y"], methods=["partial_pearson"], covariates=["z", "group"], **FAST)
    assert found["r"].iloc[0] == pytest.approx(expected["r"].iloc[0], abs=1e-10)


def test_the_cluster_interval_equals_a_loop_over_the_same_resamples(frame):
    options = {"clusters": {"runs": "cluster"}, "interval": "percentile", "resamples": 150, "seed": 4}
    row = correlate(frame, ["x"], ["y"], methods=["spearman"], **options).iloc[0]
    codes, number = cluster_codes(frame["cluster"])
    drawn = []
    for counts in bootstrap_counts(number, 150, seed=4):
        rows = np.repeat(np.arange(90), counts[codes].astype(int))
        drawn.append(stats.spearmanr(frame["x"].iloc[rows], frame["y"].iloc[rows]).statistic)
    assert (row["low"], row["high"]) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-8)


def test_bca_differs_from_percentile_and_holds_the_estimate(frame):
    tables = [correlate(frame, ["x"], ["y2"], interval=kind, **FAST) for kind in ("percentile", "bca")]
    assert (tables[0]["r"] == tables[1]["r"]).all()
    assert (tables[0]["low"] != tables[1]["low"]).all()
    assert (tables[1]["low"] < tables[1]["r"]).all()
    assert (tables[1]["r"] < tables[1]["high"]).all()


def test_drawing_clusters_of_copies_gives_a_wider_interval_than_drawing_rows(frame):
    copies = frame.iloc[np.repeat(np.arange(0, 90, 3), 3)].reset_index(drop=True)
    table = correlate(copies, ["x"], ["y"], methods=["pearson"], **FAST).set_index("interval")
    width = table["high"] - table["low"]
    assert width["runs"] > 1.3 * width["rows"]
    assert table.loc["rows", "coverage"] < 0.9 < table.loc["runs", "coverage"]


def test_missing_and_infinite_values_are_left_out_pair_by_pair_and_counted(frame):
    holes = frame.copy()
    holes.loc[:4, "x"] = np.nan
    holes.loc[3:9, "y"] = np.inf
    holes.loc[50, "z"] = np.nan
    table = correlate(holes, ["x", "x2"], ["y", "y2"], methods=["pearson", "partial_pearson"], covariates=["z"], **FAST)
    for row in table.itertuples():
        columns = [row.x, row.y] + (["z"] if row.given else [])
        kept = holes[np.isfinite(holes[columns]).all(axis=1)]
        assert (row.n, row.n_missing) == (len(kept), 90 - len(kept))
        if not row.given:
            assert row.r == pytest.approx(kept[row.x].corr(kept[row.y]), abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_a_constant_column_gives_a_reason_and_no_warning(frame, method, recwarn):
    table = correlate(frame.assign(x=0.1), ["x"], ["y"], methods=[method], covariates=["z"], within="group", **FAST)
    assert table["r"].isna().all()
    assert table[["low", "high"]].isna().all(axis=None)
    assert set(table["reason"]) == {"x is constant (0.1)"}
    assert not recwarn.list


def test_a_column_constant_inside_every_group_gives_a_reason(frame):
    flat = frame.assign(x=pd.factorize(frame["group"])[0])
    table = correlate(flat, ["x"], ["y"], methods=["within_pearson"], within="group", **FAST)
    assert set(table["reason"]) == {"no variation left within groups"}
    table = correlate(frame.assign(z=frame["x"]), ["x"], ["y"], methods=["partial_pearson"], covariates=["z"], **FAST)
    assert set(table["reason"]) == {"no variation left given the covariates"}


def test_few_rows_and_few_clusters_give_reasons(frame):
    two = correlate(frame.iloc[:2], ["x"], ["y"], **FAST)
    assert two["r"].isna().all()
    assert two["reason"].str.contains("2 rows .* fewer than 3").all()
    none = correlate(frame.iloc[:0], ["x"], ["y"], **FAST)
    assert none["reason"].str.contains("0 rows").all()
    one = correlate(frame.assign(cluster="same"), ["x"], ["y"], **FAST)
    one = one[one["interval"] == "runs"]
    assert one["r"].notna().all()
    assert one["low"].isna().all()
    assert set(one["reason"]) == {"no interval: 1 cluster is fewer than 5"}
    assert one["coverage"].isna().all()


@pytest.mark.parametrize(
    ("interval", "reason"),
    [
        ("jackknife", "no interval: undefined without one of the clusters"),
        ("percentile", "no interval: undefined in too many resamples"),
        ("bca", "no interval: undefined in too many resamples"),
    ],
)
def test_a_column_with_one_odd_value_has_no_interval(frame, interval, reason, recwarn):
    rare = frame.assign(x=[1.0] + [0.0] * 89)
    options = {"methods": ["pearson"], "clusters": {"rows": None}, "resamples": 300, "interval": interval}
    row = correlate(rare, ["x"], ["y"], **options).iloc[0]
    assert np.isfinite(row["r"])
    assert np.isnan([row["low"], row["high"]]).all()
    assert row["reason"] == reason
    assert not recwarn.list


def test_the_jackknife_interval_equals_a_loop_that_leaves_out_clusters(frame):
    for method, reference in (("pearson", stats.pearsonr), ("kendall", stats.kendalltau)):
        row = correlate(frame, ["x"], ["y"], methods=[method], clusters={"runs": "cluster"}).iloc[0]
        rest = [frame[frame["cluster"] != c] for c in frame["cluster"].unique()]
        left_out = np.array([reference(part["x"], part["y"]).statistic for part in rest])
        se = np.sqrt(29 / 30 * ((left_out - left_out.mean()) ** 2).sum())
        half = stats.t.ppf(0.975, 29) * se / (1 - row["r"] ** 2)
        expected = (np.tanh(np.arctanh(row["r"]) - half), np.tanh(np.arctanh(row["r"]) + half))
        assert (row["low"], row["high"]) == pytest.approx(expected, abs=1e-8)
        assert row["interval_type"] == "jackknife"


def test_an_exact_correlation_has_no_interval(frame, recwarn):
    options = {"methods": ["kendall"], "clusters": {"runs": "cluster"}}
    row = correlate(frame.assign(y=2 * frame["x"]), ["x"], ["y"], **options).iloc[0]
    assert row["r"] == 1
    assert row["reason"] == "no interval: the correlation is exactly ±1"
    assert row["p"] == 1 / 2000
    assert not recwarn.list


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda f: f.assign(x="text"), "x holds no numbers"),
        (lambda f: f.assign(x=np.inf), "0 rows with a value in both columns"),
        (lambda f: f.assign(x=f["x"].where(f.index < 2)), "2 rows with a value in both columns"),
        (lambda f: f.assign(x=f["x"].where(f.index < 1)), "1 row with a value in both columns"),
        (lambda f: f.iloc[:0], "0 rows with a value in both columns"),
        (lambda f: f.assign(x=7), "x is constant (7)"),
        (lambda f: pd.concat([f, f[["x"]]], axis=1), "several columns are called x"),
        (lambda f: f.assign(cluster="one"), "no interval: 1 cluster is fewer than 5"),
        (lambda f: f.assign(cluster=f["cluster"].where(f.index > 0)), "no interval: 1 row has no value in cluster"),
    ],
)
def test_every_frame_without_a_number_gives_rows_that_say_why(frame, method, spoil, reason, recwarn):
    options = {"methods": [method], "covariates": ["z", "kind"], "within": "group", "clusters": {"runs": "cluster"}}
    table = correlate(spoil(frame), ["x"], ["y", "y2"], **options, resamples=50, permutations=20)
    assert len(table) == 2
    if method.startswith("within") and reason.startswith("1 row "):
        reason = "0 rows with a value in both columns that share a group"
    assert table["reason"].str.startswith(reason).all()
    assert table[["low", "high", "p", "p_holm", "p_bh"]].isna().all(axis=None)
    assert (table["p_reason"] != "").all()
    assert not recwarn.list


def test_too_few_rows_for_the_covariates_give_a_reason(frame):
    table = correlate(frame.iloc[:4], ["x"], ["y"], methods=["partial_pearson"], covariates=["z", "x2"], **FAST)
    assert set(table["reason"]) == {"4 rows are too few to hold 2 covariate columns fixed"}


def test_rows_without_a_group_take_no_part_within_groups(frame):
    holes = frame.assign(group=frame["group"].where(frame.index >= 4))
    table = correlate(holes, ["x"], ["y"], methods=["pearson", "within_pearson"], within="group", **FAST)
    assert table.groupby("method")["n"].first().to_dict() == {"pearson": 90, "within_pearson": 86}


def test_unknown_columns_and_methods_are_named(frame):
    with pytest.raises(TableError, match=r"no such columns nowhere; there are x, x2"):
        correlate(frame, ["nowhere"], ["y"], **FAST)
    with pytest.raises(TableError, match=r"no such methods persson; there are pearson"):
        correlate(frame, ["x"], ["y"], methods=["persson"], **FAST)
    with pytest.raises(TableError, match=r"no such intervals normal; there are jackknife, percentile, bca"):
        correlate(frame, ["x"], ["y"], interval="normal", **FAST)
    with pytest.raises(TableError, match=r"several columns are called cluster; rename all but one"):
        correlate(pd.concat([frame, frame[["cluster"]]], axis=1), ["x"], ["y"], **FAST)


def test_indicator_columns_leave_out_the_first_level_and_keep_missing_ones_missing():
    made = indicator_columns(pd.DataFrame({"k": ["b", "a", None, "c"], "v": [1, 2, 3, 4]}), ["v", "k"])
    assert list(made) == ["v", "k[b]", "k[c]"]
    assert made["k[b]"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(made["k[b]"][2])


def test_units_within_larger_units_have_no_p_and_the_coverage_of_dependent_units():
    """20 operators of 5 runs of 2 snapshots: runs taken for independent would give small p far too often."""
    rng = np.random.default_rng(3)
    operator = np.repeat(np.arange(20), 10)
    frame = pd.DataFrame({"operator": operator, "run": np.repeat(np.arange(100), 2)})
    frame["x"], frame["y"] = (rng.normal(size=20)[operator] + 0.2 * rng.normal(size=200) for _ in range(2))
    designs = {"rows": None, "runs": "run", "operators": "operator"}
    table = correlate(frame, ["x"], ["y"], methods=["spearman"], clusters=designs, permutations=199)
    table = table.set_index("interval")
    assert table["p"].notna().to_dict() == {"rows": False, "runs": False, "operators": True}
    assert "within larger ones" in table.loc["runs", "p_reason"]
    dependent, own = (simulated_coverage("spearman", 20, design) for design in ("rows", "clusters"))
    assert table["coverage"].to_dict() == {"rows": dependent, "runs": dependent, "operators": own}
    assert dependent < 0.9 < own
    within = correlate(
        frame, ["x"], ["y"], methods=["within_pearson"], within="operator", clusters=designs, permutations=199
    ).set_index("interval")
    # What the runs of an operator share is taken out.
    assert within["p"].notna().to_dict() == {"rows": False, "runs": True, "operators": False}
    assert within.loc["runs", "coverage"] == simulated_coverage("within_pearson", 100, "clusters")


@pytest.mark.parametrize("sign", [1, -1])
def test_an_exact_line_has_no_interval_whatever_its_rounding(sign):
    for seed in range(100):
        x = np.random.default_rng(seed).normal(size=20)
        frame = pd.DataFrame({"x": x, "y": sign * (0.3 * x + 0.1), "cluster": np.arange(20)})
        row = correlate(frame, ["x"], ["y"], methods=["pearson"], clusters={"c": "cluster"}, permutations=0).iloc[0]
        assert row["r"] == pytest.approx(sign, abs=1e-12)
        assert np.isnan([row["low"], row["high"]]).all()
        assert "exactly" in row["reason"]
