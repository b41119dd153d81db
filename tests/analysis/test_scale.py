"""Statistics that stay near n log n: each against a slow one, and against itself in another order."""

from __future__ import annotations

import itertools
import tracemalloc
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis import analyze
from invariscope.analysis.stats import concordance, without_each
from invariscope.analysis.stats.asked import Asked
from invariscope.analysis.stats.cells import operator_cells
from invariscope.analysis.stats.coefficients import correlation, covariance, kendall_sums, rank_covariance
from invariscope.analysis.stats.concordance import Quadrants, concordances, dense_codes
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.permutation import permutations_of, permuted_correlations
from invariscope.analysis.stats.regression import FractionalLogit, compare, fit, leave_one_out, within_between
from invariscope.analysis.stats.regression import noise as noise_module
from invariscope.analysis.stats.regression import refits as refits_module
from invariscope.analysis.stats.resampling import jackknife_counts
from tests.analysis.simulate import regression_frame

LOGIT = FractionalLogit("logit", "c", ("m", "accuracy"), ("architecture",))


def _columns(n: int, decimals: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    return x.round(decimals), (x + rng.normal(size=n)).round(decimals)


def _signs(column: np.ndarray) -> np.ndarray:
    return np.sign(column[:, None] - column[None, :])


@pytest.mark.parametrize("n", [1, 2, 3, 17, 64, 130])
@pytest.mark.parametrize("decimals", [0, 9])
def test_sign_sums_equal_those_over_all_pairs(n: int, decimals: int) -> None:
    x, y = _columns(n, decimals)
    both = _signs(x) * _signs(y)
    quadrants, rng = Quadrants.of(x, y), np.random.default_rng(1)
    assert quadrants.of_rows().tolist() == both.sum(axis=1).tolist()
    first, second = rng.integers(n, size=(2, 20))
    expected = [(np.sign(x - x[a]) * np.sign(y - y[b])).sum() for a, b in zip(first, second, strict=True)]
    assert quadrants.signs(first, second).tolist() == expected
    moved = rng.permuted(np.tile(dense_codes(x)[0], (5, 1)), axis=1)
    products, untied = concordances(moved, *dense_codes(y))
    for row, product, pairs in zip(moved, products, untied, strict=True):
        assert product == (_signs(row) * _signs(y)).sum() / 2
        assert pairs == np.abs(_signs(row)).sum() / 2


def test_tau_of_4000_rows_is_scipys() -> None:
    x, y = _columns(4_000, 2)
    found = correlate(pd.DataFrame({"x": x, "y": y}), ["x"], ["y"], methods=["kendall"], clusters={"rows": None})
    assert found["r"].item() == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)
    assert found["n_permutations"].item() == 199
    assert found["p"].item() == 1 / 200


@pytest.mark.parametrize("sizes", [(1,) * 60, (2,) * 30, (1, 1, 2, 3, 5, 48), (3, 3, 54)])
def test_sums_without_each_cluster_are_those_of_the_counts_that_leave_it_out(sizes: tuple[int, ...]) -> None:
    codes = np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes))
    values = np.column_stack([*_columns(60, 0), *_columns(60, 9, seed=1)])
    counts, pairs, groups = jackknife_counts(len(sizes)), [(0, 1), (2, 3)], np.arange(60) % 4
    exact = without_each.rank_covariance_without_each(values, codes)
    assert (exact == rank_covariance(values, codes, counts)).all()
    assert (
        without_each.kendall_sums_without_each(values, codes, pairs) == kendall_sums(values, codes, counts, pairs)
    ).all()
    for one in (None, groups):
        found, expected = (
            correlation(sums, counts.sum(axis=1))
            for sums in (
                without_each.covariance_without_each(values, codes, one),
                covariance(values, codes, counts, one),
            )
        )
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_small_and_large_clusters_are_ranked_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.repeat(np.arange(30), 3)
    values = np.column_stack(_columns(90, 1))
    found = without_each.rank_covariance_without_each(values, codes)
    for share in (0.0, 1e9):
        monkeypatch.setattr(without_each, "_LARGE", share)
        assert (without_each.rank_covariance_without_each(values, codes) == found).all()


