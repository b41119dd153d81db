"""The whole analysis on zoos of known truth: a negative slope, none, and Simpson's paradox; and tables that allow
little.
"""

from __future__ import annotations

import os
import re
import tempfile

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from invariscope.analysis import TableError, analyze, join, write_results
from invariscope.analysis.say.findings import Comparison, paradoxes
from invariscope.analysis.stats.cells import BY_CHECKPOINT, BY_OPERATOR, BY_RUN
from invariscope.analysis.stats.correlation import correlate
from invariscope.analysis.stats.primary import verdict
from invariscope.analysis.stats.regression import FractionalLogit, fit
from invariscope.collectors.schema import MSB_READINGS

SMALL = {"n_operators": 16, "seeds": 2, "epochs": (24.0,), "padding_modes": ("zeros",), "shift_kinds": ("zero",)}


@pytest.fixture(scope="module")
def zoos(simulate):
    """The results of three simulated zoos of 16 operators, by truth; without doses, which take the most time."""
    frames = {truth: simulate.simulate_frame(simulate.Zoo(truth=truth, **SMALL)) for truth in simulate.TRUTHS}
    options = {"scores": ["consistency"], "resamples": 300}
    return {truth: analyze(frame.drop(columns="strength"), **options) for truth, frame in frames.items()}


@pytest.fixture(scope="module")
def bundled_frame(simulate):
    """A zoo of the project's own 11 operators with snapshots and plain subsampling."""
    return simulate.simulate_frame(simulate.Zoo(seeds=2, padding_modes=("zeros",)))


@pytest.fixture(scope="module")
def bundled(bundled_frame):
    return analyze(bundled_frame, resamples=200)


def test_a_negative_slope_is_reported_so(zoos):
    results = zoos["negative"]
    primary = results.primary
    assert set(primary["role"]) == {"primary"}
    assert primary["statement"].tolist() == ["a", "b", "c"]
    assert set(primary["verdict"]) == {"negative"}
    slopes = primary[primary["statement"] != "a"]
    assert slopes["estimate"].between(-3, -2).all()
    line = next(line for line in results.summary.splitlines() if line.startswith("* Zero shifts: more"))
    assert line.endswith(
        "more MSB goes with less consistency: all 3 primary estimates are told from zero, on the same side, also after "
        "Holm's correction."
    )
    assert "Simpson" not in results.summary


def test_a_null_zoo_is_reported_as_null(zoos):
    results = zoos["null"]
    assert set(results.primary["verdict"]) == {"no difference from zero"}
    in_short = results.summary.split("## In short")[1].split("##")[0]
    assert "no relation between MSB and consistency is established: none of the 3 primary statements is" in in_short
    assert "Simpson" not in results.summary


def test_simpsons_paradox_is_named(zoos):
    results = zoos["simpson"]
    verdicts = results.primary.groupby("statement")["verdict"].unique().map(list).to_dict()
    assert verdicts == {"a": ["positive"], "b": ["positive"], "c": ["negative"]}
    in_short = results.summary.split("## In short")[1].split("##")[0]
    assert "**Simpson's paradox** under zero shifts" in in_short
    assert "This is **Simpson's paradox**" in results.summary.split("## What changes")[1].split("## What stays")[0]


def test_simpsons_paradox_needs_both_intervals_and_enough_clusters(zoos):
    table = zoos["simpson"].correlations
    assert paradoxes(table)["paradox"].all()
    unclear = table.copy()
    unclear.loc[unclear["method"] == "within_pearson", "high"] = 0.1
    assert not paradoxes(unclear)["paradox"].any()
    assert not paradoxes(table.assign(n_clusters=14))["paradox"].any()
    assert not paradoxes(zoos["negative"].correlations)["paradox"].any()


