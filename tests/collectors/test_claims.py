"""Runs into one folder at once divide the tasks; what a run was at that ended is done by another."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from invariscope_tests_same_tables import same

from invariscope.base.errors import OutputError
from invariscope.collectors.engine import claims as claiming
from invariscope.collectors.engine import parallel
from invariscope.collectors.engine.claims import TaskClaims
from invariscope.collectors.engine.measuring import CheckpointReport, measure
from invariscope.collectors.engine.planning import PlannedTask, Work
from invariscope.collectors.engine.run import CollectOutcome, collect
from invariscope.collectors.options import Options
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet

OPTIONS = Options(collect=("layers",), msb_images=4)
ReadAll = Callable[[Path], dict[str, pd.DataFrame]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "out")
    made.prepare()
    return made


def work_of(zoo: list[Checkpoint], *keys: str) -> Work:
    return Work(zoo[0], "0" * 64, [], tuple(PlannedTask("layers", {}, key, key) for key in keys))


def keys(work: Work | None) -> list[str]:
    return [task.key for task in work.tasks] if work else []


@pytest.mark.parametrize("others_jobs", [1, pytest.param(2, marks=pytest.mark.full)])
def test_a_run_beside_another_measures_what_that_one_has_not_begun(
    zoo: list[Checkpoint],
    images: ImageSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_all: ReadAll,
    others_jobs: int,
) -> None:
    """The first run stands still in its first checkpoint until the other has measured all but that."""
    out, begun, others_done = tmp_path / "out", threading.Event(), threading.Event()
    main, measured = threading.get_ident(), list[str]()

    def stalling(work: Work, *given: object) -> CheckpointReport:
        if threading.get_ident() == main and not begun.is_set():
            begun.set()
            assert others_done.wait(60)
        report = measure(work, *given)  # type: ignore[arg-type]
        measured.extend(report.seconds)
        return report

    add = CollectOutcome.add
    seen: list[str] = []

    def noted(outcome: CollectOutcome, report: CheckpointReport) -> None:
        if threading.get_ident() != main:
            seen.append(report.checkpoint)
            if set(seen) == {"avg", "aps"}:
                others_done.set()
        add(outcome, report)

    monkeypatch.setattr(parallel, "measure", stalling)
    monkeypatch.setattr(CollectOutcome, "add", noted)
    outcomes: list[CollectOutcome] = []

    def beside() -> None:
        assert begun.wait(60)
        outcomes.append(collect(zoo, images.head(4), out, OPTIONS, jobs=others_jobs, progress=False))

    thread = threading.Thread(target=beside)
    thread.start()
    outcomes.append(collect(zoo, images.head(4), out, OPTIONS, progress=False))
    thread.join()
    assert sorted((outcome.measured, outcome.found) for outcome in outcomes) == [(2, 4), (4, 2)]
    assert len(measured) == len(set(measured))
    assert seen[-1] == "max"
    collect(zoo, images.head(4), tmp_path / "alone", OPTIONS, progress=False)
    same(read_all(out), read_all(tmp_path / "alone"))
    assert not [path for path in out.iterdir() if path.name.startswith((".claim-", ".pulse"))]


def test_a_claim_is_one_run_s_until_it_gives_it_back(zoo: list[Checkpoint], store: Store) -> None:
    with TaskClaims(store) as one, TaskClaims(store) as two:
        assert keys(one.take(work_of(zoo, "a", "b"))) == ["a", "b"]
        assert keys(one.take(work_of(zoo, "a"))) == ["a"]
        assert keys(two.take(work_of(zoo, "b", "c"))) == ["c"]
        assert keys(two.take(work_of(zoo, "a"))) == []
        one.release({"b"})
        done, free = two.free()
        assert (done, [keys(work) for work in free]) == ([], [["b"]])
        assert keys(two.take(free[0])) == ["b"]
        assert keys(one.take(work_of(zoo, "b"))) == []
        claim = Path(store.base, ".claim-a")
        claim.write_text("another run's, to which this one seemed dead")
        one.release({"a"})
        assert claim.exists()
        claim.unlink()
    assert not list(Path(store.base).glob(".claim-*"))


@pytest.mark.parametrize("content", [b"", b"\0\0\0", b"\xff\xfe", b"a/b", b"."], ids=repr)
def test_a_damaged_claim_holds_and_ends_no_run(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves of a file says nothing of its run, which is waited for as one of another machine."""
    store = Store(tmp_path / "out")
    store.prepare()
    claim = Path(store.base, ".claim-a")
    claim.write_bytes(content)
    assert collect(zoo[:1], images, tmp_path / "out", OPTIONS, progress=False).failures == []
    clock = [1000.0]
    monkeypatch.setattr(claiming.time, "monotonic", lambda: clock[0])
    with TaskClaims(store) as claims:
        assert claims.take(work_of(zoo, "a")) is None
        clock[0] += claiming.EXPIRY + 1
        assert keys(claims.take(work_of(zoo, "a"))) == ["a"]


