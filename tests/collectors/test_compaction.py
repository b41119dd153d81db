"""Compacted tables: the same rows in fewer files, of which resuming, replacing and reading think as of single parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from invariscope_tests_same_tables import loaded, same
from safetensors.torch import save_file

from invariscope.analysis import load
from invariscope.base.errors import DataError, OutputError
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.options import Options
from invariscope.collectors.schema import SCHEMA_VERSION, TABLES
from invariscope.collectors.store import compaction
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.loading import build_model

OPTIONS = Options(collect=("layers", "invariance"), shift=("circular",), n_shifts=3, msb_images=4)
ReadAll = Callable[[Path], dict[str, pd.DataFrame]]


def run(zoo: list[Checkpoint], images: ImageSet, out: Path) -> CollectOutcome:
    return collect(zoo, images.head(10), out, OPTIONS, progress=False)


@pytest.fixture
def out(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> Path:
    run(zoo, images, tmp_path / "out")
    return tmp_path / "out"


def test_compacted_tables_hold_the_same_rows_in_one_file_each(out: Path, read_all: ReadAll) -> None:
    before = read_all(out)
    timings = pq.read_table(out / "timings").num_rows
    done = {item.table: item for item in compact(out)}
    assert (done["invariance"].before, done["invariance"].after) == (6, 1)
    assert done["timings"].rows == timings == 12
    for table in ("checkpoints", "layers", "invariance", "timings"):
        (part,) = (out / table).glob("*.parquet")
        assert pq.read_schema(part).metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
        assert pq.read_schema(part).equals(TABLES[table], check_metadata=False)
    same(before, read_all(out))
    same({name: before[name] for name in ("checkpoints", "layers", "invariance")}, loaded(out))
    assert compact(out) == []


def test_a_run_goes_on_from_compacted_tables(
    zoo: list[Checkpoint], images: ImageSet, out: Path, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    run(zoo[:2], images, fresh)
    compact(fresh)
    assert (outcome := run(zoo[:2], images, fresh)).measured == 0
    assert outcome.found == 8
    assert run(zoo, images, fresh).measured == 4
    same(loaded(out), loaded(fresh))
    compact(fresh)
    same(loaded(out), loaded(fresh))
    assert len(list((fresh / "layers").glob("*.parquet"))) == 1


def test_replaced_weights_and_new_factors_reach_into_compacted_tables(
    zoo: list[Checkpoint], images: ImageSet, out: Path, tmp_path: Path, read_all: ReadAll
) -> None:
    compact(out)
    torch.manual_seed(99)
    save_file(build_model(zoo[0].model).state_dict(), zoo[0].weights)
    changed = [zoo[0], replace(zoo[1], factors={**zoo[1].factors, "note": "two"}), zoo[2]]
    outcome = run(changed, images, out)
    assert (outcome.measured, outcome.replaced) == (5, ["max"])
    run(changed, images, tmp_path / "fresh")
    same(loaded(tmp_path / "fresh"), loaded(out))
    compact(out)
    same(read_all(tmp_path / "fresh"), read_all(out))


@pytest.mark.parametrize("deleted", [0, 3])
def test_whoever_reads_after_a_kill_counts_each_task_once(
    zoo: list[Checkpoint], images: ImageSet, out: Path, deleted: int, read_all: ReadAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = read_all(out)
    for table in ("checkpoints", "layers", "invariance"):
        die_while_deleting(out, table, deleted if table == "invariance" else 0, monkeypatch)
    assert len(list((out / "invariance").glob("*.parquet"))) == 6 - deleted + 1
    expected = {name: before[name] for name in ("checkpoints", "layers", "invariance")}
    same(expected, loaded(out))
    assert run(zoo, images, out).measured == 0
    die_while_deleting(out, "layers", 0, monkeypatch)  # leaves two compacted parts beside the single ones
    assert len(list((out / "layers").glob("compacted-*.parquet"))) == 2
    same(expected, loaded(out))
    compact(out)
    same(before, read_all(out))


def die_while_deleting(out: Path, table: str, deleted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compact one table, and stop after so many of its old parts were deleted."""

    class Killed(BaseException):
        pass

    real, left = Store.delete, [deleted]

    def delete(store: Store, path: str) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        real(store, path)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "delete", delete)
        patch.setattr(compaction, "TABLES", {table: TABLES[table]})
        with pytest.raises(Killed):
            compact(out)


def test_compacting_waits_for_no_run_and_is_refused(out: Path) -> None:
    store = Store(out)
    with store.lock("run", shared=True), pytest.raises(OutputError, match="a run is writing into this folder"):
        compact(out)
    with store.lock("run"), pytest.raises(OutputError, match="the tables are being compacted"):
        collect([], ImageSetStub(), out, OPTIONS)


class ImageSetStub:
    """Enough of a data set for a run that has no checkpoints."""

    fingerprint = "f"


def test_a_part_of_another_schema_version_stays_where_it_is(out: Path) -> None:
    part = next((out / "layers").glob("*.parquet"))
    rows = pq.read_table(part)
    pq.write_table(rows.replace_schema_metadata({b"schema_version": b"99"}), part)
    files = set(out.rglob("layers/*"))
    with pytest.raises(DataError, match=r"schema version 1 but in 99: use a new folder"):
        compact(out)
    assert set(out.rglob("layers/*")) == files


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no tables: make some with"):
        compact(tmp_path)


def test_large_tables_are_read_by_row_groups(out: Path, monkeypatch: pytest.MonkeyPatch, read_all: ReadAll) -> None:
    before = read_all(out)
    monkeypatch.setattr(compaction, "ROW_GROUP", 10)
    compact(out)
    (part,) = (out / "invariance").glob("*.parquet")
    assert pq.ParquetFile(part).num_row_groups > 1
    same(before, read_all(out))
    names = load(out, checkpoints=["avg", "max"], where={"shift_kind": "circular"})
    assert set(names.invariance["checkpoint"]) == {"avg", "max"}
    assert set(names.invariance["shift_kind"]) == {"circular"}
    assert len(names.layers) == len(before["layers"]) * 2 / 3
