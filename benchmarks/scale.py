"""Processor time and memory of `analyze`, `figures` and `report` on synthetic tables of 200 to 10,000 checkpoints.

    python -m benchmarks.scale                          # a quarter of an hour on a quiet machine
    python -m benchmarks.scale --checkpoints 200 1000 --repeats 1

200 operators, or of drawn ones a quarter of the checkpoints, two shift kinds; every command is a process of its own on
one thread, the sizes in turn. Linux and macOS.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.results import load_now, machine, table, write_section
from benchmarks.synthetic import Synthetic

GOALS = {200: 10.0, 1_000: 30.0, 10_000: 120.0}
"""Processor seconds of each command."""
MOST_MEMORY, MOST_GROWTH, MOST_PAGE = 2.0, 1.1, 5.0
"""GiB, the power of the number of checkpoints, and MB."""


@dataclass(frozen=True)
class ScaleSettings:
    """What is measured."""

    checkpoints: tuple[int, ...] = tuple(GOALS)
    """Numbers of checkpoints."""
    commands: tuple[str, ...] = ("analyze", "figures", "report")
    """Commands of invariscope."""
    repeats: int = 3
    """Runs of each."""
    drawn: bool = True
    """Also operators drawn at random."""


def run(command: str, tables: Path, out: Path) -> tuple[float, float, float]:
    """Processor seconds, peak memory in GiB, and the size of the page in MB, of one command."""
    target = out / "report.html" if command == "report" else out
    out.mkdir(exist_ok=True)
    line = [sys.executable, "-m", "invariscope", command, str(tables), "--out", str(target)]
    process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read() if process.stderr else b""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(line)}: {said.decode(errors='replace')[-500:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    page = target.stat().st_size / 1e6 if target.is_file() else float("nan")
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 2**30, page


def measured(settings: ScaleSettings) -> Iterator[dict[str, object]]:
    """A row per kind of operators, command and number of checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        for drawn in (False, True) if settings.drawn else (False,):
            tables = {
                n: Synthetic(n, max(200, n // 4) if drawn else 200, drawn).write(Path(folder) / f"{drawn}{n}")
                for n in settings.checkpoints
            }
            for command in settings.commands:
                runs: dict[int, list[tuple[float, float, float]]] = {n: [] for n in tables}
                for _ in range(settings.repeats):
                    for n, where in tables.items():
                        runs[n].append(run(command, where, Path(folder) / "out"))
                        print(command, "drawn" if drawn else "published", n, runs[n][-1], flush=True)
                yield from _rows(command, "drawn" if drawn else "published", runs)


def _rows(
    command: str, operators: str, runs: dict[int, list[tuple[float, float, float]]]
) -> Iterator[dict[str, object]]:
    before: tuple[int, float] | None = None
    for n, found in runs.items():
        seconds, memory, pages = ([one[place] for one in found] for place in range(3))
        median = statistics.median(seconds)
        growth = np.log(median / before[1]) / np.log(n / before[0]) if before else float("nan")
        goal = GOALS.get(n)
        yield {
            "command": command,
            "operators": operators,
            "checkpoints": f"{n:,}",
            "CPU seconds": f"{median:.1f} ({min(seconds):.1f} to {max(seconds):.1f}, n = {len(seconds)})",
            "at most": "" if goal is None else f"{goal:.0f}{'' if median <= goal else ': missed'}",
            "power of n": f"{growth:.2f}{'' if growth <= MOST_GROWTH else ': missed'}" if before else "",
            "peak GiB": f"{max(memory):.2f}{'' if max(memory) <= MOST_MEMORY else ': missed'}",
            "page, MB": f"{max(pages):.1f}{'' if max(pages) <= MOST_PAGE else ': missed'}"
            if command == "report"
            else "",
        }
        before = (n, median)


def main() -> None:
    """Measure and write the section."""
    import tyro

    settings = tyro.cli(ScaleSettings, description=__doc__)
    load = f"load {load_now():.1f} at the start"
    rows = list(measured(settings))
    facts = (
        f"{machine('numpy', 'scipy', 'pandas', 'matplotlib', 'pyarrow')} User and system time of one process on one "
        f"thread, import and tables included; medians, least and most in brackets; {load}. Power of n: growth from "
        f"the row above, at most {MOST_GROWTH}; memory at most {MOST_MEMORY:.0f} GiB."
    )
    body = f"{facts}\n\n{table(rows)}"
    if replace(settings, repeats=ScaleSettings.repeats) == ScaleSettings():
        write_section("Analysis at scale (`python -m benchmarks.scale`)", body)
    else:
        print(body)  # a part takes the place of none


if __name__ == "__main__":
    main()
