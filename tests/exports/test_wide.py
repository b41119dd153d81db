"""The wide table: its numbers are those of the tables, its names are the documented ones, and it is a safe file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import invariscope as iv
from invariscope.analysis.exports.fields import MEANINGS
from invariscope.analysis.exports.wide import Wide
from invariscope.base.errors import TableError
from invariscope.collectors.schema import PIXEL_SCORES, SCORES


@pytest.fixture(scope="module")
def published(repository: Path) -> Any:
    return iv.load(repository / "data" / "reference" / "published")


@pytest.fixture(scope="module")
def wide(published: Any) -> Wide:
    return iv.wide_table(published)


def test_a_row_per_name_and_same_as_what_the_analysis_counts_once(published: Any, wide: Wide) -> None:
    assert sorted(wide.rows["checkpoint"]) == sorted(published.checkpoints["checkpoint"])
    copies = set(wide.rows.loc[wide.rows["same_as"].notna(), "checkpoint"])
    assert copies == set(iv.join(published).attrs["copies"])
    assert len(copies) == 16


def test_every_score_is_that_of_its_row(published: Any, wide: Wide) -> None:
    """Each number of the long table, looked up one by one."""
    network = wide.rows.set_index(["sha256", "model"])
    network = network[~network.index.duplicated()]
    seen = 0
    for row in published.invariance.sample(300, random_state=0).itertuples():
        plan = {"none": "", "circular": "_circular_4px", "zero": "_zero_background_4px"}[row.shift_kind]
        for suffix, value in (("", row.value), ("_se", row.se), ("_low", row.low), ("_high", row.high)):
            found = network.loc[(row.sha256, row.model), f"{row.score}{plan}{suffix}"]
            assert found == value or (np.isnan(found) and np.isnan(value))
            seen += not np.isnan(value)
    assert seen > 1000


def test_readings_are_those_of_the_analysis(published: Any, wide: Wide) -> None:
    joined = iv.join(published).drop_duplicates("checkpoint").set_index("checkpoint")
    rows = wide.rows.set_index("checkpoint").loc[joined.index]
    for name in ("msb_corrected", "msb", "flat_fraction", "accuracy", "n_sites", "operator_equivariance_error"):
        np.testing.assert_array_equal(rows[name].to_numpy(float), joined[name].to_numpy(float))


def test_every_score_and_column_has_a_meaning(wide: Wide) -> None:
    assert set(MEANINGS) == {*SCORES, *PIXEL_SCORES, "robust_accuracy"}
    assert [one.name for one in wide.fields] == list(wide.rows.columns)
    assert all(one.meaning for one in wide.fields)
    zero = next(one for one in wide.fields if one.name == "consistency_zero_background_4px")
    assert (zero.role, zero.unit) == ("score", "1")
    assert zero.meaning.endswith("zero shifts of up to 4 input pixels, filled with background, 9 sampled per image")


def test_plans_of_one_name_are_told_apart(published: Any) -> None:
    rows = published.invariance
    more = rows[rows["shift_kind"] == "circular"].assign(plan="grid", n_shifts=81)
    both = replace(published, invariance=pd.concat([rows, more], ignore_index=True))
    names = set(iv.wide_table(both, "resnet8-avg-*").scores)
    assert {"consistency_circular_4px_sampled9", "consistency_circular_4px_grid81"} <= names
    assert "consistency_circular_4px" not in names
    assert "consistency_zero_background_4px" in names
    with pytest.raises(TableError, match="two measurements of accuracy of checkpoint"):
        iv.wide_table(replace(published, invariance=pd.concat([rows, rows], ignore_index=True)))


def test_robustness_and_cost_are_columns(repository: Path) -> None:
    tables = iv.load(repository / "data" / "reference" / "study")
    wide = iv.wide_table(tables)
    long = tables.robustness[tables.robustness["condition_kind"] == "adversarial"].iloc[0]
    column = f"robust_accuracy_{long['condition']}_{long['norm']}_"
    column += "1_255" if long["severity"] < 0.005 else "2_255" if long["severity"] < 0.01 else f"{long['severity']:g}"
    row = wide.rows[(wide.rows["sha256"] == long["sha256"]) & (wide.rows["data"] == long["data"])]
    assert row[column].iloc[0] == long["accuracy"]
    cost = tables.cost[tables.cost["quantity"] == "multiply_adds"].iloc[0]
    row = wide.rows[wide.rows["sha256"] == cost["sha256"]]
    assert row["cost_multiply_adds"].iloc[0] == cost["value"]
    units = {one.name: one.unit for one in wide.fields}
    assert (units["cost_latency"], units["cost_multiply_adds"]) == ("s", "multiply-adds")


def test_strengths_of_attacks_have_columns_of_their_own(repository: Path) -> None:
    tables = iv.load(repository / "data" / "reference" / "study")
    rows = tables.robustness[tables.robustness["condition_kind"] == "adversarial"]
    one = rows[rows["checkpoint"] == rows["checkpoint"].iloc[0]].iloc[:1].assign(norm="l2")
    strengths = {0.001: "0_001", 0.0019: "0_0019", 0.0505: "0_0505", 2 / 255: "2_255", 0.5: "1_2", 3.0: "3"}
    names = {f"robust_accuracy_{one['condition'].iloc[0]}_l2_{text}": eps for eps, text in strengths.items()}
    more = pd.concat([one.assign(severity=eps, accuracy=eps / 4) for eps in strengths], ignore_index=True)
    wide = iv.wide_table(replace(tables, robustness=more), one["checkpoint"].iloc[0])
    assert {name for name in wide.scores if name.startswith("robust_accuracy")} == set(names)
    for name, eps in names.items():
        assert wide.rows[name].dropna().tolist() == [eps / 4]


def test_files_hold_the_table_and_its_columns(published: Any, wide: Wide, tmp_path: Path) -> None:
    written = iv.export(published, tmp_path / "scores.csv")
    assert [path.name for path in written] == ["scores.csv", "scores.columns.csv"]
    pd.testing.assert_frame_equal(pd.read_csv(written[0]), wide.rows, check_dtype=False)
    about = pd.read_csv(written[1], keep_default_na=False)
    assert about.to_dict("records") == [vars(one) for one in wide.fields]
    (path,) = iv.export(published, tmp_path / "scores.parquet")
    table = pq.read_table(path)
    assert table.schema.field("epoch").metadata == {
        b"role": b"factor",
        b"unit": b"epochs",
        b"meaning": b"epochs trained at the snapshot",
    }
    pd.testing.assert_frame_equal(table.to_pandas(), wide.rows, check_dtype=False)


def test_names_of_a_manifest_run_in_no_spreadsheet_and_mixed_factors_are_text(published: Any, tmp_path: Path) -> None:
    described = published.checkpoints.copy()
    described.loc[0, ["checkpoint", "factors"]] = ["=cmd()", '{"width": 4, "note": "@x"}']
    described.loc[1, "factors"] = '{"width": "wide"}'
    tables = replace(published, checkpoints=described)
    iv.export(tables, tmp_path / "scores.csv")
    text = (tmp_path / "scores.csv").read_text()
    assert "'=cmd()" in text
    assert "'@x" in text
    (path,) = iv.export(tables, tmp_path / "scores.parquet")
    assert set(pq.read_table(path)["factor_width"].to_pylist()) == {"4", "wide", None}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "scores.xlsx"}, "its ending names no exporter"),
        ({"out": "a.csv", "to": "cvs"}, "unknown exporter 'cvs'"),
        ({"out": "a.csv", "license": "MIT"}, "license is no option of the exporter csv"),
        ({"out": "a.csv", "only": "resnet9-*"}, "no checkpoint has such a name"),
        ({"out": "a.csv", "only": "resnet8-aps-circular-s0-e019"}, "did you mean"),
        ({"out": "a.yaml"}, "a model card is of one checkpoint, and 200 are there"),
        ({"out": "a.json"}, "give the local folder"),
    ],
)
def test_what_cannot_be_exported_is_said(published: Any, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    out = tmp_path / options.pop("out")
    with pytest.raises(TableError, match=words):
        iv.export(published, out, **options)
    assert list(tmp_path.iterdir()) == []
