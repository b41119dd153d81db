"""Permutation p-values against loops that really move the clusters, uniform under the null, and their corrections."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from invariscope.analysis.stats.blocks import Draws, PairBlock
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.permutation import (
    adjusted,
    arrangements,
    benjamini_hochberg,
    holm,
    p_values,
    permutations_of,
    permuted_correlations,
    permuted_taus,
)

ONE = {"methods": ["pearson"], "clusters": {"runs": "run"}, "permutations": 199}


@pytest.fixture(scope="module")
def data():
    """Two columns of x and two of y, 40 rows in 9 clusters of unequal size, a covariate."""
    rng = np.random.default_rng(3)
    codes = np.sort(np.concatenate([np.arange(9), rng.integers(0, 9, 31)]))
    x, y = (rng.normal(size=(9, 2))[codes] + rng.normal(size=(40, 2)) for _ in range(2))
    return np.round(x, 1), np.round(y + 0.5 * x, 1), codes, np.column_stack([np.ones(40), rng.normal(size=40)])


def _moved(column, codes, order):
    """The column with its cluster means moved, one row at a time."""
    means = {code: column[codes == code].mean() for code in set(codes)}
    return np.array([means[order[code]] + column[row] - means[code] for row, code in enumerate(codes)])


def _residual(column, nuisance):
    return column - nuisance @ np.linalg.lstsq(nuisance, column, rcond=None)[0]


@pytest.mark.parametrize("q", [1, 2])
def test_every_permutation_equals_the_correlation_of_the_rows_it_makes(data, q):
    x, y, codes, nuisance = data
    nuisance = nuisance[:, :q]
    order = permutations_of(np.zeros(9, dtype=int), 30, seed=1)
    fast = permuted_correlations(x, y, nuisance, codes, order)
    for p, (i, j) in itertools.product(range(30), itertools.product(range(2), range(2))):
        made = _moved(_residual(x[:, i], nuisance), codes, order[p])
        expected = stats.pearsonr(_residual(made, nuisance), _residual(y[:, j], nuisance)).statistic
        assert fast[p, i, j] == pytest.approx(expected, abs=1e-10)


def test_every_permutation_gives_the_tau_of_the_rows_it_makes(data):
    x, y, codes, _ = data
    order = permutations_of(np.zeros(9, dtype=int), 30, seed=2)
    fast = permuted_taus(x, y, codes, order)
    for p, (i, j) in itertools.product(range(30), itertools.product(range(2), range(2))):
        made = np.round(_moved(stats.rankdata(x[:, i]), codes, order[p]), 5)
        assert fast[p, i, j] == pytest.approx(stats.kendalltau(made, y[:, j]).statistic, abs=1e-10)


def test_the_identity_gives_the_coefficient_itself(data):
    x, y, codes, nuisance = data
    identity = np.arange(9)[None]
    found = permuted_correlations(x, y, nuisance, codes, identity)[0, 0, 0]
    expected = stats.pearsonr(_residual(x[:, 0], nuisance), _residual(y[:, 0], nuisance)).statistic
    assert found == pytest.approx(expected, abs=1e-12)
    assert permuted_taus(x, y, codes, identity)[0, 1, 1] == pytest.approx(stats.kendalltau(x[:, 1], y[:, 1]).statistic)


def test_only_clusters_of_a_stratum_change_places_each_arrangement_as_often():
    strata = np.array([0, 1, 0, 1, 0])
    order = permutations_of(strata, 6000, seed=0)
    assert (np.sort(order, axis=1) == np.arange(5)).all()
    assert (strata[order] == strata).all()
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == arrangements(strata) == 12
    assert stats.chisquare(counts).pvalue > 0.001


def test_p_counts_the_permutations_that_reach_the_coefficient_and_the_data_themselves():
    permuted = np.array([[0.1], [-0.5], [0.5 - 1e-15], [0.6], [np.nan]])
    assert p_values(np.array([0.5]), permuted)[0] == 5 / 6


@pytest.mark.parametrize(
    ("method", "reference"),
    [("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)],
)
def test_with_one_row_per_cluster_p_is_the_plain_permutation_test(method, reference):
    rng = np.random.default_rng(8)
    frame = pd.DataFrame(rng.normal(size=(6, 2)), columns=["x", "y"])
    frame["y"] += frame["x"]
    found = correlate(frame, ["x"], ["y"], methods=[method], clusters={"rows": None}, permutations=4999, seed=2).iloc[0]
    every = [reference(frame["x"].to_numpy()[list(p)], frame["y"]).statistic for p in itertools.permutations(range(6))]
    exact = np.mean(np.abs(every) >= abs(found["r"]) - 1e-12)
    assert 0.005 < exact < 0.5
    # Four standard errors of 4,999 draws from the 720 arrangements.
    assert found["p"] == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 4999))
    assert found["n_permutations"] == 4999


def _null_frame(rng, sizes, confounded=False):
    """Clusters of two groups whose x and y have nothing to do with each other, but for z (or the group) where
    ``confounded``; half of the variances lies between clusters.
    """
    codes = np.repeat(np.arange(len(sizes)), sizes)
    values = rng.normal(size=(len(sizes), 3))[codes] + rng.normal(size=(len(codes), 3))
    frame = pd.DataFrame(values, columns=["x", "y", "z"]).assign(run=codes, group=codes % 2)
    if confounded:
        frame[["x", "y"]] += frame[["z"]].to_numpy() + 3.0 * frame[["group"]].to_numpy()
    return frame


def _null_p(sizes, method="pearson", clusters="run"):
    """p of 300 null data sets; given z (and the group) for the methods that take covariates (and groups)."""
    rng = np.random.default_rng(11)
    partial, within, found = "partial" in method, "within" in method, []
    names = ["x", "y", *(["z"] if partial else []), *(["group"] if partial and not within else [])]
    for _ in range(300):
        frame = _null_frame(rng, sizes, confounded=partial)
        groups = frame["group"].to_numpy() if within else None
        block = PairBlock(method, frame[names].to_numpy(dtype=float), ["x", "y"], groups, [("x", "y")], {})
        found.append(block.rows(frame, {"design": clusters}, Draws("jackknife", 0, 199, 0))[0]["p"])
    return np.array(found, dtype=float)


@pytest.mark.parametrize("method", ["pearson", "kendall", "partial_spearman", "within_partial_pearson"])
def test_p_is_uniform_under_the_null_with_clusters(method):
    assert stats.kstest(_null_p([5] * 12, method), "uniform").pvalue > 0.01


def test_p_of_single_rows_is_far_from_uniform_where_rows_depend_on_each_other():
    found = _null_p([5] * 12, clusters=None)
    assert stats.kstest(found, "uniform").pvalue < 1e-4
    assert np.mean(found < 0.05) > 0.1


def test_p_is_at_most_conservative_with_clusters_of_very_unequal_size():
    found = _null_p([1, 1, 1, 1, 2, 2, 3, 4, 6, 9, 14, 20])
    # At a true rate of 5 %, 25 or more of 300 happen once in 100 times.
    assert np.sum(found <= 0.05) < 25


def test_p_is_small_where_the_cluster_means_go_together():
    rng = np.random.default_rng(1)
    frame = _null_frame(rng, [5] * 12).assign(y=lambda f: f["x"] + rng.normal(size=60))
    row = correlate(frame, ["x"], ["y"], **ONE).iloc[0]
    assert row["p"] == 1 / 200


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"run": np.repeat(np.arange(4), 15)}, {}, "4 clusters are fewer than 5"),
        ({"group": np.repeat(np.arange(12), 5)}, {"methods": ["within_pearson"]}, "1 arrangement of the clusters"),
        ({"group": np.tile([0, 1], 30)}, {"methods": ["within_pearson"]}, "clusters lie in several groups"),
        ({}, {"permutations": 0}, "no permutations were asked for"),
        ({}, {"clusters": {"runs": "run", "rows": None}}, "depend on each other within larger ones"),
        ({"x": 1.0}, {}, "x is constant (1)"),
        ({"run": [None] + [1] * 59}, {}, "1 row has no value in run"),
    ],
)
def test_no_p_has_a_reason(change, options, reason):
    frame = _null_frame(np.random.default_rng(0), [5] * 12).assign(**change)
    row = correlate(frame, ["x"], ["y"], within="group", **{**ONE, **options}).iloc[-1]
    assert np.isnan([row["p"], row["p_holm"], row["p_bh"]]).all()
    assert row["n_permutations"] == 0
    assert reason in row["p_reason"]


def test_kendalls_test_is_left_out_where_it_would_take_minutes(monkeypatch):
    monkeypatch.setattr("invariscope.analysis.stats.blocks.MOST_TAU_ROWS", 59)
    frame = _null_frame(np.random.default_rng(0), [5] * 12)
    table = correlate(frame, ["x"], ["y"], **{**ONE, "methods": ["kendall", "spearman"]}).set_index("method")
    assert table["p"].notna().to_dict() == {"kendall": False, "spearman": True}
    assert "60 rows are more than the 59" in table.loc["kendall", "p_reason"]


def test_kendalls_test_has_fewer_permutations_where_there_are_many_rows(monkeypatch):
    monkeypatch.setattr("invariscope.analysis.stats.blocks._TAU_PAIRS", 250 * 60**2 // 2)
    frame = _null_frame(np.random.default_rng(0), [5] * 12)
    options = {**ONE, "methods": ["kendall", "spearman"], "permutations": 400}
    table = correlate(frame, ["x"], ["y"], **options).set_index("method")
    assert table["n_permutations"].to_dict() == {"kendall": 250, "spearman": 400}
    assert table["p"].notna().all()


def test_corrections_equal_statsmodels_and_leave_missing_ones_out():
    p = pd.Series(np.random.default_rng(4).beta(0.3, 1, size=40), index=np.arange(40)[::-1])
    p.iloc[[3, 17]] = np.nan
    known = p.dropna()
    for correct, method in ((holm, "holm"), (benjamini_hochberg, "fdr_bh")):
        found = correct(p)
        assert found.index.equals(p.index)
        assert found.isna().sum() == 2
        np.testing.assert_allclose(found[known.index], multipletests(known, method=method)[1], atol=1e-12)
        assert correct(p.iloc[:0]).empty
        assert correct(p * np.nan).isna().all()


def test_a_family_is_the_rows_of_one_cluster_design():
    table = pd.DataFrame({"interval": ["a", "b", "a", "b", "a"], "p": [0.01, 0.02, 0.03, np.nan, 0.5]})
    found = adjusted(table)
    assert found["p_holm"].tolist() == pytest.approx([0.03, 0.02, 0.06, np.nan, 0.5], nan_ok=True)
    assert found["p_bh"].tolist() == pytest.approx([0.03, 0.02, 0.045, np.nan, 0.5], nan_ok=True)


def test_correlate_corrects_over_all_rows_of_a_call():
    frame = _null_frame(np.random.default_rng(5), [5] * 12)
    methods = ["pearson", "spearman", "kendall"]
    table = correlate(frame, ["x", "z"], ["y"], methods=methods, clusters={"runs": "run"}, permutations=199)
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1])
    np.testing.assert_allclose(table["p_bh"], multipletests(table["p"], method="fdr_bh")[1])
