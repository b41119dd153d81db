"""``collect``: measure every checkpoint of a zoo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.terminal import say
from invariscope.cli.common import DONE, job_count, run_collect, tell_outcome
from invariscope.cli.flags import ZooFlags, chosen, with_groups

if TYPE_CHECKING:
    from invariscope.collectors.engine.planning import RunPlan


LONGEST_TASK = 30 * 24 * 3600
"""Seconds that a time limit may have at most: a month."""


@dataclass(frozen=True)
class Collect(ZooFlags):
    """Measure every checkpoint of a zoo and write parquet tables; what is done is skipped.

    Example: invariscope collect data/zoo --data digits --out out/tables --shift circular,zero
    """

    zoo: Positional[str]
    """Folder with a zoo.yaml, or the file itself; a table of runs (.csv); or networks in this machine's caches, with
    --pretrained: timm:resnet*, torchvision:vgg*, hf:ORG/*."""
    data: str
    """Data set: NAME[:PATH], for example digits or parquet:cifar10/test.parquet."""
    out: str
    """Folder for the tables, or its URI on a file system of pyarrow or fsspec."""
    collect: tuple[str, ...] | None = None
    """Collectors, with commas between; listed above, with those that are measured by default."""
    only: str = "*"
    """Measure the checkpoints of these names alone: a pattern such as 'resnet20-*'."""
    shard: str | None = None
    """Measure one share of the zoo, I/N, in a run of its own on any machine: 2/8 is every eighth checkpoint by name,
    from the second on. All shares together are one run."""
    split: str = "test"
    """Split of an embedded data set."""
    limit: int | None = None
    """Measure on the first so many images."""
    jobs: int = 1
    """Worker processes on this machine; each has its share of the cores."""
    backend: str | None = None
    """joblib's backend of workers elsewhere, for example dask; they take the place of --jobs."""
    scheduler: str | None = None
    """Address of dask's scheduler, for example tcp://127.0.0.1:8786."""
    time_limit: float | None = None
    """Seconds per task: one that takes longer is stopped and is a failure."""
    dry_run: bool = False
    """Say what would be measured, and write nothing."""

    def run(self) -> int:
        """Measure what is missing."""
        from invariscope.collectors.engine.run import Cluster, plan_run
        from invariscope.collectors.engine.shards import shard
        from invariscope.collectors.engine.suitable import suitable_collectors
        from invariscope.collectors.options import Options, option_groups
        from invariscope.zoo.datasets.source import DataSource

        checkpoints = self.read(self.zoo, self.only)
        collect = suitable_collectors(checkpoints) if self.collect is None else self.collect
        if self.shard is not None:
            checkpoints = shard(checkpoints, self.shard)
        groups = chosen(self, option_groups())
        options = Options(collect, groups, allow_code=self.allow_code)
        if self.scheduler and not self.backend:
            raise InputError("--scheduler is the address of a backend's: give --backend dask as well")
        job_count(self.jobs)
        if not self.out.strip():
            raise InputError("--out is empty: name a folder for the tables, for example out/tables")
        if self.out.startswith("memory:"):
            raise InputError(f"--out {self.out} is gone when the command ends: name a folder")
        if self.time_limit is not None and self.time_limit > LONGEST_TASK:
            raise InputError(f"--time-limit is {self.time_limit:g}: give at most {LONGEST_TASK}, or leave it out")
        images = DataSource(self.data, self.split, self.limit, allow_code=self.allow_code)
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


def command() -> type[Collect]:
    """The command with the options of every collector, ours and those of others, and their names in its help."""
    from invariscope.collectors.options import option_groups
    from invariscope.collectors.schema import COLLECTORS, SHIFT_KINDS, default_collectors

    made = with_groups(Collect, option_groups())
    usual, maps = default_collectors("images"), default_collectors("pixels")
    instead = [name for name in maps if name not in usual]
    replaced = [name for name in usual if name not in maps]
    collectors = "\n".join(f"- {name}: {found.help}" for name, found in COLLECTORS.working().items())
    made.__doc__ = "\n\n".join(
        [
            (Collect.__doc__ or "").strip(),
            f"Collectors:\n{collectors}",
            f"By default: {', '.join(usual)}; for a zoo of segmenters {', '.join(instead)} in the place of "
            f"{', '.join(replaced)}.",
            f"Shift kinds: {', '.join(SHIFT_KINDS)}.",
        ]
    )
    return made


def _say(plan: RunPlan) -> int:
    """What a run would do."""
    for collector, count in plan.counts().items():
        say(f"to do: {collector}: {count} tasks")
    for damaged in plan.damaged:
        say(f"damaged: {damaged}: would be set aside and measured again")
    for item in plan.replaced:
        say(f"to remove: {item.name}: the rows of weights that were replaced")
    say(f"{sum(plan.counts().values())} tasks to do, {len(plan.done)} are done; nothing was written")
    return DONE
