"""The second leg: statement 1 of other blocks on another architecture, and whether the slope is another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
from scipy import special, stats

from invariscope.analysis import Frames, TableError, load
from invariscope.analysis.designs.assigned import Settings, admitted
from invariscope.analysis.designs.rotations import rotation_effect
from invariscope.zoo.recipe import read_recipe
from reference.answer_leg import FOLDER, LEG, Leg, leg_progress, leg_statements, second_leg, wald
from reference.answer_study import primary_rows
from reference.answer_tables import Statements, told

BLOCKS = [f"R{number:02d}" for number in range(12)]
CELL = "cifar10/test/vgg7"


@pytest.fixture(scope="module")
def study(repository: Path) -> Statements:
    path = repository / "docs" / "population" / "statements.csv"
    return Statements(pd.read_csv(path).fillna({"note": "", "fill": ""}))


def leg(repository: Path, out: Path, moved: float = 0.0, blocks: Sequence[str] = BLOCKS) -> Path:
    """Measured blocks of the study under another architecture's name, ``moved`` logits per unit of MSB."""
    source = repository / "data" / "reference" / "population" / "tables"
    checkpoints = ds.dataset(source / "checkpoints").to_table().to_pandas()
    factors = checkpoints["factors"].map(json.loads)
    mine = (checkpoints["architecture"] == "vgg7") & factors.map(lambda some: some.get("block") in blocks)
    kept = checkpoints[mine].assign(architecture="resnet8")
    kept["factors"] = [json.dumps(some | {"population": LEG, "architecture": "resnet8"}) for some in factors[mine]]
    msb = dict(zip(kept["checkpoint"], (some["assigned_msb"] for some in factors[mine]), strict=True))
    assert len(kept) == 4 * len(blocks)
    for name in ("checkpoints", "invariance"):
        rows = kept if name == "checkpoints" else ds.dataset(source / name).to_table().to_pandas()
        rows = rows[rows["checkpoint"].isin(kept["checkpoint"])]
        if name == "invariance":
            scored = rows["score"] == "consistency"
            logit = special.logit(rows["value"].clip(1e-3, 1 - 1e-3)) + moved * rows["checkpoint"].map(msb)
            rows = rows.assign(value=rows["value"].where(~scored, special.expit(logit)))
        (out / name).mkdir(parents=True)
        rows.to_parquet(out / name / "part.parquet", index=False)
    return out


def row_of(text: str, architecture: str, kind: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {architecture} | {kind} |")]
    return [part.strip() for part in line.strip("|").split("|")]


def test_wald_is_welchs_test_of_many() -> None:
    n = 10**9
    for a, se_a, b, se_b in ((0.3, 0.1, -0.2, 0.2), (1.0, 0.5, 1.0, 0.1)):
        known = stats.ttest_ind_from_stats(a, se_a * n**0.5, n, b, se_b * n**0.5, n, equal_var=False)
        np.testing.assert_allclose(wald(a, se_a, b, se_b), (known.statistic, known.pvalue), rtol=1e-6)


def test_slopes_of_both_stand_beside_each_other_and_are_compared(
    repository: Path, tmp_path: Path, study: Statements
) -> None:
    tables = leg(repository, tmp_path / FOLDER)
    assert leg_progress(tmp_path / "tables") == (4 * len(BLOCKS), 64)
    text = "\n".join(second_leg(tmp_path / "tables", study))
    kept, _ = admitted(primary_rows(Frames(load(str(tables)))), Settings())
    for kind in ("circular", "zero"):
        mine = study.row("1", "slope within blocks", kind, CELL)
        assert mine is not None
        assert row_of(text, "vgg7", kind)[2:4] == [told(mine, points=True), told(mine)]
        cell = rotation_effect(kept[kept["shift_kind"] == kind], each=False).cells.iloc[0]
        told_here = row_of(text, "resnet8", kind)
        assert told_here[3].split()[0] == f"{cell['slope']:.2f}"
        assert told_here[5] == "48 networks, 12 blocks"
        z = (cell["slope"] - mine["estimate"]) / np.hypot(cell["se"], mine["se"])
        assert f"under {kind} shifts no difference is found (z = {z:.2f}" in text
        assert f"the same sign and not found to differ in size under {kind} shifts" in text


@pytest.mark.parametrize(("moved", "words"), [(2.0, "the same sign and larger"), (-2.0, "the other sign and larger")])
def test_another_slope_is_found_to_differ(
    repository: Path, tmp_path: Path, study: Statements, moved: float, words: str
) -> None:
    leg(repository, tmp_path / FOLDER, moved=moved)
    text = "\n".join(second_leg(tmp_path / "tables", study))
    found = Leg.of(tmp_path / "tables", study)
    assert found is not None
    assert f"**{found.verdict()}**" in text
    for kind in ("circular", "zero"):
        assert f"of {words} under {kind} shifts, {row_of(text, 'resnet8', kind)[2]} points where vgg7" in text
    assert "under circular shifts the slopes differ (z = " in text
    assert "no difference is found" not in text


@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_few_blocks_are_not_tested(repository: Path, tmp_path: Path, study: Statements, blocks: int) -> None:
    """Their error has few degrees of freedom, of which the planned test knows nothing."""
    leg(repository, tmp_path / FOLDER, blocks=BLOCKS[:blocks])
    text = "\n".join(second_leg(tmp_path / "tables", study))
    assert f"{4 * blocks} of 64 networks, accuracy 0." in text
    assert text.endswith(
        "Wald's test of the two slopes: under circular shifts none, with fewer than 10 whole blocks on one side; under "
        "zero shifts none, with fewer than 10 whole blocks on one side."
    )
    assert ("| resnet8 |" in text) == (blocks > 1)
    assert "**" not in text, "no verdict without a test"


@pytest.mark.parametrize("made", [False, True])
def test_nothing_is_said_of_a_leg_that_is_not_there(tmp_path: Path, study: Statements, made: bool) -> None:
    if made:
        (tmp_path / FOLDER / "checkpoints").mkdir(parents=True)
    assert list(second_leg(tmp_path / "tables", study)) == []
    assert leg_progress(tmp_path / "tables") == (0, 64)


def test_networks_of_another_population_are_refused(repository: Path) -> None:
    rows = primary_rows(Frames(load(str(repository / "data" / "reference" / "population" / "tables"))))
    with pytest.raises(TableError, match="holds networks of the population H, P, R, R3x3, T: give E alone"):
        leg_statements(rows)


def test_the_leg_has_the_population_that_its_recipe_gives(repository: Path) -> None:
    runs = read_recipe(repository / "data" / "recipes" / "population_resnet.yaml")
    assert {run.factors["population"] for run in runs} == {LEG}
    assert len(runs) == 64
