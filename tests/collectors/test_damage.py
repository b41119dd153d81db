"""A part that is not as it was written is seen, set aside and measured again; nobody reads another row from it."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from invariscope_tests_same_tables import same
from pyarrow import fs

from invariscope import cli
from invariscope.analysis import load
from invariscope.base.errors import DataError, TableError
from invariscope.collectors.engine.run import CollectOutcome, collect, plan_run
from invariscope.collectors.options import Options
from invariscope.collectors.schema import COLLECTORS, TABLES
from invariscope.collectors.store.checked import NUMBERED
from invariscope.collectors.store.compaction import compact
from invariscope.collectors.store.digest import Checked, check
from invariscope.collectors.store.parts import Store
from invariscope.collectors.store.pruning import prune
from invariscope.collectors.store.verifying import find_damaged
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet

OPTIONS = Options(collect=("layers",), msb_images=4)
LOCAL = fs.LocalFileSystem()
ReadAll = Callable[[Path], dict[str, pd.DataFrame]]


def run(zoo: list[Checkpoint], images: ImageSet, out: Path) -> CollectOutcome:
    return collect(zoo, images.head(10), out, OPTIONS, progress=False)


@pytest.fixture(scope="module")
def measured(
    make_zoo: Callable[[Path], list[Checkpoint]], images: ImageSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[Checkpoint], Path]:
    folder = tmp_path_factory.mktemp("measured")
    checkpoints = make_zoo(folder)
    run(checkpoints, images, folder / "out")
    return checkpoints, folder / "out"


@pytest.fixture
def trio(measured: tuple[list[Checkpoint], Path]) -> list[Checkpoint]:
    return measured[0]


@pytest.fixture
def out(measured: tuple[list[Checkpoint], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(measured[1], tmp_path / "out"))


def first(out: Path, table: str = "layers") -> Path:
    return min((out / table).glob("*.parquet"))


def flipped(path: Path, byte: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def one_bit(path: Path) -> None:
    flipped(path, 400)


def rubbish(path: Path) -> None:
    path.write_bytes(b"PAR1 not at all, though long enough PAR1")


@pytest.mark.parametrize("flips", [100, pytest.param(1500, marks=pytest.mark.full)])
def test_no_flipped_bit_passes(out: Path, flips: int) -> None:
    part = first(out)
    content = part.read_bytes()
    assert check(LOCAL, str(part)) == Checked(signed=True, damage=None)
    draw = random.Random(0)
    bits = draw.sample(range(8 * len(content)), flips)
    # and every bit of the digests with their keys, where a flip could hide the check itself
    start = content.index(b"sha256_of_file")
    bits += range(8 * (start - 2), 8 * (start + 200), 7 if flips > 100 else 31)
    passed = []
    for bit in bits:
        flipped(part, bit // 8, bit % 8)
        if check(LOCAL, str(part)).damage is None:
            passed.append(bit)
        part.write_bytes(content)
    assert not passed


@pytest.mark.parametrize("damage", [empty, cut, one_bit, rubbish])
def test_a_damaged_part_is_set_aside_and_measured_again(
    trio: list[Checkpoint],
    images: ImageSet,
    out: Path,
    read_all: ReadAll,
    damage: Callable[[Path], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, part = read_all(out), first(out)
    damage(part)
    broken = part.read_bytes()
    with pytest.raises(TableError, match=rf"{part.name}: is .*: run collect again, which sets it aside"):
        load(out)
    assert cli.main(["verify", str(out)]) == 3
    assert f"damaged: layers/{part.name} is " in capsys.readouterr().out
    assert cli.main(["status", str(out)]) == 0
    assert f"damaged: layers/{part.name} is " in capsys.readouterr().out
    for refused in (compact, prune):
        with pytest.raises(DataError, match="1 part damaged"):
            refused(out)
    planned = plan_run(trio, images.head(10), out, OPTIONS)
    assert planned.counts() == {"layers": 1}
    assert [str(item).partition(" ")[0] for item in planned.damaged] == [f"layers/{part.name}"]
    assert part.read_bytes() == broken
    outcome = run(trio, images, out)
    assert (outcome.measured, outcome.found, len(outcome.damaged)) == (1, 5, 1)
    assert [file.read_bytes() for file in (out / "damaged").iterdir()] == [broken]
    same(read_all(out), before)
    assert cli.main(["verify", str(out)]) == 0
    assert run(trio, images, out).damaged == []


def test_what_a_damaged_compacted_part_held_is_measured_again(
    trio: list[Checkpoint], images: ImageSet, out: Path, read_all: ReadAll
) -> None:
    before = read_all(out)
    compact(out)
    one_bit(first(out))
    outcome = run(trio, images, out)
    assert (outcome.measured, len(outcome.damaged)) == (3, 1)
    same(read_all(out), before)


def test_damage_after_the_first_look_is_seen_too(trio: list[Checkpoint], images: ImageSet, out: Path) -> None:
    run(trio, images, out)
    part = first(out)
    one_bit(part)
    assert len(run(trio, images, out).damaged) == 1


def test_damage_that_keeps_size_and_date_is_seen_by_every_run(
    trio: list[Checkpoint], images: ImageSet, out: Path
) -> None:
    part = first(out)
    long_ago = time.time_ns() - 10**12
    os.utime(part, ns=(long_ago, long_ago))
    assert run(trio, images, out).damaged == []  # and notes what it saw
    one_bit(part)
    os.utime(part, ns=(long_ago, long_ago))
    assert len(run(trio, images, out).damaged) == 1


def test_a_part_under_the_name_of_another_is_damage(
    trio: list[Checkpoint], images: ImageSet, out: Path, read_all: ReadAll
) -> None:
    before = read_all(out)
    one, two = sorted((out / "layers").glob("*.parquet"))[:2]
    two.write_bytes(one.read_bytes())
    assert check(LOCAL, str(one)) == Checked(signed=True)
    assert check(LOCAL, str(two)) == Checked(signed=True, damage="is another part under this name")
    outcome = run(trio, images, out)
    assert (outcome.measured, len(outcome.damaged)) == (1, 1)
    same(read_all(out), before)


def test_rows_of_a_part_without_a_digest_are_read(trio: list[Checkpoint], images: ImageSet, out: Path) -> None:
    part = first(out)
    rows = pq.read_table(part)
    pq.write_table(rows.slice(0, 0), part)
    assert [item.reason for item in find_damaged(Store(out))] == ["holds no rows"]
    pq.write_table(rows.set_column(rows.column_names.index("msb"), "msb", pa.array([7.0] * len(rows))), part)
    assert [item.reason for item in find_damaged(Store(out))] == ["msb is 7, and lies from 0 to 1"]
    assert len(run(trio, images, out).damaged) == 1


def test_what_no_reader_takes_is_not_written(out: Path) -> None:
    rows = pq.read_table(first(out)).to_pandas()
    with pytest.raises(ValueError, match=r"rows for table layers: msb is 7, and lies from 0 to 1"):
        Store(out).write("layers", "slot", rows.assign(msb=7.0))
    with pytest.raises(ValueError, match=r"site_kind holds a text of 2,000,000 bytes, and at most 1,000,000 are read"):
        Store(out).write("layers", "slot", rows.assign(site_kind="a" * 2_000_000))
    assert not (out / "layers" / "slot.parquet").exists()


def test_numbers_of_every_table_have_bounds() -> None:
    own = {name for name in COLLECTORS if COLLECTORS[name].rows.__module__.startswith("invariscope.")}
    assert set(NUMBERED) == own | {"failures", "timings"}
    assert own < set(TABLES)


def test_every_writer_signs(out: Path) -> None:
    compact(out)
    Store(out).remove("layers", {pq.read_table(out / "layers")["task"][0].as_py()})
    parts = list(out.rglob("*.parquet"))
    assert len(parts) >= 3
    assert all(check(LOCAL, str(part)) == Checked(signed=True) for part in parts)


def test_a_part_of_an_older_version_counts_and_is_told(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = first(out)
    pq.write_table(pq.read_table(part), part)
    assert len(load(out).layers)
    assert cli.main(["verify", str(out)]) == 0
    assert (
        "layers: 2 parts as written, 1 without a digest (of an older version: their rows were read)"
        in capsys.readouterr().out
    )
