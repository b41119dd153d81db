"""``demo``: a bundled zoo from checkpoints to a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from invariscope import data
from invariscope.base.paths import folder_to_write
from invariscope.cli.common import (
    job_count,
    load_tables,
    run_analysis,
    run_collect,
    tell_outcome,
    write_drawn,
    write_page,
)

if TYPE_CHECKING:
    from invariscope.collectors.options import Options
    from invariscope.zoo.datasets.source import DataSource

DEMO_IMAGES: int | None = None
"""Test images of the demo: all 602, as the plan of the population study has it."""

DEMO_SCENES = 200
"""Test images of the demo of segmentation, of 500."""


@dataclass(frozen=True)
class Demo:
    """The bundled zoo from checkpoints to tables, statistics, figures and a report.

    Example: invariscope demo --task segmentation --out out/demo
    """

    out: Path = Path("out/demo")
    """Folder for tables/, results/, figures/ and report.html."""
    task: Literal["classification", "segmentation"] = "classification"
    """Which of the two bundled zoos."""
    jobs: int = 2
    """Worker processes."""
    only: str = "*"
    """Only checkpoints whose name fits this pattern, for a quicker look."""

    def run(self) -> int:
        """Measure, analyse, draw, report; print the correlations and the paths."""
        from invariscope.analysis import Frames, draw_figures
        from invariscope.zoo.manifest import read_manifest

        folder_to_write(self.out)
        tables = self.out / "tables"
        zoo, images, options = asked(self)
        jobs = job_count(self.jobs)
        checkpoints = read_manifest(zoo, operators=False, only=self.only)
        code = tell_outcome(
            run_collect(checkpoints, images, tables, options, jobs=jobs, command=f"invariscope: {self}"), tables
        )
        loaded = Frames(load_tables(str(tables)))
        drawn = draw_figures(loaded)
        results = run_analysis(loaded, self.out / "results", drawn=drawn)
        write_drawn(drawn, self.out / "figures")
        write_page(loaded, self.out / "report.html", results=results, drawn=drawn)
        return code


def asked(demo: Demo) -> tuple[Path, DataSource, Options]:
    """The bundled zoo that a demo measures, the images and what is measured on them."""
    from invariscope.collectors.options import Options
    from invariscope.zoo.datasets.source import DataSource

    collected: tuple[str, ...]
    shifts: tuple[str, ...]
    if demo.task == "segmentation":
        zoo, images = data.SEGMENTATION_ZOO, DataSource("shapes:32", limit=DEMO_SCENES)
        collected, shifts = ("checkpoints", "layers", "segmentation"), ("circular", "zero", "crop")
    else:
        zoo, images = data.ZOO, DataSource("digits", limit=DEMO_IMAGES)
        collected, shifts = ("checkpoints", "layers", "invariance"), ("circular", "zero")
    return zoo, images, Options(collected, shift=shifts, msb_images=100)
