"""The rivals of MSB as predictors: their rows are right, marked, and move no number of the plan."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.outliers_influence import variance_inflation_factor

from invariscope.analysis.stats.cells import Cell, cells_of, operator_cells
from invariscope.analysis.stats.permutation import holm
from invariscope.analysis.stats.rivals import EXPLORATORY, PLANNED, TOGETHER, Rivals
from invariscope.analysis.study import analyze
from invariscope.base.errors import TableError

FEW = {"resamples": 20, "permutations": 19}
RIVALS = ("selectivity", "aliasing", "see", "see_padding")


@pytest.fixture(scope="module")
def frame(simulate: ModuleType) -> pd.DataFrame:
    """Eight operators with three rivals; a fourth is the sum of two of them, and tells nothing more."""
    zoo = simulate.Zoo(n_operators=8, seeds=2, epochs=(8.0, 24.0), padding_modes=("zeros",), shift_kinds=("zero",))
    rows = simulate.simulate_frame(zoo)
    rng = np.random.default_rng(1)
    made = {name: rng.uniform(size=len(rows)).round(6) for name in ("selectivity", "aliasing")}
    see = (1 - rows["consistency"] + rng.normal(scale=0.02, size=len(rows))).round(6)
    others = {"position": np.nan, "msb_jacobian": np.nan, "see_padding": made["selectivity"] + see}
    return rows.assign(**made, see=see, **others)


@pytest.fixture(scope="module")
def rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(operator_cell=operator_cells(frame))


@pytest.fixture(scope="module")
def tables(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlations and regressions of the primary plan."""
    rivals = Rivals.of(rows, ["consistency"], "accuracy", "primary")
    cells = list(cells_of(rows, ["data"]))
    return rivals.correlations(cells, {**FEW, "interval": "jackknife", "seed": 0}), rivals.regressions(cells)


def test_nothing_of_the_plan_moves(frame: pd.DataFrame) -> None:
    few = frame[frame["epoch"] == 24]
    found, without = (
        analyze(few, scores=("consistency", "kappa"), rivals=which, **FEW) for which in ("primary", "none")
    )
    assert found.primary.to_csv() == without.primary.to_csv()
    assert found.opening == without.opening
    for name in ("correlations", "regressions"):
        table, plain = getattr(found, name), getattr(without, name)
        assert set(plain["role"]) == {PLANNED}
        planned = table[table["role"] == PLANNED]
        assert planned[plain.columns].to_csv() == plain.to_csv()
        assert set(table.loc[table["role"] != PLANNED, "role"]) == {EXPLORATORY}
        assert set(table.loc[table["x"].isin(RIVALS), "role"]) == {EXPLORATORY}
        assert set(table.loc[table["role"] == EXPLORATORY, "y"]) == {"consistency"}  # kappa is no main score
    (fold,) = [fold for fold in found.folds if fold.title == "Rivals of MSB (exploratory)"]
    assert "over 8 operators, zero shifts up to 4 px on digits test: `selectivity`" in fold.text
    assert "`see_padding` told wholly by the others" in fold.text
    assert not any(fold.title.startswith("Rivals") for fold in without.folds)


def test_they_are_of_the_primary_plan_unless_asked(frame: pd.DataFrame, rows: pd.DataFrame) -> None:
    cells = list(cells_of(rows, ["data"]))
    other = list(cells_of(rows.assign(n_shifts=5), ["data"]))
    assert {cell.labels["snapshots"] for cell in cells} == {"final", "all"}

    def wanted(which: str, among: list[Cell]) -> list[object]:
        rivals = Rivals.of(rows, ["consistency"], "accuracy", which)
        return [cell.labels["snapshots"] for cell in among if rivals.wants(cell)]

    assert set(wanted("primary", cells)) == {"final"}
    assert wanted("primary", other) == wanted("none", cells) == []
    assert len(wanted("all", other)) == len(other)
    assert Rivals.of(rows, ["consistency"], "accuracy", "all").readings == RIVALS
    with pytest.raises(TableError, match="unknown choice of rivals 'al': did you mean 'all'"):
        analyze(frame, rivals="al")


def test_their_coefficients_and_corrections(frame: pd.DataFrame, tables: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    rows = tables[0]
    last = frame[(frame["epoch"] == 24) & (frame["shift_kind"] == "zero")]
    cell = rows[(rows["shift_kind"] == "zero") & (rows["subset"] == "all operators") & (rows["x"] == "see")]
    one = cell[(cell["level"] == "checkpoints") & (cell["method"] == "pearson")].iloc[0]
    assert one["r"] == pytest.approx(stats.pearsonr(last["see"], last["consistency"]).statistic)
    means = last.groupby("operator")[["see", "consistency"]].mean()
    one = cell[(cell["level"] == "operator means") & (cell["method"] == "spearman")].iloc[0]
    assert one["r"] == pytest.approx(stats.spearmanr(means["see"], means["consistency"]).statistic)
    together = rows.groupby("interval")["p"].transform(holm)
    np.testing.assert_allclose(rows["p_holm"], together)


def test_readings_together_report_how_far_the_others_tell_them(
    frame: pd.DataFrame, tables: tuple[pd.DataFrame, pd.DataFrame]
) -> None:
    regressions = tables[1]
    rows = regressions[regressions["model"] == TOGETHER]
    rows = rows[(rows["shift_kind"] == "zero") & (rows["subset"] == "all operators")].set_index("term")
    last = frame[(frame["epoch"] == 24) & (frame["shift_kind"] == "zero")]
    names = ["msb_corrected", "selectivity", "aliasing", "see"]
    design = sm.add_constant(last[[*names, "accuracy"]].astype(float))
    for place, name in enumerate(names, start=1):
        wanted = variance_inflation_factor(design.to_numpy(), place)
        assert rows.loc[name, "vif"] == pytest.approx(wanted, rel=1e-6)
    fit = sm.GLM(last["consistency"], design, family=sm.families.Binomial()).fit()
    assert rows.loc["see", "estimate"] == pytest.approx(fit.params["see"], rel=1e-5)
    assert rows.loc["see_padding", "vif"] == np.inf
    assert np.isnan(rows.loc["see_padding", "estimate"])
    assert rows.loc["see_padding", "reason"] == "the other readings tell this one: left out of the fit"
    alone = regressions.query(
        "x == 'see' and model == 'fractional logit' and shift_kind == 'zero' and subset == 'all operators' "
        "and term == 'see'"
    ).iloc[0]
    fit = sm.GLM(last["consistency"], design[["const", "see", "accuracy"]], family=sm.families.Binomial()).fit()
    assert alone["estimate"] == pytest.approx(fit.params["see"], rel=1e-5)
