"""The reference study: its recipes are what was asked for, its text is what its tables say, its runs come back."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from torch.utils.flop_counter import FlopCounterMode

from invariscope.analysis import TableError, join, load
from invariscope.analysis.tables.checkpoints import is_elsewhere, own
from invariscope.analysis.tables.frames import Frames
from invariscope.base.former import FORMER_NAME
from invariscope.base.words import counted
from invariscope.zoo.loading import build_model
from invariscope.zoo.recipe import read_recipe
from invariscope.zoo.run import Run
from reference import pairs, reproduce, results
from reference.claims import Found
from reference.tips import forms_beside_max
from reference.words import ranged_row

MOST_MULTIPLY_ADDS = 10e6
NUMBERS = r": ([+-][\d.]+) \(([+-][\d.]+) to ([+-][\d.]+); (\d+) (\w+)(?:.*, p = ([\d.e-]+))?"

ON_150_IMAGES = "db87b3b5204ec6e98e6eb99019440b77360695435c506c3a59387976dd28b48f"
"""Fingerprint of the images of the digits tables; their swaps were measured on fewer."""


@pytest.fixture(scope="module")
def runs(repository: Path) -> dict[str, list[Run]]:
    return {name: read_recipe(repository / "data" / "reference" / f"{name}.yaml") for name in results.RECIPES}


@pytest.fixture(scope="module")
def study(repository: Path) -> Path:
    return repository / "data" / "reference" / "study"


@pytest.fixture(scope="module")
def text(repository: Path) -> str:
    return (repository / "docs" / "reference" / "first-study.md").read_text()


@pytest.fixture(scope="module")
def final(study: Path) -> pd.DataFrame:
    """Last snapshots of the study's own networks, a row per shift kind, straight from the parquet files."""
    checkpoints, layers, invariance = (
        ds.dataset(study / table, format="parquet").to_table().to_pandas()
        for table in ("checkpoints", "layers", "invariance")
    )
    own = checkpoints[~checkpoints["factors"].str.contains('"origin": "elsewhere"')]
    own = own[own["epoch"] == own.groupby("run")["epoch"].transform("max")]
    msb = layers.groupby("checkpoint")["msb_corrected"].mean().round(9)
    scores = invariance.pivot_table(index=["checkpoint", "data", "shift_kind"], columns="score", values="value")
    clean = scores.xs("none", level="shift_kind")["accuracy"].rename("clean")
    shifted = scores.drop("none", level="shift_kind").drop(columns="accuracy").join(clean).reset_index()
    columns = ["checkpoint", "run", "seed", "operator", "operator_spec", "architecture", "padding_mode"]
    return shifted.merge(own[columns], on="checkpoint").assign(msb=lambda rows: rows["checkpoint"].map(msb))


def test_the_recipes_are_the_study_that_was_asked_for(runs: dict[str, list[Run]]) -> None:
    every = [run for of_data in runs.values() for run in of_data]
    assert len({run.id for run in every}) == len(every) >= 90
    assert sum(len(run.snapshot_epochs) for run in every) >= 300
    assert len({str(run.operator).partition("(")[0] for run in every}) >= 10
    assert {run.architecture for run in every} == {"smallcnn", "vgg8", "resnet8"}
    for of_data in runs.values():
        assert len({str(run.operator).partition("(")[0] for run in of_data}) >= 9
        assert {run.seed for run in of_data} == {0, 1, 2}
        assert {run.padding_mode for run in of_data} == {"circular", "zeros"}
        assert sum(str(run.operator).startswith("soft") for run in of_data if run.seed == 0) >= 4
        # Every cell shares an operator with the plain network's, which holds the design together.
        cells: dict[tuple[str, str], set[str]] = {}
        for run in of_data:
            cells.setdefault((run.architecture, run.padding_mode), set()).add(str(run.operator))
        assert all(operators & cells["smallcnn", "circular"] for operators in cells.values())
        assert len(cells) >= 3
        assert max(run.epochs for run in of_data) <= 8


def test_no_network_exceeds_ten_million_multiply_adds(runs: dict[str, list[Run]]) -> None:
    for name, channels in (("cifar10", 3), ("mnist", 1)):
        networks = {
            (run.architecture, tuple(run.model.items())): run for run in runs[name] if str(run.operator) == "max"
        }
        assert len(networks) == {"cifar10": 3, "mnist": 2}[name]
        for run in networks.values():
            model = build_model(run.network(channels, 10)).eval()
            with FlopCounterMode(display=False) as counter, torch.inference_mode():
                model(torch.zeros(1, channels, 32, 32))
            assert 0 < counter.get_total_flops() / 2 <= MOST_MULTIPLY_ADDS


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_results_are_written_from_the_tables(text: str, study: Path, repository: Path) -> None:
    assert results.text(results.Study.of(load(study)), repository / "docs" / "reference") == text


