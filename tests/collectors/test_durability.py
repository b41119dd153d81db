"""A power cut after a run takes nothing back: what is moved was flushed, and what is deleted has its place taken."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
import pytest

from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.parts import Store
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet

pytestmark = pytest.mark.skipif(os.name != "posix", reason="inodes of open files tell what was flushed")


def test_every_part_and_its_folder_are_flushed(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[int] = set()
    real, deleted = os.fsync, Store.delete

    def fsync(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    def delete(store: Store, path: str) -> None:
        if Path(path).name.endswith(".parquet"):
            for part in Path(path).parent.glob("compacted-*.parquet"):
                assert {part.stat().st_ino, part.parent.stat().st_ino} <= flushed
        deleted(store, path)

    monkeypatch.setattr("invariscope.base.flushing.F_FULLFSYNC", None)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Store, "delete", delete)
    out = tmp_path / "out"
    options = Options(collect=("layers", "invariance"), shift=("circular",), n_shifts=3, msb_images=4)
    collect(zoo, images.head(10), out, options, progress=False)
    parts = list(out.rglob("*.parquet"))
    assert len(parts) > len(zoo)
    assert {path.stat().st_ino for part in parts for path in (part, part.parent)} <= flushed
    flushed.clear()
    assert compact(out)
    assert {part.stat().st_ino for part in out.rglob("compacted-*.parquet")} <= flushed


def test_at_most_a_moment_of_finished_work_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.prepare()
    clock = [0.0]
    monkeypatch.setattr("invariscope.collectors.store.parts.time.monotonic", lambda: clock[0])
    row = {"checkpoint": "a", "collector": "layers", "started": pd.Timestamp("2026-01-01", tz="UTC"), "seconds": 1.0}
    seen = []
    with store.together():
        for key, seconds in (("t0", 0.5), ("t1", 0.6), ("t2", 0.4), ("t3", 5.0)):
            clock[0] += seconds
            store.write("timings", key, pd.DataFrame([{"task": key, **row}]))
            store.settle()
            seen.append(len(list(tmp_path.rglob("*.parquet"))))
    assert seen == [0, 2, 2, 4]
    assert not list(tmp_path.rglob("*.tmp"))
