"""The tables read by column, and by duckdb and polars as they lie."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.dataset as ds
import pytest

from invariscope.analysis import TableError, load_table

WHERE = {"score": "consistency", "shift_kind": ["circular", "zero"]}
KEYS = ["shift_kind", "max_shift"]


@pytest.fixture(scope="module")
def folder(repository: Path) -> Path:
    return repository / "data" / "reference" / "population" / "tables"


@pytest.fixture(scope="module")
def expected(folder: Path) -> pd.Series:
    rows = load_table(folder, "invariance", where=WHERE)
    return rows.groupby(KEYS)["value"].mean()


def test_only_the_columns_asked_for_are_read(
    folder: Path, expected: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    plain = ds.Dataset.scanner

    class Watched:
        def __init__(self, dataset: ds.Dataset) -> None:
            self.dataset = dataset

        def scanner(self, **options: object) -> ds.Scanner:
            asked.append(options)
            return plain(self.dataset, **options)

        def __getattr__(self, name: str) -> object:
            return getattr(self.dataset, name)

    monkeypatch.setattr("invariscope.collectors.store.reader.ds.dataset", lambda *a, **k: Watched(ds_dataset(*a, **k)))
    rows = load_table(folder, "invariance", columns=[*KEYS, "value"], where=WHERE)
    assert list(rows.columns) == [*KEYS, "value"]
    pd.testing.assert_series_equal(rows.groupby(KEYS)["value"].mean(), expected)
    assert all(list(options["columns"]) == [*KEYS, "value"] for options in asked)
    assert all("consistency" in str(options["filter"]) for options in asked)


ds_dataset = ds.dataset


def test_an_empty_table_has_the_columns_asked_for_and_an_unknown_one_is_named(folder: Path) -> None:
    assert list(load_table(folder, "cost", columns=["quantity"]).columns) == ["quantity"]
    with pytest.raises(TableError, match="valu"):
        load_table(folder, "invariance", columns=["valu"])


def test_duckdb_reads_the_parts(folder: Path, expected: pd.Series) -> None:
    duckdb = pytest.importorskip("duckdb")
    query = f"""
        SELECT shift_kind, max_shift, avg(value) FROM read_parquet('{(folder / "invariance").as_posix()}/*.parquet')
        WHERE score = 'consistency' AND shift_kind IN ('circular', 'zero') GROUP BY ALL"""
    found = {(kind, shift): mean for kind, shift, mean in duckdb.sql(query).fetchall()}
    assert found == pytest.approx(expected.to_dict(), abs=1e-12)


def test_polars_reads_the_parts(folder: Path, expected: pd.Series) -> None:
    polars = pytest.importorskip("polars")
    rows = polars.scan_parquet(folder / "invariance" / "*.parquet").filter(
        (polars.col("score") == "consistency") & polars.col("shift_kind").is_in(["circular", "zero"])
    )
    found = rows.group_by(KEYS).agg(polars.col("value").mean()).collect()
    means = {(kind, shift): mean for kind, shift, mean in found.rows()}
    assert means == pytest.approx(expected.to_dict(), abs=1e-12)
