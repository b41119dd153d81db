"""Tables on other file systems, and work on other machines' processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from pyarrow.fs import FileSelector

from invariscope.analysis import TableError, load, scan
from invariscope.base.errors import DataError, InputError
from invariscope.collectors.engine.run import Cluster, collect
from invariscope.collectors.engine.status import status
from invariscope.collectors.options import Options
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet

OPTIONS = Options(collect=("layers", "invariance"), shift=("zero",), n_shifts=3, msb_images=4)
ReadAll = Callable[[Path], dict[str, pd.DataFrame]]


def ordered(rows: pd.DataFrame) -> pd.DataFrame:
    keys = [name for name in ("checkpoint", "task", "depth", "score") if name in rows]
    return rows.sort_values(keys).reset_index(drop=True)


def test_tables_on_any_file_system_are_the_same(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    collect(zoo, images.head(10), tmp_path / "local", OPTIONS, progress=False)
    expected = load(tmp_path / "local")
    for place in (f"memory://{uuid.uuid4().hex}/tables", (tmp_path / "uri").as_uri()):
        assert collect(zoo[:2], images.head(10), place, OPTIONS, progress=False).measured == 8
        compact(place)
        outcome = collect(zoo, images.head(10), place, OPTIONS, progress=False)
        assert (outcome.measured, outcome.found) == (4, 8)
        found = load(place)
        for table in ("checkpoints", "layers", "invariance"):
            pd.testing.assert_frame_equal(ordered(getattr(found, table)), ordered(getattr(expected, table)))
        assert sum(len(rows) for rows in scan(place, "timings", columns=["seconds"])) == 12
        state = status(place)
        assert [condition.done for condition in state.conditions] == [3, 3, 3, 3]
        assert state.last_run.startswith("4 tasks measured, 8 were done, 0 failed")
        store = Store(place)
        assert not [
            info
            for info in store.filesystem.get_file_info(FileSelector(store.base, recursive=True))
            if info.path.endswith(".tmp")
        ]


def test_an_unknown_file_system_is_one_line(images: ImageSet) -> None:
    with pytest.raises(DataError, match=r"nowhere://tables: no such file system .*: give a folder"):
        collect([], images, "nowhere://tables", OPTIONS)
    with pytest.raises(TableError, match=r"nowhere://tables: no such file system"):
        load("nowhere://tables")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Two workers of dask; after one death of a worker the scheduler gives its task up (by default after four)."""
    distributed = pytest.importorskip("distributed")
    dask = pytest.importorskip("dask")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None, silence_logs=50
        ) as local,
    ):
        yield Cluster("dask", local.scheduler_address)


def test_dask_workers_fill_the_same_tables(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: ReadAll, cluster: Cluster
) -> None:
    options = Options(collect=("invariance",), shift=("circular",), n_shifts=3)
    collect(zoo, images, tmp_path / "here", options, progress=False)
    outcome = collect(zoo, images, tmp_path / "there", options, cluster=cluster, progress=False)
    assert (outcome.measured, outcome.failures) == (9, [])
    here, there = read_all(tmp_path / "here"), read_all(tmp_path / "there")
    for table in ("checkpoints", "invariance"):
        pd.testing.assert_frame_equal(here[table], there[table], rtol=0, atol=1e-6)
    assert not list((tmp_path / "there").glob(".*.tmp"))


def test_dask_workers_that_end_are_failures_and_the_others_go_on(
    faulty: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path, read_all: ReadAll, cluster: Cluster
) -> None:
    options = Options(collect=("invariance",), shift=())
    checkpoints = faulty("none", "dies_later", "hangs_later", "none")
    outcome = collect(checkpoints, images, tmp_path / "out", options, cluster=cluster, time_limit=5, progress=False)
    failures = {failure.checkpoint: failure.error for failure in outcome.failures}
    assert failures == {"dies_later1": "WorkerDied", "hangs_later2": "TimeLimit"}
    collect([checkpoints[0], checkpoints[3]], images, tmp_path / "good", options, progress=False)
    tables, expected = read_all(tmp_path / "out"), read_all(tmp_path / "good")
    pd.testing.assert_frame_equal(tables["invariance"], expected["invariance"])


def test_a_scheduler_that_does_not_answer_is_one_line(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("invariscope.collectors.engine.cluster.CONNECT", 0.2)
    with pytest.raises(InputError, match=r"no dask scheduler answers at tcp://127\.0\.0\.1:9: start one or correct"):
        collect(zoo, images, tmp_path / "out", OPTIONS, cluster=Cluster("dask", "tcp://127.0.0.1:9"), progress=False)