# At a true rate of 8 %, more than 3 of 10 and more than 6 of 30 happen once in 100 times or more rarely.
@pytest.mark.parametrize(("zoos", "most"), [(10, 3), pytest.param(30, 6, marks=pytest.mark.full)])
def test_false_positives_are_as_rare_as_stated(simulate, zoos, most):
    """Null zoos of 16 operators: the two primary statements that need no split, each at a nominal 5 %."""
    found = {"a": 0, "b": 0}
    for seed in range(zoos):
        frame = simulate.simulate_frame(simulate.Zoo("null", **{**SMALL, "seeds": 1}, seed=seed))
        row = fit(frame, FractionalLogit("b", "consistency", ("msb_corrected", "accuracy"))).set_index("term")
        row = row.loc["msb_corrected"]
        found["b"] += verdict(row["estimate"], row["low"], row["high"], row["n_clusters"]) != "no difference from zero"
        means = frame.groupby("operator", as_index=False)[["msb_corrected", "consistency"]].mean()
        options = {"methods": ["spearman"], "clusters": {"operators": "operator"}, "resamples": 500}
        row = correlate(means, ["msb_corrected"], ["consistency"], **options).iloc[0]
        found["a"] += verdict(row["r"], row["low"], row["high"], row["n_clusters"]) != "no difference from zero"
    assert max(found.values()) <= most


def test_what_rests_on_too_little_is_not_called_significant(bundled):
    """Eleven operators: (a) has a permutation test, slopes one where they rest on enough of the operators."""
    primary = bundled.primary[bundled.primary["role"] == "primary"]
    assert len(primary) == 12
    few = (primary["statement"] != "a") & (primary["df"] < 4)
    assert few.sum() >= 2
    assert ((primary["verdict"] == "too few clusters") == few).all()
    assert (primary["p"].isna() == few).all()
    by_permutation = primary[primary["statement"] == "a"]
    assert ((by_permutation["p"] < 0.05) == by_permutation["verdict"].isin(["negative", "positive"])).all()
    section = bundled.summary.split("## The primary statements")[1].split("## What changes")[0]
    assert section.count("no statement of significance") == few.sum()
    assert section.count("degrees of freedom, fewer than 4: an estimate") == few.sum()
    assert section.count("By permutation p = ") == 4
    assert bundled.headline[-1].strip().startswith(f"{few.sum()} of 12 primary statements cannot be tested")


def test_both_subsets_and_both_choices_of_snapshots_are_there(bundled, bundled_frame):
    counts = bundled.primary[bundled.primary["statement"] == "b"].set_index(["shift_kind", "subset", "snapshots"])["n"]
    assert len(counts) == 8
    for (kind, subset, snapshots), n in counts.items():
        rows = bundled_frame[bundled_frame["shift_kind"] == kind]
        rows = rows[rows["final"]] if snapshots == "final" else rows
        rows = rows[rows["operator"] != "subsample"] if subset == "without subsample" else rows
        assert n == len(rows)
    assert set(bundled.primary[bundled.primary["snapshots"] == "all"]["role"]) == {"secondary"}


def test_the_primary_numbers_are_the_plain_computation(bundled, bundled_frame):
    rows = bundled_frame[(bundled_frame["shift_kind"] == "zero") & bundled_frame["final"]]
    primary = bundled.primary.query("shift_kind == 'zero' and subset == 'all operators' and snapshots == 'final'")
    primary = primary.set_index("statement")
    means = rows.groupby("operator")[["msb_corrected", "consistency"]].mean()
    assert primary.loc["a", "estimate"] == pytest.approx(means.corr("spearman").iloc[0, 1], abs=1e-8)
    found = fit(rows, FractionalLogit("b", "consistency", ("msb_corrected", "accuracy"))).set_index("term")
    assert primary.loc["b", "estimate"] == pytest.approx(found.loc["msb_corrected", "estimate"], abs=1e-6)


def test_every_reading_score_method_and_interval_is_in_the_table(bundled):
    table = bundled.correlations
    cell = table.query("shift_kind == 'zero' and subset == 'all operators' and snapshots == 'final'")
    assert set(cell["x"]) == {*MSB_READINGS, "accuracy"}
    assert set(cell["y"]) == {"consistency", "consistency_to_clean", "fidelity", "kappa"}
    assert set(cell["method"]) == {
        *("pearson", "spearman", "kendall", "partial_pearson", "partial_spearman"),
        *("within_pearson", "within_partial_pearson"),
    }
    assert set(cell["level"]) == {"checkpoints", "operator means", "within operator"}
    defined = table["reason"] == ""
    assert table.loc[defined, ["r", "low", "high", "coverage"]].notna().all(axis=None)
    slopes = bundled.regressions[bundled.regressions["reason"] == ""]
    assert slopes["estimate"].notna().all()
    simulated = slopes[~slopes["model"].str.startswith("mixed")]
    assert simulated[["se", "low", "high", "coverage"]].notna().all(axis=None)


