"""``collect``: measure every checkpoint of a zoo."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.cli.common import DONE, at_least_one, fitting, names, run_collect, tell_outcome
from invariscope.collectors.tables.robustness_flags import RobustnessFlags

if TYPE_CHECKING:
    from invariscope.collectors.engine.planning import Plan


@dataclass(frozen=True)
class Collect:
    """Measure every checkpoint of a zoo and write parquet tables; what is done is skipped.

    Example: invariscope collect data/zoo --data digits --out out/tables --shift circular,zero
    """

    zoo: Positional[Path]
    """Folder with a zoo.yaml, or the file itself."""
    data: str
    """Data set: NAME[:PATH], for example digits or parquet:cifar10/test.parquet."""
    out: str
    """Folder for the tables, or its URI on a file system of pyarrow or fsspec."""
    collect: str | None = None
    """Collectors: checkpoints, layers, invariance, surface, predictions, segmentation, swaps, robustness, cost; by
    default the first three, and for a zoo of segmenters segmentation in the place of invariance."""
    shift: str = "circular,zero"
    """Shift kinds: circular, zero, reflect, replicate, crop."""
    max_shift: int | None = None
    """Largest shift along each axis, in input pixels; by default an eighth of the input size."""
    n_shifts: int = 9
    """Shifts per image."""
    fill: str = "mean"
    """What a zero shift fills with: mean (0 after normalisation) or black (0 before it)."""
    crop_size: int | None = None
    """Size to which images are brought for crop shifts; by default the input size + 2 x max shift."""
    split: str = "test"
    """Split of an embedded data set."""
    limit: int | None = None
    """Measure on the first so many images."""
    only: str = "*"
    """Measure the checkpoints of these names alone: a pattern such as 'resnet20-*'."""
    msb_images: int = 256
    """Images on which MSB is measured."""
    windows_per_image: int | None = None
    """Windows sampled per image and site for MSB; all by default."""
    surface_images: int = 256
    """Images on which the shift surface is measured."""
    surface_step: int = 1
    """Step of the shift surface, in input pixels."""
    swap_to: str = "max,avg,subsample,soft(beta=1),blur(m=3)"
    """Operators without parameters that swaps put in the place of each site's."""
    swap_images: int = 256
    """Images on which swaps are measured."""
    cost_batch: int = 32
    """Images per timed pass of cost."""
    cost_repeats: int = 20
    """Timed passes of cost, each beside one of the network with max pooling."""
    seed: int = 0
    """Seed of the shifts."""
    precision: str = "fp32"
    """Of the passes over shifted images: fp32 (the network's own type) or bf16."""
    fold: bool = True
    """Fold batch norms into convolutions for the passes over shifted images."""
    device: str = "cpu"
    """Device: cpu, cuda or mps."""
    batch_size: int | None = None
    """Images per forward pass; by default 8 to 64, by the input size."""
    jobs: int = 1
    """Worker processes on this machine; each has its share of the cores."""
    backend: str | None = None
    """joblib's backend of workers elsewhere, for example dask; they take the place of --jobs."""
    scheduler: str | None = None
    """Address of dask's scheduler, for example tcp://127.0.0.1:8786."""
    time_limit: float | None = None
    """Seconds per task: one that takes longer is stopped and is a failure."""
    code: bool = True
    """Run the code of python: networks; with --no-code they are refused."""
    allow_outside: bool = False
    """Let the manifest name files outside of the zoo's folder."""
    dry_run: bool = False
    """Say what would be measured, and write nothing."""
    robustness: RobustnessFlags = field(default_factory=RobustnessFlags)

    def run(self) -> int:
        """Measure what is missing."""
        from invariscope.collectors.engine.run import Cluster, plan_run
        from invariscope.collectors.engine.suitable import default_collectors
        from invariscope.collectors.tables.tasks import Options
        from invariscope.zoo.datasets.source import DataSource
        from invariscope.zoo.manifest import read_manifest

        every = read_manifest(self.zoo, operators=False, allow_outside=self.allow_outside, code=self.code)
        checkpoints = fitting(every, self.only)
        options = Options(
            collect=default_collectors(checkpoints) if self.collect is None else names(self.collect),
            shift=names(self.shift),
            max_shift=self.max_shift,
            n_shifts=self.n_shifts,
            fill=self.fill,
            crop_size=self.crop_size,
            seed=self.seed,
            msb_images=self.msb_images,
            windows_per_image=self.windows_per_image,
            surface_images=self.surface_images,
            surface_step=self.surface_step,
            swap_to=names(self.swap_to),
            swap_images=self.swap_images,
            cost_batch=self.cost_batch,
            cost_repeats=self.cost_repeats,
            precision=self.precision,
            fold=self.fold,
            device=self.device,
            batch_size=None if self.batch_size is None else at_least_one("--batch-size", self.batch_size),
            robustness=self.robustness.options(),
        )
        if self.scheduler and not self.backend:
            raise InputError("--scheduler is the address of a backend's: give --backend dask as well")
        at_least_one("--jobs", self.jobs)
        images = DataSource(self.data, self.split, self.limit)
        if self.dry_run:
            return _say(plan_run(checkpoints, images, self.out, options))
        outcome = run_collect(
            checkpoints,
            images,
            self.out,
            options,
            jobs=self.jobs,
            cluster=Cluster(self.backend, self.scheduler) if self.backend else None,
            time_limit=self.time_limit,
            command=f"invariscope collect: {self}",
        )
        return tell_outcome(outcome, self.out)


def _say(plan: Plan) -> int:
    """What a run would do."""
    for collector, count in plan.counts().items():
        print(f"to do: {collector}: {count} tasks")
    for item in plan.replaced:
        print(f"to remove: {item.name}: the rows of weights that were replaced")
    print(f"{sum(plan.counts().values())} tasks to do, {len(plan.done)} are done; nothing was written")
    return DONE
