"""What the designs are computed with: Page's test, clustered fits and shares, and where a dose has levelled off."""

from __future__ import annotations

import itertools
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from invariscope.analysis.designs.common import clustered_fit, clustered_share
from invariscope.analysis.designs.dose import dose_trends, page_p
from invariscope.analysis.say.design_findings import _levels_off
from invariscope.analysis.say.vocabulary import IMAGES


def test_page_against_every_permutation() -> None:
    """Two families of four strengths: all (4!)² orders, and how many give as large an L."""
    values = np.array([[0.1, 0.4, 0.3, 0.9], [0.2, 0.3, 0.5, 0.4]])

    def statistic(rows: list) -> int:
        return sum(sum(rank * place for place, rank in enumerate(row, 1)) for row in rows)

    ranks = [stats.rankdata(row).astype(int).tolist() for row in values]
    all_orders = list(itertools.product(itertools.permutations(range(1, 5)), repeat=2))
    upper = np.mean([statistic(orders) >= statistic(ranks) for orders in all_orders])
    assert page_p(values) == pytest.approx(2 * upper)
    assert page_p(-values) == pytest.approx(2 * upper)
    assert np.isnan(page_p(np.ones((3, 4))))


def test_page_is_uniform_without_a_trend() -> None:
    rng = np.random.default_rng(0)
    p = np.array([page_p(rng.random((6, 5))) for _ in range(400)])
    assert abs(np.mean(p <= 0.05) - 0.05) < 0.025
    assert abs(np.mean(p <= 0.3) - 0.3) < 0.06


def test_clustered_fit_with_too_little() -> None:
    y = np.array([1.0, 2.0, 4.0])
    assert clustered_fit(y[:0], [], y[:0])["reason"] == "0 rows are too few"
    assert clustered_fit(y, [np.ones(3)], np.arange(3))["reason"] == "no variation of its own"
    one = clustered_fit(y, [], np.zeros(3))
    assert (one["estimate"], one["reason"]) == (pytest.approx(7 / 3), "no interval: 1 cluster is too few")


def test_shares_have_intervals_inside_0_to_1() -> None:
    hits, networks = np.ones(40), np.arange(40)

    def ends(hits: np.ndarray, clusters: np.ndarray) -> list[float]:
        found = clustered_share(hits, clusters)
        assert found["reason"] == ""
        return [found[name] for name in ("estimate", "low", "high")]

    # All or none: 3 / G clusters at most differ, and G counts clusters, not rows.
    assert ends(hits, networks) == pytest.approx([1.0, 1 - 3 / 40, 1.0])
    assert ends(0 * hits, networks // 4) == pytest.approx([0.0, 0.0, 3 / 10])
    assert ends(hits, networks // 20) == [1.0, 0.0, 1.0]
    hits[0] = 0
    mean = hits.mean()
    low, high = stats.t.interval(0.95, 39, loc=mean, scale=stats.sem(hits))
    assert high > 1.02
    assert ends(hits, networks) == pytest.approx([mean, low, 1.0])
    one = clustered_share(np.ones(3), np.zeros(3))
    assert (one["estimate"], one["reason"]) == (1.0, "no interval: 1 cluster is too few")
    half = clustered_share(np.array([0.0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert (half["estimate"], half["reason"]) == (0.5, "no interval: all clusters are equal")
    assert np.isnan([one["low"], one["high"], half["low"], half["high"]]).all()
    assert clustered_share(hits[:0], networks[:0])["reason"] == "0 rows are too few"


def test_levelling_off_is_told_by_the_first_dose_that_stays_above() -> None:
    rows = [{"statistic": "share reached", "y": "consistency", "strength": s, "estimate": e, "low": e, "high": e}
            for s, e in ((1.0, 0.92), (2.0, 0.7), (4.0, 0.95), (8.0, 1.02))]  # fmt: skip
    assert "at strength 4 (share reached 0.95 (0.95 to 0.95))" in _levels_off(pd.DataFrame(rows), IMAGES)
    assert "only at the highest strength" in _levels_off(pd.DataFrame(rows[:2]), IMAGES)


def test_several_runs_of_one_strength_enter_as_their_mean(simulate: ModuleType) -> None:
    """Each run twice, a little above and below what it was, and a third whose score is not known."""
    rows = simulate.simulate_frame(
        simulate.Zoo(seeds=2, epochs=(8.0,), padding_modes=("zeros",), shift_kinds=("zero",))
    )
    scores = ["accuracy", "consistency", "msb_corrected"]
    both = [rows.assign(**{name: rows[name] + step for name in scores}) for step in (-1e-3, 1e-3)]
    one, several = (
        dose_trends(frame, scores=["consistency"])
        for frame in (rows, pd.concat([*both, rows.assign(consistency=np.nan, accuracy=0.3)], ignore_index=True))
    )
    of_score = one["y"] == "consistency"
    assert of_score.sum() > 8
    assert several.loc[of_score, "n"].tolist() == one.loc[of_score, "n"].tolist()
    for name in ("estimate", "low", "high"):
        np.testing.assert_allclose(several.loc[of_score, name], one.loc[of_score, name], rtol=1e-9, atol=1e-12)
