"""An exporter: the names of the checkpoints, a line each."""

from __future__ import annotations

from pathlib import Path

from invariscope import Exporter
from invariscope.analysis.exports.exporter import Source


def write_names(source: Source, out: Path) -> list[Path]:
    """Write them."""
    out.write_text("\n".join(source.wide.rows["checkpoint"]) + "\n")
    return [out]


NAMES = Exporter("names of the checkpoints", write_names, (".names",))
