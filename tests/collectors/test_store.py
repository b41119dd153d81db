"""Parts exist whole or not at all; keys follow plain values."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from invariscope.base.errors import DataError
from invariscope.collectors.engine.runlog import KEPT, run_log
from invariscope.collectors.schema import SCHEMA_VERSION, TABLES, describe
from invariscope.collectors.store.keys import task_key
from invariscope.collectors.store.parts import Store

TIMING = {
    "task": "t1",
    "checkpoint": "a",
    "collector": "layers",
    "started": pd.Timestamp("2026-01-01", tz="UTC"),
    "seconds": 1.5,
    "runtime": None,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "tables")
    store.prepare()
    return store


def test_a_part_reads_back_with_the_schema(store: Store) -> None:
    path = store.write("timings", "t1", pd.DataFrame([TIMING]))
    table = pq.read_table(path)
    assert table.schema.equals(TABLES["timings"])
    assert table.schema.metadata == {b"table": b"timings", b"schema_version": str(SCHEMA_VERSION).encode()}
    assert table.schema.field("seconds").metadata[b"unit"] == b"s"
    assert table.to_pylist()[0]["seconds"] == 1.5


def test_every_column_has_a_meaning() -> None:
    for name, schema in TABLES.items():
        assert all(field.metadata[b"meaning"] for field in schema)
        assert describe(name).count("\n") == len(schema) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [({"seconds": None}, "seconds"), ({"more": 1}, "unknown columns"), ({"task": ...}, "missing columns")],
)
def test_wrong_rows_are_refused_and_leave_nothing(store: Store, change: dict[str, object], message: str) -> None:
    row = {name: value for name, value in {**TIMING, **change}.items() if value is not ...}
    with pytest.raises(ValueError, match=message):
        store.write("timings", "t1", pd.DataFrame([row]))
    assert not list(store.folder.rglob("*.parquet"))
    assert not list(store.folder.rglob("*.tmp"))


def test_what_is_there_is_known_by_name_and_by_head(store: Store) -> None:
    assert not store.has("timings", "t1")
    assert store.keys("timings") == set()
    store.write("timings", "t1", pd.DataFrame([TIMING]))
    assert store.has("timings", "t1")
    assert store.keys("timings") == {"t1"}
    described = {name: f"{name}1" for name in ("checkpoint", "sha256", "model", "task")}
    pq.write_table(pa.table({name: [value] for name, value in described.items()}), store.path("checkpoints", "slot"))
    assert store.heads("checkpoints") == {"slot": described}


def test_keys_follow_values_and_not_order() -> None:
    assert task_key(a=1, b={"x": [1, 2]}) == task_key(b={"x": [1, 2]}, a=1)
    assert task_key(a=1) != task_key(a=2)
    with pytest.raises(TypeError):
        task_key(a=object())


def test_sweep_removes_what_a_dead_process_left_and_nothing_else(store: Store) -> None:
    # A process that is killed between writing and renaming leaves its temporary file.
    code = (
        "import os, sys; import invariscope.collectors.store.parts as s; import pandas as pd;"
        f"store = s.Store({str(store.folder)!r});"
        "store.filesystem = type('Killed', (), {'open_output_stream': store.filesystem.open_output_stream,"
        " 'move': lambda *a: os._exit(9)})();"
        f"store.write('timings', 't1', pd.DataFrame([{{**{ {**TIMING, 'started': None}!r},"
        " 'started': pd.Timestamp('2026-01-01', tz='UTC')}]))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    left = list(store.folder.rglob("*.tmp"))
    assert len(left) == 1
    mine = left[0].with_name(left[0].name.replace(left[0].name.split(".")[-3], str(os.getpid()), 1))
    machine = left[0].name.split(".")[2]
    foreign = [store.folder / "timings" / name for name in (".a.tmp", ".a.b.c.d.tmp", f".a.{machine}.process.b.tmp")]
    for path in (mine, *foreign):
        path.touch()
    store.sweep()
    assert not left[0].exists()
    assert all(path.exists() for path in (mine, *foreign))
    assert not list(store.folder.rglob("*.parquet"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(DataError, match=r"file: cannot write tables here .*--out"):
        Store(file).prepare()


@pytest.mark.parametrize(
    "columns", [{"a": [1]}, {name: pa.array([], pa.string()) for name in ("checkpoint", "sha256", "model", "task")}]
)
def test_a_part_of_something_else_is_refused_in_one_line(
    store: Store, columns: dict[str, list[int] | pa.Array]
) -> None:
    pq.write_table(pa.table(columns), store.path("checkpoints", "slot"))
    for look in (
        lambda: store.heads("checkpoints"),
        lambda: store.rows("checkpoints", ("task",)),
    ):
        with pytest.raises(DataError, match=r"slot\.parquet: is no parquet part of these tables: delete it") as caught:
            look()
        assert "\n" not in str(caught.value)


def test_a_clock_that_was_set_back_costs_no_run_its_own_log(tmp_path: Path) -> None:
    """Older logs go by their names: those of a time to come are the others' all the same."""
    store = Store(tmp_path)
    folder = tmp_path / "logs"
    folder.mkdir()
    later = [f"20990101T0000{number:02}.000000-1.log" for number in range(KEPT)]
    for name in later:
        (folder / name).write_text("end: done\n")
    with run_log(store, "collect") as log:
        log.end("1 tasks measured")
    found = {path.name for path in folder.iterdir()}
    (own,) = found - set(later)
    assert "end: 1 tasks measured" in (folder / own).read_text()
    assert found - {own} == set(later[1:])
