"""The command line of shiftscope: trained checkpoints -> parquet tables -> correlations -> figures."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg, subcommand

from zoo.errors import InputError

if TYPE_CHECKING:
    from collectors.engine import Outcome
    from collectors.tasks import Options

DONE, BAD_INPUT, WITH_FAILURES, INTERRUPTED = 0, 2, 3, 130
"""Exit codes: all done; bad input (one line says what); done, but some tasks failed; stopped by Ctrl-C."""

DEMO_IMAGES = 150
"""Test images of the demo, of 602: it is to take three minutes on two cores."""

BUNDLED_ZOO = Path(__file__).resolve().parent / "data" / "zoo"


@dataclass(frozen=True)
class Demo:
    """The bundled zoo from checkpoints to tables, statistics and figures.

    Example: shiftscope demo --out out/demo
    """

    out: Path = Path("out/demo")
    """Folder for tables/, results/ and figures/."""
    jobs: int = 2
    """Worker processes."""

    def run(self) -> int:
        """Measure, analyse, draw; print the correlations and the figures' paths."""
        from collectors.tasks import Options

        tables = self.out / "tables"
        options = Options(
            collect=("checkpoints", "layers", "invariance", "surface"),
            msb_images=100,
            surface_images=12,
        )
        code = _report(_collect(BUNDLED_ZOO, "digits", tables, options, self.jobs, limit=DEMO_IMAGES), tables)
        Analyze(tables, self.out / "results").run()
        Figures(tables, self.out / "figures").run()
        return code


@dataclass(frozen=True)
class Train:
    """Train a zoo of checkpoints from a recipe; runs that are there are kept.

    Example: shiftscope train data/zoo/recipe.yaml --out my_zoo --jobs 2
    """

    recipe: Positional[Path]
    """Recipe: defaults and grids of factors."""
    out: Path
    """Folder for the weights and zoo.yaml."""
    jobs: int = 1
    """Worker processes, one training run each at a time."""

    def run(self) -> int:
        """Train what is missing."""
        from zoo.training import train_recipe

        report = train_recipe(self.recipe, self.out, jobs=_at_least_one("--jobs", self.jobs))
        for run, error in report.failed:
            print(f"failed: {run}: {error}", file=sys.stderr)
        counts = f"{len(report.trained)} runs trained, {len(report.skipped)} were done, {len(report.failed)} failed"
        print(f"zoo: {report.manifest} ({counts})")
        return WITH_FAILURES if report.failed else DONE


@dataclass(frozen=True)
class Sites:
    """The downsampling sites of any model, as a table.

    Example: shiftscope sites timm:convnext_tiny
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

        from zoo.loading import build_model, default_input
        from zoo.sites import find_sites

        model = build_model(self.model)
        spec = default_input(self.model)
        size, channels = self.size, self.channels
        if size is None:
            size = spec.size if spec else 32 if self.model.startswith("zoo:") else 224
        if channels is None:
            first = next((layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)), None)
            channels = len(spec.mean) if spec and len(spec.mean) > 1 else first.in_channels if first else 3
        shape = [_at_least_one("--channels", channels), _at_least_one("--size", size), size]
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

    Example: shiftscope collect data/zoo --data digits --out out/tables --shift circular,zero
    """

    zoo: Positional[Path]
    """Folder with a zoo.yaml, or the file itself."""
    data: str
    """Data set: NAME[:PATH], for example digits or parquet:cifar10/test.parquet."""
    out: Path
    """Folder for the tables."""
    collect: str = "checkpoints,layers,invariance"
    """Collectors: checkpoints, layers, invariance, surface, predictions."""
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
    msb_images: int = 256
    """Images on which MSB is measured."""
    windows_per_image: int | None = None
    """Windows sampled per image and site for MSB; all by default."""
    surface_images: int = 256
    """Images on which the shift surface is measured."""
    surface_step: int = 1
    """Step of the shift surface, in input pixels."""
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
    """Worker processes."""

    def run(self) -> int:
        """Measure what is missing."""
        from collectors.tasks import Options

        options = Options(
            collect=_names(self.collect),
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
            precision=self.precision,
            fold=self.fold,
            device=self.device,
            batch_size=None if self.batch_size is None else _at_least_one("--batch-size", self.batch_size),
        )
        outcome = _collect(self.zoo, self.data, self.out, options, self.jobs, split=self.split, limit=self.limit)
        return _report(outcome, self.out)


