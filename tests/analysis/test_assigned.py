"""Statistics of assigned factors: shares of variance, pooled effects, randomisation within blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import special, stats
from statsmodels.stats.meta_analysis import combine_effects

from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.analysis.stats.importance import lmg_shares
from invariscope.analysis.stats.pooled import equivalence_p, pool
from invariscope.analysis.stats.randomisation import within_blocks
from invariscope.analysis.stats.regression.sandwich import bias_reduced
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


def test_the_randomisation_holds_its_size_and_is_exact_on_two_blocks() -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(8), 4).tolist()
    x = rng.random(32)
    small = [within_blocks(x, rng.standard_t(2, 32), codes, draws=199, seed=run).p <= 0.05 for run in range(400)]
    assert abs(np.mean(small) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    x, y = np.array([0.0, 1.0, 3.0, 0.0, 1.0, 2.0]), np.array([0.3, 0.1, 2.0, 1.0, 0.5, 3.0])
    treated = np.concatenate([part - part.mean() for part in (x[:3], x[3:])])
    orders = list(itertools.permutations(range(3)))
    slopes = [treated @ np.concatenate([y[:3][list(a)], y[3:][list(b)]]) for a in orders for b in orders]
    exact = np.mean(np.abs(slopes) >= abs(treated @ y) - 1e-12)
    assert within_blocks(x, y, [0, 0, 0, 1, 1, 1], draws=20_000).p == pytest.approx(exact, abs=0.015)


def _rotated(effect: float, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = []
    for data in ("a", "b", "c"):
        for block in range(20):
            weights = np.sort(rng.dirichlet([0.5] * 4))[::-1]
            shared = rng.normal(0, 0.6)
            for turn in range(4):
                msb = (np.roll(weights, turn)[0] - 0.25) / 0.75
                chance = special.expit(1.5 + shared + effect * msb + rng.normal(0, 0.4))
                row = {"data": data, "factor_block": f"R{block}", "factor_assigned_msb": msb, "seed": turn}
                rows.append({**row, "consistency": rng.binomial(1000, chance) / 1000})
    plan = {"shift_kind": "circular", "max_shift": 4, "n_shifts": 9, "n_images": 1000}
    return pd.DataFrame(rows).assign(architecture="n", padding_mode="circular", **plan)


def test_rotations_find_an_effect_and_rule_one_out() -> None:
    found = rotation_effect(_rotated(-1.0, 3), draws=999)
    assert found.pooled.low < -1.0 < found.pooled.high
    assert found.p == pytest.approx(1 / 1000)
    assert found.cells["data"].tolist() == ["a", "b", "c"]
    nothing = rotation_effect(_rotated(0.0, 4), draws=999)
    assert nothing.p > 0.05
    assert nothing.p_equivalent < 0.05
    with pytest.raises(TableError, match="no rotations"):
        rotation_effect(_rotated(0.0, 4).drop(columns="factor_block"))
