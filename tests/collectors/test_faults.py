"""Kills, dying and hanging workers, full disks, want of memory: the tables of the next run are the same."""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from safetensors.torch import save_file

from invariscope import cli
from invariscope.analysis import load
from invariscope.base.errors import InputError, OutputError
from invariscope.base.files import sha256_file, signature
from invariscope.collectors.engine.measuring import measure
from invariscope.collectors.engine.planning import PlannedTask, Work
from invariscope.collectors.engine.run import collect
from invariscope.collectors.engine.sharing import Claims
from invariscope.collectors.engine.workers import SPARES
from invariscope.collectors.options import Options
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.datasets.source import DataSource
from invariscope.zoo.manifest import write_manifest
from invariscope.zoo.weights import load_weights

resource = pytest.importorskip("resource", reason="limits and signals of this kind are not those of Windows")

OPTIONS = Options(collect=("layers", "invariance", "surface"), shift=("circular",), msb_images=8, surface_images=4)
ENDS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP)
KILLS = int(os.environ.get("INVARISCOPE_KILLS", "4"))
"""Kills of the random test: few by default, `make soak` asks for more."""

ReadAll = Callable[[Path], dict[str, pd.DataFrame]]


def same(one: dict[str, pd.DataFrame], two: dict[str, pd.DataFrame]) -> None:
    assert one.keys() == two.keys()
    for name, rows in one.items():
        pd.testing.assert_frame_equal(rows, two[name], rtol=0, atol=1e-12)


def group_lives(group: int) -> bool:
    """Whether a process of the group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def processes_with(setting: str) -> list[int]:
    """The other processes that were started with this in their environment and still run."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            running = place.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if running and setting.encode() in place.joinpath("environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return [number for number in found if number != os.getpid()]


def shared_memory() -> set[str]:
    """What is in shared memory, by name."""
    place = Path("/dev/shm")
    return {path.name for path in place.iterdir()} if place.is_dir() else set()


@pytest.fixture(scope="module")
def context() -> Any:
    """Processes that start in a moment, with all that a run imports."""
    if sys.platform != "linux":
        pytest.skip("elsewhere a process of libraries with threads cannot be forked safely")
    return multiprocessing.get_context("fork")


