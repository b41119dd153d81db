"""Intervals of slopes for few clusters: CR2, Satterthwaite's degrees of freedom and the wild bootstrap, against slow
references; and how often the intervals hold the truth.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf
from scipy import linalg, stats

from invariscope.analysis import TableError
from invariscope.analysis.stats.regression import FractionalLogit, LogitOLS, fit, within_between
from invariscope.analysis.stats.regression.sandwich import bias_reduced, plain
from invariscope.analysis.stats.regression.wild import cluster_weights, wild_bootstrap_t

FULL = bool(os.environ.get("INVARISCOPE_FULL"))


def _data(clusters: int = 9, seed: int = 0, sizes: tuple[int, ...] = (2, 3, 9)) -> pd.DataFrame:
    """Unequal clusters with effects of their own; scores out of 50 images, some of them 1."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), np.resize(sizes, clusters))
    m = rng.uniform(size=clusters)[codes] + 0.1 * rng.normal(size=len(codes))
    accuracy = 0.9 + 0.03 * rng.normal(size=len(codes))
    eta = 1 - m + 4 * (accuracy - 0.9) + 0.4 * rng.normal(size=clusters)[codes] + 0.3 * rng.normal(size=len(codes))
    c = np.where(rng.uniform(size=len(codes)) < 0.05, 1.0, np.round(50 / (1 + np.exp(-eta))) / 50)
    kind = np.where(rng.uniform(size=len(codes)) < 0.5, "cnn", "resnet")
    return pd.DataFrame({"c": c, "m": m, "accuracy": accuracy, "kind": kind, "n_images": 50, "operator": codes})


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return _data()


OLS = LogitOLS("ols", "c", ("m", "accuracy"), ("kind",))


def _logits(frame: pd.DataFrame) -> pd.Series:
    hits = frame["c"] * frame["n_images"]
    return np.log((hits + 0.5) / (frame["n_images"] - hits + 0.5))


def _matrix(frame: pd.DataFrame) -> np.ndarray:
    return np.column_stack([np.ones(len(frame)), frame["m"], frame["accuracy"], frame["kind"] == "resnet"]).astype(
        float
    )


def test_least_squares_on_logits_equals_the_formula_interface(frame):
    table = fit(frame, replace(OLS, interval="t")).set_index("term")
    model = smf.ols("y ~ m + accuracy + kind", frame.assign(y=_logits(frame)))
    expected = model.fit(cov_type="cluster", cov_kwds={"groups": frame["operator"]}, use_t=True)
    for ours, theirs in {"m": "m", "accuracy": "accuracy", "kind[resnet]": "kind[T.resnet]"}.items():
        row = table.loc[ours]
        assert row["estimate"] == pytest.approx(expected.params[theirs], abs=1e-8)
        assert row["se"] == pytest.approx(expected.bse[theirs], abs=1e-8)
        assert (row["low"], row["high"]) == pytest.approx(tuple(expected.conf_int().loc[theirs]), abs=1e-8)
    mean = 1 / (1 + np.exp(-expected.fittedvalues))
    assert table.loc["m", "effect"] == pytest.approx(expected.params["m"] * np.mean(mean * (1 - mean)), abs=1e-8)


def _cr2_by_hand(x: np.ndarray, residual: np.ndarray, codes: np.ndarray, index: int) -> tuple[float, float]:
    """Standard error and degrees of freedom with every n × n matrix written out."""
    n = len(x)
    bread = np.linalg.inv(x.T @ x)
    annihilator = np.eye(n) - x @ bread @ x.T
    vectors, variance = [], 0.0
    for g in np.unique(codes):
        mine = np.flatnonzero(codes == g)
        root = linalg.fractional_matrix_power(annihilator[np.ix_(mine, mine)], -0.5).real
        score = root @ x[mine] @ bread[:, index]
        variance += (score @ residual[mine]) ** 2
        vectors.append(annihilator[:, mine] @ score)
    p = np.column_stack(vectors)
    eigenvalues = np.linalg.eigvalsh(p.T @ p)
    return np.sqrt(variance), eigenvalues.sum() ** 2 / (eigenvalues**2).sum()


def test_cr2_and_its_degrees_of_freedom_equal_the_matrices_written_out(frame):
    x, y = _matrix(frame), _logits(frame).to_numpy()
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    table = fit(frame, OLS)
    for index in range(4):
        se, df = _cr2_by_hand(x, residual, frame["operator"].to_numpy(), index)
        row = table.iloc[index]
        assert row["se"] == pytest.approx(se, rel=1e-8)
        assert row["df"] == pytest.approx(df, rel=1e-8)
        assert row["high"] - row["estimate"] == pytest.approx(stats.t.ppf(0.975, df) * se, rel=1e-8)


