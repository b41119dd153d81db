"""``export``: what tables hold, for other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from invariscope.base.errors import InputError
from invariscope.base.names import unknown
from invariscope.base.terminal import say
from invariscope.cli.common import DONE, load_tables


@dataclass(frozen=True)
class Export:
    """A wide table of checkpoints and scores (CSV, parquet), Croissant metadata, the model-index block of a model card,
    or runs for Weights & Biases or MLflow.

    Example: invariscope export out/tables --out scores.csv
    """

    tables: Positional[str]
    """Folder of tables, or its URI."""
    out: Path
    """File to write; of wandb a folder."""
    to: str | None = None
    """csv, parquet, croissant, model-index, wandb or mlflow; by default the one whose files end like --out."""
    only: str = "*"
    """Pattern of names: only such checkpoints."""
    name: str | None = None
    """Name of the data set (croissant), the model (model-index), the project (wandb) or the experiment (mlflow)."""
    license: str | None = None
    """Of croissant: address of the licence of the tables."""
    url: str | None = None
    """Of croissant and model-index: where the tables are published."""
    keep_nondeterministic: bool = False
    """Take in networks that give other logits on a second pass or in other batches."""

    def run(self) -> int:
        """Write, and print the paths."""
        from invariscope.analysis.exports import EXPORTERS, Source, exporter_of

        if self.to is not None and self.to not in EXPORTERS:
            raise InputError(f"--to: {unknown('exporter', self.to, EXPORTERS)}")
        to = self.to or exporter_of(self.out)
        exporter = EXPORTERS[to]
        given = {key: value for key in ("name", "license", "url") if (value := getattr(self, key)) is not None}
        for key in given:
            if key not in exporter.options:
                raise InputError(f"--{key} is no option of the exporter {to}: leave it out")
        out = exporter.place(self.out, self.tables)
        tables = load_tables(self.tables, keep_nondeterministic=self.keep_nondeterministic)
        for path in exporter.write(Source(tables, self.tables, self.only), out, **given):
            say(f"{to}: {path}")
        return DONE
