"""Numbers in words: every form that an estimate and its interval take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from invariscope.analysis.say import numbers
from invariscope.base.words import are, counted

ROW = pd.Series(
    {"r": -0.456, "low": -0.7, "high": -0.204, "reason": "", "n_clusters": 11, "nominal": 0.95, "coverage": 0.9}
)
NOTHING = pd.Series({**ROW, "r": np.nan, "low": np.nan, "high": np.nan, "reason": "x is constant"})
BARE = pd.Series({**ROW, "low": np.nan, "high": np.nan, "reason": "no interval"})


def test_with_an_interval() -> None:
    assert numbers.with_interval(ROW) == "-0.46 (-0.70 to -0.20)"
    assert numbers.with_interval(ROW.rename({"r": "estimate"})) == "-0.46 (-0.70 to -0.20)"
    assert numbers.ranged(0.5, 0.1, 0.9, 3, sign="+") == "+0.500 (+0.100 to +0.900)"
    assert numbers.bracketed(-0.456, -0.7, -0.204) == "−0.46 [−0.70, −0.20]"
    assert numbers.plus_minus(0.5, 0.4, 0.6, 3) == "0.500 ± 0.100"
    assert numbers.r_in_words(ROW, "ρ") == "ρ = −0.46 [−0.70, −0.20]"
    assert numbers.in_line(ROW, "operators") == "-0.46 [-0.70, -0.20]  11 operators, coverage 0.90"


def test_without_one() -> None:
    assert numbers.with_interval(BARE) == "-0.46 (no interval)"
    assert numbers.ranged(-0.456, np.nan, np.nan) == "-0.46"
    assert numbers.bracketed(-0.456, np.nan, np.nan) == "−0.46"
    assert numbers.plus_minus(0.5, np.nan, np.nan) == "0.50"
    assert numbers.r_in_words(BARE) == "r = −0.46"
    assert numbers.in_line(BARE, "operators") == "-0.46 (no interval)"


def test_without_a_number() -> None:
    assert numbers.with_interval(NOTHING) == "no number (x is constant)"
    assert numbers.r_in_words(NOTHING) == "r: –"
    assert numbers.in_line(NOTHING, "operators") == "  -   (x is constant)"


def test_coverage_stands_beside_an_interval_alone() -> None:
    assert numbers.coverage(ROW, ", coverage {:.2f}") == ", coverage 0.90"
    assert numbers.nominal_and_coverage(ROW) == " (nominal 0.95, simulated coverage 0.90)"
    unknown = pd.Series({**ROW, "coverage": np.nan})
    for row in (BARE, NOTHING, unknown):
        assert numbers.coverage(row) == numbers.nominal_and_coverage(row) == ""


def test_a_zero_has_no_sign() -> None:
    assert numbers.number(-0.001) == "0.00"


@pytest.mark.parametrize(
    ("number", "noun", "told"),
    [(1, "pair", "1 pair"), (0, "pair", "0 pairs"), (2.0, "family", "2 families"), (1.0, "family", "1 family")],
)
def test_counts(number: float, noun: str, told: str) -> None:
    assert counted(number, noun) == told
    assert are(number) == ("is" if number == 1 else "are")