@pytest.mark.skipif(os.name == "nt", reason="there it cannot be asked whether a run lives")
def test_what_a_killed_run_was_at_is_free_at_once(
    zoo: list[Checkpoint], images: ImageSet, store: Store, tmp_path: Path
) -> None:
    collect(zoo[:1], images, tmp_path / "out", OPTIONS, progress=False)
    code = (
        "import os, sys; from pathlib import Path\n"
        "place = Path(sys.argv[1]); name = f'.pulse.{sys.argv[2]}.{os.getpid()}.0.tmp'\n"
        "(place / name).touch(); (place / '.claim-a').write_text(name)\n"
    )
    machine = Path(store.scratch()).name.split(".")[2]
    subprocess.run([sys.executable, "-c", code, store.base, machine], check=True)
    claim = Path(store.base, ".claim-a")
    dead = claim.read_text()
    with TaskClaims(store) as claims:
        assert keys(claims.take(work_of(zoo, "a"))) == ["a"]
        lives = claim.read_text()
        assert collect(zoo[:1], images, tmp_path / "out", OPTIONS, progress=False).measured == 0
        assert claim.read_text() == lives
    claim.write_text(dead)
    assert collect(zoo[:1], images, tmp_path / "out", OPTIONS, progress=False).measured == 0  # nothing is left to do
    assert not claim.exists()


def test_a_run_elsewhere_is_dead_when_its_pulse_stands_still(
    zoo: list[Checkpoint], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another machine nobody here can ask whether it runs; its clock does not matter."""
    clock = [1000.0]
    monkeypatch.setattr(claiming.time, "monotonic", lambda: clock[0])
    pulse = Path(store.base, f".pulse.ffffffff.{os.getpid()}.{'0' * 32}.tmp")
    pulse.touch()
    Path(store.base, ".claim-a").write_text(pulse.name)
    with TaskClaims(store) as claims:
        for step, stamp in ((0.0, 10**18), (50.0, 10**18), (50.0, 10**15), (59.0, 10**15)):
            clock[0] += step
            os.utime(pulse, ns=(stamp, stamp))
            assert keys(claims.take(work_of(zoo, "a"))) == []
        clock[0] += 2.0
        assert keys(claims.take(work_of(zoo, "a"))) == ["a"]


def test_a_pulse_goes_on(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    beats: list[str] = []
    beaten = threading.Event()

    def beat(path: Path, times: None = None) -> None:
        beats.append(path.name)
        if len(beats) >= 3:
            beaten.set()

    monkeypatch.setattr(claiming, "_PULSE", 0.001)
    monkeypatch.setattr(claiming.os, "utime", beat)
    with TaskClaims(store):
        assert beaten.wait(30)
    assert set(beats) == {beats[0]}


def test_a_failure_of_another_run_is_tried_again(zoo: list[Checkpoint], images: ImageSet, tmp_path: Path) -> None:
    """A claim that was given back without a part is work to do."""
    store = Store(tmp_path / "out")
    store.prepare()
    bad = replace(zoo[0], weights=zoo[0].folder / "none.safetensors")
    with TaskClaims(store) as other:
        work = replace(work_of(zoo, "x"), checkpoint=bad)
        other.take(work)
        with TaskClaims(store) as mine:
            assert mine.take(work) is None
            other.release({"x"})
            assert [keys(one) for one in mine.free()[1]] == [["x"]]
            assert mine.free() == ([], [])


def test_a_run_that_waits_for_another_says_so(
    zoo: list[Checkpoint], store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claiming, "PATIENCE", 0.0)
    monkeypatch.setattr(claiming, "_LOOK", 0.01)
    with TaskClaims(store) as one, TaskClaims(store) as two:
        assert keys(one.take(work_of(zoo, "a", "b"))) == ["a", "b"]
        assert two.take(work_of(zoo, "a", "b")) is None
        timer = threading.Timer(0.2, one.release, [["a", "b"]])
        timer.start()
        left = two.free()[1]
        timer.join()
    assert {key for work in left for key in keys(work)} <= {"a", "b"}
    told = capsys.readouterr().err
    assert told.count("waiting for") == 1
    assert f"2 tasks that another run into this folder is at ({zoo[0].name}): Ctrl-C" in told


def test_a_task_that_was_another_s_and_is_ours_now_is_given_once(zoo: list[Checkpoint], store: Store) -> None:
    with TaskClaims(store) as one, TaskClaims(store) as two:
        one.take(work_of(zoo, "a"))
        assert two.take(work_of(zoo, "a")) is None
        one.release(["a"])
        assert keys(two.take(work_of(zoo, "a"))) == ["a"]
        two.release(["a"])
        assert two.free() == ([], [])


def test_a_claim_that_the_disk_has_no_room_for_leaves_nothing(
    zoo: list[Checkpoint], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def write(self, text: str) -> None:
            raise OSError(28, "No space left on device")

    def opened(path: Path, mode: str) -> Full:
        path.touch(exist_ok=False)
        return Full()

    with TaskClaims(store) as claims:
        monkeypatch.setattr(claiming, "open", opened, raising=False)
        with pytest.raises(OutputError, match="No space left"):
            claims.take(work_of(zoo, "a"))
        assert not list(Path(store.base).glob(".claim-*"))
