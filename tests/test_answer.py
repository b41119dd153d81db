"""RESULTS.md: the tables hold the study with its provenance, and the page says what they say, recomputed here."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from invariscope.analysis import Frames, load
from invariscope.analysis.tables.checkpoints import own
from invariscope.zoo.recipe import read_recipe
from reference import answer as answering
from reference.answer_leg import leg_progress
from reference.answer_study import Answer, planned
from reference.answer_tables import Statements, told

MEGABYTES = 30
LEAST_DRAWN = 500


@pytest.fixture(scope="module")
def tables(repository: Path) -> Path:
    return repository / "data" / "reference" / "population" / "tables"


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(repository: Path) -> pd.DataFrame:
    return pd.read_csv(repository / "docs" / "population" / "statements.csv", keep_default_na=True).assign(
        fill=lambda rows: rows["fill"].fillna(""), note=lambda rows: rows["note"].fillna("")
    )


@pytest.fixture(scope="module")
def found(table: pd.DataFrame) -> Statements:
    return Statements(table)


@pytest.fixture(scope="module")
def rows(tables: Path) -> pd.DataFrame:
    """Last snapshots at an eighth of the image."""
    joined = own(Frames(load(str(tables)))["joined"])
    return joined[joined["final"] & (joined["max_shift"] == 4)]


def logit(part: pd.DataFrame) -> pd.Series:
    n, c = part["n_images"], part["consistency"]
    return np.log((n * c + 0.5) / (n - n * c + 0.5))


def test_the_tables_hold_drawn_operators_with_their_provenance(tables: Path, rows: pd.DataFrame) -> None:
    drawn = rows[rows["factor_population"].isin(["P", "R", "R3x3"])].drop_duplicates(["checkpoint", "data"])
    assert len(drawn) >= LEAST_DRAWN
    files = [path for path in tables.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= MEGABYTES * 2**20
    for folder in sorted(path for path in tables.iterdir() if path.is_dir()):
        held = ds.dataset(folder).to_table().to_pandas()
        needed = ["sha256", "task", "invariscope_version", "torch_version"]
        needed += ["data_fingerprint"] if folder.name != "checkpoints" else []
        assert len(held), folder.name
        assert held[needed].notna().all(axis=None), folder.name
    assert not (tables / "failures").exists()


def test_every_network_is_a_run_of_the_recipes(rows: pd.DataFrame, repository: Path) -> None:
    for name in planned():
        recipe = {run.id for run in read_recipe(repository / "data" / "recipes" / f"population_{name}.yaml")}
        measured = set(rows.loc[rows["data"] == f"{name}/test", "run"])
        assert measured <= recipe
        if name in ("digits", "mnist"):
            assert measured == recipe


@pytest.mark.parametrize("kind", ["circular", "zero"])
@pytest.mark.parametrize("data", ["digits", "mnist"])
def test_the_slope_within_blocks_is_that_of_plain_least_squares(
    rows: pd.DataFrame, found: Statements, data: str, kind: str
) -> None:
    part = rows[(rows["data"] == f"{data}/test") & (rows["shift_kind"] == kind) & (rows["factor_population"] == "R")]
    weights = part["operator_spec"].str.extract(r"rank\((?:\w+=)?\(([\d., ]+)\)")[0].str.rstrip(", ").str.split(",")
    ranks = np.array([list(map(float, each)) for each in weights])
    assert ranks.shape == (240, 4)
    rest = (1 - ranks[:, 0]) / 3
    dummies = pd.get_dummies(part["factor_block"], dtype=float)
    design = np.column_stack([(ranks[:, 0] - 0.25) / 0.75, ranks[:, 1] - rest, ranks[:, 2] - rest, dummies])
    slope = sm.OLS(logit(part).to_numpy(), design).fit().params[0]
    row = found.row("1", "slope within blocks", kind, f"{data}/test/smallcnn")
    assert row is not None
    assert row["estimate"] == pytest.approx(slope, abs=2e-3)  # specifications have three digits
    assert (row["n"], row["n_units"]) == (240, 60)


@pytest.mark.parametrize("reading", ["msb_corrected", "see"])
@pytest.mark.parametrize("kind", ["circular", "zero"])
def test_correlations_over_drawn_operators_are_scipys(
    rows: pd.DataFrame, found: Statements, kind: str, reading: str
) -> None:
    part = rows[(rows["shift_kind"] == kind) & (rows["factor_population"] == "P") & rows["factor_repeat"].isna()]
    sums: dict[str, tuple[float, float]] = {}
    part = part.assign(cell=part["data"] + "/" + part["architecture"], augmented=part["factor_augmentation"].fillna(""))
    few = 0
    for (cell, *_), stratum in part.groupby(["cell", "padding_mode", "augmented"]):
        if len(stratum) < 8:
            few += len(stratum)
            continue
        r, weight = stats.spearmanr(stratum[reading].round(9), stratum["consistency"]).statistic, len(stratum) - 3
        z, weights = sums.get(str(cell), (0.0, 0.0))
        sums[str(cell)] = z + weight * np.arctanh(r), weights + weight
    assert len(sums) == 3
    row = found.row("2", f"Spearman of {reading}", kind)
    assert row is not None
    assert row["n"] == len(part) - few
    assert (f"without {few} networks of conditions with fewer than 8" in row["note"]) == (few > 0)
    for cell, (z, weight) in sums.items():
        row = found.row("2", f"Spearman of {reading}", kind, cell)
        assert row is not None
        assert row["estimate"] == pytest.approx(np.tanh(z / weight), abs=1e-9)
    pooled = np.tanh(sum(z for z, _ in sums.values()) / sum(weight for _, weight in sums.values()))
    row = found.row("2", f"Spearman of {reading}", kind)
    assert row is not None
    assert row["estimate"] == pytest.approx(pooled, abs=1e-9)


def test_the_share_of_a_rival_alone_is_a_plain_r_squared(rows: pd.DataFrame, found: Statements) -> None:
    for (data, architecture, kind), part in rows[
        (rows["factor_population"] == "P") & rows["factor_repeat"].isna()
    ].groupby(["data", "architecture", "shift_kind"]):
        r = stats.pearsonr(part["see"], logit(part)).statistic
        row = found.row("4", "R² of see alone", str(kind), f"{data}/{architecture}")
        assert row is not None
        assert row["estimate"] == pytest.approx(r**2, abs=1e-9)


def test_the_page_holds_the_statements(page: str, found: Statements, table: pd.DataFrame) -> None:
    for statement, quantity, points in (
        ("1", "slope within blocks", True),
        ("2", "Spearman of msb_corrected", False),
        ("4", "slope of see, with see", False),
    ):
        for kind in ("circular", "zero"):
            for cell in ["pooled", *found.cells]:
                assert told(found.row(statement, quantity, kind, cell), points=points) in page
    assert set(table.loc[table["role"] == "primary", "statement"].astype(str)) == {"1", "2"}
    assert (table["role"] == "primary").sum() == 4


def test_the_first_screen_has_verdict_certainty_and_how_much_of_the_plan_is_there(
    page: str, rows: pd.DataFrame, tables: Path
) -> None:
    screen = page.partition("## Statement by statement")[0]
    assert screen.index("**") < screen.index("![") < screen.index("| statement |")
    counts = rows.drop_duplicates(["checkpoint", "data"]).groupby("data").size()
    for name, total in planned().items():
        assert f"{name} {counts.get(f'{name}/test', 0)} of {total}" in screen
    there, of = leg_progress(tables)
    assert f", second leg {there} of {of}." in screen
    assert ("**The study is partial**" in screen) == (
        there < of or any(counts.get(f"{name}/test", 0) < total for name, total in planned().items())
    )
    assert len(re.findall(r"95 % interval", screen)) == 1


def test_slopes_that_differ_between_cells_are_said_to(page: str, found: Statements) -> None:
    """As a mean of a sample of cells, by statsmodels; "smaller than matters" only where that says it as well."""
    for kind in ("circular", "zero"):
        cells = found.primary[
            (found.primary["statement"] == "1")
            & (found.primary["quantity"] == "slope within blocks")
            & (found.primary["shift_kind"] == kind)
            & (found.primary["cell"] != "pooled")
        ]
        known = combine_effects(cells["estimate"].to_numpy(), cells["se"].to_numpy() ** 2, method_re="dl")
        assert known.test_homogeneity().pvalue < 0.05
        mean = known.mean_effect_re
        half = 1.959964 * known.sd_eff_w_re
        said = f"{mean:.2f} ({mean - half:.2f} to {mean + half:.2f}) under {kind} shifts"
        assert page.count(said) == 2
        row = found.row("1", "slope within blocks", kind)
        assert row is not None
        signs = cells["estimate"].min() * cells["estimate"].max() < 0
        expected = "no general statement: signs differ between data sets" if signs else "sizes differ between data sets"
        assert expected in found.verdict(row)
        small = abs(mean) + 1.644854 * known.sd_eff_w_re < 0.5
        assert ("smaller than matters" in found.verdict(row)) == (small and not signs)


def test_what_prediction_lets_us_say_is_said(page: str, found: Statements) -> None:
    section = page.partition("## How well published operators are predicted")[2].partition("\n## ")[0]
    for kind in ("circular", "zero"):
        row = found.row("5", "mean absolute error in points, less that of MSB, by see", kind)
        assert row is not None
        (line,) = [line for line in section.splitlines() if line.startswith(f"* {kind.capitalize()} shifts: the mean")]
        assert f"is {row['estimate']:.1f} ({row['low']:.1f} to {row['high']:.1f}) points" in line
        assert line.split("points: ")[1].startswith(
            "the two cannot be told apart by prediction."
            if row["low"] < 0 < row["high"]
            else ("the equivariance error" if row["estimate"] < 0 else "MSB") + " predicts better."
        )


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_page_is_written_from_the_tables(page: str, tables: Path, repository: Path) -> None:
    made = Answer.of(tables, repository / "data" / "reference" / "study")
    assert answering.text(made) == page
    assert answering.findings(made) == (repository / "docs" / "population" / "findings.md").read_text()
