"""The command line of invariscope: trained checkpoints -> parquet tables -> correlations -> figures and a report."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from invariscope import data
from invariscope.base.errors import InputError
from invariscope.collectors.tables.robustness_flags import RobustnessFlags

if TYPE_CHECKING:
    from invariscope.analysis import Results, Tables
    from invariscope.analysis.drawing import Drawn
    from invariscope.collectors.engine.planning import Plan
    from invariscope.collectors.engine.run import Outcome
    from invariscope.collectors.tables.tasks import Options
    from invariscope.zoo.datasets.source import DataSource
    from invariscope.zoo.manifest import Checkpoint

DONE, BAD_INPUT, WITH_FAILURES, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: all done; bad input (one line says what); done, but some tasks failed; stopped by Ctrl-C."""

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

    def run(self) -> int:
        """Measure, analyse, draw, report; print the correlations and the paths."""
        from invariscope.collectors.tables.tasks import Options
        from invariscope.zoo.datasets.source import DataSource
        from invariscope.zoo.manifest import read_manifest

        tables = self.out / "tables"
        if self.task == "segmentation":
            zoo, images = data.SEGMENTATION_ZOO, DataSource("shapes:32", limit=DEMO_SCENES)
            options = Options(("checkpoints", "layers", "segmentation"), ("circular", "zero", "crop"), msb_images=100)
        else:
            zoo, images = data.ZOO, DataSource("digits", limit=DEMO_IMAGES)
            collected = ("checkpoints", "layers", "invariance", "surface")
            options = Options(collected, msb_images=100, surface_images=12)
        jobs = _at_least_one("--jobs", self.jobs)
        checkpoints = read_manifest(zoo, operators=False)
        code = _report(
            _collect(checkpoints, images, tables, options, jobs=jobs, command=f"invariscope: {self}"), tables
        )
        loaded, results = _analyze(str(tables), self.out / "results")
        drawn = _draw(loaded, self.out / "figures")
        _write_report(loaded, self.out / "report.html", results=results, drawn=drawn)
        return code


@dataclass(frozen=True)
class Train:
    """Train a zoo of checkpoints from a recipe; runs that are there are kept, an interrupted one goes on.

    Example: invariscope train data/zoo/recipe.yaml --out my_zoo --jobs 2
    """

    recipe: Positional[Path]
    """Recipe: defaults and grids of factors."""
    out: Path
    """Folder for the weights and zoo.yaml."""
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
        from invariscope.zoo.training import Conditions, train_recipe

        if _at_least_one("--threads", self.threads) > 1 and self.jobs > 1:
            raise InputError("--threads is for one job: leave out --jobs or --threads")
        conditions = Conditions(self.device, self.threads, self.save_every)
        jobs = _at_least_one("--jobs", self.jobs)
        report = train_recipe(self.recipe, self.out, jobs=jobs, conditions=conditions)
        for note in report.notes:
            print(note, file=sys.stderr)
        for run, error in report.failed:
            print(f"failed: {run}: {error}", file=sys.stderr)
        counts = f"{len(report.trained)} runs trained, {len(report.skipped)} were done, {len(report.failed)} failed"
        print(f"zoo: {report.manifest} ({counts})")
        return WITH_FAILURES if report.failed else DONE


@dataclass(frozen=True)
class Sites:
    """The downsampling sites of any model, as a table.

    Example: invariscope sites timm:convnext_tiny
    """

    model: Positional[str]
    """Model string: zoo:NAME?operator=..., python:FILE.py:CALLABLE, timm:NAME or torchvision:NAME."""
    size: int | None = None
    """Height and width of the input, in pixels; by default what the model's library has on record, or 32 for zoo:."""
    channels: int | None = None
    """Channels of the input; by default those of the record, or of the first convolution."""
    json: bool = False
    """Print JSON instead of a table."""

    def run(self) -> int:
        """Print the sites."""
        import pandas as pd
        import torch

        from invariscope.zoo.loading import build_model, default_input
        from invariscope.zoo.sites import find_sites

        model = build_model(self.model)
        spec = default_input(self.model)
        channels = self.channels
        if self.size is not None:
            sides = [_at_least_one("--size", self.size)] * 2
        else:
            sides = [spec.height, spec.width] if spec else [32 if self.model.startswith("zoo:") else 224] * 2
        if channels is None:
            first = next((layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)), None)
            channels = len(spec.mean) if spec and len(spec.mean) > 1 else first.in_channels if first else 3
        shape = [_at_least_one("--channels", channels), *sides]
        rows = [dataclasses.asdict(site) for site in find_sites(model, torch.zeros(1, *shape))]
        if self.json:
            print(json.dumps(rows, indent=1))
            return DONE
        count = f"{len(rows)} downsampling site{'s' * (len(rows) != 1)}" if rows else "no downsampling site"
        print(f"{self.model}: {count} (input {' x '.join(map(str, shape))})")
        if rows:
            cells = [{name: _cell(value) for name, value in row.items() if name != "path"} for row in rows]
            print(pd.DataFrame(cells).to_string(index=False))
        return DONE


