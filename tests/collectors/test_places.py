"""Tables on other file systems, and work on other machines' processes."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import pytest
from joblib.externals.loky.process_executor import BrokenProcessPool
from pyarrow.fs import FileSelector

from invariscope.analysis import TableError, load, scan
from invariscope.base.errors import DataError, InputError, OutputError
from invariscope.collectors.engine.cluster import ClusterRun
from invariscope.collectors.engine.measuring import CheckpointReport, Failure
from invariscope.collectors.engine.planning import PlannedTask, Work
from invariscope.collectors.engine.run import Cluster, collect
from invariscope.collectors.engine.serving import Job
from invariscope.collectors.engine.status import status
from invariscope.collectors.engine.workers import Lost
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


class Mortal(ClusterRun):
    """A cluster in this process: a worker that comes to one of these tasks leaves its claim behind, and dies.

    ``deaths`` says how often, and whether its time was up; all other work that was given out at once goes down as well.
    """

    def __init__(self, folder: Path, deaths: dict[str, tuple[int, bool]]) -> None:
        super().__init__(Job("tables", folder, Options(), 1, {}), None, lambda work: work)
        self.folder, self.deaths, self.rounds = folder, deaths, list[list[str]]()

    def _parallel(self, pending: Sequence[Work]) -> Iterator[CheckpointReport]:
        self.rounds.append([task.key for work in pending for task in work.tasks])
        for work in pending:
            for task in work.tasks:
                times, time_up = self.deaths.get(task.key, (0, False))
                if times:
                    self.deaths[task.key] = times - 1, time_up
                    (self.folder / "claims" / task.key).write_text("where it was" if time_up else "")
                    raise BrokenProcessPool
            yield CheckpointReport(work.checkpoint.name, seconds={task.key: 1.0 for task in work.tasks})


@pytest.mark.parametrize(
    ("deaths", "lost", "rounds"),
    [
        ({}, [], [["a", "b", "c", "d"]]),
        ({"b": (1, False)}, [], [["a", "b", "c", "d"], ["b"], ["c", "d"]]),
        ({"b": (2, False)}, [("b", False)], [["a", "b", "c", "d"], ["b"], ["c", "d"]]),
        ({"c": (1, True)}, [("c", True)], [["a", "b", "c", "d"], ["d"]]),
        (
            {"a": (2, False), "d": (1, True)},
            [("a", False), ("d", True)],
            [["a", "b", "c", "d"], ["a"], ["b", "c", "d"]],
        ),
    ],
)
def test_when_a_cluster_s_worker_dies_its_task_is_tried_alone_and_the_rest_goes_on(
    zoo: list[Checkpoint],
    tmp_path: Path,
    deaths: dict[str, tuple[int, bool]],
    lost: list[tuple[str, bool]],
    rounds: list[list[str]],
) -> None:
    found: list[tuple[str, bool]] = []

    def failed(one: Lost) -> CheckpointReport:
        found.append((one.task, one.time_up))
        failure = Failure(one.work.checkpoint.name, "layers", "WorkerDied", "")
        return CheckpointReport(failure.checkpoint, failures={one.task: failure})

    run = Mortal(tmp_path, dict(deaths))
    pending = [Work(zoo[0], "0" * 64, [], (PlannedTask("layers", {}, key, key),)) for key in "abcd"]
    reports = list(run.through_deaths(pending, failed))
    assert sorted(key for report in reports for key in report.keys) == list("abcd")
    assert (found, run.rounds) == (lost, rounds)


def test_workers_that_never_begin_a_task_end_the_run(zoo: list[Checkpoint], tmp_path: Path) -> None:
    class Stillborn(Mortal):
        def _parallel(self, pending: Sequence[Work]) -> Iterator[CheckpointReport]:
            self.rounds.append([])
            if len(self.rounds) == 5:  # one task comes through: the count begins anew
                yield CheckpointReport(zoo[0].name, seconds={"a": 1.0})
            raise BrokenProcessPool

    run = Stillborn(tmp_path, {})
    pending = [Work(zoo[0], "0" * 64, [], (PlannedTask("layers", {}, key, key),)) for key in "ab"]
    with pytest.raises(OutputError, match=r"ended 8 times in a row before they began a task"):
        list(run.through_deaths(pending, lambda lost: pytest.fail("no task is to blame")))
    assert len(run.rounds) == 13


@pytest.mark.full
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
