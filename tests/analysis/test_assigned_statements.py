"""The statements of studies with assigned MSB: what they say of zoos whose truth is known, and by which rules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis import analyze, write_results
from invariscope.analysis.designs.assigned import MSB, POPULATION, SELECTIVITY, Settings
from invariscope.analysis.designs.assigned_statements import COLUMNS, statements
from invariscope.analysis.designs.simulated import (
    SimulatedDesign,
    Truth,
    outcomes,
    population_factors,
    rotation_factors,
    simulate_study,
)
from invariscope.analysis.designs.verdicts import causes, is_primary_plan, judged
from invariscope.analysis.stats.permutation import holm
from invariscope.base.errors import TableError

SETTINGS = Settings(draws=199, resamples=99)
STUDY = SimulatedDesign()
SMALL = SimulatedDesign(cells=("a", "b"), draws=48, blocks=12)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return simulate_study(Truth("MSB", msb=-2), SMALL, 1)


@pytest.fixture(scope="module")
def table(frame: pd.DataFrame) -> pd.DataFrame:
    return statements(frame, SETTINGS)


@pytest.mark.parametrize(
    ("truth", "right"),
    [
        (Truth("MSB", msb=-1), "msb"),
        (Truth("selectivity", selectivity=-1), "selectivity"),
        (Truth("equivariance error", see=-5), "aliasing"),
        (Truth("other ranks", ranks=(1.1, -0.6, -0.5)), "nothing"),
        (Truth("nothing"), "nothing"),
    ],
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Truth) else value,
)
def test_the_right_cause_is_named_at_the_size_of_the_study(truth: Truth, right: str) -> None:
    """The long form, with the shares that it found, is `python -m benchmarks.assigned`."""
    found = outcomes(truth, STUDY, range(3), SETTINGS)
    assert set(found["named"]) == {right}
    assert found["false_claim"].all() == (right != "nothing")


def test_a_raw_correlation_is_named_as_the_doing_of_selectivity() -> None:
    found = outcomes(Truth("selectivity", selectivity=-2), replace(STUDY, residual=0.4), range(2), SETTINGS)
    assert (found["estimate_2"] < -0.1).all()
    assert (found["p_holm_2"] <= 0.05).all()
    assert set(found["named"]) == {"selectivity"}


def test_msb_that_acts_by_way_of_the_equivariance_error_is_told_so() -> None:
    frame = simulate_study(Truth("none"), replace(STUDY, rotated=0.3, residual=0.3), 2)
    rng = np.random.default_rng(3)
    chance = 1 / (1 + np.exp(-(1 - 3 * (see := frame["see"] + 0.4 * frame[MSB]) + rng.normal(0, 0.3, len(frame)))))
    found = causes(statements(frame.assign(see=see, consistency=chance), SETTINGS, brief=True))
    assert found["named"].tolist() == ["msb and aliasing"] * 2
    assert found["mediated"].all()


def test_without_see_selectivity_is_judged_and_aliasing_is_not() -> None:
    frame = simulate_study(Truth("selectivity", selectivity=-2), STUDY, 4).drop(columns="see")
    table = statements(frame, SETTINGS, brief=True)
    assert causes(table)["named"].tolist() == ["selectivity"] * 2
    assert table.loc[table["statement"] == "4", "note"].unique().tolist() == ["see was not measured"]


def test_every_statement_has_its_rows(table: pd.DataFrame) -> None:
    assert list(table.columns) == COLUMNS
    assert table["statement"].unique().tolist() == ["1", "2", "3", "4", "ceiling"]
    primary = table[table["role"] == "primary"]
    assert primary[["statement", "shift_kind"]].to_numpy().tolist() == [
        ["1", "circular"],
        ["2", "circular"],
        ["1", "zero"],
        ["2", "zero"],
    ]
    assert primary["p_holm"].tolist() == holm(primary["p"]).tolist()
    assert table.loc[table["role"] == "secondary", "p_holm"].isna().all()
    assert (primary["verdict"] == "below zero").all()
    cells = table[(table["statement"] == "3") & (table["quantity"] == "slope of msb")]
    assert cells["cell"].tolist() == ["pooled", "a/smallcnn", "b/smallcnn"] * 2
    assert cells["p_equivalent"].notna().tolist() == [True, False, False] * 2
    assert table.loc[table["estimate"].isna(), "note"].ne("").all()


def test_what_is_brief_has_the_numbers_of_the_whole(frame: pd.DataFrame, table: pd.DataFrame) -> None:
    keys = ["statement", "quantity", "shift_kind", "cell"]
    brief = statements(frame, SETTINGS, brief=True).set_index(keys)
    whole = table.set_index(keys).loc[brief.index]
    for column in ("estimate", "se", "low", "high", "p_holm"):
        assert brief[column].tolist() == pytest.approx(whole[column].tolist(), nan_ok=True)
    assert causes(table).equals(causes(brief.reset_index()))


def test_the_primary_plan_has_the_smallest_shift_and_the_background(frame: pd.DataFrame) -> None:
    more = [frame.assign(max_shift=8), frame[frame["shift_kind"] == "zero"].assign(fill="mean", max_shift=2)]
    plans = pd.concat([frame, *more, frame.assign(n_shifts=5, max_shift=3)]).drop_duplicates(
        ["shift_kind", "fill", "max_shift", "n_shifts"]
    )
    kept = plans[is_primary_plan(plans)]
    kept = kept.drop_duplicates(["shift_kind", "fill", "max_shift"])
    assert kept[["shift_kind", "max_shift", "n_shifts"]].to_numpy().tolist() == [["circular", 4, 9], ["zero", 4, 9]]


def test_the_primary_plan_is_each_data_sets_own(frame: pd.DataFrame, table: pd.DataFrame) -> None:
    """Images of 32 and of 64 pixels, an eighth and a quarter of each: the eighths are pooled, as at one size."""
    eighth = frame.assign(max_shift=frame["data"].map({"a": 4, "b": 8}))
    noise = np.random.default_rng(0).uniform(0.5, 0.9, len(frame))
    quarter = eighth.assign(max_shift=2 * eighth["max_shift"], consistency=noise)
    both = pd.concat([quarter, eighth], ignore_index=True)
    assert both[is_primary_plan(both)].groupby("data")["max_shift"].unique().map(list).to_dict() == {"a": [4], "b": [8]}
    found = statements(both, SETTINGS, brief=True)
    first = found[is_primary_plan(found)]
    whole = table.set_index(["statement", "quantity", "shift_kind", "cell"])
    for row in first.to_dict("records"):
        expected = whole.loc[(row["statement"], row["quantity"], row["shift_kind"], row["cell"])]
        assert row["estimate"] == pytest.approx(expected["estimate"], nan_ok=True)
        assert (row["max_shift"], row["most_shift"]) == (4, 8)
    assert len(first) == len(found) / 2
    assert found.loc[found["role"] == "primary", "verdict"].tolist() == ["below zero"] * 4
    rows = statements(both, Settings(draws=19, resamples=19))
    cells = rows[(rows["statement"] == "1") & is_primary_plan(rows)].drop_duplicates(["cell", "max_shift"])
    assert cells[["cell", "max_shift", "most_shift"]].to_numpy().tolist() == [
        ["pooled", 4, 8],
        ["a/smallcnn", 4, 4],
        ["b/smallcnn", 8, 8],
    ]


def test_slopes_in_points_are_those_of_the_derivative_at_the_mean(frame: pd.DataFrame, table: pd.DataFrame) -> None:
    drawn = frame[frame[POPULATION] == "P"]
    for statement, quantity, rows in (
        ("1", "slope within blocks", frame[frame[POPULATION] == "R"]),
        ("3", "slope of msb", drawn),
        ("4", "slope of msb, with see", drawn),
    ):
        for kind in ("circular", "zero"):
            mine = table[(table["statement"] == statement) & (table["quantity"] == quantity)]
            mine = mine[mine["shift_kind"] == kind].set_index("cell")
            steps, weights = {}, {}
            for data, members in rows[rows["shift_kind"] == kind].groupby("data"):
                c = members["consistency"].mean()
                # How far a step of a thousandth of a logit takes the mean, both ways.
                up, down = (1 / (1 + np.exp(-(np.log(c / (1 - c)) + side * 1e-3))) for side in (1, -1))
                steps[data] = 100 * (up - down) / 2e-3
                row = mine.loc[f"{data}/smallcnn"]
                weights[data] = row["se"] ** -2
                assert row["points"] == pytest.approx(steps[data] * row["estimate"], rel=1e-6)
                assert row["points_low"] == pytest.approx(steps[data] * row["low"], rel=1e-6)
            step = np.average(list(steps.values()), weights=list(weights.values()))
            pooled = mine.loc["pooled"]
            for points, logits in (("points", "estimate"), ("points_low", "low"), ("points_high", "high")):
                assert pooled[points] == pytest.approx(step * pooled[logits], rel=1e-6)
    of_msb = table["quantity"].str.match(r"slope (within blocks|of msb(,|$))")
    slopes = of_msb & table["estimate"].notna()
    assert (table["points"].notna() == slopes).all()


def test_cells_at_the_ceiling_are_marked_and_left_out_beside(frame: pd.DataFrame) -> None:
    full = frame["consistency"].where((frame["data"] != "a") | (frame[POPULATION] != "P"), 0.999)
    found = statements(frame.assign(consistency=full), SETTINGS)
    ceiling = found[found["statement"] == "ceiling"].set_index(["shift_kind", "cell"])["note"]
    assert ceiling.tolist() == ["at the ceiling", ""] * 2
    alone = statements(frame[frame["data"] == "b"], SETTINGS)
    quantity = "slope within blocks"
    beside = found[found["quantity"] == f"{quantity}, without cells at the ceiling"]
    expected = alone[(alone["quantity"] == quantity) & (alone["cell"] == "pooled")]
    assert beside["estimate"].tolist() == pytest.approx(expected["estimate"].tolist())
    assert (beside["role"] == "secondary").all()
    fits = found[(found["quantity"] == "slope of msb") & (found["cell"] == "pooled")]
    assert fits["note"].str.startswith("without a/smallcnn").all()


def test_networks_left_out_and_trained_again_stand_in_the_table(frame: pd.DataFrame) -> None:
    drawn = frame[(frame[POPULATION] == "P") & (frame["factor_draw"] < "P010")]
    again = drawn.assign(factor_repeat=1, checkpoint="again-" + drawn["checkpoint"])
    failed = pd.concat([frame.assign(factor_repeat=np.nan), again], ignore_index=True)
    failed.loc[failed["checkpoint"] == "a-R-0", "accuracy"] = 0.1
    found = statements(failed, SETTINGS)
    out = found[found["statement"] == "left out"].set_index(["quantity", "cell"])["n"]
    assert out.to_dict() == {
        ("accuracy below 0.5", "a/smallcnn"): 1,
        ("trained a second time", "a/smallcnn"): 10,
        ("trained a second time", "b/smallcnn"): 10,
    }
    repeats = found[(found["statement"] == "reliability") & (found["shift_kind"] == "zero")]
    assert repeats["estimate"].tolist() == [1, 1, 1, 1]
    lost = found[(found["quantity"] == "slope within blocks") & (found["cell"] == "a/smallcnn")]
    assert lost["note"].tolist() == ["blocks that lack a network: 1"] * 2


def _row(**given: object) -> dict[str, object]:
    plan = {"shift_kind": "circular", "fill": "", "max_shift": 4, "n_shifts": 9, "plan": "sampled"}
    return {**plan, "statement": "1", "quantity": "slope within blocks", "cell": "pooled", "n_cells": 3, **given}


@pytest.mark.parametrize(
    ("estimate", "se", "p", "verdict"),
    [
        (-1.0, 0.2, 0.001, "below zero"),
        (1.0, 0.2, 0.001, "above zero"),
        (-1.0, 0.2, 0.06, "open"),
        (-0.2, 0.08, 0.01, "below zero, smaller than matters"),
        (0.05, 0.1, 0.6, "no effect of a size that matters"),
        (0.3, 0.3, 0.3, "open"),
        (np.nan, np.nan, np.nan, "no number"),
    ],
)
def test_a_verdict_needs_interval_and_corrected_p(estimate: float, se: float, p: float, verdict: str) -> None:
    ends = {"low": estimate - 1.96 * se, "high": estimate + 1.96 * se}
    found = judged(pd.DataFrame([_row(estimate=estimate, se=se, p=p, **ends)]))
    assert found["verdict"].tolist() == [verdict]
    alone = judged(pd.DataFrame([_row(estimate=estimate, se=se, p=p, **ends, n_cells=1)]))
    assert "matters" not in alone["verdict"].iloc[0]


def test_the_family_of_holm_is_both_statements_under_both_kinds() -> None:
    given = {"estimate": -1.0, "se": 0.2, "low": -1.4, "high": -0.6}
    rows = [_row(**given, p=0.02), _row(**given, p=0.03, statement="2", quantity="Spearman of msb_corrected")]
    rows += [{**row, "shift_kind": "zero", "fill": "background", "p": row["p"] + 0.02} for row in rows]
    rows += [_row(**given, p=1e-6, cell="a/n"), _row(**given, p=1e-6, statement="1 (R3x3)")]
    rows += [_row(**given, p=0.01, statement="6", quantity="minimum less max")]
    found = judged(pd.DataFrame(rows))
    assert found["p_holm"].tolist()[:4] == pytest.approx([0.08, 0.09, 0.09, 0.09])
    assert found["p_holm"].isna().tolist()[4:] == [True, True, False]
    assert found["p_holm"].iloc[6] == 0.01
    assert (found["verdict"].iloc[:4] == "open").all()


def test_pairs_too_few_for_a_p_have_no_verdict() -> None:
    given = {"estimate": -1.0, "se": 0.2, "low": -1.4, "high": -0.6, "statement": "6", "quantity": "minimum less max"}
    assert judged(pd.DataFrame([_row(**given, p=np.nan)]))["verdict"].tolist() == [""]
    assert judged(pd.DataFrame([_row(**given, p=0.03)]))["verdict"].tolist() == ["below zero"]


def test_simulated_factors_are_those_of_the_declared_population() -> None:
    rng = np.random.default_rng(0)
    drawn, turned = population_factors(3000, rng), rotation_factors(500, rng)
    assert (drawn["factor_family"] == "rank").mean() == pytest.approx(2 / 3, abs=1e-3)
    assert (drawn["factor_assigned_lambda"] == 0).mean() == pytest.approx(1 / 3, abs=1e-3)
    plain = drawn["factor_assigned_asymmetry"] == 0
    assert plain.mean() == pytest.approx(1 / 2, abs=0.03)
    assert drawn.loc[plain, MSB].mean() == pytest.approx(1 / 3, abs=0.02)
    assert (drawn.loc[plain & (drawn["factor_family"] == "channelranks"), SELECTIVITY] == 1).all()
    blocks = turned.groupby("factor_block")
    assert (blocks[SELECTIVITY].std() < 1e-12).all()
    assert blocks[MSB].mean().tolist() == pytest.approx([0.0] * 500, abs=1e-12)


def test_a_frame_without_what_is_needed_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(TableError, match="need the columns n_images"):
        statements(frame.drop(columns="n_images"))


def _joined(frame: pd.DataFrame) -> pd.DataFrame:
    """The simulated rows with what the analysis of published operators needs besides."""
    plain = {"operator": "rank", "cluster": frame["checkpoint"], "plan_hash": frame["shift_kind"], "strength": np.nan}
    readings = dict.fromkeys(("msb", "msb_all", "msb_weight", "msb_top"), frame["msb_corrected"])
    more = {"fidelity": frame["consistency"], "n_sites_unmeasured": 0, "training_data": "a", "run": frame["checkpoint"]}
    return frame.assign(**plain, **readings, **more, epoch=1.0)


def test_a_zoo_with_drawn_operators_has_both_versions_of_the_plan(simulate, frame, tmp_path) -> None:
    held = simulate.simulate_frame(simulate.Zoo(n_operators=4, seeds=1, epochs=(8.0,))).assign(factor_population="H")
    held = held[held["shift_kind"] == "circular"]
    options = {"scores": ["consistency"], "resamples": 5, "permutations": 0, "settings": SETTINGS}
    both = analyze(pd.concat([_joined(frame), held], ignore_index=True), **options)
    alone = analyze(held, **options)
    assert both.correlations.equals(alone.correlations)
    assert both.regressions.equals(alone.regressions)
    assert alone.statements.empty
    assert both.statements.query("role == 'primary'")["verdict"].tolist() == ["below zero"] * 4
    assert both.headline[0] == both.opening.verdict
    assert both.headline[0].startswith(
        "Maximum-sampling bias (MSB) as such lowers shift invariance under circular shifts"
    )
    assert both.headline[1].startswith("(1) MSB moved, all else equal, circular shifts ≤ 4 px: -")
    assert both.further_lines[-len(alone.further_lines) :] == alone.further_lines
    assert both.folds[0].title == "Operators drawn at random, MSB assigned"
    assert both.folds[1:] == alone.folds
    assert "MSB itself" in both.summary
    names = [path.name for path in write_results(both, tmp_path / "both")]
    assert "statements.csv" in names
    assert "statements.csv" not in [path.name for path in write_results(alone, tmp_path / "alone")]
    written = pd.read_csv(tmp_path / "both" / "statements.csv")
    assert len(written) == len(both.statements)


def test_a_zoo_of_drawn_operators_alone_is_analysed(frame: pd.DataFrame, tmp_path) -> None:
    found = analyze(_joined(frame), scores=["consistency"], settings=SETTINGS)
    assert found.correlations.empty
    assert found.summary.count("| below zero |") == 4
    assert len(write_results(found, tmp_path / "results", figure=b"png")) == 9
    assert (tmp_path / "results" / "headline.png").read_bytes() == b"png"
    written = (tmp_path / "results" / "summary.md").read_text(encoding="utf-8")
    assert written.split("\n\n")[2] == f"![{found.opening.title}](headline.png)"
    assert written.replace(f"![{found.opening.title}](headline.png)\n\n", "") == found.summary


def test_the_plan_quotes_the_simulated_power(repository: Path) -> None:
    results = (repository / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    section = results.split("## Statements on assigned MSB, where the truth is known")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    plan = (repository / "docs" / "analysis-plan.md").read_text(encoding="utf-8")
    power = plan.split("## Power, simulated at this design")[1].split("\n## ")[0]
    assert len(rows) == 13
    assert [line for line in power.splitlines() if line.startswith("|")] == rows