def test_holm_is_taken_over_the_primary_statements_that_may_be_leant_on(zoos, bundled):
    for truth, kept in (("negative", 3), ("null", 0)):
        primary = zoos[truth].primary
        assert primary["p"].notna().all()
        expected = multipletests(primary["p"], method="holm")[1]
        np.testing.assert_allclose(primary["p_holm"], expected, atol=1e-12)
        line = next(line for line in zoos[truth].summary.splitlines() if line.startswith("* Primary statements:"))
        assert f"{kept} of 3 are left after Holm's correction over all of them" in line
        assert f"One at a time {kept} have p < 0.05" in line
    few = bundled.primary["verdict"] == "too few clusters"
    assert few.any()
    assert bundled.primary.loc[few, ["p", "p_holm"]].isna().all(axis=None)
    tested = bundled.primary[~few & (bundled.primary["role"] == "primary")]
    np.testing.assert_allclose(tested["p_holm"], multipletests(tested["p"], method="holm")[1], atol=1e-12)
    assert f"of {len(tested)} are left after Holm's correction over all of them" in bundled.summary


def test_the_false_discovery_rate_is_taken_over_all_correlations_of_a_cluster_design(bundled):
    told = bundled.summary.split("## Many tests")[1]
    for design, family in bundled.correlations.groupby("interval"):
        known = family[family["p"].notna()]
        np.testing.assert_allclose(known["p_bh"], multipletests(known["p"], method="fdr_bh")[1], atol=1e-12)
        assert family.loc[family["p"].isna(), "p_bh"].isna().all()
        if design == BY_RUN:
            counts = [(known[name] < 0.05).sum() for name in ("p", "p_bh")]
            assert f"of {len(known)} permutation tests in the table {counts[1]} are left at the false" in told
            assert f"one at a time {counts[0]} have p < 0.05" in told
        if design == BY_OPERATOR:
            counts = [(known[name] < 0.05).sum() for name in ("p", "p_bh")]
            assert f"of {len(known)} permutation tests in the table {counts[1]} are left at the false" in told
            assert f"one at a time {counts[0]} have p < 0.05" in told


def test_correlations_of_dependent_snapshots_have_no_p_of_single_checkpoints(bundled):
    table = bundled.correlations.query("snapshots == 'all' and level == 'checkpoints'").set_index("interval")
    assert table.loc[[BY_CHECKPOINT, BY_RUN], "p"].isna().all()
    assert table.loc[BY_OPERATOR, "p"].notna().all()
    within = bundled.correlations.query("level == 'within operator'").set_index("interval")
    assert within.loc[BY_RUN, "p"].notna().all()


def test_simpsons_paradox_needs_as_many_operators_as_any_statement(simulate):
    few = {**SMALL, "n_operators": 5, "seeds": 3}
    frame = simulate.simulate_frame(simulate.Zoo(truth="simpson", **few)).drop(columns="strength")
    results = analyze(frame, resamples=50, permutations=99)
    table = paradoxes(results.correlations)
    assert (table["r_pooled"] > 0.5).all()
    assert (table["r_within"] < -0.5).all()
    assert not table["paradox"].any()
    assert "Simpson" not in results.summary
    assert "the other sign" in results.summary


def test_operator_means_are_over_the_networks_that_have_both_columns(tiny_frame):
    holes = tiny_frame.copy()
    lost = holes["operator_spec"].isin(["soft(beta=0)", "soft(beta=32)"])
    holes["msb_corrected"] = holes["msb_corrected"].where(~lost)
    holes.loc[lost, "consistency"] = 0.01
    found = analyze(holes, scores=["consistency"], resamples=20, permutations=0).correlations.query(
        "level == 'operator means' and method == 'spearman' and x == 'msb_corrected' and y == 'consistency' "
        "and subset == 'all operators'"
    )
    means = holes[~lost].groupby("operator")[["msb_corrected", "consistency"]].mean()
    assert found["r"].item() == pytest.approx(means.corr("spearman").iloc[0, 1], abs=1e-12)
    assert found["n_missing"].item() == lost.sum()