@dataclass(frozen=True)
class Analyze:
    """Correlations and regressions of the tables: correlations.csv, regressions.csv, summary.md.

    Example: shiftscope analyze out/tables --out out/results
    """

    tables: Positional[Path]
    """Folder of tables."""
    out: Path
    """Folder for the results."""

    def run(self) -> int:
        """Analyse, print the headline, write the results."""
        from analysis import analyze, join, load, write_results

        results = analyze(join(load(self.tables)))
        for line in results.headline:
            print(line)
        for path in write_results(results, self.out):
            print(f"results: {path}")
        return DONE


@dataclass(frozen=True)
class Figures:
    """Draw the figures from the tables.

    Example: shiftscope figures out/tables --out out/figures --only msb_invariance --format png,pdf
    """

    tables: Positional[Path]
    """Folder of tables."""
    out: Path
    """Folder for the figures."""
    only: str | None = None
    """Names of figures; all by default."""
    format: str = "png"
    """File formats: png, pdf, svg."""

    def run(self) -> int:
        """Draw and print the paths."""
        from analysis import load
        from analysis.figures import save_figures

        only = _names(self.only) if self.only else None
        for path in save_figures(load(self.tables), self.out, only=only, formats=_names(self.format)):
            print(f"figure: {path}")
        return DONE


Command = Annotated[
    Annotated[Demo, subcommand("demo")]
    | Annotated[Train, subcommand("train")]
    | Annotated[Sites, subcommand("sites")]
    | Annotated[Collect, subcommand("collect")]
    | Annotated[Analyze, subcommand("analyze")]
    | Annotated[Figures, subcommand("figures")],
    OmitArgPrefixes,
    arg(name=""),
]


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _at_least_one(option: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{option} is {value}: give a whole number of at least 1")
    return value


def _collect(
    zoo: Path, data: str, out: Path, options: Options, jobs: int, *, split: str = "test", limit: int | None = None
) -> Outcome:
    from collectors.engine import collect
    from zoo.datasets import load_dataset
    from zoo.manifest import read_manifest

    checkpoints = read_manifest(zoo)
    images = load_dataset(data, split=split, limit=limit)
    try:
        return collect(checkpoints, images, out, options, jobs=_at_least_one("--jobs", jobs))
    except KeyboardInterrupt:
        print(f"\nstopped: the parts in {out} are whole; the same command goes on from there", file=sys.stderr)
        raise


def _report(outcome: Outcome, out: Path) -> int:
    print(
        f"tables: {out} ({outcome.measured} tasks measured, {outcome.found} were done, {len(outcome.failures)} failed)"
    )
    for failure in outcome.failures:
        print(f"failed: {failure}", file=sys.stderr)
    return WITH_FAILURES if outcome.failures else DONE


def _description() -> str:
    from analysis.figures import FIGURES
    from collectors.schema import SHIFT_KINDS
    from collectors.tasks import COLLECTORS
    from zoo.architectures import ARCHITECTURES
    from zoo.datasets import DATASETS
    from zoo.operators import OPERATORS

    known = {
        "Operators": OPERATORS,
        "Architectures": ARCHITECTURES,
        "Data sets": DATASETS,
        "Collectors": COLLECTORS,
        "Shift kinds": SHIFT_KINDS,
        "Figures": FIGURES,
    }
    return "\n\n".join([__doc__ or "", *(f"{title}: {', '.join(names)}." for title, names in known.items())])


def parse(arguments: Sequence[str] | None = None) -> Demo | Train | Sites | Collect | Analyze | Figures:
    """The command that the arguments ask for; exits with code 2 where they ask for none."""
    import tyro

    return tyro.cli(Command, prog="shiftscope", description=_description(), args=arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    from analysis.errors import TableError

    command = parse(arguments)
    try:
        return command.run()
    except (InputError, TableError) as error:
        print(f"shiftscope: {error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