def _cell(value: object) -> str:
    """An entry of a printed table: sizes as 2x2, nothing for None."""
    return "x".join(map(str, value)) if isinstance(value, tuple) else "" if value is None else str(value)


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
        checkpoints = [checkpoint for checkpoint in every if fnmatchcase(checkpoint.name, self.only)]
        options = Options(
            collect=default_collectors(checkpoints) if self.collect is None else _names(self.collect),
            shift=_names(self.shift),
            max_shift=self.max_shift,
            n_shifts=self.n_shifts,
            fill=self.fill,
            crop_size=self.crop_size,
            seed=self.seed,
            msb_images=self.msb_images,
            windows_per_image=self.windows_per_image,
            surface_images=self.surface_images,
            surface_step=self.surface_step,
            swap_to=_names(self.swap_to),
            swap_images=self.swap_images,
            cost_batch=self.cost_batch,
            cost_repeats=self.cost_repeats,
            precision=self.precision,
            fold=self.fold,
            device=self.device,
            batch_size=None if self.batch_size is None else _at_least_one("--batch-size", self.batch_size),
            robustness=self.robustness.options(),
        )
        if self.scheduler and not self.backend:
            raise InputError("--scheduler is the address of a backend's: give --backend dask as well")
        _at_least_one("--jobs", self.jobs)
        images = DataSource(self.data, self.split, self.limit)
        if not checkpoints:
            raise InputError(
                f"--only {self.only}: no checkpoint of {self.zoo} has such a name ({every[0].name} is one)"
            )
        if self.dry_run:
            return _say(plan_run(checkpoints, images, self.out, options))
        outcome = _collect(
            checkpoints,
            images,
            self.out,
            options,
            jobs=self.jobs,
            cluster=Cluster(self.backend, self.scheduler) if self.backend else None,
            time_limit=self.time_limit,
            command=f"invariscope collect: {self}",
        )
        return _report(outcome, self.out)


@dataclass(frozen=True)
class Status:
    """How far a folder of tables is: what is done, what of a zoo is to do, what failed and why.

    Example: invariscope status out/tables data/zoo
    """

    tables: Positional[str]
    """Folder of tables."""
    zoo: Positional[Path | None] = None
    """Zoo whose checkpoints are looked for in the tables."""

    def run(self) -> int:
        """Print the state."""
        from invariscope.collectors.engine.status import status
        from invariscope.zoo.manifest import read_manifest

        found = status(self.tables, read_manifest(self.zoo, operators=False) if self.zoo else None)
        print(f"tables: {self.tables} ({found.parts} parts)")
        for condition in found.conditions:
            print(condition)
        for failure, count in found.failures.items():
            print(f"failed: {failure} ({count} task{'s' * (count > 1)})")
        print(f"last run: {found.last_run}")
        return DONE


@dataclass(frozen=True)
class Compact:
    """Put the many parts of a folder of tables together into few, which are read faster; collect goes on from them.

    Example: invariscope compact out/tables
    """

    tables: Positional[str]
    """Folder of tables."""

    def run(self) -> int:
        """Compact every table."""
        from invariscope.collectors.store.compaction import compact

        for table in compact(self.tables):
            print(table)
        print(f"tables: {self.tables} (compact)")
        return DONE


@dataclass(frozen=True)
class Analyze:
    """Correlations, regressions, influence and designs of the tables as CSV files, and summary.md in words.

    Example: invariscope analyze out/tables --out out/results --power
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """Folder for the results."""
    power: bool = False
    """Also say how many operators, runs and checkpoints it takes to see r = -0.3: power.csv."""

    def run(self) -> int:
        """Analyse, print the headline, write the results."""
        _analyze(self.tables, self.out, with_power=self.power)
        return DONE


@dataclass(frozen=True)
class Figures:
    """Draw the figures, and write the tables of the paper (CSV, Markdown and LaTeX), from the tables.

    Example: invariscope figures out/tables --out out/figures --only msb_invariance --format png,pdf
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """Folder for the figures."""
    only: str | None = None
    """Names of figures and of tables of the paper; all by default."""
    format: str = "png"
    """File formats of figures: png, pdf, svg."""

    def run(self) -> int:
        """Draw and print the paths."""
        from invariscope.analysis import load

        _draw(load(self.tables), self.out, only=_names(self.only) if self.only else None, formats=_names(self.format))
        return DONE