def test_numbers_in_the_summary_come_from_the_tables(bundled):
    row = bundled.primary.query("shift_kind == 'zero' and statement == 'b' and snapshots == 'final'").iloc[0]
    assert f"{row['estimate']:.2f} ({row['low']:.2f} to {row['high']:.2f}) logits" in bundled.summary
    row = bundled.correlations.query(
        "shift_kind == 'zero' and x == 'msb_top' and method == 'spearman' and y == 'consistency'"
    )
    row = row[
        (row["interval"] == BY_OPERATOR) & (row["subset"] == "all operators") & (row["snapshots"] == "final")
    ].iloc[0]
    assert f"`msb_top` {row['r']:.2f} ({row['low']:.2f} to {row['high']:.2f})" in bundled.summary


def test_the_headline_has_the_three_coefficients_with_intervals(bundled):
    for name in (
        "Spearman over operator means",
        "Pearson over",
        "Spearman over checkpoints",
        "Kendall",
        "given accuracy",
    ):
        lines = [line for line in bundled.headline if name in line]
        assert len(lines) == 2
        assert all(re.search(r"[+-]\d\.\d\d \[[+-]\d\.\d\d, [+-]\d\.\d\d\]  \d+ ", line) for line in lines)


@pytest.fixture(scope="module")
def tiny_frame(simulate):
    return simulate.simulate_frame(
        simulate.Zoo(seeds=1, epochs=(24.0,), padding_modes=("zeros",), shift_kinds=("zero",))
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.assign(msb_corrected=0.5), "msb_corrected is constant (0.5)"),
        (lambda f: f.assign(consistency=1.0), "consistency is constant (1)"),
        (lambda f: f.assign(**dict.fromkeys(MSB_READINGS, np.nan)), "0 rows with a value in both columns"),
        (lambda f: f[f["operator"] == "max"], "1 row with a value in both columns is fewer than 3"),
        (lambda f: f.assign(operator=None, operator_spec=None, architecture=None, run=None), "fewer than 3"),
        (lambda f: f.iloc[:2], "2 rows with a value in both columns are fewer than 3"),
        (lambda f: f[f["operator"] == "subsample"], "no statement about pooling operators alone"),
        (lambda f: f[f["operator"] != "subsample"], "the statements with and without it are the same"),
    ],
)
def test_tables_that_allow_little_say_so_without_warnings(tiny_frame, change, expected, recwarn):
    results = analyze(change(tiny_frame), scores=["consistency"], resamples=50)
    assert expected in results.summary
    assert "nan" not in results.summary
    assert not recwarn.list


def test_what_limits_the_tables_is_said_and_the_seed_decides_the_rest(tiny_frame):
    spoilt = tiny_frame.assign(n_shifts=5, n_sites_unmeasured=1.0, plan_hash=tiny_frame["checkpoint"])
    spoilt["accuracy"] = spoilt["accuracy"].where(spoilt["operator"] != "soft")
    results = analyze(spoilt, scores=["consistency"], resamples=50, permutations=99)
    for text in (
        "None of these measurements is of the kind fixed in advance",
        "22 checkpoints have sites without a number",
        "their plan hashes differ",
        "6 checkpoints lack MSB, consistency or accuracy",
    ):
        assert text in results.summary
    again = analyze(spoilt, scores=["consistency"], resamples=50, permutations=99)
    pd.testing.assert_frame_equal(again.correlations, results.correlations)
    assert again.summary == results.summary


def test_two_data_sets_are_apart_in_correlations_and_a_factor_in_regressions(simulate, tiny_frame):
    zoo = simulate.Zoo(
        seeds=1, epochs=(24.0,), padding_modes=("zeros",), shift_kinds=("zero",), data="shapes test", seed=1
    )
    both = pd.concat([tiny_frame, simulate.simulate_frame(zoo)], ignore_index=True)
    results = analyze(both, scores=["consistency"], resamples=50)
    assert set(results.correlations["data"]) == {"digits test", "shapes test"}
    assert set(results.regressions["data"]) == {"all data sets"}
    assert "data[shapes test]" in set(results.regressions["term"])
    assert results.primary["statement"].value_counts().to_dict() == {"a": 4, "b": 2, "c": 2}
    assert "Zero shifts on shapes test:" in results.summary