def test_what_needs_no_analysis_is_written_from_the_tables(text: str, study: Path) -> None:
    rows = (frames := Frames.of(load(study)))["joined"]
    tables = results.Study(frames, own(rows), rows[is_elsewhere(rows)], None)
    parts = (results._opening(tables), *results._material(tables), *results._elsewhere(tables))
    assert [part for part in parts if part not in text] == []


def test_correlations_are_those_of_a_plain_computation(text: str, final: pd.DataFrame) -> None:
    """Spearman over operator means and Pearson over networks, of every data set and shift kind, by scipy."""
    section = text.partition("| all operators |")[2].partition("\n\n")[0]
    head, _, *body = section.split("\n")
    assert "mnist, zero †" in head
    columns = [tuple(cell.strip(" †").split(", ")) for cell in head.strip("| ").split("|")]
    lines = {line.split("|")[1].strip(): line.strip("| ").split("|")[1:] for line in body}
    assert len(columns) >= 2
    for place, (data, kind) in enumerate(columns):
        rows = final[(final["data"] == f"{data}/test") & (final["shift_kind"] == kind)]
        means = rows.groupby("operator")[["msb", "consistency"]].mean()
        expected = {
            "Spearman over operator means": stats.spearmanr(means["msb"], means["consistency"]).statistic,
            "Pearson over networks": stats.pearsonr(rows["msb"], rows["consistency"]).statistic,
        }
        for name, value in expected.items():
            assert float(lines[name][place].split("(")[0]) == pytest.approx(value, abs=0.0051), (data, kind, name)


def test_tips_against_max_is_a_plain_difference(text: str, final: pd.DataFrame) -> None:
    cell, seed = ["architecture", "padding_mode"], ["seed", "shift_kind"]
    for data, rows in final.groupby("data"):
        table = text.partition(f"| {str(data).partition('/')[0]}: minus max pooling |")[2].partition("\n\n")[0]
        line = next(line for line in table.split("\n") if line.startswith("| tips |"))
        wide = rows[rows["operator_spec"].isin(("tips", "max"))].pivot(
            index=[*cell, *seed], columns="operator_spec", values=["msb", "clean", "consistency", "fidelity"]
        )
        gaps = {
            score: (wide[score]["tips"] - wide[score]["max"]).dropna().groupby([*cell, "shift_kind"]).mean()
            for score in ("msb", "clean", "consistency", "fidelity")
        }
        means = {score: gap.groupby("shift_kind").mean() for score, gap in gaps.items()}
        shown = [float(value.split("(")[0]) for value in line.strip("| ").split("|")[1:7]]
        expected = [means["msb"]["zero"], means["clean"]["zero"]]
        expected += [means[score][kind] for score in ("consistency", "fidelity") for kind in ("circular", "zero")]
        assert shown == pytest.approx(expected, abs=6e-4)


def test_failed_runs_are_listed(text: str, final: pd.DataFrame) -> None:
    once = final.drop_duplicates("checkpoint")
    failed = once[once["clean"] < once["data"].map({"cifar10/test": 0.60, "mnist/test": 0.97})]
    listed = re.search(r"counts as a failed run: (.*)", text)
    assert listed is not None
    assert sorted(re.findall(r"`([^`]+)` \(", listed.group(1))) == sorted(failed["run"])


