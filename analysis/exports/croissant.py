"""Metadata of a folder of tables as JSON-LD, by the format Croissant 1.0 of MLCommons
(https://docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from invariscope.analysis.exports.exporter import Exporter, Source
from invariscope.base.errors import TableError
from invariscope.base.files import sha256_file, write_whole
from invariscope.collectors.schema import COLLECTORS, FORMER_COLUMNS, TABLES
from invariscope.collectors.store.reader import TableReader

_CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    **{
        name: f"cr:{name}"
        for name in (
            *("citeAs", "column", "equivalentProperty", "extract", "field", "fileObject", "fileProperty", "fileSet"),
            *("format", "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet"),
            *("references", "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField"),
            "transform",
        )
    },
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
}
"""The context that the specification asks for."""

_PARQUET = "application/x-parquet"


@dataclass(frozen=True)
class _Place:
    """Where the files are said to be: beside the metadata, or at an address."""

    folder: Path
    base: str

    def of(self, path: Path) -> str:
        inside = path.relative_to(self.folder).as_posix()
        return f"{self.base}/{inside}" if self.base else inside


def write_croissant(
    source: Source, out: Path, *, name: str | None = None, license: str | None = None, url: str | None = None
) -> list[Path]:
    """The metadata of a folder of tables: every table as a record set, every column with type, unit and meaning.

    A table of one part is a file with its SHA-256; one of several is the set of its files, without: run
    ``invariscope compact`` first. Without ``url``, the address under which the folder is published, files are named
    relative to the metadata, which has to lie in the folder or above it. What is not given is left out, and readers of
    Croissant recommend all of it.

    Raises:
        TableError: the tables are no folder, or the metadata would lie beside it.
    """
    if source.folder is None or "://" in str(source.folder):
        raise TableError("croissant describes files: give the local folder that holds the tables")
    if source.only != "*":
        raise TableError("croissant describes whole tables: leave the pattern of names out")
    folder = Path(source.folder).resolve()
    made = dataset(folder, _place(folder, out.resolve().parent, url), name or folder.name, license, url)
    return [write_whole(out, (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode())]


def _place(folder: Path, beside: Path, url: str | None) -> _Place:
    if url is not None:
        return _Place(folder, url.rstrip("/"))
    if not folder.is_relative_to(beside) and beside != folder:
        raise TableError(
            f"croissant: files are named relative to it: write it into {folder}, or give --url, where it is published"
        )
    base = Path(os.path.relpath(folder, beside)).as_posix()
    return _Place(folder, "" if base == "." else base)


def dataset(folder: Path, place: _Place, name: str, license: str | None, url: str | None) -> dict[str, Any]:
    """The description of a folder of tables."""
    reader = TableReader(folder)
    parts = {table: [Path(part.path) for part in reader.parts(table)] for table in TABLES}
    parts = {table: found for table, found in parts.items() if found}
    if not parts:
        raise TableError(f"{folder}: holds no table parts; fill it with `invariscope collect ZOO --out {folder}`")
    about = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": _CONFORMS_TO,
        "name": name,
        "description": "Shift invariance of trained networks and the maximum-sampling bias of their downsampling "
        f"layers, measured by invariscope: {', '.join(parts)}.",
        "citeAs": f"Measured with invariscope {version('invariscope')}; maximum-sampling bias: Saha and Gokhale, "
        "WACV 2025, arXiv:2404.07410",
        "license": license,
        "url": url,
        "version": _digest(path for found in parts.values() for path in found),
        "distribution": [_distribution(table, found, place) for table, found in parts.items()],
        "recordSet": [_record_set(table, found) for table, found in parts.items()],
    }
    return {key: value for key, value in about.items() if value is not None}


def _digest(paths: Iterator[Path]) -> str:
    """A version that changes with the files: no two folders of other tables share it."""
    digest = hashlib.sha256("".join(sha256_file(path) for path in sorted(paths)).encode())
    return f"1.0.0+{digest.hexdigest()[:12]}"


def _distribution(table: str, parts: list[Path], place: _Place) -> dict[str, Any]:
    common = {"@id": _files(table), "name": _files(table), "encodingFormat": _PARQUET}
    if len(parts) == 1:
        size, digest = f"{parts[0].stat().st_size} B", sha256_file(parts[0])
        where = {"contentUrl": place.of(parts[0]), "contentSize": size, "sha256": digest}
        return {"@type": "cr:FileObject", **common, **where}
    return {"@type": "cr:FileSet", **common, "includes": place.of(place.folder / table / "*.parquet")}


def _record_set(table: str, parts: list[Path]) -> dict[str, Any]:
    origin = {"fileObject" if len(parts) == 1 else "fileSet": {"@id": _files(table)}}
    there = set.intersection(*(set(pq.read_schema(part).names) for part in parts))  # older parts lack some columns
    columns = [(field, FORMER_COLUMNS.get(field.name, "")) for field in TABLES[table]]
    fields = [
        _field(table, field, {**origin, "extract": {"column": field.name if field.name in there else former}})
        for field, former in columns
        if {field.name, former} & there
    ]
    about = {"failures": "tasks that failed", "timings": "how long tasks took"}.get(table)
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "description": about or COLLECTORS[table].help,
        "field": fields,
    }


def _field(table: str, field: pa.Field, origin: dict[str, Any]) -> dict[str, Any]:
    notes = {key.decode(): text.decode() for key, text in (field.metadata or {}).items()}
    unit = f" [{notes['unit']}]" if notes.get("unit") not in (None, "") else ""
    item = field.type.value_type if pa.types.is_list(field.type) else field.type
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{field.name}",
        "name": field.name,
        "description": notes.get("meaning", field.name) + unit,
        "dataType": _type(item),
        **({"repeated": True} if pa.types.is_list(field.type) else {}),
        "source": origin,
    }


def _type(of: pa.DataType) -> str:
    for fits, name in (
        (pa.types.is_boolean, "sc:Boolean"),
        (pa.types.is_integer, "sc:Integer"),
        (pa.types.is_floating, "sc:Float"),
        (pa.types.is_timestamp, "sc:DateTime"),
    ):
        if fits(of):
            return name
    return "sc:Text"


def _files(table: str) -> str:
    return f"{table}-parquet"


EXPORTER = Exporter("metadata of the folder of tables (JSON-LD, Croissant 1.0)", write_croissant, (".json", ".jsonld"))
