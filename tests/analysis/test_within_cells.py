"""Within operators is within operator x architecture x padding: against a few lines of pandas, in every place."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm

from invariscope.analysis import analyze, join, load
from invariscope.analysis.stats import regression
from invariscope.analysis.stats.cells import BY_RUN, OPERATOR_CELL, operator_cells
from invariscope.analysis.tables.checkpoints import own

CELL = ["operator", "architecture", "padding_mode"]
PAIR = ["msb_corrected", "consistency"]

ON_150_IMAGES = "db87b3b5204ec6e98e6eb99019440b77360695435c506c3a59387976dd28b48f"
"""Fingerprint of the images of the digits tables; their swaps were measured on fewer."""


def reference_rows(repository: Path, folder: str, data: str, kind: str) -> pd.DataFrame:
    """Last snapshots of one data set and shift kind; of a plan with several fills any one."""
    where = {"data_fingerprint": ON_150_IMAGES} if folder == "digits" else {"data": f"{data}/test"}
    rows = own(join(load(repository / "data" / "reference" / folder, where=where)))
    rows = rows[rows["final"] & (rows["shift_kind"] == kind) & rows["data"].str.startswith(data)]
    return rows.drop_duplicates("checkpoint")


@pytest.fixture(scope="module")
def mixed() -> pd.DataFrame:
    """Networks whose padding moves MSB and consistency up together, and which fall with MSB inside every cell."""
    rng = np.random.default_rng(3)
    index = pd.MultiIndex.from_product([[f"o{i}" for i in range(8)], ["a", "b"], ["zeros", "circular"], range(4)])
    rows = index.to_frame(index=False, name=["operator", "architecture", "padding_mode", "seed"])
    together = 0.2 * (rows["padding_mode"] == "circular") + 0.1 * (rows["architecture"] == "b")
    own_part = rng.normal(scale=0.03, size=len(rows))
    rows["msb_corrected"] = 0.3 + together + own_part
    logit = 1 + 6 * together - 8 * own_part + rng.normal(scale=0.05, size=len(rows))
    rows["consistency"] = 1 / (1 + np.exp(-logit))
    rows["accuracy"] = 0.9 + 0.05 * rng.random(len(rows))
    rows["cluster"] = [f"run{i}" for i in range(len(rows))]
    return rows.assign(data="d/test", n_images=200)


@pytest.mark.parametrize(("kind", "stated"), [("circular", -0.32), pytest.param("zero", None, marks=pytest.mark.full)])
def test_correlations_are_centred_in_cells(repository: Path, kind: str, stated: float | None) -> None:
    tables = load(repository / "data" / "reference" / "published", where={"data_fingerprint": ON_150_IMAGES})
    fewer = dataclasses.replace(tables, surface=tables.surface.iloc[:0])
    frame = join(fewer)
    frame = frame[frame["final"] & (frame["shift_kind"] == kind)]
    found = analyze(frame, scores=["consistency"], resamples=50, permutations=99).correlations
    wanted = {"method": "within_pearson", "x": PAIR[0], "y": PAIR[1], "interval": BY_RUN, "snapshots": "final"}
    wanted |= {"shift_kind": kind, "subset": "all operators"}
    row = found[(found[list(wanted)] == pd.Series(wanted)).all(axis=1)].iloc[0]
    rows = reference_rows(repository, "published", "digits", kind)
    r = (rows[PAIR] - rows.groupby(CELL)[PAIR].transform("mean")).corr().iloc[0, 1]
    assert row["r"] == pytest.approx(r, abs=1e-6)
    assert row["within"] == OPERATOR_CELL
    assert np.isfinite(row["p"])
    if stated is not None:
        assert r == pytest.approx(stated, abs=0.005)
        assert (row["low"], row["high"]) == pytest.approx((-0.46, -0.16), abs=0.005)


@pytest.mark.parametrize(
    ("kind", "r", "low", "high"), [("circular", -0.79, -0.90, -0.574), ("zero", -0.74, -0.86, -0.53)]
)
def test_published_values_on_cifar10(repository: Path, kind: str, r: float, low: float, high: float) -> None:
    from invariscope.analysis import correlate

    rows = reference_rows(repository, "study", "cifar10", kind)
    by_hand = (rows[PAIR] - rows.groupby(CELL)[PAIR].transform("mean")).corr().iloc[0, 1]
    rows = rows.assign(**{OPERATOR_CELL: operator_cells(rows)})
    options = {"methods": ["within_pearson"], "clusters": {"runs": "cluster"}, "permutations": 0}
    row = correlate(rows, PAIR[:1], PAIR[1:], within=OPERATOR_CELL, **options).iloc[0]
    assert row["r"] == pytest.approx(by_hand, abs=1e-9)
    assert (by_hand, row["low"], row["high"]) == pytest.approx((r, low, high), abs=0.006)


def test_runs_that_are_alone_in_their_cell_count_for_nothing(mixed: pd.DataFrame) -> None:
    """The numbers are those of the other runs, to the last digit, and so are the counts."""
    from invariscope.analysis import correlate
    from invariscope.analysis.stats.regression.suite import Suite

    rows = mixed.assign(operator_spec=mixed["operator"], **{OPERATOR_CELL: operator_cells(mixed)})
    place = rows.groupby(OPERATOR_CELL).cumcount()
    rows = rows[(rows["operator"] > "o3") | (place == 0)]  # of four operators one run in each of their cells
    shared = rows[rows["operator"] > "o3"]
    assert len(rows) == 4 * 4 + 4 * 4 * 4
    options = {"methods": ["within_pearson", "within_partial_pearson", "pearson"], "covariates": ["accuracy"]}
    options |= {"clusters": {"runs": "cluster", "operators": "operator"}, "within": OPERATOR_CELL, "permutations": 99}
    for interval in ("jackknife", "bca"):
        found, wanted = (
            correlate(each, PAIR[:1], PAIR[1:], interval=interval, resamples=99, **options) for each in (rows, shared)
        )
        pd.testing.assert_frame_equal(found[found["within"] != ""], wanted[wanted["within"] != ""])
        counts = found.set_index(["method", "interval"])["n_clusters"]
        assert counts["within_pearson"].tolist() == [4 * 4 * 4, 4]
        assert counts["pearson"].tolist() == [len(rows), 8]
    lonely = correlate(rows[rows["operator"] <= "o3"], PAIR[:1], PAIR[1:], **{**options, "covariates": []}).iloc[0]
    assert (lonely["n"], lonely["n_clusters"]) == (0, 0)
    assert lonely["reason"] == "0 rows with a value in both columns that share a group are fewer than 3"
    partly = rows[
        (rows["operator"] != "o7") | (rows["architecture"] == "a") | (rows["cluster"] == rows["cluster"].iloc[-1])
    ]
    for name in ("msb", "msb_all", "msb_weight", "msb_top"):
        partly = partly.assign(**{name: partly["msb_corrected"]})
    slopes = Suite("consistency", "accuracy", ()).main(partly, ["consistency"])
    slopes = slopes[slopes["model"] == "slope within each operator"].set_index("group")
    assert (partly["operator"] == "o7").sum() == 9
    assert slopes.loc["operator=o7", "n_clusters"] == 8


def test_the_regression_takes_deviations_from_cells(mixed: pd.DataFrame) -> None:
    """The slope inside cells is that of a logit with the parts as pandas makes them, and not that inside operators."""
    numbers = ["msb_corrected", "accuracy"]
    of_cell, of_operator = (mixed.groupby(keys)[numbers].transform("mean") for keys in (CELL, "operator"))
    parts = [mixed[numbers] - of_cell, of_operator, of_cell - of_operator]
    design = pd.concat([part.add_suffix(f"_{i}") for i, part in enumerate(parts)], axis=1)
    design["b"] = (mixed["architecture"] == "b").astype(float)
    by_hand = sm.GLM(mixed["consistency"], sm.add_constant(design), family=sm.families.Binomial()).fit().params
    model = regression.FractionalLogit("m", "consistency", ("msb_corrected", "accuracy"), ("architecture",))
    found = regression.within_between(mixed, model, simulate=False).set_index("term")["estimate"]
    for part, name in enumerate(("within", "between", "between_cells")):
        assert found[f"msb_corrected_{name}"] == pytest.approx(by_hand[f"msb_corrected_{part}"], abs=1e-6)
    assert found["msb_corrected_within"] < -7
    uncentred = mixed[numbers] - of_operator
    assert uncentred.assign(c=mixed["consistency"]).corr().loc["msb_corrected", "c"] > 0
    left_out = regression.leave_one_out(mixed, model, ("operator",), within="operator")
    assert (left_out["estimate"] < -7).all()


def test_slopes_of_single_operators_are_inside_their_cells(mixed: pd.DataFrame) -> None:
    from invariscope.analysis.stats.regression.suite import Suite

    rows = mixed.assign(operator_spec=mixed["operator"], **{OPERATOR_CELL: operator_cells(mixed)})
    for name in ("msb", "msb_all", "msb_weight", "msb_top"):
        rows[name] = rows["msb_corrected"]
    found = Suite("consistency", "accuracy", ()).main(rows, ["consistency"])
    slopes = found[found["model"] == "slope within each operator"]
    assert len(slopes) == 8
    assert (slopes["estimate"] < -6).all()


def test_where_every_operator_has_one_cell_there_are_two_parts(mixed: pd.DataFrame) -> None:
    one = mixed[(mixed["architecture"] == "a") & (mixed["padding_mode"] == "zeros")]
    model = regression.FractionalLogit("m", "consistency", ("msb_corrected",))
    terms = regression.within_between(one, model, simulate=False)["term"].tolist()
    assert terms == ["intercept", "msb_corrected_within", "msb_corrected_between"]


def test_missing_columns_and_values_of_a_cell_are_levels_of_their_own() -> None:
    rows = pd.DataFrame({"operator": ["max", None, "max"], "padding_mode": ["zeros", "zeros", None]})
    assert operator_cells(rows).tolist() == ["max|zeros", "not given|zeros", "max|not given"]
    assert operator_cells(rows[["operator"]]).tolist() == ["max", "not given", "max"]
