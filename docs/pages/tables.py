"""The page of the tables and their columns, from the schema that they are written with."""

from __future__ import annotations

from invariscope.collectors.schema import (
    COLLECTORS,
    MSB_READINGS,
    OTHER_READINGS,
    PIXEL_SCORES,
    RUN_TABLES,
    SCORES,
    TABLES,
)

from .command_line import escaped

HEAD = """\
# Tables

`invariscope collect` writes one folder of parquet files per table. Every row is one measurement. A column that may be
empty is marked *may be null*. `iv.load(FOLDER)` reads them all, and so do pandas, DuckDB and polars.
"""
_OF_RUNS = {"failures": "what failed, one row per task", "timings": "how long each task took"}


def page() -> str:
    """The page, in Markdown."""
    parts = [HEAD, *map(_table, TABLES)]
    for title, names in (
        ("Scores of `invariance`", SCORES),
        ("Scores of `segmentation`", PIXEL_SCORES),
        ("Readings of MSB in `layers`", MSB_READINGS),
        ("Other readings in `layers`", OTHER_READINGS),
    ):
        parts.append(f"## {title}\n\n{', '.join(f'`{name}`' for name in names)}")
    return "\n\n".join(parts) + "\n"


def _table(name: str) -> str:
    help_ = _OF_RUNS[name] if name in RUN_TABLES else COLLECTORS[name].help
    lines = [f"## {name}", "", f"{escaped(help_[:1].upper() + help_[1:])}.", ""]
    lines += ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    for field in TABLES[name]:
        told = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
        null = " *May be null.*" if field.nullable else ""
        meaning = escaped(told["meaning"][:1].upper() + told["meaning"][1:])
        lines.append(f"| `{field.name}` | {escaped(str(field.type))} | {told['unit']} | {meaning}.{null} |")
    return "\n".join(lines)
