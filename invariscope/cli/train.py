"""``train``: a zoo of checkpoints from a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.paths import folder_to_write
from invariscope.base.terminal import say, warn
from invariscope.cli.common import DONE, WITH_FAILURES, job_count
from invariscope.cli.flags import CodeFlag


@dataclass(frozen=True)
class Train(CodeFlag):
    """Train a zoo of checkpoints from a recipe; runs that are there are kept, an interrupted one goes on.

    Example: invariscope train data/recipes/population_bundled.yaml --out my_zoo --jobs 2
    """

    recipe: Positional[Path]
    """Recipe: defaults and grids of factors."""
    out: Path
    """Folder for the weights and zoo.yaml."""
    only: str = "*"
    """Train the runs of these names alone: a pattern such as '*-R1?-*'; finished ones stay in zoo.yaml."""
    jobs: int = 1
    """Worker processes, one training run each at a time."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    threads: int = 1
    """Threads of a run, with one job; the last digits of the weights depend on it."""
    save_every: float = 60.0
    """Seconds after which a run in progress keeps its state, at the end of an epoch."""

    def run(self) -> int:
        """Train what is missing."""
        from invariscope.zoo.recipe import read_recipe
        from invariscope.zoo.training import Conditions, train_recipe
        from invariscope.zoo.twins import twins

        folder_to_write(self.out)
        if job_count(self.threads, "--threads") > 1 and self.jobs > 1:
            raise InputError("--threads is for one job: leave out --jobs or --threads")
        if self.save_every < 0:
            raise InputError(f"--save-every is {self.save_every:g}: give seconds, at least 0")
        conditions = Conditions(self.device, self.threads, self.save_every)
        jobs = job_count(self.jobs)
        for same in twins(read_recipe(self.recipe, allow_code=self.allow_code)):
            warn(f"{', '.join(same)} train one network, which counts once: leave all but one out")
        try:
            report = train_recipe(
                self.recipe, self.out, jobs, conditions=conditions, allow_code=self.allow_code, only=self.only
            )
        except KeyboardInterrupt:
            warn("", f"stopped: what is in {self.out} is whole; the same command goes on from there")
            raise
        for note in report.notes:
            warn(note)
        for run, error in report.failed:
            warn(f"failed: {run}: {error}")
        counts = f"{len(report.trained)} runs trained, {len(report.skipped)} were done, {len(report.failed)} failed"
        say(f"zoo: {report.manifest} ({counts})")
        return WITH_FAILURES if report.failed else DONE