def test_permutations_within_groups_are_those_with_the_groups_indicators() -> None:
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(20), rng.integers(1, 4, 20))
    groups = (np.arange(20) % 3)[codes]
    x, y, held = (rng.normal(size=(len(codes), k)) for k in (2, 2, 1))
    order = permutations_of(np.arange(20) % 3, 25)
    indicators = np.hstack([np.eye(3)[groups], held])
    expected = permuted_correlations(x, y, indicators, codes, order)
    np.testing.assert_allclose(permuted_correlations(x, y, held, codes, order, groups), expected, atol=1e-12)
    constant = np.hstack([held, np.arange(3.0)[groups][:, None]])
    found = permuted_correlations(x, y, constant, codes, order, groups)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_blocks_and_order_of_rows_change_no_correlation(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = regression_frame(groups=10, size=6)
    options = {"methods": ["kendall", "spearman", "partial_spearman"], "covariates": ["accuracy"], "permutations": 99}
    clusters = {"rows": None, "operators": "operator"}
    first = correlate(frame, ["m"], ["c"], clusters=clusters, **options)
    monkeypatch.setattr(concordance, "_CELLS", 100)
    monkeypatch.setattr("invariscope.analysis.stats.coefficients._CELLS", 100)
    pd.testing.assert_frame_equal(correlate(frame, ["m"], ["c"], clusters=clusters, **options), first)
    numbers = ["r", "low", "high"]
    again = correlate(frame.sample(frac=1, random_state=1), ["m"], ["c"], clusters=clusters, **options)
    np.testing.assert_allclose(again[numbers], first[numbers], atol=1e-12)


def test_coverage_from_triangles_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other draws of the same distribution: 1,000 simulations tell a coverage to 0.007."""
    frame = regression_frame(groups=12, size=40)
    plain = fit(frame, LOGIT)["coverage"]
    monkeypatch.setattr(noise_module, "MOST_ROWS", 100)
    few = fit(frame, LOGIT)["coverage"]
    assert (few != plain).any()
    np.testing.assert_allclose(few, plain, atol=4 * np.sqrt(2 * 0.05 * 0.95 / 1000))


def test_sums_of_noise_have_the_variance_of_their_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codes, columns = np.repeat(np.arange(5), 50), rng.normal(size=(250, 3))
    for most in (10_000, 100):
        monkeypatch.setattr(noise_module, "MOST_ROWS", most)
        made = noise_module.ClusterNoise.of(columns, codes, 0.3, 20_000)
        assert len(made.codes) == (250 if most > 250 else 15)
        sums = np.stack([made.sums(column) for column in range(3)])
        for cluster in range(5):
            mine = columns[codes == cluster]
            expected = 0.7 * mine.T @ mine + 0.3 * np.outer(mine.sum(axis=0), mine.sum(axis=0))
            np.testing.assert_allclose(np.cov(sums[:, cluster]), expected, atol=0.06 * np.diag(expected).max())
            np.testing.assert_allclose(made.products(2, 2)[cluster], mine[:, 2] @ mine[:, :2], rtol=1e-9)


def test_refits_are_those_of_the_rows_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Influence and held-out errors, by the design of all rows with and without a warm start, and made anew."""
    frame = regression_frame(groups=9, size=8)
    frame.loc[frame["operator"] == "op03", "architecture"] = "only here"
    frame.loc[5, "m"] = np.nan

    def made() -> list[pd.DataFrame]:
        tables = [leave_one_out(frame, LOGIT, ["operator", "architecture"])]
        tables.append(leave_one_out(frame, LOGIT, ["operator"], within="operator"))
        return [*tables, compare(frame, LOGIT)]

    cold = made()
    monkeypatch.setattr(refits_module, "WARM_ROWS", 0)
    warm = made()
    monkeypatch.setattr(refits_module.Refits, "determined", lambda self, left_out: False)
    slow = made()
    for first, *others in zip(cold, warm, slow, strict=True):
        for other in others:
            pd.testing.assert_frame_equal(other, first, rtol=1e-7, atol=1e-9)
    alone = fit(frame[frame["operator"] != "op00"], LOGIT, simulate=False).set_index("term")
    one = cold[0].query("left_out == 'op00'").iloc[0]
    assert one["estimate"] == pytest.approx(alone.loc["m", "estimate"], abs=1e-12)
    assert one["low"] == pytest.approx(alone.loc["m", "low"], abs=1e-9)
    rest = frame[frame["operator"] != "op00"]
    inside = within_between(rest, LOGIT, simulate=False).set_index("term").loc["m_within"]
    assert cold[1].query("left_out == 'op00'")["estimate"].item() == pytest.approx(inside["estimate"], abs=1e-9)
    assert (cold[2]["reason"].str.contains("only here")).any()


def test_text_of_cells_is_that_of_each_row() -> None:
    rows = pd.DataFrame(
        {"operator": ["a", None, "b", "a"], "architecture": ["x", "x", np.nan, "x"], "data": [1, 2, 1, 1]},
        index=[4, 2, 7, 1],
    )
    expected = ["a|x|1", "not given|x|2", "b|not given|1", "a|x|1"]
    found = operator_cells(rows)
    assert found.tolist() == expected
    assert found.index.tolist() == [4, 2, 7, 1]


def test_pairs_asked_for_differ_from_the_main_one_in_one_thing() -> None:
    asked = Asked("consistency", ("consistency", "fidelity", "kappa"))
    whole, other = ({"subset": s, "snapshots": "final"} for s in ("all operators", "without subsample"))
    readings = asked.readings
    expected = {(x, "consistency") for x in readings} | {("msb_corrected", y) for y in asked.scores}
    assert asked.pairs(whole) == expected
    assert asked.pairs(other) == {("msb_corrected", "consistency")}
    every = Asked("consistency", asked.scores, every=True)
    assert every.pairs(other) == set(itertools.product(readings, asked.scores))
    assert Asked("consistency", ("kappa",)).pairs(other) == set(itertools.product(readings, ["kappa"]))


def test_what_is_asked_for_is_part_of_everything(simulate: ModuleType) -> None:
    zoo = simulate.Zoo(seeds=1, epochs=(24.0,), padding_modes=("zeros",), shift_kinds=("zero",))
    frame = simulate.simulate_frame(zoo).drop(columns="strength")
    options = {"scores": ["consistency", "fidelity"], "resamples": 5, "permutations": 99}
    some, every = (analyze(frame, every_pair=every, **options) for every in (False, True))
    asked = Asked("consistency", ("consistency", "fidelity"))
    for name in ("correlations", "regressions"):
        kept = asked.kept(getattr(every, name), ["accuracy"])
        mine = getattr(some, name)
        assert len(mine) == len(kept) < len(getattr(every, name))
        labels = [column for column in mine.columns if mine[column].dtype.kind not in "f"]
        numbers = [column for column in mine.columns if column not in (*labels, "p_holm", "p_bh")]
        pair = [one.sort_values(labels, kind="stable", ignore_index=True)[[*labels, *numbers]] for one in (mine, kept)]
        pd.testing.assert_frame_equal(*pair, rtol=1e-9, atol=1e-12)
    pd.testing.assert_frame_equal(some.primary, every.primary)


def test_no_statistic_holds_an_array_of_rows_by_rows() -> None:
    """6,000 single rows: an array of all pairs would be 288 MB."""
    x, y = _columns(6_000, 3)
    values, codes = np.column_stack([x, y]), np.arange(6_000)
    for function, more in (
        (without_each.covariance_without_each, ()),
        (without_each.rank_covariance_without_each, ()),
        (without_each.kendall_sums_without_each, ([(0, 1)],)),
    ):
        tracemalloc.start()
        function(values, codes, *more)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 100e6, function.__name__