def start(context: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    process = context.Process(target=function, args=arguments, kwargs={"progress": False} if len(arguments) > 1 else {})
    process.start()
    return process


def test_after_kills_at_random_moments_the_tables_are_those_of_one_run(
    zoo: list[Checkpoint], tmp_path: Path, read_all: ReadAll, context: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVARISCOPE_TEST_RUN", str(tmp_path))  # each process of the test has it
    shared = shared_memory()
    source = DataSource("digits", limit=10)
    collect(zoo, source, tmp_path / "whole", OPTIONS, progress=False)
    seconds = time.perf_counter()
    start(context, collect, zoo, source, tmp_path / "second", OPTIONS).join()
    seconds = time.perf_counter() - seconds
    expected = read_all(tmp_path / "whole")
    random_moment = random.Random(0)
    first_weights = zoo[0].weights.read_bytes()
    kills, rounds, started = 0, 0, set[int]()
    while kills < KILLS:
        out, compacting = tmp_path / f"killed{rounds}", False
        rounds += 1
        while True:
            # Now and then by two workers: their server takes seconds to start.
            several = {"jobs": 2} if KILLS > 4 and not compacting and random_moment.random() < 0.1 else {}
            work = (compact, out) if compacting else (partial(collect, **several), zoo, source, out, OPTIONS)
            process = start(context, *work)
            started.add(process.pid)
            process.join(random_moment.uniform(0, seconds / (4 if compacting else 1)))
            if process.exitcode is None:
                os.kill(process.pid, random_moment.choice(ENDS))
            process.join()
            if process.exitcode == 0:
                break
            kills += 1
            assert all(pq.read_table(file).num_rows for file in out.rglob("*.parquet"))
            compacting = any(out.rglob("layers/*.parquet")) and random_moment.random() < 0.3
            if random_moment.random() < 0.1:  # other weights for a moment, and the first ones back
                state = {name: value * 2 for name, value in load_weights(zoo[0].weights).items()}
                save_file(state, zoo[0].weights)
                process = start(context, collect, zoo[:1], source, out, OPTIONS)
                process.join(random_moment.uniform(0, seconds))
                process.kill()
                process.join()
                zoo[0].weights.write_bytes(first_weights)
        collect(zoo, source, out, OPTIONS, progress=False)
        compact(out)
        same(expected, read_all(out))
        assert not list(out.rglob("*.tmp"))
        assert not list(out.glob(".claim-*"))
    until = time.monotonic() + 60
    while left := processes_with(f"INVARISCOPE_TEST_RUN={tmp_path}"):
        assert time.monotonic() < until, f"processes are left: {left}"
        time.sleep(0.1)
    numbers = [set(re.findall(r"\d+", name)) for name in shared_memory() - shared]
    assert not [found for found in numbers if found & set(map(str, started))]


@pytest.mark.parametrize(
    ("when", "stages"),
    [
        pytest.param("", ["checkpoints", "invariance"], marks=pytest.mark.full, id="at once"),
        pytest.param("_later", ["invariance"], id="later"),
    ],
)
def test_tasks_that_kill_their_worker_or_hang_are_failures_and_the_others_go_on(
    faulty: Callable[..., list[Checkpoint]],
    images: ImageSet,
    tmp_path: Path,
    read_all: ReadAll,
    when: str,
    stages: list[str],
) -> None:
    options = Options(collect=("invariance",), shift=())
    checkpoints = faulty(f"dies{when}", f"hangs{when}", "none", "none")
    outcome = collect(checkpoints, images, tmp_path / "out", options, jobs=2, time_limit=5, progress=False)
    died = "WorkerDied: its worker process died twice, as when the system kills it for want of memory"
    stopped = "TimeLimit: took longer than 5 s and was stopped"
    assert sorted(str(failure) for failure in outcome.failures) == [
        *(f"dies{when}0: {stage}: {died}" for stage in stages),
        *(f"hangs{when}1: {stage}: {stopped}" for stage in stages),
    ]
    assert outcome.measured == 8 - 2 * len(stages)
    collect(checkpoints[2:], images, tmp_path / "good", options, progress=False)
    tables, expected = read_all(tmp_path / "out"), read_all(tmp_path / "good")
    assert sorted(tables["failures"]["error"]) == ["TimeLimit"] * len(stages) + ["WorkerDied"] * len(stages)
    pd.testing.assert_frame_equal(tables["invariance"], expected["invariance"])
    assert not list((tmp_path / "out").glob(".*.tmp"))


@pytest.mark.full
def test_a_task_that_hangs_is_stopped_in_a_run_of_one_job(
    faulty: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(collect=("invariance",), shift=())
    outcome = collect(faulty("hangs", "none"), images, tmp_path / "out", options, time_limit=8, progress=False)
    assert [(failure.checkpoint, failure.error) for failure in outcome.failures] == [("hangs0", "TimeLimit")] * 2
    assert outcome.measured == 2


def test_ctrl_c_ends_a_run_of_several_jobs_and_the_next_one_goes_on(
    zoo: list[Checkpoint], tmp_path: Path, read_all: ReadAll
) -> None:
    write_manifest(tmp_path / "zoo.yaml", zoo)
    out = tmp_path / "out"
    code = (
        "import signal, sys; from invariscope import cli\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a job of a shell without control ignores it
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    arguments = ["collect", str(tmp_path), "--data", "digits", "--out", str(out), "--limit", "40", "--n-shifts", "25"]
    command = [sys.executable, "-c", code, *arguments, "--jobs", "2"]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    waited = time.monotonic() + 120
    while not any(out.rglob("checkpoints/*.parquet")):
        assert run.poll() is None
        assert time.monotonic() < waited
        time.sleep(0.02)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the run hears it
    message = run.communicate(timeout=180)[1]
    assert run.returncode == 130
    assert "the same command goes on from there" in message
    assert "Traceback" not in message
    for file in out.rglob("*.parquet"):
        assert pq.read_table(file).num_rows
    deadline = time.monotonic() + 120
    while group_lives(run.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert cli.main(arguments) == cli.DONE
    options = Options(n_shifts=25)
    collect(zoo, DataSource("digits", limit=40), tmp_path / "whole", options, progress=False)
    same(read_all(tmp_path / "whole"), read_all(out))
    assert not list(out.rglob("*.tmp"))


@pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")
@pytest.mark.parametrize("name", [pytest.param("SIGTERM", marks=pytest.mark.full), "SIGKILL"])
def test_workers_end_with_the_run(zoo: list[Checkpoint], tmp_path: Path, name: str) -> None:
    write_manifest(tmp_path / "zoo.yaml", zoo)
    out = tmp_path / "out"
    code = "import sys; from invariscope import cli; sys.exit(cli.main(sys.argv[1:]))"
    arguments = [
        "collect",
        str(tmp_path),
        "--data",
        "digits",
        "--out",
        str(out),
        "--jobs",
        "2",
        "--n-shifts",
        "800",
        "--max-shift",
        "15",
    ]
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        waited = time.monotonic() + 120
        while not any(out.rglob("checkpoints/*.parquet")):
            assert run.poll() is None
            assert time.monotonic() < waited
            time.sleep(0.02)
        number = getattr(signal, name)
        run.send_signal(number)
        assert run.wait(timeout=120) == (-number if name == "SIGKILL" else cli.SIGNALLED + number)
        deadline = time.monotonic() + 120
        while group_lives(run.pid):
            assert time.monotonic() < deadline, "workers measure on"
            time.sleep(0.1)
    finally:
        if group_lives(run.pid):
            os.killpg(run.pid, signal.SIGKILL)
        run.communicate()


@pytest.mark.parametrize("limit", [0, -1.0, float("nan")])
def test_a_time_limit_that_is_none_is_refused(images: ImageSet, tmp_path: Path, limit: float) -> None:
    with pytest.raises(InputError, match=r"the time limit is .* give a number above 0"):
        collect([], images, tmp_path / "out", time_limit=limit)


@pytest.mark.parametrize(("fault", "size"), [("memory", 4), pytest.param("python_memory", 2, marks=pytest.mark.full)])
def test_where_memory_runs_out_batches_are_halved_and_values_are_the_same(
    faulty: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path, fault: str, size: int
) -> None:
    options = Options(collect=("layers", "invariance"), shift=("circular",), batch_size=32)
    (wide,) = faulty("none")
    (narrow,) = faulty(fault)
    outcome = collect([narrow], images, tmp_path / "narrow", options, progress=False)
    assert (outcome.failures, outcome.batch_sizes) == ([], {f"{fault}0": size})
    assert collect([wide], images, tmp_path / "wide", options, progress=False).batch_sizes == {}
    values = [load(tmp_path / name).invariance.sort_values(["shift_kind", "score"]) for name in ("narrow", "wide")]
    # A product of matrices of other sizes may round otherwise; decisions are the same.
    np.testing.assert_allclose(values[0]["value"], values[1]["value"], rtol=0, atol=1e-6)
    exact = ~values[0]["score"].isin(["probability_drift"])
    assert values[0]["value"][exact].tolist() == values[1]["value"][exact].tolist()
    msb = [load(tmp_path / name).layers.sort_values("depth")["msb_corrected"] for name in ("narrow", "wide")]
    assert len(msb[0]) > 0
    np.testing.assert_allclose(*msb, rtol=0, atol=1e-6)
    (log,) = (tmp_path / "narrow" / "logs").iterdir()
    assert log.read_text().count("out of memory") == 1


def test_a_network_that_one_image_is_too_much_for_is_a_failure(
    faulty: Callable[..., list[Checkpoint]], images: ImageSet, tmp_path: Path
) -> None:
    options = Options(collect=("invariance",), shift=())
    outcome = collect(faulty("no_memory"), images, tmp_path / "out", options, progress=False)
    assert [(failure.stage, failure.error) for failure in outcome.failures] == [("invariance", "MemoryError")]


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """No file may grow beyond the limit: what a write meets on a full disk, from the system itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("limit", [0, 1000, 8000])
def test_a_full_disk_is_one_line_and_leaves_whole_parts(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: ReadAll, limit: int
) -> None:
    out = tmp_path / "out"
    with small_files(limit), pytest.raises(OutputError, match=r"cannot write tables here \(File too large\)") as error:
        collect(zoo, images.head(10), out, OPTIONS, progress=False)
    assert "\n" not in str(error.value)
    assert not list(out.rglob("*.tmp"))
    assert not list(out.rglob("failures/*"))
    for file in out.rglob("*.parquet"):
        assert pq.read_table(file).num_rows
    collect(zoo, images.head(10), out, OPTIONS, progress=False)
    collect(zoo, images.head(10), tmp_path / "whole", OPTIONS, progress=False)
    same(read_all(tmp_path / "whole"), read_all(out))


@pytest.mark.full
def test_a_full_disk_ends_a_run_of_several_jobs_too(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    SPARES.close()  # older workers have no limit
    with small_files(8000), pytest.raises(OutputError, match="File too large"):
        collect(zoo, images.head(2), tmp_path / "out", OPTIONS, jobs=2, progress=False)
    assert not list((tmp_path / "out").glob(".*.tmp"))


def test_a_read_only_folder_is_one_line(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(0o500)
    if os.access(out, os.W_OK):
        out = Path("/proc/invariscope")  # an administrator writes everywhere but there
    with pytest.raises(OutputError, match="cannot write tables here"):
        collect(zoo, images, out, OPTIONS, progress=False)


def test_two_runs_at_once_fill_one_folder(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, read_all: ReadAll, context: Any
) -> None:
    source = DataSource("digits", limit=10)
    runs = [start(context, collect, list(order), source, tmp_path / "out", OPTIONS) for order in (zoo, zoo[::-1])]
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [0, 0]
    collect(zoo, source, tmp_path / "whole", OPTIONS, progress=False)
    same(read_all(tmp_path / "whole"), read_all(tmp_path / "out"))


def test_weights_that_are_replaced_during_the_run_are_a_failure(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path
) -> None:
    store = Store(tmp_path / "out")
    store.prepare()
    before = signature(zoo[0].weights)
    work = Work(zoo[0], sha256_file(zoo[0].weights), before, (PlannedTask("checkpoints", {}, "k" * 32, "slot"),))
    zoo[0].weights.write_bytes(zoo[0].weights.read_bytes())
    (failure,) = measure(work, images, store, OPTIONS).failures.values()
    assert (failure.stage, failure.error) == ("load", "WeightsError")
    assert "was replaced during the run: run again" in failure.message


def test_a_failure_of_a_task_that_another_run_has_done_is_forgotten(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(collect=("layers",), msb_images=4)
    with monkeypatch.context() as patch:
        patch.setattr("invariscope.collectors.measure.msb.measure_msb", lambda *args, **options: 1 / 0)
        assert collect(zoo[:1], images, tmp_path / "out", options, progress=False).failures
    (failure,) = (tmp_path / "out" / "failures").iterdir()
    kept = failure.read_bytes()
    collect(zoo[:1], images, tmp_path / "out", options, progress=False)
    failure.write_bytes(kept)
    collect(zoo[:1], images, tmp_path / "out", options, progress=False)
    assert not failure.exists()


def test_claims_tell_what_was_at_work(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with claims.claim("a", None):
        assert claims.left() == {"a": False}
        assert claims.left() == {}
    with claims.claim("b", 60):
        pass
    assert claims.left() == {}