def test_two_plans_of_one_kind_are_apart(tiny_frame):
    pooling = tiny_frame[tiny_frame["operator"] != "subsample"]
    wide = pooling.assign(max_shift=8, plan_hash="wide")
    both = pd.concat([pooling, wide], ignore_index=True)
    results = analyze(both, scores=["consistency"], resamples=50)
    assert set(results.primary["max_shift"]) == {"4", "8"}
    assert results.summary.count("\n### Zero shifts (up to") == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.drop(columns="msb_top"), "lacks the columns msb_top"),
        (lambda f: f.assign(shift_kind="none"), "holds no shifts"),
        (lambda f: f.drop(columns=["consistency", "consistency_to_clean", "fidelity", "kappa"]), "none of the scores"),
        (
            lambda f: f.drop(columns="consistency"),
            "consistency is what the statements are on: have it",
        ),
    ],
)
def test_a_frame_that_cannot_be_analysed_is_refused_in_one_line(tiny_frame, change, message):
    with pytest.raises(TableError, match=message):
        analyze(change(tiny_frame))


def test_write_results_writes_whole_files(zoos, tmp_path):
    paths = write_results(zoos["null"], tmp_path / "results")
    tables = ["correlations", "regressions", "influence", "comparisons", "sites", "designs"]
    assert [path.name for path in paths] == [*(f"{name}.csv" for name in tables), "summary.md"]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == sorted(path.name for path in paths)
    read = pd.read_csv(paths[0], keep_default_na=False, na_values=[""])
    np.testing.assert_allclose(read["r"], zoos["null"].correlations["r"], atol=1e-12)
    assert paths[-1].read_text(encoding="utf-8") == zoos["null"].summary


def test_power_is_written_beside_the_results(zoos, tmp_path):
    table = pd.DataFrame({"level": ["between operators"], "power": [0.25]})
    paths = write_results(zoos["null"], tmp_path, table)
    assert paths[-1].name == "power.csv"
    pd.testing.assert_frame_equal(pd.read_csv(paths[-1]), table)


def test_a_failed_write_leaves_the_old_results_and_no_halves(zoos, tmp_path, monkeypatch):
    write_results(zoos["null"], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("tempfile.mkstemp", _second_fails(tempfile.mkstemp))
    with pytest.raises(TableError, match="cannot write results here"):
        write_results(zoos["negative"], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def _second_fails(make):
    made = []  # the second file finds no room; the first must not have taken its name by then

    def mkstemp(**options):
        made.append(options)
        if len(made) == 2:
            raise OSError(28, os.strerror(28))
        return make(**options)

    return mkstemp


def test_comparisons_tell_change_from_sameness(zoos):
    table = zoos["negative"].correlations
    cell = {name: table[name].iloc[0] for name in ("data", "shift_kind", "fill", "max_shift", "n_shifts", "plan")}
    flipped = table.copy()
    partial = flipped["method"] == "partial_spearman"
    flipped.loc[partial, ["r", "low", "high"]] = [0.4, 0.2, 0.6]
    for correlations, holds in ((table, True), (flipped, False)):
        findings = Comparison(cell, correlations, zoos["negative"].regressions).findings()
        found = next(finding for finding in findings if finding.text.startswith("Given accuracy,"))
        assert found.holds is holds
    assert "is 0.40 (0.20 to 0.60) instead of" in found.text
    assert "another conclusion" in found.text


def test_joined_tables_without_msb_still_give_accuracy_and_reasons(simulate):
    tables = simulate.simulate_tables(simulate.Zoo(seeds=1, epochs=(24.0,), shift_kinds=("zero",)))
    results = analyze(
        join(type(tables)(tables.checkpoints, tables.layers.iloc[:0], tables.invariance, tables.surface)), resamples=50
    )
    accuracy = results.correlations.query("x == 'accuracy' and level == 'checkpoints'")
    assert accuracy["r"].notna().all()
    assert results.correlations.query("x != 'accuracy'")["r"].isna().all()
