"""What flushing and digests cost: a zoo measured with them and without them, block by block in turn, as ratios.

    python -m benchmarks.trust                                   # 1,000 tasks each way, 1,000 images
    python -m benchmarks.trust --blocks 2 --checkpoints 2        # a quick look

A block of networks is measured twice, into two folders: as it is, and with flushes that do nothing and parts without a
digest; which comes first alternates. A ratio is that of one block, so that what else the machine does, and drifts of
it, fall on both sides. Beside it stands the time that was spent inside of flushing and hashing alone, as a share of the
run: it is steadier than the difference of two runs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.engine import REPOSITORY, Clock, make_zoo
from benchmarks.results import load_now, machine, table, write_section
from invariscope.analysis import load
from invariscope.collectors.engine.run import collect
from invariscope.collectors.options import Options
from invariscope.collectors.store import digest, parts, reader
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets import ImageSet, load_dataset
from invariscope.zoo.manifest import read_manifest

TASKS = 5
"""Tasks of a checkpoint by default."""


@dataclass
class Times:
    """Seconds of one run: by the wall's clock, of this process, and by the wall's inside of flushing, and of hashing
    with the writing of what is hashed.
    """

    wall: float
    processor: float
    flushing: float = 0.0
    hashing: float = 0.0


@contextmanager
def without() -> Iterator[None]:
    """Flushes that do nothing, parts without a digest."""

    def plain(file: Any, rows: Any, path: str) -> None:
        with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
            writer.write_table(rows)

    with _replaced(flush_files=lambda paths: None, flush_folders=lambda paths: None, write_digested=plain):
        yield


@contextmanager
def _replaced(**functions: Any) -> Iterator[None]:
    kept = {name: getattr(parts, name) for name in functions}
    for name, function in functions.items():
        setattr(parts, name, function)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(parts, name, function)


def measure(zoo: Sequence[Checkpoint], images: ImageSet, out: Path, options: Options) -> Times:
    """One run."""
    before, began = time.process_time(), time.perf_counter()
    outcome = collect(zoo, images, out, options, progress=False)
    times = Times(time.perf_counter() - began, time.process_time() - before)
    if outcome.failures or outcome.measured != TASKS * len(zoo):
        raise SystemExit(f"{outcome.measured} tasks measured, failures: {outcome.failures[:1]}")
    return times


def measure_inside(zoo: Sequence[Checkpoint], images: ImageSet, out: Path, options: Options) -> Times:
    """One run with flushing and hashing on clocks of their own."""
    flushing, hashing = Clock(), Clock()
    kept = digest._Hashing.write, digest._Hashing.sign
    digest._Hashing.write, digest._Hashing.sign = map(hashing.wrapped, kept)  # type: ignore[method-assign]
    try:
        with _replaced(
            flush_files=flushing.wrapped(parts.flush_files), flush_folders=flushing.wrapped(parts.flush_folders)
        ):
            times = measure(zoo, images, out, options)
    finally:
        digest._Hashing.write, digest._Hashing.sign = kept  # type: ignore[method-assign]
    times.flushing, times.hashing = flushing.seconds, hashing.seconds
    return times


def measure_reading(out: Path, repeats: int) -> list[float]:
    """Processor seconds of reading all tables over those without a comparison with digests, in pairs."""
    checked, ratios = reader.check, []
    for _ in range(repeats):
        seconds = []
        for function in (checked, lambda filesystem, path: digest.Checked(True)):
            reader.check = function
            began = time.process_time()
            load(out)
            seconds.append(time.process_time() - began)
        ratios.append(seconds[0] / seconds[1])
    reader.check = checked
    return ratios


def spread(ratios: Sequence[float]) -> str:
    """Median, quartiles and number."""
    if len(ratios) < 2:
        return f"{ratios[0]:.3f} (n = 1)"
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f} to {high:.3f}, n = {len(ratios)})"


def _place() -> Path:
    """A folder on the disk of this repository: the system's temporary folder may be memory, which flushes nothing."""
    place = REPOSITORY / "out"
    place.mkdir(exist_ok=True)
    return place


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--checkpoints", type=int, default=10, help="networks of a block")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--width", type=int, default=8)
    arguments = parser.parse_args()
    load_at_start = load_now()
    images = load_dataset("digits", split="train", limit=arguments.images)
    options = Options(msb_images=min(arguments.images, 256))
    count = arguments.blocks * arguments.checkpoints
    kept: list[tuple[Times, Times]] = []
    with tempfile.TemporaryDirectory(dir=_place()) as name:
        folder = Path(name)
        make_zoo(folder / "zoo", count, arguments.width)
        zoo = read_manifest(folder / "zoo")
        collect(zoo[:1], images, folder / "first", options, progress=False)  # imports
        for number in range(arguments.blocks):
            block = zoo[number * arguments.checkpoints :][: arguments.checkpoints]
            found: dict[bool, Times] = {}
            for bare in (number % 2 == 0, number % 2 == 1):
                out = folder / ("bare" if bare else "tables")
                with without() if bare else _replaced():
                    run = measure if bare else measure_inside
                    found[bare] = run(block, images, out, options)
                if bare:
                    shutil.rmtree(out)
            kept.append((found[False], found[True]))
            print(f"{number + 1}: {found[False]}, {found[True]}", flush=True)
        reading = measure_reading(folder / "tables", 5)
    wall = [whole.wall / bare.wall for whole, bare in kept]
    processor = [whole.processor / bare.processor for whole, bare in kept]
    inside = [(whole.flushing + whole.hashing) / whole.wall for whole, _ in kept]
    total = sum(whole.flushing + whole.hashing for whole, _ in kept) / sum(whole.wall for whole, _ in kept)
    rows = {
        "processor time, with / without": spread(processor),
        "wall time, with / without": spread(wall),
        "share of the wall time inside of flushing, hashing and writing, by block": spread(inside),
        "the same over all blocks (at most 0.02)": f"{total:.4f}",
        "milliseconds of flushing a task": f"{1000 * sum(w.flushing for w, _ in kept) / (count * TASKS):.2f}",
        "milliseconds of hashing and writing a task": f"{1000 * sum(w.hashing for w, _ in kept) / (count * TASKS):.2f}",
        "milliseconds a task": f"{1000 * sum(w.wall for w, _ in kept) / (count * TASKS):.1f}",
        "reading all tables, processor time, with digests compared / without": spread(reading),
    }
    facts = (
        f"{count * TASKS:,} tasks each way: {count} small networks of width {arguments.width} x {arguments.images} "
        f"images, one process and thread, in {arguments.blocks} blocks measured with and without in turn; medians of "
        f"blocks, quartiles in brackets. Load {load_at_start:.1f} at the start. {machine('torch', 'pyarrow')}"
    )
    body = table([{"what": name, "measured": value} for name, value in rows.items()])
    write_section("Flushing and digests (`python -m benchmarks.trust`)", f"{facts}\n\n{body}")


if __name__ == "__main__":
    main()
