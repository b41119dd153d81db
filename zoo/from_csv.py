"""A zoo of a table of training runs: every row is a checkpoint, its columns are factors and metrics."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from invariscope.base.errors import ManifestError
from invariscope.base.names import unknown
from invariscope.base.paths import unreadable
from invariscope.zoo.checkpoint import Checkpoint
from invariscope.zoo.datasets.inputs import InputSpec
from invariscope.zoo.manifest_entries import ENTRY_KEYS, Permissions, read_entries
from invariscope.zoo.model_string import parse_value
from invariscope.zoo.yaml_lines import LARGEST_FILE, Located

SUFFIXES = (".csv", ".tsv")

_TEXTS = ("name", "model", "weights", "key", "prefix", "labels")
"""Keys of an entry that a column of this name gives, unless the argument does."""

_MISSING = ("", "na", "n/a", "nan", "none", "null")
"""What stands in a cell that is empty, in lower case."""

_FIELD = re.compile(r"\{([^{}]*)\}")


def zoo_from_csv(
    path: str | Path,
    *,
    model: str | None = None,
    weights: str | None = None,
    name: str | None = None,
    input: InputSpec | Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
    entry: Mapping[str, Any] | None = None,
    allow_outside: bool = False,
    allow_code: bool = False,
    listed: bool = False,
    only: str = "*",
    operators: bool = True,
) -> list[Checkpoint]:
    """The checkpoints of a table of runs (``.csv`` or ``.tsv`` with a header), one per row.

    ``{column}`` in ``model``, ``weights`` and ``name`` is what stands in that column; without one of them, the column
    of that name is taken. Weights and ``python:`` files lie below the table's folder. Every other column is a factor,
    or one of the ``metrics``; empty cells are left out. Checked as a manifest is
    (:func:`invariscope.zoo.manifest.read_manifest`).

    Args:
        model: for example ``python:nets.py:Net?width={width}``.
        weights: for example ``runs/{name}.pth``, or ``pretrained``.
        name: for example ``{arch}-s{seed}``.
        input: of every network: an ``InputSpec``, or the keys of a manifest's ``input``. Networks whose library has it
            on record may do without.
        metrics: columns that are numbers measured of the networks (``top1``, or a pattern: ``val_*``): the analysis
            takes them as scores and covariates, and all other columns as factors.
        entry: further keys of every entry, as a manifest has them: ``{"prefix": "module.", "ignore": ["total_ops"]}``.
        allow_outside, allow_code, listed, only, operators: as for :func:`invariscope.zoo.manifest.read_manifest`.

    Raises:
        ManifestError: for the first problem, with file, line and what would be accepted.
    """
    path = Path(path)
    table = _read(path)
    given = {"model": model, "weights": weights, "name": name}
    settings = dict(entry or {})
    if input is not None:
        settings["input"] = input.settings() if isinstance(input, InputSpec) else dict(input)
    if unasked := [key for key in settings if key not in ENTRY_KEYS]:
        raise ManifestError(f"{path}: entry: {unknown('key', unasked[0], ENTRY_KEYS)}")
    chosen = table.metrics(metrics)
    entries = [(table.entry(row, line, given, chosen, settings), f"row {line}") for line, row in table.rows]
    return read_entries(path, entries, Permissions(allow_outside, False, operators, allow_code, listed, only))


@dataclass(frozen=True)
class _Table:
    """Rows by their line in the file, as text."""

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, dict[str, str]]]

    def metrics(self, patterns: Sequence[str]) -> set[str]:
        """The columns that names and patterns choose."""
        found: set[str] = set()
        for pattern in patterns:
            fitting = {column for column in self.columns if fnmatchcase(column, pattern)}
            if not fitting:
                raise ManifestError(f"{self.path}:1: metrics: {unknown('column', pattern, self.columns)}")
            found |= fitting
        return found

    def entry(
        self,
        row: Mapping[str, str],
        line: int,
        given: Mapping[str, str | None],
        metrics: set[str],
        settings: Mapping[str, Any],
    ) -> Located:
        """The row as an entry of a manifest."""
        made: dict[str, Any] = dict(settings)
        taken: set[str] = set()
        for key in _TEXTS:
            template = given.get(key)
            if template is not None:
                made[key] = _FIELD.sub(lambda found: self._cell(row, line, found[1]), template)
            elif key in row and key not in made:
                taken.add(key)
                if not _is_missing(row[key]):
                    made[key] = row[key].strip()
            elif key in ("model", "weights") and key not in made and not str(made.get("model")).startswith("onnx:"):
                raise ManifestError(
                    f"{self.path}:1: there is no column {key!r}, and {key} is not given: write it like "
                    f"{'python:nets.py:Net' if key == 'model' else '{name}.pth'}, with columns in braces"
                )
        if given.get("name") is not None or "{name}" in "".join(filter(None, given.values())):
            taken.add("name")
        values = {column: value for column, value in row.items() if column not in taken and not _is_missing(value)}
        made["factors"] = {**settings.get("factors", {}), **_typed(values, metrics, False)}
        made["metrics"] = {**settings.get("metrics", {}), **_typed(values, metrics, True)}
        return _located({key: value for key, value in made.items() if value != {}}, line, self.path)

    def _cell(self, row: Mapping[str, str], line: int, column: str) -> str:
        if column not in row:
            raise ManifestError(f"{self.path}:1: {{{column}}}: {unknown('column', column, self.columns)}")
        if _is_missing(row[column]):
            raise ManifestError(f"{self.path}:{line}: {column} is empty, and a name is made of it: fill it in")
        return row[column].strip()


def _typed(values: Mapping[str, str], metrics: set[str], wanted: bool) -> dict[str, Any]:
    return {column: parse_value(value.strip()) for column, value in values.items() if (column in metrics) is wanted}


def _is_missing(text: str) -> bool:
    return text.strip().lower() in _MISSING


def _located(value: Any, line: int, path: Path) -> Located:
    if isinstance(value, Mapping):
        value = {key: _located(item, line, path) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        value = [_located(item, line, path) for item in value]
    return Located(value, line, path, ManifestError)


def _read(path: Path) -> _Table:
    if reason := unreadable(path, LARGEST_FILE):
        raise ManifestError(f"{path}: is {reason}: name a table")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            separator = max("\t,;", key=header.count)
            reader = csv.reader(file, delimiter=separator, strict=True)
            lines = [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no such table: check the path") from None
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise ManifestError(f"{path}: cannot be read as a table ({problem}): save it as CSV in UTF-8") from None
    if len(lines) < 2:
        raise ManifestError(f"{path}: has no rows: write a header and a row for each checkpoint")
    columns = [cell.strip() for cell in lines[0][1]]
    if twice := [column for column in columns if column and columns.count(column) > 1]:
        raise ManifestError(f"{path}:1: two columns are called {twice[0]!r}: rename one")
    rows = []
    for line, cells in lines[1:]:
        if len(cells) != len(columns):
            raise ManifestError(
                f"{path}:{line}: the row has {len(cells)} cells and the header {len(columns)}: correct the row"
            )
        # A column without a name is the index that pandas writes.
        rows.append((line, {column: cell for column, cell in zip(columns, cells, strict=True) if column}))
    return _Table(path, tuple(filter(None, columns)), rows)
