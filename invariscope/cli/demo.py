"""``demo``: a bundled zoo from checkpoints to a report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from invariscope import data
from invariscope.cli.common import (
    at_least_one,
    fitting,
    load_tables,
    run_analysis,
    run_collect,
    tell_outcome,
    write_drawn,
    write_page,
)

DEMO_IMAGES = 150
"""Test images of the demo, of 602: it is to take three minutes on two cores."""

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
        from invariscope.collectors.options import Options
        from invariscope.zoo.datasets.source import DataSource
        from invariscope.zoo.manifest import read_manifest

        tables = self.out / "tables"
        if self.task == "segmentation":
            zoo, images = data.SEGMENTATION_ZOO, DataSource("shapes:32", limit=DEMO_SCENES)
            options = Options(
                ("checkpoints", "layers", "segmentation"), shift=("circular", "zero", "crop"), msb_images=100
            )
        else:
            zoo, images = data.ZOO, DataSource("digits", limit=DEMO_IMAGES)
            collected = ("checkpoints", "layers", "invariance", "surface")
            options = Options(collected, msb_images=100, surface_images=12)
        jobs = at_least_one("--jobs", self.jobs)
        checkpoints = fitting(read_manifest(zoo, operators=False), self.only)
        code = tell_outcome(
            run_collect(checkpoints, images, tables, options, jobs=jobs, command=f"invariscope: {self}"), tables
        )
        loaded = Frames(load_tables(str(tables)))
        drawn = draw_figures(loaded)
        results = run_analysis(loaded, self.out / "results", drawn=drawn)
        write_drawn(drawn, self.out / "figures")
        write_page(loaded, self.out / "report.html", results=results, drawn=drawn)
        return code
