"""Regressions in other units and without a spread: nothing found depends on units, and every search stops."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf

from invariscope.analysis.figures.fits import logit_curve
from invariscope.analysis.stats.regression import (
    FractionalLogit,
    LogitOLS,
    MixedEffects,
    compare,
    fit,
    fit_mixed,
    leave_one_out,
    within_between,
)
from invariscope.analysis.stats.regression import wild as wild_module
from invariscope.analysis.stats.regression.wild import wild_bootstrap_t
from tests.analysis.simulate import logits_of, regression_frame

LOGIT = FractionalLogit("logit", "c", ("m", "accuracy"), ("architecture",))
OLS = LogitOLS("ols", "c", ("m", "accuracy"), ("architecture",))
MIXED = MixedEffects("mixed", "c", ("m", "accuracy"), ("architecture",))

FITS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "logit": lambda frame: fit(frame, LOGIT, simulate=False),
    "least squares": lambda frame: fit(frame, OLS, simulate=False),
    "plain t": lambda frame: fit(frame, replace(LOGIT, interval="t"), simulate=False),
    "wild": lambda frame: fit(frame, replace(OLS, interval="wild bootstrap-t"), simulate=False),
    "within": lambda frame: within_between(frame, LOGIT, simulate=False),
    "mixed": lambda frame: fit_mixed(frame, MIXED),
}

ON_150_IMAGES = "db87b3b5204ec6e98e6eb99019440b77360695435c506c3a59387976dd28b48f"
"""Fingerprint of the images of the digits tables; their swaps were measured on fewer."""


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return regression_frame(groups=12)


@pytest.mark.parametrize("name", list(FITS))
@pytest.mark.parametrize("unit", [1e-12, 1e9])
def test_units_of_a_column_change_nothing_but_its_own_numbers(name: str, unit: float, frame: pd.DataFrame) -> None:
    plain, scaled = (FITS[name](one).set_index("term") for one in (frame, frame.assign(m=frame["m"] * unit)))
    assert scaled.index.tolist() == plain.index.tolist()
    assert (scaled["reason"] == plain["reason"]).all()
    for term in plain.index[plain["estimate"].notna()]:
        per_unit = "m" in re.split(r"[^a-z]", term) and not term.startswith("correlation")
        factor = unit if per_unit else 1.0
        for column in ("estimate", "se", "low", "high"):
            expected = plain.loc[term, column]
            assert scaled.loc[term, column] * factor == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True), term


def test_units_change_neither_influence_nor_comparison(frame: pd.DataFrame) -> None:
    small = frame.assign(m=frame["m"] * 1e-12)
    plain, scaled = (leave_one_out(one, LOGIT, ["operator"]) for one in (frame, small))
    np.testing.assert_allclose(scaled["estimate"] * 1e-12, plain["estimate"], rtol=1e-6)
    np.testing.assert_allclose(scaled["cooks_distance"][1:], plain["cooks_distance"][1:], rtol=1e-5)
    plain, scaled = (compare(one, LOGIT, hold_out=("operator",)) for one in (frame, small))
    for column in ("baseline", "with_x", "statistic", "p"):
        np.testing.assert_allclose(scaled[column], plain[column], rtol=1e-6, atol=1e-9)


def test_a_curve_is_drawn_in_any_unit(frame: pd.DataFrame) -> None:
    plain, small = (logit_curve(x, frame["c"], frame["operator"]) for x in (frame["m"], frame["m"] * 1e-13))
    assert plain is not None
    assert small is not None
    assert small.slope * 1e-13 == pytest.approx(plain.slope, rel=1e-4)


@pytest.mark.parametrize("noise", [0.0, 1e-16, 1e-13])
def test_the_wild_bootstrap_ends_where_the_error_is_none(noise: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slopes whose standard error is about the spacing of floats: every search takes a bounded number of tests."""
    rng = np.random.default_rng(0)
    codes = np.repeat(np.arange(6), 4)
    x = rng.random(24)
    asked = 0
    plain = wild_module._Test.p

    def counting(self: Any, hypothesis: float) -> float:
        nonlocal asked
        asked += 1
        assert asked <= 2 * (wild_module._STEPS_OUT + wild_module._HALVINGS) + 1
        return plain(self, hypothesis)

    monkeypatch.setattr(wild_module._Test, "p", counting)
    design = np.column_stack([np.ones(24), x])
    found = wild_bootstrap_t(design, 3.0 + 5.0 * x + noise * rng.normal(size=24), codes, 1, draws=99, simulate=False)
    assert found.se < 1e-11
    assert asked > 2


def test_no_loop_of_the_analysis_is_without_a_bound(repository: Path) -> None:
    """Loops run over something, or a number of times: `while` has no place there."""
    found = [
        f"{path.relative_to(repository)}:{node.lineno}"
        for path in sorted((repository / "analysis").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.While)
    ]
    assert found == []


def test_one_row_per_group_has_no_variance_split() -> None:
    frame = regression_frame(groups=12)
    frame["run"] = [f"run{row}" for row in range(len(frame))]
    table = fit_mixed(frame, replace(MIXED, group="run"))
    assert table["estimate"].isna().all()
    reason = (
        "0 groups (run) of several rows are fewer than 5: what lies between groups cannot be told from the residual"
    )
    assert set(table["reason"]) == {reason}
    frame.loc[:7, "run"] = np.repeat(["a", "b", "c", "d"], 2)
    assert (
        fit_mixed(frame, replace(MIXED, group="run"))["reason"].str.startswith("4 groups (run) of several rows").all()
    )


def test_random_slopes_are_those_of_statsmodels() -> None:
    frame = regression_frame(1, groups=40, slope_sd=0.8)
    table = fit_mixed(frame, MIXED).set_index("term")
    data = frame.assign(y=logits_of(frame), m=frame["m"] - frame["m"].mean())
    expected = smf.mixedlm("y ~ m + accuracy + architecture", data, groups="operator", re_formula="~m").fit(reml=True)
    assert table.loc["m", "estimate"] == pytest.approx(expected.params["m"], abs=1e-3)
    assert table.loc["m", "se"] == pytest.approx(expected.bse["m"], rel=2e-3)
    spread = np.sqrt(np.diag(expected.cov_re))
    assert table.loc["sd(m | operator)", "estimate"] == pytest.approx(spread[1], rel=5e-3)
    assert table.loc["sd(residual)", "estimate"] == pytest.approx(np.sqrt(expected.scale), rel=2e-3)


def test_rounding_in_the_data_does_not_choose_the_mixed_slope(bundled_rows: pd.DataFrame) -> None:
    """On the demo's table differences of 1e-8 made it -0.69 or -1.48."""
    model = MixedEffects("mixed", "consistency", ("msb_corrected", "accuracy"), ("architecture",))
    found = []
    for seed in range(3):
        noise = 1e-8 * np.random.default_rng(seed).normal(size=len(bundled_rows)) * (seed > 0)
        rows = bundled_rows.assign(msb_corrected=bundled_rows["msb_corrected"] + noise)
        found.append(fit_mixed(rows, model).set_index("term"))
    for other in found[1:]:
        assert other.index.tolist() == found[0].index.tolist()
        np.testing.assert_allclose(other["estimate"], found[0]["estimate"], atol=1e-4)


@pytest.fixture(scope="module")
def bundled_rows(repository: Path) -> pd.DataFrame:
    from invariscope.analysis import join, load

    rows = join(load(repository / "data" / "reference" / "published", where={"data_fingerprint": ON_150_IMAGES}))
    return rows[rows["final"] & (rows["shift_kind"] == "circular")]
