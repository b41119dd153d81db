"""What an interval or a test allows to be said, one at a time and together."""

from __future__ import annotations

import numpy as np
import pandas as pd

from invariscope.analysis.say.findings import verdict_of
from invariscope.analysis.say.statements import _verdicts
from invariscope.analysis.stats.primary import TOO_FEW, verdict


def test_verdicts():
    assert verdict(-0.5, -0.8, -0.1, 15) == "negative"
    assert verdict(0.5, 0.1, 0.8, 15) == "positive"
    assert verdict(-0.5, -0.8, 0.1, 15) == "no difference from zero"
    assert verdict(-0.5, -0.8, -0.1, 14) == "too few clusters"
    assert verdict(-0.5, np.nan, np.nan, 100) == "no number"


def test_verdicts_of_permutation_tests_and_of_slopes():
    assert verdict(-0.5, -0.8, 0.1, 7, p=0.04) == "negative"
    assert verdict(0.5, -0.1, 0.8, 11, p=0.04) == "positive"
    assert verdict(-0.5, -0.8, -0.1, 11, p=0.06) == "no difference from zero"
    assert verdict(-0.5, -0.8, -0.1, 6, p=0.04) == "too few clusters"
    assert verdict(-0.5, -0.8, -0.1, 5, df=4.0) == "negative"
    assert verdict(-0.5, -0.8, -0.1, 100, df=3.9) == "too few clusters"
    row = pd.Series({"estimate": -0.5, "low": -0.8, "high": -0.1, "n_clusters": 14, "df": 13.0, "interval": "CR2"})
    assert verdict_of(row) == "negative"
    assert verdict_of(row.replace("CR2", "t")) == TOO_FEW


def test_in_short_tells_apart_what_has_enough_operators_and_what_holds_after_holm():
    rows = pd.DataFrame({"estimate": [-1.0, -2.0, -3.0], "verdict": "negative", "n_clusters": 15, "p_holm": 0.01})
    assert _verdicts(rows).endswith("on the same side, also after Holm's correction.")
    rows["p_holm"] = [0.01, 0.01, 0.4]
    assert _verdicts(rows) == "all 3 primary estimates are told to lie below zero, 2 after Holm's correction."
    missing = pd.concat([rows, rows.tail(1).assign(verdict="no number", estimate=np.nan)])
    assert _verdicts(missing).endswith("2 after Holm's correction. 1 more have no number.")
    mixed = rows.assign(verdict=["negative", "negative", "too few clusters"], n_clusters=[15, 15, 14])
    assert _verdicts(mixed.reset_index(drop=True)) == (
        "1 of 3 primary estimates rest on too little to be tested. The fewest are 14 operators. The others: 2 "
        "negative. 3 estimates are negative and 0 positive."
    )
