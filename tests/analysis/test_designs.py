"""Doses and swaps: numbers against scipy, statsmodels and plain loops, truths of simulations found again, and words."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from scipy import stats

from invariscope.analysis import TableError, analyze, join, load
from invariscope.analysis.designs import COLUMNS, dose_trends, swap_changes
from invariscope.analysis.designs.common import clustered_fit
from invariscope.analysis.designs.dose import families as dose_families
from invariscope.analysis.designs.swaps import POOLING, SINGLE
from invariscope.analysis.say.design_findings import design_sections
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.tables.load import Tables
from invariscope.analysis.tables.swapped import EVERY, swap_frame


@pytest.fixture(scope="module")
def tables(simulate: ModuleType) -> Tables:
    return simulate.simulate_tables(simulate.Zoo(seeds=2, epochs=(8.0,), swap_slope=-0.2))


@pytest.fixture(scope="module")
def joined(tables: Tables) -> pd.DataFrame:
    return join(tables)


@pytest.fixture(scope="module")
def doses(joined: pd.DataFrame) -> pd.DataFrame:
    return dose_trends(joined)


@pytest.fixture(scope="module")
def swaps(tables: Tables) -> pd.DataFrame:
    return swap_frame(tables)


@pytest.fixture(scope="module")
def changes(swaps: pd.DataFrame) -> pd.DataFrame:
    return swap_changes(swaps, resamples=199)


def pick(table: pd.DataFrame, **where: object) -> pd.Series:
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, (where, len(table))
    return table.iloc[0]


def t_interval(values: np.ndarray) -> tuple[float, float, float]:
    mean = values.mean()
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return mean, mean - half, mean + half


def families(joined: pd.DataFrame, kind: str, operator: str) -> dict[tuple, pd.DataFrame]:
    rows = joined[joined["final"] & (joined["shift_kind"] == kind) & (joined["operator"] == operator)]
    return {key: part.sort_values("strength") for key, part in rows.groupby(["padding_mode", "seed"])}


@pytest.mark.parametrize(("kind", "operator"), [("circular", "soft"), ("zero", "lp")])
def test_doses_are_what_plain_loops_give(joined: pd.DataFrame, doses: pd.DataFrame, kind: str, operator: str) -> None:
    found = families(joined, kind, operator)
    assert len(found) == 4
    for y in ("msb_corrected", "accuracy", "consistency", "fidelity"):
        where = {"operator": operator, "shift_kind": kind, "y": y}
        rho = np.array([stats.spearmanr(part["strength"], part[y]).statistic for part in found.values()])
        row = pick(doses, **where, statistic="trend")
        wanted = np.clip(t_interval(rho), -1, 1)
        if np.ptp(rho) < 1e-12:
            assert row["reason"] == "no interval: all clusters are equal"
            wanted[1:] = np.nan
        assert row[["estimate", "low", "high"]].tolist() == pytest.approx(wanted.tolist(), abs=1e-12, nan_ok=True)
        assert (row["n_clusters"], row["n"], row["n_missing"]) == (4, sum(map(len, found.values())), 0)
        ends = np.array([part[y].iloc[-1] - part[y].iloc[0] for part in found.values()])
        row = pick(doses, **where, statistic="end to end")
        assert row[["estimate", "low", "high"]].tolist() == pytest.approx(t_interval(ends), abs=1e-12)
        shares = doses[(doses[list(where)] == pd.Series(where)).all(axis=1) & (doses["statistic"] == "share reached")]
        clear = row["low"] * row["high"] > 0
        assert shares["estimate"].notna().all() == clear
        for position, share in enumerate(shares.to_dict("records"), start=1):
            if not clear:
                assert share["reason"] == "the change from end to end is not clear of zero"
                continue
            parts = np.array([part[y].iloc[position] - part[y].iloc[0] for part in found.values()])
            without = [np.delete(parts, i).mean() / np.delete(ends, i).mean() for i in range(4)]
            half = stats.t.ppf(0.975, 3) * np.sqrt(3 / 4 * ((without - np.mean(without)) ** 2).sum())
            estimate = parts.mean() / ends.mean()
            assert share["strength"] == next(iter(found.values()))["strength"].iloc[position]
            assert [share[name] for name in ("estimate", "low", "high")] == pytest.approx(
                [estimate, estimate - half, estimate + half], abs=1e-12
            )


def test_scores_follow_msb_inside_the_families(joined: pd.DataFrame, doses: pd.DataFrame) -> None:
    found = families(joined, "circular", "soft")
    rho = np.array([stats.spearmanr(part["msb_corrected"], part["consistency"]).statistic for part in found.values()])
    row = pick(doses, operator="soft", shift_kind="circular", y="consistency", statistic="rank correlation")
    assert row["estimate"] == pytest.approx(rho.mean(), abs=1e-12)
    rows = pd.concat([part.assign(family=index) for index, part in enumerate(found.values())])
    for given in ("", "accuracy"):
        row = pick(doses, operator="soft", shift_kind="circular", y="consistency", statistic="slope", given=given)
        formula = f"consistency ~ msb_corrected + C(family){' + accuracy' if given else ''}"
        fit = smf.ols(formula, rows).fit()
        assert row["estimate"] == pytest.approx(fit.params["msb_corrected"], abs=1e-10)
        # The same sandwich by hand, of the centred columns.
        names = ["msb_corrected", *([given] if given else [])]
        centred = rows[names] - rows.groupby("family")[names].transform("mean")
        bread = np.linalg.inv(centred.T @ centred)
        scores = [part.T @ fit.resid[rows["family"] == f] for f, part in centred.groupby(rows["family"])]
        meat = sum(np.outer(score, score) for score in scores)
        n, k, groups = len(rows), len(names), 4
        se = np.sqrt((bread @ meat @ bread)[0, 0] * groups / (groups - 1) * (n - 1) / (n - k))
        assert row["high"] - row["estimate"] == pytest.approx(stats.t.ppf(0.975, 3) * se, rel=1e-9)


def test_incomplete_families_are_counted_and_other_runs_left_alone(joined: pd.DataFrame) -> None:
    joined = joined[joined["operator"].isin(["soft", "max"]) & (joined["shift_kind"] == "circular")]
    hit = (joined["operator"] == "soft") & (joined["seed"] == 0) & (joined["padding_mode"] == "zeros")
    lost = joined.copy()
    lost.loc[hit & (joined["strength"] == 2), "consistency"] = np.inf
    found = dose_trends(lost)
    where = {"operator": "soft", "shift_kind": "circular", "statistic": "trend"}
    row = pick(found, **where, y="consistency")
    assert (row["n_clusters"], row["n_missing"]) == (3, 1)
    assert pick(found, **where, y="accuracy")["n_clusters"] == 4
    alone = joined[~hit | (joined["strength"] == 2)]
    assert pick(dose_trends(alone), **where, y="consistency")["n_missing"] == 0  # one strength is no family
    constant = dose_trends(joined.assign(consistency=0.5))
    row = pick(constant, **where, y="consistency")
    assert "constant in every family" in row["reason"]
    slope = constant[(constant["statistic"] == "slope") & (constant["y"] == "consistency")]
    assert (slope["estimate"].abs() < 1e-12).all()
    nothing = dose_trends(joined.assign(consistency=np.nan))
    row = pick(nothing, **where, y="consistency")
    assert row["reason"] == "no family has a finite consistency at all 6 strengths"
    assert dose_trends(joined[joined["operator"] == "max"]).empty
    with pytest.raises(TableError, match="strength"):
        dose_trends(joined.drop(columns="strength"))


def test_runs_that_differ_in_more_than_the_strength_are_other_families(joined: pd.DataFrame) -> None:
    rows = joined[(joined["operator"] == "soft") & (joined["shift_kind"] == "zero")].reset_index(drop=True)
    wide = rows.assign(factor_width=16, consistency=rows["consistency"] + 0.2 * (rows["strength"] == 32))
    where = {"statistic": "end to end", "y": "consistency"}
    alone, wider = (pick(dose_trends(frame), **where) for frame in (rows, wide))
    row = pick(dose_trends(pd.concat([rows, wide], ignore_index=True)), **where)
    assert (row["n_clusters"], row["n"], row["n_missing"]) == (8, 48, 0)
    assert row["estimate"] == pytest.approx((alone["estimate"] + wider["estimate"]) / 2)
    # Width 8 at low and 16 at high strengths of seed 0, as of no other seed: 2 paddings x (2 seeds + 1).
    split = rows.assign(factor_width=np.where((rows["seed"] == 0) & (rows["strength"] > 1), 16, 8))
    assert dose_families(split).nunique() == 6
    assert pick(dose_trends(split), **where)["n_clusters"] == 2
    # What the strength determines tells no families apart; what cannot be hashed does.
    told = rows.assign(factor_note=rows["strength"].map(lambda beta: [beta]))
    assert dose_families(told).nunique() == 4
    lists = rows.assign(factor_note=[[run % 2] for run in range(len(rows))])
    assert dose_families(lists).nunique() == len(
        rows[["padding_mode", "seed"]].assign(note=np.arange(len(rows)) % 2).drop_duplicates()
    )
    # So do further arguments of the operator, wherever the strength stands among them.
    specs = {"soft(beta={:g})": 0.0, "soft(beta={:g}, hard=true)": 0.1, "soft(size=2, beta={:g})": 0.3}
    other = [
        rows.assign(operator_spec=rows["strength"].map(spec.format), consistency=rows["consistency"] * (1 - less))
        for spec, less in specs.items()
    ]
    row = pick(dose_trends(pd.concat(other, ignore_index=True)), **where)
    assert (row["n_clusters"], row["n"]) == (12, 72)
    assert row["estimate"] == pytest.approx(alone["estimate"] * (1 + 0.9 + 0.7) / 3)


def test_the_frame_holds_every_swap(tables: Tables, swaps: pd.DataFrame) -> None:
    rows = tables.swaps
    shifted = rows[rows["shift_kind"] != "none"]
    keys = ["sha256", "depth", "replacement", "shift_kind"]
    assert len(swaps) == len(shifted[keys].drop_duplicates())
    first = swaps.iloc[100]
    same = rows[(rows["sha256"] == first["sha256"]) & (rows["replacement"] == first["replacement"])]
    same = same[same["depth"].fillna(-1) == (-1 if np.isnan(first["depth"]) else first["depth"])]
    for measure in ("consistency", "kappa", "accuracy", "msb_corrected"):
        kind = first["shift_kind"] if measure in ("consistency", "kappa") else "none"
        row = pick(same, measure=measure, shift_kind=kind, scope="network")
        for column, name in (("change", measure), ("se", f"{measure}_se"), ("before", f"{measure}_before")):
            assert first[name] == row[column]
    assert set(swaps["sites"]) == {"first site", "middle sites", "last site", EVERY}
    assert (swaps.loc[swaps["depth"] == 2, "sites"] == "last site").all()
    assert swaps.loc[swaps["sites"] == EVERY, "msb_corrected_site"].isna().all()
    described = tables.checkpoints.set_index("checkpoint")["operator"]
    assert (swaps["operator"] == swaps["checkpoint"].map(described)).all()


def test_earlier_snapshots_take_no_part(swaps: pd.DataFrame, changes: pd.DataFrame) -> None:
    swaps = swaps[swaps["shift_kind"] == "zero"]
    first = swaps["checkpoint"] == swaps["checkpoint"].iloc[0]
    found = swap_changes(swaps.assign(final=~first), scores=("consistency",), resamples=2)
    where = {"shift_kind": "zero", "sites": SINGLE, "y": "consistency", "statistic": "spearman"}
    lost = (first & (swaps["shift_kind"] == "zero") & swaps["depth"].notna()).sum()
    assert lost > 0
    assert pick(found, **where)["n"] == pick(changes, **where)["n"] - lost


def test_swaps_are_correlated_as_correlate_does(swaps: pd.DataFrame, changes: pd.DataFrame) -> None:
    rows = swaps[(swaps["shift_kind"] == "zero") & swaps["depth"].notna()]
    x, y = "msb_corrected_site", "consistency"
    for method, given in (("pearson", ""), ("spearman", ""), ("partial_pearson", "accuracy")):
        options = {"covariates": [given] if given else [], "clusters": {"c": "cluster"}, "resamples": 199}
        wanted = correlate(rows, [x], [y], methods=(method,), **options).iloc[0]
        row = pick(changes, shift_kind="zero", sites=SINGLE, y=y, statistic=method, given=given)
        assert row[["estimate", "low", "high"]].tolist() == wanted[["r", "low", "high"]].tolist()
        assert row["n_clusters"] == rows["cluster"].nunique()
    assert pick(changes, shift_kind="zero", sites=SINGLE, y=y, statistic="spearman")["estimate"] == pytest.approx(
        stats.spearmanr(rows[x], rows[y]).statistic
    )


@pytest.mark.parametrize("sites", [SINGLE, POOLING, "first site", "soft sites", EVERY])
def test_slopes_signs_and_means(swaps: pd.DataFrame, changes: pd.DataFrame, sites: str) -> None:
    rows = swaps[swaps["shift_kind"] == "circular"]
    single = rows["depth"].notna()
    chosen = {
        SINGLE: single,
        POOLING: single & (rows["replacement"] != "subsample") & (rows["site_kind"] != "subsample"),
        "first site": rows["depth"] == 0,
        "soft sites": single & (rows["operator"] == "soft"),
        EVERY: ~single,
    }[sites]
    rows, x = rows[chosen], "msb_corrected" if sites == EVERY else "msb_corrected_site"
    where = {"shift_kind": "circular", "sites": sites, "y": "consistency"}
    groups = pd.factorize(rows["cluster"])[0]
    for given in ("", "accuracy"):
        fit = smf.ols(f"consistency ~ {x}{' + accuracy' if given else ''}", rows).fit(
            cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
        )
        row = pick(changes, **where, statistic="slope", given=given)
        assert row[["estimate", "low", "high"]].tolist() == pytest.approx(
            [fit.params[x], *fit.conf_int().loc[x]], rel=1e-9
        )
    opposite = [a * b < 0 for a, b in zip(rows[x], rows["consistency"], strict=True) if a * b != 0]
    row = pick(changes, **where, statistic="opposite signs")
    assert row["estimate"] == pytest.approx(np.mean(opposite))
    for y in (x, "accuracy", "consistency"):
        for replacement in ("", "max"):
            part = rows[rows["replacement"] == replacement] if replacement else rows
            row = pick(changes, **{**where, "y": y}, statistic="mean change", replacement=replacement)
            mean = smf.ols(f"{y} ~ 1", part).fit(
                cov_type="cluster", cov_kwds={"groups": pd.factorize(part["cluster"])[0]}, use_t=True
            )
            assert row[["estimate", "low", "high"]].tolist() == pytest.approx(
                [part[y].mean(), *mean.conf_int().iloc[0]], rel=1e-9
            )
            assert row["n"] == len(part)


def test_the_truth_of_a_simulation_is_found(simulate: ModuleType) -> None:
    """The slope given accuracy is the simulated one: 95 % intervals hold it in 17 of 20 simulations or more."""
    held = []
    for seed in range(20):
        zoo = simulate.Zoo(
            seeds=1, epochs=(8.0,), padding_modes=("zeros",), shift_kinds=("zero",), swap_slope=-0.15, seed=seed
        )
        frame = swap_frame(simulate.simulate_tables(zoo))
        rows = frame[frame["depth"] == 1]
        columns = [rows[name].to_numpy() for name in ("msb_corrected_site", "accuracy")]
        fit = clustered_fit(rows["consistency"].to_numpy(), columns, rows["cluster"].to_numpy())
        held.append(fit["low"] <= -0.15 <= fit["high"])
    assert np.mean(held) >= 0.85


def test_swaps_that_failed_or_have_no_number_are_counted(tables: Tables) -> None:
    rows = tables.swaps.copy()
    bad = (rows["replacement"] == "avg") & (rows["depth"] == 0) & (rows["shift_kind"] == "circular")
    numbers = ["after", "change", "se", "low", "high"]
    rows.loc[bad, numbers] = np.nan
    rows.loc[bad, "reason"] = "after the change: it broke"
    frame = swap_frame(dataclasses.replace(tables, swaps=rows))
    frame = frame[frame["operator"].isin(["soft", "max"])]
    bad &= rows["sha256"].isin(frame["sha256"])
    broken = frame[(frame["replacement"] == "avg") & (frame["depth"] == 0)]
    assert set(broken.loc[broken["shift_kind"] == "circular", "reason"]) == {"after the change: it broke"}
    assert set(broken.loc[broken["shift_kind"] == "zero", "reason"]) == {""}
    found = swap_changes(frame, scores=("consistency",), resamples=2)
    lost = int(bad.sum() / 3)  # consistency, fidelity, kappa
    for statistic in ("spearman", "opposite signs"):
        row = pick(found, shift_kind="circular", sites=SINGLE, y="consistency", statistic=statistic)
        assert row["n_missing"] == lost
    row = pick(found, shift_kind="circular", sites="first site", y="consistency", replacement="avg")
    assert (row["n"], row["reason"]) == (0, "0 rows are too few")


@pytest.mark.parametrize("case", ["constant", "one network", "two rows", "infinite"])
def test_swap_frames_without_numbers_say_why(swaps: pd.DataFrame, case: str) -> None:
    swaps = swaps[swaps["operator"].isin(["soft", "max"]) & (swaps["shift_kind"] == "zero")]
    first = swaps["checkpoint"].iloc[0]
    edited = {
        "constant": swaps.assign(consistency=0.0, msb_corrected_site=0.0),
        "one network": swaps[swaps["checkpoint"] == first],
        "two rows": swaps[swaps["depth"].notna()].groupby("shift_kind").head(2),
        "infinite": swaps.assign(consistency=np.inf),
    }[case]
    found = swap_changes(edited, scores=("consistency",), resamples=20)
    rows = found[(found["sites"] == SINGLE) & (found["y"] == "consistency")]
    assert len(rows)
    silent = rows[rows["estimate"].isna() & (rows["reason"] == "")]
    assert silent.empty
    assert list(found.columns) == COLUMNS
    told = "".join(design_sections(found))
    assert ("Swaps, single sites** (zero shifts up to 4 px on digits test): no number (" in told) == (
        case != "one network"
    )


def test_bad_tables_of_swaps_are_one_line(tables: Tables) -> None:
    twice = dataclasses.replace(tables, swaps=pd.concat([tables.swaps, tables.swaps.assign(n_images=50)]))
    with pytest.raises(TableError, match=r"two measurements of .* collect each setting into a folder"):
        swap_frame(twice)
    gone = dataclasses.replace(tables, checkpoints=tables.checkpoints.iloc[1:])
    with pytest.raises(TableError, match="not in table checkpoints"):
        swap_frame(gone)
    none = dataclasses.replace(tables, swaps=tables.swaps.iloc[:0])
    assert swap_changes(swap_frame(none)).empty


def test_swaps_that_are_all_opposite_say_how_many_may_not_be(swaps: pd.DataFrame) -> None:
    swaps = swaps[swaps["operator"].isin(["soft", "max"]) & (swaps["shift_kind"] == "zero")]
    msb = np.where(np.arange(len(swaps)) % 2, 0.1, -0.1)
    found = swap_changes(swaps.assign(msb_corrected_site=msb, consistency=-msb), scores=("consistency",), resamples=2)
    row = pick(found, sites=SINGLE, y="consistency", statistic="opposite signs")
    assert row["n_clusters"] > 3
    assert row[["estimate", "low", "high"]].tolist() == [1.0, 1 - 3 / row["n_clusters"], 1.0]


def test_equal_families_have_no_interval(joined: pd.DataFrame) -> None:
    rows = joined[(joined["operator"] == "soft") & (joined["shift_kind"] == "zero")]
    table = dose_trends(rows.assign(consistency=0.9 - 0.1 * rows["strength"].rank(method="dense")))
    found = table[(table["y"] == "consistency") & table["low"].isna()].set_index("statistic")
    reason = "no interval: all clusters are equal"
    for statistic, estimate in (("end to end", -0.5), ("trend", -1.0)):
        assert found.loc[statistic, "estimate"] == pytest.approx(estimate)
        assert found.loc[statistic, "reason"] == reason
    shares = found.loc["share reached"]
    assert set(shares["reason"]) == {f"the change from end to end has {reason}"}
    assert f"consistency changes by -0.50 ({reason})" in "".join(design_sections(table))
    # Families that differ in size alone have the same shares.
    steps = rows["strength"].rank(method="dense") - 1
    table = dose_trends(rows.assign(consistency=0.9 - 0.01 * steps * (1 + 0.1 * rows["seed"])))
    shares = table[(table["statistic"] == "share reached") & (table["y"] == "consistency")]
    assert shares["estimate"].tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert set(shares["reason"]) == {reason}
    assert shares[["low", "high"]].isna().all(axis=None)


def test_sentences_hold_the_numbers(doses: pd.DataFrame, changes: pd.DataFrame) -> None:
    text = "\n".join(design_sections(pd.concat([doses, changes])))
    row = pick(doses, operator="soft", shift_kind="circular", y="consistency", statistic="end to end")
    assert f"consistency changes by {row['estimate']:.2f} ({row['low']:.2f} to {row['high']:.2f})" in text
    assert "Fewer than 15 families: estimates, no statement of significance." in text
    assert "Page" not in text  # no p-value below 15 families
    row = pick(changes, shift_kind="zero", sites=SINGLE, y="consistency", statistic="spearman")
    assert f"There are {int(row['n'])} swaps in {int(row['n_clusters'])} networks, weights kept." in text
    wanted = f"Spearman correlation of {row['estimate']:.2f} ({row['low']:.2f} to {row['high']:.2f}). Given the change"
    assert wanted in text
    partial = pick(changes, shift_kind="zero", sites=SINGLE, y="consistency", statistic="partial_spearman")
    assert f"(coverage {row['coverage']:.2f} and {partial['coverage']:.2f})" in text
    assert "a rise of MSB goes with less consistency" in text
    assert text.count("What a swap cannot show") == 1
    few = changes.assign(n_clusters=10)
    told = "\n".join(design_sections(few))
    assert "exclude" not in told
    assert "Fewer than 15 networks: estimates, no statement of significance." in told
    assert design_sections(doses.iloc[:0]) == []


def test_analyze_holds_both_designs(simulate: ModuleType, tables: Tables, tmp_path: Path) -> None:
    from invariscope.analysis import write_results

    tables = load(simulate.write_tables(tables, tmp_path / "tables"))
    frame = join(tables)
    frame = frame[frame["operator"].isin(["soft", "max"]) & (frame["shift_kind"] == "zero")]
    swaps = swap_frame(tables)
    results = analyze(frame, swaps=swaps[swaps["shift_kind"] == "zero"], resamples=20)
    assert set(results.designs["design"]) == {"dose", "swap"}
    assert "## Designs beyond correlation" in results.summary
    names = {path.name for path in write_results(results, tmp_path / "results")}
    assert "designs.csv" in names
    stored = pd.read_csv(tmp_path / "results" / "designs.csv")
    assert stored["estimate"].to_numpy() == pytest.approx(results.designs["estimate"].to_numpy(float), nan_ok=True)
