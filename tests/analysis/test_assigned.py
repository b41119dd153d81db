"""Statistics of assigned factors: shares of variance, pooled effects, randomisation within blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pingouin
import pytest
import statsmodels.api as sm
from scipy import special, stats
from statsmodels.stats.mediation import Mediation
from statsmodels.stats.meta_analysis import combine_effects

from invariscope.analysis.designs.reliability import intraclass
from invariscope.analysis.stats import randomisation
from invariscope.analysis.stats.importance import lmg_shares
from invariscope.analysis.stats.mediation import indirect_effect
from invariscope.analysis.stats.pooled import equivalence_p, pool
from invariscope.analysis.stats.randomisation import centred, randomised_p, within_blocks
from invariscope.analysis.stats.ranks import Stratum, key_blocks, stratified_correlation
from invariscope.analysis.stats.regression.sandwich import bias_reduced
from invariscope.analysis.stats.resampling import bootstrap_counts
from invariscope.analysis.stats.robust import fractional, hc3
from invariscope.base.errors import TableError


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(rng.normal(size=(60, 4)), columns=list("abcd"))
    rows["b"] += 0.7 * rows["a"]
    rows["square"] = rows["c"] ** 2
    rows["y"] = rows["a"] + 0.5 * rows["square"] + rng.normal(size=60)
    return rows


def test_shares_are_the_mean_gain_over_all_orders(frame: pd.DataFrame) -> None:
    players = {"a": ["a"], "b": ["b"], "c": ["c", "square"]}
    base = sm.OLS(frame["y"], sm.add_constant(frame[["d"]])).fit().ssr
    expected = dict.fromkeys(players, 0.0)
    for order in itertools.permutations(players):
        columns, before = ["d"], 0.0
        for name in order:
            columns = columns + players[name]
            now = 1 - sm.OLS(frame["y"], sm.add_constant(frame[columns])).fit().ssr / base
            expected[name] += (now - before) / 6
            before = now
    found = lmg_shares(frame, "y", players, given=["d"])
    assert found.to_dict() == pytest.approx(expected, abs=1e-12)
    with pytest.raises(TableError, match="no such column 'z'"):
        lmg_shares(frame, "y", {"z": ["z"]})


def test_pooled_effects_are_those_of_statsmodels_where_it_has_them() -> None:
    values, errors = [0.1, 0.3, -0.2], [0.1, 0.2, 0.15]
    result = combine_effects(np.array(values), np.array(errors) ** 2, method_re="dl")
    found = pool(values, errors)
    assert found.estimate == pytest.approx(result.mean_effect_fe)
    assert (found.random, found.tau2, found.q) == pytest.approx((result.mean_effect_re, result.tau2, result.q))
    alike = pool([0.1, 0.1, 0.1], errors)
    assert alike.tau2 == 0
    assert alike.random == pytest.approx(alike.estimate)
    with pytest.raises(TableError, match="nothing to pool"):
        pool([], [])


def test_a_single_estimate_keeps_its_own_interval() -> None:
    found = pool([0.2], [0.1], alone_df=7.5)
    assert [found.low, found.high] == pytest.approx(stats.t(7.5, 0.2, 0.1).interval(0.95))
    assert [found.random_low, found.random_high] == [found.low, found.high]
    assert pool([0.2, 0.2], [0.1, 0.1], alone_df=7.5).low == pytest.approx(0.2 - 1.959964 * 0.1 / 2**0.5)


def test_equivalence_is_two_one_sided_tests() -> None:
    assert equivalence_p(0.1, 0.15, 0.5) == pytest.approx(stats.norm.sf(0.4 / 0.15))
    assert equivalence_p(0.5, 0.1, 0.5) == pytest.approx(0.5)
    assert equivalence_p(0.6, 0.1, 0.5) > 0.5


def test_the_slope_within_blocks_has_the_errors_of_the_dummy_regression() -> None:
    rng = np.random.default_rng(1)
    codes = np.repeat(np.arange(12), 4)
    x = rng.random(48)
    y = 0.5 * x + rng.normal(size=12)[codes] + 0.2 * rng.normal(size=48)
    found = within_blocks(x, y, codes.tolist(), draws=999)
    design = np.column_stack([x, *(codes == block for block in range(12))]).astype(float)
    slopes = np.linalg.lstsq(design, y, rcond=None)[0]
    sandwich = bias_reduced(design, codes)
    assert found.slope == pytest.approx(slopes[0])
    assert found.se == pytest.approx(sandwich.errors(y - design @ slopes)[0])
    assert found.df == pytest.approx(sandwich.df[0])


def test_the_randomisation_takes_all_assignments_where_they_are_few() -> None:
    x, y = np.array([0.0, 1.0, 3.0, 0.0, 1.0, 2.0, 5.0]), np.array([0.3, 0.1, 2.0, 1.0, 0.5, 3.0, 2.0])
    codes = np.array([0, 0, 0, 1, 1, 1, 1])
    treated = centred(x, codes)
    firsts, seconds = itertools.permutations(y[:3]), list(itertools.permutations(y[3:]))
    sums = [treated @ np.array([*a, *b]) for a in firsts for b in seconds]
    exact = np.mean(np.abs(sums) >= abs(treated @ y) - 1e-12)
    assert within_blocks(x, y, codes, draws=1).p == pytest.approx(exact)
    assert exact * len(sums) == pytest.approx(round(exact * 144))


def test_drawn_assignments_come_near_to_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat([0, 1, 2], [4, 4, 3])
    x, y = centred(rng.random(11), codes), centred(rng.random(11), codes)
    exact = randomised_p(x, y, codes)
    monkeypatch.setattr(randomisation, "MOST_EXACT", 0)
    assert randomised_p(x, y, codes, draws=20_000) == pytest.approx(exact, abs=0.015)
    monkeypatch.setattr(randomisation, "_TABLED", 1)
    assert randomised_p(x, y, codes, draws=20_000) == pytest.approx(exact, abs=0.015)


def test_the_randomisation_holds_its_size() -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(8), 4)
    x = centred(rng.random(32), codes)
    p = [randomised_p(x, centred(rng.standard_t(2, 32), codes), codes, draws=199, seed=run) for run in range(400)]
    assert abs(np.mean(np.array(p) <= 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)


def test_cells_that_share_units_are_pooled_with_their_covariance() -> None:
    values, errors = np.array([0.1, 0.3, -0.2]), np.array([0.1, 0.2, 0.15])
    covariance = np.diag(errors**2) + 0.004 * (1 - np.eye(3))
    shares = errors**-2 / (errors**-2).sum()
    variance = sum(shares[i] * shares[j] * covariance[i, j] for i in range(3) for j in range(3))
    found = pool(values, errors, covariance=covariance)
    assert found.estimate == pytest.approx(shares @ values)
    assert found.se == pytest.approx(np.sqrt(variance))
    # Q is the least squares of the estimates about one value, in the metric of their covariance.
    inverse = np.linalg.inv(covariance)
    best = inverse.sum(axis=0) @ values / inverse.sum()
    assert found.q == pytest.approx((values - best) @ inverse @ (values - best))
    assert pool(values, errors, covariance=np.diag(errors**2)) == pool(values, errors)


def test_hc3_is_that_of_statsmodels_and_its_influences_add_up() -> None:
    rng = np.random.default_rng(4)
    design = np.column_stack([np.ones(40), rng.normal(size=(40, 3))])
    y = design @ [1, 0.5, 0, -1] + rng.normal(size=40) * (1 + np.abs(design[:, 1]))
    found, expected = hc3(design, y), sm.OLS(y, design).fit(cov_type="HC3")
    assert found.params == pytest.approx(expected.params)
    assert found.errors == pytest.approx(expected.bse)
    assert found.influences.T @ found.influences == pytest.approx(expected.cov_params())


def test_the_fractional_logit_has_hc3_of_its_working_regression() -> None:
    rng = np.random.default_rng(5)
    design = np.column_stack([np.ones(60), rng.normal(size=(60, 2))])
    y = rng.binomial(50, special.expit(design @ [0.5, 1, 0])) / 50
    fit = sm.GLM(y, design, family=sm.families.Binomial()).fit()
    leverage = fit.get_influence().hat_matrix_diag
    bread = np.linalg.inv((design * (fit.mu * (1 - fit.mu))[:, None]).T @ design)
    meat = sum(
        np.outer(row, row) * ((v - m) / (1 - h)) ** 2 for row, v, m, h in zip(design, y, fit.mu, leverage, strict=True)
    )
    found = fractional(design, y)
    assert found.params == pytest.approx(fit.params)
    assert found.errors == pytest.approx(np.sqrt(np.diag(bread @ meat @ bread)), rel=1e-6)
    assert isinstance(fractional(design, (design[:, 1] > 0).astype(float)), str)


def _strata() -> list[Stratum]:
    rng = np.random.default_rng(6)
    units = [np.arange(20), np.arange(5, 30), np.arange(0, 30, 3)]
    shared = rng.normal(size=30)
    return [Stratum(x := rng.normal(size=len(u)).round(1), x + shared[u] + rng.normal(size=len(u)), u) for u in units]


def _pooled_z(strata: list[Stratum], coefficient) -> float:
    z = [np.arctanh(coefficient(part.x, part.y).statistic) for part in strata]
    weights = [len(part.units) - 3 for part in strata]
    return float(np.average(z, weights=weights))


@pytest.mark.parametrize(("ranked", "coefficient"), [(True, stats.spearmanr), (False, stats.pearsonr)])
def test_stratified_correlations_are_those_of_loops(ranked, coefficient) -> None:
    strata = _strata()
    found = stratified_correlation(strata, ranked=ranked, draws=100, seed=1)
    z = _pooled_z(strata, coefficient)
    without = []
    for unit in range(30):
        kept = [part.units != unit for part in strata]
        left = [Stratum(p.x[k], p.y[k], p.units[k]) for p, k in zip(strata, kept, strict=True)]
        without.append(_pooled_z(left, coefficient))
    se = np.sqrt(29 / 30 * ((np.array(without) - np.mean(without)) ** 2).sum())
    assert (found.z, found.se, found.n_units) == (pytest.approx(z), pytest.approx(se), 30)
    assert found.high == pytest.approx(np.tanh(z + stats.t.ppf(0.975, 29) * se))
    reached = 0
    for keys in np.concatenate([some for _, some in key_blocks(30, 100, 1)]):
        moved = [Stratum(p.x[np.argsort(keys[p.units])], p.y, p.units) for p in strata]
        reached += abs(_pooled_z(moved, coefficient)) >= abs(z) - 1e-10
    assert found.p == pytest.approx((1 + reached) / 101)


def test_an_indirect_effect_is_that_of_regressions_on_repeated_rows() -> None:
    rng = np.random.default_rng(7)
    x, other = rng.normal(size=(2, 50))
    mediator = 0.7 * x + 0.3 * other + rng.normal(size=50)
    y = 1.5 * mediator - 0.5 * x + rng.normal(size=50)
    covariates = np.column_stack([np.ones(50), other])
    counts = bootstrap_counts(50, 20, 3)
    found = indirect_effect(x, mediator, y, covariates, counts)

    def product(rows: np.ndarray) -> float:
        first = sm.OLS(mediator[rows], np.column_stack([x, covariates])[rows]).fit().params[0]
        return float(first * sm.OLS(y[rows], np.column_stack([mediator, x, covariates])[rows]).fit().params[0])

    assert found.estimate == pytest.approx(product(np.arange(50)))
    repeated = [product(np.repeat(np.arange(50), row.astype(int))) for row in counts]
    assert found.resampled == pytest.approx(np.array(repeated))


def test_an_indirect_effect_is_the_mediated_effect_of_statsmodels() -> None:
    rng = np.random.default_rng(8)
    rows = pd.DataFrame({"x": rng.normal(size=300)})
    rows["m"] = 0.7 * rows["x"] + rng.normal(size=300)
    rows["y"] = 1.5 * rows["m"] - 0.5 * rows["x"] + rng.normal(size=300)
    models = sm.OLS.from_formula("y ~ m + x", rows), sm.OLS.from_formula("m ~ x", rows)
    np.random.seed(0)  # noqa: NPY002 - Mediation draws from the global generator
    expected = Mediation(*models, "x", "m").fit(n_rep=50).summary().loc["ACME (average)", "Estimate"]
    columns = (rows[name].to_numpy() for name in ("x", "m", "y"))
    found = indirect_effect(*columns, np.ones((300, 1)), bootstrap_counts(300, 2, 0))
    assert found.estimate == pytest.approx(expected, abs=0.06)


def test_the_intraclass_correlation_is_that_of_pingouin() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(size=(16, 1)) + 0.3 * rng.normal(size=(16, 2))
    long = pd.DataFrame({"unit": np.repeat(np.arange(16), 2), "rater": np.tile([0, 1], 16), "y": values.ravel()})
    expected = pingouin.intraclass_corr(long, "unit", "rater", "y").iloc[0]
    found = intraclass(values)
    assert found.estimate == pytest.approx(expected["ICC"], abs=1e-6)
    assert [found.low, found.high] == pytest.approx(list(expected.iloc[-1]), abs=0.006)