def test_the_tables_hold_the_study(study: Path, runs: dict[str, list[Run]]) -> None:
    names = ("checkpoints", "layers", "invariance", "swaps", "robustness", "cost")
    tables = {name: ds.dataset(study / name, format="parquet").to_table().to_pandas() for name in names}
    checkpoints = tables["checkpoints"]
    foreign = checkpoints["factors"].str.contains('"origin": "elsewhere"')
    own = set(checkpoints.loc[~foreign, "checkpoint"])
    planned = {run.snapshot_name(epoch) for each in runs.values() for run in each for epoch in run.snapshot_epochs}
    assert own == planned
    assert set(checkpoints.loc[foreign, "checkpoint"]) == {
        *("akamaster-resnet20", "akamaster-resnet56", "captum-lenet", "ai8x-vgg", "mlperf-resnet8")
    }
    shifted = tables["invariance"].query("shift_kind != 'none'")
    assert set(map(tuple, shifted[["n_images", "n_shifts"]].to_numpy())) == {(1000, 9)}
    kinds = shifted.groupby("checkpoint")["shift_kind"].agg(set)
    assert set(kinds.index) == set(checkpoints["checkpoint"]) == set(tables["layers"]["checkpoint"])
    assert all(found == {"circular", "zero"} for found in kinds)
    assert shifted.loc[shifted["score"] != "kappa", "value"].between(0, 1).all()
    assert 8 <= tables["robustness"]["checkpoint"].nunique() <= 30
    for name, table in tables.items():
        provenance = {"task", f"{FORMER_NAME}_version", "torch_version", "sha256"} | (
            set() if name in ("checkpoints", "cost") else {"data", "data_fingerprint"}
        )
        assert table[sorted(provenance)].notna().all(axis=None), name
        assert (table[sorted(provenance)] != "").all(axis=None), name
    assert sum(path.stat().st_size for path in study.rglob("*.parquet")) < 30e6


def test_robustness_is_a_plain_difference(text: str, study: Path) -> None:
    rows = ds.dataset(study / "robustness", format="parquet").to_table().to_pandas()
    named = rows["checkpoint"].str.extract(r"vgg8-(?P<operator>.+)-circular-(?P<seed>s\d)-e006")
    rows = rows.assign(**named)
    section = text.partition("### Robustness")[2].partition("### Cost")[0]
    line = next(line for line in section.split("\n") if line.startswith("| tips |"))
    shown = [float(cell.split("(")[0]) for cell in line.strip("| ").split("|")[1:-1]]
    conditions = [
        rows["condition_kind"] == "clean",
        *(
            (rows["condition"] == "pgd") & (rows["norm"] == norm) & np.isclose(rows["severity"], budget)
            for norm, budgets in (("l2", (0.25, 0.5)), ("linf", (1 / 255, 2 / 255)))
            for budget in budgets
        ),
        rows["condition_kind"] == "corruption",
    ]
    expected = []
    for chosen in conditions:
        means = rows[chosen].groupby(["operator", "seed"])["accuracy"].mean().unstack("operator")
        expected.append(float((means["tips"] - means["max"]).mean()))
    assert shown == pytest.approx(expected, abs=6e-4)


def test_cost_is_the_ratio_measured(text: str, study: Path) -> None:
    rows = ds.dataset(study / "cost", format="parquet").to_table().to_pandas()
    section = text.partition("### Cost")[2].partition("\n## ")[0].split("\n")
    for architecture in ("vgg8", "smallcnn", "resnet8"):
        line = next(line for line in section if line.startswith(f"| {architecture} | tips |"))
        shown = [float(cell) for cell in line.strip("| ").split("|")[2:6]]
        tips = rows[rows["checkpoint"].str.startswith(f"{architecture}-tips-")].groupby("quantity")["relative"].median()
        expected = [tips[name] for name in ("parameters", "multiply_adds", "latency", "training_step")]
        assert shown == pytest.approx(expected, abs=0.0051)


def test_every_claim_has_the_verdict_of_its_test(text: str) -> None:
    """Of an interval or, between operators, of a permutation; none of what is a bar and no shift."""
    section = text.partition("| claimed |")[2].partition("\n\n")[0].split("\n")[2:]
    judged = bars = 0
    for line in section:
        claim, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        side = -1 if "less consistency" in claim or "falls" in claim or "literal reading" in claim else 1
        for data, cell in zip(("cifar10", "mnist"), cells, strict=True):
            found = re.search(NUMBERS, cell)
            if data == "mnist" and "zero shifts" in claim:
                bars += 1
                assert cell.startswith("†")
                continue
            if found is None:
                assert cell == "-" or cell.startswith("estimate alone")
                continue
            judged += 1
            estimate, low, high = (side * float(found.group(place)) for place in (1, 2, 3))
            low, high = sorted((low, high))
            if found.group(5).startswith("operator"):
                p = float(found.group(6))
                low, high = (estimate, estimate) if p < 0.05 else (-1.0, 1.0)
            if found.group(5).startswith("famil") and int(found.group(4)) < 15:
                assert cell.startswith("estimate alone")
            elif 0 in (low, high):
                continue  # A rounded end may lie on either side of zero.
            elif low > 0:
                assert cell.startswith("holds")
            elif high < 0:
                assert cell.startswith("**the opposite holds**")
            else:
                assert cell.startswith("cannot tell")
    assert judged >= 20
    assert bars >= 7
    assert "† The study's zero shifts are filled with the mean" in text