def test_cr2_of_the_fractional_logit_is_that_of_its_working_regression(frame):
    row = fit(frame, FractionalLogit("logit", "c", ("m", "accuracy"), ("kind",))).iloc[1]
    mu = sm.GLM(frame["c"], _matrix(frame), family=sm.families.Binomial()).fit(tol=1e-12).mu
    root = np.sqrt(mu * (1 - mu))
    se, df = _cr2_by_hand(_matrix(frame) * root[:, None], (frame["c"] - mu) / root, frame["operator"].to_numpy(), 1)
    assert row["se"] == pytest.approx(se, rel=1e-7)
    assert row["df"] == pytest.approx(df, rel=1e-7)


def test_cr2_of_single_rows_is_hc2(frame):
    """Where every row is a cluster, CR2 is HC2, which statsmodels has."""
    x, y = _matrix(frame), _logits(frame).to_numpy()
    expected = sm.OLS(y, x).fit(cov_type="HC2")
    sandwich = bias_reduced(x, np.arange(len(y)))
    np.testing.assert_allclose(sandwich.errors(expected.resid), expected.bse, rtol=1e-10)


def test_a_slope_that_rests_on_one_cluster_has_no_interval(frame, recwarn):
    only = frame.assign(m=(frame["operator"] == 2).astype(float))
    table = fit(only, OLS)
    row = table.iloc[1]
    assert np.isfinite(row["estimate"])
    assert table.iloc[2:][["se", "low", "high"]].notna().all(axis=None)
    assert row[["se", "low", "high"]].isna().all()
    assert row["reason"] == "no interval: the coefficient rests on a single cluster"
    assert not recwarn.list


def _wild_by_hand(x: np.ndarray, y: np.ndarray, codes: np.ndarray, index: int, hypothesis: float, weights) -> float:
    """The p-value with every bootstrap sample built and refitted."""
    n, k = x.shape
    groups = len(np.unique(codes))
    scale = groups / (groups - 1) * (n - 1) / (n - k)

    def t_of(sample):
        bread = np.linalg.inv(x.T @ x)
        beta = bread @ x.T @ sample
        residual = sample - x @ beta
        scores = [x[codes == g].T @ residual[codes == g] for g in range(groups)]
        variance = scale * bread @ sum(np.outer(s, s) for s in scores) @ bread
        return (beta[index] - hypothesis) / np.sqrt(variance[index, index])

    others = np.delete(x, index, axis=1)
    offset = y - hypothesis * x[:, index]
    fitted = others @ np.linalg.lstsq(others, offset, rcond=None)[0]
    restricted = offset - fitted
    data = abs(t_of(y))
    drawn = [abs(t_of(fitted + hypothesis * x[:, index] + w[codes] * restricted)) for w in weights]
    return float(np.mean([t >= data * (1 - 1e-9) for t in drawn]))


@pytest.mark.parametrize("clusters", [4, 10])
def test_the_wild_bootstrap_equals_the_slow_loop(clusters):
    data = _data(clusters, seed=1, sizes=(3, 4, 6))
    x, y, codes = _matrix(data), _logits(data).to_numpy(), data["operator"].to_numpy()
    weights = cluster_weights(clusters, draws=300)
    found = wild_bootstrap_t(x, y, codes, 1, draws=300, simulate=False)
    assert found.p == pytest.approx(_wild_by_hand(x, y, codes, 1, 0.0, weights), abs=1e-12)
    if clusters == 10:
        for end, outward in ((found.low, -1), (found.high, 1)):
            assert _wild_by_hand(x, y, codes, 1, end + outward * 1e-6, weights) <= 0.05
            assert _wild_by_hand(x, y, codes, 1, end - outward * 1e-6, weights) > 0.05


@pytest.mark.timeout(20)
@pytest.mark.parametrize("noise", [0.0, 1e-18, 1e-15, 1e-9])
def test_the_wild_bootstrap_ends_where_the_error_is_near_nothing(noise):
    """1e-9 standard errors can lie below the spacing of floats; the bisection then went on for ever."""
    rng = np.random.default_rng(3)
    codes = np.repeat(np.arange(6), [2, 1, 1, 1, 2, 1])
    x = np.column_stack([np.ones(8), rng.random(8)])
    y = x @ [0.3, -1.7] + noise * rng.standard_normal(8)
    found = wild_bootstrap_t(x, y, codes, 1, simulate=False)
    assert found.se < 1e-8
    if np.isfinite(found.low):
        assert found.low <= found.high
        assert [found.low, found.high] == pytest.approx([-1.7, -1.7], abs=1e-6)


