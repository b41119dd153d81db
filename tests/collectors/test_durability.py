"""A power cut after a run takes nothing back: what is moved was flushed, and what is deleted has its place taken."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from invariscope_tests_power_cuts import Disk, power_cuts
from invariscope_tests_same_tables import loaded, same
from pyarrow import fs
from safetensors import safe_open

from invariscope.base.files import sha256_file
from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.collectors.schema import TABLES
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.verifying import find_damaged
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet
from invariscope.zoo.manifest import read_manifest
from invariscope.zoo.run import Run
from invariscope.zoo.training.zoos import Conditions, train_recipe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells which file is flushed")

ReadAll = Callable[[Path], dict[str, pd.DataFrame]]

LOCAL = fs.LocalFileSystem()
OPTIONS = Options(collect=("layers", "invariance"), shift=("circular",), n_shifts=3, msb_images=4)


def test_a_power_cut_while_collecting_leaves_whole_parts_and_after_it_all_of_them(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_all: ReadAll
) -> None:
    root, inside, cuts = tmp_path / "root", "new/out", [0]
    root.mkdir()

    def at(disk: Disk) -> None:
        cuts[0] += 1
        for image in disk.images(tmp_path / "image"):
            assert not find_damaged(Store(image / inside))

    with power_cuts(root, monkeypatch, at) as disk:
        collect(zoo, images.head(10), root / inside, OPTIONS, progress=False)
    assert cuts[0] > len(zoo)
    for image in disk.images(tmp_path / "image"):
        same(read_all(image / inside), read_all(root / inside))
        assert collect(zoo, images.head(10), image / inside, OPTIONS, progress=False).measured == 0


def test_a_power_cut_while_compacting_takes_no_row(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    collect(zoo[:2], images.head(10), out, Options(collect=("layers",), msb_images=4), progress=False)
    before = loaded(out)

    def at(disk: Disk) -> None:
        for image in disk.images(tmp_path / "image"):
            assert not find_damaged(Store(image))
            same(loaded(image), before)

    with power_cuts(out, monkeypatch, at):
        assert compact(out)


def test_rows_of_replaced_weights_are_gone_before_what_tells_of_them(
    zoo: list[Checkpoint], images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    collect(zoo[:1], images.head(10), out, OPTIONS, progress=False)
    old = sha256_file(zoo[0].weights)
    zoo[0].weights.write_bytes(zoo[1].weights.read_bytes())

    def at(disk: Disk) -> None:
        for image in disk.images(tmp_path / "image"):
            having = {
                table
                for table in TABLES
                for part in image.glob(f"{table}/*.parquet")
                if old in pq.read_table(part).to_pydict().get("sha256", ())
            }
            assert not having or "checkpoints" in having

    with power_cuts(out, monkeypatch, at):
        collect(zoo[:1], images.head(10), out, OPTIONS, progress=False)


def test_at_most_a_moment_of_finished_work_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.prepare()
    clock = [0.0]
    monkeypatch.setattr("invariscope.collectors.store.parts.time.monotonic", lambda: clock[0])
    row = {"checkpoint": "a", "collector": "layers", "started": pd.Timestamp("2026-01-01", tz="UTC"), "seconds": 1.0}
    row["runtime"] = None
    seen = []
    with store.together():
        for key, seconds in (("t0", 0.5), ("t1", 0.6), ("t2", 0.4), ("t3", 5.0)):
            clock[0] += seconds
            store.write("timings", key, pd.DataFrame([{"task": key, **row}]))
            store.settle()
            seen.append(len(list(tmp_path.rglob("*.parquet"))))
    assert seen == [0, 2, 2, 4]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_task_that_counts_as_done_has_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ends a run between two parts: what is measured has a row of ``timings``."""
    store = Store(tmp_path)
    store.prepare()
    moved: list[str] = []
    move = store.filesystem.move

    class Watched:
        def __getattr__(self, name: str) -> object:
            return getattr(LOCAL, name)

        def move(self, source: str, path: str) -> None:
            moved.append(Path(path).parent.name)
            move(source, path)

    monkeypatch.setattr(store, "filesystem", Watched())
    monkeypatch.setattr(Store, "folder", tmp_path)
    row = {"checkpoint": "a", "started": pd.Timestamp("2026-01-01", tz="UTC"), "seconds": 1.0}
    row["runtime"] = None
    surface = {field.name: 0 if field.type != "string" else "a" for field in TABLES["failures"]}
    with store.together():
        for key in ("t0", "t1"):
            store.write("failures", key, pd.DataFrame([surface]))
            store.write("timings", key, pd.DataFrame([{"task": key, "collector": "layers", **row}]))
    assert moved == ["timings", "timings", "failures", "failures"]


def test_a_power_cut_while_training_leaves_whole_files_and_after_it_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, inside = tmp_path / "root", "new/zoo"
    run = Run(epochs=2, batch_size=64, model={"width": 2}, limit=128, snapshots=(1,))
    root.mkdir()

    def at(disk: Disk) -> None:
        for image in (image / inside for image in disk.images(tmp_path / "image")):
            for file in [*image.glob("*.safetensors"), *image.glob(".*.training")]:
                with safe_open(file, "pt") as whole:
                    assert len(whole.keys())
            if (image / "zoo.yaml").exists():
                assert all(entry.weights.exists() for entry in read_manifest(image / "zoo.yaml"))

    with power_cuts(root, monkeypatch, at) as disk:
        train_recipe([run], root / inside, progress=False, conditions=Conditions(save_every=0))
    for image in disk.images(tmp_path / "image"):
        assert len(read_manifest(image / inside / "zoo.yaml")) == 2
