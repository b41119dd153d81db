"""Task keys of published measurements: pinned, so that no change of the code makes anyone measure again unasked."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from invariscope.cli.demo import Demo, asked
from invariscope.collectors.engine.planning import _code, _tasks
from invariscope.collectors.engine.run import plan_run
from invariscope.collectors.measure.msb import LARGEST_WHOLE
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS
from invariscope.collectors.tables.layers import WINDOWS
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.datasets.source import DataSource
from invariscope.zoo.manifest import read_manifest

SURFACE = Options(("checkpoints", "layers", "invariance", "surface"), msb_images=100, surface_images=12)
SCENES = Options(("checkpoints", "layers", "segmentation"), shift=("circular", "zero", "crop"), msb_images=100)
OTHERS = Options(("predictions", "robustness", "cost"), shift=("circular", "zero", "reflect", "replicate", "crop"))

PINNED = {
    "zoo_segmentation": "2dcf2545fe31b7e2668dfe226ccf72eb9767fddb417884120b43e6200615fb73",
    "zoo": "4ae346efc8110131b3dd6bdd40929632d63c21d06e069984536bf136a11c4e2b",
}


def _keys(zoo: Path, images: DataSource, options: Options, out: Path) -> dict[str, set[str]]:
    keys: dict[str, set[str]] = {}
    for work in plan_run(read_manifest(zoo, operators=False, allow_code=True), images, out, options).pending:
        for task in work.tasks:
            keys.setdefault(task.collector, set()).add(task.key)
    return keys


def _stored(tables: Path, name: str) -> set[str]:
    rows: Any = ds.dataset(tables / name, format="parquet").to_table(["task"])
    return set(rows["task"].to_pylist())


def _digest(keys: dict[str, set[str]]) -> str:
    lines = sorted(f"{collector} {key}" for collector, found in keys.items() for key in found)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def test_the_demo_asks_for_the_tasks_that_are_published(repository: Path, tmp_path: Path) -> None:
    zoo, images, options = asked(Demo())
    tables = repository / "data" / "reference" / "digits"
    assert _keys(zoo, images, options, tmp_path) == {name: _stored(tables, name) for name in options.collect}


@pytest.fixture
def first_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    """All collectors as tables of the first definitions were measured."""
    first = {name: replace(COLLECTORS[name], definition=1) for name in COLLECTORS}
    monkeypatch.setattr("invariscope.collectors.engine.planning.COLLECTORS", first)


@pytest.mark.usefixtures("first_definitions")
@pytest.mark.parametrize(
    ("tables", "collected", "count"),
    [("ablation", ("checkpoints", "layers", "invariance"), 42 * 5), ("study", ("checkpoints", "cost"), 359 + 21)],
)
def test_keys_of_published_tables_whose_weights_are_gone(
    repository: Path, tables: str, collected: tuple[str, ...], count: int
) -> None:
    options = Options(collected, msb_images=100, fill="mean")
    assert _found_again(repository, tables, options) == count


def test_keys_of_the_published_operators_on_digits(repository: Path) -> None:
    assert _found_again(repository, "published", SURFACE) == 200 * 7


def _found_again(repository: Path, tables: str, options: Options) -> int:
    """How many tasks that the published tables hold are asked for by what they say of their checkpoints: all."""
    folder = repository / "data" / "reference" / tables
    images = DataSource("digits", limit=150).images.fingerprint  # the study's keys here are of no images
    like = read_manifest(repository / "data" / "zoo", operators=False, allow_code=True)[0].input
    rows: Any = ds.dataset(folder / "checkpoints", format="parquet").to_table().to_pylist()
    stored = {name: _stored(folder, name) for name in options.collect}
    code = repository / "tests" / "third_party"  # of the networks from elsewhere
    found = 0
    for row in rows:
        checkpoint = Checkpoint(
            row["checkpoint"], row["model"], folder / "gone", like, factors=json.loads(row["factors"]), folder=code
        )
        for task in _tasks(checkpoint, row["sha256"], images, options, _code(checkpoint)):
            found += task.key in stored[task.collector]
    assert found == sum(map(len, stored.values()))
    return found


BUNDLED = {
    "zoo_segmentation": (DataSource("shapes:32", limit=200), SCENES),
    "zoo": (DataSource("digits", limit=20), OTHERS),
}


@pytest.mark.parametrize("zoo", list(BUNDLED))
def test_keys_of_bundled_zoos_stay(repository: Path, tmp_path: Path, zoo: str) -> None:
    assert _digest(_keys(repository / "data" / zoo, *BUNDLED[zoo], tmp_path)) == PINNED[zoo]


def test_a_later_definition_is_another_task_of_its_collector_alone(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = read_manifest(repository / "data" / "zoo", operators=False, allow_code=True)[0]
    options = Options(("layers", "invariance"))

    def keys(name: str) -> set[str]:
        return {task.key for task in _tasks(like, "0" * 64, "f", options) if task.collector == name}

    before = {name: keys(name) for name in options.collect}
    later = {name: COLLECTORS[name] for name in COLLECTORS}
    later["invariance"] = replace(later["invariance"], definition=later["invariance"].definition + 1)
    monkeypatch.setattr("invariscope.collectors.engine.planning.COLLECTORS", later)
    assert keys("layers") == before["layers"]
    assert not keys("invariance") & before["invariance"]


def test_a_change_of_what_a_file_imports_is_another_task(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from blocks import pool\n\ndef build():\n    return pool()\n")
    (tmp_path / "blocks.py").write_text("pool = None\n")
    like = read_manifest(repository / "data" / "zoo", operators=False, allow_code=True)[0].input
    checkpoint = Checkpoint("n", "python:nets.py:build", tmp_path / "gone", like, folder=tmp_path)
    options = Options(("layers",))

    def keys() -> set[str]:
        return {task.key for task in _tasks(checkpoint, "0" * 64, "f", options, _code(checkpoint))}

    before = keys()
    assert keys() == before
    (tmp_path / "blocks.py").write_text("pool = 1  # another\n")
    assert not keys() & before


def test_the_most_windows_are_in_the_keys_of_large_inputs_alone() -> None:
    def windows(size: int, **knobs: int) -> dict[str, Any]:
        spec = InputSpec(size, (0.5,), (0.25,))
        checkpoint = Checkpoint("one", "zoo:smallcnn?operator=max", Path("one.safetensors"), spec)
        first = COLLECTORS["layers"].settings(checkpoint, Options(("layers",), **knobs))[0]
        return {name: value for name, value in first.items() if "windows" in name}

    assert WINDOWS == LARGEST_WHOLE
    assert windows(64) == {"windows": None}
    assert windows(65) == {"windows": None, "windows_at_most": WINDOWS}
    assert windows(224, windows_per_image=7) == {"windows": 7}