def test_wild_weights_are_enumerated_where_they_are_few():
    webb = cluster_weights(4)
    points = [s * r for r in np.sqrt([0.5, 1, 1.5]) for s in (-1, 1)]
    assert {tuple(w) for w in webb.round(12)} == {tuple(w) for w in np.round(list(product(points, repeat=4)), 12)}
    assert len(webb) == 6**4
    rademacher = cluster_weights(11)
    assert len({tuple(w) for w in rademacher}) == len(rademacher) == 2**11
    many = cluster_weights(40)
    assert many.shape == (2000, 40)
    assert cluster_weights(np.int64(100), 99).shape == (100, 100)
    assert len(cluster_weights(12)) == 2**12
    assert len(cluster_weights(13)) == 2000
    for weights in (webb, rademacher, many):
        assert (weights[0] == 1).all()
        assert weights[1:].mean() == pytest.approx(0, abs=0.02)
        assert (weights**2).mean() == pytest.approx(1, abs=0.02)


def test_the_wild_row_of_a_table(frame):
    few = _data(14)
    row = fit(few, replace(OLS, interval="wild bootstrap-t"))
    assert row["term"].tolist() == ["m"]
    row = row.iloc[0]
    plain_row = fit(few, replace(OLS, interval="t")).iloc[1]
    assert (row["estimate"], row["se"]) == pytest.approx((plain_row["estimate"], plain_row["se"]), rel=1e-10)
    assert row["low"] < row["estimate"] < row["high"]
    assert row["interval"] == "wild bootstrap-t"
    assert np.isnan(row["p"])
    with pytest.raises(TableError, match=r"wild bootstrap-t is for LogitOLS only; choose the interval CR2 or t"):
        fit(frame, FractionalLogit("logit", "c", ("m",), interval="wild bootstrap-t"))


@pytest.mark.parametrize("interval", ["CR2", "t", "wild bootstrap-t"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: f.assign(m=0.3), "m is constant (0.3)"),
        (lambda f: f.assign(c=1.0), "c is constant (1)"),
        (lambda f: f.assign(c=f["c"] + 0.9), "c leaves [0, 1], where the logit lives"),
        (lambda f: f.assign(operator=0), "1 cluster (operator) is fewer than 3: no standard error"),
        (lambda f: f.iloc[:2], "2 complete rows are too few for"),
        (lambda f: f.assign(m=np.inf), "no row has a value in every column of the model"),
        (lambda f: f.assign(n_images=0), "a row has no images behind its score"),
        (lambda f: f.assign(n_images=np.nan), "no row has a value in every column of the model"),
    ],
)
def test_no_slope_comes_with_its_reason_and_without_warnings(frame, interval, change, reason, recwarn):
    row = fit(change(frame), replace(OLS, interval=interval)).iloc[0]
    assert row[["estimate", "se", "low", "high"]].isna().all()
    assert row["reason"].startswith(reason)
    assert not recwarn.list


def test_scores_on_a_line_have_no_error(frame, recwarn):
    exact = frame.assign(c=1 / (1 + np.exp(-frame["m"])), n_images=1e12)
    found = fit(exact, LogitOLS("ols", "c", ("m",))).iloc[0]
    assert "without error" in found["reason"]
    assert not recwarn.list


def _covered(design, slope_index, codes, method, simulations, rho=0.4, seed=0):
    """Share of intervals that hold the slope in simulated least squares, all data sets at once where they can be."""
    rng = np.random.default_rng(seed)
    groups = codes.max() + 1
    noise = np.sqrt(rho) * rng.normal(size=(groups, simulations))[codes]
    noise += np.sqrt(1 - rho) * rng.normal(size=(len(codes), simulations))
    if method == "wild bootstrap-t":
        weights = cluster_weights(groups, 399)
        keep = np.concatenate([[0], 1 + rng.permutation(len(weights) - 1)[:399]])
        results = [_wild_p(design, y, codes, slope_index, weights[keep]) > 0.05 for y in noise.T]
        return np.mean(results)
    coefficients = np.linalg.lstsq(design, noise, rcond=None)[0]
    sandwich = (bias_reduced if method == "CR2" else plain)(design, codes)
    sums = pd.DataFrame(sandwich.scores[:, [slope_index]] * (noise - design @ coefficients)).groupby(codes).sum()
    halves = stats.t.ppf(0.975, sandwich.df[slope_index]) * np.sqrt((sums**2).sum(axis=0))
    return np.mean(np.abs(coefficients[slope_index]) <= halves)