@dataclass(frozen=True)
class Report:
    """One self-contained HTML page: findings in words, an interactive scatter, figures, sortable tables.

    Example: invariscope report out/tables --out report.html
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """The page to write."""

    def run(self) -> int:
        """Analyse, draw, write the page."""
        from invariscope.analysis import load

        _write_report(load(self.tables), self.out)
        return DONE


Command = Annotated[
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Sites, subcommand("sites")]
    | Annotated[Collect, subcommand("collect")]
    | Annotated[Status, subcommand("status")]
    | Annotated[Compact, subcommand("compact")]
    | Annotated[Analyze, subcommand("analyze")]
    | Annotated[Figures, subcommand("figures")]
    | Annotated[Report, subcommand("report")],
    OmitArgPrefixes,
    arg(name=""),
]


def _names(text: str) -> tuple[str, ...]:
    """The names in a list; a comma in brackets, as in ``ddac(3, 2)``, does not end one."""
    return tuple(name.strip() for name in re.split(r",(?![^()]*\))", text) if name.strip())


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{option} is {value}: give a whole number of at least 1")
    return value


def _collect(
    checkpoints: Sequence[Checkpoint], images: DataSource, out: Path | str, options: Options, **how: Any
) -> Outcome:
    from invariscope.collectors.engine.run import collect

    try:
        return collect(checkpoints, images, out, options, **how)
    except KeyboardInterrupt:
        print(f"\nstopped: the parts in {out} are whole; the same command goes on from there", file=sys.stderr)
        raise


def _say(plan: Plan) -> int:
    """What a run would do."""
    for collector, count in plan.counts().items():
        print(f"to do: {collector}: {count} tasks")
    for item in plan.replaced:
        print(f"to remove: {item.name}: the rows of weights that were replaced")
    print(f"{sum(plan.counts().values())} tasks to do, {len(plan.done)} are done; nothing was written")
    return DONE


def _report(outcome: Outcome, out: Path | str) -> int:
    print(
        f"tables: {out} ({outcome.measured} tasks measured, {outcome.found} were done, {len(outcome.failures)} failed)"
    )
    if outcome.batch_sizes:
        name, size = next(iter(outcome.batch_sizes.items()))
        count = len(outcome.batch_sizes)
        print(
            f"out of memory: measured {count} checkpoint{'s' * (count > 1)} in smaller batches ({name}: {size} images)",
            file=sys.stderr,
        )
    for failure in outcome.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return WITH_FAILURES if outcome.failures else DONE


def _analyze(folder: str, out: Path, *, with_power: bool = False) -> tuple[Tables, Results]:
    from invariscope.analysis import load, write_results
    from invariscope.analysis.pixels import analyze_all, analyze_pixels, has_images, has_pixels, joined
    from invariscope.analysis.stats.power import power, power_in_words

    tables = load(folder)
    results = analyze_all(tables)
    powers = power(joined(tables)) if with_power else None
    for line in [*results.headline, *([] if powers is None else power_in_words(powers))]:
        print(line)
    written = write_results(results, out, powers)
    if has_images(tables) and has_pixels(tables):
        pixels = analyze_pixels(tables)
        print("\n".join(pixels.headline))
        written += write_results(pixels, out / "segmentation")
    for path in written:
        print(f"results: {path}")
    return tables, results


def _draw(tables: Tables, out: Path, *, only: Sequence[str] | None = None, formats: Sequence[str] = ("png",)) -> Drawn:
    from invariscope.analysis.drawing import draw_figures
    from invariscope.analysis.figures import known_formats

    known_formats(formats)
    drawn = draw_figures(tables, only)
    names: dict[str, list[str]] = {}
    for name, reason in drawn.reasons.items():
        names.setdefault(reason, []).append(name)
    for reason, skipped in names.items():
        print(f"skipped {', '.join(skipped)}: {reason}", file=sys.stderr)
    for path in drawn.write(out, formats):
        print(f"{'table' if path.stem in drawn.tables else 'figure'}: {path}")
    return drawn


def _write_report(tables: Tables, out: Path, *, results: Results | None = None, drawn: Drawn | None = None) -> None:
    from invariscope.analysis.report import write_report

    print(f"report: {write_report(tables, out, results=results, drawn=drawn)}")


def _description() -> str:
    from invariscope.analysis.figures import FIGURES
    from invariscope.analysis.publication import PAPER_TABLES
    from invariscope.collectors.schema import SHIFT_KINDS
    from invariscope.collectors.tables.tasks import COLLECTORS
    from invariscope.zoo.architectures import ARCHITECTURES
    from invariscope.zoo.datasets import DATASETS
    from invariscope.zoo.operators import OPERATORS

    known = {
        "Operators": OPERATORS,
        "Architectures": ARCHITECTURES,
        "Data sets": DATASETS,
        "Collectors": COLLECTORS,
        "Shift kinds": SHIFT_KINDS,
        "Figures": FIGURES,
        "Tables of the paper": PAPER_TABLES,
    }
    return "\n\n".join([__doc__ or "", *(f"{title}: {', '.join(names)}." for title, names in known.items())])


def parse(
    arguments: Sequence[str] | None = None,
) -> Demo | Train | Sites | Collect | Status | Compact | Analyze | Figures | Report:
    """The command that the arguments ask for; exits with code 2 where they ask for none."""
    import tyro

    return tyro.cli(Command, prog="invariscope", description=_description(), args=arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    from invariscope.base.errors import TableError

    command = parse(arguments)
    try:
        return command.run()
    except (InputError, TableError) as error:
        print(f"invariscope: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
