"""What a slope adds to a model, in sample and for groups left out, against refits by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
import statsmodels.formula.api as smf

from invariscope.analysis import TableError
from invariscope.analysis.stats.regression import (
    FractionalLogit,
    LogitOLS,
    compare,
    fit,
)
from tests.analysis.simulate import logits_of, regression_frame


@pytest.fixture(scope="module")
def frame():
    return regression_frame()


LOGIT = FractionalLogit("logit", "c", ("m", "accuracy"), ("architecture", "data"))
OLS = LogitOLS("ols", "c", ("m", "accuracy"), ("architecture", "data"))


def test_what_a_slope_adds_in_sample(frame):
    data = frame.assign(y=logits_of(frame))
    base, full = (smf.ols(f"y ~ accuracy + architecture{m}", data).fit() for m in ("", " + m"))
    table = compare(frame, OLS, hold_out=()).set_index("measure")
    assert table.loc["R2", ["baseline", "with_x"]].tolist() == pytest.approx([base.rsquared, full.rsquared], abs=1e-10)
    assert table.loc["R2", "difference"] == pytest.approx(full.rsquared - base.rsquared, abs=1e-10)
    statistic, _, df = full.compare_lr_test(base)
    assert table.loc["likelihood ratio", "statistic"] == pytest.approx(statistic, rel=1e-9)
    assert table.loc["likelihood ratio", "df"] == df
    assert "supposes independent rows" in table.loc["likelihood ratio", "note"]
    row = fit(frame, OLS).set_index("term").loc["m"]
    assert table.loc["Wald", "statistic"] == pytest.approx((row["estimate"] / row["se"]) ** 2, rel=1e-10)
    assert table.loc["Wald", "df"] == pytest.approx(row["df"])
    # Eight operators: a likelihood ratio claims nothing, the Wald test has four degrees of freedom or more.
    assert np.isnan(table.loc["likelihood ratio", "p"])
    assert table.loc["Wald", "df"] >= 4
    assert table.loc["Wald", "p"] == pytest.approx(row["p"], rel=1e-9)
    few = compare(regression_frame(groups=4), OLS, hold_out=()).set_index("measure")
    assert few.loc["Wald", "df"] < 4
    assert few["p"].isna().all()
    many = regression_frame(groups=20)
    table, row = compare(many, OLS, hold_out=()).set_index("measure"), fit(many, OLS).set_index("term").loc["m"]
    assert table.loc["Wald", "p"] == pytest.approx(row["p"], rel=1e-9)
    family = sm.families.Binomial()
    base, full = (smf.glm(f"c ~ accuracy + architecture{m}", frame, family=family).fit(tol=1e-12) for m in ("", " + m"))
    row = compare(frame, LOGIT, hold_out=()).set_index("measure").loc["deviance R2"]
    expected = [1 - fit_.deviance / fit_.null_deviance for fit_ in (base, full)]
    assert row[["baseline", "with_x"]].tolist() == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("kind", ["operator", "architecture"])
def test_what_a_slope_adds_out_of_sample(frame, kind):
    table = compare(frame, LOGIT).query("held_out_kind == @kind").set_index(["held_out", "measure"])
    factor = "" if kind == "architecture" else " + architecture"
    errors = {"baseline": [], "with_x": []}
    for value in sorted(frame[kind].unique()):
        train, test = frame[frame[kind] != value], frame[frame[kind] == value]
        for column, formula in (("baseline", "accuracy"), ("with_x", "accuracy + m")):
            found = smf.glm(f"c ~ {formula}{factor}", train, family=sm.families.Binomial()).fit(tol=1e-12)
            error = test["c"] - found.predict(test)
            errors[column].append(error)
            assert table.loc[(value, "RMSE"), column] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-7)
            assert table.loc[(value, "MAE"), column] == pytest.approx(error.abs().mean(), rel=1e-7)
    for column, parts in errors.items():
        every = pd.concat(parts)
        assert table.loc[("all", "RMSE"), column] == pytest.approx(np.sqrt((every**2).mean()), rel=1e-7)
    assert table.loc[("all", "RMSE"), "difference"] < 0
    assert table.loc[("all", "RMSE"), "n"] == len(frame)


def test_a_level_that_no_other_row_has_is_not_predicted(frame):
    new = frame.assign(data=np.where(frame["operator"] < "op04", "A", "B"), tag="t1")
    new.loc[new.index[new["data"] == "A"][:5], "data"] = "C"
    new.loc[new["data"] == "C", "tag"] = "t0"
    new.loc[new.index[new["data"] == "B"][::2], "tag"] = "t2"
    model = replace(LOGIT, factors=("tag",))
    table = compare(new, model, ["data"]).query("held_out_kind == 'data'").set_index(["held_out", "measure"])
    for measure in ("RMSE", "MAE"):
        for value, level in (("B", "t2"), ("C", "t0")):
            row = table.loc[(value, measure)]
            assert row["reason"] == f"without it: no row has the tag {level}"
            assert row[["baseline", "with_x"]].isna().all()
        every, only = table.loc[("all", measure)], table.loc[("A", measure)]
        assert only["reason"] == ""
        assert every[["baseline", "with_x", "n"]].tolist() == only[["baseline", "with_x", "n"]].tolist()
        assert every["note"].endswith("; without B, C, which have no number")
    test, train = new[new["data"] == "A"], new[new["data"] != "A"]
    found = smf.glm("c ~ accuracy + m + tag", train, family=sm.families.Binomial()).fit(tol=1e-12)
    error = test["c"] - found.predict(test)
    assert table.loc[("A", "RMSE"), "with_x"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-7)


def test_comparisons_that_cannot_be_made_say_why(frame, recwarn):
    one = compare(frame.assign(architecture="cnn"), LOGIT).query("held_out_kind == 'architecture'")
    assert one["reason"].unique().tolist() == ["no two values of architecture: nothing can be held out"]
    table = compare(frame[frame["operator"] < "op03"], LOGIT).query("held_out_kind == 'operator'")
    assert table["reason"].str.contains("without it: 2 clusters").all()
    for change in (
        lambda f: f.assign(m=0.4),
        lambda f: f.assign(c=np.nan),
        lambda f: f.iloc[:2],
        lambda f: f.assign(operator="max"),
        lambda f: f.assign(m=np.inf),
    ):
        for model in (LOGIT, OLS):
            table = compare(change(frame), model)
            assert (table["reason"] != "").all()
            assert table[["baseline", "with_x", "statistic"]].isna().all(axis=None)
    with pytest.raises(TableError, match="no such columns m"):
        compare(frame.drop(columns="m"), LOGIT)
    assert not recwarn.list