def test_claims_on_tips_have_the_numbers_of_the_table_of_differences(text: str) -> None:
    """The same differences stand in two tables, which are made apart."""
    section = text.partition("| claimed |")[2].partition("\n\n")[0].split("\n")
    for place, data in enumerate(("cifar10", "mnist"), start=1):
        table = text.partition(f"| {data}: minus max pooling |")[2].partition("\n\n")[0].split("\n")
        tips = next(line for line in table if line.startswith("| tips |")).strip("| ").split("|")
        for column, words in ((2, "accuracy than max pooling"), (4, "consistency than max pooling (zero shifts)")):
            line = next(line for line in section if words in line).strip("| ").split("|")
            assert line[place].partition(": ")[2].split(" (")[0].strip() == tips[column].split("(")[0].strip()


@pytest.mark.parametrize(
    ("sign", "ends", "few", "word"),
    [
        (1, (0.1, 0.3), False, "holds"),
        (-1, (0.1, 0.3), False, "**the opposite holds**"),
        (-1, (-0.3, -0.1), False, "holds"),
        (1, (-0.1, 0.3), False, "cannot tell"),
        (1, (np.nan, np.nan), False, "estimate alone"),
        (1, (0.1, 0.3), True, "estimate alone"),
    ],
)
def test_a_verdict_follows_the_sign_of_the_interval(sign: int, ends: tuple[float, float], few: bool, word: str) -> None:
    assert Found(0.1, *ends, "3 pairs", few).told(sign).startswith(f"{word}: +0.100 (")


def test_a_permutation_decides_where_there_is_one_and_a_bar_is_not_judged() -> None:
    interval = (-0.3, -0.01, "9 operators")
    assert Found(-0.2, *interval, p=0.4).told(-1) == "cannot tell: -0.200 (-0.300 to -0.010; 9 operators, p = 0.4)"
    assert Found(-0.2, -0.3, 0.1, "9 operators", p=0.01).told(-1).startswith("holds: -0.200")
    assert Found(-0.2, -0.3, 0.1, "9 operators", p=0.01).told(1).startswith("**the opposite holds**")
    assert Found(-0.2, *interval, bar=True).told(-1) == "†: -0.200 (-0.300 to -0.010; 9 operators)"


def test_forms_of_tips_beside_max_pooling_are_matched(repository: Path) -> None:
    """Per cell the mean over seeds of the difference of two networks, by pandas alone."""
    rows = join(load(repository / "data" / "reference" / "published", where={"data_fingerprint": ON_150_IMAGES}))
    rows = rows[rows["final"] & (rows["shift_kind"] == "circular")]
    lines = [line for line in forms_beside_max(rows) if "consistency" in line]
    wide = rows.pivot_table(
        index=["architecture", "padding_mode", "seed"], columns="operator_spec", values="consistency"
    )
    for line, form, stated in zip(lines, ("tips", "tips(pool=phase)"), (-0.060, 0.045), strict=True):
        gaps = (wide[form] - wide["max"]).dropna()
        mean = gaps.groupby(["architecture", "padding_mode"]).mean().mean()
        assert mean == pytest.approx(stated, abs=6e-4)
        assert f"consistency of {form} minus max pooling {mean:+.3f} (" in line
        assert line.endswith("6 pairs in 2 cells")


def frame() -> pd.DataFrame:
    """Two operators and two seeds in one cell, tips in a second cell without its partner."""
    rows = [
        ("max", "a", 0, 0.9, 0.5),
        ("max", "a", 1, 0.7, 0.7),
        ("tips", "a", 0, 0.1, 0.6),
        ("tips", "a", 1, 0.2, 0.9),
        ("tips", "b", 0, 0.3, 0.1),
    ]
    table = pd.DataFrame(rows, columns=["operator_spec", "architecture", "seed", "msb_corrected", "consistency"])
    return table.assign(
        data="x/test", padding_mode="zeros", shift_kind="circular", fidelity=0.5, accuracy=0.5, run=table.index.map(str)
    )


def test_pairs_are_alike_in_all_but_the_operator() -> None:
    found = pairs.differences(frame(), "tips", pairs.SCORES).sort_values("msb_corrected")
    assert found["msb_corrected"].tolist() == pytest.approx([-0.8, -0.5])
    assert found["consistency"].tolist() == pytest.approx([0.1, 0.2])
    against_itself = pairs.differences(frame(), "max", ["accuracy"], base="tips")
    assert against_itself["accuracy"].tolist() == [0, 0]


