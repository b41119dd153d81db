"""Simulated power: the study's outcomes are taken apart exactly, and effects that are put in come out again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis import Frames, load
from invariscope.analysis.designs.assigned import BLOCK, DRAWN, LOGIT, MSB, POPULATION, ROTATED, Settings, admitted
from invariscope.analysis.designs.assigned_statements import statements
from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.analysis.designs.simulated import SimulatedDesign, Truth, simulate_study
from invariscope.analysis.designs.verdicts import MSB_SLOPE, POOLED, TOTAL, WITHIN
from reference import power
from reference.answer_power import FILE, simulated_power
from reference.answer_study import primary_rows


@pytest.fixture(scope="module")
def study() -> pd.DataFrame:
    """Of which the drawn operators' residuals are the same in both cells, but for a tenth."""
    design = SimulatedDesign(cells=("digits", "mnist"), draws=48, blocks=12, residual=0.2, shared=0.9, rotated=0.2)
    return simulate_study(Truth("MSB", msb=-1.0), design, 0)


@pytest.fixture(scope="module")
def rows(study: pd.DataFrame) -> pd.DataFrame:
    return power.taken_apart(study)


def test_drawn_networks_are_taken_apart_as_least_squares_do(rows: pd.DataFrame) -> None:
    """The residual has no part of what was assigned, and what is left besides it and ``null`` is a parabola of MSB."""
    for _, members in rows[rows[POPULATION] == DRAWN].groupby(["shift_kind", "data"]):
        msb = members[MSB].to_numpy()
        rest = (members[LOGIT] - members["null"] - members["left"]).to_numpy()
        parabola = np.column_stack([np.ones(len(msb)), msb, msb**2])
        np.testing.assert_allclose(parabola @ np.linalg.lstsq(parabola, rest, rcond=None)[0], rest, atol=1e-9)
        assert np.polyfit(msb, rest, 1)[0] == pytest.approx(-1.0, abs=0.3)  # the truth
        assert np.abs(parabola.T @ members["left"].to_numpy()).max() < 1e-8


def test_rotations_keep_their_blocks_and_lose_the_slope(rows: pd.DataFrame) -> None:
    rotated = rows[rows[POPULATION] == ROTATED]
    null = rotated.assign(**{LOGIT: rotated["null"]})
    for kind, members in null.groupby("shift_kind"):
        effect = rotation_effect(members, Settings(draws=19), each=False).cells
        np.testing.assert_allclose(effect["slope"], 0, atol=1e-9, err_msg=str(kind))
    means = rotated.groupby(["shift_kind", "data", BLOCK])[[LOGIT, "null"]].mean()
    np.testing.assert_allclose(means[LOGIT], means["null"], atol=1e-9)


def test_what_is_not_changed_comes_back(rows: pd.DataFrame) -> None:
    """The score of a logit has that logit again, near the ceiling too."""
    again = admitted(power._with_logit(rows, rows[LOGIT].to_numpy()).drop(columns=LOGIT), Settings())[0]
    np.testing.assert_allclose(again[LOGIT], rows[LOGIT], atol=1e-9)


def test_residuals_of_one_operator_and_of_one_block_turn_together(rows: pd.DataFrame) -> None:
    made = power.simulated(rows, power.Effect(MSB, 0.0), 1)
    logits = admitted(made, Settings())[0][LOGIT].to_numpy()
    sign = np.sign((logits - rows["null"].to_numpy()) * rows["left"].to_numpy())
    turned = rows.assign(sign=sign)[np.abs(rows["left"]) > 1e-6]
    assert (turned.groupby("unit")["sign"].nunique() == 1).all()
    assert set(turned["sign"]) == {-1.0, 1.0}
    drawn = turned[turned[POPULATION] == DRAWN]
    assert (drawn.groupby("unit")[["data", "shift_kind"]].nunique() == 2).all().all()
    # A block is a unit of its own data set: those of one name are others elsewhere.
    assert turned.loc[turned[POPULATION] == ROTATED, "unit"].nunique() == 2 * 12


def test_errors_are_those_of_the_study(study: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Cells that share their operators have a larger pooled error than as many apart; so has what is simulated."""
    settings, kept = Settings(draws=19), ["1", "2", "3"]
    true = errors(statements(study, settings, brief=True))
    runs = [
        errors(statements(power.simulated(rows, power.Effect(MSB, -1.0), seed), settings, brief=True))
        for seed in range(8)
    ]
    simulated = pd.concat(runs, axis=1).mean(axis=1)
    np.testing.assert_allclose(simulated[kept], true[kept], rtol=0.2)


def errors(table: pd.DataFrame) -> pd.Series:
    pooled = table[(table["cell"] == POOLED) & (table["shift_kind"] == "circular")].set_index("quantity")["se"]
    return pd.Series({"1": pooled[WITHIN], "2": pooled[TOTAL], "3": pooled[MSB_SLOPE]}, dtype=float)


def test_an_effect_that_is_put_in_comes_out(rows: pd.DataFrame) -> None:
    strong = power.Effect(MSB, -0.5)
    found = [rotation_of(power.simulated(rows, strong, seed)) for seed in range(8)]
    assert np.mean(found) == pytest.approx(-0.5, abs=0.05)
    nothing = [rotation_of(power.simulated(rows, power.Effect(MSB, 0.0), seed)) for seed in range(8)]
    assert np.mean(nothing) == pytest.approx(0.0, abs=0.05)
    again = power.simulated(rows, strong, 0)["consistency"]
    pd.testing.assert_series_equal(again, power.simulated(rows, strong, 0)["consistency"])


def rotation_of(frame: pd.DataFrame) -> float:
    kept = admitted(frame, Settings())[0]
    members = kept[(kept["shift_kind"] == "circular") & (kept[POPULATION] == ROTATED)]
    return float(rotation_effect(members, Settings(draws=19), each=False).pooled.estimate)


def test_shares_are_of_what_the_statements_say(rows: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power, "SETTINGS", Settings(draws=199))
    strong = power.outcomes(rows, power.Effect(MSB, -0.5), range(2))
    assert strong.groupby("shift_kind").size().to_dict() == {"circular": 2, "zero": 2}
    assert strong["1"].all()
    assert strong["3"].all()
    assert not power.outcomes(rows, power.Effect(MSB, 0.0), range(2))["1"].any()


def test_the_page_shows_what_was_simulated(repository: Path, tmp_path: Path) -> None:
    assert list(simulated_power(tmp_path / "tables")) == []
    published = repository / "data" / "reference" / "population"
    table = pd.read_csv(published / FILE)
    said = "\n".join(simulated_power(published / "tables"))
    assert said in (repository / "RESULTS.md").read_text(encoding="utf-8").replace("\n\n", "\n")
    for row in table.to_dict("records"):
        assert f"| {row['shift_kind']} | {row['1']:.2f} | {row['2']:.2f} |" in said
    nothing = table[table["effect"] == 0]
    # Where MSB does nothing less than one in twenty finds that it does, but for the error of that many simulations.
    assert (nothing["1"] <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / nothing["simulations"])).all()
    now = power.taken_apart(primary_rows(Frames(load(str(published / "tables")))))
    assert set(table["design"]) == {power.design_of(now)}, "make power"