def _wild_p(design, y, codes, index, weights):
    from invariscope.analysis.stats.regression.wild import _Problem

    return _Problem.make(design, y, codes, index).test(weights).p(0.0)


def _design(clusters: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), 5)
    m = rng.uniform(size=clusters)[codes] + 0.15 * rng.normal(size=len(codes))
    return np.column_stack([np.ones(len(codes)), m, rng.normal(size=len(codes))]), codes


@pytest.mark.parametrize(
    ("method", "clusters"),
    [
        *(("CR2", 40), ("CR2", 100), ("wild bootstrap-t", 40)),
        pytest.param("wild bootstrap-t", 100, marks=pytest.mark.full),
    ],
)
def test_intervals_cover_with_enough_clusters(method, clusters):
    design, codes = _design(clusters)
    simulations = 20_000 if method == "CR2" else 4000 if FULL else 1000
    covered = _covered(design, 1, codes, method, simulations)
    print(f"coverage {method} {clusters} {covered:.4f}")  # noqa: T201
    assert 0.93 <= covered <= 0.97


def _score_frames(clusters: int, simulations: int, seed: int = 0):
    """Frames of fractional scores with a slope of -1.5 over all and inside clusters, and their errors by cluster."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), 4)
    for _ in range(simulations):
        m = rng.uniform(size=clusters)[codes] + 0.2 * rng.normal(size=len(codes))
        mean = 1 / (1 + np.exp(-(1 - 1.5 * m)))
        # Beta-distributed scores with mean on the curve, correlated inside clusters through a Gaussian copula.
        z = np.sqrt(0.4) * rng.normal(size=clusters)[codes] + np.sqrt(0.6) * rng.normal(size=len(codes))
        c = stats.beta.ppf(stats.norm.cdf(z), 20 * mean, 20 * (1 - mean))
        yield pd.DataFrame({"c": c, "m": m, "operator": codes})


@pytest.mark.parametrize("clusters", [40, pytest.param(100, marks=pytest.mark.full)])
def test_slopes_of_the_fractional_logit_cover(clusters):
    simulations = 1500 if FULL else 400
    model, hits = FractionalLogit("logit", "c", ("m",)), np.zeros(2)
    for frame in _score_frames(clusters, simulations):
        for place, table in enumerate(
            (fit(frame, model, simulate=False).iloc[[1]], within_between(frame, model, simulate=False).iloc[[1]])
        ):
            hits[place] += (table["low"] <= -1.5).item() and (table["high"] >= -1.5).item()
    print(f"coverage fractional logit, within-between {clusters} {hits / simulations}")  # noqa: T201
    # Of 400 simulations four standard errors around 0.95, which are 0.044; of 1,500 no more than 0.02.
    least, most = (0.93, 0.97) if FULL else 0.95 + 4 * np.sqrt(0.95 * 0.05 / simulations) * np.array([-1, 1])
    assert ((hits / simulations >= least) & (hits / simulations <= most)).all()


def test_with_few_unequal_clusters_cr2_and_the_wild_bootstrap_hold_better_than_the_plain_t():
    """11 clusters of which two carry most of the slope, as in the bundled zoo."""
    rng = np.random.default_rng(5)
    codes = np.repeat(np.arange(11), [45, 30, 12, 12, 12, 9, 9, 9, 6, 6, 6])
    spread = np.where(codes == 0, 0.35, np.where(codes == 1, 0.2, 0.03))
    m = rng.normal(size=len(codes)) * spread
    design = np.column_stack([np.ones(len(codes)), m, rng.normal(size=len(codes))])
    covered = {name: _covered(design, 1, codes, name, 1000) for name in ("CR2", "t", "wild bootstrap-t")}
    print(f"coverage 11 unequal clusters {covered}")  # noqa: T201
    assert covered["t"] < 0.85
    assert covered["CR2"] > 0.95
    assert covered["wild bootstrap-t"] > 0.93


def test_the_end_of_the_wild_interval_is_a_root_of_its_p_value():
    data = _data(40, seed=2)
    x, y, codes = _matrix(data), _logits(data).to_numpy(), data["operator"].to_numpy()
    found = wild_bootstrap_t(x, y, codes, 1, simulate=False)
    t = sm.OLS(y, x).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True).conf_int()[1]
    # With 40 clusters the bootstrap's interval is near the t interval.
    assert (found.low, found.high) == pytest.approx(tuple(t), abs=0.15 * (t[1] - t[0]))