def test_a_mean_over_cells_is_that_of_least_squares_with_cells_as_factor() -> None:
    cells, seeds = ["a", "a", "a", "b", "b", "c"], [0, 1, 2, 0, 1, 0]
    values = [0.1, 0.4, 0.2, 0.9, 0.6, -0.3]
    index = pd.MultiIndex.from_tuples(
        [("x", cell, "zeros", seed) for cell, seed in zip(cells, seeds, strict=True)], names=pairs.ALIKE
    )
    found = pairs.mean_difference(pd.Series(values, index=index))
    fit = sm.OLS(values, pd.get_dummies(pd.Series(cells)).astype(float).to_numpy()).fit()
    expected = fit.t_test(np.full((1, 3), 1 / 3))
    assert found.estimate == pytest.approx(float(expected.effect[0]))
    assert (found.low, found.high) == pytest.approx(tuple(expected.conf_int()[0]))
    assert found.rests_on == "6 pairs in 3 cells"


@pytest.mark.parametrize(
    ("values", "told"),
    [([0.1, 0.3], "+0.200"), ([0.2, 0.2, 0.2, 0.2], "+0.200"), ([], "-"), ([np.nan, 0.1], "+0.100")],
)
def test_few_pairs_or_equal_ones_have_no_interval(values: list[float], told: str) -> None:
    index = pd.MultiIndex.from_tuples([("x", "a", "zeros", n) for n in range(len(values))], names=pairs.ALIKE)
    found = pairs.mean_difference(pd.Series(values, index=index, dtype=float))
    assert found.told == told
    assert np.isnan(found.low)


def test_spread_over_seeds_is_pooled_within_cells() -> None:
    # Variances with one degree of freedom each: 0.02 (max), 0.005 (tips); the single seed of cell b has none.
    sizes = reproduce.spread(frame()).set_index("score")
    assert sizes.loc["msb_corrected", "spread"] == pytest.approx(np.sqrt((0.02 + 0.005) / 2))
    assert sizes.loc["msb_corrected", "freedom"] == 2
    assert sizes.loc["fidelity", "spread"] == 0


def test_a_run_that_comes_back_elsewhere_has_students_p() -> None:
    published = frame()
    again = published.iloc[[0]].assign(msb_corrected=0.9, consistency=0.8)
    table = reproduce.compare(published, again).set_index("score")
    assert table.loc["msb_corrected", "p"] == 1
    assert table.loc["fidelity", "p"] == 1
    spread = np.sqrt((0.02 + 0.045) / 2)
    assert table.loc["consistency", "p"] == pytest.approx(2 * stats.t.sf(0.3 / spread / np.sqrt(2), 2))
    beyond = reproduce.compare(published, published.iloc[[0]].assign(fidelity=0.6)).set_index("score")
    assert beyond.loc["fidelity", "p"] == 0


def test_without_two_seeds_nothing_can_be_compared() -> None:
    single = frame()[lambda rows: rows["seed"] == 0]
    with pytest.raises(TableError, match="no cell of x/test has runs of two seeds"):
        reproduce.compare(single, single)


def test_runs_are_drawn_from_those_of_the_tables(runs: dict[str, list[Run]]) -> None:
    ids = [run.id for run in runs["mnist"][:5]]
    rows = pd.DataFrame({"run": [*ids, "unknown", None]})
    drawn = [[run.id for run in reproduce.chosen(rows, seed)] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert all(len(set(names)) == 3 and set(names) <= set(ids) for names in drawn)
    assert len({tuple(sorted(names)) for names in drawn}) > 1
    with pytest.raises(TableError, match="the tables hold 2 runs of the recipes, fewer than 3"):
        reproduce.chosen(pd.DataFrame({"run": ids[:2]}), 0)


def test_numbers_without_an_interval_or_at_all() -> None:
    assert [counted(number, "family") for number in (0, 1, 3)] == ["0 families", "1 family", "3 families"]
    row = pd.Series({"estimate": -0.104, "low": -0.5, "high": 0.25})
    assert ranged_row(row) == "-0.10 (-0.50 to 0.25)"
    assert ranged_row(row.replace({-0.5: np.nan})) == "-0.10"
    assert ranged_row(row.replace({-0.104: np.nan})) == ranged_row(None) == "-"
