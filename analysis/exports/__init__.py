"""Doors to other tools: what the tables hold, written as those tools read it. Each is one file and one line here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.base.errors import TableError
from invariscope.base.registry import Registry

if TYPE_CHECKING:
    from invariscope.analysis.tables.load import Tables


def _check(name: str, target: Any) -> None:
    if not isinstance(target, Exporter):
        raise TableError(f"exporter {name!r} is a {type(target).__name__}: give an Exporter")


EXPORTERS = Registry(
    "exporter",
    {
        "csv": "invariscope.analysis.exports.wide_files:CSV",
        "parquet": "invariscope.analysis.exports.wide_files:PARQUET",
        "croissant": "invariscope.analysis.exports.croissant:EXPORTER",
        "model-index": "invariscope.analysis.exports.model_index:EXPORTER",
        "wandb": "invariscope.analysis.exports.wandb_runs:EXPORTER",
        "mlflow": "invariscope.analysis.exports.mlflow_runs:EXPORTER",
    },
    TableError,
    group="invariscope.exporters",
    check=_check,
)
"""Every exporter by name."""


def register_exporter(name: str, exporter: Exporter) -> None:
    """Make an exporter known by name for this process.

    Raises:
        TableError: the name is taken, or this is no :class:`Exporter`.
    """
    EXPORTERS.add(name, exporter)


def export(
    tables: Tables | Path | str,
    out: Path | str,
    *,
    to: str | None = None,
    only: str = "*",
    keep_nondeterministic: bool = False,
    **options: Any,
) -> list[Path]:
    """Write what tables hold for another tool; returns the paths.

    ``csv`` and ``parquet``: :func:`wide_table`, with unit and meaning of every column. ``croissant``: metadata
    (JSON-LD, MLCommons Croissant 1.0) of the folder of tables itself. ``model-index``: the scores of one checkpoint as
    the block that a model card of Hugging Face has (YAML). ``wandb``, ``mlflow``: a run per training run with its
    scores, for these clients, in a local folder; nothing is sent anywhere.

    Args:
        tables: :class:`Tables`, or the folder that holds them.
        out: file or folder to write.
        to: name of an exporter; by default the one whose files end like ``out``.
        only: pattern of names; only such checkpoints.
        keep_nondeterministic: as :func:`load` has it, for tables that are a folder.
        options: of the exporter: ``name`` (of the data set, model or project), ``license`` and ``url``.

    Raises:
        TableError: no such exporter, an option that it does not have, no such checkpoint, or nothing to write.
        OutputError: ``out`` cannot be written to, or lies within one of the tables.
        MissingPackageError: the client is not installed.
    """
    from invariscope.analysis.tables.load import Tables, load

    exporter = EXPORTERS[to or exporter_of(out)]
    for option in options:
        if option not in exporter.options:
            raise TableError(f"{option} is no option of the exporter {to or exporter_of(out)}: leave it out")
    out = exporter.place(out, None if isinstance(tables, Tables) else tables)
    if isinstance(tables, Tables):
        source = Source(tables, None, only)
    else:
        source = Source(load(tables, keep_nondeterministic=keep_nondeterministic), tables, only)
    return exporter.write(source, out, **options)


def exporter_of(out: Path | str) -> str:
    """The name of the exporter whose files end like ``out``.

    Raises:
        TableError: none has such files.
    """
    ending = Path(out).suffix.lower()
    for name, exporter in EXPORTERS.working().items():
        if ending in exporter.suffixes:
            return name
    endings = ", ".join(one for exporter in EXPORTERS.working().values() for one in exporter.suffixes)
    raise TableError(f"{out}: its ending names no exporter ({endings}); say which one: {', '.join(EXPORTERS)}")
