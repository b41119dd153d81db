"""Power: variance components against known ones, simulated tests against the analysis's own, and what is said."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis import TableError
from invariscope.analysis.say.power_findings import power_in_words
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.power import (
    ENOUGH,
    LEVELS,
    Components,
    Power,
    _critical,
    power,
    variance_components,
)
from invariscope.analysis.stats.primary import verdict

SMALL = Power(operators=(15, 40), runs=(3, 12), snapshots=(1,), simulations=200)


def _nested(rng, operators, runs, snapshots, x, y, r):
    """Rows of a nested design, one at a time: two columns with correlation r in each of their parts."""

    def pair(part):
        a, b = rng.normal(size=2)
        return np.array([np.sqrt(x[part]) * a, np.sqrt(y[part]) * (r * a + np.sqrt(1 - r * r) * b)])

    rows = []
    for operator in range(operators):
        of_operator = pair(0)
        for run in range(runs):
            of_run = of_operator + pair(1)
            for _ in range(snapshots):
                m, c = of_run + pair(2)
                rows.append((f"o{operator}", f"o{operator}|r{run}", m, c))
    return pd.DataFrame(rows, columns=["operator", "cluster", "msb_corrected", "consistency"])


def _as_joined(frame):
    plan = {"data": "d", "shift_kind": "zero", "fill": "mean", "max_shift": 4, "n_shifts": 9, "plan": "sampled"}
    return frame.assign(**plan)


def test_balanced_components_are_the_textbook_mean_squares():
    frame = _nested(np.random.default_rng(0), 8, 5, 4, (3, 2, 1), (1, 1, 1), 0)
    values = frame["msb_corrected"].to_numpy().reshape(8, 5, 4)
    within = values.var(axis=2, ddof=1).mean()
    run = values.mean(axis=2).var(axis=1, ddof=1).mean() - within / 4
    operator = values.mean(axis=(1, 2)).var(ddof=1) - run / 5 - within / 20
    found = variance_components(values.ravel(), frame["operator"].to_numpy(), frame["cluster"].to_numpy())
    assert found.parts == pytest.approx([operator, run, within], abs=1e-12)


def test_unbalanced_components_are_unbiased():
    rng, found = np.random.default_rng(1), []
    for _ in range(100):
        frame = _nested(rng, 10, 6, 3, (3, 2, 1), (1, 1, 1), 0)
        frame = frame[rng.permutation(len(frame)) % 5 < 3]
        values, operators, runs = (frame[name].to_numpy() for name in ("msb_corrected", "operator", "cluster"))
        found.append(variance_components(values, operators, runs).parts)
    error = np.std(found, axis=0) / np.sqrt(100)
    assert (np.abs(np.mean(found, axis=0) - [3, 2, 1]) < 4 * error).all()


def test_components_that_cannot_be_told_apart_are_zero():
    operators = np.repeat(np.arange(4), 3)
    once = variance_components(np.arange(12.0), operators, np.arange(12))
    assert once.snapshot == 0
    assert once.run == pytest.approx(1.0)
    assert variance_components(np.arange(4.0), np.arange(4), np.arange(4)) == Components(5 / 3, 0.0, 0.0)
    assert variance_components(np.tile([1.0, 2.0], 6), operators, np.arange(12) // 2).operator == 0.0


@pytest.mark.parametrize(
    ("level", "r", "method", "clusters"),
    [
        ("between operators", -0.5, "spearman", "operator"),
        ("within operators", -0.25, "within_pearson", "cluster"),
        ("over checkpoints", -0.3, "pearson", "operator"),
    ],
)
def test_the_simulated_power_is_that_of_the_analysis_itself(level, r, method, clusters):
    """100 data sets made row by row and tested by `correlate`, with the components that the power is found with."""
    frame = _nested(np.random.default_rng(2), 25, 4, 2, (1.0, 0.5, 0.2), (0.6, 0.8, 0.3), 0)
    table = power(_as_joined(frame), Power(r=r, operators=(30,), runs=(4,), snapshots=(1,)))
    row = table[(table["level"] == level) & (table["n_operators"] == 30)].iloc[0]
    operators, runs = frame["operator"].to_numpy(), frame["cluster"].to_numpy()
    x, y = (
        variance_components(frame[name].to_numpy(), operators, runs).parts for name in ("msb_corrected", "consistency")
    )
    if level == "over checkpoints":
        r = r * np.sqrt(x.sum() * y.sum()) / np.sqrt(x * y).sum()
    rng, hits = np.random.default_rng(3), 0
    permutations = 199 if level == "between operators" else 0
    options = {"methods": [method], "clusters": {"c": clusters}, "within": "operator", "permutations": permutations}
    for _ in range(100):
        rows = _nested(rng, 30, 4, 1, x, y, r)
        if level == "between operators":
            rows = rows.groupby("operator", as_index=False)[["msb_corrected", "consistency"]].mean()
        found = correlate(rows, ["msb_corrected"], ["consistency"], **options).iloc[0]
        numbers = found[["r", "low", "high", "n_clusters"]].to_numpy(dtype=float)
        hits += verdict(*numbers, p=found["p"]) == "negative"
    assert 0.3 < row["power"] < 0.95
    # Four standard errors of the difference, and 0.03 for ranks that the power's jackknife does not take anew.
    error = np.sqrt(row["se"] ** 2 + row["power"] * (1 - row["power"]) / 100)
    assert hits / 100 == pytest.approx(row["power"], abs=4 * error + 0.03)


def test_without_a_correlation_the_power_is_half_the_error_rate():
    frame = _nested(np.random.default_rng(4), 20, 6, 2, (1, 1, 1), (1, 1, 1), 0)
    table = power(_as_joined(frame), Power(r=-1e-9, operators=(40,), runs=(6,), snapshots=(1,), simulations=1000))
    found = table[(table["n_operators"] == 40) & (table["runs_per_operator"] == 6)]
    assert len(found) == 3
    # Four standard errors of 1,000 simulations round a rate of 2.5 %.
    assert found["power"].between(0.005, 0.045).all()


def test_power_grows_with_operators_and_the_smallest_design_is_marked():
    frame = _nested(np.random.default_rng(5), 11, 6, 2, (1, 0.2, 0.1), (1, 0.2, 0.1), 0)
    settings = Power(operators=(6, 30, 150), runs=(6,), snapshots=(1,), simulations=300)
    table = power(_as_joined(frame), settings)
    between = table[table["level"] == "between operators"].set_index("n_operators")
    assert between["power"].is_monotonic_increasing
    assert between["leant_on"].to_dict() == {6: False, 11: True, 30: True, 150: True}
    assert between["found"].to_dict() == {6: False, 11: True, 30: False, 150: False}
    assert between["smallest"].to_dict() == {6: False, 11: False, 30: False, 150: True}
    assert between.loc[150, "power"] > ENOUGH
    assert (between["n_checkpoints"] == between.index * 6).all()
    again = power(_as_joined(frame), settings)
    pd.testing.assert_frame_equal(again, table)
    line = power_in_words(table)[0]
    assert line.startswith("zero shifts up to 4 px, between operators: power 0.")
    assert "no simulated number of checkpoints suffices with 11 operators" in line
    assert line.endswith(f"150 operators x 6 runs = 900 checkpoints have {between.loc[150, 'power']:.2f}")


def test_inside_few_operators_many_runs_are_not_leant_on():
    frame = _nested(np.random.default_rng(8), 3, 60, 1, (1, 1, 1), (1, 1, 1), 0)
    table = power(_as_joined(frame), Power(operators=(15,), runs=(2, 60), snapshots=(1,), simulations=200))
    within = table[table["level"] == "within operators"].set_index(["n_operators", "runs_per_operator"])
    assert (within.loc[(3, 60), "n_clusters"], within.loc[(15, 2), "n_clusters"]) == (180, 30)
    assert within.loc[(3, 60), "power"] > ENOUGH
    assert within["leant_on"].to_dict() == {(3, 2): False, (3, 60): False, (15, 2): True, (15, 60): True}
    assert within.index[within["smallest"]].tolist() == [(15, 60)]
    line = power_in_words(table)[1]
    assert "within operators (secondary test with runs as clusters, not statement (c), which takes operators" in line
    assert "no number of checkpoints suffices, since 3 operators are fewer than 15" in line


def test_a_correlation_that_the_parts_cannot_give_has_a_reason():
    """MSB varies between operators, consistency between snapshots: over checkpoints hardly any r is possible."""
    frame = _nested(np.random.default_rng(9), 20, 20, 4, (1, 1e-4, 1e-4), (1e-4, 1e-4, 1), 0)
    operators, runs = frame["operator"].to_numpy(), frame["cluster"].to_numpy()
    x, y = (
        variance_components(frame[name].to_numpy(), operators, runs).parts for name in ("msb_corrected", "consistency")
    )
    most = sum(np.sqrt(a * b) for a, b in zip(x, y, strict=True)) / np.sqrt(sum(x) * sum(y))
    assert 0 < most < 0.3
    for r, possible in ((-0.3, False), (0.3, False), (-1.01 * most, False), (-0.99 * most, True)):
        table = power(_as_joined(frame), Power(r=r, operators=(15,), runs=(3,), snapshots=(1,), simulations=20))
        rows = table[table["level"] == "over checkpoints"]
        reason = f"r = {r:g} cannot arise from these parts: at most |r| = {most:.3g}"
        assert rows["reason"].unique().tolist() == ["" if possible else reason]
        assert rows["power"].notna().all() == possible
        assert (f"over checkpoints: no power ({reason})" in power_in_words(table)[-1]) != possible


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"msb_corrected": 0.5}, {"MSB does not vary between operators", "MSB does not vary inside operators"}),
        ({"consistency": np.nan}, {"0 operators with MSB and consistency are fewer than 2"}),
        ({"operator": "max"}, {"1 operator with MSB and consistency is fewer than 2"}),
    ],
)
def test_no_power_has_a_reason(change, reasons, recwarn):
    frame = _nested(np.random.default_rng(6), 6, 3, 1, (1, 1, 1), (1, 1, 1), 0)
    table = power(_as_joined(frame.assign(**change)), SMALL)
    assert set(table["level"]) == set(LEVELS)
    assert table["power"].isna().all()
    assert reasons <= set(table["reason"])
    assert all("no power (" in line for line in power_in_words(table))
    assert not recwarn.list


def test_the_critical_correlation_is_that_of_all_permutations():
    """Against every one of the 5,040 orders of seven ranks."""
    ranks = np.arange(7) - 3
    sizes = np.abs([np.dot(ranks, order) / 28 for order in itertools.permutations(ranks)])
    smallest = min(size for size in np.unique(sizes.round(9)) if np.mean(sizes >= size - 1e-9) < 0.05)
    assert _critical(7) == pytest.approx(smallest)
    assert _critical(4) == 2.0


def test_inside_operators_the_cells_are_taken_out():
    """Paddings that move both columns together are no part of the runs' variances, and hide no correlation."""
    frame = _nested(np.random.default_rng(10), 20, 8, 1, (1, 0.2, 0), (1, 0.2, 0), 0)
    padding = frame.groupby("operator").cumcount() % 2
    moved = frame.assign(padding_mode=padding.map(str), architecture="a")
    moved[["msb_corrected", "consistency"]] += 5.0 * padding.to_numpy()[:, None]
    settings = Power(operators=(20,), runs=(8,), snapshots=(1,), simulations=300)
    rows = [
        table[table["level"] == "within operators"].iloc[0]
        for table in (power(_as_joined(one), settings) for one in (moved, frame))
    ]
    assert rows[0]["n_clusters"] == rows[1]["n_clusters"] == 160
    assert rows[0]["power"] == pytest.approx(rows[1]["power"], abs=0.12)
    assert rows[0]["power"] > 0.8


def test_a_frame_without_shifts_or_columns_is_refused():
    frame = _as_joined(_nested(np.random.default_rng(7), 4, 2, 1, (1, 1, 1), (1, 1, 1), 0))
    with pytest.raises(TableError, match="power: the frame lacks the columns cluster"):
        power(frame.drop(columns="cluster"))
    with pytest.raises(TableError, match="power: the frame holds no shifts"):
        power(frame.assign(shift_kind="none"))
